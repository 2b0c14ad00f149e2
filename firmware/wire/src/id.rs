//! Names of nodes and towns that prove the key they belong to.

use core::fmt;

/// A node's id: the BLAKE3 hash of its Ed25519 identity key (design, section 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The id of the node whose Ed25519 public key this is.
    #[must_use]
    pub fn of_key(identity: &[u8; 32]) -> Self {
        Self(*blake3::hash(identity).as_bytes())
    }
}

/// A town's id: the first 16 bytes of the BLAKE3 hash of its founder's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TownId(pub [u8; 16]);

impl TownId {
    /// The id of the town that the holder of this Ed25519 public key founded.
    #[must_use]
    pub fn of_founder(founder: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(founder).as_bytes()[..16]);
        Self(id)
    }
}

/// A Babel router-id (RFC 8966, section 3.2): eight random bytes, fresh at each start of a node, so that sequence
/// numbers from before the restart never matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub [u8; 8]);

/// The number by which the receiver of a frame finds the session; chosen at random by the receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! hex_format {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0[..self.0.len().min(8)], f)
            }
        }
    )*};
}
hex_format!(NodeId, TownId, RouterId);

impl fmt::Debug for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
