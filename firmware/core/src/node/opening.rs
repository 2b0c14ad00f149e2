//! Handshakes on their way: those that we begin ([`Attempt`]) and those that a neighbour began ([`Responder`]).

use alloc::{boxed::Box, string::String, vec, vec::Vec};
use core::time::Duration;

use grange_wire::{BeaconFlags, Finish, Hello, Initiation, InitiationPayload, LinkIndex, NAME_MAX, Response};

use super::{
    host::Host,
    links::{Arrival, same_place},
    membership::{Membership, Owner},
    seals::{InvitationKey, WANTED, place_of},
};
use crate::{
    DataKeys, Endpoint, Event, IfaceId, Instant, PeerInfo, Target, certificate,
    link::{Established, Handshake, Phase, Session, Verdict},
    offer::Agreement,
};

/// Handshakes that we began and that are not done, of links and as many of seals; each costs about a kilobyte.
const ATTEMPTS_MAX: usize = 64;

/// Handshakes that neighbours began and that are not done, and as many of nodes that want a seal.
const RESPONDERS_MAX: usize = 64;

/// An initiation of ours that was sent so long ago got lost: a neighbour's goes on.
const SIMULTANEOUS: Duration = Duration::from_millis(200);

/// How long a neighbour has for its last message.
const RESPONDER_LIFE: Duration = Duration::from_secs(5);

/// First and longest pause before a message is sent again.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(4);

/// Longest pause of a handshake over the mesh, where somebody's packets wait, at the first tries: every hop may lose.
const SEAL_RETRY_EARLY: Duration = Duration::from_millis(500);
const SEAL_TRIES_EARLY: u8 = 8;

/// The same later: with nothing to send but a SOLICIT, and with an initiation beside it.
const SOLICIT_RETRY_MAX: Duration = Duration::from_secs(1);
const SEAL_RETRY_MAX: Duration = Duration::from_secs(2);

/// Tries before an attempt at a known neighbour is given up.
const TRIES: u8 = 7;

/// The same at whoever a beacon came from, for the next beacon begins another: an old beacon in another's name makes us
/// send him no more than these.
const STRANGER_TRIES: u8 = 4;

/// The last message comes again at most this far apart, so that the neighbour is not kept waiting.
const FINISH_RETRY_MAX: Duration = Duration::from_secs(1);

/// Tries of the last message.
const FINISH_TRIES: u8 = 10;

/// Who asks for our beacon will begin the handshake: we wait so long before we do.
const YIELD: Duration = Duration::from_millis(300);

/// Answers that do not decrypt before an attempt takes no more: each costs Diffie-Hellman work.
const FORGERIES_MAX: u8 = 16;

/// How often a COOKIE beacon may begin an attempt's handshake anew.
const COOKIES_MAX: u8 = 3;

/// A handshake that we begin with whoever is at an endpoint.
pub(super) struct Attempt {
    nonce: Option<[u8; 16]>,
    /// The nonce came in answer to what we asked.
    proved: bool,
    /// When it is given up.
    limit: u8,
    /// A seal is looked for until then instead, and longer if somebody still wants it.
    wanted: Option<Instant>,
    tries: u8,
    cookies: u8,
    /// When to act next.
    next: Instant,
    /// No beacon makes it act earlier than this.
    not_before: Instant,
    stage: Stage,
}

enum Stage {
    /// We asked for a beacon, or let the neighbour begin.
    Waiting,
    /// Message 1 is sent.
    Initiated { handshake: Box<Handshake>, ephemeral: [u8; 32], local: LinkIndex, sent: Instant, forgeries: u8 },
    /// Message 3 is sent; whether it came shows in the neighbour's first frame.
    Finishing { datagram: Vec<u8>, arrival: Box<Arrival> },
}

impl Attempt {
    fn new(nonce: Option<[u8; 16]>, limit: u8, next: Instant, stage: Stage) -> Self {
        let not_before = Instant::START;
        Self { nonce, proved: false, limit, wanted: None, tries: 0, cookies: 0, next, not_before, stage }
    }

