//! Links, and seals where they are alike: how they come up, get new keys, move and go down.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use grange_wire::{ControlFrame, NodeId};

use super::{
    host::Host,
    membership::{Membership, Owner},
    seals::{InvitationKey, REROUTE_PAUSE, Usage},
};
use crate::{
    DataKeys, DownReason, Endpoint, Event, IfaceId, IfaceKind, Instant, LinkId, LinkTraffic, PeerInfo, Target,
    link::{Liveness, MtuSearch, PlanePorts, Session, Step, Underlay},
};

/// Links of one node: a dense radio cell holds fifty, and each costs about five kilobytes.
const LINKS_MAX: usize = 256;

/// New keys after this time, or a tenth later; who began the session begins the next one.
const REKEY: Duration = Duration::from_secs(120);

/// The other end begins if nothing came until now.
const REKEY_OTHER_END: Duration = Duration::from_secs(150);

/// Pause before new keys are tried for again.
const REKEY_AGAIN: Duration = Duration::from_secs(10);

/// Keys older than this are not used.
const EXPIRE: Duration = Duration::from_secs(180);

/// Frames under the keys before the present ones are taken for so long.
const PREVIOUS_LIFE: Duration = Duration::from_secs(60);

/// New keys after so many frames, whatever the time (design, section 4).
const REKEY_FRAMES: u64 = 1 << 48;

/// Without anything else to send, a frame goes out so often.
const KEEPALIVE: Duration = Duration::from_secs(4);

/// Pause before the search for the MTU begins: the first moments belong to Babel.
const MTU_START: Duration = Duration::from_millis(50);

/// Other endpoints at which the same neighbour was met.
const ALIASES_MAX: usize = 4;

/// A handshake that ended: a link or new keys for one.
pub(super) struct Arrival {
    pub(super) peer: PeerInfo,
    /// What the neighbour came into the town by; `None`: the steward signed for it.
    pub(super) invitation: Option<InvitationKey>,
    pub(super) run: [u8; 8],
    /// Where the neighbour is.
    pub(super) endpoint: Endpoint,
    /// Where its beacon came from.
    pub(super) sought: Endpoint,
    pub(super) session: Session,
    pub(super) keys: DataKeys,
    /// Both ends have the kernel plane.
    pub(super) kernel: bool,
    /// Who began the handshake has no session that this one renews.
    pub(super) anew: bool,
    /// Of the handshake.
    pub(super) rtt: Duration,
    /// What a FINISH that comes again is known by, if the neighbour sent it.
    pub(super) finish: Option<[u8; 16]>,
}

/// A link or, if its endpoint is on [`IfaceId::MESH`], a seal.
pub(super) struct Link {
    pub(super) peer: PeerInfo,
    run: [u8; 8],
    pub(super) endpoint: Endpoint,
    aliases: VecDeque<Endpoint>,
    pub(super) kind: IfaceKind,
    pub(super) since: Instant,
    pub(super) session: Session,
    pub(super) previous: Option<(Session, Instant)>,
    pub(super) liveness: Liveness,
    pub(super) mtu: MtuSearch,
    /// Both ends have the kernel plane.
    pub(super) kernel: bool,
    pub(super) ports: PlanePorts,
    pub(super) usage: Usage,
    /// This node wanted it, when it was made.
    pub(super) wanted: bool,
    pub(super) invitation: Option<InvitationKey>,
    /// The first link of a seal's way, since it changed.
    pub(super) via: Option<LinkId>,
    finish: Option<[u8; 16]>,
    last_sent: Instant,
    rekey_at: Instant,
    /// Data frames sent when the present keys came.
    sent_before: u64,
}

impl Link {
    pub(super) fn is_live(&self) -> bool {
        !self.liveness.is_dead()
    }

    pub(super) fn is_seal(&self) -> bool {
        self.endpoint.iface == IfaceId::MESH
    }

    /// The plane's counters.
    pub(super) fn traffic(&mut self, now: Instant, traffic: LinkTraffic) {
        let before = self.liveness.counters();
        let sent = traffic.sent_packets != before.sent_packets;
        self.usage.used(now, sent, traffic.received_packets != before.received_packets);
        self.liveness.traffic(now, traffic);
    }

    /// Whether the neighbour is, or was met, at this endpoint.
    pub(super) fn known_at(&self, at: &Endpoint) -> bool {
        self.endpoint == *at || self.aliases.contains(at)
    }

