//! Who the stewards are: the line of generations from the founding on (`docs/town.md`, Stewards).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    index::{Index, Item, Proposed, What},
    standing::{Chain, Chains, unforked},
};
use crate::{
    entry::{Author, EntryHash, EntryRef},
    fact::Decision,
};

/// Generations that a town has at most.
const GENERATIONS_MAX: u32 = 256;
/// Changes of stewards that are followed up at most, rivals and what came after them included. Only stewards together
/// can make one that has to be followed up.
const STEPS_MAX: u32 = 4096;

/// One generation of stewards.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) stewards: BTreeSet<Author>,
    pub(super) threshold: usize,
}

/// The generations, and what is left of those who are stewards no more.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// From the one after the first in question on.
    pub(super) generations: Vec<Generation>,
    /// What counts of those who left.
    pub(super) former: Chains,
    /// Changes that were approved by enough and overruled.
    pub(super) overruled: BTreeSet<EntryHash>,
    /// Stewards of all lines that were looked at, overruled ones too: all nodes must know what they said to overrule the same.
    pub(super) named: BTreeSet<Author>,
}

/// A walk through all lines.
struct Search<'a> {
    index: &'a Index,
    steps: u32,
    named: BTreeSet<Author>,
}

/// A change of stewards that enough approved.
struct Candidate<'a> {
    hash: EntryHash,
    next: Generation,
    /// The line that it begins, with the cutoffs that it gives itself.
    line: Line,
    /// Who approved it, and the entries.
    approvals: BTreeMap<Author, Vec<&'a Arc<Item>>>,
}

/// The whole line of generations from that of the founding on.
pub(super) fn line(index: &Index, first: Generation) -> Line {
    let mut search = Search { index, steps: STEPS_MAX, named: first.stewards.clone() };
    let mut whole = follow(&mut search, &first, &BTreeSet::new());
    whole.generations.insert(0, first);
    whole.named = search.named;
    whole
}

/// The generations after `present`. `gone`: who was a steward before and is not in it.
fn follow(search: &mut Search<'_>, present: &Generation, gone: &BTreeSet<Author>) -> Line {
    let index = search.index;
    let Some(changes) = index.changes.get(&present.number).filter(|_| present.number < GENERATIONS_MAX) else {
        return Line::default();
    };
    // Signed by enough, whatever forks may take away: what stands later decides.
    let mut signed: Vec<_> = changes
        .values()
        .filter_map(|item| {
            let What::Propose(Proposed { decision, .. }) = &item.what else { return None };
            let Decision::Stewards { stewards, threshold, cutoffs } = &**decision else { return None };
            if stewards.iter().any(|key| gone.contains(key)) {
                return None;
            }
            let approvals = approvals(index, present, item);
            let next = Generation {
                number: present.number + 1,
                stewards: stewards.iter().copied().collect(),
                threshold: usize::from(*threshold),
            };
            (!approvals.is_empty() && approvals.len() >= present.threshold).then_some((item, approvals, next, cutoffs))
        })
        .collect();
    signed.sort_by_key(|(item, approvals, ..)| (Reverse(approvals.len()), item.hash));
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for (item, mut approvals, next, cutoffs) in signed {
        let Some(left) = search.steps.checked_sub(1) else { break };
        search.steps = left;
        search.named.extend(&next.stewards);
        let line = step(search, present, &next, cutoffs, gone);
        for items in approvals.values_mut() {
            items.retain(|item| stands(index, item, &line.former));
        }
        approvals.retain(|_, items| !items.is_empty());
        if approvals.len() >= present.threshold && stands(index, item, &line.former) {
            candidates.push(Candidate { hash: item.hash, next, line, approvals });
        }
    }
    let Some(best) = best(index, &candidates) else { return Line::default() };
    let chosen = candidates.remove(best);
    let Candidate { next, mut line, .. } = chosen;
    line.overruled.extend(candidates.iter().map(|candidate| candidate.hash));
    line.generations.insert(0, next);
    line
}

/// What follows from one change: the cutoffs that it gives, and the generations after it.
fn step(
    search: &mut Search<'_>,
    present: &Generation,
    next: &Generation,
    cutoffs: &[EntryRef],
    gone: &BTreeSet<Author>,
) -> Line {
    let mut gone = gone.clone();
    let leaving: Vec<Author> = present.stewards.difference(&next.stewards).copied().collect();
    gone.extend(&leaving);
    let mut line = follow(search, next, &gone);
    for author in leaving {
        line.former.insert(author, Arc::new(Chain::new(search.index, author, cutoffs.iter())));
    }
    line
}

/// Who signed for a proposal: the proposer and the approvers, as far as they are stewards of that generation. Empty if the
/// proposer is none.
fn approvals<'a>(
    index: &'a Index,
    generation: &Generation,
    proposal: &'a Arc<Item>,
) -> BTreeMap<Author, Vec<&'a Arc<Item>>> {
    let mut signed: BTreeMap<Author, Vec<_>> = BTreeMap::new();
    if !generation.stewards.contains(&proposal.author()) {
        return signed;
    }
    signed.entry(proposal.author()).or_default().push(proposal);
    for (author, item) in index.approvals(&proposal.hash) {
        if generation.stewards.contains(&author) {
            signed.entry(author).or_default().push(item);
        }
    }
    signed
}

/// Whether what a steward signed for a change of stewards stands: no fork takes it away, or a later cutoff of the same line
/// says that it is of the true history.
fn stands(index: &Index, item: &Item, former: &Chains) -> bool {
    unforked(index, item) || former.get(&item.author()).is_some_and(|chain| chain.holds(index, item))
}

/// The candidate that counts: with the most approvals that no rival's line cuts off, then the most, then the lowest hash.
fn best(index: &Index, candidates: &[Candidate<'_>]) -> Option<usize> {
    let undisputed = |which: &Candidate<'_>| {
        let disputed = |author: &Author, items: &[&Arc<Item>]| {
            candidates.iter().filter(|rival| rival.hash != which.hash).any(|rival| {
                let chain = rival.line.former.get(author);
                chain.is_some_and(|chain| !items.iter().any(|item| chain.holds(index, item)))
            })
        };
        which.approvals.iter().filter(|(author, items)| !disputed(author, items)).count()
    };
    (0..candidates.len()).min_by_key(|at| {
        let candidate = &candidates[*at];
        (Reverse(undisputed(candidate)), Reverse(candidate.approvals.len()), candidate.hash)
    })
}
