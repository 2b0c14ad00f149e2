//! What is to be sent to one neighbour: buffered updates (RFC 8966, section 3.7), requests, and the packets that it has not
//! acknowledged yet.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use grange_wire::{Prefix, babel::SeqnoRequest};

use crate::Instant;

/// Updates that wait, at most.
const MAX_UPDATES: usize = 4096;
/// Requests that wait, at most.
const MAX_REQUESTS: usize = 64;
/// Acknowledgements that wait, at most.
const MAX_ACKS: usize = 64;
/// Packets under way that ask for an acknowledgement.
const WINDOW: usize = 32;
/// How often something is sent before nobody waits for it any more. Requests are given up then; updates are not: a
/// neighbour that missed a retraction would keep the route until it expires, for minutes.
const MAX_TRIES: u8 = 16;
/// How often a neighbour whose Hello did not come is asked whether it is there.
const MAX_PROBES: u8 = 5;

/// An update that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// Not before.
    pub(super) due: Instant,
    /// With the owner's proof.
    pub(super) proof: bool,
    /// Until it is acknowledged.
    pub(super) reliable: bool,
    /// How often it was sent in vain.
    pub(super) tries: u8,
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// For an update; `None`: for all.
    Route(Option<Prefix>),
    /// For a later seqno.
    Seqno(SeqnoRequest),
}

/// A walk over the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dump {
    /// The last prefix that was sent.
    pub(super) after: Option<Prefix>,
    /// With proofs, and until acknowledged: for a neighbour that knows nothing yet.
    pub(super) full: bool,
}

/// What a packet that asked for an acknowledgement carried.
#[derive(Clone, Debug, Default)]
pub(super) struct Unacked {
    /// Prefixes, and of which retraction that all neighbours must acknowledge.
    pub(super) updates: Vec<(Prefix, Option<u64>)>,
    pub(super) requests: Vec<Request>,
    pub(super) sent: Instant,
    pub(super) retry: Instant,
    pub(super) tries: u8,
    /// It carried nothing: only the answer counts.
    pub(super) probe: bool,
    /// It carried the retraction of everything.
    pub(super) clear: bool,
}

/// Something was dropped because a queue was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutboxFull;

/// One neighbour's outbox.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) acks: VecDeque<u16>,
    /// A Hello and an IHU are due.
    pub(super) hello: bool,
    pub(super) ihu: bool,
    /// An acknowledgement request alone, to hear whether the neighbour is there; how often it was sent in vain.
    pub(super) probe: Option<u8>,
    /// A retraction of everything is due, before a full dump; how often it was sent in vain.
    pub(super) clear: Option<u8>,
    pub(super) requests: VecDeque<(Request, u8)>,
    pub(super) dump: Option<Dump>,
    updates: BTreeMap<Prefix, Queued>,
    unacked: BTreeMap<u16, Unacked>,
    nonce: u16,
    /// After a burst: not before.
    pause: Option<Instant>,
}

impl Outbox {
    /// An outbox whose first acknowledgement request has this number.
    pub(super) fn new(nonce: u16) -> Self {
        Self { nonce, ..Self::default() }
    }

    /// Queues an acknowledgement. Beyond the bound the neighbour will ask again.
    pub(super) fn queue_ack(&mut self, opaque: u16) -> Result<(), OutboxFull> {
        if self.acks.len() >= MAX_ACKS {
            return Err(OutboxFull);
        }
        self.acks.push_back(opaque);
        Ok(())
    }

    /// Queues an update; joined with one that waits, the earlier and stronger of the two counts.
    pub(super) fn queue_update(&mut self, prefix: Prefix, new: Queued) -> Result<(), OutboxFull> {
        if let Some(old) = self.updates.get_mut(&prefix) {
            old.due = old.due.min(new.due);
            old.proof |= new.proof;
            old.reliable |= new.reliable;
            old.tries = old.tries.max(new.tries);
            return Ok(());
        }
        if self.updates.len() >= MAX_UPDATES {
            return Err(OutboxFull);
        }
        self.updates.insert(prefix, new);
        Ok(())
    }

