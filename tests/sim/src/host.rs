//! One node with what a shell would keep for it: links, forwarding table, counters, a clock of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use grange_core::{
    DataKeys, Endpoint, GatewayPolicy, Identity, IfaceId, Instant, LinkId, LinkTraffic, Node, Offer, Town,
};
use grange_wire::{LinkIndex, NodeId, Prefix, RouterId, SEAL_PORT, lan_prefix, node_address, node_address_v4};

use crate::Member;

/// A link or seal as the shell and its plane know it.
#[derive(Clone, Debug)]
pub(crate) struct PlaneLink {
    pub(crate) peer: usize,
    /// Which run of the peer the link was made with: a node that started anew has none of the keys.
    pub(crate) peer_run: Option<u32>,
    pub(crate) endpoint: Endpoint,
    pub(crate) keys: DataKeys,
    pub(crate) old_keys: Option<DataKeys>,
    pub(crate) offered: Option<DataKeys>,
    pub(crate) mtu: u16,
    pub(crate) traffic: LinkTraffic,
    pub(crate) reported: LinkTraffic,
    /// Counter of the newest frame that opened.
    pub(crate) newest: u64,
}

impl PlaneLink {
    pub(crate) fn new(peer: usize, peer_run: Option<u32>, endpoint: Endpoint, keys: DataKeys, mtu: u16) -> Self {
        let (traffic, reported) = Default::default();
        Self { peer, peer_run, endpoint, keys, old_keys: None, offered: None, mtu, traffic, reported, newest: 0 }
    }

    /// Whether a frame for this index and sealed with this key authenticates here.
    pub(crate) fn opens(&self, receiver: LinkIndex, key: &[u8; 32]) -> bool {
        let fits = |keys: &DataKeys| keys.local == receiver && keys.open == *key;
        let both = [&self.old_keys, &self.offered];
        fits(&self.keys) || both.into_iter().any(|keys| keys.as_ref().is_some_and(fits))
    }
}

/// A route as the events told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Over which link.
    pub via: LinkId,
    /// Cost of the whole way.
    pub metric: u16,
    /// Who announced it.
    pub owner: NodeId,
    /// The announcement's router-id.
    pub router_id: RouterId,
}

/// What a node did so far. Datagrams count with their IPv6 and UDP headers (48 bytes).
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Datagrams sent by type: 1 beacon, 2 to 4 handshake, 5 control.
    pub datagrams: [u64; 8],
    /// Their bytes.
    pub bytes: [u64; 8],
    /// Data packets dropped because no route was there.
    pub unroutable: u64,
    /// Data packets whose way was longer than 64 hops.
    pub expired: u64,
    /// Data frames that no key opened.
    pub unopened: u64,
    /// Packets of seals that a link on the way could not carry.
    pub too_big: u64,
    /// Data frames longer than the wire although the link said that they fit.
    pub oversized: u64,
}

impl Counters {
    /// All bytes sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// A node and its shell.
pub(crate) struct Host {
    pub(crate) seed: [u8; 32],
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) town: Option<Town>,
    pub(crate) policy: GatewayPolicy,
    pub(crate) offer: Offer,
    pub(crate) extra: Vec<Prefix>,
    pub(crate) static_peers: Vec<Endpoint>,
    pub(crate) node: Option<Node>,
    /// Counts starts.
    pub(crate) run: u32,
    /// What the node's clock shows beyond the simulation's, in microseconds.
    pub(crate) clock: i64,
    pub(crate) links: BTreeMap<LinkId, PlaneLink>,
    pub(crate) seals: BTreeMap<LinkId, PlaneLink>,
    /// What the node was told that the mesh carries.
    pub(crate) mesh_mtu: u16,
    /// All links and seals of this run.
    pub(crate) used: BTreeSet<LinkId>,
    pub(crate) fib: BTreeMap<Prefix, Route>,
    /// The moment the node asked for, and which entry of the queue stands for it.
    pub(crate) timer: Option<(Instant, u64)>,
    pub(crate) counters: Counters,
}

impl Host {
    pub(crate) fn new(member: Member, name: String, offer: Offer) -> Self {
        Self {
            offer,
            seals: BTreeMap::new(),
            mesh_mtu: 0,
            seed: member.seed,
            id: Identity::from_seed(&member.seed).id(),
            name,
            town: Some(member.town),
            policy: GatewayPolicy::Any,
            extra: Vec::new(),
            static_peers: Vec::new(),
            node: None,
            run: 0,
            clock: 0,
            links: BTreeMap::new(),
            used: BTreeSet::new(),
            fib: BTreeMap::new(),
            timer: None,
            counters: Counters::default(),
        }
    }

    /// The simulation's time on this node's clock.
    pub(crate) fn instant(&self, now: Duration) -> Instant {
        Instant::from_micros((self.clock + now.as_micros() as i64) as u64)
    }

    /// The node's time in the simulation's.
    pub(crate) fn global(&self, at: Instant) -> Duration {
        Duration::from_micros((at.as_micros() as i64 - self.clock).max(0) as u64)
    }

    pub(crate) fn lan(&self) -> Prefix {
        lan_prefix(&self.id)
    }

    pub(crate) fn v4(&self) -> Prefix {
        Prefix::host(node_address_v4(&self.id).into())
    }

    /// Where the node is in the mesh.
    pub(crate) fn place(&self) -> Endpoint {
        Endpoint { iface: IfaceId::MESH, addr: (node_address(&self.id), SEAL_PORT).into() }
    }

    /// The seal with another node, if there is one.
    pub(crate) fn seal_with(&mut self, peer: usize) -> Option<&mut PlaneLink> {
        self.seals.values_mut().find(|seal| seal.peer == peer)
    }

    /// Whether packets to this prefix end here.
    pub(crate) fn owns(&self, prefix: &Prefix) -> bool {
        *prefix == self.lan() || *prefix == self.v4() || self.extra.contains(prefix)
    }

    /// Forgets what a process forgets when it dies.
    pub(crate) fn forget(&mut self) {
        self.node = None;
        self.links.clear();
        self.seals.clear();
        self.mesh_mtu = 0;
        self.fib.clear();
        self.timer = None;
    }
}
