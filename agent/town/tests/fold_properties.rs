//! What holds for every history: order, duplicates and partitions do not matter, and stolen keys neither.
//!
//! `FOLD_SEED=n` runs one history again, `FOLD_ROUNDS=k` runs more of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod scene;

use std::ops::Range;

use grange_core::{Identity, certificate::by_invitation};
use grange_town::{
    entry::{Author, Entry, EntryHash, EntryRef, Signer as _},
    fact::{Decision, Fact, Removal},
    fold::{Facts, TownState, WhyNot},
    fork::ForkProof,
};
use grange_wire::Invitation;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use scene::{DAWN, Scene, fold, key_of, node, policy, remove};

/// Numbers of one seed.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.next_u64() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
        items
    }
}

fn seeds(rounds: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("FOLD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOLD_ROUNDS").unwrap_or(rounds),
    }
}

/// Somebody who does something at random in a town: good and bad, known and unknown.
struct Life {
    scene: Scene,
    dice: Dice,
    invitations: Vec<Invitation>,
    proposals: Vec<EntryHash>,
    policies: Vec<EntryHash>,
    nodes: usize,
    /// The second of the next thing that is done, if everybody's clock is right.
    clock: Option<u64>,
}

const STEWARDS: usize = 4;
const NODES: usize = 10;

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let threshold = u16::try_from(1 + dice.below(3)).unwrap();
        let (scene, _) = Scene::founded(STEWARDS, threshold);
        Self {
            scene,
            dice,
            invitations: Vec::new(),
            proposals: Vec::new(),
            policies: Vec::new(),
            nodes: NODES,
            clock: None,
        }
    }

    fn node(&mut self) -> Identity {
        node(u32::try_from(self.dice.below(self.nodes)).unwrap())
    }

    fn time(&mut self) -> u64 {
        if let Some(clock) = &mut self.clock {
            *clock += 1;
            return *clock;
        }
        if self.dice.one_in(5) { 0 } else { DAWN + u64::try_from(self.dice.below(20)).unwrap() }
    }

    fn household(&mut self) -> String {
        ["Meier", "Huber", "Bauer"][self.dice.below(3)].into()
    }

    fn cutoffs(&mut self, who: Author) -> Vec<EntryRef> {
        // Sometimes what is true today, sometimes an earlier place, sometimes nothing.
        let own = self.scene.entries.iter().filter(|entry| entry.place().author == who);
        let own: Vec<EntryRef> = own.map(|entry| EntryRef { place: entry.place(), hash: entry.hash() }).collect();
        match self.dice.below(3) {
            0 => self.scene.facts().cutoffs(who),
            1 => self.dice.pick(&own).copied().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn decision(&mut self) -> Decision {
        match self.dice.below(4) {
            0 => {
                let all: Vec<usize> = (0..STEWARDS).collect();
                let stay = 1 + self.dice.below(STEWARDS);
                let stay = self.dice.shuffled(&all)[..stay].to_vec();
                let mut stewards: Vec<Author> = stay.iter().map(|steward| self.scene.author(*steward)).collect();
                stewards.sort();
                let threshold = u16::try_from(1 + self.dice.below(stewards.len())).unwrap();
                let leaving = all.into_iter().filter(|steward| !stay.contains(steward));
                let cutoffs = leaving.flat_map(|steward| self.cutoffs(self.scene.author(steward))).collect();
                Decision::Stewards { stewards, threshold, cutoffs }
            }
            1 | 2 => {
                let gone = self.node();
                let mut removal = Removal { cutoffs: self.cutoffs(gone.author()), ..Removal::default() };
                match self.dice.below(4) {
                    0 => removal.households.push(self.household()),
                    1 if !self.invitations.is_empty() => {
                        let invitation = self.dice.pick(&self.invitations).map(key_of);
                        removal.invitations.extend(invitation);
                        removal.kept.push(self.node().id());
                    }
                    _ => removal.nodes.push(gone.id()),
                }
                remove(removal)
            }
            _ => {
                let previous = self.dice.pick(&self.policies).copied().unwrap_or(EntryHash::NONE);
                let copies = self.dice.below(10);
                policy(previous, &format!("store.copies = {copies}"))
            }
        }
    }

    fn step(&mut self) {
        let steward = self.dice.below(STEWARDS);
        let who = self.node();
        let time = self.time();
        match self.dice.below(12) {
            0 | 1 => {
                let uses = u16::try_from(self.dice.below(3)).unwrap();
                let expires = if self.dice.one_in(3) { DAWN + 10 } else { 0 };
                let household = self.household();
                let invitation = self.scene.invite(steward, uses, expires, &household);
                self.invitations.push(invitation);
            }
            2..=5 => {
                let Some(invitation) = self.dice.pick(&self.invitations).cloned() else { return };
                let newcomer = self.node();
                self.scene.join(&who, &invitation, &newcomer, time);
            }
            6 => {
                let household = self.household();
                self.scene.say(steward, time, &Fact::Assign { node: who.id(), household });
            }
            7 => {
                let label = ["mill", "brook", "hill"][self.dice.below(3)].into();
                self.scene.write(&who, time, &Fact::Name { label, services: vec![] });
            }
            8 => {
                let generation = u32::try_from(self.dice.below(3)).unwrap();
                let decision = self.decision();
                let is_policy = matches!(decision, Decision::Policy { .. });
                let proposal = self.scene.propose(steward, generation, decision);
                self.proposals.push(proposal);
                if is_policy {
                    self.policies.push(proposal);
                }
            }
            9 | 10 => {
                let Some(proposal) = self.dice.pick(&self.proposals).copied() else { return };
                self.scene.approve(steward, proposal);
            }
            _ if self.dice.one_in(4) => {
                // A disk is put back, or a life goes on from an earlier one.
                let own = self.scene.entries.iter().filter(|entry| entry.place().author == who.author());
                let own: Vec<EntryRef> =
                    own.map(|entry| EntryRef { place: entry.place(), hash: entry.hash() }).collect();
                let Some(parent) = self.dice.pick(&own).copied() else { return };
                if self.dice.one_in(2) {
                    self.scene.rewind(&who, parent.place.life, Some(parent));
                } else {
                    let life = u64::try_from(2 + self.dice.below(4)).unwrap();
                    self.scene.write_in(&who, life, time, &Fact::Begin { parent });
                }
            }
            _ => drop(self.scene.write_bytes(&who, 1, time, &[1, 99, 0])),
        }
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }
}

/// Any order, with duplicates, with looks at the state in between, and with entries that come very late: one state.
#[test]
fn order_duplicates_and_late_arrival_do_not_matter() {
    let mut entries = 0;
    let mut kinds = [0_usize; 4];
    for seed in seeds(60) {
        let mut life = Life::new(seed);
        life.steps(80);
        let (scene, mut dice) = (life.scene, life.dice);
        let expected = scene.state();
        for _ in 0..4 {
            let mut order = dice.shuffled(&scene.entries);
            let late = order.split_off(order.len() - dice.below(10));
            let mut facts = Facts::new(scene.town, None);
            for entry in order.iter().chain(order.iter().take(20)).chain(&late) {
                facts.add(entry);
                if dice.one_in(8) {
                    facts.state();
                }
            }
            assert_eq!(**facts.state(), expected, "seed {seed}");
            assert_eq!(facts.state().hash(), expected.hash(), "seed {seed}");
        }
        entries += scene.entries.len();
        let seen = [expected.members.len(), expected.former.len(), expected.refused.len(), expected.problems.len()];
        kinds.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen);
    }
    println!("{entries} entries; members, former, refused, problems: {kinds:?}");
    assert!(
        kinds.iter().all(|sum| *sum > 0) || std::env::var("FOLD_SEED").is_ok(),
        "{kinds:?}: the histories show too little"
    );
}