    /// The pause behind the next try.
    fn pause(&self) -> Duration {
        let longest = match (&self.stage, self.wanted) {
            (Stage::Finishing { .. }, _) => FINISH_RETRY_MAX,
            (_, Some(_)) if self.tries <= SEAL_TRIES_EARLY => SEAL_RETRY_EARLY,
            (Stage::Waiting, Some(_)) => SOLICIT_RETRY_MAX,
            (Stage::Initiated { .. }, Some(_)) => SEAL_RETRY_MAX,
            (_, None) => RETRY_MAX,
        };
        (RETRY_MIN * (1 << (self.tries - 1).min(8))).min(longest)
    }

    pub(super) fn timeout(&self) -> Instant {
        self.next
    }

    /// The index that frames of this attempt's session carry.
    fn local(&self) -> Option<LinkIndex> {
        match &self.stage {
            Stage::Waiting => None,
            Stage::Initiated { local, .. } => Some(*local),
            Stage::Finishing { arrival, .. } => Some(arrival.session.local),
        }
    }

    /// The session that waits for the neighbour's first frame.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Finishing { arrival, .. } => Some(&mut arrival.session),
            _ => None,
        }
    }
}

/// A handshake that a neighbour began: message 2 is sent.
pub(super) struct Responder {
    from: Endpoint,
    handshake: Handshake,
    remote: LinkIndex,
    sent: Instant,
    forgeries: u8,
}

impl Responder {
    pub(super) fn timeout(&self) -> Instant {
        self.sent + RESPONDER_LIFE
    }
}

/// Who the other end of a handshake is, as its HELLO proves or says.
struct Identified {
    peer: PeerInfo,
    /// What it came into the town by; `None`: the steward signed for it.
    invitation: Option<InvitationKey>,
    run: [u8; 8],
    /// What both ends agree on.
    agreed: Agreement,
    /// It has no session that the handshake renews.
    anew: bool,
}

/// The sixteen bytes by which a FINISH that comes again is known.
pub(super) fn finish_mark(datagram: &[u8]) -> [u8; 16] {
    let mut mark = [0; 16];
    mark.copy_from_slice(&blake3::hash(datagram).as_bytes()[..16]);
    mark
}

impl Membership {
    /// Asks whoever is at `to` for a beacon and begins a handshake when it comes.
    pub(super) fn seek(&mut self, host: &mut Host, now: Instant, to: Endpoint) {
        self.seek_at(host, now, to, now);
    }

    /// The same, beginning at `start`.
    pub(super) fn seek_at(&mut self, host: &mut Host, now: Instant, to: Endpoint, start: Instant) {
        if self.attempts.contains_key(&to) {
            return;
        }
        let wanted = (to.iface == IfaceId::MESH).then_some(now + WANTED);
        self.add_attempt(host, to, Attempt { wanted, ..Attempt::new(None, TRIES, start, Stage::Waiting) });
        self.run_attempt(host, now, to);
    }

    /// Whoever is looked for at `to` is still wanted; `false`: nobody is looked for there.
    pub(super) fn want_attempt(&mut self, now: Instant, to: Endpoint) -> bool {
        let Some(attempt) = self.attempts.get_mut(&to) else { return false };
        if let Some(wanted) = &mut attempt.wanted {
            *wanted = now + WANTED;
        }
        true
    }

    /// A stranger's beacon showed this nonce. `yields`: it asked for ours and will begin.
    pub(super) fn approach(&mut self, host: &mut Host, now: Instant, to: Endpoint, nonce: [u8; 16], yields: bool) {
        let next = if yields { now + host.random.jitter(YIELD) } else { now };
        self.add_attempt(host, to, Attempt::new(Some(nonce), STRANGER_TRIES, next, Stage::Waiting));
        self.run_attempt(host, now, to);
    }

