//! Links that go silent, and links that only lose much.

use std::time::Duration;

use grange_core::{DownReason, Event, IfaceId, IfaceKind};
use grange_wire::DatagramKind;

use crate::net::{Net, ms};

fn settled() -> Net {
    let mut net = Net::pair();
    net.keep_log = false;
    net.run_for(ms(600_000));
    net
}

/// From the moment the wire went dead.
fn found_after(net: &mut Net) -> Duration {
    let cut_at = net.now;
    let before = net.downs(0).len();
    net.wires[0].cut = true;
    net.run_for(ms(30_000));
    let (at, reason) = net.downs(0)[before];
    assert_eq!(reason, DownReason::Silent);
    at.since(cut_at)
}

#[test]
fn silence_under_traffic_is_found_within_a_second_and_a_half() {
    // From links that are known to lose nothing to links just made, and with traffic in one or both directions.
    for warm_up in [ms(200), ms(5000), ms(600_000)] {
        for both in [true, false] {
            let mut net = Net::pair();
            net.keep_log = false;
            net.run_for(warm_up);
            net.add_flow(0, 1, ms(10));
            if both {
                net.add_flow(1, 0, ms(10));
            }
            net.run_for(ms(1030));
            let took = found_after(&mut net);
            assert!(took < ms(1500), "{took:?} after {warm_up:?}");
            if warm_up == ms(600_000) && both {
                assert!(took < ms(700), "{took:?}");
            }
        }
    }
}

#[test]
fn silence_in_idle_air_is_found_after_three_hellos() {
    let mut net = settled();
    let took = found_after(&mut net);
    assert!(took > ms(7900) && took <= ms(12_600), "{took:?}");
}

#[test]
fn a_link_that_comes_back_is_used_again_at_once() {
    let mut net = settled();
    net.add_flow(0, 1, ms(10));
    net.add_flow(1, 0, ms(10));
    net.run_for(ms(1000));
    let old = net.links(0);
    net.wires[0].cut = true;
    net.run_for(ms(20_000));
    assert!(net.links(0).is_empty() && net.links(1).is_empty());
    net.wires[0].cut = false;
    net.run_for(ms(2300));
    net.assert_linked(0, 1);
    assert_ne!(net.links(0), old);
    net.run_for(ms(60_000));
    assert_eq!((net.ups(0).len(), net.ups(1).len()), (2, 2));
}

#[test]
fn a_link_that_works_one_way_only_goes_down_on_both_sides() {
    let mut net = settled();
    net.add_flow(0, 1, ms(10));
    net.add_flow(1, 0, ms(10));
    net.run_for(ms(1000));
    let broken_at = net.now;
    net.filter = Box::new(|_, flight| flight.sender == 0);
    net.run_for(ms(1500));
    assert_eq!(net.downs(0).len(), 1);
    assert_eq!(net.downs(1).len(), 1);
    assert!(net.downs(1)[0].0.since(broken_at) < ms(1500));
    net.filter = Box::new(|_, _| true);
    net.run_for(ms(6000));
    net.assert_linked(0, 1);
}

#[test]
fn an_hour_of_twenty_per_cent_loss_is_no_silence() {
    // Traffic both ways, one way (every answer is a probe's), and none.
    for (flow, back) in [(true, true), (true, false), (false, false)] {
        let mut net = Net::pair();
        net.keep_log = false;
        net.wires[0].loss = 200;
        net.run_for(ms(10_000));
        let ups = net.ups(0).len();
        if flow {
            net.add_flow(0, 1, ms(50));
        }
        if back {
            net.add_flow(1, 0, ms(50));
        }
        net.run_for(ms(3_600_000));
        assert_eq!((net.downs(0), net.downs(1)), (vec![], vec![]), "flow {flow}, back {back}");
        assert_eq!(net.ups(0).len(), ups);
    }
}

#[test]
fn lost_carrier_takes_the_link_down_at_once() {
    let mut net = settled();
    let now = net.now;
    net.set_carrier(0, 0, IfaceKind::Wired, false);
    assert_eq!(net.downs(0), [(now, DownReason::Interface)]);
    let removed = |(_, event): &(_, Event)| matches!(event, Event::RouteRemoved { .. });
    assert!(net.peers[0].events.iter().any(removed));
    net.run_for(ms(100));
    net.set_carrier(0, 0, IfaceKind::Wired, true);
    net.run_for(ms(1000));
    net.assert_linked(0, 1);
    let now = net.now;
    net.peers[0].node.set_iface(now, IfaceId(1), None);
    net.settle(0);
    assert_eq!(net.downs(0).len(), 2);
    assert!(net.peers[0].tubes.is_empty());
}

#[test]
fn probing_finds_the_mtu_and_that_it_shrank() {
    let mtu = |net: &Net, node: usize| net.peers[node].node.links().next().unwrap().mtu;
    let mut net = Net::pair();
    net.run_for(ms(1000));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1419, 1419));
    let told = |(_, event): &(_, Event)| matches!(event, Event::LinkMtu { mtu: 1419, .. });
    assert!(net.peers[0].events.iter().any(told));
    net.wires[0].mtu = 1420;
    net.run_for(ms(610_000));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1339, 1339));
    net.assert_linked(0, 1);
    assert_eq!(net.downs(0), []);

    let mut net = Net::pair();
    net.wires[0].mtu = 1280;
    net.run_for(ms(10_000));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1199, 1199));
}

#[test]
fn an_idle_link_costs_little_air() {
    let mut net = settled();
    net.keep_log = true;
    net.run_for(ms(60_000));
    let (mut frames, mut bytes) = (0, 0);
    for (_, flight) in net.log.iter().filter(|(_, flight)| flight.sender == 0) {
        frames += 1;
        bytes += flight.payload.len();
        assert_ne!(flight.kind(), Some(DatagramKind::Data));
    }
    // Twelve beacons, and hellos and the router's own each four seconds.
    assert!(frames < 80 && bytes < 16_000, "{frames} frames, {bytes} bytes");
}
