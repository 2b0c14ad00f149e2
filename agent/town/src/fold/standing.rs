//! Which entries of an author count, where it wrote two histories or was cut off (`docs/town.md`, What stands).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::index::{Index, Item};
use crate::entry::{Author, EntryHash, EntryRef, LogId};

/// Lives that an author has at most: no chain of them is longer.
const LIVES: usize = 16;

/// Whether no fork of its author takes an entry away: it stands before the fork in that life, or in what that life goes on
/// from, and that for each of the author's forks.
pub(super) fn unforked(index: &Index, item: &Item) -> bool {
    let log = |life| LogId { author: item.place.author, life };
    index.forks.range(log(0)..=log(u64::MAX)).all(|(fork, seq)| before(index, item, *fork, *seq))
}

/// Whether an item stands before number `limit` of `log`, or in what that log goes on from.
fn before(index: &Index, item: &Item, mut log: LogId, mut limit: u64) -> bool {
    for _ in 0..LIVES {
        if item.place.life == log.life {
            return item.place.seq < limit;
        }
        // The first entry says where the life goes on from; if there are two of it, nothing does.
        match index.parent(log) {
            Some(parent) if limit > 1 => (log, limit) = (parent.log(), parent.seq.saturating_add(1)),
            _ => return false,
        }
    }
    false
}

/// What an author's cutoffs leave: the histories that end in them.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Entries from which a cutoff's links lead here, where the log has two histories.
    on: BTreeSet<EntryHash>,
    /// By life: below this number the links are not known, and what no fork takes away counts.
    below: BTreeMap<u64, u64>,
}

impl Chain {
    /// What these cutoffs leave of an author. Of two in one life the lower one counts; a life with none is void.
    pub(super) fn new<'a>(index: &Index, author: Author, cutoffs: impl Iterator<Item = &'a EntryRef>) -> Self {
        let mut lowest = BTreeMap::new();
        for cutoff in cutoffs.filter(|cutoff| cutoff.place.author == author) {
            let known = lowest.entry(cutoff.place.life).or_insert((cutoff.place.seq, cutoff.hash));
            *known = (*known).min((cutoff.place.seq, cutoff.hash));
        }
        let mut chain = Self::default();
        for (life, (seq, hash)) in lowest {
            let below = chain.walk(index, LogId { author, life }, seq, hash);
            chain.below.insert(life, below);
        }
        chain
    }

    fn walk(&mut self, index: &Index, log: LogId, seq: u64, mut hash: EntryHash) -> u64 {
        let others = index.at(&log.at(seq));
        if !index.forks.contains_key(&log) {
            // One history: either it is the one that was meant, or nothing of that is known.
            return if others.is_empty() || others.contains(&hash) { seq.saturating_add(1) } else { 0 };
        }
        let mut below = seq.saturating_add(1);
        while let Some(item) = index.items.get(&hash)
            && item.place == log.at(below - 1)
        {
            self.on.insert(hash);
            (below, hash) = (below - 1, item.previous);
        }
        below
    }

    /// Whether an entry of the chain's author counts.
    pub(super) fn holds(&self, index: &Index, item: &Item) -> bool {
        let Some(below) = self.below.get(&item.place.life) else { return false };
        self.on.contains(&item.hash)
            || item.place.seq < *below && index.forks.get(&item.place.log()).is_none_or(|fork| item.place.seq < *fork)
    }
}

pub(super) type Chains = BTreeMap<Author, Arc<Chain>>;

/// Which entries count once it is clear who was steward until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) index: &'a Index,
    /// What is left of former stewards.
    pub(super) former: &'a Chains,
}

impl View<'_> {
    /// Whether an entry counts: of a former steward what the cutoffs leave, of others what no fork takes away.
    pub(super) fn counts(&self, item: &Item) -> bool {
        match self.former.get(&item.author()) {
            Some(chain) => chain.holds(self.index, item),
            None => unforked(self.index, item),
        }
    }
}
