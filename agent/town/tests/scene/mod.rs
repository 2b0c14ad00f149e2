//! A town in the making, for the tests of the fold: everybody's keys and logs in one hand.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use grange_core::{
    Identity,
    certificate::{Steward, by_invitation, by_steward},
};
use grange_town::{
    entry::{Author, Entry, EntryHash, EntryRef, Signer},
    fact::{Decision, Fact, Removal},
    fold::{Facts, TownState},
};
use grange_wire::{Invitation, TownId, TownName};

/// A second of mesh time at which nothing has happened yet.
pub(crate) const DAWN: u64 = 1_800_000_000;

/// All keys and logs of a town.
pub(crate) struct Scene {
    pub(crate) town: TownId,
    /// The first one founded the town.
    pub(crate) stewards: Vec<Steward>,
    /// The end of each log: author and life.
    ends: BTreeMap<(Author, u64), EntryRef>,
    pub(crate) entries: Vec<Entry>,
    next_seed: u8,
}

impl Scene {
    /// A town of so many stewards, of whom `threshold` decide. The first node is in by the founder's hand.
    pub(crate) fn founded(stewards: usize, threshold: u16) -> (Self, Identity) {
        let mut scene = Self::unfounded(stewards);
        let mut keys: Vec<Author> = scene.stewards.iter().map(Signer::author).collect();
        keys.sort();
        scene.say(0, DAWN, &Fact::Found { name: "Oberdorf".into(), stewards: keys, threshold });
        let first = node(0);
        scene.admit_by_steward(0, &first, DAWN);
        (scene, first)
    }

    pub(crate) fn unfounded(stewards: usize) -> Self {
        let founder = Steward::from_seed(&[200; 32]);
        let town = founder.town();
        let others = (1..stewards).map(|number| steward(town, number));
        let stewards = std::iter::once(founder).chain(others).collect();
        Self { town, stewards, ends: BTreeMap::new(), entries: Vec::new(), next_seed: 0 }
    }

    /// What an author says next in life 1.
    pub(crate) fn write(&mut self, who: &dyn Signer, time: u64, fact: &Fact) -> Entry {
        self.write_in(who, 1, time, fact)
    }

    /// What an author says next in one of its lives.
    pub(crate) fn write_in(&mut self, who: &dyn Signer, life: u64, time: u64, fact: &Fact) -> Entry {
        self.write_bytes(who, life, time, &fact.encode().unwrap())
    }

    pub(crate) fn write_bytes(&mut self, who: &dyn Signer, life: u64, time: u64, payload: &[u8]) -> Entry {
        let end = self.ends.get(&(who.author(), life));
        let (seq, previous) = end.map_or((1, EntryHash::NONE), |end| (end.place.seq + 1, end.hash));
        let entry = Entry::sign(who, &self.town, life, seq, previous, time, payload).unwrap();
        self.ends.insert((who.author(), life), EntryRef { place: entry.place(), hash: entry.hash() });
        self.entries.push(entry.clone());
        entry
    }

    /// Goes back in a log, as a disk does that is put back: the next entry is a second one at that place.
    pub(crate) fn rewind(&mut self, who: &dyn Signer, life: u64, to: Option<EntryRef>) {
        match to {
            Some(end) => self.ends.insert((who.author(), life), end),
            None => self.ends.remove(&(who.author(), life)),
        };
    }

    pub(crate) fn end(&self, who: &dyn Signer) -> Option<EntryRef> {
        self.ends.get(&(who.author(), 1)).copied()
    }

    /// What a steward says.
    pub(crate) fn say(&mut self, steward: usize, time: u64, fact: &Fact) -> Entry {
        let seed_of = |scene: &Self| copy(&scene.stewards[steward], scene.town, steward);
        let signer = seed_of(self);
        self.write(&signer, time, fact)
    }

    pub(crate) fn invite(&mut self, steward: usize, uses: u16, expires: u64, household: &str) -> Invitation {
        let invitation = self.draw(steward, uses, expires);
        self.say(steward, DAWN, &invite_fact(&invitation, household));
        invitation
    }

