//! What a [`Router`](super::Router) tells the rest of the node.

use core::time::Duration;

use grange_wire::{NodeId, Prefix, RouterId, babel::Seqno};

use crate::LinkId;

/// What changed in the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteEvent {
    /// This is the way to the prefix from now on.
    Changed {
        /// Destination.
        prefix: Prefix,
        /// Over which link.
        via: LinkId,
        /// Cost of the whole way.
        metric: u16,
        /// Who announced it, proved by signature.
        owner: NodeId,
        /// The announcement's router-id.
        router_id: RouterId,
    },
    /// The prefix is unreachable from now on. Its packets must not follow a shorter prefix that covers it: RFC 8966,
    /// section 2.8.
    Removed {
        /// Destination.
        prefix: Prefix,
    },
    /// A round trip was measured.
    Rtt {
        /// On which link.
        link: LinkId,
        /// Smoothed.
        rtt: Duration,
    },
}

/// A neighbour, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Its link.
    pub link: LinkId,
    /// Who it is.
    pub peer: NodeId,
    /// Cost of sending to it; 65,535: unusable.
    pub cost: u16,
    /// Cost of receiving from it, as we tell it.
    pub rxcost: u16,
    /// Cost of receiving from us, as it tells us.
    pub txcost: u16,
    /// Smoothed round-trip time, once it was measured.
    pub rtt: Option<Duration>,
}

/// A route, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Destination.
    pub prefix: Prefix,
    /// Over which link.
    pub via: LinkId,
    /// Cost of the whole way; 65,535: none.
    pub metric: u16,
    /// The neighbour's metric, without the link to it.
    pub refmetric: u16,
    /// Who announced the prefix, proved by signature.
    pub owner: NodeId,
    /// The announcement's router-id.
    pub router_id: RouterId,
    /// The announcement's number.
    pub seqno: Seqno,
    /// Whether packets take this route.
    pub selected: bool,
    /// Whether packets may take this route: RFC 8966, section 3.5.1.
    pub feasible: bool,
}

/// Counters since the start, all cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// Packets handed out.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that came in.
    pub received_packets: u64,
    /// Packets or TLVs ignored because they were malformed.
    pub malformed: u64,
    /// Updates whose proof was wrong or did not fit the prefix, or whose owner may not announce it.
    pub refused: u64,
    /// Updates without a proof for which none was known; it was asked for.
    pub unproved: u64,
    /// Signatures that were checked.
    pub verified: u64,
    /// Things dropped because a table or queue was full.
    pub overflows: u64,
    /// Retransmissions of acknowledged packets.
    pub retransmitted: u64,
    /// Times that another node made this one take a new seqno.
    pub seqno_increments: u64,
}
