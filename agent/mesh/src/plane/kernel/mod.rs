//! The kernel's WireGuard, one interface for each link and seal, over a plane that carries whatever it does not.
//!
//! Every session has its place in the other plane too, which carries packets from the first moment and whenever an
//! interface fails: only which way the kernel routes packets changes, and never what a session is. What enters the mesh
//! here and what only passes have tables of their own, since what passes is never sealed again (`docs/kernel.md`).

mod activity;
mod counters;
mod keys;
mod tunnel;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use grange_core::{DataKeys, Endpoint, LinkId, LinkTraffic};
use grange_wire::{NodeId, Prefix};

use self::{
    activity::Activity,
    tunnel::{Counts, Tunnel},
};
use super::{
    AddLinkError, LinkSpec, Local, MIN_MTU, Plane, PlaneDrops, PlaneFailure, RekeyError, SetLocalError, SetRouteError,
    UnknownLink, Way,
};
use crate::kernel::{Hop, Path, Wants};

pub(crate) use keys::Secret;

/// Most WireGuard interfaces: each costs a routing rule that every packet passes. Further links and seals stay in the
/// other plane.
const MAX_TUNNELS: usize = 128;

/// Most of them that are seals': whoever is far away can have many, so links need never wait for one.
const MAX_SEALS: usize = 64;

/// For so long a seal keeps its interface however busy others are.
const TENURE: Duration = Duration::from_secs(30);

/// Bytes of a WireGuard message around a packet (whitepaper, section 5.4.6).
const OVERHEAD: u64 = 32;

/// What is known of a link or seal.
struct Session {
    peer: NodeId,
    mtu: u16,
    is_seal: bool,
    /// None: the other end's kernel has no WireGuard, or this one.
    tunnel: Option<Tunnel>,
    /// Since when it has an interface, or is to have one.
    placed: Option<Instant>,
    activity: Activity,
    /// The port that the node was told.
    told: u16,
    /// Its interface's counters, as they were read last, and what former interfaces counted.
    counts: Counts,
    before: Counts,
}

impl Session {
    fn is_proven(&self) -> bool {
        self.tunnel.as_ref().is_some_and(Tunnel::is_proven)
    }

    /// Takes an interface's counters; smaller ones are those of another interface.
    fn count(&mut self, counts: Counts) {
        if counts.sent_packets < self.counts.sent_packets || counts.received_packets < self.counts.received_packets {
            self.before = sum(self.before, self.counts);
        }
        self.counts = counts;
    }

    /// What went by WireGuard interfaces, in packets and bytes of IP.
    fn traffic(&self) -> LinkTraffic {
        let Counts { sent_packets, sent_bytes, received_packets, received_bytes } = sum(self.before, self.counts);
        LinkTraffic {
            sent_packets,
            // Of a packet that is sent the kernel counts the tag too, of one that is received the header beside.
            sent_bytes: sent_bytes.saturating_sub(sent_packets * OVERHEAD / 2),
            received_packets,
            received_bytes: received_bytes.saturating_sub(received_packets * OVERHEAD),
        }
    }
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        sent_packets: a.sent_packets.saturating_add(b.sent_packets),
        sent_bytes: a.sent_bytes.saturating_add(b.sent_bytes),
        received_packets: a.received_packets.saturating_add(b.received_packets),
        received_bytes: a.received_bytes.saturating_add(b.received_bytes),
    }
}

/// Both planes. Tells the kernel's keeper where packets go, also where there is no kernel plane and all of them go to the
/// other one.
pub(crate) struct Planes {
    other: Box<dyn Plane>,
    wants: Wants,
    /// Whether the kernel has WireGuard.
    enabled: bool,
    /// Mark of the underlay's packets.
    mark: u32,
    sessions: BTreeMap<LinkId, Session>,
    /// The seal to each node that has one.
    seals: BTreeMap<NodeId, LinkId>,
    ways: BTreeMap<Prefix, Way>,
    ports: Vec<(LinkId, u16)>,
}

impl Planes {
    /// Over `other`; `enabled`: the kernel has WireGuard.
    pub(crate) fn new(other: Box<dyn Plane>, wants: Wants, enabled: bool, mark: u32) -> Self {
        Self {
            other,
            wants,
            enabled,
            mark,
            sessions: BTreeMap::new(),
            seals: BTreeMap::new(),
            ways: BTreeMap::new(),
            ports: Vec::new(),
        }
    }

    /// How the kernel routes packets that go a way.
    fn path(&self, way: Way) -> Path {
        let proven = |link: LinkId| self.sessions.get(&link).is_some_and(Session::is_proven);
        let hop = |link| if proven(link) { Hop::Kernel(link) } else { Hop::default() };
        let pass = hop(way.link);
        let Some(peer) = way.seal else { return Path { enter: pass, pass } };
        let enter = match self.seals.get(&peer) {
            Some(seal) if proven(*seal) => Hop::Kernel(*seal),
            // Packets that are too large are known before they are sealed.
            Some(seal) => Hop::Userspace { mtu: self.sessions.get(seal).map_or(0, |session| session.mtu.max(MIN_MTU)) },
            None => Hop::default(),
        };
        Path { enter, pass }
    }

