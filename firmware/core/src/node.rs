//! The whole of a node without its sockets.

use alloc::{string::String, vec::Vec};

use grange_wire::Prefix;

use crate::{
    Endpoint, Event, GatewayPolicy, IfaceId, IfaceState, Instant, LinkId, LinkTraffic, Town, Transmit,
};

/// What a node is made of.
pub struct NodeConfig {
    /// The node's 32-byte seed; identity and link keys are derived from it.
    pub seed: [u8; 32],
    /// The name that neighbours see: at most 32 bytes.
    pub name: String,
    /// The town; without one the node forms no links.
    pub town: Option<Town>,
    /// Whose default routes are taken.
    pub gateways: GatewayPolicy,
}

/// A node: links, neighbours and routes.
///
/// Order of calls: any `handle_*` or `set_*`; then `poll_transmit` and `poll_event` until both give `None`; then
/// `poll_timeout`, and `handle_timeout` at that moment if nothing else comes before. `now` never goes backwards.
pub struct Node {}

impl Node {
    /// A node without interfaces. `entropy` seeds the node's random generator and must be fresh for each start.
    #[must_use]
    pub fn new(_config: NodeConfig, _now: Instant, _entropy: [u8; 32]) -> Self {
        Self {}
    }

    /// The node joined or left a town: all links are closed and made anew.
    pub fn set_town(&mut self, _now: Instant, _town: Option<Town>) {}

    /// An interface appeared, changed or (with `None`) went away.
    pub fn set_iface(&mut self, _now: Instant, _iface: IfaceId, _state: Option<IfaceState>) {}

    /// The static peers to keep links with, each by its present address. Asked anew whenever names resolve differently.
    pub fn set_static_peers(&mut self, _now: Instant, _peers: &[Endpoint]) {}

    /// A peer was heard of in another way (mDNS): ask it once for its beacon.
    pub fn suggest_peer(&mut self, _now: Instant, _at: Endpoint) {}

    /// The prefixes that this node announces beside its own /64 and /32: default routes of a gateway.
    pub fn set_announced(&mut self, _now: Instant, _prefixes: &[Prefix]) {}

    /// A datagram came in. Data frames (type 6) belong to the plane and are ignored here.
    pub fn handle_datagram(&mut self, _now: Instant, _from: Endpoint, _payload: &[u8]) {}

    /// The plane's counters of a link, cumulative; called at least every 100 ms while a link carries traffic.
    pub fn handle_traffic(&mut self, _now: Instant, _link: LinkId, _traffic: LinkTraffic) {}

    /// The plane authenticated a data frame from another address than the link's.
    pub fn handle_roamed(&mut self, _now: Instant, _link: LinkId, _endpoint: Endpoint) {}

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Say goodbye on all links and retract everything; poll what is left, then drop the node.
    pub fn shutdown(&mut self, _now: Instant) {}

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// The next thing that the shell shall know.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The links that are up, for display.
    #[must_use]
    pub fn links(&self) -> Vec<LinkId> {
        Vec::new()
    }
}