    /// Remembers another endpoint of the same neighbour, so that a beacon from there starts nothing.
    fn add_alias(&mut self, at: Endpoint) {
        if self.known_at(&at) {
            return;
        }
        if self.aliases.len() >= ALIASES_MAX {
            self.aliases.pop_front();
        }
        self.aliases.push_back(at);
    }

    fn expires(&self) -> Instant {
        self.session.created + EXPIRE
    }

    pub(super) fn timeout(&self) -> Instant {
        let previous = self.previous.as_ref().map(|(_, until)| *until);
        let always = [self.liveness.timeout(), previous].into_iter().flatten().fold(self.expires(), Instant::min);
        if !self.is_live() {
            return always;
        }
        let idle = if self.is_seal() { self.usage.timeout() } else { self.last_sent + KEEPALIVE };
        let live = [Some(self.rekey_at), Some(idle), Some(self.mtu.timeout()), self.ports.timeout()];
        live.into_iter().flatten().fold(always, Instant::min)
    }
}

/// Whether datagrams from `a` may belong to a session with `b`: neighbours move about on their interface, but in the mesh
/// the address says who it is.
pub(super) fn same_place(a: &Endpoint, b: &Endpoint) -> bool {
    a.iface == b.iface && (a.iface != IfaceId::MESH || a.addr == b.addr)
}

impl Membership {
    pub(super) fn live_link_at(&self, at: &Endpoint) -> Option<LinkId> {
        self.links.iter().find(|(_, link)| link.is_live() && link.known_at(at)).map(|(id, _)| *id)
    }

    /// The link between the same ends over the same interface: for static peers, at the same address.
    fn same_ends(&self, peer: &NodeId, at: [&Endpoint; 2]) -> Option<LinkId> {
        let same = |link: &Link| {
            link.peer.id == *peer
                && link.endpoint.iface == at[0].iface
                && (at[0].iface != IfaceId(0) || at.into_iter().any(|at| link.known_at(at)))
        };
        self.links.iter().find(|(_, link)| same(link)).map(|(id, _)| *id)
    }

    /// The link that a handshake with `peer` gives new keys to: one that lives, whose other end did not start anew.
    pub(super) fn renewable(&self, peer: &NodeId, run: [u8; 8], at: [&Endpoint; 2]) -> Option<LinkId> {
        self.same_ends(peer, at).filter(|id| self.links[id].is_live() && self.links[id].run == run)
    }

    /// Both ends have the keys: a new link, or new keys for the one between them.
    pub(super) fn arrive(&mut self, host: &mut Host, now: Instant, arrival: Arrival) {
        let at = [&arrival.endpoint, &arrival.sought];
        let sought = at.map(|at| self.drop_attempt(*at).is_some());
        let wanted = arrival.session.initiator || sought.contains(&true);
        match self.renewable(&arrival.peer.id, arrival.run, at) {
            Some(link) if !arrival.anew => self.renew(host, now, link, arrival),
            // What the other end renewed is gone here. It will make a new one when it hears that from us.
            None if arrival.session.initiator && !arrival.anew => self.seek(host, now, arrival.sought),
            _ => {
                if let Some(link) = self.same_ends(&arrival.peer.id, at) {
                    self.remove(host, now, link, DownReason::Replaced);
                }
                self.bring_up(host, now, arrival, wanted);
            }
        }
    }

    fn bring_up(&mut self, host: &mut Host, now: Instant, arrival: Arrival, wanted: bool) {
        let seal = arrival.endpoint.iface == IfaceId::MESH;
        let room = if seal {
            self.room_for_seal(host, now, wanted, arrival.invitation.as_ref())
        } else {
            self.links.values().filter(|link| !link.is_seal()).count() < LINKS_MAX
        };
        if !room {
            host.stats.full += 1;
            return;
        }
        let id = host.next_link();
        let Arrival { peer, invitation, run, endpoint, sought, session, keys, kernel, rtt, finish, .. } = arrival;
        let (kind, iface_mtu) = host.medium(endpoint.iface);
        let mtu = MtuSearch::new(now + host.random.jitter(MTU_START), Underlay::to(&endpoint), iface_mtu);
        let (name, passes) = (peer.clone(), mtu.proven());
        host.tell(if seal {
            Event::SealUp { seal: id, peer: name, endpoint, keys, mtu: passes, kernel }
        } else {
            Event::LinkUp { link: id, peer: name, endpoint, keys, mtu: passes, kernel }
        });
        self.indexes.insert(session.local.0, Owner::Link(id));
        let rekey_at = rekey_at(host, &session);
        let mut link = Link {
            run,
            endpoint,
            aliases: VecDeque::new(),
            kind,
            since: now,
            session,
            previous: None,
            liveness: Liveness::new(now, host.random.u32(), Some(rtt), !seal),
            mtu,
            kernel,
            ports: PlanePorts::default(),
            usage: Usage::new(now),
            wanted,
            invitation,
            via: None,
            finish,
            last_sent: now,
            rekey_at,
            sent_before: 0,
            peer,
        };
        link.add_alias(sought);
        let peer = link.peer.id;
        self.links.insert(id, link);
        // The neighbour waits for a frame to be sure of the session.
        self.send_frame(host, now, id, &ControlFrame::Keepalive);
        if !seal {
            self.router.neighbour_up(now, id, peer, kind);
            self.pump(host, now);
        }
    }

