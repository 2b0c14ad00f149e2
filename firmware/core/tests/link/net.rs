//! A few nodes on a few wires and in a mesh, in virtual time, with the least plane that shows whose keys fit.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use grange_core::{
    Cipher, DataKeys, DownReason, Endpoint, Event, GatewayPolicy, Identity, IfaceId, IfaceKind, IfaceState, Instant,
    LinkId, LinkTraffic, Node, NodeConfig, Offer, Target, Town,
    certificate::{Steward, by_invitation, by_steward},
};
use grange_wire::{DatagramKind, FrameHeader, LinkIndex, PORT, SEAL_PORT, TownName, node_address};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub(crate) const TOWN_KEY: [u8; 32] = [42; 32];

/// The plane's counters are read so often.
const TRAFFIC_PERIOD: Duration = Duration::from_millis(100);

/// Milliseconds.
pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The seed of a node's keys.
fn seed_of(node: u16) -> [u8; 32] {
    let [high, low] = node.to_be_bytes();
    let mut seed = [low; 32];
    seed[0] ^= high;
    seed
}

/// A membership in the test town for the node of this seed.
pub(crate) fn town(seed: u16) -> Town {
    let steward = Steward::from_seed(&[200; 32]);
    let certificate = by_steward(&steward, &Identity::from_seed(&seed_of(seed)), 0);
    Town { id: steward.town(), name: "Ahrfeld".into(), key: TOWN_KEY, certificate }
}

/// The same by an invitation, one of many.
pub(crate) fn invited(seed: u16, invitation: u8) -> Town {
    let steward = Steward::from_seed(&[200; 32]);
    let name = TownName::new("Ahrfeld").expect("a name");
    let invitation = steward.invite(&TOWN_KEY, name, 0, 0, &[invitation; 32]);
    let mut town = town(seed);
    town.certificate = by_invitation(&invitation, &Identity::from_seed(&seed_of(seed)), 0).expect("a good invitation");
    town
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Which node sent it.
    pub(crate) sender: usize,
    /// To whom it comes.
    pub(crate) receiver: usize,
    /// As the receiver sees its sender.
    pub(crate) from: Endpoint,
    pub(crate) payload: Vec<u8>,
}

impl Flight {
    pub(crate) fn kind(&self) -> Option<DatagramKind> {
        DatagramKind::of(&self.payload)
    }
}

struct Port {
    node: usize,
    iface: IfaceId,
    addr: SocketAddr,
}

pub(crate) struct Wire {
    ports: Vec<Port>,
    pub(crate) latency: Duration,
    /// In thousandths.
    pub(crate) loss: u32,
    /// Largest IPv6 packet.
    pub(crate) mtu: usize,
    /// Loses everything; the carrier stays.
    pub(crate) cut: bool,
}

/// What a plane knows of one link or seal.
#[derive(Clone)]
pub(crate) struct Tube {
    pub(crate) kernel: bool,
    pub(crate) endpoint: Endpoint,
    pub(crate) seal: DataKeys,
    /// Present, previous and offered keys.
    pub(crate) open: Vec<DataKeys>,
    counter: u64,
    pub(crate) traffic: LinkTraffic,
}

pub(crate) struct Peer {
    pub(crate) node: Node,
    pub(crate) tubes: BTreeMap<LinkId, Tube>,
    pub(crate) seals: BTreeMap<LinkId, Tube>,
    pub(crate) offer: Offer,
    /// Every event, with when it came.
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) stopped: bool,
    seed: u16,
}

impl Peer {
    fn tube_mut(&mut self, id: LinkId) -> &mut Tube {
        self.tubes.get_mut(&id).or(self.seals.get_mut(&id)).expect("what is told of is up")
    }

    /// Where the node is in the mesh.
    pub(crate) fn place(&self) -> Endpoint {
        Endpoint { iface: IfaceId::MESH, addr: (node_address(&self.node.id()), SEAL_PORT).into() }
    }
}

type Filter = Box<dyn FnMut(Instant, &Flight) -> bool>;
type Tamper = Box<dyn FnMut(&mut Flight)>;