    /// A beacon came from where an attempt leads; `false`: there is none.
    pub(super) fn feed_attempt(
        &mut self,
        host: &mut Host,
        now: Instant,
        at: Endpoint,
        nonce: [u8; 16],
        flags: BeaconFlags,
        proved: bool,
    ) -> bool {
        let lower = self.beacons_at(&at).is_lower(&nonce);
        let Some(attempt) = self.attempts.get_mut(&at) else { return false };
        let restart = matches!(attempt.stage, Stage::Initiated { .. }) && flags.cookie && attempt.cookies < COOKIES_MAX;
        // A beacon that may be of long ago takes no fresh nonce's place.
        if attempt.proved && !proved && !restart {
            return true;
        }
        attempt.proved = proved;
        let fresh = attempt.nonce.replace(nonce) != Some(nonce);
        match attempt.stage {
            Stage::Waiting if fresh && attempt.tries > 0 => attempt.next = now.max(attempt.not_before),
            // Both asked and both answer: who shows the lower nonce begins.
            Stage::Waiting if attempt.tries == 0 && !flags.solicit && lower => attempt.next = now,
            Stage::Initiated { .. } if fresh && restart => {
                attempt.cookies += 1;
                attempt.next = now;
            }
            _ => {}
        }
        self.run_attempt(host, now, at);
        true
    }

    fn add_attempt(&mut self, host: &mut Host, to: Endpoint, attempt: Attempt) {
        // What leads to seals takes no room from what leads to neighbours.
        let seal = to.iface == IfaceId::MESH;
        let alike = self.attempts.iter().filter(|(at, _)| (at.iface == IfaceId::MESH) == seal);
        if alike.clone().count() >= ATTEMPTS_MAX {
            // Who was tried most often without an answer is the least likely to give one.
            host.stats.full += 1;
            if let Some(worst) = alike.max_by_key(|(_, attempt)| attempt.tries).map(|(at, _)| *at) {
                self.drop_attempt(worst);
            }
        }
        self.attempts.insert(to, attempt);
    }

    /// Forgets an attempt and its index.
    pub(super) fn drop_attempt(&mut self, at: Endpoint) -> Option<Attempt> {
        let attempt = self.attempts.remove(&at)?;
        if let Some(local) = attempt.local() {
            self.indexes.remove(&local.0);
        }
        Some(attempt)
    }

    /// Does what is due for one attempt.
    pub(super) fn run_attempt(&mut self, host: &mut Host, now: Instant, to: Endpoint) {
        let Some(attempt) = self.attempts.get_mut(&to) else { return };
        if now < attempt.next {
            return;
        }
        attempt.tries = attempt.tries.saturating_add(1);
        if attempt.wanted.map_or(attempt.tries > attempt.limit, |until| now >= until) {
            self.drop_attempt(to);
            return;
        }
        attempt.next = now + host.random.jitter(attempt.pause());
        if let Stage::Finishing { datagram, .. } = &attempt.stage {
            let datagram = datagram.clone();
            host.send(Target::Endpoint(to), datagram);
            return;
        }
        let (nonce, again) = (attempt.nonce, matches!(attempt.stage, Stage::Initiated { .. }));
        if let Some(nonce) = nonce {
            self.initiate(host, now, to, &nonce);
        }
        // Without an answer, the nonce may be out of date: ask for another beside.
        if nonce.is_none() || again {
            self.solicit(host, to);
        }
    }

    fn initiate(&mut self, host: &mut Host, now: Instant, to: Endpoint, nonce: &[u8; 16]) {
        let local = self.draw_index(host);
        let payload = InitiationPayload { nonce: *nonce, sender: local };
        let Ok(mut handshake) = self.noise.initiate(&mut host.random) else { return };
        let Ok(datagram) = handshake.write(&Initiation::HEAD, &payload.to_bytes()) else { return };
        let Ok(ephemeral) = Initiation::parse(&datagram).map(|initiation| initiation.ephemeral()) else { return };
        let Some(attempt) = self.attempts.get_mut(&to) else { return };
        if let Some(old) = attempt.local() {
            self.indexes.remove(&old.0);
        }
        attempt.stage = Stage::Initiated { handshake: Box::new(handshake), ephemeral, local, sent: now, forgeries: 0 };
        self.indexes.insert(local.0, Owner::Attempt(to));
        host.send(Target::Endpoint(to), datagram);
    }

