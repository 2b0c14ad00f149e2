//! The model planes: packets walk the forwarding tables, frames open where the keys fit, counters go to the nodes.

use std::time::Duration;

use grange_core::Endpoint;

use super::{Sim, What};
use crate::flow::{Flow, FlowId, Frame, Packet, Request};

/// How often a plane's counters reach its node, as `Node::handle_traffic` asks for.
const COUNTERS: Duration = Duration::from_millis(100);
/// What a data frame adds to an IP packet, with the IPv6 and UDP headers around it.
const FRAME: u16 = 81;
const HOPS: u8 = 64;

impl Sim {
    /// Starts a flow: each `interval` a request of `size` bytes from `src` to `dst`'s LAN, answered at once.
    pub fn flow(&mut self, src: usize, dst: usize, interval: Duration, size: u16) -> FlowId {
        if self.flows.is_empty() {
            for host in 0..self.hosts.len() {
                let at = self.now + self.dice.time(Duration::ZERO, COUNTERS);
                self.schedule(at, What::Counters { host });
            }
        }
        let flow = self.flows.len();
        self.flows.push(Flow { src, dst, interval, size, running: true, requests: Vec::new() });
        let at = self.now + self.dice.time(Duration::ZERO, interval);
        self.schedule(at, What::Tick { flow });
        FlowId(flow)
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
            let packet =
                Packet { flow, request, reply: false, to: self.hosts[it.dst].lan(), size: it.size, hops_left: HOPS };
            self.forward(src, packet);
        }
        self.schedule(self.now + interval, What::Tick { flow });
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
        self.forward(host, frame.packet);
    }

    fn deliver(&mut self, host: usize, packet: Packet) {
        let flow = &mut self.flows[packet.flow];
        if packet.reply {
            flow.requests[packet.request].answered.get_or_insert(self.now);
        } else {
            let to = self.hosts[flow.src].lan();
            self.forward(host, Packet { reply: true, to, hops_left: HOPS, ..packet });
        }
    }

    pub(super) fn report_counters(&mut self, host: usize) {
        let links: Vec<_> = self.hosts[host].links.keys().copied().collect();
        for id in links {
            // A call for one link may end another.
            let Some(link) = self.hosts[host].links.get_mut(&id) else { continue };
            if link.traffic != link.reported {
                link.reported = link.traffic;
                let traffic = link.traffic;
                self.with_node(host, |node, now| node.handle_traffic(now, id, traffic));
            }
        }
        self.schedule(self.now + COUNTERS, What::Counters { host });
    }
}