/// A node that looks after each entry, and so computes a little at a time, sees what one sees that computes all at once.
#[test]
fn one_entry_at_a_time_is_as_all_at_once() {
    for seed in seeds(20) {
        let mut life = Life::new(11_000 + seed);
        life.nodes = 20;
        life.clock = Some(DAWN);
        life.steps(100);
        let (scene, mut dice) = (life.scene, life.dice);
        let mut facts = Facts::new(scene.town, None);
        for (at, entry) in scene.entries.iter().enumerate() {
            facts.add(entry);
            let state = facts.state().clone();
            if dice.one_in(4) {
                assert_eq!(*state, fold(scene.town, &scene.entries[..=at]), "seed {seed}, entry {at}");
            }
        }
    }
}

/// Two halves go on for themselves and meet: what each did is in both, and both are the same.
#[test]
fn partitions_agree_when_they_meet() {
    for seed in seeds(30) {
        let mut life = Life::new(1000 + seed);
        life.steps(40);
        let common = life.scene.entries.len();
        // Nodes and stewards of each half write logs of their own: who is where is drawn anew for each entry's author.
        life.steps(60);
        let (scene, mut dice) = (life.scene, life.dice);
        let side: Vec<bool> = (0..256).map(|_| dice.one_in(2)).collect();
        let here = |entry: &&Entry| side[usize::from(entry.place().author.0[0])];
        let news = &scene.entries[common..];
        let mut left = scene::facts(scene.town, scene.entries[..common].iter().chain(news.iter().filter(here)));
        let mut right =
            scene::facts(scene.town, scene.entries[..common].iter().chain(news.iter().filter(|entry| !here(entry))));
        let _ = (left.state(), right.state());
        for entry in news {
            if here(&entry) {
                right.add(entry)
            } else {
                left.add(entry)
            };
        }
        assert_eq!(left.state(), right.state(), "seed {seed}");
    }
}

