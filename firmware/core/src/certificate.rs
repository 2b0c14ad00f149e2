//! Certificates and invitations: who may be in the town (`docs/protocol.md`, Certificate and Invitation).
//!
//! A steward's key signs for nodes, or signs an invitation whose holder signs for one's own node. The node's identity
//! signs too, so nobody can name another's identity in a certificate for a key of his own. Checking needs no clock and no network.

use alloc::vec::Vec;

use ed25519_dalek::{Signer, SigningKey};
use grange_wire::{
    Admission, Certificate, CertificateFormatError, CertificateWriter, Grant, Invitation, NodeId, TownId,
};
use zeroize::Zeroizing;

use crate::identity::{Identity, digest, verify as verify_signature};

/// The steward's signature for a node.
const CONTEXT_STEWARD: &str = "grange v1 certificate";
/// The steward's signature over an invitation's [`Grant`].
const CONTEXT_INVITATION: &str = "grange v1 invitation";
/// The invitation key's signature for a node.
const CONTEXT_INVITED: &str = "grange v1 invited certificate";
/// The identity's signature over its own certificate.
const CONTEXT_CONSENT: &str = "grange v1 certificate consent";

/// Why a certificate or an invitation is not good in a town.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The bytes are no certificate.
    #[error(transparent)]
    Format(#[from] CertificateFormatError),
    /// The signer is no steward of the town, or of another one.
    #[error("it belongs to another town")]
    Town,
    /// It names another link key than the handshake proved.
    #[error("it was made for another link key")]
    StaticKey,
    /// The steward's signature is wrong.
    #[error("the steward's signature is wrong")]
    Steward,
    /// The invitation key's signature is wrong.
    #[error("the invitation's signature is wrong")]
    Invited,
    /// The identity's own signature is wrong.
    #[error("the node's own signature is wrong")]
    Consent,
    /// It was made after its invitation expired.
    #[error("it was made after its invitation expired")]
    Expired,
}

/// What a certificate that passed [`verify`] or [`check`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The Ed25519 public key of the steward who signed it or its invitation.
    pub signer: [u8; 32],
    /// The node's id.
    pub id: NodeId,
    /// The node's Ed25519 public key.
    pub identity: [u8; 32],
    /// Second of mesh time (Unix time) at which it was made, as the node says; 0: unknown.
    pub issued: u64,
    /// The invitation that the node came by; `None` if the steward signed for it.
    pub grant: Option<Grant>,
}

/// A steward's key. That of the founder names the town.
pub struct Steward {
    signing: SigningKey,
    town: TownId,
}

impl Steward {
    /// The founder's key that follows from a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing = signing_key("grange v1 steward key", seed);
        let town = TownId::of_founder(&signing.verifying_key().to_bytes());
        Self { signing, town }
    }

    /// The key that follows from a 32-byte seed, of a steward of a town that may have another founder.
    #[must_use]
    pub fn of_town(seed: &[u8; 32], town: TownId) -> Self {
        Self { signing: signing_key("grange v1 steward key", seed), town }
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The town that this is a steward of.
    #[must_use]
    pub fn town(&self) -> TownId {
        self.town
    }

    /// Makes an invitation to the town.
    ///
    /// `seed` must be fresh random bytes: who has them can join. `uses` is for how many nodes it is meant (0: any
    /// number), `expires` the second of Unix time from which it is void (0: never).
    #[must_use]
    pub fn invite(
        &self,
        town_key: &[u8; 32],
        name: grange_wire::TownName,
        uses: u16,
        expires: u64,
        seed: &[u8; 32],
    ) -> Invitation {
        let key = invitation_key(seed).verifying_key().to_bytes();
        let grant = Grant { key, uses, expires };
        Invitation {
            uses,
            expires,
            town_key: *town_key,
            town: self.town,
            signer: self.public(),
            seed: *seed,
            signature: self.sign(CONTEXT_INVITATION, &grant.to_bytes()),
            name,
        }
    }

    /// Signs the hash of `context` and `parts`, as [`Identity::sign`] does.
    #[must_use]
    pub fn sign_parts(&self, context: &str, parts: &[&[u8]]) -> [u8; 64] {
        self.signing.sign(&digest(context, parts)).to_bytes()
    }

    fn sign(&self, context: &str, covered: &[u8]) -> [u8; 64] {
        self.sign_parts(context, &[&self.town().0, covered])
    }
}

