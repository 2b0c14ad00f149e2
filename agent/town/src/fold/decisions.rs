//! What the stewards decided but who they are: removals, policy, snapshots, and what is still open.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grange_wire::NodeId;

use super::{
    index::{Index, Item, Items, Proposed, What},
    standing::{Chain, View},
    state::{POLICY_TEXTS, PROPOSALS_MAX, PolicyInForce, PolicyVersion, Problem, Proposal, SnapshotDecided},
    stewards::Generation,
};
use crate::{
    entry::{Author, EntryHash},
    fact::Decision,
};

/// Who and what is out, by all removals together.
#[derive(Debug, Default)]
pub(super) struct Removals {
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) households: BTreeSet<String>,
    /// By invitation: who stays nevertheless, by every removal that names it.
    pub(super) invitations: BTreeMap<[u8; 32], BTreeSet<NodeId>>,
    /// What each removal leaves of an author; all of them must.
    cutoffs: BTreeMap<Author, Vec<Chain>>,
}

impl Removals {
    /// Whether something of an author who is out counts all the same.
    pub(super) fn leaves(&self, index: &Index, item: &Item) -> bool {
        let chains = self.cutoffs.get(&item.author());
        chains.is_some_and(|chains| chains.iter().all(|chain| chain.holds(index, item)))
    }

    /// Whether any removal has a cutoff for this author.
    pub(super) fn cuts(&self, author: &Author) -> bool {
        self.cutoffs.contains_key(author)
    }
}

/// A decision that enough stewards approved.
struct Decided<'a> {
    item: &'a Arc<Item>,
    proposed: &'a Proposed,
    approvals: usize,
}

/// What came of all proposals.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    pub(super) removals: Removals,
    pub(super) policy: PolicyInForce,
    pub(super) snapshots: Vec<SnapshotDecided>,
    pub(super) open: Vec<Proposal>,
    pub(super) problems: Vec<Problem>,
}

/// Judges all proposals. `generations`: the line of stewards, by number.
pub(super) fn decide(view: View<'_>, generations: &[Generation]) -> Decisions {
    let mut all = Decisions::default();
    let Some(present) = generations.last() else { return all };
    let mut decided = Vec::new();
    let mut open = Vec::new();
    for item in view.index.proposals.values() {
        let What::Propose(proposed) = &item.what else { continue };
        let generation = usize::try_from(proposed.generation).ok().and_then(|number| generations.get(number));
        let Some(generation) = generation.filter(|generation| generation.stewards.contains(&item.author())) else {
            continue;
        };
        let Some(approvals) = approvals(view, generation, item) else { continue };
        if approvals.len() >= generation.threshold {
            decided.push(Decided { item, proposed, approvals: approvals.len() });
        } else if generation.number == present.number {
            open.push(proposal(item, proposed, approvals));
        }
    }
    all.removals(view.index, &decided);
    all.policies(&decided);
    all.snapshots.extend(decided.iter().filter_map(|decided| match *decided.proposed.decision {
        Decision::Snapshot { vector, kept, state } => {
            Some(SnapshotDecided { proposal: decided.item.hash, vector, kept, state })
        }
        _ => None,
    }));
    let changes = view.index.changes.get(&present.number).map(Items::values).into_iter().flatten();
    for item in changes.filter(|item| present.stewards.contains(&item.author())) {
        if let (What::Propose(proposed), Some(approvals)) = (&item.what, approvals(view, present, item)) {
            open.push(proposal(item, proposed, approvals));
        }
    }
    open.sort_by_key(|proposal| proposal.hash);
    open.truncate(PROPOSALS_MAX);
    let in_force = all.policy.hash();
    for proposal in &mut open {
        if let Decision::Policy { previous, .. } = &*proposal.decision
            && *previous != in_force
        {
            let late = "another version of the policy is in force than the one that it was made from";
            proposal.hopeless.get_or_insert_with(|| late.into());
        }
    }
    all.open = open;
    all
}

