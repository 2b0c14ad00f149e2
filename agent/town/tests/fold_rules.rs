//! The rules of `docs/town.md`, Folds, one by one.

#![allow(clippy::unwrap_used, reason = "a test")]

mod scene;

use std::collections::BTreeMap;

use grange_core::{Identity, certificate::by_invitation};
use grange_town::{
    entry::{Author, EntryHash, EntryRef, Signer as _},
    fact::{Decision, Fact, Removal, Service, Transport},
    fold::{Problem, TownState, WhyNot},
    names::{Answer, Zone},
};
use grange_wire::{node_address, node_address_v4};
use scene::{DAWN, Scene, invite_fact, key_of, node, policy, remove};

fn sorted(scene: &Scene, stewards: &[usize]) -> Vec<Author> {
    let mut keys: Vec<Author> = stewards.iter().map(|steward| scene.author(*steward)).collect();
    keys.sort();
    keys
}

fn stewards(scene: &Scene, stewards: &[usize], threshold: u16, cutoffs: Vec<EntryRef>) -> Decision {
    Decision::Stewards { stewards: sorted(scene, stewards), threshold, cutoffs }
}

#[test]
fn a_town_is_founded_and_its_first_nodes_come() {
    assert_eq!(Scene::unfounded(1).state(), TownState::default());
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 2, 0, "Meier");
    let (a, b) = (node(1), node(2));
    scene.join(&first, &invitation, &a, DAWN + 10);
    scene.join(&a, &invitation, &b, DAWN + 20);
    let state = scene.state();
    assert_eq!(
        (state.name.as_str(), state.label.as_str(), state.generation, state.threshold),
        ("Oberdorf", "oberdorf", 0, 1)
    );
    assert_eq!(state.members.len(), 3);
    let of_b = state.member(&b.id()).unwrap();
    assert_eq!((of_b.household.as_str(), of_b.sponsor, of_b.admitted), ("Meier", a.author(), Some(DAWN + 20)));
    assert_eq!(of_b.invitation, Some(key_of(&invitation)));
    assert_eq!(state.member(&first.id()).unwrap().household, "Founders");
    let shown = &state.invitations[0];
    assert_eq!((shown.uses, shown.used, shown.left()), (2, 2, Some(0)));
    assert!(state.problems.is_empty() && state.refused.is_empty());
}

/// Everything in one state, pinned: whoever changes a rule or the form of the state sees it here, and so does a machine on
/// which it comes out otherwise.
#[test]
fn the_hash_of_a_state_is_the_same_everywhere() {
    let (mut scene, first) = Scene::founded(3, 2);
    let invitation = scene.invite(1, 2, DAWN + 1000, "Müller");
    for (number, time) in [(1, DAWN + 30), (2, DAWN + 20), (3, 0)] {
        scene.join(&first, &invitation, &node(number), time);
    }
    let http = Service { name: "http".into(), transport: Transport::Tcp, port: 80 };
    scene.write(&node(1), DAWN, &Fact::Name { label: "mill".into(), services: vec![http] });
    scene.write(&node(2), DAWN, &Fact::Name { label: "mill".into(), services: vec![] });
    scene.decide(&[0, 1], 0, policy(EntryHash::NONE, "store.copies = 3"));
    scene.decide(&[0, 2], 0, remove(Removal { nodes: vec![node(2).id()], ..Removal::default() }));
    scene.propose(0, 0, Decision::Snapshot { vector: [1; 32], kept: [2; 32], state: [3; 32] });
    let end = scene.end(&node(1));
    scene.write(&node(1), DAWN, &Fact::Name { label: "brook".into(), services: vec![] });
    scene.rewind(&node(1), 1, end);
    scene.write(&node(1), DAWN, &Fact::Name { label: "hill".into(), services: vec![] });
    let hash: String = scene.state().hash().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "cdceefad16c80f07280cbd319a8427205fc05be3b747f4e4ac29b35a86aee5db");
}

