//! What an idle town sends.

use std::time::Duration;

use grange_sim::{Setup, Topology, report::measured};

const SECOND: Duration = Duration::from_secs(1);

/// Bytes a node and second, with IPv6 and UDP headers: the mean, and the busiest node's.
fn idle(name: &str, topology: Topology) -> (f64, f64) {
    let mut sim = Setup::new(1, topology).build();
    sim.run_for(60 * SECOND);
    sim.settled().expect("formed");
    let sent = |sim: &grange_sim::Sim| (0..sim.nodes()).map(|host| sim.counters(host)).collect::<Vec<_>>();
    let before = sent(&sim);
    let time = 300 * SECOND;
    sim.run_for(time);
    let after = sent(&sim);
    let rates: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after.total() - before.total()) as f64 / time.as_secs_f64())
        .collect();
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let most = rates.iter().copied().fold(0.0, f64::max);
    measured(&format!("idle bytes a node and second, {name}"), format!("mean {mean:.0}, most {most:.0}"));
    for (kind, what) in [(1, "beacons"), (5, "control")] {
        let share: u64 = before.iter().zip(&after).map(|(before, after)| after.bytes[kind] - before.bytes[kind]).sum();
        let share = share as f64 / time.as_secs_f64() / rates.len() as f64;
        measured(&format!("  of it {what}"), format!("{share:.0}"));
    }
    (mean, most)
}

#[test]
fn an_idle_town_is_quiet() {
    let (mean, _) = idle("chain of 10", Topology::chain(10));
    assert!(mean < 375.0, "more than 3 kbit/s");
    let (mean, _) = idle("grid 10x5", Topology::grid(10, 5));
    assert!(mean < 1000.0, "more than 8 kbit/s");
    idle("one segment of 12", Topology::segment(12));
}