    /// Tells the keeper how packets go whose ways touch one of these links and seals.
    fn reroute(&self, touched: impl Fn(&Way) -> bool) {
        let paths = self.ways.iter().filter(|(_, way)| touched(way));
        self.wants.want_paths(paths.map(|(prefix, way)| (*prefix, Some(self.path(*way)))));
    }

    fn reroute_session(&self, link: LinkId, peer: NodeId) {
        self.reroute(|way| way.link == link || way.seal == Some(peer));
    }

    /// Changes a session's tunnel, and what is wanted of the kernel with it.
    fn change(&mut self, link: LinkId, change: impl FnOnce(&mut Tunnel)) {
        let now = Instant::now();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(tunnel) = &mut session.tunnel else { return };
        let before = tunnel.is_proven();
        change(tunnel);
        let (after, spec, peer) = (tunnel.is_proven(), tunnel.spec(now), session.peer);
        // Ways before the interface: in between nothing would come of a handshake's packets.
        let placed = session.placed.is_some();
        if before != after {
            tracing::debug!(link = link.0, kernel = after, "packets go another way");
            self.reroute_session(link, peer);
        }
        if placed {
            self.wants.want_tunnel(link, Some(spec));
        }
    }

    /// Lets a session have an interface.
    fn place(&mut self, link: LinkId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&link).filter(|session| session.tunnel.is_some()) {
            session.placed = Some(now);
            self.change(link, |_| {});
        }
    }

    /// Takes the interface from a session.
    fn displace(&mut self, link: LinkId) {
        self.change(link, Tunnel::rest);
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.placed = None;
        if std::mem::take(&mut session.told) != 0 {
            self.ports.push((link, 0));
        }
        self.wants.want_tunnel(link, None);
    }

    /// Gives interfaces to those that shall have one: links first, then the busiest seals. No seal has one for ever
    /// because it was there first.
    fn distribute(&mut self, now: Instant) {
        let seals = |planes: &Self, which: fn(&Session, Instant) -> bool| {
            let seals = planes.sessions.iter().filter(|(_, session)| session.is_seal && session.tunnel.is_some());
            let chosen = seals.filter(|(_, session)| which(session, now));
            let mut chosen: Vec<_> = chosen.map(|(link, session)| (session.activity.recent(), *link)).collect();
            chosen.sort_unstable();
            chosen
        };
        for (_, link) in seals(self, |seal, now| seal.placed.is_some() && !seal.activity.in_use(now)) {
            self.displace(link);
        }
        // Quietest first.
        let mut placed = VecDeque::from(seals(self, |seal, _| seal.placed.is_some()));
        let links = self.sessions.iter().filter(|(_, session)| !session.is_seal && session.tunnel.is_some());
        let (with, without): (Vec<_>, Vec<_>) =
            links.map(|(link, session)| (*link, session.placed.is_some())).partition(|(_, placed)| *placed);
        let mut used = with.len();
        for (link, _) in without {
            if used + placed.len() >= MAX_TUNNELS {
                let Some((_, quiet)) = placed.pop_front() else { break };
                self.displace(quiet);
            }
            self.place(link, now);
            used += 1;
        }
        let room = MAX_SEALS.min(MAX_TUNNELS - used);
        for (busy, link) in
            seals(self, |seal, now| seal.placed.is_none() && seal.activity.in_use(now)).into_iter().rev()
        {
            if placed.len() >= room {
                let settled = |link: &LinkId| self.sessions[link].placed.is_some_and(|since| now >= since + TENURE);
                let quiet = placed.iter().position(|(recent, link)| recent.saturating_mul(2) < busy && settled(link));
                let Some((_, quiet)) = quiet.and_then(|at| placed.remove(at)) else { break };
                self.displace(quiet);
            }
            self.place(link, now);
            placed.push_back((busy, link));
        }
    }

    /// Lets all tunnels see what the kernel says.
    fn poll(&mut self) {
        if self.sessions.values().all(|session| session.placed.is_none()) {
            // The kernel may give a port of theirs to any program now.
            return self.other.set_sealed_ports(&[]);
        }
        let now = Instant::now();
        let counters = counters::read();
        let reports = self.wants.reports().clone();
        let mut sealed_ports = BTreeSet::new();
        for link in self.sessions.keys().copied().collect::<Vec<_>>() {
            let report = reports.get(&link);
            let counts = report.and_then(|report| counters.get(&report.name)).copied();
            let port = report.map_or(0, |report| report.port);
            let Some(session) = self.sessions.get_mut(&link).filter(|session| session.placed.is_some()) else {
                continue;
            };
            if let Some(counts) = counts {
                session.count(counts);
            }
            if std::mem::replace(&mut session.told, port) != port {
                self.ports.push((link, port));
            }
            if session.is_seal {
                sealed_ports.insert(port);
            }
            self.change(link, |tunnel| tunnel.poll(now, report, counts));
        }
        sealed_ports.remove(&0);
        self.other.set_sealed_ports(&sealed_ports.into_iter().collect::<Vec<_>>());
    }
}

