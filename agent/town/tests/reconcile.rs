//! Two large sets that differ a little: found out exactly, at a small cost.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::BTreeSet;

use grange_town::reconcile::{Comparison, Dated, Difference, IdSet, MESSAGE_MAX, Step, answer};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

fn items(random: &mut ChaCha8Rng, count: usize) -> Vec<Dated> {
    let item = |_| {
        let mut id = [0; 32];
        random.fill_bytes(&mut id);
        (1_800_000_000 + u64::from(random.next_u32() % 10_000_000), id)
    };
    (0..count).map(item).collect()
}

/// Compares two sets; what is found, and bytes and messages on the way.
fn compare(ours: &IdSet, theirs: &IdSet) -> (Difference, usize, usize) {
    let (mut comparison, mut question) = Comparison::new(ours).unwrap();
    let (mut bytes, mut messages) = (0, 0);
    loop {
        let reply = answer(theirs, &question).unwrap();
        assert!(question.len() <= MESSAGE_MAX && reply.len() <= MESSAGE_MAX);
        bytes += question.len() + reply.len();
        messages += 2;
        match comparison.handle(&reply).unwrap() {
            Step::Ask(next) => question = next,
            Step::Done(difference) => return (difference, bytes, messages),
        }
    }
}

fn ids(items: &[Dated]) -> BTreeSet<[u8; 32]> {
    items.iter().map(|(_, id)| *id).collect()
}

#[test]
fn a_hundred_of_a_million_cost_at_most_128_kilobytes() {
    for seed in 1..4 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let both = items(&mut random, 1_000_000 - 100);
        let (only_ours, only_theirs) = (items(&mut random, 50), items(&mut random, 50));
        let ours = IdSet::new([&both[..], &only_ours].concat());
        let theirs = IdSet::new([&both[..], &only_theirs].concat());
        let start = std::time::Instant::now();
        let (difference, bytes, messages) = compare(&ours, &theirs);
        println!("{bytes} bytes in {messages} messages, {:?} for both sides", start.elapsed());
        assert_eq!(difference, Difference { have: ids(&only_ours), need: ids(&only_theirs) });
        assert!(bytes <= 128_000, "seed {seed}: {bytes} bytes");
    }
}

#[test]
fn sets_of_all_sizes_and_differences() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (both, ours, theirs) in
        [(0, 0, 0), (0, 1, 0), (0, 0, 500), (31, 1, 1), (1000, 0, 0), (5000, 3000, 20), (20_000, 5, 9000)]
    {
        let both = items(&mut random, both);
        let (only_ours, only_theirs) = (items(&mut random, ours), items(&mut random, theirs));
        let (difference, bytes, _) =
            compare(&IdSet::new([&both[..], &only_ours].concat()), &IdSet::new([&both[..], &only_theirs].concat()));
        assert_eq!(difference, Difference { have: ids(&only_ours), need: ids(&only_theirs) });
        println!("{} in common, {ours} and {theirs} not: {bytes} bytes", both.len());
    }
}

#[test]
fn items_of_one_moment_are_told_apart_by_their_ids() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let same = |items: Vec<Dated>| items.into_iter().map(|(_, id)| (5, id)).collect::<Vec<_>>();
    let both = same(items(&mut random, 3000));
    let more = same(items(&mut random, 7));
    let (difference, ..) = compare(&IdSet::new(both.clone()), &IdSet::new([both, more.clone()].concat()));
    assert_eq!(difference, Difference { have: BTreeSet::new(), need: ids(&more) });
}

/// Whatever a peer sends: no panic, an answer of bounded length, and an end.
#[test]
fn nonsense_is_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let set = IdSet::new(items(&mut random, 5000));
    let (_, good) = Comparison::new(&set).unwrap();
    for round in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..1 + round % 4 {
            let at = random.next_u32() as usize % bad.len();
            match random.next_u32() % 3 {
                0 => bad[at] = random.next_u32().to_le_bytes()[0],
                1 => bad.truncate(at.max(1)),
                _ => bad.insert(at, random.next_u32().to_le_bytes()[0]),
            }
        }
        if let Ok(reply) = answer(&set, &bad) {
            assert!(reply.len() <= MESSAGE_MAX);
        }
        let (mut comparison, _) = Comparison::new(&set).unwrap();
        if let Ok(Step::Ask(next)) = comparison.handle(&bad) {
            assert!(next.len() <= MESSAGE_MAX);
        }
        if round == 2000 && cfg!(debug_assertions) {
            break;
        }
    }
}
