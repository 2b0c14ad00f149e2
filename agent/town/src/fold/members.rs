//! Who is in: admissions one after another, from the stewards on (`docs/town.md`, Members).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use grange_core::certificate::Verified;
use grange_wire::NodeId;

use super::{
    decisions::Removals,
    index::{Admit, Item, What},
    reason::WhyNot,
    standing::{View, unforked},
    state::{FormerMember, Invitation, MEMBERS_MAX, Member, REFUSED_MAX, Refused},
};
use crate::entry::{Author, EntryHash};

/// The rank of an admission at a time that nobody knew: after all others.
const UNKNOWN: u64 = u64::MAX;

/// What admissions are judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) view: View<'a>,
    pub(super) removals: &'a Removals,
    /// All keys that are or were stewards'.
    pub(super) stewards: &'a BTreeSet<Author>,
    /// Keys that other nodes hear of, whether they count or not.
    pub(super) named: &'a BTreeSet<Author>,
    /// The founder's key, if anybody may join.
    pub(super) open: Option<Author>,
}

/// An invitation with what came of it.
#[derive(Debug)]
pub(super) struct Invited {
    pub(super) shown: Invitation,
    last: Option<NodeId>,
}

/// Who is in, who was, who never.
#[derive(Debug, Default)]
pub(super) struct Membership {
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) former: BTreeMap<NodeId, FormerMember>,
    refused: BTreeMap<NodeId, WhyNot>,
    /// Those of whom only authors spoke who are out.
    cut: BTreeMap<NodeId, WhyNot>,
    /// The same, by what nodes said whose logs nobody needs to have: it is in no state.
    strangers: BTreeMap<NodeId, WhyNot>,
    /// The keys of members and former ones.
    pub(super) identities: BTreeSet<Author>,
    pub(super) invitations: BTreeMap<([u8; 32], Author), Invited>,
    /// Invitations in the logs that do not count, and why.
    void: BTreeMap<([u8; 32], Author), WhyNot>,
    /// Since when those are in who let others in.
    since: BTreeMap<Author, u64>,
    /// The latest time of an admission that was looked at.
    latest: u64,
    /// Whose nodes they are by a steward's later word.
    households: BTreeMap<NodeId, String>,
}

/// Admissions whose sponsors are in, in the order in which they count: time, node, entry; and since when the sponsor is in.
type Waiting = BinaryHeap<Reverse<(u64, NodeId, EntryHash, u64)>>;

/// Takes one admission after another: always the earliest whose sponsor is in by then.
pub(super) fn admit(rules: Rules<'_>) -> Membership {
    let mut town = Membership { households: households(rules), ..Membership::default() };
    town.invitations(rules);
    let mut waiting = BinaryHeap::new();
    for root in rules.stewards.iter().chain(&rules.open) {
        town.sponsor(rules, &mut waiting, *root, 0, false);
    }
    town.run(rules, waiting);
    town.unsponsored(rules);
    town
}

/// The time of an admission as its sponsor knew it, or else as the node itself said; none: nobody knew.
fn said(item: &Item, admit: &Admit) -> Option<u64> {
    let issued = admit.verified.as_ref().map_or(0, |verified| verified.issued);
    [item.time, issued].into_iter().find(|time| *time != 0)
}

/// Whose node it is, as stewards said after it came: the latest word counts, of one second that of the higher hash.
fn households(rules: Rules<'_>) -> BTreeMap<NodeId, String> {
    let mut last: BTreeMap<NodeId, (u64, EntryHash, &str)> = BTreeMap::new();
    for item in rules.view.index.assigns.values() {
        let What::Assign { node, household } = &item.what else { continue };
        if rules.stewards.contains(&item.author()) && rules.view.counts(item) {
            let said = (item.time, item.hash, household.as_str());
            let known = last.entry(*node).or_insert(said);
            *known = (*known).max(said);
        }
    }
    last.into_iter().map(|(node, (_, _, household))| (node, household.to_owned())).collect()
}

