//! What the two threads know: links, sessions and routes, as one snapshot that is replaced and never changed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use grange_core::{DataKeys, Endpoint, LinkId, LinkTraffic, link::ReplayWindow};
use grange_wire::{LinkIndex, MESH_V4, MESH_V6, NodeId, Prefix};
use portable_atomic::AtomicU64;

use super::{
    reassembly::Reassembly,
    seal::{self, ICMP, ICMPV6, Outer},
};
use crate::{
    packet::IpHeader,
    plane::{aead::FrameKey, fib::Fib},
    underlay::{self, Outlet},
};

/// Frames that may overtake each other: the window spans a burst of several super-packets.
pub(super) const REPLAY_WINDOW: usize = 8192;

/// Frames that one session seals at most: no counter is ever used twice, whatever becomes of the rekey that the core
/// does after 2^48.
const MAX_FRAMES: u64 = 1 << 60;

/// The place of a link or a seal in [`Tables::links`].
pub(super) type Slot = u32;

/// The place of a node in [`Tables::peers`].
pub(super) type PeerSlot = u32;

/// Keys of one direction pair, with what must last as long as they do.
pub(super) struct Session {
    pub(super) slot: Slot,
    /// Index in the frames that we send.
    pub(super) remote: LinkIndex,
    seal: Box<FrameKey>,
    open: Box<FrameKey>,
    sent: AtomicU64,
    /// Used by the one thread that receives, so the lock is always free; it is taken once for a batch.
    pub(super) receiving: Mutex<Receiving>,
}

/// What the receiver of a session remembers.
#[derive(Default)]
pub(super) struct Receiving {
    pub(super) window: ReplayWindow<REPLAY_WINDOW>,
    pub(super) parts: Reassembly,
}

impl Session {
    /// A session for `keys`, on the link at `slot`.
    ///
    /// # Errors
    /// The cipher is not supported; the text says what is wrong.
    pub(super) fn new(slot: Slot, keys: &DataKeys) -> Result<Self, &'static str> {
        Ok(Self {
            slot,
            remote: keys.remote,
            seal: FrameKey::new(keys.cipher, &keys.seal)?,
            open: FrameKey::new(keys.cipher, &keys.open)?,
            sent: AtomicU64::new(0),
            receiving: Mutex::default(),
        })
    }

    /// Counters for `frames` frames: the first one; they are consecutive. `None` when the keys are used up.
    #[inline]
    pub(super) fn reserve(&self, frames: u64) -> Option<u64> {
        let first = self.sent.fetch_add(frames, Ordering::Relaxed);
        (first < MAX_FRAMES).then_some(first)
    }

    /// The key that seals.
    #[inline]
    pub(super) fn sealer(&self) -> &FrameKey {
        &self.seal
    }

    /// The key that opens.
    #[inline]
    pub(super) fn opener(&self) -> &FrameKey {
        &self.open
    }
}

/// Cumulative counters of one link; both threads add to those of what is sent.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) sent_packets: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_packets: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