    /// An index that no session of ours has.
    fn draw_index(&self, host: &mut Host) -> LinkIndex {
        loop {
            let index = host.random.u32();
            if index != 0 && !self.indexes.contains_key(&index) {
                return LinkIndex(index);
            }
        }
    }

    /// Message 1 of a neighbour. Whatever is wrong with it, the answer is silence.
    pub(super) fn handle_initiation(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok(initiation) = Initiation::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        let beacons = self.beacons_at(&from);
        beacons.count_initiation(now);
        let theirs = initiation.ephemeral();
        if beacons.was_seen(&theirs) {
            host.stats.replayed_initiation += 1;
            return;
        }
        let own =
            |attempt: &Attempt| matches!(&attempt.stage, Stage::Initiated { ephemeral, .. } if *ephemeral == theirs);
        if self.attempts.values().any(own) {
            host.stats.own += 1;
            return;
        }
        let read = self.noise.respond(&mut host.random).and_then(|mut handshake| {
            let payload = handshake.read(initiation.noise())?;
            Ok((handshake, payload))
        });
        let Ok((handshake, payload)) = read else {
            host.stats.handshake += 1;
            return;
        };
        let Ok(InitiationPayload { nonce, sender }) = InitiationPayload::parse(&payload) else {
            host.stats.malformed += 1;
            return;
        };
        match self.beacons_at(&from).judge(now, &nonce, &theirs, &from) {
            Verdict::Answer => self.respond(host, now, from, (theirs, sender), handshake),
            Verdict::Cookie(cookie) => {
                let beacon = self.beacons_at(&from).cookie_beacon(&cookie);
                host.send(Target::Endpoint(from), beacon.to_vec());
            }
            Verdict::Stale => host.stats.stale_nonce += 1,
            Verdict::Limited => host.stats.limited += 1,
        }
    }

    fn respond(
        &mut self,
        host: &mut Host,
        now: Instant,
        from: Endpoint,
        (theirs, remote): ([u8; 32], LinkIndex),
        mut handshake: Handshake,
    ) {
        if let Some(attempt) = self.attempts.get_mut(&from)
            && let Stage::Initiated { ephemeral, local, sent, .. } = &attempt.stage
        {
            // Both began at once: the lower ephemeral key goes on. Ours may also have been lost, so it is not given up
            // for good, and only for a while is it a reason not to answer.
            if *ephemeral < theirs && now.since(*sent) < SIMULTANEOUS {
                return;
            }
            self.indexes.remove(&local.0);
            (attempt.stage, attempt.next) = (Stage::Waiting, now + host.random.jitter(RETRY_MIN * 2));
        }
        // An initiator that begins anew has forgotten what it began before.
        let before = self.responders.iter().find(|(_, responder)| responder.from == from).map(|(local, _)| *local);
        let seal = from.iface == IfaceId::MESH;
        let alike = self.responders.iter().filter(|(_, responder)| (responder.from.iface == IfaceId::MESH) == seal);
        let crowded = alike.clone().count() >= RESPONDERS_MAX;
        let oldest = || alike.min_by_key(|(_, responder)| responder.sent).map(|(local, _)| *local);
        if let Some(local) = before.or_else(|| if crowded { oldest() } else { None }) {
            self.drop_responder(local);
        }
        let local = self.draw_index(host);
        let payload = [&local.0.to_be_bytes()[..], &self.hello(host, false)].concat();
        let Ok(datagram) = handshake.write(&Response::head(remote), &payload) else {
            host.stats.handshake += 1;
            return;
        };
        self.indexes.insert(local.0, Owner::Responder);
        self.responders.insert(local.0, Responder { from, handshake, remote, sent: now, forgeries: 0 });
        host.send(Target::Endpoint(from), datagram);
    }

