//! Datagrams on the wires.

use std::{rc::Rc, time::Duration};

use grange_core::{Endpoint, IfaceId, Target, Transmit};

use super::{HEADERS, Sim, What};
use crate::{Quality, wire::Wire};

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

impl Sim {
    pub(super) fn transmit(&mut self, host: usize, Transmit { to, payload }: Transmit) {
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
    pub(super) fn resolve(&self, host: usize, endpoint: Endpoint) -> Option<(usize, usize)> {
        let &(wire, to) = self.by_addr.get(&endpoint.addr)?;
        let port = self.wires[wire].port(host)?;
        (port.iface == endpoint.iface).then_some((wire, to))
    }

    pub(super) fn send(&mut self, wire: usize, from: usize, to: usize, payload: &Rc<[u8]>) {
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

    pub(super) fn delay(&mut self, quality: Quality) -> Duration {
        let jitter = self.dice.time(Duration::ZERO, quality.jitter);
        let held = if self.dice.chance(quality.reordering) {
            self.dice.time(Duration::ZERO, Duration::from_millis(100))
        } else {
            Duration::ZERO
        };
        quality.latency + jitter + held
    }

    pub(super) fn snoop(&mut self, wire: Option<usize>, from: usize, to: Option<usize>, payload: &Rc<[u8]>) {
        if let Some(tap) = &mut self.tap {
            tap.push(Datagram { at: self.now, wire, from, to, payload: payload.clone() });
        }
    }
}