#[test]
fn in_an_open_town_everybody_comes_and_nobody_decides() {
    let mut scene = Scene::unfounded(2);
    scene.say(0, DAWN, &Fact::Found { name: "Oberdorf".into(), stewards: vec![], threshold: 0 });
    let (a, b) = (node(1), node(2));
    scene.admit_by_steward(0, &a, DAWN);
    // By an invitation that is in no log, made by whoever.
    let invitation = scene.draw(1, 1, 0);
    scene.join(&a, &invitation, &b, DAWN + 1);
    scene.propose(1, 0, remove(Removal { nodes: vec![a.id()], ..Removal::default() }));
    let change = stewards(&scene, &[1], 1, vec![]);
    scene.propose(1, 0, change);
    let state = scene.state();
    assert!(state.open && state.stewards.is_empty());
    assert_eq!((state.members.len(), state.generation), (2, 0));
}

#[test]
fn a_second_founding_counts_where_it_is_known_as_the_first() {
    let (mut scene, _) = Scene::founded(1, 1);
    let first = scene.entries[0].hash();
    let founder = scene.author(0);
    let again = Fact::Found { name: "Unterdorf".into(), stewards: vec![founder], threshold: 1 };
    let second = scene.say(0, DAWN + 1, &again).hash();
    let lowest = scene.state().founding;
    assert_eq!(lowest, Some(first.min(second)));
    for known in [first, second] {
        let mut facts = grange_town::fold::Facts::new(scene.town, Some(known));
        assert_eq!(facts.state().founding, None, "it waits for its own");
        for entry in &scene.entries {
            facts.add(entry);
        }
        assert_eq!(facts.state().founding, Some(known));
        assert!(matches!(facts.state().problems[..], [Problem::Founding { .. }]));
    }
}

#[test]
fn the_earliest_come_by_an_invitation_and_the_others_are_told() {
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 1, 0, "Meier");
    let (early, late, never) = (node(1), node(2), node(3));
    scene.join(&first, &invitation, &late, DAWN + 20);
    scene.join(&first, &invitation, &never, 0);
    assert!(scene.is_member(&late), "a known time is before an unknown one");
    scene.join(&first, &invitation, &early, DAWN + 10);
    assert!(scene.is_member(&early) && !scene.is_member(&late));
    let id = early.id().to_string();
    let sentence = format!("the invitation was for one node, and {}.. came by it before", &id[..8]);
    assert_eq!(scene.why_not(&late), sentence);
    assert_eq!(scene.why_not(&never), sentence);
    // Let in again by another invitation, it is in.
    let another = scene.invite(0, 1, 0, "Meier");
    scene.join(&first, &another, &late, DAWN + 30);
    assert!(scene.is_member(&late));
}

#[test]
fn of_one_second_the_lower_id_is_in() {
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 1, 0, "Meier");
    let mut nodes = [node(1), node(2), node(3)];
    for node in &nodes {
        scene.join(&first, &invitation, node, DAWN + 10);
    }
    nodes.sort_by_key(Identity::id);
    assert!(scene.is_member(&nodes[0]) && !scene.is_member(&nodes[1]) && !scene.is_member(&nodes[2]));
}

#[test]
fn whoever_displaces_its_own_sponsors_does_not() {
    // The invitation is spent by a node that lets in another, which lets in a third by the same invitation and second.
    let (mut scene, first) = Scene::founded(1, 1);
    let once = scene.invite(0, 1, 0, "Meier");
    let other = scene.invite(0, 1, 0, "Huber");
    let mut ends = [node(1), node(2)];
    ends.sort_by_key(Identity::id);
    let [low, high] = ends;
    let between = node(3);
    scene.join(&first, &once, &high, DAWN + 10);
    scene.join(&high, &other, &between, DAWN + 10);
    scene.join(&between, &once, &low, DAWN + 10);
    assert!(scene.is_member(&high) && scene.is_member(&between) && !scene.is_member(&low));
    // Nor by a time before its sponsor's own.
    scene.join(&between, &once, &node(4), DAWN - 50);
    assert!(scene.is_member(&high) && !scene.is_member(&node(4)));
}

