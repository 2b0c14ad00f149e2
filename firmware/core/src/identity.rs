//! A node's keys, all from one 32-byte seed (design, section 3).

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use grange_wire::NodeId;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A node's identity key (Ed25519) and link key (X25519).
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    link: StaticSecret,
    id: NodeId,
}

impl Identity {
    /// The keys that follow from a seed, by BLAKE3 key derivation with a context string each.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let identity = Zeroizing::new(blake3::derive_key("grange v1 identity key", seed));
        let link = Zeroizing::new(blake3::derive_key("grange v1 link key", seed));
        let signing = SigningKey::from_bytes(&identity);
        let id = NodeId::of_key(&signing.verifying_key().to_bytes());
        Self { signing, link: StaticSecret::from(*link), id }
    }

    /// The node's id: the hash of the identity's public key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The X25519 public key that Noise calls `s`.
    #[must_use]
    pub fn link_public(&self) -> [u8; 32] {
        PublicKey::from(&self.link).to_bytes()
    }

    /// The X25519 private key, for the handshake.
    #[must_use]
    pub fn link_private(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.link.to_bytes())
    }

    /// Signs the hash of `context` and `parts` (see `digest`).
    #[must_use]
    pub fn sign(&self, context: &str, parts: &[&[u8]]) -> [u8; 64] {
        self.signing.sign(&digest(context, parts)).to_bytes()
    }
}

/// Whether `signature` is one by the Ed25519 key `public` over the same context and parts. Strict: small-order keys and
/// malleable signatures are refused.
#[must_use]
pub fn verify(public: &[u8; 32], context: &str, parts: &[&[u8]], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    key.verify_strict(&digest(context, parts), &Signature::from_bytes(signature)).is_ok()
}

/// What is signed: BLAKE3 in key-derivation mode under `context` over the parts, each with its length before it, so
/// that a signature for one purpose is none for another.
pub(crate) fn digest(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_one_context_and_one_split() {
        let identity = Identity::from_seed(&[1; 32]);
        let signature = identity.sign("test", &[b"ab", b"c"]);
        assert!(verify(&identity.public(), "test", &[b"ab", b"c"], &signature));
        assert!(!verify(&identity.public(), "other", &[b"ab", b"c"], &signature));
        assert!(!verify(&identity.public(), "test", &[b"a", b"bc"], &signature));
        assert!(!verify(&Identity::from_seed(&[2; 32]).public(), "test", &[b"ab", b"c"], &signature));
    }
}
