//! Links over a long time: new keys without a lost packet, sizes that really pass.

use std::time::Duration;

use grange_sim::{Note, Quality, Setup, Topology, report::each_seed};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn new_keys_cost_no_packet() {
    each_seed(3, |seed| {
        let quality = Quality::CABLE.with_latency(Duration::from_millis(1 + 20 * seed));
        let mut sim = Setup::new(seed, Topology::chain(3)).quality(quality).build();
        sim.settle(5 * SECOND);
        let flow = sim.flow(0, 2, SECOND / 50, 300);
        let begin = sim.now();
        sim.run_for(600 * SECOND);
        let rekeyed = sim.notes().iter().filter(|note| note.note == Note::Rekeyed).count();
        assert!((2 * 2 * 3..=2 * 2 * 8).contains(&rekeyed), "{rekeyed} new keys on two links in ten minutes");
        assert_eq!(sim.outage(flow, begin), Some(Duration::ZERO), "a packet was lost");
        assert!((0..3).all(|host| sim.counters(host).unopened == 0));
    });
}

#[test]
fn new_keys_come_through_loss() {
    each_seed(3, |seed| {
        let mut sim = Setup::new(seed, Topology::chain(2)).quality(Quality::BAD_RADIO.with_loss(0.3)).build();
        sim.run_for(1800 * SECOND);
        let notes = sim.notes();
        assert!(notes.iter().filter(|note| note.note == Note::Rekeyed).count() >= 20);
        let downs = notes.iter().filter(|note| matches!(note.note, Note::Down(_))).count();
        assert!(downs <= 2, "{downs} ends of links went down in half an hour at 30 % loss");
        sim.run_for(10 * SECOND);
        sim.settled().expect("up");
    });
}

#[test]
fn a_link_says_no_more_than_what_passes() {
    for (interface, path) in [(1500, 1500), (1500, 1420), (1500, 1300), (1436, 1436), (9000, 9000)] {
        let mut setup = Setup::new(1, Topology::chain(3));
        setup.mtu = interface;
        let mut sim = setup.build();
        for wire in 0..sim.wires() {
            sim.set_path_mtu(wire, path);
        }
        sim.settle(10 * SECOND);
        sim.run_for(60 * SECOND);
        for (_, mtu) in (0..3).flat_map(|host| sim.link_mtus(host)) {
            assert!(mtu == 1280 || mtu + 81 <= path, "{mtu} on a path of {path}");
            // Large enough to be worth it: not more than 32 bytes wasted, where it is not the least.
            assert!(mtu + 81 + 32 > path || path < 1280 + 81 + 32, "only {mtu} on a path of {path}");
        }
        // A full-size packet passes everywhere, in two parts where need be.
        let flow = sim.flow(0, 2, SECOND / 10, 1280);
        let begin = sim.now();
        sim.run_for(10 * SECOND);
        assert_eq!(sim.outage(flow, begin), Some(Duration::ZERO), "1280 bytes on a path of {path}");
    }
}

#[test]
fn both_ends_starting_at_once_make_one_link() {
    each_seed(60, |seed| {
        let mut setup = Setup::new(seed, Topology::chain(2));
        setup.stagger = Duration::from_micros(seed * 40);
        setup.lateness = Duration::ZERO;
        setup.quality = Quality::CABLE.with_latency(Duration::from_millis(seed % 30));
        let mut sim = setup.build();
        sim.settle(5 * SECOND);
        sim.run_for(10 * SECOND);
        sim.settled().expect("settled");
        assert_eq!((sim.link_count(0), sim.link_count(1)), (1, 1));
        let ups = sim.notes().iter().filter(|note| note.note == Note::Up).count();
        assert_eq!(ups, 2, "one link, once up at each end");
    });
}

#[test]
fn two_cables_between_two_nodes_are_two_links() {
    let mut sim = Setup::new(1, Topology::cables(2, &[(0, 1), (0, 1)])).build();
    sim.settle(5 * SECOND);
    sim.run_for(5 * SECOND);
    assert_eq!((sim.link_count(0), sim.link_count(1)), (2, 2));
    sim.set_carrier(0, false);
    sim.settle(SECOND);
    sim.mend(0);
    sim.set_carrier(1, false);
    sim.settle(5 * SECOND);
}
