//! What the two threads know: links, sessions and routes, as one snapshot that is replaced and never changed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use grange_core::{DataKeys, Endpoint, LinkId, LinkTraffic, link::ReplayWindow};
use grange_wire::{LinkIndex, MESH_V4, MESH_V6};
use portable_atomic::AtomicU64;

use super::reassembly::Reassembly;
use crate::{
    plane::{aead::FrameKey, fib::Fib},
    underlay,
};

/// Frames that may overtake each other: the window spans a burst of several super-packets.
pub(super) const REPLAY_WINDOW: usize = 8192;

/// Frames that one session seals at most: no counter is ever used twice, whatever becomes of the rekey that the core
/// does after 2^48.
const MAX_FRAMES: u64 = 1 << 60;

/// The place of a link in [`Tables::links`].
pub(super) type Slot = u32;

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

/// A link as the threads use it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) endpoint: Endpoint,
    /// `endpoint` as the kernel wants it.
    pub(super) destination: SocketAddr,
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

/// Where a packet goes.
pub(super) enum Hop<'a> {
    /// To the TUN.
    Local,
    /// Over a link.
    Link(&'a Arc<Link>),
    /// Nowhere.
    None,
}

/// The snapshot.
#[derive(Clone, Default)]
pub(super) struct Tables {
    /// By slot; freed slots are used again.
    pub(super) links: Vec<Option<Arc<Link>>>,
    /// By the index in the frames that come to us: the present and the previous keys of every link.
    pub(super) sessions: HashMap<u32, Arc<Session>>,
    pub(super) routes: Fib<Slot>,
    pub(super) local: Fib<LocalKind>,
    pub(super) address_v6: Option<Ipv6Addr>,
    pub(super) address_v4: Option<Ipv4Addr>,
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
        let of_mesh = || MESH_V6.contains(destination) || MESH_V4.contains(destination);
        let route = self.routes.lookup(destination).filter(|(len, _)| *len > 0 || !of_mesh());
        let local = self.local.lookup(destination).filter(|(_, kind)| *kind == LocalKind::Own || !of_mesh());
        match (local, route) {
            (Some((local, _)), Some((route, _))) if local >= route => Hop::Local,
            (Some(_), None) => Hop::Local,
            (_, Some((_, slot))) => self.link(slot).map_or(Hop::None, Hop::Link),
            (None, None) => Hop::None,
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
            tables.routes.insert(prefix.parse().unwrap(), 0);
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
        tables.links.push(Some(Arc::new(Link { id: LinkId(1), endpoint, destination, mtu: 1419, session, counters })));
        let goes = |address: &str| matches!(tables.next_hop(address.parse().unwrap()), Hop::Link(_));
        assert!(goes("2001:db8::1") && goes("198.51.100.1") && goes("fd02::1"));
        assert!(!goes("fd03::1") && !goes("100.64.0.9"));
    }
}