/// One half removes an invitation, the other admits by it and invites: out is out, and what is not of it stays.
#[test]
fn a_removal_wins_over_what_was_concurrent() {
    let (mut scene, first) = Scene::founded(2, 1);
    let leaked = scene.invite(0, 0, 0, "Meier");
    scene.join(&first, &leaked, &node(1), DAWN);
    let common = scene.entries.len();
    scene.decide(&[0], 0, remove(Removal { invitations: vec![key_of(&leaked)], ..Removal::default() }));
    let removed = scene.entries[common..].to_vec();
    let before_right = scene.entries.len();
    scene.join(&first, &leaked, &node(2), DAWN + 1);
    let good = scene.invite(1, 1, 0, "Huber");
    scene.join(&first, &good, &node(3), DAWN + 2);
    let joined = scene.entries[before_right..].to_vec();
    let common = &scene.entries[..common];
    let right = fold(scene.town, common.iter().chain(&joined));
    assert!(right.member(&node(2).id()).is_some() && right.member(&node(3).id()).is_some());
    let one = fold(scene.town, common.iter().chain(&removed).chain(&joined));
    let other = fold(scene.town, joined.iter().chain(common).chain(&removed));
    assert_eq!(one, other);
    assert!(one.member(&node(1).id()).is_none() && one.member(&node(2).id()).is_none());
    assert!(one.member(&node(3).id()).is_some());
}

/// For every k of n and every subset of stewards: a decision counts exactly if the subset is large enough.
#[test]
fn k_of_n_with_every_subset() {
    for n in 1..=5_usize {
        for k in 1..=n {
            let (scene, first) = Scene::founded(n, u16::try_from(k).unwrap());
            let (town, common) = (scene.town, scene.entries.clone());
            for subset in 1..1_usize << n {
                let mut scene = Scene::founded(n, u16::try_from(k).unwrap()).0;
                assert_eq!(scene.entries, common);
                let who: Vec<usize> = (0..n).filter(|steward| subset >> steward & 1 == 1).collect();
                scene.decide(&who, 0, remove(Removal { nodes: vec![first.id()], ..Removal::default() }));
                scene.decide(&who, 0, policy(EntryHash::NONE, "store.copies = 2"));
                let mut all: Vec<Author> = (0..n).map(|steward| scene.author(steward)).collect();
                all.sort();
                let stewards = Decision::Stewards { stewards: all, threshold: 1, cutoffs: vec![] };
                scene.decide(&who, 0, stewards);
                let state = fold(town, &scene.entries);
                let enough = who.len() >= k;
                assert_eq!(state.members.is_empty(), enough, "{who:?} of {n}, {k} needed");
                assert_eq!(state.policy.rules.store_copies.0 == 2, enough);
                assert_eq!(state.generation == 1, enough);
                // Once decided, nothing of the old generation is open any more.
                assert_eq!(state.proposals.len(), if enough { 0 } else { 3 });
            }
        }
    }
}

