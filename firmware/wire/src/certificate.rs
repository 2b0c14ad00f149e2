//! A node's certificate as bytes (`docs/protocol.md`, Certificate): who the node is, and who let it into the town.
//!
//! ```text
//!    0  | ver u8 = 1 | kind u8 | 0 0 | identity [32] | static [32] | signer [32] | issued u64 |
//!  108  kind 0: | signature of the signer [64] |
//!       kind 1: | invitation key [32] | uses u16 | 0 0 | expires u64 | signature of the signer [64] |
//!               | signature of the invitation key [64] |
//!       both:   | signature of the identity [64] |
//! ```
//!
//! This module knows where things are; `grange_core::certificate` makes and checks the signatures.

/// The only version.
const CERTIFICATE_VERSION: u8 = 1;
/// Size of what every certificate begins with, in bytes.
const HEAD: usize = 108;
/// Size of a [`Grant`] in bytes.
const GRANT: usize = 44;
const SIGNATURE: usize = 64;
/// Size of a certificate that the steward signed, in bytes.
pub const CERTIFICATE_BY_STEWARD: usize = HEAD + 2 * SIGNATURE;
/// Size of a certificate by invitation, in bytes: the largest there is.
pub const CERTIFICATE_BY_INVITATION: usize = HEAD + GRANT + 3 * SIGNATURE;

/// What an invitation allows, as the steward signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The Ed25519 public key that may sign certificates.
    pub key: [u8; 32],
    /// For how many nodes it is meant; 0: any number.
    pub uses: u16,
    /// Second of mesh time (Unix time) from which it is void; 0: never.
    pub expires: u64,
}

impl Grant {
    /// The bytes that the steward signs: `| key [32] | uses u16 | 0 0 | expires u64 |`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; GRANT] {
        let mut bytes = [0; GRANT];
        bytes[..32].copy_from_slice(&self.key);
        bytes[32..34].copy_from_slice(&self.uses.to_be_bytes());
        bytes[36..].copy_from_slice(&self.expires.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; GRANT]) -> Result<Self, CertificateFormatError> {
        if bytes[34..36] != [0, 0] {
            return Err(CertificateFormatError::Reserved);
        }
        Ok(Self {
            key: array(&bytes[..], 0),
            uses: u16::from_be_bytes(array(&bytes[..], 32)),
            expires: u64::from_be_bytes(array(&bytes[..], 36)),
        })
    }
}

/// Why bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFormatError {
    /// Shorter or longer than its kind.
    #[error("a certificate of this kind has {expected} bytes, this one has {found}")]
    Length {
        /// What the kind asks for.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Another version.
    #[error("certificate version {0} is unknown here")]
    Version(u8),
    /// Another kind.
    #[error("certificate kind {0} is unknown here")]
    Kind(u8),
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the certificate are not zero")]
    Reserved,
}

/// How a node came into the town: by which signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<'a> {
    /// The steward signed for this node.
    Steward {
        /// What the signature covers, beside context and town id.
        covered: &'a [u8],
        /// The steward's signature.
        signature: &'a [u8; 64],
    },
    /// The steward signed an invitation, and its holder signed for this node.
    Invitation {
        /// What the steward allowed.
        grant: Grant,
        /// The grant's bytes, which the steward's signature covers.
        grant_bytes: &'a [u8],
        /// The steward's signature over the grant.
        signature: &'a [u8; 64],
        /// What the invitation key's signature covers.
        covered: &'a [u8],
        /// The invitation key's signature.
        invited: &'a [u8; 64],
    },
}

/// A view of a certificate: the form is right, the signatures are not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    bytes: &'a [u8],
    admission: Admission<'a>,
}

impl<'a> Certificate<'a> {
    /// A view of `bytes`, which must be one certificate and nothing more.
    ///
    /// # Errors
    /// If version, kind, length or reserved bytes are not those of a certificate.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CertificateFormatError> {
        let length = |expected| CertificateFormatError::Length { expected, found: bytes.len() };
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(length(CERTIFICATE_BY_STEWARD));
        };
        if head[0] != CERTIFICATE_VERSION {
            return Err(CertificateFormatError::Version(head[0]));
        }
        if head[2..4] != [0, 0] {
            return Err(CertificateFormatError::Reserved);
        }
        let admission = match head[1] {
            0 => {
                if bytes.len() != CERTIFICATE_BY_STEWARD {
                    return Err(length(CERTIFICATE_BY_STEWARD));
                }
                let Some((signature, _)) = rest.split_first_chunk::<SIGNATURE>() else {
                    return Err(length(CERTIFICATE_BY_STEWARD));
                };
                Admission::Steward { covered: &bytes[..HEAD], signature }
            }
            1 => {
                if bytes.len() != CERTIFICATE_BY_INVITATION {
                    return Err(length(CERTIFICATE_BY_INVITATION));
                }
                let parts = rest.split_first_chunk::<GRANT>().and_then(|(grant, rest)| {
                    let (signature, rest) = rest.split_first_chunk::<SIGNATURE>()?;
                    let (invited, _) = rest.split_first_chunk::<SIGNATURE>()?;
                    Some((grant, signature, invited))
                });
                let Some((grant, signature, invited)) = parts else {
                    return Err(length(CERTIFICATE_BY_INVITATION));
                };
                Admission::Invitation {
                    grant: Grant::from_bytes(grant)?,
                    grant_bytes: grant,
                    signature,
                    covered: &bytes[..HEAD + GRANT + SIGNATURE],
                    invited,
                }
            }
            kind => return Err(CertificateFormatError::Kind(kind)),
        };
        Ok(Self { bytes, admission })
    }

    /// The node's Ed25519 public key.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        array(self.bytes, 4)
    }

    /// The node's X25519 public key, which its handshakes prove.
    #[must_use]
    pub fn static_key(&self) -> [u8; 32] {
        array(self.bytes, 36)
    }

    /// The Ed25519 public key of the steward.
    #[must_use]
    pub fn signer(&self) -> [u8; 32] {
        array(self.bytes, 68)
    }

    /// Second of mesh time (Unix time) at which it was made; 0: unknown.
    #[must_use]
    pub fn issued(&self) -> u64 {
        u64::from_be_bytes(array(self.bytes, 100))
    }

    /// How the node came into the town.
    #[must_use]
    pub fn admission(&self) -> Admission<'a> {
        self.admission
    }

    /// What the identity's own signature covers, and that signature.
    #[must_use]
    pub fn consent(&self) -> (&'a [u8], [u8; 64]) {
        let at = self.bytes.len() - SIGNATURE;
        (&self.bytes[..at], array(self.bytes, at))
    }
}

