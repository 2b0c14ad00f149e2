//! What a node needs to know of its town to form links.

use alloc::{string::String, vec::Vec};

use grange_wire::{NodeId, TownId};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A node's membership.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Town {
    /// The town's id.
    #[zeroize(skip)]
    pub id: TownId,
    /// The town's name, for display.
    #[zeroize(skip)]
    pub name: String,
    /// The town key: pre-shared key of all handshakes.
    pub key: [u8; 32],
    /// This node's certificate, as the bytes of `docs/protocol.md`.
    #[zeroize(skip)]
    pub certificate: Vec<u8>,
}

/// Whose default routes are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GatewayPolicy {
    /// Those of any node of the town.
    #[default]
    Any,
    /// Those of these nodes. The first 120 bits of an id count, which its address holds: so a node can be named by either.
    Only(Vec<NodeId>),
    /// Nobody's.
    Nobody,
}

impl GatewayPolicy {
    /// Whether a default route of `owner` may be taken.
    #[must_use]
    pub fn allows(&self, owner: &NodeId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|named| named.0[..15] == owner.0[..15]),
            Self::Nobody => false,
        }
    }
}
