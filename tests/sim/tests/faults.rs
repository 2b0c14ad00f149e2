//! Whatever breaks: no loop at any moment (the simulation checks after every event), and what is connected converges.

use std::time::Duration;

use grange_core::IfaceKind;
use grange_sim::{
    Dice, Quality, Script, Setup, Sim, Topology,
    report::{Distribution, each_seed, measured},
};

const SECOND: Duration = Duration::from_secs(1);

/// Everything that is still connected after the last fault must have converged within this time, silent cuts without
/// any traffic included.
const QUIET: Duration = Duration::from_secs(20);

/// A random town under 25 random faults; the time from the last one until all that is connected had converged.
///
/// With `SIM_MINIMISE=1` a failing script is cut down to the steps that it needs, and printed.
fn random_faults(seed: u64, quality: Quality) -> Duration {
    let topology = Topology::random(20, &mut Dice::new(seed, 30));
    let script = Script::random(&topology, 25, &mut Dice::new(seed, 31));
    if std::env::var_os("SIM_MINIMISE").is_some() {
        let fails =
            |script: &Script| std::panic::catch_unwind(|| play(seed, quality, topology.clone(), script)).is_err();
        if fails(&script) {
            let least = script.minimise(fails);
            panic!("it takes no more than {least:#?} on {topology:?}");
        }
        return Duration::ZERO;
    }
    play(seed, quality, topology, &script)
}

fn play(seed: u64, quality: Quality, topology: Topology, script: &Script) -> Duration {
    let kind = if seed.is_multiple_of(2) { IfaceKind::Wired } else { IfaceKind::Wireless };
    let mut sim = Setup::new(seed, topology).quality(quality).kind(kind).build();
    // Sometimes the first faults strike while the town still forms.
    if !seed.is_multiple_of(3) {
        sim.run_for(6 * SECOND);
    }
    sim.flow(0, 2, SECOND / 20, 200);
    for (wait, step) in &script.0 {
        sim.run_for(*wait);
        sim.apply(step);
    }
    sim.set_all_quality(quality);
    sim.settle(QUIET)
}

#[test]
fn random_faults_never_loop_and_always_heal() {
    let times = each_seed(150, |seed| random_faults(seed, Quality::CABLE));
    measured("converged after the last of 25 random faults", Distribution::new(times));
}

#[test]
fn random_faults_on_bad_radios_never_loop_and_heal() {
    let times = each_seed(100, |seed| {
        let quality = Quality { loss: 0.05, ..Quality::BAD_RADIO };
        random_faults(1000 + seed, quality)
    });
    measured("the same with 5 % loss, reordering and duplicates", Distribution::new(times));
}

#[test]
fn after_random_faults_and_quiet_the_ways_are_the_shortest() {
    each_seed(40, |seed| {
        let topology = Topology::random(14, &mut Dice::new(seed, 32));
        let script = Script::random(&topology, 15, &mut Dice::new(seed, 33));
        let mut sim = Setup::new(seed, topology).build();
        sim.run_for(5 * SECOND);
        for (wait, step) in &script.0 {
            sim.run_for(*wait);
            sim.apply(step);
        }
        sim.set_all_quality(Quality::CABLE);
        sim.settle(QUIET);
        sim.run_for(180 * SECOND);
        sim.settled().expect("still settled after quiet");
        sim.agrees_with_reference(0).unwrap_or_else(|error| panic!("{error}"));
    });
}

/// Time from the start of a node until everybody has it in the routes again.
fn restart(seed: u64, in_order: bool, pause: Duration) -> Duration {
    let mut sim = Setup::new(seed, Topology::demo()).build();
    sim.run_for(15 * SECOND);
    sim.settled().expect("formed");
    let host = seed as usize % 5;
    if in_order {
        sim.stop(host);
    } else {
        sim.kill(host);
    }
    sim.run_for(pause);
    sim.start_now(host);
    sim.settle(20 * SECOND)
}

#[test]
fn a_restarted_node_is_back_within_three_seconds() {
    for (name, in_order) in [("stopped", true), ("killed", false)] {
        let mut times = Vec::new();
        // Back at once, while the neighbours still think it is there; a moment later; and long after.
        for pause in [50, 1000, 5000, 60_000] {
            times.extend(each_seed(15, |seed| restart(seed, in_order, Duration::from_millis(pause))));
        }
        let times = Distribution::new(times);
        measured(&format!("back in all routes after a restart, {name}"), &times);
        assert!(times.percentile(1.0) < 3 * SECOND, "{name}: {times}");
    }
}

#[test]
fn a_stopped_node_is_gone_at_once() {
    let times = each_seed(20, |seed| {
        let mut sim = Setup::new(seed, Topology::grid(4, 3)).build();
        sim.run_for(15 * SECOND);
        sim.stop(seed as usize % 12);
        sim.settle(20 * SECOND)
    });
    let times = Distribution::new(times);
    measured("settled after a node stopped in order, grid 4x3", &times);
    assert!(times.percentile(0.5) < SECOND, "{times}");
}

#[test]
fn a_lost_carrier_heals_within_two_hundred_milliseconds() {
    let times = each_seed(40, |seed| {
        let mut sim = Setup::new(seed, Topology::ring(6)).build();
        sim.run_for(15 * SECOND);
        sim.set_carrier(seed as usize % 6, false);
        sim.settle(20 * SECOND)
    });
    let times = Distribution::new(times);
    measured("healed after a lost carrier, ring of 6", &times);
    assert!(times.percentile(0.99) <= SECOND / 5, "{times}");
}

#[test]
fn a_mended_cable_is_used_again() {
    let times = each_seed(20, |seed| {
        let mut sim = Setup::new(seed, Topology::chain(6)).build();
        sim.run_for(10 * SECOND);
        let wire = seed as usize % 5;
        sim.set_carrier(wire, false);
        sim.run_for(Duration::from_millis(100 + 3000 * (seed % 7)));
        sim.mend(wire);
        sim.settle(20 * SECOND)
    });
    let times = Distribution::new(times);
    measured("a chain of 6 whole again after a cable was plugged in", &times);
    assert!(times.percentile(1.0) < 5 * SECOND, "{times}");
}

#[test]
fn two_halves_part_and_join() {
    let times = each_seed(8, |seed| {
        let mut sim = Setup::new(seed, Topology::grid(4, 4)).build();
        sim.run_for(10 * SECOND);
        sim.partition(|host| host % 4 < 2);
        let parted = sim.settle(60 * SECOND);
        sim.run_for(Duration::from_secs(10 + 60 * (seed % 3)));
        sim.settled().expect("each half is whole, and knows of no other");
        (0..sim.wires()).for_each(|wire| sim.mend(wire));
        (parted, sim.settle(60 * SECOND))
    });
    let (parted, joined): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    measured("idle grid 4x4 silently parted: the other half forgotten", Distribution::new(parted));
    measured("the halves joined again", Distribution::new(joined));
}

#[test]
fn a_node_whose_address_changes_keeps_its_links() {
    each_seed(10, |seed| {
        let mut sim = Setup::new(seed, Topology::chain(3)).build();
        sim.run_for(10 * SECOND);
        let before = downs(&sim);
        sim.roam(1, 0);
        sim.run_for(20 * SECOND);
        sim.settled().expect("reached at its new address");
        assert_eq!(downs(&sim), before, "no link went down for it");
    });
}

fn downs(sim: &Sim) -> usize {
    sim.notes().iter().filter(|note| matches!(note.note, grange_sim::Note::Down(_))).count()
}
