//! How long the fold takes. Prints figures; asserts only what holds on the slowest machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod scene;

use std::time::Instant;

use grange_core::certificate::by_invitation;
use grange_town::{
    entry::{Entry, Signer as _},
    fact::{Fact, Removal},
    fold::Facts,
};
use scene::{DAWN, Scene, node, remove};

/// 10,000 entries: 2,000 nodes with a few invitations, each with some names, some removed.
fn town() -> (Scene, Vec<Entry>) {
    let (mut scene, first) = Scene::founded(3, 2);
    let invitations: Vec<_> = (0..20).map(|number| scene.invite(number % 3, 0, 0, "Meier")).collect();
    let nodes: Vec<_> = (1..=2000).map(node).collect();
    for (at, newcomer) in nodes.iter().enumerate() {
        let sponsor = if at < 10 { &first } else { &nodes[at / 10] };
        scene.join(sponsor, &invitations[at % 20], newcomer, DAWN + u64::try_from(at).unwrap());
    }
    for round in 0..3 {
        for (at, node) in nodes.iter().enumerate() {
            scene.write(node, DAWN, &Fact::Name { label: format!("n{}-{round}", at / 2), services: vec![] });
        }
    }
    for chunk in nodes.chunks(20) {
        let gone = &chunk[19];
        let cutoffs = scene.end(gone).into_iter().collect();
        scene.decide(&[0, 1], 0, remove(Removal { nodes: vec![gone.id()], cutoffs, ..Removal::default() }));
    }
    while scene.entries.len() < 10_000 {
        scene.write_bytes(&first, 1, DAWN, &[1, 99]);
    }
    let entries = scene.entries.clone();
    (scene, entries)
}

#[test]
fn ten_thousand_entries() {
    let (mut scene, entries) = town();
    let start = Instant::now();
    let mut facts = Facts::new(scene.town, None);
    for entry in &entries {
        facts.add(entry);
    }
    let taken = start.elapsed();
    let start = Instant::now();
    let members = facts.state().members.len();
    let folded = start.elapsed();
    assert!(members > 1800, "{members}");
    let invitation = scene.invite(0, 0, 0, "Huber");
    let certificate = by_invitation(&invitation, &node(9000), 0).unwrap();
    let first = node(0);
    let news = [
        ("a receipt", scene.write_bytes(&first, 1, DAWN, &[1, 99])),
        ("a name", scene.write(&node(7), DAWN, &Fact::Name { label: "mill".into(), services: vec![] })),
        ("an invitation", scene.entries[scene.entries.len() - 3].clone()),
        ("an admission", scene.write(&first, DAWN + 5000, &Fact::Admit { certificate, household: String::new() })),
        ("a removal", {
            let gone = remove(Removal {
                nodes: vec![first.id()],
                cutoffs: facts.cutoffs(first.author()),
                ..Removal::default()
            });
            let proposal = scene.propose(0, 0, gone);
            facts.add(scene.entries.last().unwrap());
            scene.approve(1, proposal);
            scene.entries.last().unwrap().clone()
        }),
    ];
    println!(
        "{} entries: taken (signatures of certificates among it) in {taken:?}, folded in {folded:?}",
        entries.len()
    );
    facts.state();
    for (what, entry) in news {
        let start = Instant::now();
        facts.add(&entry);
        facts.state();
        println!("one more entry, {what}: {:?}", start.elapsed());
    }
    let start = Instant::now();
    let hash = facts.state().hash();
    println!("hash of the state: {:?}", start.elapsed());
    let again = scene::facts(scene.town, entries.iter().rev().chain(&scene.entries[10_000..])).state().hash();
    assert_eq!(hash, again);
}
