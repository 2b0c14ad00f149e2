//! A few nodes on a few wires, in virtual time, with the least plane that shows whose keys fit.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use grange_core::{
    DataKeys, DownReason, Endpoint, Event, GatewayPolicy, Identity, IfaceId, IfaceKind, IfaceState, Instant, LinkId,
    LinkTraffic, Node, NodeConfig, Offer, Target, Town,
    certificate::{Steward, by_steward},
};
use grange_wire::{DatagramKind, FrameHeader, LinkIndex, PORT};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

pub(crate) const TOWN_KEY: [u8; 32] = [42; 32];

/// The plane's counters are read so often.
const TRAFFIC_PERIOD: Duration = Duration::from_millis(100);

/// Milliseconds.
pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A membership in the test town for the node of this seed.
pub(crate) fn town(seed: u8) -> Town {
    let steward = Steward::from_seed(&[200; 32]);
    let certificate = by_steward(&steward, &Identity::from_seed(&[seed; 32]), 0);
    Town { id: steward.town(), name: "Ahrfeld".into(), key: TOWN_KEY, certificate }
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

/// What a plane knows of one link.
#[derive(Clone)]
pub(crate) struct Tube {
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
    /// Every event, with when it came.
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) stopped: bool,
    seed: u8,
}

type Filter = Box<dyn FnMut(Instant, &Flight) -> bool>;

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    pub(crate) wires: Vec<Wire>,
    /// Everything that was sent, whether or not it arrived.
    pub(crate) log: Vec<(Instant, Flight)>,
    pub(crate) keep_log: bool,
    /// `false`: the datagram is lost.
    pub(crate) filter: Filter,
    /// Data frames that arrived at a node without a key for them.
    pub(crate) undecipherable: u64,
    /// Data frames that arrived and had a key.
    pub(crate) deciphered: u64,
    /// Sender, receiver, pause between two data frames, when the next one goes.
    flows: Vec<(usize, usize, Duration, Instant)>,
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
            log: Vec::new(),
            keep_log: true,
            filter: Box::new(|_, _| true),
            undecipherable: 0,
            deciphered: 0,
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

    pub(crate) fn add_node(&mut self, seed: u8, town: Option<Town>, entropy: u8) -> usize {
        let node = Node::new(config(seed, town), self.now, [entropy; 32]);
        self.peers.push(Peer { node, tubes: BTreeMap::new(), events: Vec::new(), stopped: false, seed });
        self.peers.len() - 1
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
        self.peers[node].node = Node::new(config(seed, Some(town(seed))), self.now, [entropy; 32]);
        self.peers[node].tubes.clear();
        self.set_carrier(node, wire, kind, true);
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
        self.flows.push((from, to, pause, self.now));
    }

    pub(crate) fn stop_flows(&mut self) {
        self.flows.clear();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timers = self.peers.iter().filter(|peer| !peer.stopped).filter_map(|peer| peer.node.poll_timeout());
            let flights = self.queue.keys().next().map(|(at, _)| *at);
            let flows = self.flows.iter().map(|flow| flow.3);
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
            let (from, to, pause, next) = self.flows[n];
            if next <= now {
                self.flows[n].3 = now + pause;
                self.send_data(from, to);
            }
        }
        if self.next_traffic <= now {
            self.next_traffic = now + TRAFFIC_PERIOD;
            for n in 0..self.peers.len() {
                let tubes: Vec<_> = self.peers[n].tubes.iter().map(|(link, tube)| (*link, tube.traffic)).collect();
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
            match peer.tubes.values_mut().find(fits) {
                Some(tube) => {
                    tube.traffic.received_packets += 1;
                    self.deciphered += 1;
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
        let header = FrameHeader { kind: DatagramKind::Data, receiver: tube.seal.remote, counter: tube.counter };
        tube.counter += 1;
        tube.traffic.sent_packets += 1;
        // In place of a ciphertext: under which key it would be.
        let payload = [&header.to_bytes()[..], &tube.seal.seal, &[0; 16]].concat();
        let endpoint = tube.endpoint;
        self.transmit(from, Target::Endpoint(endpoint), &payload);
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
                Event::LinkUp { link, endpoint, keys, .. } => {
                    let tube = Tube {
                        endpoint,
                        seal: keys.clone(),
                        open: vec![keys],
                        counter: 0,
                        traffic: LinkTraffic::default(),
                    };
                    assert!(peer.tubes.insert(link, tube).is_none(), "a link id came twice");
                }
                Event::LinkKeysOffered { link, keys } => {
                    let tube = peer.tubes.get_mut(&link).expect("keys for a link that is up");
                    tube.open.push(keys);
                }
                Event::LinkRekeyed { link, keys } => {
                    let tube = peer.tubes.get_mut(&link).expect("keys for a link that is up");
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
                _ => {}
            }
        }
    }

    fn transmit(&mut self, sender: usize, to: Target, payload: &[u8]) {
        let mut flights = Vec::new();
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
        for (at, flight, passes) in flights {
            // A multicast of one's own comes back, as the kernel may let it.
            let kept = (self.filter)(self.now, &flight) && passes;
            if self.keep_log {
                self.log.push((self.now, flight.clone()));
            }
            if kept {
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
        assert_eq!((x.seal.seal, x.seal.open), (y.seal.open, y.seal.seal));
        assert_eq!((x.seal.local, x.seal.remote), (y.seal.remote, y.seal.local));
        assert_ne!(x.seal.local, LinkIndex(0));
    }

    pub(crate) fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }
}

fn config(seed: u8, town: Option<Town>) -> NodeConfig {
    NodeConfig {
        seed: [seed; 32],
        name: format!("node {seed}"),
        town,
        gateways: GatewayPolicy::Any,
        offer: Offer::default(),
    }
}