#[test]
fn expiry_goes_by_the_sponsors_time_and_else_by_the_nodes() {
    let (mut scene, first) = Scene::founded(1, 1);
    let until = DAWN + 100;
    let invitation = scene.invite(0, 0, until, "Meier");
    let admit = |scene: &mut Scene, number: u32, time: u64, issued: u64| {
        let certificate = by_invitation(&invitation, &node(number), issued).unwrap();
        scene.write(&first, time, &Fact::Admit { certificate, household: String::new() });
        scene.why_not(&node(number))
    };
    assert_eq!(admit(&mut scene, 1, until - 1, 0), "it is in");
    let expired = "its invitation expired on 2027-01-15 08:01 UTC, before it came";
    assert_eq!(admit(&mut scene, 2, until, until - 50), expired);
    assert_eq!(admit(&mut scene, 3, 0, until - 50), "it is in");
    assert_eq!(admit(&mut scene, 4, 0, 0), "it is in");
    // A sponsor that came later than it says did not let anybody in before.
    let sponsor = node(5);
    let forever = scene.invite(0, 0, 0, "Huber");
    scene.join(&first, &forever, &sponsor, until + 10);
    scene.join(&sponsor, &invitation, &node(6), until - 10);
    assert_eq!(scene.why_not(&node(6)), expired);
    // A node with a date of its own that is too late has no good certificate at all: `by_invitation` refuses to make one.
    assert!(by_invitation(&invitation, &node(7), until).is_err());
    let mut facts = scene.facts();
    let certificate = by_invitation(&invitation, &node(8), 0).unwrap();
    assert_eq!(facts.why_not_certificate(&certificate, until - 1), None);
    assert_eq!(facts.why_not_certificate(&certificate, until), Some(WhyNot::Expired(until)));
}

#[test]
fn each_refusal_says_which() {
    let (mut scene, first) = Scene::founded(2, 1);
    let town = scene.town;
    let stranger = scene::steward(town, 7);
    let spent = scene.invite(0, 1, 0, "Meier");
    scene.join(&first, &spent, &node(1), DAWN);
    let revoked = scene.invite(0, 1, 0, "Meier");
    let unknown = scene.draw(0, 1, 0);
    let removed = scene.invite(0, 5, 0, "Huber");
    scene.join(&first, &removed, &node(2), DAWN);
    let former = scene.draw(1, 1, 0);
    let cutoffs = scene.steward_end(1);
    let change = stewards(&scene, &[0], 1, cutoffs);
    scene.decide(&[0], 0, change);
    scene.say(1, DAWN, &invite_fact(&former, "Thief"));
    let out = Removal { invitations: vec![key_of(&revoked)], nodes: vec![node(2).id()], ..Removal::default() };
    scene.decide(&[0], 1, remove(out));
    let mut facts = scene.facts();
    let mut why = |certificate: &[u8]| {
        facts.why_not_certificate(certificate, DAWN).map_or_else(|| "it may come in".into(), |why| why.to_string())
    };
    let by = |invitation| by_invitation(invitation, &node(9), 0).unwrap();
    let short = |id: &[u8; 32]| id[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(why(&by(&removed)), "it may come in");
    assert_eq!(
        why(&by(&spent)),
        format!("the invitation was for one node, and {}.. came by it before", short(&node(1).id().0))
    );
    assert_eq!(why(&by(&revoked)), "the stewards removed the invitation that it came by");
    assert!(why(&by(&unknown)).ends_with("the news has not come yet, or it was never given"));
    assert_eq!(
        why(&by(&former)),
        format!(
            "its invitation was made with the key of a former steward, {}.., after the others had replaced it",
            short(&scene.author(1).0)
        )
    );
    let name = grange_wire::TownName::new("Oberdorf").unwrap();
    let not_ours = stranger.invite(&[9; 32], name, 1, 0, &[99; 32]);
    assert_eq!(
        why(&by(&not_ours)),
        format!("{}.., who signed for it, is no steward of this town", short(&stranger.public()))
    );
    let mut forged = by(&removed);
    forged[200] ^= 1;
    assert_eq!(why(&forged), "its certificate is forged: the steward whom it names did not sign it");
    let mut stolen = by(&removed);
    stolen[250] ^= 1;
    assert_eq!(why(&stolen), "its certificate is forged: whoever made it did not have the invitation");
    assert_eq!(why(&[1, 2, 3]), "what it shows is no certificate");
    let of_removed = by_invitation(&removed, &node(2), 0).unwrap();
    assert_eq!(why(&of_removed), "the stewards removed it; its key never comes back, a new key can be invited");
    assert_eq!(
        scene.why_not(&node(9)),
        "no member of the town has let it in, and it shows no certificate of this town"
    );
}

#[test]
fn nobody_is_in_who_was_let_in_by_nobody() {
    let (mut scene, _) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 0, 0, "Meier");
    let (a, b) = (node(1), node(2));
    // Two that vouch for each other.
    scene.join(&a, &invitation, &b, DAWN);
    scene.join(&b, &invitation, &a, DAWN);
    let id = b.id().to_string();
    assert_eq!(scene.why_not(&a), format!("{}.., who let it in, was no member of the town then", &id[..8]));
    assert!(scene.state().refused.is_empty(), "what strangers say of each other is in no state");
    // A certificate that a steward signed in person, without the steward's log.
    let in_person = grange_core::certificate::by_steward(&scene.stewards[0], &node(3), DAWN);
    let first = node(0);
    scene.write(&first, DAWN, &Fact::Admit { certificate: in_person, household: "Meier".into() });
    assert!(!scene.is_member(&node(3)));
}