/// The steward lets a node in. `issued`: second of Unix time, 0 if unknown.
#[must_use]
pub fn by_steward(steward: &Steward, identity: &Identity, issued: u64) -> Vec<u8> {
    let writer = CertificateWriter::new(&identity.public(), &identity.link_public(), &steward.public(), issued, None);
    let signature = steward.sign(CONTEXT_STEWARD, writer.as_bytes());
    with_consent(writer.signature(&signature), identity, &steward.town())
}

/// The holder of an invitation lets the own node in. `issued`: second of Unix time, 0 if unknown.
///
/// # Errors
/// If the invitation's signature is wrong, or it expired before `issued`.
pub fn by_invitation(invitation: &Invitation, identity: &Identity, issued: u64) -> Result<Vec<u8>, CertificateError> {
    let grant = check_invitation(invitation)?;
    if expired(&grant, issued) {
        return Err(CertificateError::Expired);
    }
    let town = invitation.town;
    let writer =
        CertificateWriter::new(&identity.public(), &identity.link_public(), &invitation.signer, issued, Some(&grant))
            .signature(&invitation.signature);
    let covered = digest(CONTEXT_INVITED, &[&town.0, writer.as_bytes()]);
    let signature = invitation_key(&invitation.seed).sign(&covered).to_bytes();
    Ok(with_consent(writer.signature(&signature), identity, &town))
}

/// What an invitation allows, if its steward signed it.
///
/// # Errors
/// [`CertificateError::Steward`] if the signature is not that of the steward it names.
pub fn check_invitation(invitation: &Invitation) -> Result<Grant, CertificateError> {
    let grant = Grant {
        key: invitation_key(&invitation.seed).verifying_key().to_bytes(),
        uses: invitation.uses,
        expires: invitation.expires,
    };
    let town = invitation.town;
    let good =
        verify_signature(&invitation.signer, CONTEXT_INVITATION, &[&town.0, &grant.to_bytes()], &invitation.signature);
    if good { Ok(grant) } else { Err(CertificateError::Steward) }
}

/// Checks a certificate: that it was signed by the founder of `town`, that it binds `static_key` (the X25519 key that the
/// handshake proved) to the identity it names, and all its signatures.
///
/// # Errors
/// The first thing that is wrong. Cheap checks come before signatures.
pub fn verify(bytes: &[u8], town: &TownId, static_key: &[u8; 32]) -> Result<Verified, CertificateError> {
    verify_by(bytes, town, static_key, |signer| TownId::of_founder(signer) == *town)
}

/// As [`verify`], but whose signature counts is for `steward` to say: in a town with logs, any steward's that ever was. Whether
/// the invitation still stood when the node came is for the fold of those logs.
///
/// # Errors
/// As [`verify`].
pub fn verify_by(
    bytes: &[u8],
    town: &TownId,
    static_key: &[u8; 32],
    steward: impl FnOnce(&[u8; 32]) -> bool,
) -> Result<Verified, CertificateError> {
    let certificate = Certificate::parse(bytes)?;
    if !steward(&certificate.signer()) {
        return Err(CertificateError::Town);
    }
    if certificate.static_key() != *static_key {
        return Err(CertificateError::StaticKey);
    }
    check(bytes, town)
}

/// Checks all signatures of a certificate for `town`, whoever signed it; who that is stands in the result.
///
/// Expiry is checked against the certificate's own date and no clock: a node that joined in time stays a member.
///
/// # Errors
/// The first thing that is wrong. Cheap checks come before signatures.
pub fn check(bytes: &[u8], town: &TownId) -> Result<Verified, CertificateError> {
    let certificate = Certificate::parse(bytes)?;
    let signer = certificate.signer();
    let check = |public: &[u8; 32], context, covered: &[u8], signature: &[u8; 64], error| {
        if verify_signature(public, context, &[&town.0, covered], signature) { Ok(()) } else { Err(error) }
    };
    let grant = match certificate.admission() {
        Admission::Steward { covered, signature } => {
            check(&signer, CONTEXT_STEWARD, covered, signature, CertificateError::Steward)?;
            None
        }
        Admission::Invitation { grant, grant_bytes, signature, covered, invited } => {
            if expired(&grant, certificate.issued()) {
                return Err(CertificateError::Expired);
            }
            check(&signer, CONTEXT_INVITATION, grant_bytes, signature, CertificateError::Steward)?;
            check(&grant.key, CONTEXT_INVITED, covered, invited, CertificateError::Invited)?;
            Some(grant)
        }
    };
    let identity = certificate.identity();
    let (covered, signature) = certificate.consent();
    check(&identity, CONTEXT_CONSENT, covered, &signature, CertificateError::Consent)?;
    Ok(Verified { signer, id: NodeId::of_key(&identity), identity, issued: certificate.issued(), grant })
}

