//! New keys, restarts, and changed addresses.

use std::net::Ipv6Addr;

use grange_core::{DownReason, Event, IfaceKind};
use grange_wire::{DatagramKind, PORT};

use crate::net::{Flight, Net, ms};

#[test]
fn new_keys_come_under_traffic_without_a_gap() {
    for latency in [0, 2, 40] {
        let mut net = Net::pair();
        net.wires[0].latency = ms(latency);
        net.keep_log = false;
        net.run_for(ms(1000));
        net.add_flow(0, 1, ms(5));
        net.add_flow(1, 0, ms(5));
        net.run_for(ms(1_200_000));
        assert!((8..=10).contains(&net.rekeys(0)), "{}", net.rekeys(0));
        assert_eq!(net.rekeys(0), net.rekeys(1));
        assert_eq!((net.ups(0).len(), net.downs(0).len(), net.downs(1).len()), (1, 0, 0));
        assert_eq!(net.undecipherable, 0, "latency {latency}");
        assert!(net.deciphered > 479_000);
        net.assert_linked(0, 1);
    }
}

#[test]
fn any_one_lost_message_of_a_rekeying_makes_no_gap() {
    for kind in [
        DatagramKind::Beacon,
        DatagramKind::Initiation,
        DatagramKind::Response,
        DatagramKind::Finish,
        DatagramKind::Control,
    ] {
        for nth in 0..4 {
            let mut net = Net::pair();
            net.keep_log = false;
            net.run_for(ms(100_000));
            net.add_flow(0, 1, ms(20));
            net.add_flow(1, 0, ms(20));
            let mut n = 0;
            let mut rekeying = false;
            net.filter = Box::new(move |_, flight| {
                rekeying |= flight.kind() == Some(DatagramKind::Initiation);
                let counts = flight.kind() == Some(kind) && (rekeying || kind == DatagramKind::Beacon);
                n += u32::from(counts);
                !(counts && n == nth + 1)
            });
            net.run_for(ms(60_000));
            assert_eq!((net.rekeys(0), net.rekeys(1)), (1, 1), "{kind:?} {nth}");
            assert_eq!(net.undecipherable, 0, "{kind:?} {nth}");
            net.assert_linked(0, 1);
        }
    }
}

#[test]
fn keys_that_cannot_be_renewed_run_out() {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    net.filter = Box::new(|_, flight| flight.kind() == Some(DatagramKind::Control));
    net.run_for(ms(181_000));
    assert_eq!(net.downs(0).last().map(|down| down.1), Some(DownReason::Expired));
    assert_eq!(net.downs(1).last().map(|down| down.1), Some(DownReason::Expired));
    net.filter = Box::new(|_, _| true);
    net.run_for(ms(6000));
    net.assert_linked(0, 1);
}

#[test]
fn a_node_that_starts_anew_is_back_within_a_second() {
    for kind in [IfaceKind::Wired, IfaceKind::Tunnel] {
        for entropy in 10..30 {
            let mut net = Net::new();
            net.add_node(1, Some(crate::net::town(1)), 1);
            net.add_node(2, Some(crate::net::town(2)), 2);
            net.add_wire(&[0, 1], kind);
            net.run_for(ms(20_000));
            net.assert_linked(0, 1);
            let old = net.links(0);
            net.restart(1, 0, kind, entropy);
            net.run_for(ms(1000));
            net.assert_linked(0, 1);
            assert_ne!(net.links(0), old);
            // Down, then up: never two links between the same ends.
            let events: Vec<_> = net.peers[0]
                .events
                .iter()
                .filter_map(|(_, event)| match event {
                    Event::LinkUp { .. } => Some("up"),
                    Event::LinkDown { reason: DownReason::Replaced, .. } => Some("replaced"),
                    Event::LinkDown { .. } => Some("down"),
                    _ => None,
                })
                .collect();
            assert_eq!(events, ["up", "replaced", "up"]);
            net.run_for(ms(60_000));
            net.assert_linked(0, 1);
        }
    }
}

#[test]
fn routes_over_a_replaced_link_go_before_it() {
    let mut net = Net::pair();
    net.run_for(ms(20_000));
    net.restart(1, 0, IfaceKind::Wired, 9);
    let before = net.peers[0].events.len();
    net.run_for(ms(1000));
    let events = &net.peers[0].events[before..];
    let down = events.iter().position(|(_, event)| matches!(event, Event::LinkDown { .. })).unwrap();
    let up = events.iter().position(|(_, event)| matches!(event, Event::LinkUp { .. })).unwrap();
    let removed = events.iter().position(|(_, event)| matches!(event, Event::RouteRemoved { .. })).unwrap();
    assert!(removed < down && down < up);
}

#[test]
fn a_link_follows_its_neighbours_address() {
    for kind in [IfaceKind::Wired, IfaceKind::Tunnel] {
        let mut net = Net::new();
        net.add_node(1, Some(crate::net::town(1)), 1);
        net.add_node(2, Some(crate::net::town(2)), 2);
        net.add_wire(&[0, 1], kind);
        net.run_for(ms(20_000));
        let link = net.links(0);
        let net_part = if kind == IfaceKind::Tunnel { 0x2001 } else { 0xfe80 };
        let elsewhere = (Ipv6Addr::new(net_part, 0, 0, 0, 0, 0, 7, 7), PORT + 1).into();
        net.readdress(1, 0, elsewhere);
        net.run_for(ms(10_000));
        assert_eq!(net.links(0), link, "{kind:?}");
        assert_eq!(net.peers[0].node.links().next().unwrap().endpoint.addr, elsewhere);
        assert!(net.peers[0].events.iter().any(|(_, event)| matches!(event, Event::LinkMoved { .. })));
        net.run_for(ms(300_000));
        assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
        assert!(net.rekeys(1) >= 2, "new keys go where the neighbour is");
    }
}

#[test]
fn an_old_frame_from_elsewhere_moves_nothing() {
    let mut net = Net::pair();
    net.run_for(ms(20_000));
    let control = |flight: &Flight| flight.kind() == Some(DatagramKind::Control) && flight.receiver == 0;
    let held = net.log.iter().rfind(|(_, flight)| control(flight)).unwrap().1.clone();
    let mut net = Net::pair();
    // The same run again; this time the frame is held back until a newer one has come.
    let wanted = held.payload.clone();
    net.filter = Box::new(move |_, flight| flight.payload != wanted);
    net.run_for(ms(26_000));
    let mut late = held;
    late.from.addr.set_port(9);
    let drops = net.peers[0].node.stats();
    net.deliver(&late);
    assert_eq!(net.peers[0].node.stats(), drops, "it is taken, since it was not seen");
    assert_eq!(net.peers[0].node.links().next().unwrap().endpoint, net.endpoint(1, 0));
}