#[test]
fn what_a_removed_node_let_in_before_its_cutoff_stays() {
    let (mut scene, first) = Scene::founded(2, 2);
    let invitation = scene.invite(0, 0, 0, "Meier");
    let lost = node(1);
    scene.join(&first, &invitation, &lost, DAWN);
    scene.join(&lost, &invitation, &node(2), DAWN + 1);
    let cutoffs: Vec<EntryRef> = scene.end(&lost).into_iter().collect();
    assert_eq!(scene.facts().cutoffs(lost.author()), cutoffs);
    scene.join(&lost, &invitation, &node(3), DAWN + 2);
    // Somebody else with a link lets the same node in too: then it does not depend on the lost one.
    scene.join(&lost, &invitation, &node(4), DAWN + 3);
    scene.join(&node(2), &invitation, &node(4), DAWN + 9);
    let out = remove(Removal { nodes: vec![lost.id()], cutoffs, ..Removal::default() });
    let proposal = scene.propose(0, 0, out);
    assert!(scene.is_member(&lost), "one steward of two");
    assert_eq!(scene.state().proposals[0].approvals, [scene.author(0)]);
    scene.approve(1, proposal);
    assert!(!scene.is_member(&lost) && scene.is_member(&node(2)) && !scene.is_member(&node(3)));
    assert!(scene.is_member(&node(4)));
    assert_eq!(scene.state().former[0].why, WhyNot::RemovedNode);
    // Its key never comes back, by whatever invitation.
    let again = scene.invite(0, 1, 0, "Meier");
    scene.join(&first, &again, &lost, DAWN + 20);
    assert!(!scene.is_member(&lost));
    // Nobody stands in the place of what has no cutoff.
    let without = remove(Removal { nodes: vec![node(2).id()], ..Removal::default() });
    scene.decide(&[0, 1], 0, without);
    assert!(!scene.is_member(&node(2)) && !scene.is_member(&node(4)));
}

