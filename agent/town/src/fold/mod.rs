//! The fold: from a set of entries to the state of the town (`docs/town.md`, Folds).
//!
//! From the bottom to the top: `index` sorts entries by what they say; `standing` says which of an author's count;
//! `stewards` follows the generations; `decisions` the removals and the policy; `members` who came by whom; `names`
//! what they are called. [`TownState`] is what comes out, [`WhyNot`] why somebody is not in it.

mod decisions;
mod index;
mod members;
mod names;
mod reason;
mod standing;
mod state;
mod stewards;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grange_core::certificate;
use grange_wire::{NodeId, TownId};

use self::{
    decisions::Decisions,
    index::{Index, Item, Reach, What},
    members::{Membership, Rules},
    standing::{Chains, View, unforked},
    stewards::{Generation, Line},
};
pub use self::{
    reason::{Forgery, WhyNot},
    state::{
        Clash, FormerMember, Invitation, MEMBERS_MAX, Member, Named, POLICY_TEXTS, PROBLEMS_MAX, PROPOSALS_MAX,
        PolicyInForce, PolicyVersion, Problem, Proposal, REFUSED_MAX, Refused, SnapshotDecided, TownState,
    },
};
use crate::{
    entry::{Author, Entry, EntryHash, EntryRef},
    fact::CUTOFFS_MAX,
    fork::ForkProof,
    names::town_label,
};

/// All entries of a town that are known, and the state that they give.
///
/// [`Facts::add`] and [`Facts::add_fork`] take them in any order and any number of times; [`Facts::state`] computes what has to be
/// computed anew. Nothing here looks at a clock.
#[derive(Debug)]
pub struct Facts {
    town: TownId,
    founding: Option<EntryHash>,
    index: Index,
    /// What is to be computed anew.
    stale: Reach,
    line: Line,
    stewards: BTreeSet<Author>,
    decisions: Decisions,
    membership: Membership,
    /// Admissions since the state was computed.
    admissions: Vec<Arc<Item>>,
    /// The last name of each author, as far as it is known.
    names: BTreeMap<Author, EntryHash>,
    state: Arc<TownState>,
}

impl Facts {
    /// No facts of a town.
    ///
    /// `founding`: the entry that founded it, for a node that knows (it keeps it with its membership). Should the founder's key
    /// ever be stolen and found the town a second time, this one counts; without it, that of the lowest hash.
    #[must_use]
    pub fn new(town: TownId, founding: Option<EntryHash>) -> Self {
        Self {
            town,
            founding,
            index: Index::default(),
            stale: Reach::All,
            line: Line::default(),
            stewards: BTreeSet::new(),
            decisions: Decisions::default(),
            membership: Membership::default(),
            admissions: Vec::new(),
            names: BTreeMap::new(),
            state: Arc::default(),
        }
    }

    /// Takes an entry whose signature is good. Whether it may change the state.
    pub fn add(&mut self, entry: &Entry) -> bool {
        let Some(mut reach) = self.index.add(entry, &self.town) else { return false };
        // A link of a chain that a cutoff ends may make more of it count.
        let author = entry.place().author;
        if self.line.former.contains_key(&author) || self.decisions.removals.cuts(&author) {
            reach = Reach::All;
        }
        match reach {
            Reach::Names => drop(self.names.remove(&author)),
            Reach::Admission => self.admissions.extend(self.index.items.get(&entry.hash()).cloned()),
            Reach::Nothing | Reach::Members | Reach::All => {}
        }
        self.stale = self.stale.max(reach);
        reach > Reach::Nothing
    }

    /// Takes a proof that an author wrote two histories. Whether it may change the state.
    pub fn add_fork(&mut self, proof: &ForkProof) -> bool {
        let new = self.index.add_fork(proof);
        if new {
            self.stale = Reach::All;
        }
        new
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.items.is_empty()
    }

    /// The state that all entries so far give.
    pub fn state(&mut self) -> &Arc<TownState> {
        if self.stale > Reach::Nothing {
            self.compute();
        }
        &self.state
    }

    /// Why a node is not in the town; `None`: it is.
    pub fn why_not(&mut self, node: &NodeId) -> Option<WhyNot> {
        self.state();
        if self.membership.members.contains_key(node) {
            return None;
        }
        let why = self.membership.why_not(node);
        let named = self.decisions.removals.nodes.contains(node).then_some(WhyNot::RemovedNode);
        Some(named.or(why).unwrap_or(WhyNot::Stranger))
    }

