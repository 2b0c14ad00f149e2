//! Many speakers together: loop freedom, convergence, and what strangers may not do.

mod forgery;
mod net;

use alloc::vec::Vec;
use core::time::Duration;
use std::println;

use grange_wire::{Prefix, babel::INFINITY};
use net::{Net, Weather};

use crate::IfaceKind;

const COST: u16 = 96;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn chain(nodes: usize, seed: u64) -> Net {
    let mut net = Net::new(nodes, seed);
    for node in 1..nodes {
        net.add_edge(node - 1, node);
    }
    net
}

fn grid(width: usize, height: usize, seed: u64) -> Net {
    let mut net = Net::new(width * height, seed);
    for y in 0..height {
        for x in 0..width {
            let node = y * width + x;
            if x > 0 {
                net.add_edge(node - 1, node);
            }
            if y > 0 {
                net.add_edge(node - width, node);
            }
        }
    }
    net
}

/// A connected graph: a random tree and some more edges.
fn random_graph(nodes: usize, more: usize, seed: u64, weather: Weather) -> Net {
    let mut net = Net::new(nodes, seed);
    net.weather = weather;
    for node in 1..nodes {
        let other = net.random(node);
        net.add_edge(node, other);
    }
    for _ in 0..more {
        let (a, b) = (net.random(nodes), net.random(nodes));
        if a != b {
            net.add_edge(a, b);
        }
    }
    net
}

#[test]
fn two_nodes_know_each_other_after_one_exchange() {
    let mut net = chain(2, 1);
    net.run(millis(3));
    assert_eq!(net.wrong_routes(COST), 0);
}

#[test]
fn a_chain_of_ten_converges_in_less_than_a_second() {
    let took = chain(10, 2).converge(COST, millis(1000));
    println!("chain of 10: {took:?}");
}

#[test]
fn a_grid_of_49_converges_within_seconds() {
    let mut net = grid(7, 7, 3);
    let took = net.converge(COST, Duration::from_secs(10));
    println!("grid of 49: {took:?}, {} bytes in {} packets", net.bytes, net.packets);
}

#[test]
fn a_cut_link_is_left_at_once_where_there_is_another_way() {
    // A ring of six: the way round the other side is feasible for the node opposite, and one seqno away for the others.
    let mut net = Net::new(6, 4);
    let edges: Vec<_> = (0..6).map(|node| net.add_edge(node, (node + 1) % 6)).collect();
    net.converge(COST, Duration::from_secs(5));
    net.down(edges[0]);
    let took = net.converge(COST, millis(1000));
    println!("ring of 6, one link cut: {took:?}");
    net.up(edges[0]);
    net.converge(COST, Duration::from_secs(10));
}

#[test]
fn a_node_that_is_gone_is_gone_everywhere_without_counting_to_infinity() {
    let mut net = grid(4, 4, 5);
    net.converge(COST, Duration::from_secs(10));
    let gone = net.prefixes(0);
    let mut highest = 0;
    net.kill(0);
    for edge in net.edges_of(0) {
        net.down(edge);
    }
    for _ in 0..300 {
        net.run(millis(10));
        for node in 1..net.nodes() {
            highest = highest.max(gone.iter().filter_map(|prefix| net.metric(node, prefix)).max().unwrap_or(0));
        }
    }
    assert_eq!(net.wrong_routes(COST), 0);
    assert!(highest <= COST * 15, "metrics went up to {highest}");
}

#[test]
fn a_restarted_node_is_back_within_a_second() {
    for seed in 0..10 {
        let mut net = grid(4, 3, seed);
        net.converge(COST, Duration::from_secs(10));
        let node = net.random(12);
        let edges = net.edges_of(node);
        net.kill(node);
        net.run(millis(200));
        for edge in &edges {
            net.down(*edge);
        }
        net.start(node);
        net.run(millis(5));
        for edge in edges {
            net.up(edge);
        }
        let start = net.now;
        while net.unreached() > 0 {
            assert!(net.now.since(start) < millis(1000), "{} routes are missing", net.unreached());
            net.run(millis(10));
        }
        println!("restart of node {node} of a grid of 12: reached after {:?}", net.now.since(start));
        net.converge(COST, Duration::from_secs(15));
    }
}

#[test]
fn a_stopped_node_says_so() {
    let mut net = grid(3, 3, 6);
    net.converge(COST, Duration::from_secs(10));
    let now = net.now;
    net.router(4).shutdown(now);
    net.run(Duration::ZERO);
    net.flush(4);
    net.kill(4);
    net.run(millis(500));
    for prefix in net.prefixes(4) {
        for node in (0..9).filter(|node| *node != 4) {
            assert_eq!(net.metric(node, &prefix), None, "node {node}");
        }
    }
    let corner = net.prefixes(0)[0];
    assert_eq!(net.metric(8, &corner), Some(COST * 4));
}

#[test]
fn members_use_the_nearest_gateway_and_another_when_it_stops() {
    let mut net = chain(6, 7);
    net.announce(0, &[Prefix::DEFAULT_V4, Prefix::DEFAULT_V6]);
    net.announce(5, &[Prefix::DEFAULT_V6]);
    net.run(Duration::from_secs(5));
    assert_eq!(net.metric(1, &Prefix::DEFAULT_V6), Some(COST));
    assert_eq!(net.metric(4, &Prefix::DEFAULT_V6), Some(COST));
    assert_eq!(net.metric(4, &Prefix::DEFAULT_V4), Some(COST * 4));
    net.announce(5, &[]);
    net.run(millis(500));
    for node in 1..6 {
        assert_eq!(net.metric(node, &Prefix::DEFAULT_V6), Some(COST * node as u16), "node {node}");
    }
    net.announce(5, &[Prefix::DEFAULT_V6]);
    net.run(Duration::from_secs(10));
    assert_eq!(net.metric(4, &Prefix::DEFAULT_V6), Some(COST));
    assert_eq!(net.metric(5, &Prefix::DEFAULT_V6), None, "a gateway takes nobody's default route");
}

