//! Asking for what is missing, and taking what comes.

use std::time::Duration;

use grange_core::Instant;
use grange_wire::NodeId;

use super::{
    ANSWER_MAX, ASK_LAST, ASK_TIMEOUT, LogSync, SyncEvent,
    message::WANTS_MAX,
    neighbour::{Answer, Asked, Neighbour},
};
use crate::{
    entry::{Author, Entry, EntryRef, LogId},
    log::{Accepted, Archive, Logs, Refused},
    store::StoreError,
    vector::Known,
};

/// How long a neighbour is not asked after the third request in a row that he did not answer; twice as long after each other,
/// up to 16 s.
const REST: Duration = Duration::from_millis(500);

/// How soon the next neighbour is asked for a pinned history.
const PINNED_FIRST: Duration = Duration::from_millis(500);

impl LogSync {
    /// Asks each neighbour that is not busy for what he has and this node has not.
    pub(super) fn ask<A: Archive>(&mut self, now: Instant, logs: &Logs<A>) {
        for (peer, neighbour) in &mut self.neighbours {
            if neighbour.asked.is_some() || now < neighbour.rest_until || neighbour.targets.is_empty() {
                continue;
            }
            let asked_of = &mut self.asked_of;
            let mut wanted = Vec::new();
            neighbour.targets.retain(|log, target| {
                let missing = logs.missing(&target.known);
                let Some(_) = target.after.or(missing.after) else { return false };
                if wanted.len() < WANTS_MAX && asked_of.get(log).is_none_or(|asked| asked == peer) {
                    wanted.push(*log);
                }
                true
            });
            if wanted.is_empty() {
                continue;
            }
            asked_of.extend(wanted.iter().map(|log| (*log, *peer)));
            neighbour.asked = Some(Asked {
                logs: wanted,
                until: now + ASK_TIMEOUT * (1 + neighbour.unanswered.min(4)),
                last: now + ASK_LAST,
                progress: false,
            });
            neighbour.request = true;
        }
    }

    /// What a request asks for, now that it is sent.
    pub(super) fn wants<A: Archive>(neighbour: &Neighbour, logs: &Logs<A>) -> Vec<(LogId, u64)> {
        let Some(asked) = &neighbour.asked else { return Vec::new() };
        let after = |log: &LogId| {
            let target = neighbour.targets.get(log)?;
            Some((*log, target.after.or(logs.missing(&target.known).after)?))
        };
        asked.logs.iter().filter_map(after).collect()
    }

    /// Gives up requests that nothing came of.
    pub(super) fn expire(&mut self, now: Instant) {
        for (peer, neighbour) in &mut self.neighbours {
            if neighbour.asked.as_ref().is_some_and(|asked| asked.until <= now) {
                neighbour.asked = None;
                neighbour.request = false;
                neighbour.counters.timeouts += 1;
                if neighbour.unanswered > 1 {
                    neighbour.rest_until = now + REST * (1 << (neighbour.unanswered - 2).min(5));
                }
                neighbour.unanswered = neighbour.unanswered.saturating_add(1);
                self.asked_of.retain(|_, asked| asked != peer);
                tracing::debug!(%peer, "no answer to a request for entries");
            }
        }
    }

    /// Asks the next neighbour for histories that are pinned and not here.
    pub(super) fn ask_for_pinned<A: Archive>(&mut self, now: Instant, logs: &Logs<A>) {
        if logs.lacking().next().is_none() || self.neighbours.is_empty() {
            self.next_pinned = None;
            return;
        }
        if self.next_pinned.is_some_and(|next| now < next) {
            return;
        }
        let count = u32::try_from(self.neighbours.len()).unwrap_or(u32::MAX);
        let turn = usize::try_from(self.pinned_tries % count).unwrap_or_default();
        if let Some(neighbour) = self.neighbours.values_mut().nth(turn) {
            neighbour.want_pinned = true;
        }
        // It may be some hops away and come nearer; after ten rounds of all neighbours they are asked less and less often.
        let doublings = (self.pinned_tries / count).saturating_sub(10).min(6);
        self.next_pinned = Some(now + PINNED_FIRST * (1 << doublings));
        self.pinned_tries = self.pinned_tries.saturating_add(1);
    }