/// A pause between frames that a node sends another.
struct Flow {
    from: usize,
    to: usize,
    pause: Duration,
    next: Instant,
    sealed: bool,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    pub(crate) wires: Vec<Wire>,
    /// What carries seals, in place of a mesh: whoever routes finds the way.
    pub(crate) mesh: Wire,
    /// Everything that was sent, whether or not it arrived.
    pub(crate) log: Vec<(Instant, Flight)>,
    pub(crate) keep_log: bool,
    /// `false`: the datagram is lost.
    pub(crate) filter: Filter,
    /// Alters datagrams on their way, after the log has them.
    pub(crate) tamper: Tamper,
    /// Data frames that arrived at a node without a key for them.
    pub(crate) undecipherable: u64,
    /// Data frames that arrived and had a key.
    pub(crate) deciphered: u64,
    /// When frames of seals arrived, and at whom.
    pub(crate) unsealed: Vec<(Instant, usize)>,
    flows: Vec<Flow>,
    queue: BTreeMap<(Instant, u64), Flight>,
    order: u64,
    next_traffic: Instant,
    random: ChaCha8Rng,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            peers: Vec::new(),
            wires: Vec::new(),
            mesh: Wire { ports: Vec::new(), latency: ms(10), loss: 0, mtu: 1419, cut: false },
            log: Vec::new(),
            keep_log: true,
            filter: Box::new(|_, _| true),
            tamper: Box::new(|_| {}),
            undecipherable: 0,
            deciphered: 0,
            unsealed: Vec::new(),
            flows: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            next_traffic: Instant::START,
            random: ChaCha8Rng::from_seed([7; 32]),
        }
    }

    /// Two nodes of the town with a wire between them, which loses nothing.
    pub(crate) fn pair() -> Self {
        let mut net = Self::new();
        net.add_node(1, Some(town(1)), 1);
        net.add_node(2, Some(town(2)), 2);
        net.add_wire(&[0, 1], IfaceKind::Wired);
        net
    }

    /// A node whose machine offers what its entropy says: so the tests run with all mixtures of offers.
    pub(crate) fn add_node(&mut self, seed: u16, town: Option<Town>, entropy: u8) -> usize {
        let offer = Offer { fast_aes: entropy & 1 != 0, kernel_plane: entropy & 2 != 0 };
        self.add_node_with(seed, town, entropy, offer)
    }

    pub(crate) fn add_node_with(&mut self, seed: u16, town: Option<Town>, entropy: u8, offer: Offer) -> usize {
        let node = Node::new(config(seed, town, offer), self.now, [entropy; 32]);
        let (tubes, seals) = Default::default();
        self.peers.push(Peer { node, tubes, seals, offer, events: Vec::new(), stopped: false, seed });
        self.peers.len() - 1
    }

    /// Two nodes of the town with a mesh between them and no wire.
    pub(crate) fn far_pair(entropy: u8) -> Self {
        let mut net = Self::new();
        net.add_node(1, Some(town(1)), entropy);
        net.add_node(2, Some(town(2)), entropy ^ 0x55);
        net
    }

    /// A wire between nodes; their interfaces come up at once. A tunnel has interface 0 and each node has the others
    /// as static peers.
    pub(crate) fn add_wire(&mut self, nodes: &[usize], kind: IfaceKind) -> usize {
        let wire = self.wires.len();
        let mut ports = Vec::new();
        for &node in nodes {
            let (iface, net) = if kind == IfaceKind::Tunnel { (0, 0x2001) } else { (wire as u32 + 1, 0xfe80) };
            let ip = Ipv6Addr::new(net, 0, 0, 0, 0, 0, wire as u16, ports.len() as u16 + 1);
            ports.push(Port { node, iface: IfaceId(iface), addr: (ip, PORT).into() });
        }
        self.wires.push(Wire { ports, latency: ms(2), loss: 0, mtu: 1500, cut: false });
        for &node in nodes {
            self.set_carrier(node, wire, kind, true);
        }
        wire
    }

    /// An interface's carrier comes or goes at one end.
    pub(crate) fn set_carrier(&mut self, node: usize, wire: usize, kind: IfaceKind, up: bool) {
        let now = self.now;
        if kind == IfaceKind::Tunnel {
            let ports = self.wires[wire].ports.iter().filter(|port| port.node != node);
            let peers: Vec<_> = ports.map(|port| Endpoint { iface: port.iface, addr: port.addr }).collect();
            self.peers[node].node.set_static_peers(now, &peers);
        } else {
            let state = IfaceState { kind, mtu: 1500, up, beacons: true };
            self.peers[node].node.set_iface(now, IfaceId(wire as u32 + 1), Some(state));
        }
        self.settle(node);
    }

    /// The node ends without a word and starts anew with fresh entropy.
    pub(crate) fn restart(&mut self, node: usize, wire: usize, kind: IfaceKind, entropy: u8) {
        let seed = self.peers[node].seed;
        let offer = self.peers[node].offer;
        self.peers[node].node = Node::new(config(seed, Some(town(seed)), offer), self.now, [entropy; 32]);
        self.peers[node].tubes.clear();
        self.peers[node].seals.clear();
        if !self.wires.is_empty() {
            self.set_carrier(node, wire, kind, true);
        }
    }

    /// The node gets another address on the wire.
    pub(crate) fn readdress(&mut self, node: usize, wire: usize, addr: SocketAddr) {
        for port in &mut self.wires[wire].ports {
            if port.node == node {
                port.addr = addr;
            }
        }
    }

    pub(crate) fn endpoint(&self, node: usize, wire: usize) -> Endpoint {
        let port = self.wires[wire].ports.iter().find(|port| port.node == node).expect("on the wire");
        Endpoint { iface: port.iface, addr: port.addr }
    }

    /// Data frames from one node to another over their first link, one every `pause`.
    pub(crate) fn add_flow(&mut self, from: usize, to: usize, pause: Duration) {
        self.flows.push(Flow { from, to, pause, next: self.now, sealed: false });
    }

    /// The same over a seal. Without one each frame asks for it, and is lost.
    pub(crate) fn add_sealed_flow(&mut self, from: usize, to: usize, pause: Duration) {
        self.flows.push(Flow { from, to, pause, next: self.now, sealed: true });
    }

    pub(crate) fn want_seal(&mut self, from: usize, to: usize) {
        let (now, id) = (self.now, self.peers[to].node.id());
        self.peers[from].node.want_seal(now, id);
        self.settle(from);
    }

    pub(crate) fn stop_flows(&mut self) {
        self.flows.clear();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timers = self.peers.iter().filter(|peer| !peer.stopped).filter_map(|peer| peer.node.poll_timeout());
            let flights = self.queue.keys().next().map(|(at, _)| *at);
            let flows = self.flows.iter().map(|flow| flow.next);
            let traffic = (!self.flows.is_empty()).then_some(self.next_traffic);
            let next = timers.chain(flights).chain(flows).chain(traffic).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(((at, order), flight)) = self.queue.pop_first() {
            if at > now {
                self.queue.insert((at, order), flight);
                break;
            }
            self.deliver(&flight);
        }
        for n in 0..self.peers.len() {
            if !self.peers[n].stopped && self.peers[n].node.poll_timeout().is_some_and(|at| at <= now) {
                self.peers[n].node.handle_timeout(now);
                self.settle(n);
            }
        }
        for n in 0..self.flows.len() {
            let Flow { from, to, pause, next, sealed } = self.flows[n];
            if next <= now {
                self.flows[n].next = now + pause;
                if sealed { self.send_sealed(from, to) } else { self.send_data(from, to) }
            }
        }
        if self.next_traffic <= now {
            self.next_traffic = now + TRAFFIC_PERIOD;
            for n in 0..self.peers.len() {
                let all = self.peers[n].tubes.iter().chain(&self.peers[n].seals);
                let tubes: Vec<_> = all.map(|(link, tube)| (*link, tube.traffic)).collect();
                for (link, traffic) in tubes {
                    self.peers[n].node.handle_traffic(now, link, traffic);
                }
                self.settle(n);
            }
        }
    }

    /// Hands a datagram to its receiver.
    pub(crate) fn deliver(&mut self, flight: &Flight) {
        let now = self.now;
        let peer = &mut self.peers[flight.receiver];
        if flight.kind() == Some(DatagramKind::Data) {
            let Ok((header, body)) = FrameHeader::parse(&flight.payload) else { return };
            let fits = |tube: &&mut Tube| {
                tube.open.iter().any(|keys| keys.local == header.receiver && keys.open[..] == body[..32])
            };
            let sealed = flight.from.iface == IfaceId::MESH;
            let tubes = if sealed { &mut peer.seals } else { &mut peer.tubes };
            match tubes.values_mut().find(fits) {
                Some(tube) => {
                    tube.traffic.received_packets += 1;
                    self.deciphered += 1;
                    if sealed {
                        self.unsealed.push((now, flight.receiver));
                    }
                }
                None => self.undecipherable += 1,
            }
        }
        peer.node.handle_datagram(now, flight.from, &flight.payload);
        self.settle(flight.receiver);
    }

    fn send_data(&mut self, from: usize, to: usize) {
        let to_addrs: Vec<_> = self
            .wires
            .iter()
            .flat_map(|wire| &wire.ports)
            .filter(|port| port.node == to)
            .map(|port| port.addr)
            .collect();
        let tube = self.peers[from].tubes.values_mut().find(|tube| to_addrs.contains(&tube.endpoint.addr));
        let Some(tube) = tube else { return };
        if let Some((endpoint, payload)) = Self::count_frame(tube) {
            self.transmit(from, endpoint, &payload);
        }
    }

    fn send_sealed(&mut self, from: usize, to: usize) {
        let place = self.peers[to].place();
        let tube = self.peers[from].seals.values_mut().find(|tube| tube.endpoint == place);
        match tube.and_then(Self::count_frame) {
            Some((endpoint, payload)) => self.transmit(from, endpoint, &payload),
            None => self.want_seal(from, to),
        }
    }

    /// The next data frame of a tube, as far as this plane makes one.
    fn count_frame(tube: &mut Tube) -> Option<(Target, Vec<u8>)> {
        let header = FrameHeader { kind: DatagramKind::Data, receiver: tube.seal.remote, counter: tube.counter };
        tube.counter += 1;
        tube.traffic.sent_packets += 1;
        // In place of a ciphertext: under which key it would be.
        let payload = [&header.to_bytes()[..], &tube.seal.seal, &[0; 16]].concat();
        Some((Target::Endpoint(tube.endpoint), payload))
    }

    /// Fetches what a node has to say.
    pub(crate) fn settle(&mut self, node: usize) {
        let now = self.now;
        while let Some(transmit) = self.peers[node].node.poll_transmit() {
            self.transmit(node, transmit.to, &transmit.payload);
        }
        while let Some(event) = self.peers[node].node.poll_event() {
            let peer = &mut self.peers[node];
            peer.events.push((now, event.clone()));
            match event {
                Event::LinkUp { link, endpoint, keys, kernel, .. }
                | Event::SealUp { seal: link, endpoint, keys, kernel, .. } => {
                    let tube = Tube {
                        kernel,
                        endpoint,
                        seal: keys.clone(),
                        open: vec![keys],
                        counter: 0,
                        traffic: LinkTraffic::default(),
                    };
                    let seal = endpoint.iface == IfaceId::MESH;
                    let tubes = if seal { &mut peer.seals } else { &mut peer.tubes };
                    assert!(tubes.insert(link, tube).is_none(), "a link id came twice");
                }
                Event::LinkKeysOffered { link, keys } => {
                    peer.tube_mut(link).open.push(keys);
                }
                Event::LinkRekeyed { link, keys } => {
                    let tube = peer.tube_mut(link);
                    let before = std::mem::replace(&mut tube.seal, keys.clone());
                    tube.open = vec![before, keys];
                    tube.counter = 0;
                }
                Event::LinkMoved { link, endpoint } => {
                    peer.tubes.get_mut(&link).expect("a link that is up moves").endpoint = endpoint;
                }
                Event::LinkDown { link, .. } => {
                    assert!(peer.tubes.remove(&link).is_some(), "a link that is up goes down");
                }
                Event::SealDown { seal, .. } => {
                    assert!(peer.seals.remove(&seal).is_some(), "a seal that is up goes down");
                }
                _ => {}
            }
        }
    }

    fn transmit(&mut self, sender: usize, to: Target, payload: &[u8]) {
        let mut flights = Vec::new();
        if let Target::Endpoint(Endpoint { iface: IfaceId::MESH, addr }) = to {
            let Wire { latency, loss, mtu, cut, .. } = self.mesh;
            let receiver = self.peers.iter().position(|peer| peer.place().addr == addr && !peer.stopped);
            if let Some(receiver) = receiver {
                let from = self.peers[sender].place();
                let passes = !cut && payload.len() + 48 <= mtu && self.random.next_u32() % 1000 >= loss;
                let flight = Flight { sender, receiver, from, payload: payload.to_vec() };
                flights.push((self.now + latency, flight, passes));
            }
        }
        for wire in &self.wires {
            let Some(own) = wire.ports.iter().find(|port| port.node == sender) else { continue };
            for port in &wire.ports {
                let meant = match to {
                    Target::Beacon(iface) => own.iface == iface && iface != IfaceId(0),
                    Target::Endpoint(endpoint) => endpoint.iface == own.iface && endpoint.addr == port.addr,
                };
                if meant {
                    let from = Endpoint { iface: port.iface, addr: own.addr };
                    let flight = Flight { sender, receiver: port.node, from, payload: payload.to_vec() };
                    let passes =
                        !wire.cut && payload.len() + 48 <= wire.mtu && self.random.next_u32() % 1000 >= wire.loss;
                    flights.push((self.now + wire.latency, flight, passes));
                }
            }
        }
        for (at, mut flight, passes) in flights {
            // A multicast of one's own comes back, as the kernel may let it.
            let kept = (self.filter)(self.now, &flight) && passes;
            if self.keep_log {
                self.log.push((self.now, flight.clone()));
            }
            if kept {
                (self.tamper)(&mut flight);
                self.order += 1;
                self.queue.insert((at, self.order), flight);
            }
        }
    }

    /// Ids of the links that a node has.
    pub(crate) fn links(&self, node: usize) -> Vec<LinkId> {
        self.peers[node].node.links().map(|link| link.link).collect()
    }

    /// The reasons for which links of a node went down, with when.
    pub(crate) fn downs(&self, node: usize) -> Vec<(Instant, DownReason)> {
        let down = |(at, event): &(Instant, Event)| match event {
            Event::LinkDown { reason, .. } => Some((*at, *reason)),
            _ => None,
        };
        self.peers[node].events.iter().filter_map(down).collect()
    }

    /// When and why seals of a node went down.
    pub(crate) fn seal_downs(&self, node: usize) -> Vec<(Instant, DownReason)> {
        let down = |(at, event): &(Instant, Event)| match event {
            Event::SealDown { reason, .. } => Some((*at, *reason)),
            _ => None,
        };
        self.peers[node].events.iter().filter_map(down).collect()
    }

    /// When seals of a node came up.
    pub(crate) fn seal_ups(&self, node: usize) -> Vec<Instant> {
        let events = &self.peers[node].events;
        events.iter().filter(|(_, event)| matches!(event, Event::SealUp { .. })).map(|(at, _)| *at).collect()
    }

    /// What a node was told of the other end's plane.
    pub(crate) fn plane_ports(&self, node: usize) -> Vec<u16> {
        let port = |(_, event): &(Instant, Event)| match event {
            Event::LinkPlanePort { port, .. } => Some(*port),
            _ => None,
        };
        self.peers[node].events.iter().filter_map(port).collect()
    }

    /// When links of a node came up.
    pub(crate) fn ups(&self, node: usize) -> Vec<Instant> {
        let events = &self.peers[node].events;
        events.iter().filter(|(_, event)| matches!(event, Event::LinkUp { .. })).map(|(at, _)| *at).collect()
    }

    pub(crate) fn rekeys(&self, node: usize) -> usize {
        let events = &self.peers[node].events;
        events.iter().filter(|(_, event)| matches!(event, Event::LinkRekeyed { .. })).count()
    }

    /// Panics unless both nodes have exactly one link, to each other, and their planes' keys fit.
    pub(crate) fn assert_linked(&self, a: usize, b: usize) {
        let (a, b) = (&self.peers[a], &self.peers[b]);
        assert_eq!((a.tubes.len(), b.tubes.len()), (1, 1));
        assert_eq!((a.node.links().count(), b.node.links().count()), (1, 1));
        let (Some(x), Some(y)) = (a.tubes.values().next(), b.tubes.values().next()) else { return };
        assert!(a.node.links().all(|link| link.peer.id == b.node.id()));
        assert!(b.node.links().all(|link| link.peer.id == a.node.id()));
        assert_fits(x, y, a.offer, b.offer);
    }

    /// Panics unless both nodes have exactly one seal, with each other, and their planes' keys fit.
    pub(crate) fn assert_sealed(&self, a: usize, b: usize) {
        let (a, b) = (&self.peers[a], &self.peers[b]);
        let seals = [a, b].map(|peer| peer.node.seals(self.now).map(|seal| seal.peer.id).collect::<Vec<_>>());
        assert_eq!(seals, [vec![b.node.id()], vec![a.node.id()]]);
        let [x, y] = [a, b].map(|peer| peer.seals.values().next().expect("a seal"));
        assert_eq!((x.endpoint, y.endpoint), (b.place(), a.place()));
        assert_fits(x, y, a.offer, b.offer);
    }

    pub(crate) fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }
}

/// Both ends' data keys fit, and what was agreed on follows from the offers.
fn assert_fits(x: &Tube, y: &Tube, a: Offer, b: Offer) {
    assert_eq!((x.seal.seal, x.seal.open), (y.seal.open, y.seal.seal));
    assert_eq!((x.seal.local, x.seal.remote), (y.seal.remote, y.seal.local));
    assert_ne!(x.seal.local, LinkIndex(0));
    let aes = a.fast_aes && b.fast_aes;
    let cipher = if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
    assert_eq!((x.seal.cipher, y.seal.cipher), (cipher, cipher));
    let kernel = a.kernel_plane && b.kernel_plane;
    assert_eq!((x.kernel, y.kernel), (kernel, kernel));
}

fn config(seed: u16, town: Option<Town>, offer: Offer) -> NodeConfig {
    NodeConfig { seed: seed_of(seed), name: format!("node {seed}"), town, gateways: GatewayPolicy::Any, offer }
}
