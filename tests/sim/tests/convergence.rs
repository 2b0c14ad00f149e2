//! Towns form, and their routes are the shortest.

use std::time::Duration;

use grange_core::{GatewayPolicy, IfaceKind};
use grange_sim::{
    Dice, Quality, Setup, Sim, Topology, Walk,
    report::{each_seed, large_runs, measured},
};
use grange_wire::Prefix;

const SECOND: Duration = Duration::from_secs(1);

/// A town must stand within this time after all nodes started.
const START: Duration = Duration::from_secs(5);

fn forms(name: &str, topology: Topology) -> Sim {
    let mut sim = Setup::new(1, topology).build();
    let time = sim.settle(START);
    measured(&format!("cold start, {name}"), format!("{} ms", time.as_millis()));
    sim
}

#[test]
fn every_shape_forms_and_finds_the_shortest_ways() {
    let shapes = [
        ("chain of 10", Topology::chain(10)),
        ("ring of 9", Topology::ring(9)),
        ("grid 4x4", Topology::grid(4, 4)),
        ("clique of 8", Topology::clique(8)),
        ("one segment of 8", Topology::segment(8)),
        ("diamond", Topology::diamond()),
        ("the demo's five", Topology::demo()),
        ("random geometric of 16", Topology::geometric(16, &mut Dice::new(1, 1))),
    ];
    for (name, topology) in shapes {
        let mut sim = forms(name, topology);
        sim.run_for(60 * SECOND);
        sim.settled().expect("still settled after a minute");
        sim.agrees_with_reference(0).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn fifty_nodes_form_within_five_seconds() {
    let sim = forms("grid 10x5", Topology::grid(10, 5));
    let bytes: u64 = (0..sim.nodes()).map(|host| sim.counters(host).total()).sum();
    measured("bytes sent until it stood, grid 10x5", format!("{} KiB a node", bytes / 1024 / sim.nodes() as u64));
}

#[test]
fn random_towns_agree_with_the_reference() {
    each_seed(40, |seed| {
        let topology = Topology::random(16, &mut Dice::new(seed, 20));
        let quality = Quality::CABLE.with_latency(Duration::from_micros(100 + seed * 300));
        let kind = if seed.is_multiple_of(2) { IfaceKind::Wired } else { IfaceKind::Wireless };
        let mut sim = Setup::new(seed, topology).quality(quality).kind(kind).build();
        sim.settle(START);
        sim.run_for(90 * SECOND);
        sim.settled().expect("still settled");
        sim.agrees_with_reference(0).unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn static_peers_form_a_town_over_the_internet() {
    let mut setup = Setup::new(3, Topology::ring(5));
    setup.tunnels = vec![0, 2];
    setup.quality = Quality::CABLE.with_latency(Duration::from_millis(15));
    let mut sim = setup.build();
    sim.settle(START);
    // A way through the Internet ends: no carrier tells of it.
    sim.silence(2);
    sim.settle(30 * SECOND);
    sim.mend(2);
    sim.settle(SECOND);
    sim.run_for(60 * SECOND);
    assert_eq!(sim.link_count(2), 2, "the static peer is asked again after the cut");
}

#[test]
fn a_town_forms_through_a_bad_radio() {
    let times = each_seed(60, |seed| {
        let topology = Topology::geometric(10, &mut Dice::new(seed, 21));
        let mut sim = Setup::new(seed, topology).quality(Quality::BAD_RADIO).kind(IfaceKind::Wireless).build();
        sim.settle(START)
    });
    measured("cold start, 10 nodes, 10 % loss", grange_sim::report::Distribution::new(times));
}

#[test]
fn a_default_route_leads_to_an_allowed_gateway_and_moves_when_it_goes() {
    let mut sim = Setup::new(4, Topology::chain(6)).build();
    let defaults = [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6];
    sim.set_announced(0, &defaults);
    sim.set_announced(5, &defaults);
    let only = sim.id(0);
    sim.set_policy(4, GatewayPolicy::Only(vec![only]));
    sim.set_policy(2, GatewayPolicy::Nobody);
    sim.settle(START);
    sim.run_for(20 * SECOND);
    for prefix in defaults {
        assert!(matches!(sim.walk(1, &prefix), Walk::Delivered(path) if path == [1, 0]));
        assert_eq!(sim.fib(2).get(&prefix), None, "node 2 takes nobody's default route");
        // Node 2 hands none on, so only node 5's comes this far, and node 4 refuses it.
        assert_eq!(sim.fib(3).get(&prefix), None);
        assert_eq!(sim.fib(4).get(&prefix), None);
    }
    // The gateway stops to be one.
    sim.set_announced(0, &[]);
    sim.run_for(10 * SECOND);
    for prefix in defaults {
        assert_eq!(sim.fib(1).get(&prefix), None);
    }

    let mut sim = Setup::new(5, Topology::chain(6)).build();
    sim.set_announced(0, &defaults);
    sim.set_announced(5, &defaults);
    sim.settle(START);
    sim.run_for(20 * SECOND);
    assert!(matches!(sim.walk(2, &defaults[1]), Walk::Delivered(path) if path == [2, 1, 0]));
    assert!(matches!(sim.walk(3, &defaults[1]), Walk::Delivered(path) if path == [3, 4, 5]));
    sim.stop(0);
    let moved = sim.run_until(30 * SECOND, |sim| {
        (1..6).all(|from| matches!(sim.walk(from, &defaults[0]), Walk::Delivered(path) if path.last() == Some(&5)))
    });
    let moved = moved.expect("the other gateway is taken");
    measured("another gateway after the near one stopped", format!("{} ms", moved.as_millis()));
    assert!(moved < 2 * SECOND);
}

#[test]
fn two_hundred_and_fifty_nodes_form_within_fifteen_seconds() {
    if !large_runs("two_hundred_and_fifty_nodes_form_within_fifteen_seconds") {
        return;
    }
    let mut sim = Setup::new(1, Topology::grid(25, 10)).build();
    let time = sim.settle(15 * SECOND);
    measured("cold start, grid 25x10", format!("{} ms", time.as_millis()));
}
