//! A network of speakers in virtual time, whose packets are lost, delayed and reordered at will.

use alloc::{
    collections::{BTreeMap, BinaryHeap},
    vec::Vec,
};
use core::{cmp::Reverse, time::Duration};

use grange_wire::{NodeId, Prefix, TownId, lan_prefix, node_address_v4};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    GatewayPolicy, Identity, IfaceKind, Instant, LinkId,
    babel::{RouteEvent, Router, RouterConfig},
};

pub(super) const TOWN: TownId = TownId([9; 16]);

/// What a link does to packets.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) kind: IfaceKind,
    pub(super) latency: Duration,
    /// Up to so much more, drawn for each packet: packets overtake each other.
    pub(super) jitter: Duration,
    /// Percent of packets lost.
    pub(super) loss: u32,
    /// Percent of packets doubled.
    pub(super) doubled: u32,
}

impl Default for Weather {
    fn default() -> Self {
        let latency = Duration::from_millis(1);
        Self { kind: IfaceKind::Wired, latency, jitter: Duration::ZERO, loss: 0, doubled: 0 }
    }
}

struct Edge {
    ends: [usize; 2],
    links: [LinkId; 2],
    up: bool,
    /// Packets of an earlier life of the link do not arrive.
    life: u64,
    loss: u32,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    number: u64,
    edge: usize,
    to: usize,
    life: u64,
    packet: Vec<u8>,
}

struct Place {
    seed: [u8; 32],
    router: Option<Router>,
    routes: BTreeMap<Prefix, LinkId>,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) weather: Weather,
    places: Vec<Place>,
    edges: Vec<Edge>,
    flights: BinaryHeap<Reverse<Flight>>,
    rng: ChaCha8Rng,
    count: u64,
    ends: BTreeMap<(usize, LinkId), usize>,
    announced: BTreeMap<usize, Vec<Prefix>>,
    /// Bytes of all packets, and how many.
    pub(super) bytes: u64,
    pub(super) packets: u64,
}