    pub(super) fn drop_responder(&mut self, local: u32) {
        self.responders.remove(&local);
        self.indexes.remove(&local);
    }

    /// What we say of ourselves. `anew`: the handshake renews nothing.
    fn hello(&self, host: &Host, anew: bool) -> Vec<u8> {
        let hello = Hello {
            planes: host.offer.planes() | if anew { Hello::ANEW } else { 0 },
            ciphers: host.offer.ciphers(),
            run: self.run,
            name: &host.name,
            certificate: &self.town.certificate,
        };
        let mut out = vec![0; hello.encoded_len()];
        // A certificate too long to send makes an empty hello, which nobody takes.
        let len = hello.write(&mut out).unwrap_or(0);
        out.truncate(len);
        out
    }

    /// Message 2, the answer to ours.
    pub(super) fn handle_response(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok(response) = Response::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        let Some(&Owner::Attempt(to)) = self.indexes.get(&response.receiver().0) else {
            host.stats.unknown_index += 1;
            return;
        };
        let Some(Attempt { stage: Stage::Initiated { handshake, forgeries, .. }, .. }) = self.attempts.get_mut(&to)
        else {
            host.stats.unknown_index += 1;
            return;
        };
        if !same_place(&from, &to) || *forgeries >= FORGERIES_MAX {
            host.stats.handshake += 1;
            return;
        }
        let Ok(payload) = handshake.read(response.noise()) else {
            *forgeries += 1;
            host.stats.handshake += 1;
            return;
        };
        let Ok((remote, theirs)) = Response::split_payload(&payload) else {
            host.stats.malformed += 1;
            return;
        };
        let Some(Attempt { stage: Stage::Initiated { mut handshake, sent, local, .. }, tries, wanted, .. }) =
            self.drop_attempt(to)
        else {
            return;
        };
        let Some(Identified { peer, invitation, run, agreed, .. }) = self.identify(host, &handshake, theirs, &from)
        else {
            // Whoever stands between us and whom we look for shall not keep us busy.
            if wanted.is_some() {
                let next = now + host.random.jitter(SOLICIT_RETRY_MAX);
                let attempt = Attempt::new(None, TRIES, next, Stage::Waiting);
                let attempt = Attempt { tries, wanted, not_before: next, ..attempt };
                self.attempts.insert(to, attempt);
            }
            return;
        };
        let renewed = self.renewable(&peer.id, run, [&from, &to]);
        let anew = renewed.is_none();
        let Ok(finish) = handshake.write(&Finish::head(remote), &self.hello(host, anew)) else { return };
        let Some((session, keys)) = establish(*handshake, now, (local, remote), agreed, true) else { return };
        if let Some(link) = renewed {
            host.tell(Event::LinkKeysOffered { link, keys: keys.clone() });
        }
        let (kernel, rtt) = (agreed.kernel, now.since(sent));
        let arrival = Arrival {
            peer,
            invitation,
            run,
            endpoint: from,
            sought: to,
            session,
            keys,
            kernel,
            anew,
            rtt,
            finish: None,
        };
        let stage = Stage::Finishing { datagram: finish, arrival: Box::new(arrival) };
        self.indexes.insert(local.0, Owner::Attempt(to));
        self.attempts.insert(to, Attempt::new(None, FINISH_TRIES, now, stage));
        self.run_attempt(host, now, to);
    }

    /// The neighbour's first frame shows that it has the session: the link is there.
    pub(super) fn confirm(&mut self, host: &mut Host, now: Instant, to: Endpoint) {
        if let Some(Attempt { stage: Stage::Finishing { arrival, .. }, .. }) = self.drop_attempt(to) {
            // The neighbour gave up what it began at the same time; its last message may still be on the way.
            let crossed: Vec<u32> =
                self.responders.iter().filter(|(_, other)| other.from == to).map(|(local, _)| *local).collect();
            crossed.into_iter().for_each(|local| self.drop_responder(local));
            self.arrive(host, now, *arrival);
        }
    }