/// Random failures in bad weather: the network itself looks for loops after every event.
fn storm(seed: u64, weather: Weather, steps: usize) {
    let mut net = random_graph(10, 6, seed, weather);
    net.announce(0, &[Prefix::DEFAULT_V6]);
    net.announce(1, &[Prefix::DEFAULT_V6]);
    net.run(Duration::from_secs(1));
    let mut stopped = Vec::new();
    for _ in 0..steps {
        match net.random(10) {
            0..4 => {
                let edge = net.random(net.edges());
                net.down(edge);
            }
            4..8 => {
                let edge = net.random(net.edges());
                if !net.edge_ends(edge).iter().any(|node| stopped.contains(node)) {
                    net.up(edge);
                }
            }
            8 => {
                let node = net.random(net.nodes());
                if !stopped.contains(&node) {
                    net.kill(node);
                    stopped.push(node);
                }
            }
            _ => {
                if let Some(node) = stopped.pop() {
                    for edge in net.edges_of(node) {
                        net.down(edge);
                    }
                    net.start(node);
                }
            }
        }
        let pause = net.random(120) as u64;
        net.run(millis(pause));
    }
    for node in stopped {
        for edge in net.edges_of(node) {
            net.down(edge);
        }
        net.start(node);
    }
    for edge in 0..net.edges() {
        net.up(edge);
    }
    net.weather.loss = weather.loss / 2;
    net.converge(COST, Duration::from_secs(90));
    // And it stays so.
    net.run(Duration::from_secs(200));
    assert_eq!(net.wrong_routes(COST), 0);
}

#[test]
fn no_loop_and_shortest_ways_in_fair_weather() {
    for seed in 0..12 {
        storm(seed, Weather::default(), 40);
    }
}

#[test]
fn no_loop_and_shortest_ways_with_loss_and_reordering() {
    let weather = Weather { latency: millis(5), jitter: millis(60), loss: 15, doubled: 5, ..Weather::default() };
    for seed in 100..112 {
        storm(seed, weather, 40);
    }
}

#[test]
fn no_loop_and_shortest_ways_over_slow_links() {
    let weather = Weather { latency: millis(300), jitter: millis(200), loss: 2, ..Weather::default() };
    for seed in 200..206 {
        storm(seed, weather, 30);
    }
}

#[test]
fn no_loop_in_a_long_series_of_storms() {
    for seed in 1000..1040 {
        let pick = |values: [u64; 4]| values[seed as usize % 4];
        let weather = Weather {
            latency: millis(pick([1, 10, 50, 200])),
            jitter: millis(pick([0, 30, 200, 5])),
            loss: pick([0, 20, 5, 10]) as u32,
            doubled: pick([0, 0, 20, 3]) as u32,
            ..Weather::default()
        };
        storm(seed, weather, 120);
    }
}

#[test]
fn a_radio_that_loses_costs_more_and_a_lossless_detour_is_taken() {
    let mut net = Net::new(3, 8);
    net.weather.kind = IfaceKind::Wireless;
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        net.add_edge(a, b);
    }
    net.run(Duration::from_secs(5));
    let far = net.prefixes(2)[0];
    assert_eq!(net.metric(0, &far), Some(256));
    net.lossy_edge(2, 75);
    net.run(Duration::from_secs(90));
    assert_eq!(net.metric(0, &far), Some(512));
}

#[test]
fn a_link_that_dies_silently_is_left_even_without_evidence() {
    let mut net = Net::new(3, 9);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        net.add_edge(a, b);
    }
    net.run(Duration::from_secs(5));
    let far = net.prefixes(2)[0];
    assert_eq!(net.metric(0, &far), Some(COST));
    net.lossy_edge(2, 100);
    net.run(Duration::from_secs(15));
    assert_eq!(net.metric(0, &far), Some(COST * 2));
}

#[test]
fn loss_alone_never_drops_a_wired_link() {
    let mut net = chain(2, 10);
    net.weather.loss = 20;
    for _ in 0..3600 {
        net.run(Duration::from_secs(1));
        for node in 0..2 {
            assert!(net.router(node).neighbours().all(|neighbour| neighbour.cost != INFINITY));
        }
    }
}

/// Bytes of Babel per second and node, all links and both directions of each counted once, in an hour without changes.
fn idle_bytes(net: &mut Net) -> f64 {
    net.converge(COST, Duration::from_secs(30));
    net.run(Duration::from_secs(120));
    net.bytes = 0;
    net.run(Duration::from_secs(600));
    net.bytes as f64 / 600.0 / net.nodes() as f64
}

#[test]
fn an_idle_node_says_little() {
    let chain = idle_bytes(&mut chain(10, 11));
    let mut net = grid(10, 5, 12);
    let grid = idle_bytes(&mut net);
    println!("idle: chain of 10 {chain:.1} bytes/s a node, grid of 50 {grid:.1} bytes/s a node");
    assert!(chain < 40.0 && grid < 250.0);
    assert_eq!((0..50).map(|node| net.router(node).stats().overflows).sum::<u64>(), 0);
}
