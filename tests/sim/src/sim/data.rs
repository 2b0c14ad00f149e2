//! The model planes: packets walk the forwarding tables, frames open where the keys fit, counters go to the nodes.

use std::{rc::Rc, time::Duration};

use grange_core::{Endpoint, LinkId};

use super::{HEADERS, Sim, What};
use crate::flow::{Cargo, Flow, FlowId, Frame, Packet, Part, Request};

/// How often a plane's counters reach its node, as `Node::handle_traffic` asks for.
const COUNTERS: Duration = Duration::from_millis(100);
/// What a data frame adds to an IP packet, with the IPv6 and UDP headers around it.
const FRAME: u16 = 81;
const HOPS: u8 = 64;
/// What every link carries, in two parts if it must.
const LEAST: u16 = 1280;

impl Sim {
    /// Starts a flow: each `interval` a request of `size` bytes from `src` to `dst`'s LAN, answered at once.
    pub fn flow(&mut self, src: usize, dst: usize, interval: Duration, size: u16) -> FlowId {
        self.start_flow(src, dst, interval, size, false)
    }

    /// The same in a seal between the two. A packet without one asks for it, and is lost.
    pub fn sealed_flow(&mut self, src: usize, dst: usize, interval: Duration, size: u16) -> FlowId {
        self.start_flow(src, dst, interval, size, true)
    }

    fn start_flow(&mut self, src: usize, dst: usize, interval: Duration, size: u16, sealed: bool) -> FlowId {
        self.count();
        let flow = self.flows.len();
        self.flows.push(Flow { src, dst, interval, size, sealed, running: true, requests: Vec::new() });
        let at = self.now + self.dice.time(Duration::ZERO, interval);
        self.schedule(at, What::Tick { flow });
        FlowId(flow)
    }

    /// From now on the nodes hear of their planes' counters.
    fn count(&mut self) {
        if !std::mem::replace(&mut self.counting, true) {
            for host in 0..self.hosts.len() {
                let at = self.now + self.dice.time(Duration::ZERO, COUNTERS);
                self.schedule(at, What::Counters { host });
            }
        }
    }

    /// A packet for `peer` waits at `host` for a seal.
    pub fn want_seal(&mut self, host: usize, peer: usize) {
        self.count();
        let id = self.hosts[peer].id;
        self.with_node(host, |node, now| node.want_seal(now, id));
    }

    /// Sends no more requests.
    pub fn stop_flow(&mut self, flow: FlowId) {
        self.flows[flow.0].running = false;
    }

    /// All requests of a flow so far.
    #[must_use]
    pub fn requests(&self, flow: FlowId) -> &[Request] {
        &self.flows[flow.0].requests
    }

    /// How long after `fault` requests still went unanswered: from `fault` to the sending of the first request after
    /// which all were answered. `None` if those sent a second ago still are not.
    #[must_use]
    pub fn outage(&self, flow: FlowId, fault: Duration) -> Option<Duration> {
        let ripe = self.now.saturating_sub(Duration::from_secs(1));
        let judged = self.requests(flow).iter().filter(|request| request.sent >= fault && request.sent <= ripe);
        let mut healed = Some(Duration::ZERO);
        for request in judged {
            match (request.answered, healed) {
                (None, _) => healed = None,
                (Some(_), None) => healed = Some(request.sent - fault),
                (Some(_), Some(_)) => {}
            }
        }
        healed
    }

    pub(super) fn tick(&mut self, flow: usize) {
        let it = &mut self.flows[flow];
        if !it.running {
            return;
        }
        let (src, interval, request) = (it.src, it.interval, it.requests.len());
        if self.hosts[src].node.is_some() {
            it.requests.push(Request { sent: self.now, answered: None });
            self.dispatch(src, Part { flow, request, reply: false });
        }
        self.schedule(self.now + interval, What::Tick { flow });
    }

    /// A request or reply enters the mesh at `host`.
    fn dispatch(&mut self, host: usize, part: Part) {
        let Flow { src, dst, size, sealed, .. } = self.flows[part.flow];
        let peer = if part.reply { src } else { dst };
        let to = self.hosts[peer].lan();
        if !sealed {
            self.forward(host, Packet { cargo: Cargo::Plain(part), to, size, hops_left: HOPS });
            return;
        }
        let Some(seal) = self.hosts[host].seal_with(peer) else {
            self.want_seal(host, peer);
            return;
        };
        let parts = if size <= seal.mtu { 1 } else { 2 };
        seal.traffic.sent_packets += u64::from(parts);
        seal.traffic.sent_bytes += u64::from(size);
        let (receiver, key) = (seal.keys.remote, seal.keys.seal);
        let cargo = Cargo::Sealed { part, receiver, key, parts, size };
        self.forward(host, Packet { cargo, to, size: size.div_ceil(parts) + FRAME, hops_left: HOPS });
    }