#[test]
fn invitations_and_households_are_removed_with_all_who_came_by_them() {
    let (mut scene, first) = Scene::founded(1, 1);
    let leaked = scene.invite(0, 0, 0, "Meier");
    let meier = scene.invite(0, 0, 0, "Huber");
    for (invitation, number) in [(&leaked, 1), (&leaked, 2), (&meier, 3)] {
        scene.join(&first, invitation, &node(number), DAWN);
    }
    let kept = vec![node(1).id()];
    scene.decide(&[0], 0, remove(Removal { invitations: vec![key_of(&leaked)], kept, ..Removal::default() }));
    assert!(scene.is_member(&node(1)) && !scene.is_member(&node(2)) && scene.is_member(&node(3)));
    assert_eq!(scene.state().former[0].why, WhyNot::RemovedInvitation);
    // Node 1 moves to the Hubers, who are removed: by the household that it has now.
    scene.say(0, DAWN + 5, &Fact::Assign { node: node(1).id(), household: "Huber".into() });
    assert_eq!(scene.state().member(&node(1).id()).unwrap().household, "Huber");
    scene.say(0, DAWN + 4, &Fact::Assign { node: node(1).id(), household: "Earlier".into() });
    assert_eq!(scene.state().member(&node(1).id()).unwrap().household, "Huber");
    scene.decide(&[0], 0, remove(Removal { households: vec!["Huber".into()], ..Removal::default() }));
    let state = scene.state();
    assert_eq!(state.members.len(), 1, "the first node is left");
    assert!(state.invitations.iter().all(|invitation| invitation.left() == Some(0)));
    assert_eq!(scene.why_not(&node(3)), "the stewards removed its household, \"Huber\"");
    // What was concurrent does not help: another steward's invitation for the same household is void.
    let concurrent = scene.invite(0, 1, 0, "Huber");
    scene.join(&first, &concurrent, &node(5), DAWN + 50);
    assert!(!scene.is_member(&node(5)));
}

#[test]
fn a_lost_stewards_key_is_replaced_and_what_it_signs_later_is_void() {
    let (mut scene, first) = Scene::founded(4, 2);
    // The town begins with all four; the last is to come later.
    let change = stewards(&scene, &[0, 1, 2], 2, scene.steward_end(3));
    scene.decide(&[0, 1], 0, change);
    let good = scene.invite(2, 0, 0, "Meier");
    scene.join(&first, &good, &node(1), DAWN);
    let cutoffs = scene.steward_end(2);
    assert_eq!(scene.facts().cutoffs(scene.author(2)), cutoffs);
    let bad = scene.invite(2, 0, 0, "Thief");
    scene.join(&first, &bad, &node(2), DAWN);
    assert!(scene.is_member(&node(2)));
    scene.stewards.push(scene::steward(scene.town, 4));
    let change = stewards(&scene, &[0, 1, 4], 2, cutoffs);
    scene.decide(&[1, 0], 1, change);
    let state = scene.state();
    assert_eq!((state.generation, state.stewards.clone()), (2, sorted(&scene, &[0, 1, 4])));
    assert_eq!(state.former_stewards, sorted(&scene, &[2, 3]));
    assert!(scene.is_member(&node(1)) && !scene.is_member(&node(2)));
    assert!(matches!(state.problems[..], [Problem::Cut { facts: 1, .. }]), "{:?}", state.problems);
    // The new one decides with the others, the old one does not.
    let by_old = scene.propose(2, 2, remove(Removal { nodes: vec![first.id()], ..Removal::default() }));
    scene.approve(0, by_old);
    scene.approve(1, by_old);
    assert!(scene.is_member(&first));
    scene.decide(&[4, 0], 2, remove(Removal { nodes: vec![node(1).id()], ..Removal::default() }));
    assert!(!scene.is_member(&node(1)));
    // A key that was dropped is never a steward's again.
    let back = stewards(&scene, &[0, 1, 2], 2, scene.steward_end(4));
    scene.decide(&[0, 1, 4], 2, back);
    assert_eq!(scene.state().generation, 2);
}