impl Membership {
    /// Takes one more admission, if it is later than all before and so changes nothing of them: who came by it. `None`: all of
    /// them must be taken anew.
    pub(super) fn extend(&mut self, rules: Rules<'_>, item: &Item) -> Option<Vec<NodeId>> {
        let What::Admit(admit) = &item.what else { return None };
        let since = *self.since.get(&item.author())?;
        let at = said(item, admit).unwrap_or(UNKNOWN).max(since);
        if at <= self.latest || !rules.view.counts(item) {
            return None;
        }
        let taken = self.run(rules, BinaryHeap::from([Reverse((at, admit.node, item.hash, since))]));
        // Who is out, or was a steward, has said what does not count: that is for the whole to sort out.
        let plain =
            |node| self.members.get(node).is_some_and(|member| !rules.view.former.contains_key(&member.identity));
        taken.iter().all(plain).then_some(taken)
    }

    /// Adds what somebody who is in said of others to what waits.
    fn sponsor(&mut self, rules: Rules<'_>, waiting: &mut Waiting, author: Author, since: u64, out: bool) {
        if !out {
            self.since.entry(author).or_insert(since);
        }
        for item in rules.view.index.admits.get(&author).into_iter().flat_map(BTreeMap::values) {
            let What::Admit(admit) = &item.what else { continue };
            let counts = if out { rules.removals.leaves(rules.view.index, item) } else { rules.view.counts(item) };
            if counts {
                let at = said(item, admit).unwrap_or(UNKNOWN).max(since);
                waiting.push(Reverse((at, admit.node, item.hash, since)));
            }
        }
    }

    /// Takes what waits, and what that brings with it. Gives those who came.
    fn run(&mut self, rules: Rules<'_>, mut waiting: Waiting) -> Vec<NodeId> {
        let mut taken = Vec::new();
        while let Some(Reverse((rank, node, hash, since))) = waiting.pop() {
            self.latest = self.latest.max(rank);
            if self.members.contains_key(&node) || self.former.contains_key(&node) {
                continue;
            }
            let Some(item) = rules.view.index.items.get(&hash) else { continue };
            let What::Admit(admit) = &item.what else { continue };
            // A sponsor that was not in before some second lets nobody in before it.
            let at = match said(item, admit) {
                Some(said) if since == UNKNOWN => Some(said),
                Some(said) => Some(said.max(since)),
                None => None,
            };
            match self.judge(rules, item, admit, at) {
                Ok(verified) => {
                    let out = self.take(rules, item, admit, &verified, at);
                    self.refused.remove(&node);
                    taken.push(node);
                    self.sponsor(rules, &mut waiting, Author(verified.identity), rank, out);
                }
                Err(why) => {
                    // Of several reasons always the same one, in whatever order they come.
                    let known = self.refused.entry(node).or_insert_with(|| why.clone());
                    *known = known.clone().max(why);
                }
            }
        }
        taken
    }

    /// The invitations that count. Of two with one key by one steward, that of the lower hash.
    fn invitations(&mut self, rules: Rules<'_>) {
        for item in rules.view.index.invites.values() {
            let What::Invite(invite) = &item.what else { continue };
            let steward = item.author();
            let key = (invite.key, steward);
            if !rules.stewards.contains(&steward) {
                continue;
            }
            if !rules.view.counts(item) {
                let former = rules.view.former.contains_key(&steward) && unforked(rules.view.index, item);
                let why = if former { WhyNot::FormerSteward(steward) } else { WhyNot::ForkedSteward(steward) };
                self.void.entry(key).or_insert(why);
                continue;
            }
            let removed = rules.removals.invitations.contains_key(&invite.key)
                || rules.removals.households.contains(&invite.household);
            self.invitations.entry(key).or_insert_with(|| Invited {
                shown: Invitation {
                    key: invite.key,
                    steward,
                    household: invite.household.clone(),
                    uses: invite.uses,
                    used: 0,
                    expires: invite.expires,
                    removed,
                },
                last: None,
            });
        }
    }

    /// Whether a certificate is good under what stewards signed and when.
    fn judge(&self, rules: Rules<'_>, item: &Item, admit: &Admit, at: Option<u64>) -> Result<Verified, WhyNot> {
        let verified = admit.verified.clone()?;
        if self.members.len() >= MEMBERS_MAX {
            return Err(WhyNot::Full);
        }
        if rules.open.is_some() {
            return Ok(verified);
        }
        let signer = Author(verified.signer);
        if !rules.stewards.contains(&signer) {
            return Err(WhyNot::NoSteward(signer));
        }
        if verified.grant.is_none() {
            // A certificate in person counts by the steward's own log, in which a cutoff can be set.
            return if item.author() == signer { Ok(verified) } else { Err(WhyNot::UnknownInvitation(signer)) };
        }
        self.invited(&verified, at)?;
        Ok(verified)
    }

