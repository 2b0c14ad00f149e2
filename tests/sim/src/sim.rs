//! The event loop: shells, wires and time.

mod data;
mod faults;
mod observe;

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    net::{Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use grange_core::{
    Cipher, DataKeys, DownReason, Endpoint, Event, IfaceId, IfaceKind, IfaceState, LinkId, Node, NodeConfig, Offer,
    PeerInfo, Target, Transmit,
};
use grange_wire::{NodeId, PORT, Prefix};

pub use self::observe::Walk;
use crate::{
    Dice, Member, Quality, Topology,
    flow::{Flow, Frame},
    host::{Host, PlaneLink, Route},
    report, town,
    wire::{Port, Wire},
};

/// IPv6 and UDP headers around each datagram.
const HEADERS: usize = 48;
/// Calls of one node at one moment after which it must be taken for one that never rests.
const RESTLESS: u32 = 20_000;

/// What a simulation is made of.
#[derive(Clone)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Who is on which wire.
    pub topology: Topology,
    /// How good all wires are at the start.
    pub quality: Quality,
    /// What all wires are, but for the tunnels.
    pub kind: IfaceKind,
    /// Wires that are paths through the Internet between static peers, by index.
    pub tunnels: Vec<usize>,
    /// Largest IP packet on the wires.
    pub mtu: u16,
    /// Nodes start at random moments within this time.
    pub stagger: Duration,
    /// Timers fire up to this late, as under a busy kernel.
    pub lateness: Duration,
    /// The nodes' keys and memberships; by default one town of all.
    pub members: Vec<Member>,
}

impl Setup {
    /// Good cables, and all nodes of one town started at once.
    #[must_use]
    pub fn new(seed: u64, topology: Topology) -> Self {
        let members = town(topology.nodes, seed);
        Self {
            seed,
            topology,
            quality: Quality::CABLE,
            kind: IfaceKind::Wired,
            tunnels: Vec::new(),
            mtu: 1500,
            stagger: Duration::from_millis(100),
            lateness: Duration::from_millis(1),
            members,
        }
    }

    /// With these wires.
    #[must_use]
    pub fn quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// With this kind of interface.
    #[must_use]
    pub fn kind(mut self, kind: IfaceKind) -> Self {
        self.kind = kind;
        self
    }

    /// The simulation.
    #[must_use]
    pub fn build(self) -> Sim {
        Sim::new(self)
    }
}

/// A datagram that somebody put on a wire.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// When.
    pub at: Duration,
    /// On which wire; `None` if it went to an address that nobody has.
    pub wire: Option<usize>,
    /// Who sent it.
    pub from: usize,
    /// To whom; on a segment a beacon is here once for each who could hear it.
    pub to: Option<usize>,
    /// The UDP payload.
    pub payload: Rc<[u8]>,
}

/// Something about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It came up.
    Up,
    /// It went down.
    Down(DownReason),
    /// It has new keys.
    Rekeyed,
    /// The neighbour has another address.
    Moved,
    /// Another size passes.
    Mtu(u16),
}

/// What a node said about one of its links or seals.
#[derive(Clone, Copy, Debug)]
pub struct LinkNote {
    /// When.
    pub at: Duration,
    /// Who said it.
    pub host: usize,
    /// Who is at the other end.
    pub peer: usize,
    /// Which link.
    pub link: LinkId,
    /// Whether it is a seal.
    pub seal: bool,
    /// What.
    pub note: Note,
}

