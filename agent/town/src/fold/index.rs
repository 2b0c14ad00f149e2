//! The entries by what they say: what a fold needs, kept up entry by entry.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use grange_core::certificate::{self, Verified};
use grange_wire::{Certificate, NodeId, TownId};

use super::reason::WhyNot;
use crate::{
    entry::{Author, Entry, EntryHash, LogId, Place},
    fact::{Decision, Decoded, Fact, FactError, Service},
    fork::ForkProof,
    policy::Policy,
};

/// An entry, decoded and with all that can be said of it by itself.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) hash: EntryHash,
    pub(super) previous: EntryHash,
    pub(super) time: u64,
    pub(super) what: What,
}

impl Item {
    pub(super) fn author(&self) -> Author {
        self.place.author
    }
}

/// What an entry says, checked as far as it can be alone.
#[derive(Debug)]
pub(super) enum What {
    /// Something of a later version.
    Nothing,
    /// No fact.
    Wrong(FactError),
    Begin(Place),
    Found {
        name: String,
        stewards: Vec<Author>,
        threshold: u16,
    },
    Propose(Proposed),
    Approve(EntryHash),
    Invite(Invite),
    Admit(Box<Admit>),
    Name {
        label: String,
        services: Vec<Service>,
    },
    Assign {
        node: NodeId,
        household: String,
    },
}

#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) generation: u32,
    pub(super) decision: Arc<Decision>,
    /// The rules, or what they break, if it is a policy.
    pub(super) policy: Option<Result<Arc<Policy>, String>>,
}

#[derive(Debug)]
pub(super) struct Invite {
    pub(super) key: [u8; 32],
    pub(super) uses: u16,
    pub(super) expires: u64,
    pub(super) household: String,
}

#[derive(Debug)]
pub(super) struct Admit {
    pub(super) node: NodeId,
    /// The certificate, if its signatures are good.
    pub(super) verified: Result<Verified, WhyNot>,
    pub(super) household: String,
}

/// How much of the state an entry can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Nothing,
    Names,
    Admission,
    Members,
    All,
}

pub(super) type Items = BTreeMap<EntryHash, Arc<Item>>;

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) items: Items,
    places: BTreeMap<Place, Vec<EntryHash>>,
    /// The first number in each log at which there are two entries.
    pub(super) forks: BTreeMap<LogId, u64>,
    /// Where each life goes on from. Of several, as a fork has them, that of the lowest hash.
    begins: BTreeMap<LogId, (EntryHash, Place)>,
    pub(super) foundings: Items,
    /// Proposals but those of stewards.
    pub(super) proposals: Items,
    /// Proposals of stewards, by the generation that decides.
    pub(super) changes: BTreeMap<u32, Items>,
    approvals: BTreeMap<EntryHash, BTreeMap<Author, Items>>,
    pub(super) invites: Items,
    pub(super) admits: BTreeMap<Author, Items>,
    pub(super) names: BTreeMap<Author, Items>,
    pub(super) assigns: Items,
    pub(super) wrong: Items,
}

impl Index {
    /// Takes an entry; `None` if it is there already.
    pub(super) fn add(&mut self, entry: &Entry, town: &TownId) -> Option<Reach> {
        let hash = entry.hash();
        let btree_map::Entry::Vacant(vacant) = self.items.entry(hash) else { return None };
        let place = entry.place();
        let item = Arc::new(Item {
            place,
            hash,
            previous: entry.previous(),
            time: entry.time(),
            what: read(entry.payload(), place.author, town),
        });
        vacant.insert(item.clone());
        let forked = self.place(&item);
        let author = item.author();
        let reach = match &item.what {
            What::Nothing => Reach::Nothing,
            What::Wrong(_) => {
                self.wrong.insert(hash, item);
                Reach::All
            }
            What::Begin(parent) => {
                let begin = self.begins.entry(place.log()).or_insert((hash, *parent));
                *begin = (*begin).min((hash, *parent));
                Reach::All
            }
            What::Found { .. } => {
                self.foundings.insert(hash, item);
                Reach::All
            }
            What::Propose(proposed) => {
                if matches!(*proposed.decision, Decision::Stewards { .. }) {
                    self.changes.entry(proposed.generation).or_default().insert(hash, item.clone());
                } else {
                    self.proposals.insert(hash, item);
                }
                Reach::All
            }
            What::Approve(proposal) => {
                let approvals = self.approvals.entry(*proposal).or_default();
                approvals.entry(author).or_default().insert(hash, item);
                Reach::All
            }
            What::Invite(_) => {
                self.invites.insert(hash, item);
                Reach::Members
            }
            What::Admit(_) => {
                self.admits.entry(author).or_default().insert(hash, item);
                Reach::Admission
            }
            What::Name { .. } => {
                self.names.entry(author).or_default().insert(hash, item);
                Reach::Names
            }
            What::Assign { .. } => {
                self.assigns.insert(hash, item);
                Reach::Members
            }
        };
        Some(if forked { Reach::All } else { reach })
    }