/// Whether a node that joined at `issued` came too late. Zero on either side means that nobody knows.
fn expired(grant: &Grant, issued: u64) -> bool {
    grant.expires != 0 && issued >= grant.expires
}

fn with_consent(writer: CertificateWriter, identity: &Identity, town: &TownId) -> Vec<u8> {
    let signature = identity.sign(CONTEXT_CONSENT, &[&town.0, writer.as_bytes()]);
    writer.signature(&signature).as_bytes().to_vec()
}

fn invitation_key(seed: &[u8; 32]) -> SigningKey {
    signing_key("grange v1 invitation key", seed)
}

fn signing_key(context: &str, seed: &[u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&Zeroizing::new(blake3::derive_key(context, seed)))
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use grange_wire::TownName;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const GOLDEN_TOWN: &str = "b9b6b4485edec2e61ce97314feab29ce";
    const GOLDEN_NODE: &str = "222d17338ecfac961be6653687fe5f8dc55148d721eb6fe39931566a69b41de3";
    const GOLDEN_BY_STEWARD: &str = "8b09a0be8d24c244569fd01b0d11116e218a09193596f92df408d9c7d9d21c65";
    const GOLDEN_BY_INVITATION: &str = "9e11e217dccb5ee0d941ca5d1a57c6ed214d08a2af2eea00e307a0b087259143";
    const GOLDEN_INVITATION: &str = "grange1aeaaabiaaaaaa22j2jsagaydambqgaydambqgaydambqgaydambqgaydambqgaydambqga7otzluw7yvn5akwoc3tqq5i3vuq6j4qvg7fv4hwx3shlb6ld5kficaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcai4xpm6jolwqjbxgzbic5tcm43tpxhuek3rflsanjaob4et532mzyv4erbqqpvpkolse77gmcvqblsffowtyjkasymevdqk5wqiyj2qbaqt3cmvzgi33smyf3risv";

    fn steward() -> Steward {
        Steward::from_seed(&[1; 32])
    }

    fn node() -> Identity {
        Identity::from_seed(&[2; 32])
    }

    fn invitation() -> Invitation {
        steward().invite(&[3; 32], TownName::new("Oberdorf").unwrap(), 5, NOW + 100, &[4; 32])
    }

    fn check(bytes: &[u8]) -> Result<Verified, CertificateError> {
        verify(bytes, &steward().town(), &node().link_public())
    }

    fn hash(bytes: &[u8]) -> String {
        std::format!("{}", blake3::hash(bytes))
    }

    /// Ed25519 is deterministic: whoever makes these from the same seeds, in any language and byte order, gets these bytes.
    #[test]
    fn golden_vectors() {
        assert_eq!(std::format!("{}", steward().town()), GOLDEN_TOWN);
        assert_eq!(std::format!("{}", node().id()), GOLDEN_NODE);
        assert_eq!(hash(&by_steward(&steward(), &node(), NOW)), GOLDEN_BY_STEWARD);
        assert_eq!(hash(&by_invitation(&invitation(), &node(), NOW).unwrap()), GOLDEN_BY_INVITATION);
        let mut text = String::new();
        invitation().write_text(&mut text).unwrap();
        assert_eq!(text, GOLDEN_INVITATION);
        assert_eq!(Invitation::from_text(&text), Ok(invitation()));
    }

    #[test]
    fn good_certificates_say_who_it_is() {
        let verified = check(&by_steward(&steward(), &node(), NOW)).unwrap();
        assert_eq!((verified.id, verified.identity), (node().id(), node().public()));
        assert_eq!((verified.issued, verified.grant), (NOW, None));
        let verified = check(&by_invitation(&invitation(), &node(), NOW).unwrap()).unwrap();
        assert_eq!(verified.id, node().id());
        let grant = verified.grant.unwrap();
        assert_eq!((grant.uses, grant.expires), (5, NOW + 100));
    }

    #[test]
    fn no_single_bit_can_be_changed() {
        for good in [by_steward(&steward(), &node(), NOW), by_invitation(&invitation(), &node(), NOW).unwrap()] {
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn another_stewards_certificates_are_good_where_it_counts() {
        let town = steward().town();
        let second = Steward::of_town(&[7; 32], town);
        let invited = second.invite(&[3; 32], TownName::new("Oberdorf").unwrap(), 1, 0, &[4; 32]);
        let mut text = String::new();
        invited.write_text(&mut text).unwrap();
        let invited = Invitation::from_text(&text).unwrap();
        for good in [by_steward(&second, &node(), NOW), by_invitation(&invited, &node(), NOW).unwrap()] {
            assert_eq!(super::check(&good, &town).unwrap().signer, second.public());
            let counts = |signer: &[u8; 32]| *signer == second.public();
            assert!(verify_by(&good, &town, &node().link_public(), counts).is_ok());
            assert_eq!(verify_by(&good, &town, &[7; 32], counts), Err(CertificateError::StaticKey));
            // Not where only the founder's word counts, nor in the town that the key would name by itself.
            assert_eq!(verify(&good, &town, &node().link_public()), Err(CertificateError::Town));
            assert_eq!(
                verify(&good, &TownId::of_founder(&second.public()), &node().link_public()),
                Err(CertificateError::Steward)
            );
        }
    }

    #[test]
    fn another_town_or_link_key_is_refused() {
        let good = by_steward(&steward(), &node(), NOW);
        let other_town = Steward::from_seed(&[9; 32]).town();
        assert_eq!(verify(&good, &other_town, &node().link_public()), Err(CertificateError::Town));
        assert_eq!(verify(&good, &steward().town(), &[7; 32]), Err(CertificateError::StaticKey));
    }

    /// A certificate by invitation whose signatures are those of the given keys.
    fn forged(grant: &Grant, by: &Steward, holder: &SigningKey, identity: &Identity, consent: &Identity) -> Vec<u8> {
        let town = steward().town();
        let signature = by.signing.sign(&digest(CONTEXT_INVITATION, &[&town.0, &grant.to_bytes()])).to_bytes();
        let writer =
            CertificateWriter::new(&identity.public(), &node().link_public(), &steward().public(), NOW, Some(grant))
                .signature(&signature);
        let invited = holder.sign(&digest(CONTEXT_INVITED, &[&town.0, writer.as_bytes()])).to_bytes();
        with_consent(writer.signature(&invited), consent, &town)
    }

    #[test]
    fn forgeries_fail_where_they_are_forged() {
        let holder = invitation_key(&[4; 32]);
        let key = holder.verifying_key().to_bytes();
        let grant = Grant { key, uses: 5, expires: NOW + 100 };
        assert!(check(&forged(&grant, &steward(), &holder, &node(), &node())).is_ok());

        // Invited by somebody who is not the steward.
        let stranger = Steward::from_seed(&[8; 32]);
        assert_eq!(check(&forged(&grant, &stranger, &holder, &node(), &node())), Err(CertificateError::Steward));
        // With an invitation that somebody else holds.
        let thief = invitation_key(&[5; 32]);
        assert_eq!(check(&forged(&grant, &steward(), &thief, &node(), &node())), Err(CertificateError::Invited));
        // In the name of a node that did not agree.
        let victim = Identity::from_seed(&[6; 32]);
        assert_eq!(check(&forged(&grant, &steward(), &holder, &victim, &node())), Err(CertificateError::Consent));
        // After the invitation expired.
        let late = Grant { expires: NOW, ..grant };
        assert_eq!(check(&forged(&late, &steward(), &holder, &node(), &node())), Err(CertificateError::Expired));
    }

    #[test]
    fn the_signatures_of_one_kind_are_none_of_the_other() {
        // The steward's signature for a node, presented as one over an invitation for any number of nodes.
        let by_steward = by_steward(&steward(), &node(), NOW);
        let Admission::Steward { signature, .. } = Certificate::parse(&by_steward).unwrap().admission() else {
            panic!("not by the steward")
        };
        let mut invitation = invitation();
        invitation.signature = *signature;
        assert_eq!(check_invitation(&invitation), Err(CertificateError::Steward));
        assert_eq!(by_invitation(&invitation, &node(), NOW), Err(CertificateError::Steward));
    }

    #[test]
    fn an_invitation_cannot_be_stretched() {
        for change in [|i: &mut Invitation| i.uses = 6, |i: &mut Invitation| i.expires = 0] {
            let mut stretched = invitation();
            change(&mut stretched);
            assert_eq!(check_invitation(&stretched), Err(CertificateError::Steward));
        }
        assert_eq!(by_invitation(&invitation(), &node(), NOW + 100), Err(CertificateError::Expired));
        // Without a clock nobody can tell; the invitation is taken.
        assert!(check(&by_invitation(&invitation(), &node(), 0).unwrap()).is_ok());
    }
}
