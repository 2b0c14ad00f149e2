//! The whole of a node without its sockets.

mod discovery;
mod frames;
mod host;
mod links;
mod membership;
mod opening;
mod seals;
mod stats;

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::time::Duration;

use grange_wire::{NodeId, Prefix};
use zeroize::Zeroizing;

pub use self::stats::DropCounters;
use self::{host::Host, membership::Membership};
use crate::{
    Endpoint, Event, GatewayPolicy, Identity, IfaceId, IfaceKind, IfaceState, Instant, LinkId, LinkTraffic, Offer,
    PeerInfo, Town, Transmit,
    babel::RouteInfo,
    link::{Random, TokenBucket},
};

/// Prefixes that a node announces beside its own; a gateway has two.
const ANNOUNCED_MAX: usize = 16;

/// Peers that were heard of otherwise are asked at most this often, so that who floods mDNS gains nothing.
const SUGGEST_INTERVAL: Duration = Duration::from_millis(200);
const SUGGEST_BURST: u32 = 32;

/// What a node is made of.
pub struct NodeConfig {
    /// The node's 32-byte seed; identity and link keys are derived from it.
    pub seed: [u8; 32],
    /// The name that neighbours see: at most 32 bytes; what is longer is cut, control characters are left out.
    pub name: String,
    /// The town; without one the node forms no links.
    pub town: Option<Town>,
    /// Whose default routes are taken.
    pub gateways: GatewayPolicy,
    /// What this machine offers for data frames.
    pub offer: Offer,
}

/// A link that is up, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its id.
    pub link: LinkId,
    /// Who is there.
    pub peer: PeerInfo,
    /// Where.
    pub endpoint: Endpoint,
    /// Over what medium.
    pub kind: IfaceKind,
    /// When it came up.
    pub since: Instant,
    /// The largest inner IP packet, in bytes, that is known to pass.
    pub mtu: u16,
    /// What it adds to the metric of routes over it (RFC 8966, section 3.4.3); 65535: infinite.
    pub cost: u16,
    /// Cost of receiving on it, as we tell the neighbour.
    pub rxcost: u16,
    /// Cost of sending on it, as the neighbour tells us.
    pub txcost: u16,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
}

/// A seal that is up, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealInfo {
    /// Its id.
    pub seal: LinkId,
    /// Who is there.
    pub peer: PeerInfo,
    /// Its address.
    pub endpoint: Endpoint,
    /// When it came up.
    pub since: Instant,
    /// The largest inner IP packet, in bytes, that is known to pass.
    pub mtu: u16,
    /// Smoothed round-trip time of the whole way.
    pub rtt: Option<Duration>,
    /// Since the last data frame in either direction.
    pub idle: Duration,
}

/// A node: links, neighbours and routes.
///
/// Order of calls: any `handle_*` or `set_*`; then `poll_event` and `poll_transmit` until both give `None`, events first
/// so that keys are with the plane before the neighbour may use them; then `poll_timeout`, and `handle_timeout` at that
/// moment if nothing else comes before. `now` never goes backwards.
///
/// What neighbours send is bounded in what it makes the node remember or send; what cannot be taken is counted in
/// [`stats`](Self::stats) and otherwise changes nothing.
pub struct Node {
    host: Host,
    gateways: GatewayPolicy,
    announced: Vec<Prefix>,
    suggestions: TokenBucket,
    membership: Option<Membership>,
    stopped: bool,
}

impl Node {
    /// A node without interfaces. `entropy` seeds the node's random generator and must be fresh for each start.
    #[must_use]
    pub fn new(config: NodeConfig, now: Instant, entropy: [u8; 32]) -> Self {
        let NodeConfig { seed, name, town, gateways, offer } = config;
        let (seed, entropy) = (Zeroizing::new(seed), Zeroizing::new(entropy));
        let host = Host::new(Identity::from_seed(&seed), &name, offer, Random::new(*entropy));
        let mut node = Self {
            host,
            gateways,
            announced: Vec::new(),
            suggestions: TokenBucket::new(SUGGEST_INTERVAL, SUGGEST_BURST),
            membership: None,
            stopped: false,
        };
        node.set_town(now, town);
        node
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.host.identity.id()
    }

