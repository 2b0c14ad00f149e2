//! The source table: the best that this node ever announced (RFC 8966, section 3.2.5), which is what keeps routes free
//! of loops.

use alloc::collections::BTreeMap;
use core::time::Duration;

use grange_wire::{
    NodeId, Prefix, RouterId,
    babel::{INFINITY, Seqno},
};

use crate::Instant;

/// Entries at most.
const MAX_SOURCES: usize = 8192;
/// An entry that no announcement refreshed for so long is forgotten. Longer than any neighbour keeps a route that it has
/// of us (3.5 update intervals): until then it may still send packets here.
const LIFETIME: Duration = Duration::from_secs(600);

/// An originator of a prefix. The RFC knows it by router-id alone; here the owner, whom the proof names, belongs to it, so
/// that nobody can use up the seqnos of another gateway's router-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId {
    pub(super) router_id: RouterId,
    pub(super) owner: NodeId,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    seqno: Seqno,
    metric: u16,
    touched: Instant,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcesFull;

/// Feasibility distances by prefix and originator.
#[derive(Debug, Default)]
pub(super) struct SourceTable {
    entries: BTreeMap<(Prefix, SourceId), Source>,
}

impl SourceTable {
    /// The feasibility condition (section 3.5.1).
    pub(super) fn is_feasible(&self, prefix: &Prefix, source: &SourceId, seqno: Seqno, metric: u16) -> bool {
        metric == INFINITY
            || self
                .entries
                .get(&(*prefix, *source))
                .is_none_or(|entry| entry.seqno.is_before(seqno) || (entry.seqno == seqno && metric < entry.metric))
    }

    /// The seqno that would make any metric feasible.
    pub(super) fn wanted_seqno(&self, prefix: &Prefix, source: &SourceId) -> Option<Seqno> {
        Some(self.entries.get(&(*prefix, *source))?.seqno.plus(1))
    }

    /// Takes down an announcement that is about to be made (section 3.7.3).
    ///
    /// # Errors
    ///
    /// [`SourcesFull`]: it must not be made.
    pub(super) fn record(
        &mut self,
        now: Instant,
        prefix: &Prefix,
        source: &SourceId,
        seqno: Seqno,
        metric: u16,
    ) -> Result<(), SourcesFull> {
        let fresh = Source { seqno, metric, touched: now };
        if let Some(entry) = self.entries.get_mut(&(*prefix, *source)) {
            if entry.seqno.is_before(seqno) {
                *entry = fresh;
            } else if entry.seqno == seqno {
                *entry = Source { metric: entry.metric.min(metric), ..fresh };
            } else {
                entry.touched = now;
            }
            return Ok(());
        }
        if self.entries.len() >= MAX_SOURCES {
            return Err(SourcesFull);
        }
        self.entries.insert((*prefix, *source), fresh);
        Ok(())
    }

    /// Forgets what was not announced for ten minutes.
    pub(super) fn collect(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now.since(entry.touched) < LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(byte: u8) -> SourceId {
        SourceId { router_id: RouterId([byte; 8]), owner: NodeId([byte; 32]) }
    }

    #[test]
    fn only_strictly_better_is_feasible() {
        let (mut table, p, s, now) = (SourceTable::default(), Prefix::DEFAULT_V6, source(1), Instant::START);
        assert!(table.is_feasible(&p, &s, Seqno(3), 60_000));
        table.record(now, &p, &s, Seqno(3), 200).unwrap();
        assert!(table.is_feasible(&p, &s, Seqno(3), 199));
        assert!(!table.is_feasible(&p, &s, Seqno(3), 200));
        assert!(!table.is_feasible(&p, &s, Seqno(2), 1));
        assert!(table.is_feasible(&p, &s, Seqno(4), 60_000));
        assert!(table.is_feasible(&p, &s, Seqno(3), INFINITY));
        assert!(table.is_feasible(&p, &source(2), Seqno(0), 60_000));
        assert_eq!(table.wanted_seqno(&p, &s), Some(Seqno(4)));
    }

    #[test]
    fn a_distance_never_grows_within_a_seqno() {
        let (mut table, p, s, now) = (SourceTable::default(), Prefix::DEFAULT_V4, source(1), Instant::START);
        for metric in [300, 100, 500] {
            table.record(now, &p, &s, Seqno(0xffff), metric).unwrap();
        }
        assert!(!table.is_feasible(&p, &s, Seqno(0xffff), 100));
        table.record(now, &p, &s, Seqno(0), 700).unwrap();
        assert!(table.is_feasible(&p, &s, Seqno(0), 699));
        table.record(now, &p, &s, Seqno(0xffff), 1).unwrap();
        assert!(table.is_feasible(&p, &s, Seqno(0), 699));
    }

    #[test]
    fn announcements_keep_an_entry_and_silence_ends_it() {
        let (mut table, p, s) = (SourceTable::default(), Prefix::DEFAULT_V6, source(1));
        table.record(Instant::START, &p, &s, Seqno(1), 10).unwrap();
        table.record(Instant::START + LIFETIME / 2, &p, &s, Seqno(1), 10).unwrap();
        table.collect(Instant::START + LIFETIME);
        assert!(!table.is_feasible(&p, &s, Seqno(1), 10));
        table.collect(Instant::START + LIFETIME * 2);
        assert!(table.is_feasible(&p, &s, Seqno(1), 10));
    }

    #[test]
    fn a_full_table_refuses_the_new_and_keeps_the_old() {
        let (mut table, p, now) = (SourceTable::default(), Prefix::DEFAULT_V6, Instant::START);
        for number in 0..MAX_SOURCES as u64 {
            let s = SourceId { router_id: RouterId(number.to_be_bytes()), owner: NodeId([0; 32]) };
            table.record(now, &p, &s, Seqno(0), 1).unwrap();
        }
        assert_eq!(table.record(now, &p, &source(9), Seqno(0), 1), Err(SourcesFull));
        let first = SourceId { router_id: RouterId([0; 8]), owner: NodeId([0; 32]) };
        assert_eq!(table.record(now, &p, &first, Seqno(1), 1), Ok(()));
    }
}