/// Who approved a proposal of a generation, if the proposal itself counts.
fn approvals(view: View<'_>, generation: &Generation, proposal: &Item) -> Option<BTreeSet<Author>> {
    if !view.counts(proposal) {
        return None;
    }
    let others = view.index.approvals(&proposal.hash);
    let others = others.filter(|(author, item)| generation.stewards.contains(author) && view.counts(item));
    Some(others.map(|(author, _)| author).chain([proposal.author()]).collect())
}

fn proposal(item: &Item, proposed: &Proposed, approvals: BTreeSet<Author>) -> Proposal {
    Proposal {
        hash: item.hash,
        by: item.author(),
        decision: proposed.decision.clone(),
        approvals: approvals.into_iter().collect(),
        hopeless: proposed.policy.as_ref().and_then(|policy| policy.as_ref().err().cloned()),
    }
}

impl Decisions {
    fn removals(&mut self, index: &Index, decided: &[Decided<'_>]) {
        let removals = &mut self.removals;
        for decided in decided {
            let Decision::Remove(removal) = &*decided.proposed.decision else { continue };
            removals.nodes.extend(&removal.nodes);
            removals.households.extend(removal.households.iter().cloned());
            let kept: BTreeSet<NodeId> = removal.kept.iter().copied().collect();
            for key in &removal.invitations {
                let known = removals.invitations.entry(*key).or_insert_with(|| kept.clone());
                known.retain(|node| kept.contains(node));
            }
            let authors: BTreeSet<Author> = removal.cutoffs.iter().map(|cutoff| cutoff.place.author).collect();
            for author in authors {
                let chain = Chain::new(index, author, removal.cutoffs.iter());
                removals.cutoffs.entry(author).or_default().push(chain);
            }
        }
    }

    /// Follows the versions from the first on. A version names the one before it by the hash of its entry, so no
    /// version can come after itself.
    fn policies(&mut self, decided: &[Decided<'_>]) {
        let mut after: BTreeMap<EntryHash, Vec<&Decided<'_>>> = BTreeMap::new();
        for decided in decided {
            let Decision::Policy { previous, .. } = &*decided.proposed.decision else { continue };
            match &decided.proposed.policy {
                Some(Err(why)) => {
                    self.problems.push(Problem::PolicyVoid { proposal: decided.item.hash, why: Some(why.clone()) });
                }
                _ => after.entry(*previous).or_default().push(decided),
            }
        }
        let mut previous = EntryHash::NONE;
        while let Some(versions) = after.remove(&previous) {
            let rank = |decided: &&Decided<'_>| {
                (Reverse(decided.proposed.generation), Reverse(decided.approvals), decided.item.hash)
            };
            let Some(next) = versions.into_iter().min_by_key(rank) else { break };
            if let (Some(Ok(rules)), Decision::Policy { text, .. }) = (&next.proposed.policy, &*next.proposed.decision)
            {
                self.policy.rules = rules.clone();
                self.policy.history.push(PolicyVersion {
                    hash: next.item.hash,
                    generation: next.proposed.generation,
                    by: next.item.author(),
                    time: next.item.time,
                    text: Some(text.clone()),
                });
            }
            previous = next.item.hash;
        }
        let old = self.policy.history.len().saturating_sub(POLICY_TEXTS);
        self.policy.history[..old].iter_mut().for_each(|version| version.text = None);
        let in_force: BTreeSet<EntryHash> = self.policy.history.iter().map(|version| version.hash).collect();
        let overruled = decided
            .iter()
            .filter(|decided| matches!(decided.proposed.policy, Some(Ok(_))) && !in_force.contains(&decided.item.hash));
        let overruled = overruled.map(|decided| Problem::PolicyVoid { proposal: decided.item.hash, why: None });
        self.problems.extend(overruled);
    }
}