/// A town in virtual time.
///
/// Order of calls: [`Setup::build`], then any of the faults and questions between calls of [`Sim::run_for`] and its
/// kin. Nodes are called by their number in the topology, wires by their index in it.
///
/// Checked after every event, with a panic that tells seed and moment:
/// - the forwarding tables of all nodes together hold no loop for any destination whose routes just changed;
/// - events keep their contract: routes go over links that are up, a link that goes down has no routes left, a link's
///   id is used once, a removed route was there, nobody routes an own prefix;
/// - a seal is with the node that has its address; what two ends agreed on follows from what they offer;
/// - nodes rest: no timer asks for the same moment for ever.
pub struct Sim {
    seed: u64,
    now: Duration,
    dice: Dice,
    entropy: Dice,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    lateness: Duration,
    hosts: Vec<Host>,
    wires: Vec<Wire>,
    by_id: BTreeMap<NodeId, usize>,
    by_addr: BTreeMap<SocketAddr, (usize, usize)>,
    flows: Vec<Flow>,
    counting: bool,
    addresses_made: u64,
    /// Counts changes of tables, links and faults: what was asked before holds while it stands still.
    version: u64,
    trace: blake3::Hasher,
    tap: Option<Vec<Datagram>>,
    notes: Vec<LinkNote>,
    busy: (Duration, u32),
    verbose: bool,
}

struct Scheduled {
    at: Duration,
    sequence: u64,
    what: What,
}

