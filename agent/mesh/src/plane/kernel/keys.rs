//! Keys of a WireGuard interface, from those of the session that it belongs to.
//!
//! A session's data keys differ by direction, and each end knows both. Each direction's key gives the private key of the
//! end that sends with it: both ends can work out both, and nothing has to be sent. Whoever learns these keys learns what
//! the session's keys would have told him; WireGuard's own handshake adds ephemeral keys, so that neither opens what was
//! recorded.

use std::{fmt, sync::Arc};

use grange_core::DataKeys;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const PRIVATE: &str = "grange v1 kernel plane private key";
const PRESHARED: &str = "grange v1 kernel plane preshared key";

/// A key; erased when its last clone is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<Zeroizing<[u8; 32]>>);

impl Secret {
    fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The static keys of both ends: of the session's first data keys, and as long as the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaticKeys {
    /// This end's private key.
    pub private: Secret,
    /// The other end's public key.
    pub peer: [u8; 32],
    /// Whether this end is the one that begins: an order that both see alike.
    pub begins: bool,
}

impl StaticKeys {
    pub(crate) fn of(keys: &DataKeys) -> Self {
        let private = |key: &[u8; 32]| StaticSecret::from(*Zeroizing::new(blake3::derive_key(PRIVATE, key)));
        let (own, other) = (private(&keys.seal), private(&keys.open));
        let (own_public, peer) = (PublicKey::from(&own).to_bytes(), PublicKey::from(&other).to_bytes());
        Self { private: Secret::new(own.to_bytes()), peer, begins: own_public < peer }
    }
}

/// The preshared key of a session's present data keys.
pub(crate) fn preshared(keys: &DataKeys) -> Secret {
    let mut both = Zeroizing::new([0; 64]);
    let (first, second) = if keys.seal < keys.open { (&keys.seal, &keys.open) } else { (&keys.open, &keys.seal) };
    both[..32].copy_from_slice(first);
    both[32..].copy_from_slice(second);
    Secret::new(blake3::derive_key(PRESHARED, &*both))
}

#[cfg(test)]
mod tests {
    use grange_core::Cipher;
    use grange_wire::LinkIndex;

    use super::*;

    fn ends(there: u8, back: u8) -> [DataKeys; 2] {
        let end = |seal, open| DataKeys {
            cipher: Cipher::ChaCha20Poly1305,
            local: LinkIndex(1),
            remote: LinkIndex(2),
            seal: [seal; 32],
            open: [open; 32],
        };
        [end(there, back), end(back, there)]
    }

    #[test]
    fn both_ends_find_the_same_keys() {
        let [a, b] = ends(1, 2);
        let (here, there) = (StaticKeys::of(&a), StaticKeys::of(&b));
        let public = |keys: &StaticKeys| PublicKey::from(&StaticSecret::from(*keys.private.bytes())).to_bytes();
        assert_eq!(here.peer, public(&there));
        assert_eq!(there.peer, public(&here));
        assert_ne!(here.begins, there.begins, "one of them begins");
        assert_eq!(preshared(&a), preshared(&b));
    }

    #[test]
    fn keys_follow_the_sessions_and_nothing_else() {
        let [a, _] = ends(1, 2);
        let [other, _] = ends(1, 3);
        assert_eq!(StaticKeys::of(&a).private, StaticKeys::of(&other).private);
        assert_ne!(StaticKeys::of(&a).peer, StaticKeys::of(&other).peer);
        assert_ne!(preshared(&a), preshared(&other));
        assert_eq!(format!("{:?}", preshared(&a)), "Secret");
    }

    #[test]
    fn golden_keys() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [a, _] = ends(1, 2);
        let keys = StaticKeys::of(&a);
        let found = [hex(keys.private.bytes()), hex(&keys.peer), hex(preshared(&a).bytes())];
        assert_eq!(
            found,
            [
                "81ae9c3e4226eb2b5e4e9246df541f9ce696894460fbf0a5d6fcc02ec4764870",
                "dcd5313a4362c338e9ed0dd977c7b72ab171f4c527e8f3a9cc9e53b2ce529b42",
                "8fc80557ff39b7b4e3bb00147c9e29babc426a07633ad8370ed528f9be4e63d2",
            ]
        );
    }
}