#[test]
fn a_steward_may_vote_for_being_dropped() {
    let (mut scene, _) = Scene::founded(2, 2);
    let cutoffs = scene.steward_end(1);
    let change = stewards(&scene, &[0], 1, cutoffs);
    // The approval stands behind the cutoff that the decision gives.
    scene.decide(&[0, 1], 0, change);
    assert_eq!(scene.state().stewards, [scene.author(0)]);
}

#[test]
fn a_decision_that_is_overtaken_is_shown() {
    let (mut scene, _) = Scene::founded(4, 1);
    let one = scene.decide(&[0], 0, stewards(&scene, &[0, 1, 2], 1, vec![]));
    let two = scene.decide(&[1, 2], 0, stewards(&scene, &[0, 1, 3], 1, vec![]));
    let state = scene.state();
    assert_eq!(state.stewards, sorted(&scene, &[0, 1, 3]), "two approvals beat one");
    assert!(state.problems.contains(&Problem::StewardsVoid { proposal: one }));
    scene.approve(1, one);
    let chosen = if one < two { [0, 1, 2] } else { [0, 1, 3] };
    assert_eq!(scene.state().stewards, sorted(&scene, &chosen), "two each: the lower hash");
}

#[test]
fn forks_take_away_what_comes_after_them() {
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 0, 0, "Meier");
    scene.join(&first, &invitation, &node(1), DAWN);
    scene.join(&node(1), &invitation, &node(2), DAWN);
    let before = scene.end(&node(1));
    scene.join(&node(1), &invitation, &node(3), DAWN);
    assert!(scene.is_member(&node(3)));
    scene.rewind(&node(1), 1, before);
    scene.join(&node(1), &invitation, &node(4), DAWN);
    assert!(scene.is_member(&node(2)) && !scene.is_member(&node(3)) && !scene.is_member(&node(4)));
    let log = before.unwrap().place.log();
    assert_eq!(scene.state().problems, [Problem::Fork { log, seq: 2 }]);
    // What the author wrote in a life that this one does not go on from is gone too.
    scene.write_in(&node(1), 7, DAWN, &Fact::Name { label: "mill".into(), services: vec![] });
    assert!(scene.state().names.is_empty());
}

#[test]
fn a_fork_in_a_later_life_leaves_the_lives_before() {
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 0, 0, "Meier");
    scene.join(&first, &invitation, &node(1), DAWN);
    let parent = scene.end(&first).unwrap();
    // This one is after the place that the second life goes on from.
    scene.join(&first, &invitation, &node(2), DAWN);
    let begin = scene.write_in(&first, 2, DAWN, &Fact::Begin { parent });
    let end = EntryRef { place: begin.place(), hash: begin.hash() };
    let admit = |scene: &mut Scene, number: u32| {
        let certificate = by_invitation(&invitation, &node(number), 0).unwrap();
        scene.write_in(&first, 2, DAWN, &Fact::Admit { certificate, household: String::new() });
    };
    admit(&mut scene, 3);
    assert!((1..=3).all(|number| scene.is_member(&node(number))));
    scene.rewind(&first, 2, Some(end));
    admit(&mut scene, 4);
    assert!(scene.is_member(&node(1)));
    assert!((2..=4).all(|number| !scene.is_member(&node(number))));
}

#[test]
fn a_thief_who_forks_a_stewards_log_after_its_cutoff_takes_nothing_away() {
    let (mut scene, first) = Scene::founded(3, 2);
    let good = scene.invite(2, 0, 0, "Meier");
    scene.join(&first, &good, &node(1), DAWN);
    // Steward 2's approval is needed for the change that makes generation 1.
    scene.stewards.push(scene::steward(scene.town, 3));
    let change = stewards(&scene, &[0, 2, 3], 2, scene.steward_end(1));
    scene.decide(&[0, 2], 0, change);
    let cutoffs = scene.steward_end(2);
    let change = stewards(&scene, &[0, 3], 2, cutoffs);
    scene.decide(&[0, 3], 1, change);
    let before = scene.state();
    assert_eq!((before.generation, before.members.len()), (2, 2));
    // The thief begins steward 2's log anew from its first entry.
    let thief = scene::steward(scene.town, 2);
    scene.rewind(&thief, 1, None);
    for name in ["x", "y", "z"] {
        scene.write(&thief, DAWN, &Fact::Assign { node: node(1).id(), household: name.into() });
    }
    let after = scene.state();
    assert_eq!((after.generation, &after.members, &after.stewards), (2, &before.members, &before.stewards));
    assert_eq!(scene.facts().pins().len(), 1);
}