/// A steward's key that was stolen and replaced may sign what it likes, as often as it likes and anywhere in its log.
#[test]
fn a_stolen_key_changes_nothing_after_its_cutoff() {
    const THIEF: usize = 2;
    for seed in seeds(60) {
        let mut life = Life::new(3000 + seed);
        // Two of four decide; the thief has one key.
        life.scene = Scene::founded(STEWARDS, 2).0;
        let first = node(0);
        for _ in 0..3 {
            let invitation = life.scene.invite(life.dice.below(STEWARDS), 0, 0, "Meier");
            let newcomer = life.node();
            life.scene.join(&first, &invitation, &newcomer, DAWN + 1);
            life.invitations.push(invitation);
        }
        // Proposals that lack one approval: what the thief would like to add.
        let decisions = [
            remove(Removal { nodes: vec![first.id()], ..Removal::default() }),
            policy(EntryHash::NONE, "store.copies = 1"),
            {
                let mut keys: Vec<Author> = [1, 3, THIEF].map(|steward| life.scene.author(steward)).into();
                keys.sort();
                let cutoffs = life.scene.facts().cutoffs(life.scene.author(0));
                Decision::Stewards { stewards: keys, threshold: 2, cutoffs }
            },
        ];
        let wanted = decisions.map(|decision| life.scene.propose(0, 0, decision));
        let cutoffs = life.scene.facts().cutoffs(life.scene.author(THIEF));
        let mut stewards: Vec<Author> = [0, 1, 3].map(|steward| life.scene.author(steward)).into();
        stewards.sort();
        life.scene.decide(&[1, 3], 0, Decision::Stewards { stewards, threshold: 2, cutoffs });
        let before = without_problems(life.scene.state());
        assert_eq!(before.generation, 1, "seed {seed}");
        let thief = scene::steward(life.scene.town, THIEF);
        for _ in 0..30 {
            let own = life.scene.entries.iter().filter(|entry| entry.place().author == thief.author());
            let own: Vec<EntryRef> = own.map(|entry| EntryRef { place: entry.place(), hash: entry.hash() }).collect();
            match life.dice.below(6) {
                0 => {
                    let invitation = life.scene.draw(THIEF, 0, 0);
                    life.scene.write(&thief, DAWN, &scene::invite_fact(&invitation, "Thief"));
                    let newcomer = node(90);
                    life.scene.join(&first, &invitation, &newcomer, DAWN);
                }
                1 => drop(life.scene.admit_by_steward(THIEF, &node(91), DAWN)),
                2 => {
                    let proposal = *life.dice.pick(&wanted).unwrap();
                    life.scene.write(&thief, DAWN, &Fact::Approve { proposal });
                }
                3 => {
                    let generation = u32::try_from(life.dice.below(2)).unwrap();
                    let decision = life.decision();
                    life.scene.write(&thief, DAWN, &Fact::Propose { generation, decision });
                }
                4 => {
                    let back = if life.dice.one_in(3) { None } else { life.dice.pick(&own).copied() };
                    life.scene.rewind(&thief, 1, back);
                }
                _ => {
                    let Some(parent) = life.dice.pick(&own).copied() else { continue };
                    let life_number = u64::try_from(5 + life.dice.below(3)).unwrap();
                    life.scene.write_in(&thief, life_number, DAWN, &Fact::Begin { parent });
                }
            }
        }
        let mut after = without_problems(life.scene.state());
        after.refused.clear();
        assert_eq!(after, before, "seed {seed}");
    }
}

fn without_problems(mut state: TownState) -> TownState {
    state.problems.clear();
    state
}