    fn renew(&mut self, host: &mut Host, now: Instant, id: LinkId, arrival: Arrival) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Arrival { peer, invitation, endpoint, sought, session, keys, rtt, finish, .. } = arrival;
        self.indexes.insert(session.local.0, Owner::Link(id));
        let before = core::mem::replace(&mut link.session, session);
        if let Some((oldest, _)) = link.previous.replace((before, now + PREVIOUS_LIFE)) {
            self.indexes.remove(&oldest.local.0);
        }
        (link.peer, link.invitation) = (peer, invitation);
        link.finish = finish;
        link.rekey_at = rekey_at(host, &link.session);
        link.sent_before = link.liveness.counters().sent_packets;
        link.ports.renew();
        if link.session.initiator {
            // The other end cannot tell how often the last message was sent.
            link.liveness.measured(rtt);
        }
        link.liveness.heard(now, 0, true);
        link.add_alias(sought);
        host.tell(Event::LinkRekeyed { link: id, keys });
        self.move_link(host, now, id, endpoint);
        self.send_frame(host, now, id, &ControlFrame::Keepalive);
    }

    /// The neighbour is somewhere else now, on the same interface.
    pub(super) fn move_link(&mut self, host: &mut Host, now: Instant, id: LinkId, to: Endpoint) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.endpoint == to || !same_place(&link.endpoint, &to) {
            return;
        }
        let before = core::mem::replace(&mut link.endpoint, to);
        link.aliases.retain(|alias| *alias != to);
        link.add_alias(before);
        let (_, iface_mtu) = host.medium(to.iface);
        link.mtu.restart(now + MTU_START, Underlay::to(&to), iface_mtu);
        host.tell(Event::LinkMoved { link: id, endpoint: to });
    }

    /// A FINISH for a session that is there: ours or the neighbour's frame was lost, so send another.
    pub(super) fn finish_again(
        &mut self,
        host: &mut Host,
        now: Instant,
        id: LinkId,
        local: grange_wire::LinkIndex,
        datagram: &[u8],
    ) {
        let waits = self.links.get(&id).is_some_and(|link| {
            link.session.local == local
                && !link.session.heard()
                && link.finish == Some(super::opening::finish_mark(datagram))
        });
        if waits {
            self.send_frame(host, now, id, &ControlFrame::Keepalive);
        }
    }

    /// A link is of no use any more: routing and the shell hear of it. The session stays, to find out when the
    /// neighbour is back.
    pub(super) fn silence(&mut self, host: &mut Host, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.liveness.kill(now);
        self.announce_down(host, now, id, DownReason::Silent);
    }

    fn announce_down(&mut self, host: &mut Host, now: Instant, id: LinkId, reason: DownReason) {
        if self.links.get(&id).is_some_and(Link::is_seal) {
            host.tell(Event::SealDown { seal: id, reason });
            return;
        }
        self.router.neighbour_down(now, id);
        self.pump(host, now);
        host.tell(Event::LinkDown { link: id, reason });
        if let Some(link) = self.links.get(&id) {
            host.statics.iter_mut().filter(|peer| link.known_at(&peer.at)).for_each(|peer| peer.lost(now));
        }
    }

    /// Forgets a link; the shell hears of it if it has not yet.
    pub(super) fn remove(&mut self, host: &mut Host, now: Instant, id: LinkId, reason: DownReason) {
        if self.links.get(&id).is_some_and(Link::is_live) {
            self.announce_down(host, now, id, reason);
        }
        let Some(link) = self.links.remove(&id) else { return };
        self.indexes.remove(&link.session.local.0);
        if let Some((previous, _)) = link.previous {
            self.indexes.remove(&previous.local.0);
        }
    }

    /// The interface is down: so is all that is on it.
    pub(super) fn close_iface(&mut self, host: &mut Host, now: Instant, iface: IfaceId) {
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.endpoint.iface == iface).map(|(id, _)| *id).collect();
        for link in links {
            self.remove(host, now, link, DownReason::Interface);
        }
        let attempts: Vec<Endpoint> = self.attempts.keys().filter(|at| at.iface == iface).copied().collect();
        for at in attempts {
            self.drop_attempt(at);
        }
    }

    /// The MTU of an interface changed.
    pub(super) fn restart_mtu(&mut self, host: &mut Host, now: Instant, iface: IfaceId, mtu: u16) {
        for link in self.links.values_mut().filter(|link| link.endpoint.iface == iface) {
            // Hundreds of seals shall not all probe at the same moment.
            let start = if link.is_seal() { now + host.random.jitter(REROUTE_PAUSE) } else { now };
            link.mtu.restart(start, Underlay::to(&link.endpoint), mtu);
        }
    }

    /// Where our kernel plane listens for a link.
    pub(super) fn set_plane_port(&mut self, now: Instant, id: LinkId, port: u16) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.kernel) {
            link.ports.set(now, port);
        }
    }

    /// Goodbye on all links.
    pub(super) fn close(&mut self, host: &mut Host, now: Instant) {
        self.router.shutdown(now);
        self.pump(host, now);
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.send_frame(host, now, id, &ControlFrame::Close);
            self.remove(host, now, id, DownReason::Shutdown);
        }
    }

    /// Does what is due for one link.
    pub(super) fn run_link(&mut self, host: &mut Host, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some((previous, until)) = &link.previous
            && now >= *until
        {
            self.indexes.remove(&previous.local.0);
            link.previous = None;
        }
        if now >= link.expires() {
            self.remove(host, now, id, DownReason::Expired);
            return;
        }
        let endpoint = link.endpoint;
        match link.liveness.handle_timeout(now) {
            Some(Step::Probe(probe)) => {
                self.send_frame(host, now, id, &ControlFrame::Probe { id: probe, padding: 0 });
            }
            Some(Step::Died) => {
                self.send_lost(host, now, id);
                if endpoint.iface == IfaceId::MESH {
                    // Whoever needs another asks for it.
                    self.announce_down(host, now, id, DownReason::Silent);
                    self.remove(host, now, id, DownReason::Silent);
                } else {
                    self.silence(host, now, id);
                    self.seek(host, now, endpoint);
                }
                return;
            }
            Some(Step::StillDead) => self.send_lost(host, now, id),
            None => {}
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.is_live() {
            return;
        }
        if link.is_seal() && now >= link.usage.timeout() {
            self.end_seal(host, now, id);
            return;
        }
        let round_trip = link.liveness.spacing();
        if let Some(port) = link.ports.take_change(now) {
            host.tell(Event::LinkPlanePort { link: id, port });
        }
        if let Some(frame) = link.ports.handle_timeout(now, round_trip) {
            self.send_frame(host, now, id, &frame);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(probe) = link.mtu.handle_timeout(now, &mut link.liveness) {
            self.send_frame(host, now, id, &ControlFrame::Probe { id: probe.id, padding: probe.padding });
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let data = link.liveness.counters().sent_packets;
        let frames = link.session.sent().max(data.saturating_sub(link.sent_before));
        if now >= link.rekey_at || frames >= REKEY_FRAMES {
            link.rekey_at = now + REKEY_AGAIN;
            self.seek(host, now, endpoint);
        }
        if self.links.get(&id).is_some_and(|link| !link.is_seal() && now >= link.last_sent + KEEPALIVE) {
            self.send_frame(host, now, id, &ControlFrame::Keepalive);
        }
    }

    fn send_lost(&mut self, host: &mut Host, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let lost = ControlFrame::Lost { id: link.liveness.take_id() };
        self.send_frame(host, now, id, &lost);
    }

    /// Seals a frame under the link's present keys and sends it.
    pub(super) fn send_frame(&mut self, host: &mut Host, now: Instant, id: LinkId, frame: &ControlFrame<'_>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(datagram) = link.session.seal(frame) {
            link.last_sent = now;
            host.send(Target::Endpoint(link.endpoint), datagram);
        }
    }
}

fn rekey_at(host: &mut Host, session: &Session) -> Instant {
    let after = if session.initiator { REKEY } else { REKEY_OTHER_END };
    session.created + after + host.random.jitter(REKEY / 10) - REKEY / 10
}
