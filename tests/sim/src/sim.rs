//! The event loop: shells, wires and time.

mod data;
mod events;
mod faults;
mod loops;
mod notes;
mod observe;
mod setup;
mod wires;

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
    net::{Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use grange_core::{Endpoint, IfaceId, IfaceKind, Node, NodeConfig, Offer};
use grange_wire::{NodeId, PORT};

pub use self::{
    notes::{LinkNote, Note},
    observe::Walk,
    setup::Setup,
    wires::Datagram,
};
use crate::{
    Dice, Quality,
    flow::{Flow, Frame},
    host::Host,
    wire::{Port, Wire},
};

/// IPv6 and UDP headers around each datagram.
const HEADERS: usize = 48;
/// Calls of one node at one moment after which it must be taken for one that never rests.
const RESTLESS: u32 = 20_000;

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
}