    /// Why a node that shows this certificate may not come in; `None`: it is in, or a member may let it in.
    ///
    /// `now`: second of mesh time, 0 if unknown; then the certificate's own date counts.
    pub fn why_not_certificate(&mut self, certificate: &[u8], now: u64) -> Option<WhyNot> {
        let verified = match certificate::check(certificate, &self.town) {
            Ok(verified) => verified,
            Err(error) => return Some(error.into()),
        };
        self.state();
        let (node, removals) = (verified.id, &self.decisions.removals);
        if self.membership.members.contains_key(&node) {
            return None;
        }
        if let Some(former) = self.membership.former.get(&node) {
            return Some(former.why.clone());
        }
        if removals.nodes.contains(&node) {
            return Some(WhyNot::RemovedNode);
        }
        if self.membership.members.len() >= MEMBERS_MAX {
            return Some(WhyNot::Full);
        }
        if self.state.open {
            return None;
        }
        let signer = Author(verified.signer);
        if !self.stewards.contains(&signer) {
            return Some(WhyNot::NoSteward(signer));
        }
        let Some(grant) = verified.grant else {
            return Some(self.membership.why_not(&node).unwrap_or(WhyNot::UnknownInvitation(signer)));
        };
        let at = [now, verified.issued].into_iter().find(|time| *time != 0);
        if let Some(invited) = self.membership.invitations.get(&(grant.key, signer))
            && invited.shown.removed
        {
            let household = &invited.shown.household;
            return Some(if removals.invitations.contains_key(&grant.key) {
                WhyNot::RemovedInvitation
            } else {
                WhyNot::RemovedHousehold(household.clone())
            });
        }
        self.membership.invited(&verified, at).err()
    }

    /// The histories that stewards say are the true ones, of all authors who are known here to have written two: the cutoffs of
    /// all proposals, since a decision may be known to be one only when its stewards' true history is there. A node that holds
    /// another history should fetch these. Empty as long as nobody forks.
    pub fn pins(&mut self) -> Vec<EntryRef> {
        self.state();
        let cutoffs = |item: &Arc<Item>| match &item.what {
            What::Propose(proposed) => proposed.decision.cutoffs().to_vec(),
            _ => Vec::new(),
        };
        let changes = self.index.changes.values().flat_map(|items| items.values());
        let mut pins: Vec<EntryRef> = changes.chain(self.index.proposals.values()).flat_map(cutoffs).collect();
        pins.retain(|pin| self.index.forks.contains_key(&pin.place.log()));
        pins.sort();
        pins.dedup();
        pins
    }

    /// The ends of all logs of an author that count today, at most [`CUTOFFS_MAX`]: what a decision that drops a steward or
    /// removes a node gives as cutoffs, so that all stands that is known and nothing that comes later.
    pub fn cutoffs(&mut self, author: Author) -> Vec<EntryRef> {
        self.state();
        let view = View { index: &self.index, former: &self.line.former };
        let mut ends: BTreeMap<u64, EntryRef> = BTreeMap::new();
        for item in self.index.of(author).filter(|item| view.counts(item)) {
            ends.insert(item.place.life, EntryRef { place: item.place, hash: item.hash });
        }
        ends.into_values().take(CUTOFFS_MAX).collect()
    }

    /// Whether an author's logs are to be kept and asked for: a steward's or node's that is or was in the town, the founder's, or
    /// that of a steward by a decision that was overruled. What others write changes no state.
    pub fn knows(&mut self, author: &Author) -> bool {
        self.state();
        self.known(author)
    }

    fn known(&self, author: &Author) -> bool {
        self.membership.identities.contains(author)
            || self.line.named.contains(author)
            || TownId::of_founder(&author.0) == self.town
    }

    fn compute(&mut self) {
        let stale = std::mem::replace(&mut self.stale, Reach::Nothing);
        let mut state = std::mem::take(&mut self.state);
        let state_mut = Arc::make_mut(&mut state);
        if stale == Reach::All {
            self.names.clear();
            *state_mut = self.stewards();
        }
        let admissions = std::mem::take(&mut self.admissions);
        let founding = state_mut.founding.and_then(|hash| self.index.items.get(&hash));
        if stale >= Reach::Admission
            && let Some(founding) = founding
        {
            let rules = Rules {
                view: View { index: &self.index, former: &self.line.former },
                removals: &self.decisions.removals,
                stewards: &self.stewards,
                named: &self.line.named,
                open: Some(founding.author()).filter(|_| state_mut.open),
            };
            if stale > Reach::Admission || !extend(&mut self.membership, rules, admissions, state_mut) {
                self.membership = members::admit(rules);
                state_mut.members = self.membership.members.values().cloned().collect();
                state_mut.former = self.membership.former.values().cloned().collect();
            }
            state_mut.refused = self.membership.refused();
            let invitations = self.membership.invitations.values();
            state_mut.invitations = invitations.map(|invited| invited.shown.clone()).collect();
            state_mut.clashes = names::clashes(&self.membership.members);
            state_mut.problems = self.problems(state_mut.founding);
        }
        let view = View { index: &self.index, former: &self.line.former };
        state_mut.names = names::names(view, &self.membership.members, &mut self.names);
        self.state = state;
    }