impl Plane for Planes {
    fn name(&self) -> &'static str {
        if self.enabled { "kernel" } else { self.other.name() }
    }

    fn add_link(&mut self, link: LinkId, spec: LinkSpec) -> Result<(), AddLinkError> {
        let LinkSpec { peer, endpoint, mtu, kernel, .. } = spec;
        let now = Instant::now();
        let tunnel =
            (self.enabled && kernel).then(|| Tunnel::new(peer, &spec.keys, endpoint, mtu.max(MIN_MTU), self.mark));
        self.other.add_link(link, spec)?;
        let is_seal = endpoint.iface == grange_core::IfaceId::MESH;
        let (counts, before) = (Counts::default(), Counts::default());
        let (placed, activity) = (None, Activity::new(now));
        let session = Session { peer, mtu, is_seal, tunnel, placed, activity, told: 0, counts, before };
        self.sessions.insert(link, session);
        if is_seal {
            self.seals.insert(peer, link);
            self.reroute_session(link, peer);
        } else {
            self.distribute(now);
        }
        Ok(())
    }

    fn offer_keys(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError> {
        self.other.offer_keys(link, keys)
    }

    fn rekey(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError> {
        let copy = keys.clone();
        self.other.rekey(link, keys)?;
        self.change(link, |tunnel| tunnel.rekey(&copy));
        Ok(())
    }

    fn set_endpoint(&mut self, link: LinkId, endpoint: Endpoint) -> Result<(), UnknownLink> {
        self.other.set_endpoint(link, endpoint)?;
        self.change(link, |tunnel| tunnel.set_endpoint(endpoint));
        Ok(())
    }

    fn set_mtu(&mut self, link: LinkId, mtu: u16) -> Result<(), UnknownLink> {
        self.other.set_mtu(link, mtu)?;
        if let Some(session) = self.sessions.get_mut(&link) {
            session.mtu = mtu;
            if session.is_seal {
                let peer = session.peer;
                self.reroute_session(link, peer);
            }
        }
        self.change(link, |tunnel| tunnel.set_mtu(mtu.max(MIN_MTU)));
        Ok(())
    }

    fn remove_link(&mut self, link: LinkId) -> Result<(), UnknownLink> {
        self.other.remove_link(link)?;
        if let Some(session) = self.sessions.remove(&link) {
            if self.seals.get(&session.peer) == Some(&link) {
                self.seals.remove(&session.peer);
            }
            self.reroute_session(link, session.peer);
            self.wants.want_tunnel(link, None);
            self.ports.retain(|(of, _)| *of != link);
        }
        Ok(())
    }

    fn set_route(&mut self, prefix: Prefix, way: Way) -> Result<(), SetRouteError> {
        self.other.set_route(prefix, way)?;
        self.ways.insert(prefix, way);
        self.wants.want_paths([(prefix, Some(self.path(way)))]);
        Ok(())
    }

    fn remove_route(&mut self, prefix: Prefix) {
        self.other.remove_route(prefix);
        self.ways.remove(&prefix);
        self.wants.want_paths([(prefix, None)]);
    }

    fn set_local(&mut self, local: &Local) -> Result<(), SetLocalError> {
        self.other.set_local(local)?;
        let exits = local.exits.iter().copied().filter(Prefix::is_default).collect();
        self.wants.want(|wanted| wanted.exits = exits);
        Ok(())
    }

    fn counters(&mut self, into: &mut Vec<(LinkId, LinkTraffic)>) {
        self.poll();
        let now = Instant::now();
        let from = into.len();
        self.other.counters(into);
        for (link, traffic) in &mut into[from..] {
            if let Some(session) = self.sessions.get_mut(link) {
                let kernel = session.traffic();
                traffic.sent_packets += kernel.sent_packets;
                traffic.sent_bytes += kernel.sent_bytes;
                traffic.received_packets += kernel.received_packets;
                traffic.received_bytes += kernel.received_bytes;
                session.activity.carried(now, traffic.sent_bytes.saturating_add(traffic.received_bytes));
            }
        }
        if self.enabled {
            self.distribute(now);
        }
    }

    fn take_roamed(&mut self, into: &mut Vec<(LinkId, Endpoint)>) {
        self.other.take_roamed(into);
    }

    fn drops(&self) -> PlaneDrops {
        self.other.drops()
    }

    fn health(&self) -> Result<(), PlaneFailure> {
        self.other.health()
    }

    fn set_peer_port(&mut self, link: LinkId, port: u16) {
        let now = Instant::now();
        self.change(link, |tunnel| tunnel.set_peer_port(now, port));
    }

    fn take_ports(&mut self, into: &mut Vec<(LinkId, u16)>) {
        into.append(&mut self.ports);
    }

    fn plane_of(&self, link: LinkId) -> &'static str {
        match self.sessions.get(&link) {
            Some(session) if session.is_proven() => "kernel",
            _ => self.other.plane_of(link),
        }
    }
}