/// Writes a certificate piece by piece, because each signature covers what stands before it: the head, by invitation
/// the grant, then the signatures in the order of the format.
#[derive(Clone, Debug)]
pub struct CertificateWriter {
    bytes: [u8; CERTIFICATE_BY_INVITATION],
    len: usize,
}

impl CertificateWriter {
    /// Begins a certificate; with `grant` one by invitation.
    #[must_use]
    pub fn new(
        identity: &[u8; 32],
        static_key: &[u8; 32],
        signer: &[u8; 32],
        issued: u64,
        grant: Option<&Grant>,
    ) -> Self {
        let mut writer = Self { bytes: [0; CERTIFICATE_BY_INVITATION], len: 0 };
        writer.push(&[CERTIFICATE_VERSION, u8::from(grant.is_some()), 0, 0]);
        writer.push(identity);
        writer.push(static_key);
        writer.push(signer);
        writer.push(&issued.to_be_bytes());
        if let Some(grant) = grant {
            writer.push(&grant.to_bytes());
        }
        writer
    }

    /// Adds the next signature of the format; what is beyond the last one is left out.
    #[must_use]
    pub fn signature(mut self, signature: &[u8; 64]) -> Self {
        self.push(signature);
        self
    }

    /// What stands there so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + part.len()) {
            room.copy_from_slice(part);
            self.len += part.len();
        }
    }
}

/// `N` bytes of `bytes` from `at`. The callers have checked the length; out of range gives zeros, never a panic.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(grant: Option<&Grant>) -> CertificateWriter {
        let mut writer = CertificateWriter::new(&[1; 32], &[2; 32], &[3; 32], 4, grant);
        for signature in 0..if grant.is_some() { 3 } else { 2 } {
            writer = writer.signature(&[10 + signature; 64]);
        }
        writer
    }

    #[test]
    fn what_was_written_is_read() {
        let by_steward = written(None);
        let certificate = Certificate::parse(by_steward.as_bytes()).unwrap();
        assert_eq!(by_steward.as_bytes().len(), 236);
        assert_eq!((certificate.identity(), certificate.static_key()), ([1; 32], [2; 32]));
        assert_eq!((certificate.signer(), certificate.issued()), ([3; 32], 4));
        assert_eq!(certificate.consent(), (&by_steward.as_bytes()[..172], [11; 64]));

        let grant = Grant { key: [5; 32], uses: 6, expires: 7 };
        let by_invitation = written(Some(&grant));
        let certificate = Certificate::parse(by_invitation.as_bytes()).unwrap();
        assert_eq!(by_invitation.as_bytes().len(), 344);
        assert_eq!(certificate.consent(), (&by_invitation.as_bytes()[..280], [12; 64]));
        let Admission::Invitation { grant: read, grant_bytes, signature, covered, invited } = certificate.admission()
        else {
            panic!("not by invitation")
        };
        assert_eq!((read, signature, invited), (grant, &[10; 64], &[11; 64]));
        assert_eq!((grant_bytes, covered), (&grant.to_bytes()[..], &by_invitation.as_bytes()[..216]));
    }

    #[test]
    fn every_wrong_length_version_kind_and_reserved_byte_is_refused() {
        for good in [written(None), written(Some(&Grant { key: [5; 32], uses: 6, expires: 7 }))] {
            let good = good.as_bytes();
            for len in 0..good.len() {
                assert!(matches!(Certificate::parse(&good[..len]), Err(CertificateFormatError::Length { .. })));
            }
            let mut longer = [0; CERTIFICATE_BY_INVITATION + 1];
            longer[..good.len()].copy_from_slice(good);
            assert!(Certificate::parse(&longer[..=good.len()]).is_err());
            let with = |at: usize, value: u8| {
                let mut bad = longer;
                bad[at] = value;
                Certificate::parse(&bad[..good.len()]).err()
            };
            assert_eq!(with(0, 2), Some(CertificateFormatError::Version(2)));
            assert_eq!(with(1, 2), Some(CertificateFormatError::Kind(2)));
            assert_eq!(with(3, 1), Some(CertificateFormatError::Reserved));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..2_u8) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[1, kind, 0, 0]);
            }
            if let Ok(certificate) = Certificate::parse(&bytes) {
                let (covered, _) = certificate.consent();
                prop_assert_eq!(covered.len() + 64, bytes.len());
            }
        }
    }
}
