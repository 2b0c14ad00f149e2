//! Questions about the town.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use grange_core::Node;
use grange_wire::{NodeId, Prefix};

use super::{Datagram, LinkNote, Sim};
use crate::{
    Counters, Route,
    reference::{self, Edge},
};

/// What would become of a packet that left now, if the tables stood still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// It arrives, by these nodes (first and last included).
    Delivered(Vec<usize>),
    /// This node has no route for it.
    NoRoute(usize),
    /// This node sends it where it is lost: the wire is cut, or the neighbour has no key for it.
    Lost(usize),
    /// It goes round.
    Loop(Vec<usize>),
}

impl Sim {
    /// The hash of all that happened: datagrams, events and their times.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    /// Keeps a copy of every datagram from now on.
    pub fn tap(&mut self) {
        self.tap.get_or_insert_default();
    }

    /// The datagrams since [`Sim::tap`].
    #[must_use]
    pub fn datagrams(&self) -> &[Datagram] {
        self.tap.as_deref().unwrap_or_default()
    }

    /// All that nodes said about links so far.
    #[must_use]
    pub fn notes(&self) -> &[LinkNote] {
        &self.notes
    }

    /// What a node did so far, over all its runs.
    #[must_use]
    pub fn counters(&self, host: usize) -> Counters {
        self.hosts[host].counters
    }

