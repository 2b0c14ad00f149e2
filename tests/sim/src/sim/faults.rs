//! What may go wrong with wires and nodes, and what an enemy may do.

use std::{net::SocketAddr, time::Duration};

use grange_core::{Endpoint, GatewayPolicy, IfaceKind, Node};
use grange_wire::Prefix;

use super::{Sim, What};
use crate::{Quality, Step, report};

impl Sim {
    /// Carrier of a wire: both ends see it come and go. Paths through the Internet have none to see.
    pub fn set_carrier(&mut self, wire: usize, up: bool) {
        self.version += 1;
        self.wires[wire].up = up;
        if self.wires[wire].kind == IfaceKind::Tunnel {
            return;
        }
        let state = self.wires[wire].state();
        for port in self.wires[wire].ports.clone() {
            self.with_node(port.host, |node, now| node.set_iface(now, port.iface, Some(state)));
        }
    }

    /// From now on nothing that `from` sends on the wire reaches `to`; nobody is told.
    pub fn deafen(&mut self, wire: usize, from: usize, to: usize) {
        self.version += 1;
        self.wires[wire].deaf.insert((from, to));
    }

    /// From now on nothing passes the wire; nobody is told.
    pub fn silence(&mut self, wire: usize) {
        self.version += 1;
        let pairs: Vec<_> = self.wires[wire].pairs().collect();
        self.wires[wire].deaf.extend(pairs);
    }

    /// Takes back all cuts of a wire.
    pub fn mend(&mut self, wire: usize) {
        self.version += 1;
        self.wires[wire].deaf.clear();
        if !self.wires[wire].up {
            self.set_carrier(wire, true);
        }
    }

    /// Changes how well a wire carries.
    pub fn set_quality(&mut self, wire: usize, quality: Quality) {
        self.wires[wire].quality = quality;
    }

    /// Changes how well all wires carry.
    pub fn set_all_quality(&mut self, quality: Quality) {
        for wire in &mut self.wires {
            wire.quality = quality;
        }
    }

    /// From now on IP packets of more bytes vanish on the wire, whatever its interfaces say.
    pub fn set_path_mtu(&mut self, wire: usize, mtu: u16) {
        self.wires[wire].path_mtu = mtu;
    }

    /// Nothing passes between the nodes of which `left` is true and the others; nobody is told. On segments too.
    pub fn partition(&mut self, left: impl Fn(usize) -> bool) {
        self.version += 1;
        for wire in &mut self.wires {
            let cut: Vec<_> = wire.pairs().filter(|&(a, b)| left(a) != left(b)).collect();
            wire.deaf.extend(cut);
        }
    }

    /// The process of a node dies without a word.
    pub fn kill(&mut self, host: usize) {
        self.version += 1;
        self.hosts[host].forget();
    }

    /// A node stops in order: it says goodbye first.
    pub fn stop(&mut self, host: usize) {
        self.version += 1;
        self.with_node(host, Node::shutdown);
        if self.hosts[host].node.is_some() {
            let it = &self.hosts[host];
            let context = self.context();
            assert!(it.links.is_empty(), "{context}: node {host} stopped with links up: {:?}", it.links.keys());
            assert!(it.seals.is_empty(), "{context}: node {host} stopped with seals up: {:?}", it.seals.keys());
            assert!(it.fib.is_empty(), "{context}: node {host} stopped with routes: {:?}", it.fib.keys());
        }
        self.hosts[host].forget();
    }

    /// A node starts (again), with the same keys and nothing else of before.
    pub fn start_now(&mut self, host: usize) {
        self.start(host);
    }

    /// A node's address on a wire changes; nobody is told.
    pub fn roam(&mut self, host: usize, wire: usize) {
        let fresh = self.fresh_address(self.wires[wire].kind);
        let Some(port) = self.wires[wire].ports.iter_mut().find(|port| port.host == host) else { return };
        let old = std::mem::replace(&mut port.addr, fresh);
        self.version += 1;
        self.by_addr.remove(&old);
        self.by_addr.insert(fresh, (wire, host));
    }

    /// What a node announces beside its own, now and after restarts.
    pub fn set_announced(&mut self, host: usize, prefixes: &[Prefix]) {
        self.version += 1;
        self.hosts[host].extra = prefixes.to_vec();
        self.with_node(host, |node, now| node.set_announced(now, prefixes));
    }

    /// Whose default routes a node takes from its next start on.
    pub fn set_policy(&mut self, host: usize, policy: GatewayPolicy) {
        self.hosts[host].policy = policy;
    }

    /// An enemy puts a datagram on a wire. Answers to `from` go to nobody unless a node has that address.
    pub fn inject(&mut self, wire: usize, to: usize, from: SocketAddr, payload: &[u8]) {
        let Some(port) = self.wires[wire].port(to) else { return };
        let (to_addr, from) = (port.addr, Endpoint { iface: port.iface, addr: from });
        let what = What::Datagram { wire, to, to_addr, from, payload: payload.into() };
        self.schedule(self.now + Duration::from_micros(1), what);
    }

    /// One step of a script.
    pub fn apply(&mut self, step: &Step) {
        if self.verbose {
            report::say(format_args!("{:?} {step:?}", self.now));
        }
        match *step {
            Step::CarrierLost(wire) => self.set_carrier(wire, false),
            Step::Silence(wire) => self.silence(wire),
            Step::Deafen { wire, from, to } => self.deafen(wire, from, to),
            Step::Mend(wire) => self.mend(wire),
            Step::Quality(wire, quality) => self.set_quality(wire, quality),
            Step::Partition(ref left) => self.partition(|host| left.contains(&host)),
            Step::MendAll => (0..self.wires.len()).for_each(|wire| self.mend(wire)),
            Step::Kill(host) => self.kill(host),
            Step::Stop(host) => self.stop(host),
            Step::Start(host) => self.start_now(host),
            Step::Roam { host, wire } => self.roam(host, wire),
        }
    }
}