    /// The founding, the stewards and what they decided. Everything else is empty.
    fn stewards(&mut self) -> TownState {
        let founding = self.founding.and_then(|hash| self.index.foundings.get_key_value(&hash));
        // A node that knows its founding waits for it.
        let founding = if self.founding.is_some() { founding } else { self.index.foundings.first_key_value() };
        (self.line, self.decisions, self.membership) = Default::default();
        self.stewards = BTreeSet::new();
        let Some((hash, item)) = founding else { return TownState::default() };
        let What::Found { name, stewards, threshold } = &item.what else { return TownState::default() };
        let first =
            Generation { number: 0, stewards: stewards.iter().copied().collect(), threshold: usize::from(*threshold) };
        self.line = stewards::line(&self.index, first);
        let view = View { index: &self.index, former: &self.line.former };
        self.decisions = decisions::decide(view, &self.line.generations);
        let generations = &self.line.generations;
        self.stewards = generations.iter().flat_map(|generation| &generation.stewards).copied().collect();
        let removals = &self.decisions.removals;
        let present = generations.last();
        TownState {
            founding: Some(*hash),
            name: name.clone(),
            label: town_label(name, &self.town),
            open: stewards.is_empty(),
            generation: present.map_or(0, |present| present.number),
            stewards: present.map(|present| present.stewards.iter().copied().collect()).unwrap_or_default(),
            threshold: present.map_or(0, |present| u16::try_from(present.threshold).unwrap_or(u16::MAX)),
            former_stewards: self.line.former.keys().copied().collect(),
            removed_nodes: removals.nodes.iter().copied().collect(),
            removed_households: removals.households.iter().cloned().collect(),
            removed_invitations: removals.invitations.keys().copied().collect(),
            policy: self.decisions.policy.clone(),
            snapshots: self.decisions.snapshots.clone(),
            proposals: self.decisions.open.clone(),
            ..TownState::default()
        }
    }

    /// What people should know, of authors whose logs all nodes have.
    fn problems(&self, founding: Option<EntryHash>) -> Vec<Problem> {
        let view = View { index: &self.index, former: &self.line.former };
        let Index { forks, foundings, wrong, invites, assigns, proposals, changes, .. } = view.index;
        let forks = forks.iter().filter(|(log, _)| self.known(&log.author));
        let mut problems: Vec<Problem> = forks.map(|(log, seq)| Problem::Fork { log: *log, seq: *seq }).collect();
        problems.extend(cut(view, &self.line.former));
        for item in wrong.values().filter(|item| self.known(&item.author()) && view.counts(item)) {
            if let What::Wrong(why) = item.what {
                problems.push(Problem::Wrong { place: item.place, why });
            }
        }
        let by_stewards = [invites, assigns, proposals].into_iter().chain(changes.values());
        let strangers = by_stewards.flat_map(|items| items.values()).filter(|item| {
            let author = item.author();
            !self.stewards.contains(&author) && self.known(&author) && unforked(view.index, item)
        });
        problems.extend(strangers.map(|item| Problem::NotSteward { place: item.place }));
        let others = foundings.values().filter(|item| Some(item.hash) != founding);
        problems.extend(others.map(|item| Problem::Founding { place: item.place }));
        problems.extend(self.decisions.problems.iter().cloned());
        problems.extend(self.line.overruled.iter().map(|proposal| Problem::StewardsVoid { proposal: *proposal }));
        problems.sort();
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        problems
    }
}

/// Takes admissions that are later than all before; whether all of them were.
fn extend(town: &mut Membership, rules: Rules<'_>, mut news: Vec<Arc<Item>>, state: &mut TownState) -> bool {
    news.sort_by_key(|item| (item.time, item.hash));
    for item in news {
        let Some(taken) = town.extend(rules, &item) else { return false };
        for member in taken.iter().filter_map(|node| town.members.get(node)) {
            let at = state.members.partition_point(|known| known.node < member.node);
            state.members.insert(at, member.clone());
        }
    }
    true
}

/// What former stewards' keys signed beyond their cutoffs, as far as no fork takes it away anyhow.
fn cut<'a>(view: View<'a>, former: &'a Chains) -> impl Iterator<Item = Problem> + 'a {
    former.iter().filter_map(move |(author, chain)| {
        let void = |item: &&Arc<Item>| {
            !matches!(item.what, What::Nothing | What::Begin(_))
                && !chain.holds(view.index, item)
                && unforked(view.index, item)
        };
        let facts = view.index.of(*author).filter(void).count();
        (facts > 0).then(|| Problem::Cut { author: *author, facts: u64::try_from(facts).unwrap_or(u64::MAX) })
    })
}