    /// Queues a request. Too many requests for single routes become one for all.
    pub(super) fn queue_request(&mut self, request: Request, tries: u8) -> Result<(), OutboxFull> {
        let all = Request::Route(None);
        if self.requests.iter().any(|(old, _)| *old == request || (matches!(request, Request::Route(_)) && *old == all))
        {
            return Ok(());
        }
        if self.requests.len() < MAX_REQUESTS {
            self.requests.push_back((request, tries));
            return Ok(());
        }
        if matches!(request, Request::Route(_)) {
            self.requests.retain(|(old, _)| !matches!(old, Request::Route(_)));
            if self.requests.len() < MAX_REQUESTS {
                self.requests.push_back((all, tries));
                return Ok(());
            }
        }
        Err(OutboxFull)
    }

    /// Starts a walk over the table, unless one that tells as much is under way.
    pub(super) fn start_dump(&mut self, full: bool) {
        if self.dump.is_none_or(|dump| full && !dump.full) {
            self.dump = Some(Dump { after: None, full });
        }
    }

    /// Retracts everything that the neighbour may still know from us and tells it all anew. The other end of a link may
    /// never have noticed that it was down, and so keep routes that were retracted meanwhile (RFC 8966, section 4.6.9).
    pub(super) fn start_over(&mut self, tries: u8) {
        self.clear = Some(tries);
        self.dump = Some(Dump { after: None, full: true });
    }

    /// The updates that are due.
    pub(super) fn due_updates(&self, now: Instant) -> Vec<(Prefix, Queued)> {
        self.updates.iter().filter(|(_, queued)| queued.due <= now).map(|(prefix, queued)| (*prefix, *queued)).collect()
    }

    /// An update was written into a packet.
    pub(super) fn written(&mut self, prefix: &Prefix) {
        self.updates.remove(prefix);
    }

    /// Whether another packet may ask for an acknowledgement.
    pub(super) fn has_window(&self) -> bool {
        self.unacked.len() < WINDOW
    }

    /// The number for the next acknowledgement request.
    pub(super) fn next_nonce(&mut self) -> u16 {
        // At most WINDOW of 65,536 are taken.
        while self.unacked.contains_key(&self.nonce) {
            self.nonce = self.nonce.wrapping_add(1);
        }
        let nonce = self.nonce;
        self.nonce = nonce.wrapping_add(1);
        nonce
    }

    /// A packet that asks for an acknowledgement goes out.
    pub(super) fn sent(&mut self, nonce: u16, packet: Unacked) {
        self.unacked.insert(nonce, packet);
    }

    /// An acknowledgement came: what it was for.
    pub(super) fn acknowledged(&mut self, nonce: u16) -> Option<Unacked> {
        let packet = self.unacked.remove(&nonce)?;
        // It is there: no need to ask again.
        self.probe = None;
        self.unacked.retain(|_, other| !other.probe);
        Some(packet)
    }

    /// Queues again what was not acknowledged in time, and gives how many packets that were and the retractions that are
    /// given up.
    pub(super) fn expire(&mut self, now: Instant) -> (usize, Vec<(Prefix, u64)>) {
        let late: Vec<u16> =
            self.unacked.iter().filter(|(_, packet)| packet.retry <= now).map(|(nonce, _)| *nonce).collect();
        let mut given_up = Vec::new();
        let count = late.len();
        for nonce in late {
            let Some(packet) = self.unacked.remove(&nonce) else { continue };
            let tries = packet.tries.saturating_add(1).min(MAX_TRIES);
            if packet.probe && tries < MAX_PROBES {
                self.probe = Some(tries);
            }
            if packet.clear {
                self.start_over(tries);
            }
            for (prefix, hold) in packet.updates {
                // Nobody waits for it any more, but as long as the link stands the neighbour must learn of it.
                let hold = hold.filter(|id| {
                    if tries >= MAX_TRIES {
                        given_up.push((prefix, *id));
                    }
                    tries < MAX_TRIES
                });
                // The queue is larger than the window holds, so that what comes back fits; if not, the next dump says it.
                let queued = Queued { due: now, proof: true, reliable: true, tries };
                if self.queue_update(prefix, queued).is_err() {
                    given_up.extend(hold.map(|id| (prefix, id)));
                }
            }
            if tries < MAX_TRIES {
                for request in packet.requests {
                    // A request that finds no room is repeated by the table it came from.
                    let _ = self.queue_request(request, tries);
                }
            }
        }
        (count, given_up)
    }

    /// After a burst of packets the rest waits.
    pub(super) fn pause(&mut self, until: Instant) {
        self.pause = Some(until);
    }

