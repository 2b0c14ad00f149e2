//! A node in a town: its links, the handshakes that lead to more, and the routes over them.

use alloc::{collections::BTreeMap, vec::Vec};

use grange_wire::{DatagramKind, Prefix, lan_prefix};

use super::{
    host::Host,
    links::Link,
    opening::{Attempt, Responder},
    seals::Wants,
};
use crate::{
    Endpoint, Event, GatewayPolicy, IfaceId, Instant, LinkId, Town,
    babel::{RouteEvent, Router, RouterConfig},
    link::{Beacons, NoiseContext},
};

/// Whose an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The attempt that leads to this endpoint.
    Attempt(Endpoint),
    /// The responder of this index.
    Responder,
    /// One of this link's sessions.
    Link(LinkId),
}

pub(super) struct Membership {
    pub(super) town: Town,
    /// Drawn anew each time: neighbours see by it that their routes of us are out of date.
    pub(super) run: [u8; 8],
    pub(super) noise: NoiseContext,
    pub(super) beacons: Beacons,
    pub(super) seal_beacons: Beacons,
    pub(super) router: Router,
    /// Links and seals.
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) wants: Wants,
    pub(super) attempts: BTreeMap<Endpoint, Attempt>,
    pub(super) responders: BTreeMap<u32, Responder>,
    /// Who owns which of our receiver indexes.
    pub(super) indexes: BTreeMap<u32, Owner>,
}

impl Membership {
    pub(super) fn new(
        host: &mut Host,
        now: Instant,
        town: Town,
        gateways: GatewayPolicy,
        announced: &[Prefix],
    ) -> Self {
        let config = RouterConfig { identity: host.identity.clone(), town: town.id, gateways };
        let mut router = Router::new(config, now, host.random.bytes());
        router.set_announced(now, announced);
        Self {
            run: host.random.bytes(),
            noise: NoiseContext::new(&host.identity, &town.key),
            beacons: Beacons::new(&town.key, now, &mut host.random),
            seal_beacons: Beacons::of_seals(&town.key, now, &mut host.random),
            town,
            router,
            links: BTreeMap::new(),
            wants: Wants::new(),
            attempts: BTreeMap::new(),
            responders: BTreeMap::new(),
            indexes: BTreeMap::new(),
        }
    }

    pub(super) fn handle_datagram(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        match DatagramKind::of(datagram) {
            Some(DatagramKind::Beacon) => self.handle_beacon(host, now, from, datagram),
            Some(DatagramKind::Initiation) => self.handle_initiation(host, now, from, datagram),
            Some(DatagramKind::Response) => self.handle_response(host, now, from, datagram),
            Some(DatagramKind::Finish) => self.handle_finish(host, now, from, datagram),
            Some(DatagramKind::Control) => self.handle_control(host, now, from, datagram),
            Some(DatagramKind::Data) => {}
            None => host.stats.malformed += 1,
        }
    }

    /// The beacons that are shown to this endpoint.
    pub(super) fn beacons_at(&mut self, at: &Endpoint) -> &mut Beacons {
        if at.iface == IfaceId::MESH { &mut self.seal_beacons } else { &mut self.beacons }
    }

    /// Does all that is due.
    pub(super) fn advance(&mut self, host: &mut Host, now: Instant) {
        self.beacons.rotate(now, &mut host.random);
        self.seal_beacons.rotate(now, &mut host.random);
        self.discover(host, now);
        let due: Vec<Endpoint> =
            self.attempts.iter().filter(|(_, attempt)| attempt.timeout() <= now).map(|(at, _)| *at).collect();
        for at in due {
            self.run_attempt(host, now, at);
        }
        let due: Vec<u32> =
            self.responders.iter().filter(|(_, one)| one.timeout() <= now).map(|(local, _)| *local).collect();
        for local in due {
            self.drop_responder(local);
        }
        let due: Vec<LinkId> = self.links.iter().filter(|(_, link)| link.timeout() <= now).map(|(id, _)| *id).collect();
        for link in due {
            self.run_link(host, now, link);
        }
        if self.router.poll_timeout().is_some_and(|at| at <= now) {
            self.router.handle_timeout(now);
        }
        self.pump(host, now);
    }

    /// Carries what the router has to say: packets to neighbours, events to the shell.
    pub(super) fn pump(&mut self, host: &mut Host, now: Instant) {
        while let Some((link, packet)) = self.router.poll_packet() {
            self.send_babel(host, now, link, &packet);
        }
        while let Some(event) = self.router.poll_event() {
            let event = match event {
                RouteEvent::Changed { prefix, via, metric, owner, router_id } => {
                    if prefix == lan_prefix(&owner) {
                        self.reroute_seals(host, now, &prefix, via);
                    }
                    Event::RouteChanged { prefix, via, metric, owner, router_id }
                }
                RouteEvent::Removed { prefix } => Event::RouteRemoved { prefix },
                RouteEvent::Rtt { link, rtt } => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.liveness.measured(rtt);
                    }
                    Event::LinkRtt { link, rtt }
                }
            };
            host.tell(event);
        }
    }

    pub(super) fn timeout(&self, host: &Host) -> Instant {
        let beacons = self.beacons.timeout().min(self.seal_beacons.timeout());
        let own = [Some(beacons), host.timeout(), self.router.poll_timeout()];
        own.into_iter()
            .flatten()
            .chain(self.attempts.values().map(Attempt::timeout))
            .chain(self.responders.values().map(Responder::timeout))
            .chain(self.links.values().map(Link::timeout))
            .min()
            .unwrap_or_default()
    }
}