impl Net {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let mut net = Self {
            now: Instant::from_micros(1_000_000),
            weather: Weather::default(),
            places: Vec::new(),
            edges: Vec::new(),
            flights: BinaryHeap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            count: 0,
            ends: BTreeMap::new(),
            announced: BTreeMap::new(),
            bytes: 0,
            packets: 0,
        };
        for node in 0..nodes {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(node as u64).to_be_bytes());
            net.places.push(Place { seed, router: None, routes: BTreeMap::new() });
            net.start(node);
        }
        net
    }

    pub(super) fn random(&mut self, below: usize) -> usize {
        self.rng.next_u32() as usize % below.max(1)
    }

    pub(super) fn id(&self, node: usize) -> NodeId {
        Identity::from_seed(&self.places[node].seed).id()
    }

    pub(super) fn router(&mut self, node: usize) -> &mut Router {
        self.places[node].router.as_mut().expect("runs")
    }

    pub(super) fn nodes(&self) -> usize {
        self.places.len()
    }

    /// Starts a node that does not run, as after a power cut: nothing is left of its former life.
    pub(super) fn start(&mut self, node: usize) {
        let mut entropy = [0; 32];
        self.rng.fill_bytes(&mut entropy);
        let identity = Identity::from_seed(&self.places[node].seed);
        let config = RouterConfig { identity, town: TOWN, gateways: GatewayPolicy::Any };
        let mut router = Router::new(config, self.now, entropy);
        if let Some(prefixes) = self.announced.get(&node) {
            router.set_announced(self.now, prefixes);
        }
        self.places[node].router = Some(router);
    }

    /// Cuts a node's power. The links' ends at its neighbours stay up until they are told.
    pub(super) fn kill(&mut self, node: usize) {
        self.places[node].router = None;
        self.places[node].routes.clear();
    }

    pub(super) fn announce(&mut self, node: usize, prefixes: &[Prefix]) {
        self.announced.insert(node, prefixes.to_vec());
        let now = self.now;
        if let Some(router) = &mut self.places[node].router {
            router.set_announced(now, prefixes);
        }
        self.settle(node);
    }

    pub(super) fn add_edge(&mut self, a: usize, b: usize) -> usize {
        self.edges.push(Edge { ends: [a, b], links: [LinkId(0); 2], up: false, life: 0, loss: 0 });
        let edge = self.edges.len() - 1;
        self.up(edge);
        edge
    }

    pub(super) fn edges(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn up(&mut self, edge: usize) {
        if self.edges[edge].up {
            return;
        }
        self.count += 1;
        let ends = self.edges[edge].ends;
        self.edges[edge].up = true;
        self.edges[edge].life = self.count;
        let kind = self.weather.kind;
        for side in 0..2 {
            let (node, peer) = (ends[side], self.id(ends[1 - side]));
            self.count += 1;
            let link = LinkId(self.count as u32);
            self.edges[edge].links[side] = link;
            self.ends.insert((node, link), edge);
            let now = self.now;
            if let Some(router) = &mut self.places[node].router {
                router.neighbour_up(now, link, peer, kind);
            }
        }
        self.settle(ends[0]);
        self.settle(ends[1]);
    }

    /// Both ends hear of it at once.
    pub(super) fn down(&mut self, edge: usize) {
        if !core::mem::replace(&mut self.edges[edge].up, false) {
            return;
        }
        let (ends, links, now) = (self.edges[edge].ends, self.edges[edge].links, self.now);
        for side in 0..2 {
            self.ends.remove(&(ends[side], links[side]));
            if let Some(router) = &mut self.places[ends[side]].router {
                router.neighbour_down(now, links[side]);
            }
            self.settle(ends[side]);
        }
    }

    /// Sends what a node has to say, outside of any call.
    pub(super) fn flush(&mut self, node: usize) {
        self.settle(node);
    }

    pub(super) fn edge_ends(&self, edge: usize) -> [usize; 2] {
        self.edges[edge].ends
    }

    /// One link loses so many percent more than the weather says.
    pub(super) fn lossy_edge(&mut self, edge: usize, percent: u32) {
        self.edges[edge].loss = percent;
    }

    pub(super) fn edges_of(&self, node: usize) -> Vec<usize> {
        (0..self.edges.len()).filter(|edge| self.edges[*edge].ends.contains(&node)).collect()
    }

    /// Lets a stranger speak: a packet to `node` as if it came over `edge`.
    pub(super) fn inject(&mut self, edge: usize, side: usize, packet: &[u8]) {
        let (node, link, now) = (self.edges[edge].ends[side], self.edges[edge].links[side], self.now);
        self.router(node).handle_packet(now, link, packet);
        self.settle(node);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut idle = 0;
        loop {
            let flight = self.flights.peek().map(|Reverse(flight)| flight.at);
            let timer = self
                .places
                .iter()
                .enumerate()
                .filter_map(|(node, place)| Some((place.router.as_ref()?.poll_timeout()?, node)))
                .min();
            let next = [flight, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            idle = if next > self.now { 0 } else { idle + 1 };
            assert!(idle < 100_000, "time stands still at {:?}", self.now);
            self.now = self.now.max(next);
            if flight == Some(next) {
                let Some(Reverse(flight)) = self.flights.pop() else { break };
                self.deliver(&flight);
            } else if let Some((_, node)) = timer {
                let now = self.now;
                self.router(node).handle_timeout(now);
                self.settle(node);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, flight: &Flight) {
        let edge = &self.edges[flight.edge];
        if !edge.up || edge.life != flight.life {
            return;
        }
        let side = usize::from(edge.ends[1] == flight.to);
        let (link, now) = (edge.links[side], self.now);
        if let Some(router) = &mut self.places[flight.to].router {
            router.handle_packet(now, link, &flight.packet);
            self.settle(flight.to);
        }
    }

    /// Takes what a node has to say, and after each event looks for a loop through it.
    fn settle(&mut self, node: usize) {
        while let Some(event) = self.places[node].router.as_mut().and_then(Router::poll_event) {
            match event {
                RouteEvent::Changed { prefix, via, .. } => {
                    self.places[node].routes.insert(prefix, via);
                    self.assert_no_loop(node, &prefix);
                }
                RouteEvent::Removed { prefix } => {
                    self.places[node].routes.remove(&prefix);
                }
                RouteEvent::Rtt { .. } => {}
            }
        }
        while let Some((link, packet)) = self.places[node].router.as_mut().and_then(Router::poll_packet) {
            assert!(packet.len() <= 1200);
            self.send(node, link, &packet);
        }
    }

    fn send(&mut self, node: usize, link: LinkId, packet: &[u8]) {
        self.bytes += packet.len() as u64;
        self.packets += 1;
        let Some(&edge) = self.ends.get(&(node, link)) else { return };
        let weather = self.weather;
        let (to, life, loss) = {
            let edge = &self.edges[edge];
            (edge.ends[usize::from(edge.ends[0] == node)], edge.life, weather.loss.max(edge.loss))
        };
        let copies = 1 + u32::from(self.rng.next_u32() % 100 < weather.doubled);
        for _ in 0..copies {
            if self.rng.next_u32() % 100 < loss {
                continue;
            }
            let jitter = weather.jitter * (self.rng.next_u32() >> 16) / 0x1_0000;
            self.count += 1;
            let (at, number, packet) = (self.now + weather.latency + jitter, self.count, packet.to_vec());
            self.flights.push(Reverse(Flight { at, number, edge, to, life, packet }));
        }
    }

    fn next_hop(&self, node: usize, prefix: &Prefix) -> Option<usize> {
        let link = *self.places[node].routes.get(prefix)?;
        let edge = &self.edges[*self.ends.get(&(node, link))?];
        Some(edge.ends[usize::from(edge.ends[0] == node)])
    }

    fn assert_no_loop(&self, start: usize, prefix: &Prefix) {
        let (mut at, mut steps) = (start, 0);
        while let Some(next) = self.next_hop(at, prefix) {
            at = next;
            steps += 1;
            assert!(at != start && steps <= self.places.len(), "{prefix} loops through node {start} at {:?}", self.now);
        }
    }

    /// Distance in hops from each node to `to` over links that are up.
    pub(super) fn distances(&self, to: &[usize]) -> Vec<Option<u16>> {
        let mut distances = alloc::vec![None; self.places.len()];
        let mut front: Vec<usize> = to.to_vec();
        for node in to {
            distances[*node] = Some(0);
        }
        let mut hops = 0;
        while !front.is_empty() {
            hops += 1;
            let mut next = Vec::new();
            for edge in self.edges.iter().filter(|edge| edge.up) {
                for side in 0..2 {
                    let (from, to) = (edge.ends[side], edge.ends[1 - side]);
                    let runs = self.places[to].router.is_some() && self.places[from].router.is_some();
                    if runs && front.contains(&from) && distances[to].is_none() {
                        distances[to] = Some(hops);
                        next.push(to);
                    }
                }
            }
            front = next;
        }
        distances
    }

    pub(super) fn prefixes(&self, node: usize) -> [Prefix; 2] {
        let id = self.id(node);
        [lan_prefix(&id), Prefix::host(node_address_v4(&id).into())]
    }

    /// The selected route's metric.
    pub(super) fn metric(&mut self, node: usize, prefix: &Prefix) -> Option<u16> {
        let router = self.places[node].router.as_ref()?;
        router.routes().find(|route| route.selected && route.prefix == *prefix).map(|route| route.metric)
    }

    /// How many (node, prefix) pairs are not routed as a shortest-path computation would, at `cost` a hop.
    pub(super) fn wrong_routes(&mut self, cost: u16) -> usize {
        let mut wrong = 0;
        for owner in 0..self.places.len() {
            let distances = self.distances(&[owner]);
            for prefix in self.prefixes(owner) {
                for node in (0..self.places.len()).filter(|node| *node != owner) {
                    if self.places[node].router.is_none() {
                        continue;
                    }
                    let runs = self.places[owner].router.is_some();
                    let expected = distances[node].filter(|_| runs).map(|hops| hops * cost);
                    wrong += usize::from(self.metric(node, &prefix) != expected);
                }
            }
        }
        wrong
    }

    /// How many (node, prefix) pairs have no route although there is a way.
    pub(super) fn unreached(&mut self) -> usize {
        let mut missing = 0;
        for owner in 0..self.places.len() {
            let distances = self.distances(&[owner]);
            for prefix in self.prefixes(owner) {
                for node in (0..self.places.len()).filter(|node| *node != owner && distances[*node].is_some()) {
                    missing += usize::from(self.metric(node, &prefix).is_none());
                }
            }
        }
        missing
    }

    /// Runs until all routes are as they should be; panics after `limit`. Gives how long it took, to 10 ms.
    pub(super) fn converge(&mut self, cost: u16, limit: Duration) -> Duration {
        let start = self.now;
        loop {
            let wrong = self.wrong_routes(cost);
            if wrong == 0 {
                return self.now.since(start);
            }
            assert!(self.now.since(start) < limit, "{wrong} routes are wrong after {limit:?}");
            self.run(Duration::from_millis(10));
        }
    }
}