impl Counters {
    /// `frames` frames with `bytes` of IP packets were sent.
    #[inline]
    pub(super) fn sent(&self, frames: u64, bytes: u64) {
        self.sent_packets.fetch_add(frames, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `frames` frames with `bytes` of IP packets authenticated.
    #[inline]
    pub(super) fn received(&self, frames: u64, bytes: u64) {
        self.received_packets.fetch_add(frames, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> LinkTraffic {
        LinkTraffic {
            sent_packets: self.sent_packets.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_packets: self.received_packets.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }
}

/// A link or a seal as the threads use it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// Who is at the other end.
    pub(super) peer: NodeId,
    /// What it is a seal by; `None`: a link.
    pub(super) outer: Option<Arc<Outer>>,
    pub(super) endpoint: Endpoint,
    /// `endpoint` as the kernel wants it.
    pub(super) destination: SocketAddr,
    /// The socket that its frames leave by.
    pub(super) outlet: Arc<Outlet>,
    /// The largest inner packet in one frame.
    pub(super) mtu: u16,
    /// What seals.
    pub(super) session: Arc<Session>,
    pub(super) counters: Arc<Counters>,
}

impl Link {
    pub(super) fn move_to(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
        self.destination = underlay::destination(endpoint);
    }

    /// Whether a datagram from `from` comes from where the link's neighbour is known to be.
    #[inline]
    pub(super) fn is_at(&self, from: Endpoint) -> bool {
        let any_iface = self.endpoint.iface.0 == 0 || !is_link_local(from.addr.ip());
        self.endpoint.addr == from.addr && (any_iface || self.endpoint.iface == from.iface)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Why a packet's destination is local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalKind {
    /// An address or prefix of this node.
    Own,
    /// A foreign prefix that leaves the mesh here.
    Exit,
}

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The link.
    pub(super) link: Slot,
    /// Whom what enters the mesh here is sealed for.
    pub(super) seal: Option<PeerSlot>,
}

/// A node that routes seal for.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// The seal, if it is there.
    seal: Option<Slot>,
    /// Routes that name it.
    routes: u32,
}

/// A seal, and the link that its outer packets go over.
#[derive(Clone, Copy)]
pub(super) struct Sealed<'a> {
    pub(super) seal: &'a Link,
    pub(super) outer: &'a Outer,
    pub(super) link: &'a Arc<Link>,
}

/// How a packet that enters the mesh here goes on.
pub(super) enum Entry<'a> {
    /// Nowhere: it is this node's own.
    Local,
    /// Over a link, as it is.
    Link(&'a Arc<Link>),
    /// In a seal.
    Sealed(Sealed<'a>),
    /// In a seal that is not there; over the link it would go if it needed none.
    Waits { peer: &'a NodeId, link: &'a Arc<Link> },
    /// Nowhere.
    None,
}

/// Where a packet goes.
pub(super) enum Hop<'a> {
    /// To the TUN.
    Local,
    /// Over a link.
    Link(&'a Arc<Link>),
    /// Nowhere.
    None,
}

/// What tables say of a destination.
enum Next {
    Local,
    Route(Route),
    None,
}

/// The snapshot.
#[derive(Clone, Default)]
pub(super) struct Tables {
    /// By slot; freed slots are used again.
    pub(super) links: Vec<Option<Arc<Link>>>,
    /// By the index in the frames that come to us: the present and the previous keys of every link.
    pub(super) sessions: HashMap<u32, Arc<Session>>,
    routes: Fib<Route>,
    /// By slot; freed slots are used again. Those that routes name, and no others.
    peers: Vec<Option<Peer>>,
    pub(super) local: Fib<LocalKind>,
    pub(super) address_v6: Option<Ipv6Addr>,
    pub(super) address_v4: Option<Ipv4Addr>,
    /// UDP ports of this node, sorted, whose packets are sealed already.
    pub(super) sealed_ports: Vec<u16>,
    /// Whether what comes from farther than a neighbour must have come in a seal.
    pub(super) wants_seals: bool,
    /// Counted up with each snapshot.
    pub(super) version: u64,
}

impl Tables {
    /// The link at a slot.
    #[inline]
    pub(super) fn link(&self, slot: Slot) -> Option<&Arc<Link>> {
        self.links.get(slot as usize)?.as_ref()
    }

    /// Where packets to `destination` go. The mesh's own addresses follow no default route and leave by no exit: a node
    /// that is gone is unreachable, and its packets are nothing for a gateway (RFC 8966, section 2.8).
    #[inline]
    pub(super) fn next_hop(&self, destination: IpAddr) -> Hop<'_> {
        match self.next(destination) {
            Next::Local => Hop::Local,
            Next::Route(route) => self.link(route.link).map_or(Hop::None, Hop::Link),
            Next::None => Hop::None,
        }
    }

    /// How packets to `destination` that enter the mesh here go on. The outer packets of a seal follow the routes as any
    /// packet to its peer's address does.
    #[inline]
    pub(super) fn entry(&self, destination: IpAddr) -> Entry<'_> {
        let route = match self.next(destination) {
            Next::Local => return Entry::Local,
            Next::Route(route) => route,
            Next::None => return Entry::None,
        };
        let Some(link) = self.link(route.link) else { return Entry::None };
        let Some(peer) = route.seal.and_then(|slot| self.peers.get(slot as usize)?.as_ref()) else {
            return Entry::Link(link);
        };
        let Some(seal) = peer.seal.and_then(|slot| self.link(slot)) else {
            return Entry::Waits { peer: &peer.id, link };
        };
        // A seal without an outer packet is none; there is no such.
        let Some(outer) = &seal.outer else { return Entry::None };
        // Routes to the peer and to what is behind it change one after the other: then over the link of the latter.
        let link = if let Hop::Link(to_peer) = self.next_hop(outer.peer().into()) { to_peer } else { link };
        Entry::Sealed(Sealed { seal, outer, link })
    }

    /// Whether a packet that enters the mesh here goes as it is, even if the way to its destination is sealed.
    #[inline]
    pub(super) fn goes_bare(&self, header: &IpHeader, packet: &[u8]) -> bool {
        self.only_passes(header.source)
            || seal::goes_bare(header, packet, self.own_address(header.source), &self.sealed_ports)
    }

    /// Whether a packet of the device's is another node's: it came by a link of the kernel plane and goes on by one that
    /// has none. Hosts behind this node never have such sources: the machine translates them.
    fn only_passes(&self, source: IpAddr) -> bool {
        (MESH_V6.contains(source) || MESH_V4.contains(source)) && !self.is_own(source)
    }

    /// Whether a packet for this node that came over `from` without a seal lacks one: it says that it is of a node that is
    /// not at the other end. Whether there is a seal with that node makes no difference, or whoever can have one forced
    /// down could speak for its end. ICMP needs none, for nodes on the way speak by it, and those that are traced, nor
    /// what makes or is a seal itself.
    #[inline]
    pub(super) fn misses_seal(&self, from: &Link, header: &IpHeader, packet: &[u8]) -> bool {
        let of_mesh = MESH_V6.contains(header.source) || MESH_V4.contains(header.source);
        self.wants_seals
            && of_mesh
            && !matches!(header.protocol, ICMP | ICMPV6)
            && !prefixes_of(&from.peer).iter().any(|own| own.contains(header.source))
            && !seal::is_of_seal(header, packet, self.address_v6, &self.sealed_ports)
    }

    /// Whether packets wait for the seal to `peer` with reason: routes name it, and it is not there.
    pub(super) fn waits_for(&self, peer: &NodeId) -> bool {
        self.peers.iter().flatten().any(|known| known.id == *peer && known.seal.is_none())
    }

    #[inline]
    fn next(&self, destination: IpAddr) -> Next {
        let of_mesh = || MESH_V6.contains(destination) || MESH_V4.contains(destination);
        let route = self.routes.lookup(destination).filter(|(len, _)| *len > 0 || !of_mesh());
        let local = self.local.lookup(destination).filter(|(_, kind)| *kind == LocalKind::Own || !of_mesh());
        match (local, route) {
            (Some((local, _)), Some((route, _))) if local >= route => Next::Local,
            (Some(_), None) => Next::Local,
            (_, Some((_, route))) => Next::Route(route),
            (None, None) => Next::None,
        }
    }

    /// Number of routes.
    pub(super) fn size(&self) -> usize {
        self.routes.size()
    }

    /// Whether a prefix has a route.
    pub(super) fn has_route(&self, prefix: Prefix) -> bool {
        self.routes.get(prefix).is_some()
    }

    /// Whether a prefix goes exactly this way.
    pub(super) fn goes(&self, prefix: Prefix, link: Slot, seal: Option<NodeId>) -> bool {
        let id = |slot: PeerSlot| self.peers.get(slot as usize)?.as_ref().map(|peer| peer.id);
        self.routes.get(prefix).is_some_and(|route| route.link == link && route.seal.and_then(id) == seal)
    }

    /// Sets where a prefix goes.
    pub(super) fn set_route(&mut self, prefix: Prefix, link: Slot, seal: Option<NodeId>) {
        let seal = seal.map(|id| self.take_peer(id));
        let before = self.routes.insert(prefix, Route { link, seal });
        self.leave_peer(before);
    }

    /// A prefix goes nowhere any more.
    pub(super) fn remove_route(&mut self, prefix: Prefix) {
        let before = self.routes.remove(prefix);
        self.leave_peer(before);
    }

    /// Puts a link or a seal into a free slot.
    pub(super) fn add_link(&mut self, slot: Slot, link: Arc<Link>) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, None);
        }
        if link.outer.is_some() {
            let peers = self.peers.iter_mut().flatten();
            peers.filter(|peer| peer.id == link.peer).for_each(|peer| peer.seal = Some(slot));
        }
        self.links[at] = Some(link);
    }

    /// A link or a seal is gone, and with a link the routes over it.
    pub(super) fn remove_link(&mut self, slot: Slot) {
        let mut left = Vec::new();
        self.routes.retain(|route| {
            let keep = route.link != slot;
            if !keep {
                left.push(route);
            }
            keep
        });
        left.into_iter().for_each(|route| self.leave_peer(Some(route)));
        self.sessions.retain(|_, session| session.slot != slot);
        let Some(link) = self.links.get_mut(slot as usize).and_then(Option::take) else { return };
        if link.outer.is_some() {
            // Two seals between the same nodes last for a moment.
            let other = self.seal_to(&link.peer);
            let peers = self.peers.iter_mut().flatten();
            peers.filter(|peer| peer.seal == Some(slot)).for_each(|peer| peer.seal = other);
        }
    }

    /// The newest seal to a node.
    fn seal_to(&self, peer: &NodeId) -> Option<Slot> {
        let links = self.links.iter().enumerate();
        let seals = links.filter_map(|(slot, link)| {
            let link = link.as_ref().filter(|link| link.outer.is_some() && link.peer == *peer)?;
            Some((link.id, Slot::try_from(slot).ok()?))
        });
        seals.max().map(|(_, slot)| slot)
    }

    /// The slot of a node that one more route names.
    fn take_peer(&mut self, id: NodeId) -> PeerSlot {
        let known = self.peers.iter().position(|peer| peer.as_ref().is_some_and(|peer| peer.id == id));
        let at = known.or_else(|| self.peers.iter().position(Option::is_none)).unwrap_or(self.peers.len());
        if at == self.peers.len() {
            self.peers.push(None);
        }
        if self.peers[at].is_none() {
            self.peers[at] = Some(Peer { id, seal: self.seal_to(&id), routes: 0 });
        }
        if let Some(peer) = &mut self.peers[at] {
            peer.routes += 1;
        }
        // There are no more of them than routes.
        PeerSlot::try_from(at).unwrap_or(PeerSlot::MAX)
    }

    /// A route that may name a node is gone.
    fn leave_peer(&mut self, route: Option<Route>) {
        let Some(place) = route.and_then(|route| self.peers.get_mut(route.seal? as usize)) else { return };
        if let Some(peer) = place {
            peer.routes = peer.routes.saturating_sub(1);
            if peer.routes == 0 {
                *place = None;
            }
        }
    }

    /// Whether an address is this node's or behind it.
    #[inline]
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        matches!(self.local.lookup(address), Some((_, LocalKind::Own)))
    }

    /// The node's own address of the same family as `like`.
    pub(super) fn own_address(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.address_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.address_v6.map(IpAddr::V6),
        }
    }
}