enum What {
    Start { host: usize },
    Datagram { wire: usize, to: usize, to_addr: SocketAddr, from: Endpoint, payload: Rc<[u8]> },
    Timer { host: usize, serial: u64 },
    Frame { wire: usize, to: usize, frame: Box<Frame> },
    Tick { flow: usize },
    Counters { host: usize },
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Sim {
    fn new(setup: Setup) -> Self {
        let Setup { seed, topology, quality, kind, tunnels, mtu, stagger, lateness, members } = setup;
        assert!(members.len() >= topology.nodes, "a member for each node");
        let hosts: Vec<Host> = members
            .into_iter()
            .take(topology.nodes)
            .enumerate()
            .map(|(number, member)| {
                // All mixtures of machines, whatever their places.
                let offer = Offer { fast_aes: number % 2 == 0, kernel_plane: number % 3 != 0 };
                Host::new(member, format!("node-{number}"), offer)
            })
            .collect();
        let by_id = hosts.iter().enumerate().map(|(number, host)| (host.id, number)).collect();
        let mut sim = Self {
            seed,
            now: Duration::ZERO,
            dice: Dice::new(seed, 1),
            entropy: Dice::new(seed, 2),
            queue: BinaryHeap::new(),
            sequence: 0,
            lateness,
            hosts,
            wires: Vec::new(),
            by_id,
            by_addr: BTreeMap::new(),
            flows: Vec::new(),
            counting: false,
            addresses_made: 0,
            version: 0,
            trace: blake3::Hasher::new(),
            tap: None,
            notes: Vec::new(),
            busy: (Duration::ZERO, 0),
            verbose: std::env::var_os("SIM_TRACE").is_some(),
        };
        for (index, members) in topology.wires.iter().enumerate() {
            let kind = if tunnels.contains(&index) { IfaceKind::Tunnel } else { kind };
            sim.add_wire(members, kind, mtu, quality);
        }
        for host in 0..sim.hosts.len() {
            let at = sim.dice.time(Duration::ZERO, stagger);
            sim.schedule(at, What::Start { host });
        }
        sim
    }

    fn add_wire(&mut self, members: &[usize], kind: IfaceKind, mtu: u16, quality: Quality) {
        let index = self.wires.len();
        let mut ports = Vec::new();
        for &host in members {
            let addr = self.fresh_address(kind);
            self.by_addr.insert(addr, (index, host));
            // The kernel's numbers: the loopback is 1.
            let iface = if kind == IfaceKind::Tunnel { 0 } else { index as u32 + 2 };
            ports.push(Port { host, iface: IfaceId(iface), addr });
        }
        if kind == IfaceKind::Tunnel {
            for &Port { host, .. } in &ports {
                let others = ports.iter().filter(|port| port.host != host);
                self.hosts[host]
                    .static_peers
                    .extend(others.map(|port| Endpoint { iface: port.iface, addr: port.addr }));
            }
        }
        let deaf = std::collections::BTreeSet::new();
        self.wires.push(Wire { kind, ports, quality, mtu, path_mtu: mtu, up: true, deaf });
    }

    fn fresh_address(&mut self, kind: IfaceKind) -> SocketAddr {
        self.addresses_made += 1;
        let net: u128 = if kind == IfaceKind::Tunnel { 0x2001_0db8 << 96 } else { 0xfe80 << 112 };
        (Ipv6Addr::from(net | u128::from(self.addresses_made)), PORT).into()
    }

    fn schedule(&mut self, at: Duration, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at, sequence: self.sequence, what }));
    }

    /// The time since the simulation began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until `done`, asked whenever anything changed; `None` if it is not so after `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        let mut asked = None;
        loop {
            if asked != Some(self.version) {
                asked = Some(self.version);
                if done(self) {
                    return Some(self.now - begin);
                }
            }
            if self.queue.peek().is_none_or(|Reverse(next)| next.at > begin + limit) {
                self.now = begin + limit;
                return None;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        let Some(Reverse(Scheduled { at, what, .. })) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        match what {
            What::Start { host } => self.start(host),
            What::Datagram { wire, to, to_addr, from, payload } => {
                let wire = &self.wires[wire];
                if wire.up && wire.port(to).is_some_and(|port| port.addr == to_addr) {
                    self.with_node(to, |node, now| node.handle_datagram(now, from, &payload));
                }
            }
            What::Timer { host, serial } => {
                if self.hosts[host].timer.is_some_and(|(_, wanted)| wanted == serial) {
                    self.hosts[host].timer = None;
                    self.with_node(host, |node, now| node.handle_timeout(now));
                }
            }
            What::Frame { wire, to, frame } => self.frame(wire, to, &frame),
            What::Tick { flow } => self.tick(flow),
            What::Counters { host } => self.report_counters(host),
        }
    }

    /// Calls a node, if it runs, and does what it then asks for.
    fn with_node(&mut self, host: usize, call: impl FnOnce(&mut Node, grange_core::Instant)) {
        let now = self.hosts[host].instant(self.now);
        if let Some(node) = &mut self.hosts[host].node {
            call(node, now);
            self.drain(host);
        }
    }

    fn drain(&mut self, host: usize) {
        if self.busy.0 == self.now {
            self.busy.1 += 1;
        } else {
            self.busy = (self.now, 0);
        }
        assert!(self.busy.1 < RESTLESS, "{}: somebody never rests (node {host}?)", self.context());
        loop {
            let Some(node) = &mut self.hosts[host].node else { return };
            if let Some(transmit) = node.poll_transmit() {
                self.transmit(host, transmit);
            } else if let Some(event) = node.poll_event() {
                self.event(host, event);
            } else {
                break;
            }
        }
        let wanted = self.hosts[host].node.as_ref().and_then(Node::poll_timeout);
        match (wanted, self.hosts[host].timer) {
            (Some(wanted), Some((standing, _))) if wanted == standing => {}
            (Some(wanted), _) => {
                let late = self.dice.time(Duration::ZERO, self.lateness);
                let at = self.hosts[host].global(wanted).max(self.now) + late;
                self.hosts[host].timer = Some((wanted, self.sequence + 1));
                self.schedule(at, What::Timer { host, serial: self.sequence + 1 });
            }
            (None, _) => self.hosts[host].timer = None,
        }
    }

    fn transmit(&mut self, host: usize, Transmit { to, payload }: Transmit) {
        let kind = payload.first().copied().unwrap_or_default();
        assert!((1..=5).contains(&kind), "{}: node {host} sent a datagram of type {kind}", self.context());
        self.trace("sends", host, &payload);
        let counters = &mut self.hosts[host].counters;
        counters.datagrams[usize::from(kind)] += 1;
        counters.bytes[usize::from(kind)] += (payload.len() + HEADERS) as u64;
        let payload: Rc<[u8]> = payload.into();
        match to {
            Target::Endpoint(endpoint) if endpoint.iface == IfaceId::MESH => {
                self.transmit_over_mesh(host, endpoint, payload);
            }
            Target::Endpoint(endpoint) => match self.resolve(host, endpoint) {
                Some((wire, to)) => self.send(wire, host, to, &payload),
                None => self.snoop(None, host, None, &payload),
            },
            Target::Beacon(iface) => {
                let found = self.wires.iter().position(|wire| wire.port(host).is_some_and(|port| port.iface == iface));
                let wire = found.unwrap_or_else(|| panic!("{}: node {host} has no {iface:?}", self.context()));
                for to in self.wires[wire].ports.iter().map(|port| port.host).collect::<Vec<_>>() {
                    if to != host {
                        self.send(wire, host, to, &payload);
                    }
                }
            }
        }
    }

    /// On which wire, and to whom, a datagram of `host` to this endpoint goes.
    fn resolve(&self, host: usize, endpoint: Endpoint) -> Option<(usize, usize)> {
        let &(wire, to) = self.by_addr.get(&endpoint.addr)?;
        let port = self.wires[wire].port(host)?;
        (port.iface == endpoint.iface).then_some((wire, to))
    }

    fn send(&mut self, wire: usize, from: usize, to: usize, payload: &Rc<[u8]>) {
        self.snoop(Some(wire), from, Some(to), payload);
        let Wire { quality, path_mtu, .. } = self.wires[wire];
        if !self.wires[wire].carries(from, to) || payload.len() + HEADERS > usize::from(path_mtu) {
            return;
        }
        if self.dice.chance(quality.loss) {
            return;
        }
        let copies = 1 + usize::from(self.dice.chance(quality.duplication));
        for _ in 0..copies {
            let at = self.now + self.delay(quality);
            let (Some(source), Some(target)) = (self.wires[wire].port(from), self.wires[wire].port(to)) else { return };
            let source = Endpoint { iface: target.iface, addr: source.addr };
            let to_addr = target.addr;
            self.schedule(at, What::Datagram { wire, to, to_addr, from: source, payload: payload.clone() });
        }
    }

    fn delay(&mut self, quality: Quality) -> Duration {
        let jitter = self.dice.time(Duration::ZERO, quality.jitter);
        let held = if self.dice.chance(quality.reordering) {
            self.dice.time(Duration::ZERO, Duration::from_millis(100))
        } else {
            Duration::ZERO
        };
        quality.latency + jitter + held
    }

    fn snoop(&mut self, wire: Option<usize>, from: usize, to: Option<usize>, payload: &Rc<[u8]>) {
        if let Some(tap) = &mut self.tap {
            tap.push(Datagram { at: self.now, wire, from, to, payload: payload.clone() });
        }
    }

    fn event(&mut self, host: usize, event: Event) {
        let text = format!("{event:?}");
        if self.verbose {
            report::say(format_args!("{:?} node {host}: {text}", self.now));
        }
        self.trace("says", host, text.as_bytes());
        match event {
            Event::LinkUp { link, peer, endpoint, keys, mtu, kernel } => {
                assert!(mtu >= 1280, "{}: an inner MTU of {mtu}", self.context());
                let plane = self.plane_link(host, link, &peer, endpoint, keys, mtu, kernel);
                self.hosts[host].links.insert(link, plane);
                self.note(host, link, Note::Up);
                self.tell_mesh_mtu(host);
            }
            Event::SealUp { seal, peer, endpoint, keys, mtu, kernel } => {
                assert!(mtu >= 1199, "{}: an inner MTU of {mtu}", self.context());
                let plane = self.plane_link(host, seal, &peer, endpoint, keys, mtu, kernel);
                assert_eq!(endpoint, self.hosts[plane.peer].place(), "{}: somebody else's seal", self.context());
                let twin = self.hosts[host].seal_with(plane.peer);
                assert!(twin.is_none(), "{}: two seals of node {host} with {}", self.context(), plane.peer);
                self.hosts[host].seals.insert(seal, plane);
                self.note(host, seal, Note::Up);
            }
            Event::SealDown { seal, reason } => {
                self.note(host, seal, Note::Down(reason));
                let gone = self.hosts[host].seals.remove(&seal);
                assert!(gone.is_some(), "{}: node {host}'s {seal:?} is no seal", self.context());
            }
            Event::LinkKeysOffered { link, keys } => self.link_mut(host, link).offered = Some(keys),
            Event::LinkRekeyed { link, keys } => {
                self.note(host, link, Note::Rekeyed);
                let link = self.link_mut(host, link);
                link.offered = None;
                link.old_keys = Some(std::mem::replace(&mut link.keys, keys));
            }
            Event::LinkMoved { link, endpoint } => {
                self.note(host, link, Note::Moved);
                assert!(!self.hosts[host].seals.contains_key(&link), "{}: a seal moved", self.context());
                self.link_mut(host, link).endpoint = endpoint;
            }
            Event::LinkMtu { link, mtu } => {
                self.note(host, link, Note::Mtu(mtu));
                self.link_mut(host, link).mtu = mtu;
                self.tell_mesh_mtu(host);
            }
            Event::LinkDown { link, reason } => {
                self.note(host, link, Note::Down(reason));
                self.hosts[host].links.remove(&link);
                let left = self.hosts[host].fib.iter().find(|(_, route)| route.via == link);
                assert!(left.is_none(), "{}: node {host}'s {link:?} is down, but {left:?}", self.context());
                self.tell_mesh_mtu(host);
            }
            Event::RouteChanged { prefix, via, metric, owner, router_id } => {
                assert!(self.hosts[host].links.contains_key(&via), "{}: a route over no link", self.context());
                assert!(self.by_id.contains_key(&owner), "{}: a stranger's {prefix}", self.context());
                assert!(metric < u16::MAX, "{}: {prefix} at an infinite metric", self.context());
                assert!(!self.hosts[host].owns(&prefix), "{}: node {host} routes its {prefix}", self.context());
                self.hosts[host].fib.insert(prefix, Route { via, metric, owner, router_id });
                self.check_loops(prefix);
            }
            Event::RouteRemoved { prefix } => {
                let was = self.hosts[host].fib.remove(&prefix);
                assert!(was.is_some(), "{}: node {host} removes {prefix}, which was not there", self.context());
            }
            Event::LinkRtt { .. } | Event::LinkPlanePort { .. } => return,
        }
        self.version += 1;
    }

    /// What a plane is told of a link or seal that came up.
    #[expect(clippy::too_many_arguments, reason = "all that an event tells")]
    fn plane_link(
        &mut self,
        host: usize,
        link: LinkId,
        peer: &PeerInfo,
        endpoint: Endpoint,
        keys: DataKeys,
        mtu: u16,
        kernel: bool,
    ) -> PlaneLink {
        let known = self.by_id.get(&peer.id).copied();
        let other = known.unwrap_or_else(|| panic!("{}: a link with a stranger", self.context()));
        assert_ne!(other, host, "{}: a link with itself", self.context());
        let (a, b) = (self.hosts[host].offer, self.hosts[other].offer);
        let aes = keys.cipher == Cipher::Aes256Gcm;
        assert_eq!(aes, a.fast_aes && b.fast_aes, "{}: cipher of {host} and {other}", self.context());
        assert_eq!(kernel, a.kernel_plane && b.kernel_plane, "{}: plane of {host} and {other}", self.context());
        let fresh = self.hosts[host].used.insert(link);
        assert!(fresh, "{}: {link:?} of node {host} was used before", self.context());
        let run = self.hosts[other].node.is_some().then_some(self.hosts[other].run);
        PlaneLink::new(other, run, endpoint, keys, mtu)
    }

    /// The mesh carries what the best link does.
    fn tell_mesh_mtu(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let mtu = it.links.values().map(|link| link.mtu).max().unwrap_or(it.mesh_mtu);
        if mtu == it.mesh_mtu {
            return;
        }
        it.mesh_mtu = mtu;
        let now = it.instant(self.now);
        let state = IfaceState { kind: IfaceKind::Tunnel, mtu, up: true, beacons: false };
        if let Some(node) = &mut it.node {
            node.set_iface(now, IfaceId::MESH, Some(state));
        }
    }

    fn note(&mut self, host: usize, link: LinkId, note: Note) {
        let peer = self.link_mut(host, link).peer;
        let seal = self.hosts[host].seals.contains_key(&link);
        self.notes.push(LinkNote { at: self.now, host, peer, link, seal, note });
    }

    fn link_mut(&mut self, host: usize, link: LinkId) -> &mut PlaneLink {
        let context = self.context();
        let Host { links, seals, .. } = &mut self.hosts[host];
        let found = links.get_mut(&link).or_else(|| seals.get_mut(&link));
        found.unwrap_or_else(|| panic!("{context}: node {host} speaks of {link:?}, which is not up"))
    }

    fn trace(&mut self, what: &str, host: usize, bytes: &[u8]) {
        self.trace.update(&self.now.as_nanos().to_be_bytes());
        self.trace.update(what.as_bytes());
        self.trace.update(&(host as u64).to_be_bytes());
        self.trace.update(bytes);
    }

    /// Where a failure happened.
    fn context(&self) -> String {
        format!("seed {} at {:?}", self.seed, self.now)
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].node.is_some() {
            return;
        }
        let entropy = self.entropy.seed();
        // Half of the shells count from their own start, the others from some boot long ago.
        let boot = if self.dice.chance(0.5) { 0 } else { self.dice.below(1 << 42) as i64 };
        let it = &mut self.hosts[host];
        it.run += 1;
        it.clock = boot - self.now.as_micros() as i64;
        it.used.clear();
        let now = it.instant(self.now);
        let config = NodeConfig {
            seed: it.seed,
            name: it.name.clone(),
            town: it.town.clone(),
            gateways: it.policy.clone(),
            offer: it.offer,
        };
        let mut node = Node::new(config, now, entropy);
        for wire in &self.wires {
            if let Some(port) = wire.port(host).filter(|port| port.iface != IfaceId(0)) {
                node.set_iface(now, port.iface, Some(wire.state()));
            }
        }
        if !it.static_peers.is_empty() {
            node.set_static_peers(now, &it.static_peers);
        }
        if !it.extra.is_empty() {
            node.set_announced(now, &it.extra);
        }
        it.node = Some(node);
        self.version += 1;
        self.drain(host);
    }

    /// The forwarding tables for one prefix must be a forest: walks it from every node.
    fn check_loops(&self, prefix: Prefix) {
        const NEW: u32 = 0;
        let mut seen = vec![NEW; self.hosts.len()];
        for first in 0..self.hosts.len() {
            let mark = first as u32 + 1;
            let mut here = first;
            while seen[here] == NEW {
                seen[here] = mark;
                match self.next_hop(here, &prefix) {
                    Some(next) => here = next,
                    None => break,
                }
                if seen[here] == mark {
                    let mut path = vec![here];
                    while let Some(next) = self.next_hop(path[path.len() - 1], &prefix) {
                        path.push(next);
                        if next == here {
                            break;
                        }
                    }
                    panic!("{}: packets to {prefix} go round: {path:?}", self.context());
                }
            }
        }
    }

    /// The node that `host` hands packets to this prefix to; `None` if it keeps or drops them, or if the neighbour has
    /// started anew since the link was made and so has no key for them.
    fn next_hop(&self, host: usize, prefix: &Prefix) -> Option<usize> {
        let it = &self.hosts[host];
        if it.node.is_none() || it.owns(prefix) {
            return None;
        }
        let link = it.links.get(&it.fib.get(prefix)?.via)?;
        let peer = &self.hosts[link.peer];
        (peer.node.is_some() && link.peer_run == Some(peer.run)).then_some(link.peer)
    }
}

