//! Seals over a mesh of many hops: their own datagrams are routed like any packet, so whatever befalls routes befalls them.

use std::time::Duration;

use grange_core::DownReason;
use grange_sim::{
    Dice, Note, Quality, Script, Setup, Sim, Topology,
    report::{Distribution, each_seed, measured},
};

const SECOND: Duration = Duration::from_secs(1);

/// Pairs of nodes that are not neighbours.
fn far_pairs(sim: &Sim) -> Vec<(usize, usize)> {
    let direct = |a: usize, b: usize| sim.via(a, &sim.prefixes(b)[0]) == Some(b);
    let all = (0..sim.nodes()).flat_map(|a| (0..sim.nodes()).map(move |b| (a, b)));
    all.filter(|&(a, b)| a < b && !direct(a, b)).collect()
}

/// The reasons for which seals went down since a moment.
fn seal_downs(sim: &Sim, since: Duration) -> Vec<DownReason> {
    let notes = sim.notes().iter().filter(|note| note.seal && note.at >= since);
    let down = |note: &Note| if let Note::Down(reason) = note { Some(*reason) } else { None };
    notes.filter_map(|note| down(&note.note)).collect()
}

#[test]
fn every_want_ends_in_a_seal_at_both_ends() {
    let times = each_seed(30, |seed| {
        let mut sim = Setup::new(seed, Topology::random(20, &mut Dice::new(seed, 50))).build();
        sim.run_for(10 * SECOND);
        sim.settled().expect("formed");
        let pairs = far_pairs(&sim);
        let mut dice = Dice::new(seed, 51);
        let mut times = Vec::new();
        for _ in 0..20 {
            let Some((a, b)) = dice.pick(&pairs) else { break };
            // One of the two, or both at the same moment.
            let both = dice.chance(0.3);
            if sim.sealed(a, b) {
                continue;
            }
            sim.want_seal(a, b);
            if both {
                sim.want_seal(b, a);
            }
            let took = sim.run_until(2 * SECOND, |sim| sim.sealed(a, b));
            times.push(took.unwrap_or_else(|| panic!("no seal between {a} and {b}")));
        }
        times
    });
    let times = Distribution::new(times.into_iter().flatten().collect());
    measured("a seal made, 20 random nodes, cables of 0.2 ms", &times);
    assert!(times.percentile(0.5) < SECOND / 50, "{times}");
}

#[test]
fn a_seal_finds_what_its_way_carries_and_outlives_a_change_of_routes() {
    let times = each_seed(40, |seed| {
        let mut sim = Setup::new(seed, Topology::ring(7)).build();
        sim.run_for(10 * SECOND);
        let flow = sim.sealed_flow(0, 3, SECOND / 50, 1200);
        sim.run_for(5 * SECOND);
        assert!(sim.sealed(0, 3));
        assert_eq!((sim.seal_mtu(0, 3), sim.seal_mtu(3, 0)), (Some(1338), Some(1338)));
        let cut = sim.now();
        // On the way of three hops; the other one has four.
        sim.silence(seed as usize % 3);
        sim.run_for(10 * SECOND);
        // A cut is shorter than what kills a seal, or just about.
        let downs = seal_downs(&sim, cut);
        assert!(downs.iter().all(|reason| matches!(reason, DownReason::Silent | DownReason::Replaced)), "{downs:?}");
        assert!(sim.sealed(0, 3));
        (sim.outage(flow, cut).expect("healed"), downs.len())
    });
    let (times, downs): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let times = Distribution::new(times);
    measured("silent cut under a seal healed, ring of 7, traffic at 50/s", &times);
    measured("  seals that were made anew for it", downs.iter().filter(|downs| **downs > 0).count());
    assert!(times.percentile(0.99) <= 3 * SECOND, "{times}");
}

#[test]
fn an_end_that_starts_anew_is_sealed_again() {
    let times = each_seed(40, |seed| {
        let mut sim = Setup::new(seed, Topology::chain(5)).build();
        sim.run_for(10 * SECOND);
        let flow = sim.sealed_flow(0, 4, SECOND / 50, 400);
        sim.run_for(5 * SECOND);
        let end = if seed % 2 == 0 { 0 } else { 4 };
        sim.kill(end);
        let killed = sim.now();
        sim.run_for(Duration::from_millis(100 + 700 * (seed % 5)));
        sim.start_now(end);
        let back = sim.now();
        sim.run_for(10 * SECOND);
        assert!(sim.sealed(0, 4));
        sim.outage(flow, killed).expect("healed").saturating_sub(back - killed)
    });
    let times = Distribution::new(times);
    measured("sealed traffic flows again after an end started anew, chain of 5", &times);
    assert!(times.percentile(0.99) <= 4 * SECOND, "{times}");
}

