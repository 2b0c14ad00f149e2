//! Links: how they come up, get new keys, move and go down.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use grange_wire::ControlFrame;

use super::{
    host::Host,
    membership::{Membership, Owner},
};
use crate::{
    DataKeys, DownReason, Endpoint, Event, IfaceId, IfaceKind, Instant, LinkId, PeerInfo, Target,
    link::{Liveness, MtuSearch, Session, Step},
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
    pub(super) run: [u8; 8],
    /// Where the neighbour is.
    pub(super) endpoint: Endpoint,
    /// Where its beacon came from.
    pub(super) sought: Endpoint,
    pub(super) session: Session,
    pub(super) keys: DataKeys,
    /// Both ends have the kernel plane.
    pub(super) kernel: bool,
    /// Of the handshake.
    pub(super) rtt: Duration,
    /// What a FINISH that comes again is known by, if the neighbour sent it.
    pub(super) finish: Option<[u8; 16]>,
}

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
        let mut at = self.liveness.timeout().min(self.expires());
        if let Some((_, until)) = &self.previous {
            at = at.min(*until);
        }
        if self.is_live() {
            at = at.min(self.rekey_at).min(self.last_sent + KEEPALIVE).min(self.mtu.timeout());
        }
        at
    }
}

impl Membership {
    pub(super) fn live_link_at(&self, at: &Endpoint) -> Option<LinkId> {
        self.links.iter().find(|(_, link)| link.is_live() && link.known_at(at)).map(|(id, _)| *id)
    }

    /// The link between the same ends over the same interface: for static peers, at the same address.
    fn same_ends(&self, arrival: &Arrival) -> Option<LinkId> {
        let same = |link: &Link| {
            link.peer.id == arrival.peer.id
                && link.endpoint.iface == arrival.endpoint.iface
                && (arrival.endpoint.iface != IfaceId(0)
                    || link.known_at(&arrival.endpoint)
                    || link.known_at(&arrival.sought))
        };
        self.links.iter().find(|(_, link)| same(link)).map(|(id, _)| *id)
    }

    /// The link that an arrival gives new keys to: one that lives, whose other end did not start anew.
    pub(super) fn renewed_by(&self, arrival: &Arrival) -> Option<LinkId> {
        self.same_ends(arrival).filter(|id| self.links[id].is_live() && self.links[id].run == arrival.run)
    }

    /// Both ends have the keys: a new link, or new keys for the one between them.
    pub(super) fn arrive(&mut self, host: &mut Host, now: Instant, arrival: Arrival) {
        self.drop_attempt(arrival.sought);
        self.drop_attempt(arrival.endpoint);
        if let Some(link) = self.renewed_by(&arrival) {
            self.renew(host, now, link, arrival);
        } else {
            if let Some(link) = self.same_ends(&arrival) {
                self.remove(host, now, link, DownReason::Replaced);
            }
            self.bring_up(host, now, arrival);
        }
    }

    fn bring_up(&mut self, host: &mut Host, now: Instant, arrival: Arrival) {
        if self.links.len() >= LINKS_MAX {
            host.stats.full += 1;
            return;
        }
        let id = host.next_link();
        let Arrival { peer, run, endpoint, sought, session, keys, kernel, rtt, finish } = arrival;
        let (kind, iface_mtu) = host.medium(endpoint.iface);
        let mtu = MtuSearch::new(now + host.random.jitter(MTU_START), endpoint.addr.ip(), iface_mtu);
        host.tell(Event::LinkUp { link: id, peer: peer.clone(), endpoint, keys, mtu: mtu.proven(), kernel });
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
            liveness: Liveness::new(now, host.random.u32(), Some(rtt)),
            mtu,
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
        self.router.neighbour_up(now, id, peer, kind);
        self.pump(host, now);
    }

    fn renew(&mut self, host: &mut Host, now: Instant, id: LinkId, arrival: Arrival) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Arrival { peer, endpoint, sought, session, keys, rtt, finish, .. } = arrival;
        self.indexes.insert(session.local.0, Owner::Link(id));
        let before = core::mem::replace(&mut link.session, session);
        if let Some((oldest, _)) = link.previous.replace((before, now + PREVIOUS_LIFE)) {
            self.indexes.remove(&oldest.local.0);
        }
        link.peer = peer;
        link.finish = finish;
        link.rekey_at = rekey_at(host, &link.session);
        link.sent_before = link.liveness.sent_packets();
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
        if link.endpoint == to || link.endpoint.iface != to.iface {
            return;
        }
        let before = core::mem::replace(&mut link.endpoint, to);
        link.aliases.retain(|alias| *alias != to);
        link.add_alias(before);
        let (_, iface_mtu) = host.medium(to.iface);
        link.mtu.restart(now + MTU_START, to.addr.ip(), iface_mtu);
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
    pub(super) fn restart_mtu(&mut self, now: Instant, iface: IfaceId, mtu: u16) {
        for link in self.links.values_mut().filter(|link| link.endpoint.iface == iface) {
            link.mtu.restart(now, link.endpoint.addr.ip(), mtu);
        }
    }

    /// Where our kernel plane listens for a link.
    pub(super) fn set_plane_port(&mut self, host: &mut Host, now: Instant, id: LinkId, port: u16) {
        self.send_frame(host, now, id, &ControlFrame::Plane { port, heard: 0 });
    }

    /// Makes a seal.
    pub(super) fn want_seal(&mut self, host: &mut Host, now: Instant, peer: grange_wire::NodeId) {
        let addr = (grange_wire::node_address(&peer), grange_wire::SEAL_PORT).into();
        self.seek(host, now, Endpoint { iface: IfaceId::MESH, addr });
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
                self.silence(host, now, id);
                self.seek(host, now, endpoint);
                return;
            }
            Some(Step::StillDead) => self.send_lost(host, now, id),
            None => {}
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.is_live() {
            return;
        }
        if let Some(probe) = link.mtu.handle_timeout(now, &mut link.liveness) {
            self.send_frame(host, now, id, &ControlFrame::Probe { id: probe.id, padding: probe.padding });
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let frames = link.session.sent().max(link.liveness.sent_packets().saturating_sub(link.sent_before));
        if now >= link.rekey_at || frames >= REKEY_FRAMES {
            link.rekey_at = now + REKEY_AGAIN;
            self.seek(host, now, endpoint);
        }
        if self.links.get(&id).is_some_and(|link| now >= link.last_sent + KEEPALIVE) {
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