#[cfg(test)]
mod tests {
    use grange_core::{Cipher, DataKeys};
    use grange_wire::{LinkIndex, RouterId};

    use super::*;

    /// Four nodes on a ring, each with a link to the next whose keys fit, made by hand.
    fn by_hand() -> Sim {
        let mut sim = Setup::new(1, Topology::ring(4)).build();
        sim.run_for(Duration::from_micros(1));
        for host in 0..4 {
            sim.start(host);
            sim.hosts[host].links.clear();
        }
        for host in 0..4 {
            let next = (host + 1) % 4;
            let endpoint = Endpoint { iface: IfaceId(host as u32 + 2), addr: sim.address(next, host) };
            let (cipher, there, back) = (Cipher::ChaCha20Poly1305, LinkIndex(host as u32), LinkIndex(host as u32 + 10));
            let (seal, open) = ([1; 32], [2; 32]);
            let keys = DataKeys { cipher, local: back, remote: there, seal, open };
            sim.hosts[host].links.insert(LinkId(100), PlaneLink::new(next, Some(1), endpoint, keys, 1280));
            let endpoint = Endpoint { addr: sim.address(host, host), ..endpoint };
            let keys = DataKeys { cipher, local: there, remote: back, seal: open, open: seal };
            sim.hosts[next].links.insert(LinkId(101), PlaneLink::new(host, Some(1), endpoint, keys, 1280));
        }
        sim
    }