    /// A node's datagram for another over the mesh: goes the way of all packets.
    pub(super) fn transmit_over_mesh(&mut self, host: usize, to: Endpoint, payload: Rc<[u8]>) {
        self.snoop(None, host, None, &payload);
        let Some(peer) = self.hosts.iter().position(|peer| peer.place() == to) else { return };
        let (to, size) = (self.hosts[peer].lan(), (payload.len() + HEADERS) as u16);
        self.forward(host, Packet { cargo: Cargo::Seal { from: host, payload }, to, size, hops_left: HOPS });
    }

    /// A packet is at `host`: takes it, or hands it to the next.
    fn forward(&mut self, host: usize, packet: Packet) {
        if self.hosts[host].owns(&packet.to) {
            self.deliver(host, packet);
            return;
        }
        let it = &mut self.hosts[host];
        let Some(link) = it.fib.get(&packet.to).and_then(|route| it.links.get_mut(&route.via)) else {
            it.counters.unroutable += 1;
            return;
        };
        if packet.hops_left == 0 {
            it.counters.expired += 1;
            return;
        }
        if !matches!(packet.cargo, Cargo::Plain(_)) && packet.size > link.mtu.max(LEAST) {
            it.counters.too_big += 1;
            return;
        }
        // What does not fit goes in two parts; both must arrive.
        let parts = if packet.size <= link.mtu { 1 } else { 2 };
        link.traffic.sent_packets += u64::from(parts);
        link.traffic.sent_bytes += u64::from(packet.size);
        let counter = link.traffic.sent_packets;
        let (endpoint, receiver, key) = (link.endpoint, link.keys.remote, link.keys.seal);
        let Some((wire, to)) = self.resolve(host, endpoint) else { return };
        let quality = self.wires[wire].quality;
        if packet.size.div_ceil(parts) + FRAME > self.wires[wire].path_mtu {
            self.hosts[host].counters.oversized += 1;
            return;
        }
        let lost = (0..parts).any(|_| self.dice.chance(quality.loss));
        if lost || !self.wires[wire].carries(host, to) {
            return;
        }
        let (Some(from), Some(port)) = (self.wires[wire].port(host), self.wires[wire].port(to)) else { return };
        let (from, iface) = (from.addr, port.iface);
        let packet = Packet { hops_left: packet.hops_left - 1, ..packet };
        let at = self.now + self.delay(quality);
        let frame = Box::new(Frame { iface, from, receiver, key, parts, counter, packet });
        self.schedule(at, What::Frame { wire, to, frame });
    }

    pub(super) fn frame(&mut self, wire: usize, host: usize, frame: &Frame) {
        if !self.wires[wire].up || self.hosts[host].node.is_none() {
            return;
        }
        let it = &mut self.hosts[host];
        let Some((&id, link)) = it.links.iter_mut().find(|(_, link)| link.opens(frame.receiver, &frame.key)) else {
            it.counters.unopened += 1;
            return;
        };
        link.traffic.received_packets += u64::from(frame.parts);
        link.traffic.received_bytes += u64::from(frame.packet.size);
        let from = Endpoint { iface: frame.iface, addr: frame.from };
        let newest = frame.counter > link.newest;
        link.newest = link.newest.max(frame.counter);
        if newest && link.endpoint != from {
            self.with_node(host, |node, now| node.handle_roamed(now, id, from));
        }
        self.forward(host, frame.packet.clone());
    }

    fn deliver(&mut self, host: usize, packet: Packet) {
        let part = match packet.cargo {
            Cargo::Plain(part) => part,
            Cargo::Sealed { part, receiver, key, parts, size } => {
                let it = &mut self.hosts[host];
                let Some(seal) = it.seals.values_mut().find(|seal| seal.opens(receiver, &key)) else {
                    it.counters.unopened += 1;
                    return;
                };
                seal.traffic.received_packets += u64::from(parts);
                seal.traffic.received_bytes += u64::from(size);
                part
            }
            Cargo::Seal { from, payload } => {
                let from = self.hosts[from].place();
                self.with_node(host, |node, now| node.handle_datagram(now, from, &payload));
                return;
            }
        };
        if part.reply {
            self.flows[part.flow].requests[part.request].answered.get_or_insert(self.now);
        } else {
            self.dispatch(host, Part { reply: true, ..part });
        }
    }

    pub(super) fn report_counters(&mut self, host: usize) {
        let it = &self.hosts[host];
        let links: Vec<LinkId> = it.links.keys().chain(it.seals.keys()).copied().collect();
        for id in links {
            let it = &mut self.hosts[host];
            // A call for one link may end another.
            let Some(link) = it.links.get_mut(&id).or_else(|| it.seals.get_mut(&id)) else { continue };
            if link.traffic != link.reported {
                link.reported = link.traffic;
                let traffic = link.traffic;
                self.with_node(host, |node, now| node.handle_traffic(now, id, traffic));
            }
        }
        self.schedule(self.now + COUNTERS, What::Counters { host });
    }
}