#[test]
fn the_policy_goes_from_version_to_version() {
    let (mut scene, _) = Scene::founded(3, 2);
    assert_eq!(scene.state().policy.rules.store_copies.0, 4);
    let first = scene.decide(&[0, 1], 0, policy(EntryHash::NONE, "[store]\ncopies = 3"));
    let second = scene.decide(&[1, 2], 0, policy(first, "[store]\ncopies = 2"));
    assert_eq!(scene.state().policy.rules.store_copies.0, 2);
    // Going back to the text of the first is a third version.
    let third = scene.decide(&[0, 2], 0, policy(second, "[store]\ncopies = 3"));
    let state = scene.state();
    assert_eq!(state.policy.hash(), third);
    assert_eq!(state.policy.history.iter().map(|version| version.hash).collect::<Vec<_>>(), [first, second, third]);
    // One that breaks a rule counts for nobody, however many approve it.
    let bad = scene.decide(&[0, 1, 2], 0, policy(third, "[store]\ncopies = 99"));
    let state = scene.state();
    assert_eq!(state.policy.hash(), third);
    let why = Some("line 2: store.copies: expected a whole number from 1 to 8, found 99".to_owned());
    assert!(state.problems.contains(&Problem::PolicyVoid { proposal: bad, why }));
    // Of two versions in one place, that of more approvals.
    let few = scene.decide(&[0, 1], 0, policy(third, "[store]\ncopies = 5"));
    let many = scene.decide(&[1, 0, 2], 0, policy(third, "[store]\ncopies = 6"));
    assert_eq!(scene.state().policy.hash(), many);
    assert!(scene.state().problems.contains(&Problem::PolicyVoid { proposal: few, why: None }));
    // What is still open and can never be is said to be so.
    let late = scene.propose(0, 0, policy(third, "[store]\ncopies = 7"));
    let state = scene.state();
    let open = state.proposals.iter().find(|proposal| proposal.hash == late).unwrap();
    assert!(open.hopeless.as_deref().unwrap().starts_with("another version of the policy"));
}

#[test]
fn later_facts_are_kept_and_wrong_ones_shown() {
    let (mut scene, first) = Scene::founded(1, 1);
    let before = scene.state();
    scene.write_bytes(&first, 1, DAWN, &[9, 1, 2, 3]);
    scene.write_bytes(&first, 1, DAWN, &[1, 77]);
    assert_eq!(scene.state(), before);
    let wrong = scene.write_bytes(&first, 1, DAWN, &[1, 3, 0]);
    let place = wrong.place();
    assert!(matches!(scene.state().problems[..], [Problem::Wrong { place: at, .. }] if at == place));
    let not_mine = scene.write(&first, DAWN, &Fact::Assign { node: first.id(), household: "Me".into() });
    assert!(scene.state().problems.contains(&Problem::NotSteward { place: not_mine.place() }));
    assert_eq!(scene.state().member(&first.id()).unwrap().household, "Founders");
}