#[test]
fn seals_come_up_and_stay_at_twenty_percent_loss_on_each_hop() {
    let times = each_seed(30, |seed| {
        let quality = Quality::CABLE.with_latency(2 * SECOND / 1000);
        let mut sim = Setup::new(seed, Topology::chain(4)).quality(quality).build();
        sim.run_for(20 * SECOND);
        sim.settled().expect("formed");
        sim.set_all_quality(quality.with_loss(0.2));
        let flow = sim.sealed_flow(0, 3, SECOND / 10, 400);
        let wanted = sim.now();
        let up = sim.run_until(60 * SECOND, |sim| sim.sealed(0, 3)).expect("a seal at last");
        let begun = sim.now();
        sim.run_for(300 * SECOND);
        // A quarter of the requests come back on such a way, whatever carries them.
        let late = sim.requests(flow).iter().filter(|request| request.sent >= begun);
        let (sent, answered) =
            late.fold((0, 0), |(sent, back), one| (sent + 1, back + u32::from(one.answered.is_some())));
        assert!(answered * 6 >= sent, "{answered} of {sent}");
        sim.set_all_quality(quality);
        sim.run_for(20 * SECOND);
        assert!(sim.sealed(0, 3));
        assert!(sim.requests(flow).iter().rev().skip(2).take(20).all(|request| request.answered.is_some()));
        (up, seal_downs(&sim, wanted).len())
    });
    let (times, downs): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    measured("a seal made over 3 hops that lose a fifth each", Distribution::new(times));
    measured("  seals that went down in five such minutes, both ends, all runs", downs.iter().sum::<usize>());
}

#[test]
fn sealed_traffic_outlives_random_faults() {
    let times = each_seed(60, |seed| {
        let topology = Topology::random(14, &mut Dice::new(seed, 52));
        let script = Script::random(&topology, 20, &mut Dice::new(seed, 53));
        let mut sim = Setup::new(seed, topology).build();
        sim.run_for(6 * SECOND);
        let pairs = far_pairs(&sim);
        let mut dice = Dice::new(seed, 54);
        let flows: Vec<_> = (0..6)
            .filter_map(|_| dice.pick(&pairs))
            .map(|(a, b)| (a, b, sim.sealed_flow(a, b, SECOND / 20, 600)))
            .collect();
        for (wait, step) in &script.0 {
            sim.run_for(*wait);
            sim.apply(step);
        }
        sim.set_all_quality(Quality::CABLE);
        sim.settle(20 * SECOND);
        let settled = sim.now();
        sim.run_for(12 * SECOND);
        let part = sim.parts();
        let mut longest = Duration::ZERO;
        for (a, b, flow) in flows {
            if part[a] == part[b] && sim.node(a).is_some() && sim.node(b).is_some() {
                assert!(sim.sealed(a, b), "{a} and {b} have no seal");
                let outage = sim.outage(flow, settled).unwrap_or_else(|| panic!("{a} hears nothing of {b}"));
                longest = longest.max(outage);
            }
        }
        longest
    });
    let times = Distribution::new(times);
    measured("all sealed traffic flows again after routes settled from random faults", &times);
    assert!(times.percentile(1.0) <= 6 * SECOND, "{times}");
}

#[test]
fn seals_that_nobody_uses_end_and_leave_silence() {
    let mut sim = Setup::new(1, Topology::chain(5)).build();
    sim.run_for(10 * SECOND);
    for (a, b) in far_pairs(&sim) {
        sim.want_seal(a, b);
    }
    sim.run_for(5 * SECOND);
    assert!(far_pairs(&sim).into_iter().all(|(a, b)| sim.sealed(a, b)));
    let made = sim.now();
    sim.run_for(200 * SECOND);
    assert!((0..5).all(|host| sim.seals(host).is_empty()));
    assert!(seal_downs(&sim, made).iter().all(|reason| matches!(reason, DownReason::Idle | DownReason::Closed)));
}