    /// Number of nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.hosts.len()
    }

    /// Number of wires.
    #[must_use]
    pub fn wires(&self) -> usize {
        self.wires.len()
    }

    /// A node's id.
    #[must_use]
    pub fn id(&self, host: usize) -> NodeId {
        self.hosts[host].id
    }

    /// A node's seed, for the search for leaks.
    #[must_use]
    pub fn seed_of(&self, host: usize) -> [u8; 32] {
        self.hosts[host].seed
    }

    /// A node's own prefixes: the /64 of its LAN and its IPv4 address.
    #[must_use]
    pub fn prefixes(&self, host: usize) -> [Prefix; 2] {
        [self.hosts[host].lan(), self.hosts[host].v4()]
    }

    /// The node itself, if it runs.
    #[must_use]
    pub fn node(&self, host: usize) -> Option<&Node> {
        self.hosts[host].node.as_ref()
    }

    /// Number of links that a node has up.
    #[must_use]
    pub fn link_count(&self, host: usize) -> usize {
        self.hosts[host].links.len()
    }

    /// The peers of a node's seals.
    #[must_use]
    pub fn seals(&self, host: usize) -> Vec<usize> {
        self.hosts[host].seals.values().map(|seal| seal.peer).collect()
    }

    /// The inner MTU of a node's seal with another.
    #[must_use]
    pub fn seal_mtu(&self, host: usize, peer: usize) -> Option<u16> {
        self.hosts[host].seals.values().find(|seal| seal.peer == peer).map(|seal| seal.mtu)
    }

    /// Whether two nodes have a seal with each other whose keys fit both ways.
    #[must_use]
    pub fn sealed(&self, a: usize, b: usize) -> bool {
        let opens = |from: usize, to: usize| {
            let mut seals = self.hosts[from].seals.values().filter(|seal| seal.peer == to);
            seals.any(|seal| self.hosts[to].seals.values().any(|far| far.opens(seal.keys.remote, &seal.keys.seal)))
        };
        opens(a, b) && opens(b, a)
    }

    /// The inner MTUs of a node's links, by peer.
    #[must_use]
    pub fn link_mtus(&self, host: usize) -> Vec<(usize, u16)> {
        self.hosts[host].links.values().map(|link| (link.peer, link.mtu)).collect()
    }

    /// A node's forwarding table, as its events made it.
    #[must_use]
    pub fn fib(&self, host: usize) -> &BTreeMap<Prefix, Route> {
        &self.hosts[host].fib
    }

    /// A node's next hop for a prefix.
    #[must_use]
    pub fn via(&self, host: usize, prefix: &Prefix) -> Option<usize> {
        let it = &self.hosts[host];
        Some(it.links.get(&it.fib.get(prefix)?.via)?.peer)
    }

    /// Follows a packet from node to node through tables, keys and cuts, without chance.
    #[must_use]
    pub fn walk(&self, from: usize, prefix: &Prefix) -> Walk {
        let mut path = vec![from];
        loop {
            let here = path[path.len() - 1];
            let it = &self.hosts[here];
            if it.node.is_none() {
                return Walk::Lost(here);
            }
            if it.owns(prefix) {
                return Walk::Delivered(path);
            }
            let Some(link) = it.fib.get(prefix).and_then(|route| it.links.get(&route.via)) else {
                return Walk::NoRoute(here);
            };
            let Some((wire, next)) = self.resolve(here, link.endpoint) else { return Walk::Lost(here) };
            let opens = self.hosts[next].links.values().any(|back| back.opens(link.keys.remote, &link.keys.seal));
            if !opens || !self.wires[wire].carries(here, next) {
                return Walk::Lost(here);
            }
            path.push(next);
            if path[..path.len() - 1].contains(&next) {
                return Walk::Loop(path);
            }
        }
    }

    /// The parts of the town, by what wires and nodes truly allow: nodes with the same number reach each other. A node
    /// that does not run is alone. A wire counts where it carries both ways.
    #[must_use]
    pub fn parts(&self) -> Vec<usize> {
        let mut part: Vec<usize> = (0..self.hosts.len()).collect();
        let alive = |host: usize| self.hosts[host].node.is_some();
        for (a, b) in self.pairs().filter(|&(a, b)| alive(a) && alive(b)) {
            let (low, high) = (part[a].min(part[b]), part[a].max(part[b]));
            part.iter_mut().filter(|part| **part == high).for_each(|part| *part = low);
        }
        part
    }

    /// Ordered pairs of neighbours between which some wire carries both ways.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.wires.iter().flat_map(|wire| wire.pairs().filter(|&(a, b)| wire.carries(a, b) && wire.carries(b, a)))
    }

    /// Whether every node reaches every other that it can truly reach, over IPv6 and IPv4, and has no route to any
    /// other.
    ///
    /// # Errors
    /// The first pair of which that is not so, and why.
    pub fn settled(&self) -> Result<(), String> {
        if let Some(host) = self.hosts.iter().position(|host| host.run == 0) {
            return Err(format!("{host} has not started yet"));
        }
        let part = self.parts();
        let alive: Vec<usize> = (0..self.hosts.len()).filter(|&host| self.hosts[host].node.is_some()).collect();
        for to in 0..self.hosts.len() {
            for prefix in self.prefixes(to) {
                for &from in alive.iter().filter(|&&from| from != to) {
                    if part[from] == part[to] {
                        let walk = self.walk(from, &prefix);
                        if !matches!(walk, Walk::Delivered(_)) {
                            return Err(format!("{from} -> {to} ({prefix}): {walk:?}"));
                        }
                    } else if let Some(route) = self.hosts[from].fib.get(&prefix) {
                        return Err(format!("{from} cannot reach {to} but has {route:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs until [`Sim::settled`]; how long that took.
    ///
    /// # Panics
    /// If it takes longer than `limit`.
    pub fn settle(&mut self, limit: Duration) -> Duration {
        match self.run_until(limit, |sim| sim.settled().is_ok()) {
            Some(time) => time,
            None => panic!("{}: not settled after {limit:?}: {:?}", self.context(), self.settled()),
        }
    }

    /// A node's address on a wire.
    ///
    /// # Panics
    /// If it is not on that wire.
    #[must_use]
    pub fn address(&self, host: usize, wire: usize) -> SocketAddr {
        self.wires[wire].port(host).expect("the node is on the wire").addr
    }

    /// Whether the metric of every route is that of the shortest way over the true graph, with what each node says its
    /// links cost; `tolerance` more is taken (routing does not follow every small change).
    ///
    /// # Errors
    /// The first route of which that is not so.
    pub fn agrees_with_reference(&self, tolerance: u32) -> Result<(), String> {
        let edges = self.edges();
        for to in 0..self.hosts.len() {
            let known = reference::distances(self.hosts.len(), &edges, to);
            for prefix in self.prefixes(to) {
                for from in (0..self.hosts.len()).filter(|&from| from != to) {
                    let found = self.hosts[from].fib.get(&prefix).map(|route| u32::from(route.metric));
                    let agrees = match (found, known[from]) {
                        (Some(found), Some(best)) => found >= best && found <= best + tolerance,
                        (None, best) => best.is_none() || self.hosts[from].node.is_none(),
                        (Some(_), None) => false,
                    };
                    if !agrees {
                        let context = self.context();
                        return Err(format!("{context}: {from} -> {to}: metric {found:?}, shortest {:?}", known[from]));
                    }
                }
            }
        }
        Ok(())
    }

    /// The true graph: each direction of each wire that carries, at the cost that its sender's link has.
    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (from, host) in self.hosts.iter().enumerate() {
            for link in host.node.iter().flat_map(Node::links).filter(|link| link.cost != u16::MAX) {
                let carried = self
                    .resolve(from, link.endpoint)
                    .filter(|&(wire, to)| self.wires[wire].carries(from, to) && self.wires[wire].carries(to, from));
                if let Some((_, to)) = carried {
                    edges.push(Edge { from, to, cost: u32::from(link.cost) });
                }
            }
        }
        edges
    }
}