#[test]
fn of_one_name_the_lower_id_has_it_and_the_zone_says_so() {
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 0, 0, "Meier");
    let mut nodes = [node(1), node(2)];
    nodes.sort_by_key(Identity::id);
    let http = Service { name: "http".into(), transport: Transport::Tcp, port: 8080 };
    for node in &nodes {
        scene.join(&first, &invitation, node, DAWN);
        scene.write(node, DAWN, &Fact::Name { label: "old".into(), services: vec![] });
        scene.write(node, DAWN, &Fact::Name { label: "mill".into(), services: vec![http.clone()] });
    }
    // A stranger's name is nothing.
    scene.write(&node(9), DAWN, &Fact::Name { label: "stranger".into(), services: vec![] });
    let state = scene.state();
    let zone = Zone::new(&state);
    let digits = nodes[1].id().to_string();
    let second = format!("mill-{}.oberdorf.internal", &digits[..4]);
    assert_eq!(zone.name_of(&nodes[0].id()).as_deref(), Some("mill.oberdorf.internal"));
    assert_eq!(zone.name_of(&nodes[1].id()).as_deref(), Some(second.as_str()));
    let addresses =
        |node: &Identity| Answer::Addresses(vec![node_address(&node.id()).into(), node_address_v4(&node.id()).into()]);
    assert_eq!(zone.resolve("Mill.Oberdorf.Internal."), addresses(&nodes[0]));
    assert_eq!(zone.resolve(&second), addresses(&nodes[1]));
    let by_id = format!("{}.oberdorf.internal", &first.id().to_string()[..12]);
    assert_eq!(zone.resolve(&by_id), addresses(&first));
    for nobody in
        ["stranger.oberdorf.internal", "old.oberdorf.internal", "a.mill.oberdorf.internal", ".oberdorf.internal"]
    {
        assert_eq!(zone.resolve(nobody), Answer::NoSuchName, "{nobody}");
    }
    for elsewhere in ["example.org", "mill.unterdorf.internal", "", "xoberdorf.internal"] {
        assert_eq!(zone.resolve(elsewhere), Answer::Elsewhere, "{elsewhere}");
    }
    assert_eq!(zone.resolve("oberdorf.internal"), Answer::Nothing);
    assert_eq!(
        zone.resolve("_http._tcp.mill.oberdorf.internal"),
        Answer::Services(vec![(8080, "mill.oberdorf.internal".into())])
    );
    assert_eq!(zone.resolve("_http._udp.mill.oberdorf.internal"), Answer::NoSuchName);
    let address = node_address(&nodes[0].id());
    assert_eq!(zone.reverse(address.into()).as_deref(), Some("mill.oberdorf.internal"));
    let nibbles: Vec<String> = format!("{:032x}", u128::from(address)).chars().rev().map(String::from).collect();
    let arpa = format!("{}.ip6.arpa.", nibbles.join("."));
    assert_eq!(zone.reverse_name(&arpa).as_deref(), Some("mill.oberdorf.internal"));
    let [a, b, c, d] = node_address_v4(&nodes[1].id()).octets();
    assert_eq!(zone.reverse_name(&format!("{d}.{c}.{b}.{a}.in-addr.arpa")), Some(second));
    assert_eq!(zone.reverse_name("1.2.3.in-addr.arpa"), None);
}

#[test]
fn of_one_ipv4_address_the_lower_id_has_it() {
    // Two keys among a few thousand that draw one of 4 million addresses.
    let mut drawn = BTreeMap::new();
    let (one, other) = (0..)
        .find_map(|number| {
            let address = node_address_v4(&node(number).id());
            drawn.insert(address, number).map(|other| (node(other), node(number)))
        })
        .unwrap();
    let (mut scene, first) = Scene::founded(1, 1);
    let invitation = scene.invite(0, 0, 0, "Meier");
    scene.join(&first, &invitation, &one, DAWN);
    scene.join(&first, &invitation, &other, DAWN);
    let state = scene.state();
    let (low, high) = (one.id().min(other.id()), one.id().max(other.id()));
    let address = node_address_v4(&low);
    let [clash] = &state.clashes[..] else { panic!("one clash") };
    assert_eq!((clash.address, clash.holder, &clash.others), (address, low, &vec![high]));
    let zone = Zone::new(&state);
    assert_eq!((zone.v4(&low), zone.v4(&high)), (Some(address), None));
    assert_eq!(zone.addresses(&high), [std::net::IpAddr::from(node_address(&high))]);
}