    /// Message 3, the last of a handshake that a neighbour began.
    pub(super) fn handle_finish(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok(finish) = Finish::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        let local = finish.receiver();
        if let Some(&Owner::Link(link)) = self.indexes.get(&local.0) {
            self.finish_again(host, now, link, local, datagram);
            return;
        }
        let Some(responder) = self.responders.get_mut(&local.0) else {
            host.stats.unknown_index += 1;
            return;
        };
        if !same_place(&from, &responder.from) || responder.forgeries >= FORGERIES_MAX {
            host.stats.handshake += 1;
            return;
        }
        let Ok(payload) = responder.handshake.read(finish.noise()) else {
            responder.forgeries += 1;
            host.stats.handshake += 1;
            if self.noise.take_back(&mut responder.handshake).is_err() {
                self.drop_responder(local.0);
            }
            return;
        };
        let Some(Responder { from: sought, handshake, remote, sent, .. }) = self.responders.remove(&local.0) else {
            return;
        };
        self.indexes.remove(&local.0);
        let Some(Identified { peer, invitation, run, agreed, anew }) = self.identify(host, &handshake, &payload, &from)
        else {
            return;
        };
        // Two handshakes crossed so late that each is done at one end: both ends keep the one that the lower id began.
        let crossed = self.attempts.get(&sought).is_some_and(|attempt| match &attempt.stage {
            Stage::Finishing { arrival, .. } => arrival.peer.id == peer.id && arrival.run == run,
            _ => false,
        });
        if crossed && host.identity.id() < peer.id {
            return;
        }
        let Some((session, keys)) = establish(handshake, now, (local, remote), agreed, false) else { return };
        let (rtt, finish, kernel) = (now.since(sent), Some(finish_mark(datagram)), agreed.kernel);
        let arrival =
            Arrival { peer, invitation, run, endpoint: from, sought, session, keys, kernel, anew, rtt, finish };
        self.arrive(host, now, arrival);
    }

    /// Who the other end of a handshake is, if it may be at `at`.
    fn identify(&self, host: &mut Host, handshake: &Handshake, payload: &[u8], at: &Endpoint) -> Option<Identified> {
        let hello = Hello::parse(payload).ok();
        let verified = hello.and_then(|hello| {
            let agreed = host.offer.agree(&hello)?;
            let verified = certificate::verify(hello.certificate, &self.town.id, &handshake.remote_static()?).ok()?;
            Some((hello, verified.id, verified.grant.map(|grant| grant.key), agreed))
        });
        let Some((hello, id, invitation, agreed)) = verified else {
            host.stats.certificate += 1;
            return None;
        };
        if id == host.identity.id() {
            host.stats.own += 1;
            return None;
        }
        // A good certificate is not enough in the mesh: every node on the way has one.
        if at.iface == IfaceId::MESH && place_of(&id) != *at {
            host.stats.impostor += 1;
            return None;
        }
        debug_assert!(hello.name.len() <= NAME_MAX);
        let peer = PeerInfo { id, name: String::from(hello.name) };
        let anew = hello.planes & Hello::ANEW != 0;
        Some(Identified { peer, invitation, run: hello.run, agreed, anew })
    }
}

fn establish(
    handshake: Handshake,
    now: Instant,
    (local, remote): (LinkIndex, LinkIndex),
    agreed: Agreement,
    initiator: bool,
) -> Option<(Session, DataKeys)> {
    debug_assert_eq!(handshake.phase(), Phase::Finished);
    let Established { transport, keys } = handshake.establish((local, remote), agreed).ok()?;
    Some((Session::new(transport, (local, remote), now, initiator), keys))
}