/// An author who writes two histories: nodes that hold the one or the other, and both proofs, agree.
#[test]
fn whichever_history_of_a_fork_one_has_the_proof_makes_it_the_same() {
    for seed in seeds(40) {
        let mut life = Life::new(5000 + seed);
        let first = node(0);
        let invitation = life.scene.invite(0, 0, 0, "Meier");
        let forker = node(1);
        life.scene.join(&first, &invitation, &forker, DAWN);
        for number in 2..2 + u32::try_from(life.dice.below(5)).unwrap() {
            life.scene.join(&forker, &invitation, &node(number), DAWN);
        }
        let (common, end) = (life.scene.entries.len(), life.scene.end(&forker));
        let branch = |life: &mut Life, from: u32| {
            life.scene.rewind(&forker, 1, end);
            let start = life.scene.entries.len();
            for number in from..from + 1 + u32::try_from(life.dice.below(4)).unwrap() {
                life.scene.join(&forker, &invitation, &node(number), DAWN);
            }
            life.scene.write(&forker, DAWN, &Fact::Name { label: format!("name-{from}"), services: vec![] });
            life.scene.entries[start..].to_vec()
        };
        let (one, other) = (branch(&mut life, 20), branch(&mut life, 30));
        let proof = ForkProof::new(&one[0], &other[0]).unwrap();
        let common = &life.scene.entries[..common];
        let mut states = Vec::new();
        for held in [&one[..], &other[..], &[]] {
            let mut facts = scene::facts(life.scene.town, common.iter().chain(held));
            let before = facts.state().members.len();
            assert!(facts.add_fork(&proof));
            assert!(!facts.add_fork(&proof), "once");
            assert_eq!(before - facts.state().members.len(), held.len().saturating_sub(1), "seed {seed}");
            states.push(facts.state().hash());
        }
        let all = fold(life.scene.town, common.iter().chain(&other).chain(&one));
        states.push(all.hash());
        assert!(states.iter().all(|state| *state == states[0]), "seed {seed}");
    }
}

/// What certificates the fold would take agrees with what it takes.
#[test]
fn what_may_come_in_comes_in() {
    let mut both = [0; 2];
    for seed in seeds(30) {
        let mut life = Life::new(7000 + seed);
        life.steps(70);
        let Some(invitation) = life.dice.pick(&life.invitations).cloned() else { continue };
        let newcomer = node(500);
        let Ok(certificate) = by_invitation(&invitation, &newcomer, 0) else { continue };
        let mut facts = life.scene.facts();
        let why_not = facts.why_not_certificate(&certificate, DAWN + 100);
        // A member that no fork and no removal concerns lets it in.
        let state = facts.state().clone();
        let forked = |author: Author| {
            state
                .problems
                .iter()
                .any(|problem| matches!(problem, grange_town::fold::Problem::Fork { log, .. } if log.author == author))
        };
        let sponsors: Vec<Identity> = (0..u32::try_from(NODES).unwrap()).map(node).collect();
        let sponsor = sponsors.iter().find(|node| state.member(&node.id()).is_some() && !forked(node.author()));
        let Some(sponsor) = sponsor else { continue };
        // Whoever came at a time that nobody knew, or by such a one, makes room for one who comes at a known one.
        let former = state.former.iter().map(|former| &former.member);
        let unknown = state.members.iter().chain(former).any(|member| member.admitted.is_none());
        life.scene.join(sponsor, &invitation, &newcomer, DAWN + 100);
        let is_in = life.scene.is_member(&newcomer);
        let room = unknown && matches!(why_not, Some(WhyNot::Spent { .. }));
        assert!(room || is_in == why_not.is_none(), "seed {seed}: {why_not:?}, and it is in: {is_in}");
        both[usize::from(is_in)] += 1;
    }
    println!("{} came in, {} did not", both[1], both[0]);
}

/// Nodes only ask for the logs of authors whom they know; what others wrote, and another half of the town may have kept,
/// changes no state.
#[test]
fn what_unknown_authors_write_does_not_matter() {
    let mut left_out = 0;
    for seed in seeds(30) {
        let mut life = Life::new(9000 + seed);
        life.nodes = 25;
        life.steps(90);
        let scene = life.scene;
        let mut facts = scene.facts();
        let state = facts.state().clone();
        let known: Vec<Entry> =
            scene.entries.iter().filter(|entry| facts.knows(&entry.place().author)).cloned().collect();
        left_out += scene.entries.len() - known.len();
        assert_eq!(fold(scene.town, &known), *state, "seed {seed}");
        // And as a new node does: first the founder's log, then those of whom it knows by then.
        let mut new = Facts::new(scene.town, None);
        loop {
            let before = new.len();
            let mut had: Vec<Author> = scene.entries.iter().map(|entry| entry.place().author).collect();
            had.sort();
            had.dedup();
            had.retain(|author| new.knows(author));
            for entry in scene.entries.iter().filter(|entry| had.contains(&entry.place().author)) {
                new.add(entry);
            }
            if new.len() == before {
                break;
            }
        }
        assert_eq!(*new.state(), state, "seed {seed}");
    }
    assert!(left_out > 0 || std::env::var("FOLD_SEED").is_ok());
}