    /// Whether one can come by this certificate's invitation at second `at`, as far as that is known.
    pub(super) fn invited(&self, verified: &Verified, at: Option<u64>) -> Result<(), WhyNot> {
        let signer = Author(verified.signer);
        let Some(grant) = verified.grant else { return Ok(()) };
        let key = (grant.key, signer);
        let Some(invited) = self.invitations.get(&key) else {
            return Err(self.void.get(&key).cloned().unwrap_or(WhyNot::UnknownInvitation(signer)));
        };
        let shown = &invited.shown;
        if (shown.uses, shown.expires) != (grant.uses, grant.expires) {
            return Err(WhyNot::OtherTerms);
        }
        if shown.expires != 0 && at.is_some_and(|at| at >= shown.expires) {
            return Err(WhyNot::Expired(shown.expires));
        }
        match invited.last {
            Some(last) if shown.uses != 0 && shown.used >= shown.uses => Err(WhyNot::Spent { uses: shown.uses, last }),
            _ => Ok(()),
        }
    }

    /// Takes a node in, or to those who are out by a removal; which of the two.
    fn take(
        &mut self,
        rules: Rules<'_>,
        item: &Arc<Item>,
        admit: &Admit,
        verified: &Verified,
        admitted: Option<u64>,
    ) -> bool {
        let node = verified.id;
        self.identities.insert(Author(verified.identity));
        let key = verified.grant.map(|grant| (grant.key, Author(verified.signer)));
        let invited = key.and_then(|key| self.invitations.get_mut(&key));
        let household = match (&invited, self.households.get(&node)) {
            (_, Some(assigned)) => assigned.clone(),
            (Some(invited), None) => invited.shown.household.clone(),
            (None, None) => admit.household.clone(),
        };
        if let Some(invited) = invited {
            invited.shown.used = invited.shown.used.saturating_add(1);
            invited.last = Some(node);
        }
        let invitation = key.map(|(key, _)| key);
        let kept = invitation.and_then(|key| rules.removals.invitations.get(&key));
        let why = if rules.removals.nodes.contains(&node) {
            Some(WhyNot::RemovedNode)
        } else if rules.removals.households.contains(&household) {
            Some(WhyNot::RemovedHousehold(household.clone()))
        } else if kept.is_some_and(|kept| !kept.contains(&node)) {
            Some(WhyNot::RemovedInvitation)
        } else {
            None
        };
        let member = Member {
            node,
            identity: Author(verified.identity),
            household,
            sponsor: item.author(),
            admitted,
            invitation,
            signer: Author(verified.signer),
        };
        match why {
            Some(why) => {
                self.former.insert(node, FormerMember { member, why });
                true
            }
            None => {
                self.members.insert(node, member);
                false
            }
        }
    }

    /// Those whose sponsors never were in, or are out and cut off before.
    fn unsponsored(&mut self, rules: Rules<'_>) {
        for (author, items) in &rules.view.index.admits {
            let known = self.identities.contains(author) || rules.named.contains(author);
            let refused = if known { &mut self.cut } else { &mut self.strangers };
            for item in items.values() {
                let What::Admit(admit) = &item.what else { continue };
                let came = self.members.contains_key(&admit.node) || self.former.contains_key(&admit.node);
                if !came && unforked(rules.view.index, item) {
                    let why = admit.verified.as_ref().err().cloned();
                    let why = why.unwrap_or_else(|| WhyNot::SponsorOut(item.author().node()));
                    refused.entry(admit.node).or_insert(why);
                }
            }
        }
    }

    /// Why a node that is not in is not; `None`: nobody spoke of it.
    pub(super) fn why_not(&self, node: &NodeId) -> Option<WhyNot> {
        let former = self.former.get(node).map(|former| &former.why);
        former.or(self.refused.get(node)).or(self.cut.get(node)).or(self.strangers.get(node)).cloned()
    }

    /// The refused as the state shows them.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let came = |node: &NodeId| self.members.contains_key(node) || self.former.contains_key(node);
        let mut all: BTreeMap<&NodeId, &WhyNot> = self.cut.iter().filter(|(node, _)| !came(node)).collect();
        all.extend(&self.refused);
        let refused = all.into_iter().take(REFUSED_MAX);
        refused.map(|(node, why)| Refused { node: *node, why: why.clone() }).collect()
    }
}