    /// The node's keys.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.host.identity
    }

    /// The town that the node is in.
    #[must_use]
    pub fn town(&self) -> Option<&Town> {
        self.membership.as_ref().map(|membership| &membership.town)
    }

    /// The node joined or left a town: all links are closed and made anew.
    pub fn set_town(&mut self, now: Instant, town: Option<Town>) {
        if let Some(mut membership) = self.membership.take() {
            membership.close(&mut self.host, now);
        }
        if self.stopped {
            return;
        }
        self.membership =
            town.map(|town| Membership::new(&mut self.host, now, town, self.gateways.clone(), &self.announced));
        self.host.solicit_anew(now);
        self.advance(now);
    }

    /// Whose default routes are taken from now on.
    pub fn set_gateways(&mut self, now: Instant, gateways: GatewayPolicy) {
        if let Some(membership) = &mut self.membership {
            membership.router.set_gateways(now, gateways.clone());
        }
        self.gateways = gateways;
        self.advance(now);
    }

    /// An interface appeared, changed or (with `None`) went away. Its links go down at once if it is not up any more;
    /// so they do if its kind changes, to come up anew. Interface 0 is always there and cannot be set.
    ///
    /// [`IfaceId::MESH`] carries seals whether or not it is set, as long as it is not set to be down; its MTU is the largest inner
    /// packet that any link carries in one frame (1419 until it is said). It never has beacons.
    pub fn set_iface(&mut self, now: Instant, iface: IfaceId, state: Option<IfaceState>) {
        let before = self.host.set_iface(now, iface, state);
        let same_kind = |a: &IfaceState, b: &IfaceState| a.kind == b.kind || iface == IfaceId::MESH;
        if let (Some(before), Some(membership)) = (before, &mut self.membership) {
            match state {
                Some(state) if state.up && same_kind(&state, &before) && state.mtu == before.mtu => {}
                Some(state) if state.up && same_kind(&state, &before) => {
                    membership.restart_mtu(&mut self.host, now, iface, state.mtu);
                }
                _ if before.up => membership.close_iface(&mut self.host, now, iface),
                _ => {}
            }
        }
        self.advance(now);
    }

    /// The static peers to keep links with, each by its present address. Asked anew whenever names resolve differently.
    /// At most 128 are taken. A link with a peer that is no more in the list stays until it goes down.
    pub fn set_static_peers(&mut self, now: Instant, peers: &[Endpoint]) {
        self.host.set_statics(now, peers);
        self.advance(now);
    }

    /// A peer was heard of in another way (mDNS): ask it once for its beacon, unless there is a link already.
    pub fn suggest_peer(&mut self, now: Instant, at: Endpoint) {
        if let (Some(membership), Some(at)) = (&mut self.membership, self.host.place(at))
            && at.iface != IfaceId::MESH
            && membership.live_link_at(&at).is_none()
            && !membership.attempts.contains_key(&at)
            && self.suggestions.take(now)
        {
            membership.solicit(&mut self.host, at);
        }
        self.advance(now);
    }

    /// The prefixes that this node announces beside its own /64 and /32: default routes of a gateway. At most 16.
    pub fn set_announced(&mut self, now: Instant, prefixes: &[Prefix]) {
        self.announced = prefixes.iter().take(ANNOUNCED_MAX).copied().collect();
        if let Some(membership) = &mut self.membership {
            membership.router.set_announced(now, &self.announced);
        }
        self.advance(now);
    }

    /// A datagram came in. Data frames (type 6) belong to the plane and are ignored here.
    ///
    /// `from.iface` is the interface that it came in on. Addresses that are not link-local count as reached over
    /// interface 0 if they are a static peer's or the interface is not one that links form on.
    pub fn handle_datagram(&mut self, now: Instant, from: Endpoint, payload: &[u8]) {
        if let Some(membership) = &mut self.membership {
            match self.host.place(from) {
                Some(from) => membership.handle_datagram(&mut self.host, now, from, payload),
                None => self.host.stats.interface += 1,
            }
        }
        self.advance(now);
    }

    /// The plane's counters of a link or seal, cumulative; called at least every 100 ms while it carries traffic. A seal
    /// whose counters stand still for 180 s ends.
    pub fn handle_traffic(&mut self, now: Instant, link: LinkId, traffic: LinkTraffic) {
        // Nothing else: with hundreds of seals, doing all that is due for each would cost the square of it.
        if let Some(link) = self.membership.as_mut().and_then(|membership| membership.links.get_mut(&link)) {
            link.traffic(now, traffic);
        }
    }

    /// A packet waits for a seal to `peer`: makes one, unless there is one or one is being made. Ends in
    /// [`Event::SealUp`] three round trips later, or in nothing: a node that does not answer is asked for 8 s after the last call,
    /// soon only once a second. So call it again as long as packets wait, as often as is convenient.
    pub fn want_seal(&mut self, now: Instant, peer: NodeId) {
        if let Some(membership) = &mut self.membership {
            membership.want_seal(&mut self.host, now, peer);
        }
        self.advance(now);
    }

    /// The kernel plane of this machine listens at this UDP port for a link or seal; zero: not any more. The other end
    /// is told until it knows. Does nothing where not both ends have the kernel plane.
    pub fn set_plane_port(&mut self, now: Instant, link: LinkId, port: u16) {
        if let Some(membership) = &mut self.membership {
            membership.set_plane_port(now, link, port);
        }
        self.advance(now);
    }

    /// The plane authenticated a data frame, the newest so far, from another address than the link's.
    pub fn handle_roamed(&mut self, now: Instant, link: LinkId, endpoint: Endpoint) {
        if let (Some(membership), Some(endpoint)) = (&mut self.membership, self.host.place(endpoint)) {
            membership.move_link(&mut self.host, now, link, endpoint);
        }
        self.advance(now);
    }

    /// The time that `poll_timeout` named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Say goodbye on all links and retract everything; poll what is left, then drop the node.
    pub fn shutdown(&mut self, now: Instant) {
        self.stopped = true;
        self.set_town(now, None);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.host.poll_transmit()
    }

    /// The next thing that the shell shall know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.host.poll_event()
    }

    /// When `handle_timeout` wants to be called; `None`: the node is in no town and waits for nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.membership.as_ref().map(|membership| membership.timeout(&self.host))
    }

    /// The links that are up, oldest first, for display.
    pub fn links(&self) -> impl Iterator<Item = LinkInfo> {
        let costs: BTreeMap<_, _> = self
            .membership
            .iter()
            .flat_map(|membership| membership.router.neighbours())
            .map(|neighbour| (neighbour.link, neighbour))
            .collect();
        let links = self.membership.iter().flat_map(|membership| &membership.links);
        links.filter(|(_, link)| link.is_live() && !link.is_seal()).map(move |(id, link)| {
            let neighbour = costs.get(id);
            LinkInfo {
                link: *id,
                peer: link.peer.clone(),
                endpoint: link.endpoint,
                kind: link.kind,
                since: link.since,
                mtu: link.mtu.proven(),
                cost: neighbour.map_or(u16::MAX, |neighbour| neighbour.cost),
                rxcost: neighbour.map_or(u16::MAX, |neighbour| neighbour.rxcost),
                txcost: neighbour.map_or(u16::MAX, |neighbour| neighbour.txcost),
                rtt: neighbour.and_then(|neighbour| neighbour.rtt),
            }
        })
    }

    /// The seals that are up at `now`, oldest first, for display.
    pub fn seals(&self, now: Instant) -> impl Iterator<Item = SealInfo> {
        let links = self.membership.iter().flat_map(|membership| &membership.links);
        links.filter(|(_, link)| link.is_seal()).map(move |(id, link)| SealInfo {
            seal: *id,
            peer: link.peer.clone(),
            endpoint: link.endpoint,
            since: link.since,
            mtu: link.mtu.proven(),
            rtt: link.liveness.rtt(),
            idle: now.since(link.usage.last()),
        })
    }

    /// All routes that the node knows, for display.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> {
        self.membership.iter().flat_map(|membership| membership.router.routes())
    }

    /// Datagrams dropped since the start, by reason.
    #[must_use]
    pub fn stats(&self) -> DropCounters {
        self.host.stats
    }

    fn advance(&mut self, now: Instant) {
        if let Some(membership) = &mut self.membership {
            membership.advance(&mut self.host, now);
        }
    }
}