    fn route(sim: &mut Sim, host: usize, to: usize) {
        let [prefix, _] = sim.prefixes(to);
        let owner = sim.id(to);
        let route = Route { via: LinkId(100), metric: 1, owner, router_id: RouterId([0; 8]) };
        sim.hosts[host].fib.insert(prefix, route);
        sim.check_loops(prefix);
    }

    #[test]
    fn a_walk_follows_tables_and_keys() {
        let mut sim = by_hand();
        let [prefix, _] = sim.prefixes(3);
        route(&mut sim, 0, 3);
        assert_eq!(sim.walk(0, &prefix), Walk::NoRoute(1));
        route(&mut sim, 1, 3);
        route(&mut sim, 2, 3);
        assert_eq!(sim.walk(0, &prefix), Walk::Delivered(vec![0, 1, 2, 3]));
        sim.hosts[2].links.remove(&LinkId(101));
        assert_eq!(sim.walk(0, &prefix), Walk::Lost(1), "node 2 has no key for it");
    }

    #[test]
    #[should_panic(expected = "go round: [0, 1, 2, 3, 0]")]
    fn a_loop_is_found() {
        let mut sim = by_hand();
        // A destination that nobody has.
        let prefix = Prefix::DEFAULT_V4;
        for host in [1, 2, 3, 0] {
            let route = Route { via: LinkId(100), metric: 1, owner: sim.id(0), router_id: RouterId([0; 8]) };
            sim.hosts[host].fib.insert(prefix, route);
            sim.check_loops(prefix);
        }
    }

    #[test]
    fn the_last_hop_before_a_restarted_node_ends_a_loop() {
        let mut sim = by_hand();
        sim.kill(0);
        sim.start(0);
        for host in [1, 2, 3] {
            let route = Route { via: LinkId(100), metric: 1, owner: sim.id(0), router_id: RouterId([0; 8]) };
            sim.hosts[host].fib.insert(Prefix::DEFAULT_V4, route);
        }
        assert_eq!(sim.next_hop(3, &Prefix::DEFAULT_V4), None);
        assert_eq!(sim.next_hop(2, &Prefix::DEFAULT_V4), Some(3));
    }
}