    /// An invitation that stands in no log yet.
    pub(crate) fn draw(&mut self, steward: usize, uses: u16, expires: u64) -> Invitation {
        self.next_seed += 1;
        let name = TownName::new("Oberdorf").unwrap();
        self.stewards[steward].invite(&[9; 32], name, uses, expires, &[self.next_seed; 32])
    }

    /// A member, or steward, lets a node in by an invitation; the node does not know the time.
    pub(crate) fn join(&mut self, sponsor: &dyn Signer, invitation: &Invitation, node: &Identity, time: u64) -> Entry {
        let certificate = by_invitation(invitation, node, 0).unwrap();
        self.write(sponsor, time, &Fact::Admit { certificate, household: String::new() })
    }

    pub(crate) fn admit_by_steward(&mut self, steward: usize, node: &Identity, time: u64) -> Entry {
        let certificate = by_steward(&self.stewards[steward], node, time);
        self.say(steward, time, &Fact::Admit { certificate, household: "Founders".into() })
    }

    pub(crate) fn propose(&mut self, steward: usize, generation: u32, decision: Decision) -> EntryHash {
        self.say(steward, DAWN, &Fact::Propose { generation, decision }).hash()
    }

    pub(crate) fn approve(&mut self, steward: usize, proposal: EntryHash) {
        self.say(steward, DAWN, &Fact::Approve { proposal });
    }

    /// A decision that these stewards take together.
    pub(crate) fn decide(&mut self, stewards: &[usize], generation: u32, decision: Decision) -> EntryHash {
        let proposal = self.propose(stewards[0], generation, decision);
        for steward in &stewards[1..] {
            self.approve(*steward, proposal);
        }
        proposal
    }

    pub(crate) fn author(&self, steward: usize) -> Author {
        self.stewards[steward].author()
    }

    /// Where a steward's log ends now.
    pub(crate) fn steward_end(&self, steward: usize) -> Vec<EntryRef> {
        self.end(&self.stewards[steward]).into_iter().collect()
    }

    pub(crate) fn facts(&self) -> Facts {
        facts(self.town, &self.entries)
    }

    pub(crate) fn state(&self) -> TownState {
        fold(self.town, &self.entries)
    }

    pub(crate) fn is_member(&self, node: &Identity) -> bool {
        self.state().member(&node.id()).is_some()
    }

    /// Why a node is not in, as a sentence.
    pub(crate) fn why_not(&self, node: &Identity) -> String {
        self.facts().why_not(&node.id()).map_or_else(|| "it is in".into(), |why| why.to_string())
    }
}

/// Another copy of a steward's key: keys cannot be cloned, and are made of a number here.
fn copy(steward: &Steward, town: TownId, number: usize) -> Steward {
    let copy = if number == 0 { Steward::from_seed(&[200; 32]) } else { self::steward(town, number) };
    assert_eq!(copy.public(), steward.public());
    copy
}

pub(crate) fn steward(town: TownId, number: usize) -> Steward {
    Steward::of_town(&[200 + u8::try_from(number).unwrap(); 32], town)
}

pub(crate) fn node(number: u32) -> Identity {
    let mut seed = [50; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

pub(crate) fn invite_fact(invitation: &Invitation, household: &str) -> Fact {
    let grant = grange_core::certificate::check_invitation(invitation).unwrap();
    Fact::invite(&grant, household)
}

pub(crate) fn remove(removal: Removal) -> Decision {
    Decision::Remove(removal)
}

pub(crate) fn key_of(invitation: &Invitation) -> [u8; 32] {
    grange_core::certificate::check_invitation(invitation).unwrap().key
}

pub(crate) fn policy(previous: EntryHash, text: &str) -> Decision {
    Decision::Policy { previous, text: text.into() }
}

pub(crate) fn facts<'a>(town: TownId, entries: impl IntoIterator<Item = &'a Entry>) -> Facts {
    let mut facts = Facts::new(town, None);
    for entry in entries {
        facts.add(entry);
    }
    facts
}

pub(crate) fn fold<'a>(town: TownId, entries: impl IntoIterator<Item = &'a Entry>) -> TownState {
    TownState::clone(facts(town, entries).state())
}