/// The prefixes that a node's own packets and those of its LAN come from.
#[inline]
fn prefixes_of(id: &NodeId) -> [Prefix; 2] {
    [grange_wire::lan_prefix(id), Prefix::host(grange_wire::node_address_v4(id).into())]
}

/// Links whose neighbour was heard from another address.
#[derive(Default)]
pub(super) struct Roamed(Mutex<HashMap<LinkId, Endpoint>>);

impl Roamed {
    /// At most one entry a link; links are bounded.
    pub(super) fn note(&self, link: LinkId, from: Endpoint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(link, from);
    }

    pub(super) fn take(&self, into: &mut Vec<(LinkId, Endpoint)>) {
        into.extend(self.0.lock().unwrap_or_else(PoisonError::into_inner).drain());
    }

    pub(super) fn forget(&self, link: LinkId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use grange_core::{Cipher, IfaceId};

    use super::*;

    #[test]
    fn an_exit_takes_what_is_not_the_meshs() {
        let mut tables = Tables::default();
        tables.local.insert("::/0".parse().unwrap(), LocalKind::Exit);
        tables.local.insert("0.0.0.0/0".parse().unwrap(), LocalKind::Exit);
        tables.local.insert("fd01:0:0:1::/64".parse().unwrap(), LocalKind::Own);
        let local = |address: &str| matches!(tables.next_hop(address.parse().unwrap()), Hop::Local);
        assert!(local("2001:db8::1") && local("198.51.100.1") && local("fd01:0:0:1::7"));
        assert!(!local("fd02::1") && !local("100.64.0.9"));
        assert!(tables.is_own("fd01:0:0:1::7".parse().unwrap()));
        assert!(!tables.is_own("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_node_that_is_gone_is_not_looked_for_by_a_default_route() {
        let mut tables = Tables::default();
        for prefix in ["::/0", "0.0.0.0/0", "fd02::/64"] {
            tables.set_route(prefix.parse().unwrap(), 0, None);
        }
        let led = |address: &str| tables.routes.lookup(address.parse().unwrap()).is_some();
        let none = |address: &str| matches!(tables.next_hop(address.parse().unwrap()), Hop::None);
        assert!(led("fd03::1") && led("100.64.0.9"), "the tables alone would");
        assert!(none("fd03::1") && none("100.64.0.9"));
        let endpoint = Endpoint { iface: IfaceId(1), addr: "[fe80::1]:7264".parse().unwrap() };
        let keys = DataKeys {
            cipher: Cipher::ChaCha20Poly1305,
            local: LinkIndex(1),
            remote: LinkIndex(2),
            seal: [1; 32],
            open: [2; 32],
        };
        let session = Arc::new(Session::new(0, &keys).unwrap());
        let counters = Arc::default();
        let destination = underlay::destination(endpoint);
        let (id, peer) = (LinkId(1), NodeId([1; 32]));
        let link =
            Link { id, peer, outer: None, endpoint, destination, outlet: Arc::default(), mtu: 1419, session, counters };
        tables.add_link(0, Arc::new(link));
        let goes = |address: &str| matches!(tables.next_hop(address.parse().unwrap()), Hop::Link(_));
        assert!(goes("2001:db8::1") && goes("198.51.100.1") && goes("fd02::1"));
        assert!(!goes("fd03::1") && !goes("100.64.0.9"));
    }
}