    pub(super) fn on_want(&mut self, peer: NodeId, after: Vec<(LogId, u64)>, forks: &[LogId], pinned: Vec<EntryRef>) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.met = true;
        forks.iter().for_each(|log| neighbour.show_fork(*log));
        neighbour.pinned = pinned;
        if !after.is_empty() {
            neighbour.answer = Some(Answer { after: after.into(), left: ANSWER_MAX });
        }
    }

    pub(super) fn on_entries<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        entries: &[&[u8]],
        end: bool,
        logs: &mut Logs<A>,
        known: &dyn Fn(&Author) -> bool,
    ) -> Result<(), StoreError> {
        for bytes in entries {
            if !self.on_entry(now, peer, bytes, logs, known)? {
                break;
            }
        }
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return Ok(()) };
        let Some(asked) = &mut neighbour.asked else { return Ok(()) };
        if !entries.is_empty() {
            asked.until = asked.last.min(now + ASK_TIMEOUT);
            neighbour.unanswered = 0;
        }
        if end {
            if !asked.progress {
                // He has said that he has more, and has not given it: it is asked for again when he says it again.
                for log in &asked.logs {
                    neighbour.targets.remove(log);
                }
            }
            neighbour.asked = None;
            neighbour.request = false;
            self.asked_of.retain(|_, asked| *asked != peer);
        }
        Ok(())
    }

    /// Takes one entry; whether the rest of its message is worth looking at.
    fn on_entry<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        bytes: &[u8],
        logs: &mut Logs<A>,
        known: &dyn Fn(&Author) -> bool,
    ) -> Result<bool, StoreError> {
        let accepted = logs.accept(bytes, known);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return Ok(false) };
        match accepted {
            Ok(Accepted::Added(entry)) => {
                neighbour.counters.added += 1;
                neighbour.progress(entry.place().log(), None);
                self.has(peer, Known::short(entry.hash()));
                let author = entry.place().author;
                self.learned(now, peer, SyncEvent::Added(entry));
                if logs.overrun(author) {
                    self.learned(now, peer, SyncEvent::Overrun(author));
                }
            }
            Ok(Accepted::Known) => {
                neighbour.counters.known += 1;
                let Ok(entry) = Entry::read_bounded(bytes) else { return Ok(true) };
                neighbour.has(Known::short(entry.hash()));
                // The histories are the same up to here: the next step need not go back behind it.
                let log = entry.place().log();
                let end = logs.head(log).is_some_and(|head| head.seq == entry.place().seq);
                if neighbour.targets.get(&log).is_some_and(|target| target.after.is_some()) {
                    neighbour.progress(log, (!end).then_some(entry.place().seq));
                }
            }
            Ok(Accepted::Gap { .. }) => {
                neighbour.counters.gaps += 1;
                // He has what is between, or will have it.
                let Ok(entry) = Entry::read_bounded(bytes) else { return Ok(true) };
                let (log, seq) = (entry.place().log(), entry.place().seq);
                if neighbour.targets.get(&log).is_none_or(|target| target.known.seq < seq) {
                    neighbour.aim(Known { log, seq, hash: Known::short(entry.hash()), fork: 0 });
                }
            }
            Ok(Accepted::Fork(proof)) => {
                neighbour.counters.added += 1;
                let log = proof.place().log();
                if let Some(target) = neighbour.targets.get_mut(&log) {
                    let place = proof.place();
                    let head = logs.head(log).unwrap_or_default();
                    // The first place where the two histories differ has the same entry before it in both.
                    let first = proof.entries().iter().all(|e| e.place() == place && e.previous() == head.hash);
                    target.step = if first { 0 } else { (target.step * 2).max(1) };
                    let after = (!first).then(|| head.seq.saturating_sub(target.step));
                    neighbour.progress(log, after);
                }
                neighbour.show_fork(log);
                tracing::warn!(%proof, "an author wrote two histories; what comes after does not count");
                self.learned(now, peer, SyncEvent::Fork(proof));
            }
            Ok(Accepted::Pinned(entry)) => {
                neighbour.counters.added += 1;
                neighbour.want_pinned = logs.lacking().next().is_some();
                self.pinned_tries = 0;
                self.events.push_back(SyncEvent::Added(entry));
            }
            Ok(Accepted::Ended) => neighbour.counters.known += 1,
            Err(Refused::Store(error)) => return Err(error),
            Err(Refused::Stranger) => neighbour.counters.strangers += 1,
            Err(Refused::Authors) => {
                tracing::warn!("the town has too many authors: entries of a new one are not kept");
                neighbour.counters.strangers += 1;
            }
            Err(error @ (Refused::LifeFull | Refused::Entry(_) | Refused::Fork(_))) => {
                neighbour.counters.bad += 1;
                tracing::debug!(%peer, %error, "an entry is refused");
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn on_forks<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        proofs: &[&[u8]],
        logs: &mut Logs<A>,
        known: &dyn Fn(&Author) -> bool,
    ) -> Result<(), StoreError> {
        for bytes in proofs {
            match logs.accept_fork(bytes, known) {
                Ok(Some(proof)) => {
                    tracing::warn!(%proof, "an author wrote two histories; what comes after does not count");
                    let author = proof.place().author;
                    self.learned(now, peer, SyncEvent::Fork(proof));
                    if logs.overrun(author) {
                        self.learned(now, peer, SyncEvent::Overrun(author));
                    }
                }
                Ok(None) => {}
                Err(Refused::Store(error)) => return Err(error),
                Err(error) => {
                    let Some(neighbour) = self.neighbours.get_mut(&peer) else { return Ok(()) };
                    neighbour.counters.bad += 1;
                    tracing::debug!(%peer, %error, "the proof of a fork is refused");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