    /// Takes a proof that an author wrote two histories; whether it says anything new.
    pub(super) fn add_fork(&mut self, proof: &ForkProof) -> bool {
        self.fork(proof.place())
    }

    /// Puts an item at its place; whether that shows a fork that was not known.
    fn place(&mut self, item: &Item) -> bool {
        let mut at = self.places.get(&item.place).map(|_| item.place);
        self.places.entry(item.place).or_default().push(item.hash);
        let neighbour = |seq: Option<u64>| seq.map(|seq| item.place.log().at(seq));
        // The entries before and after it must link up with it.
        if let Some(before) = neighbour(item.place.seq.checked_sub(1))
            && self.places.get(&before).is_some_and(|known| !known.contains(&item.previous))
        {
            at = Some(before);
        }
        if at.is_none()
            && let Some(after) = neighbour(item.place.seq.checked_add(1))
            && self.places.get(&after).is_some_and(|known| {
                known.iter().any(|hash| self.items.get(hash).is_some_and(|after| after.previous != item.hash))
            })
        {
            at = Some(item.place);
        }
        at.is_some_and(|at| self.fork(at))
    }

    fn fork(&mut self, at: Place) -> bool {
        match self.forks.entry(at.log()) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(at.seq);
                true
            }
            btree_map::Entry::Occupied(mut known) => {
                let lower = at.seq < *known.get();
                if lower {
                    known.insert(at.seq);
                }
                lower
            }
        }
    }

    /// Where a log goes on from.
    pub(super) fn parent(&self, log: LogId) -> Option<Place> {
        self.begins.get(&log).map(|(_, parent)| *parent).filter(|parent| parent.author == log.author)
    }

    /// The entries at a place.
    pub(super) fn at(&self, place: &Place) -> &[EntryHash] {
        self.places.get(place).map_or(&[], Vec::as_slice)
    }

    /// All that an author wrote.
    pub(super) fn of(&self, author: Author) -> impl Iterator<Item = &Arc<Item>> {
        let first = Place { author, life: 0, seq: 0 };
        let last = Place { author, life: u64::MAX, seq: u64::MAX };
        self.places.range(first..=last).flat_map(|(_, hashes)| hashes).filter_map(|hash| self.items.get(hash))
    }

    /// The approvals of a proposal, by author.
    pub(super) fn approvals(&self, proposal: &EntryHash) -> impl Iterator<Item = (Author, &Arc<Item>)> {
        let authors = self.approvals.get(proposal).into_iter().flatten();
        authors.flat_map(|(author, items)| items.values().map(|item| (*author, item)))
    }
}

/// What a payload says, with everything checked that needs no other entry.
fn read(payload: &[u8], author: Author, town: &TownId) -> What {
    let fact = match Fact::decode(payload) {
        Ok(Decoded::Fact(fact)) => fact,
        Ok(Decoded::Unknown) => return What::Nothing,
        Err(error) => return What::Wrong(error),
    };
    match fact {
        Fact::Begin { parent } => What::Begin(parent.place),
        Fact::Found { name, stewards, threshold } => {
            if TownId::of_founder(&author.0) == *town {
                What::Found { name, stewards, threshold }
            } else {
                What::Wrong(FactError::Stewards)
            }
        }
        Fact::Propose { generation, decision } => {
            let policy = match &decision {
                Decision::Policy { text, .. } => {
                    Some(Policy::parse(text).map(Arc::new).map_err(|problems| problems.first()))
                }
                _ => None,
            };
            What::Propose(Proposed { generation, decision: Arc::new(decision), policy })
        }
        Fact::Approve { proposal } => What::Approve(proposal),
        Fact::Invite { key, uses, expires, household } => What::Invite(Invite { key, uses, expires, household }),
        Fact::Admit { certificate, household } => match Certificate::parse(&certificate) {
            Ok(view) => {
                let node = NodeId::of_key(&view.identity());
                let verified = certificate::check(&certificate, town).map_err(WhyNot::from);
                What::Admit(Box::new(Admit { node, verified, household }))
            }
            Err(_) => What::Wrong(FactError::Certificate),
        },
        Fact::Name { label, services } => What::Name { label, services },
        Fact::Assign { node, household } => What::Assign { node, household },
    }
}