    /// Whether updates and requests may go out now.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.has_window() && self.pause.is_none_or(|pause| pause <= now)
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let retry = self.unacked.values().map(|packet| packet.retry).min();
        if !self.acks.is_empty() || self.hello || self.ihu {
            return Some(Instant::START);
        }
        if !self.has_window() {
            return retry;
        }
        let content = if self.dump.is_some() || !self.requests.is_empty() || self.probe.is_some() {
            Some(Instant::START)
        } else {
            self.updates.values().map(|queued| queued.due).min()
        };
        let content = content.map(|at| self.pause.map_or(at, |pause| at.max(pause)));
        [retry, content].into_iter().flatten().min()
    }
}

/// How long updates of one prefix are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// A metric changed by some steps.
    Calm,
    /// A route came, went, or changed much.
    Urgent,
    /// Somebody waits for it.
    Immediate,
}

impl Urgency {
    pub(super) fn delay(self) -> Duration {
        match self {
            Self::Calm => Duration::from_secs(2),
            Self::Urgent => Duration::from_millis(5),
            Self::Immediate => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Prefix = Prefix::DEFAULT_V6;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn queued(due: u64, strong: bool) -> Queued {
        Queued { due: at(due), proof: strong, reliable: strong, tries: 0 }
    }

    #[test]
    fn joined_updates_keep_the_stronger_of_each() {
        let mut outbox = Outbox::default();
        outbox.queue_update(P, queued(5, true)).unwrap();
        outbox.queue_update(P, queued(2000, false)).unwrap();
        assert_eq!(outbox.next(), Some(at(5)));
        assert_eq!(outbox.due_updates(at(4)), []);
        assert_eq!(outbox.due_updates(at(5)), [(P, queued(5, true))]);
        outbox.written(&P);
        assert_eq!(outbox.next(), None);
    }

    #[test]
    fn what_is_not_acknowledged_comes_back_and_after_a_while_nobody_waits_for_it() {
        let mut outbox = Outbox::new(0xffff);
        for tries in 0..MAX_TRIES {
            let nonce = outbox.next_nonce();
            assert_eq!(nonce, 0xffff_u16.wrapping_add(u16::from(tries)));
            let packet = Unacked { updates: alloc::vec![(P, Some(3))], retry: at(10), tries, ..Unacked::default() };
            outbox.sent(nonce, packet);
            assert_eq!(outbox.next(), Some(at(10)));
            let (count, given_up) = outbox.expire(at(10));
            assert_eq!(count, 1);
            assert_eq!(given_up, if tries + 1 < MAX_TRIES { alloc::vec![] } else { alloc::vec![(P, 3)] });
            assert_eq!(outbox.due_updates(at(10))[0].1.tries, tries + 1);
            outbox.written(&P);
        }
    }

    #[test]
    fn an_acknowledgement_ends_it_and_opens_the_window() {
        let mut outbox = Outbox::default();
        for _ in 0..WINDOW {
            let nonce = outbox.next_nonce();
            outbox.sent(nonce, Unacked { retry: at(50), ..Unacked::default() });
        }
        outbox.start_dump(true);
        assert!(!outbox.may_send(at(1)));
        assert_eq!(outbox.next(), Some(at(50)));
        assert!(outbox.acknowledged(3).is_some() && outbox.acknowledged(3).is_none());
        assert!(outbox.may_send(at(1)));
        assert_eq!(outbox.next(), Some(Instant::START));
    }

    #[test]
    fn too_many_requests_for_routes_become_one_for_all() {
        let mut outbox = Outbox::default();
        for number in 0..=MAX_REQUESTS as u32 {
            let prefix = Prefix::host(core::net::Ipv4Addr::from(number).into());
            outbox.queue_request(Request::Route(Some(prefix)), 0).unwrap();
        }
        assert_eq!(outbox.requests, [(Request::Route(None), 0)]);
        outbox.queue_request(Request::Route(Some(P)), 0).unwrap();
        assert_eq!(outbox.requests.len(), 1);
    }

    #[test]
    fn queues_are_bounded() {
        let mut outbox = Outbox::default();
        for number in 0..MAX_UPDATES as u32 {
            let prefix = Prefix::host(core::net::Ipv4Addr::from(number).into());
            outbox.queue_update(prefix, queued(0, false)).unwrap();
        }
        assert_eq!(outbox.queue_update(P, queued(0, false)), Err(OutboxFull));
        for number in 0..MAX_ACKS as u16 {
            outbox.queue_ack(number).unwrap();
        }
        assert_eq!(outbox.queue_ack(0), Err(OutboxFull));
    }
}
