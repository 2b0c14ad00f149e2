//! Silent loss: found by evidence where there is traffic, and not found where there is only bad weather.

use std::time::Duration;

use grange_core::IfaceKind;
use grange_sim::{
    Note, Quality, Setup, Sim, Topology,
    report::{Distribution, each_seed, measured, one_seed},
};

const SECOND: Duration = Duration::from_secs(1);

/// A diamond with a flow from end to end; the cable in use goes dead with its carrier up. How long requests went
/// unanswered.
fn heal(seed: u64, quality: Quality, kind: IfaceKind, interval: Duration, one_way: bool) -> Duration {
    let mut sim = Setup::new(seed, Topology::diamond()).quality(quality).kind(kind).build();
    sim.run_for(8 * SECOND);
    let flow = sim.flow(0, 3, interval, 400);
    // Some time of traffic, so that the cut falls anywhere between hellos.
    sim.run_for(4 * SECOND + Duration::from_millis(seed * 37 % 4000));
    let middle = sim.via(0, &sim.prefixes(3)[0]).expect("a way to node 3");
    // Wire 0 or 2 at the near end, 1 or 3 at the far end.
    let wire = (middle - 1) * 2 + usize::from(seed % 2 == 1);
    let cut = sim.now();
    if one_way {
        let (near, far) = if seed % 2 == 1 { (middle, 3) } else { (0, middle) };
        let (from, to) = if seed % 4 < 2 { (near, far) } else { (far, near) };
        sim.deafen(wire, from, to);
    } else {
        sim.silence(wire);
    }
    sim.run_for(20 * SECOND);
    match sim.outage(flow, cut) {
        Some(outage) => outage,
        None => panic!("never healed; the way is now over {:?}", sim.via(0, &sim.prefixes(3)[0])),
    }
}

#[test]
fn a_silent_cut_under_traffic_heals() {
    let ten = SECOND / 100;
    let times = each_seed(200, |seed| heal(seed, Quality::CABLE, IfaceKind::Wired, ten, false));
    let times = Distribution::new(times);
    measured("silent cut healed, diamond, traffic at 100/s", &times);
    assert!(one_seed() || times.percentile(0.5) <= 3 * SECOND / 2, "{times}");
    assert!(times.percentile(0.99) <= 3 * SECOND, "{times}");
}

#[test]
fn a_silent_cut_under_little_traffic_heals() {
    let times = each_seed(60, |seed| heal(seed, Quality::CABLE, IfaceKind::Wired, SECOND / 2, false));
    let times = Distribution::new(times);
    measured("silent cut healed, diamond, traffic at 2/s", &times);
    assert!(times.percentile(0.99) <= 3 * SECOND, "{times}");
}

#[test]
fn a_cut_in_one_direction_heals() {
    let times = each_seed(60, |seed| heal(seed, Quality::CABLE, IfaceKind::Wired, SECOND / 100, true));
    let times = Distribution::new(times);
    measured("one direction cut silently, healed, traffic at 100/s", &times);
    assert!(times.percentile(0.99) <= 3 * SECOND, "{times}");
}

#[test]
fn a_silent_cut_of_a_radio_heals() {
    let quality = Quality { loss: 0.0, ..Quality::BAD_RADIO };
    let times = each_seed(60, |seed| heal(seed, quality, IfaceKind::Wireless, SECOND / 50, false));
    let times = Distribution::new(times);
    measured("silent cut healed, radio of 3 to 15 ms, traffic at 50/s", &times);
    assert!(times.percentile(0.99) <= 3 * SECOND, "{times}");
}

/// Links that went down with nothing but weather to blame, and the hours that all links together stood.
fn false_drops(sim: &mut Sim, time: Duration) -> (usize, f64) {
    sim.run_for(30 * SECOND);
    let before = sim.notes().len();
    sim.run_for(time);
    let downs = sim.notes()[before..].iter().filter(|note| matches!(note.note, Note::Down(_))).count();
    // Both ends say that a link went down; a drop that only one of them saw counts as one.
    (downs.div_ceil(2), sim.wires() as f64 * time.as_secs_f64() / 3600.0)
}

#[test]
fn twenty_percent_loss_is_no_reason_to_drop_a_link() {
    for (name, kind, traffic) in [
        ("wireless, idle", IfaceKind::Wireless, false),
        ("wireless, with traffic", IfaceKind::Wireless, true),
        ("wired, with traffic", IfaceKind::Wired, true),
    ] {
        let counts = each_seed(1, |seed| {
            let quality = Quality::CABLE.with_latency(2 * SECOND / 1000).with_loss(0.2);
            let mut sim = Setup::new(seed, Topology::grid(4, 4)).quality(quality).kind(kind).build();
            if traffic {
                for (src, dst) in [(0, 15), (3, 12), (5, 6), (1, 13)] {
                    sim.flow(src, dst, SECOND / 2, 400);
                }
            }
            false_drops(&mut sim, 3600 * SECOND)
        });
        let drops: usize = counts.iter().map(|count| count.0).sum();
        let days = counts.iter().map(|count| count.1).sum::<f64>() / 24.0;
        let rate = drops as f64 / days;
        measured(
            &format!("false link drops at 20 % loss, {name}"),
            format!("{drops} in {days:.2} link-days: {rate:.2} a link-day"),
        );
        assert!(one_seed() || rate <= 1.0, "{name}: {rate} a link-day");
    }
}

#[test]
fn idle_links_stay_up_on_good_wires() {
    let mut sim = Setup::new(1, Topology::grid(3, 3)).build();
    let (drops, hours) = false_drops(&mut sim, 3600 * SECOND);
    measured("link drops on good wires", format!("{drops} in {hours:.0} link-hours"));
    assert_eq!(drops, 0);
    sim.settled().expect("settled after an hour");
}
