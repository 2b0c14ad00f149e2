//! Seqno requests that wait for their answer (RFC 8966, sections 3.2.7 and 3.8.2).

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use grange_wire::{Prefix, RouterId, babel::Seqno};

use crate::{Instant, LinkId};

/// Entries at most.
const MAX_REQUESTS: usize = 256;
/// Neighbours that wait for one answer.
const MAX_REQUESTERS: usize = 16;
/// Pauses between repetitions grow up to this many doublings: 16 seconds.
const MAX_DOUBLINGS: u8 = 5;
/// A request that only a better route needs is given up when it was sent so often.
const MAX_TRIES: u8 = 6;
/// Until the first repetition of our own request; doubles with each.
const RESEND: Duration = Duration::from_millis(500);
/// A forwarded request that is heard again within this time was already forwarded: shorter than [`RESEND`], so that
/// a repetition is not taken for an echo.
const ECHO: Duration = Duration::from_millis(400);
/// A forwarded request waits so long for its answer.
const FORWARDED: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Pending {
    seqno: Seqno,
    /// Neighbours that asked us.
    requesters: Vec<LinkId>,
    /// We ask for ourselves: when to repeat, and how often it was sent.
    own: Option<(Instant, u8)>,
    /// Neighbours that could answer us when we last asked.
    asked: Vec<LinkId>,
    forwarded: Instant,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestsFull;

/// Requests by prefix and router-id.
#[derive(Debug, Default)]
pub(super) struct RequestTable {
    pending: BTreeMap<(Prefix, RouterId), Pending>,
}

impl RequestTable {
    /// We need `seqno` ourselves, and these neighbours have routes that it would make usable. Gives whether the request
    /// is to be sent now: not if one for it is under way to all of them. A neighbour that was not asked yet, on a link
    /// that just came up, may be the only one whose way to the originator is whole.
    ///
    /// # Errors
    ///
    /// [`RequestsFull`].
    pub(super) fn ask(
        &mut self,
        now: Instant,
        prefix: Prefix,
        router_id: RouterId,
        seqno: Seqno,
        links: &[LinkId],
    ) -> Result<bool, RequestsFull> {
        let pending = self.entry(now, prefix, router_id, seqno)?;
        let all_asked = links.iter().all(|link| pending.asked.contains(link));
        if pending.own.is_some() && !pending.seqno.is_before(seqno) && all_asked {
            return Ok(false);
        }
        pending.asked = links.to_vec();
        if pending.seqno.is_before(seqno) {
            pending.seqno = seqno;
        }
        pending.own = Some((now + RESEND, 1));
        Ok(true)
    }

    /// `from` needs `seqno`. Gives whether the request is to be forwarded: not if the same was forwarded just now.
    ///
    /// # Errors
    ///
    /// [`RequestsFull`].
    pub(super) fn forward(
        &mut self,
        now: Instant,
        prefix: Prefix,
        router_id: RouterId,
        seqno: Seqno,
        from: LinkId,
    ) -> Result<bool, RequestsFull> {
        let fresh = !self.pending.contains_key(&(prefix, router_id));
        let pending = self.entry(now, prefix, router_id, seqno)?;
        if !pending.requesters.contains(&from) && pending.requesters.len() < MAX_REQUESTERS {
            pending.requesters.push(from);
        }
        let echo = !fresh && now.since(pending.forwarded) < ECHO && !pending.seqno.is_before(seqno);
        if pending.seqno.is_before(seqno) {
            pending.seqno = seqno;
        }
        if !echo {
            pending.forwarded = now;
        }
        Ok(!echo)
    }

    /// A route to `prefix` was selected: gives the neighbours that waited for one of this originator and number, or of another
    /// originator, and forgets those requests.
    pub(super) fn satisfied(&mut self, prefix: &Prefix, router_id: RouterId, seqno: Seqno) -> Vec<LinkId> {
        let mut waiting = Vec::new();
        let range = (*prefix, RouterId([0; 8]))..=(*prefix, RouterId([0xff; 8]));
        let done: Vec<_> = self
            .pending
            .range(range)
            .filter(|((_, asked), pending)| *asked != router_id || !seqno.is_before(pending.seqno))
            .map(|(key, _)| *key)
            .collect();
        for key in done {
            waiting.extend(self.pending.remove(&key).into_iter().flat_map(|pending| pending.requesters));
        }
        waiting.sort_unstable();
        waiting.dedup();
        waiting
    }

    /// Requests of our own that are to be sent again now, with whether they were sent so often that only who has no
    /// route at all goes on; what was forwarded too long ago is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Prefix, RouterId, Seqno, bool)> {
        let mut due = Vec::new();
        self.pending.retain(|(prefix, router_id), pending| {
            if let Some((at, tries)) = &mut pending.own
                && *at <= now
            {
                due.push((*prefix, *router_id, pending.seqno, *tries >= MAX_TRIES));
                *at = now + RESEND * (1 << (*tries).min(MAX_DOUBLINGS));
                *tries = tries.saturating_add(1);
            }
            pending.own.is_some() || (!pending.requesters.is_empty() && now.since(pending.forwarded) < FORWARDED)
        });
        due
    }

    /// We ask no more: nobody could answer, or a usable route is there.
    pub(super) fn give_up(&mut self, prefix: Prefix, router_id: RouterId) {
        if let Some(pending) = self.pending.get_mut(&(prefix, router_id)) {
            pending.own = None;
            if pending.requesters.is_empty() {
                self.pending.remove(&(prefix, router_id));
            }
        }
    }

    /// When [`due`](Self::due) is to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.own.map_or(pending.forwarded + FORWARDED, |(at, _)| at)).min()
    }

    /// A link went down.
    pub(super) fn forget(&mut self, link: LinkId) {
        for pending in self.pending.values_mut() {
            pending.requesters.retain(|requester| *requester != link);
            pending.asked.retain(|asked| *asked != link);
        }
    }

    fn entry(
        &mut self,
        now: Instant,
        prefix: Prefix,
        router_id: RouterId,
        seqno: Seqno,
    ) -> Result<&mut Pending, RequestsFull> {
        let full = self.pending.len() >= MAX_REQUESTS;
        match self.pending.entry((prefix, router_id)) {
            alloc::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            alloc::collections::btree_map::Entry::Vacant(_) if full => Err(RequestsFull),
            alloc::collections::btree_map::Entry::Vacant(entry) => Ok(entry.insert(Pending {
                seqno,
                requesters: Vec::new(),
                own: None,
                asked: Vec::new(),
                forwarded: now,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Prefix = Prefix::DEFAULT_V6;
    const R: RouterId = RouterId([1; 8]);

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn our_own_request_is_repeated_with_longer_pauses_until_given_up() {
        let mut table = RequestTable::default();
        assert_eq!(table.ask(at(0), P, R, Seqno(5), &[]), Ok(true));
        assert_eq!(table.ask(at(1), P, R, Seqno(5), &[]), Ok(false));
        assert_eq!(table.ask(at(1), P, R, Seqno(6), &[]), Ok(true));
        let mut sent = Vec::new();
        for _ in 0..8 {
            let next = table.next().unwrap();
            let due = table.due(next);
            assert_eq!(due.len(), 1);
            sent.push((next.as_micros() / 1000, due[0].3));
        }
        assert_eq!(sent[..5], [501, 1501, 3501, 7501, 15501].map(|at| (at, false)));
        assert_eq!(sent[5..], [31501, 47501, 63501].map(|at| (at, true)));
        table.give_up(P, R);
        assert_eq!(table.next(), None);
    }

    #[test]
    fn a_neighbour_that_was_not_asked_is_asked_at_once() {
        let mut table = RequestTable::default();
        assert_eq!(table.ask(at(0), P, R, Seqno(5), &[LinkId(1)]), Ok(true));
        assert_eq!(table.ask(at(1), P, R, Seqno(5), &[LinkId(1), LinkId(2)]), Ok(true));
        assert_eq!(table.ask(at(2), P, R, Seqno(5), &[LinkId(2)]), Ok(false));
        table.forget(LinkId(2));
        assert_eq!(table.ask(at(3), P, R, Seqno(5), &[LinkId(2)]), Ok(true));
    }

    #[test]
    fn an_echo_is_not_forwarded_but_a_repetition_is() {
        let mut table = RequestTable::default();
        assert_eq!(table.forward(at(0), P, R, Seqno(5), LinkId(1)), Ok(true));
        assert_eq!(table.forward(at(100), P, R, Seqno(5), LinkId(2)), Ok(false));
        assert_eq!(table.forward(at(100), P, R, Seqno(6), LinkId(2)), Ok(true));
        assert_eq!(table.forward(at(600), P, R, Seqno(6), LinkId(1)), Ok(true));
        assert_eq!(table.satisfied(&P, R, Seqno(5)), []);
        assert_eq!(table.satisfied(&P, R, Seqno(6)), [LinkId(1), LinkId(2)]);
        assert_eq!(table.next(), None);
    }

    #[test]
    fn a_route_of_another_originator_is_an_answer() {
        let mut table = RequestTable::default();
        table.forward(at(0), P, R, Seqno(5), LinkId(1)).unwrap();
        assert_eq!(table.satisfied(&Prefix::DEFAULT_V4, RouterId([2; 8]), Seqno(0)), []);
        assert_eq!(table.satisfied(&P, RouterId([2; 8]), Seqno(0)), [LinkId(1)]);
    }

    #[test]
    fn forwarded_requests_end_by_time_and_by_their_links() {
        let mut table = RequestTable::default();
        table.forward(at(0), P, R, Seqno(5), LinkId(1)).unwrap();
        table.forward(at(0), P, RouterId([2; 8]), Seqno(5), LinkId(2)).unwrap();
        table.forget(LinkId(1));
        table.due(at(1));
        assert_eq!(table.pending.len(), 1);
        table.due(at(10_000));
        assert!(table.pending.is_empty());
    }

    #[test]
    fn a_full_table_takes_nothing_new() {
        let mut table = RequestTable::default();
        for number in 1..=MAX_REQUESTS as u64 {
            table.ask(at(0), P, RouterId(number.to_be_bytes()), Seqno(1), &[]).unwrap();
        }
        assert_eq!(table.ask(at(0), P, RouterId([9; 8]), Seqno(1), &[]), Err(RequestsFull));
        assert_eq!(table.forward(at(0), P, RouterId([9; 8]), Seqno(1), LinkId(1)), Err(RequestsFull));
        assert_eq!(table.ask(at(0), P, RouterId(1_u64.to_be_bytes()), Seqno(2), &[]), Ok(true));
    }
}
