//! How links come up.

use std::{cell::Cell, rc::Rc};

use grange_core::{DownReason, Event, Identity, IfaceKind, Town, certificate};
use grange_wire::DatagramKind;

use crate::net::{Net, TOWN_KEY, ms, town};

#[test]
fn two_nodes_that_start_at_once_have_a_link_within_a_moment() {
    for kind in [IfaceKind::Wired, IfaceKind::Wireless] {
        let mut net = Net::new();
        net.add_node(1, Some(town(1)), 1);
        net.add_node(2, Some(town(2)), 2);
        net.add_wire(&[0, 1], kind);
        net.run_for(ms(100));
        net.assert_linked(0, 1);
        let initiations = net.log.iter().filter(|(_, flight)| flight.kind() == Some(DatagramKind::Initiation)).count();
        assert_eq!(initiations, 1, "one of the two begins");
        net.run_for(ms(100_000));
        net.assert_linked(0, 1);
        assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
    }
}

#[test]
fn names_are_shown_to_neighbours_only() {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    assert_eq!(net.peers[0].node.links().next().unwrap().peer.name, "node 2");
    let holds = |payload: &[u8], secret: &[u8]| payload.windows(secret.len()).any(|window| window == secret);
    let id = net.peers[1].node.id();
    for (_, flight) in &net.log {
        for secret in [&b"node 2"[..], &id.0, &net.peers[1].node.identity().public(), &town(2).certificate[..64]] {
            assert!(!holds(&flight.payload, secret));
        }
    }
}

#[test]
fn static_peers_find_each_other_from_one_side_too() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    net.add_node(2, Some(town(2)), 2);
    net.add_wire(&[0, 1], IfaceKind::Tunnel);
    net.peers[1].node.set_static_peers(net.now, &[]);
    net.wires[0].latency = ms(150);
    net.run_for(ms(3000));
    net.assert_linked(0, 1);
    net.run_for(ms(300_000));
    assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
    assert!(net.rekeys(0) >= 2);
}

#[test]
fn a_static_peer_that_is_not_there_is_asked_ever_less_often() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    net.add_node(9, None, 9);
    net.add_wire(&[0, 1], IfaceKind::Tunnel);
    net.run_for(ms(10 * 60 * 1000));
    let asked = net.log.len();
    assert!((20..=40).contains(&asked), "{asked}");
    assert_eq!(net.peers[1].node.poll_timeout(), None, "without a town a node waits for nothing");
}

#[test]
fn both_begin_at_once_and_the_lower_key_goes_on() {
    // Each hears only the other's first plain beacon, at the same moment: no solicits, no answers.
    for entropy in 0..40 {
        let mut net = Net::new();
        net.add_node(1, Some(town(1)), entropy);
        net.add_node(2, Some(town(2)), 100 + entropy);
        let quiet = Rc::new(Cell::new(true));
        let inner = quiet.clone();
        net.filter = Box::new(move |_, _| !inner.get());
        net.add_wire(&[0, 1], IfaceKind::Wired);
        net.run_for(ms(4000));
        quiet.set(false);
        // The latency is so long that each begins before the other's beginning arrives.
        net.wires[0].latency = ms(100);
        let (a, b) = (net.endpoint(0, 0), net.endpoint(1, 0));
        let now = net.now;
        net.peers[0].node.suggest_peer(now, b);
        net.peers[1].node.suggest_peer(now, a);
        net.settle(0);
        net.settle(1);
        net.run_for(ms(1500));
        net.assert_linked(0, 1);
        net.run_for(ms(20_000));
        assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1), "entropy {entropy}");
    }
}

#[test]
fn any_one_lost_message_delays_a_link_and_no_more() {
    for lost in 0..16 {
        let mut net = Net::new();
        net.add_node(1, Some(town(1)), 1);
        net.add_node(2, Some(town(2)), 2);
        let mut n = 0;
        net.filter = Box::new(move |_, _| {
            n += 1;
            n - 1 != lost
        });
        net.add_wire(&[0, 1], IfaceKind::Wired);
        net.run_for(ms(1500));
        net.assert_linked(0, 1);
        net.run_for(ms(60_000));
        assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1), "message {lost}");
    }
}

#[test]
fn every_first_message_of_a_kind_may_be_lost_thrice() {
    for kind in [
        DatagramKind::Beacon,
        DatagramKind::Initiation,
        DatagramKind::Response,
        DatagramKind::Finish,
        DatagramKind::Control,
    ] {
        let mut net = Net::new();
        net.add_node(1, Some(town(1)), 1);
        net.add_node(2, Some(town(2)), 2);
        let mut left = 3;
        net.filter = Box::new(move |_, flight| {
            let hit = flight.kind() == Some(kind) && left > 0;
            left -= u32::from(hit);
            !hit
        });
        net.add_wire(&[0, 1], IfaceKind::Wired);
        net.run_for(ms(4000));
        net.assert_linked(0, 1);
        assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1), "{kind:?}");
    }
}

#[test]
fn links_form_at_heavy_loss() {
    for entropy in 0..20 {
        let mut net = Net::new();
        net.add_node(1, Some(town(1)), entropy);
        net.add_node(2, Some(town(2)), 100 + entropy);
        net.add_wire(&[0, 1], IfaceKind::Wireless);
        net.wires[0].loss = 400;
        net.run_for(ms(20_000));
        assert!(!net.ups(0).is_empty() && !net.ups(1).is_empty(), "entropy {entropy}");
    }
}

#[test]
fn duplicated_and_late_messages_make_one_link() {
    let mut net = Net::pair();
    for _ in 0..400 {
        net.run_for(ms(1));
        // Everything comes twice more: at once, and once everything else has come.
        let again: Vec<_> = net.log.iter().filter(|(at, _)| *at == net.now).map(|(_, flight)| flight.clone()).collect();
        again.into_iter().for_each(|flight| net.deliver(&flight));
    }
    let all: Vec<_> = net.log.iter().map(|(_, flight)| flight.clone()).collect();
    all.into_iter().for_each(|flight| net.deliver(&flight));
    net.run_for(ms(10_000));
    net.assert_linked(0, 1);
    assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
}

#[test]
fn three_on_one_wire_make_three_links() {
    let mut net = Net::new();
    for seed in 1..=3_u8 {
        net.add_node(seed.into(), Some(town(seed.into())), seed);
    }
    net.add_wire(&[0, 1, 2], IfaceKind::Wireless);
    net.run_for(ms(500));
    for node in 0..3 {
        assert_eq!(net.links(node).len(), 2);
    }
    net.run_for(ms(30_000));
    for node in 0..3 {
        assert_eq!(net.ups(node).len(), 2);
    }
}

#[test]
fn two_wires_between_two_nodes_make_two_links() {
    let mut net = Net::pair();
    net.add_wire(&[0, 1], IfaceKind::Wireless);
    net.run_for(ms(2000));
    assert_eq!((net.links(0).len(), net.links(1).len()), (2, 2));
}

#[test]
fn a_node_makes_no_link_with_itself() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    // Both ends of the wire, by two interfaces of one node: what one sends comes in at the other.
    net.add_wire(&[0], IfaceKind::Wired);
    let (now, own) = (net.now, net.endpoint(0, 0));
    net.peers[0].node.set_static_peers(now, &[own]);
    net.run_for(ms(500));
    let beacons: Vec<_> = net.log.iter().map(|(_, flight)| flight.clone()).collect();
    assert!(!beacons.is_empty());
    net.run_for(ms(30_000));
    for mut flight in beacons {
        flight.from.addr.set_port(1);
        net.deliver(&flight);
    }
    net.run_for(ms(30_000));
    assert!(net.ups(0).is_empty());
    assert!(net.log.iter().all(|(_, flight)| flight.kind() != Some(DatagramKind::Response)));
}

#[test]
fn a_certificate_for_another_link_key_is_refused() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    // Holds the town key and a copy of node 2's certificate, but not its keys.
    net.add_node(66, Some(town(2)), 66);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net.run_for(ms(30_000));
    assert!(net.ups(0).is_empty());
    assert!(net.peers[0].node.stats().certificate > 0);
}

#[test]
fn a_certificate_of_another_town_is_refused() {
    let steward = certificate::Steward::from_seed(&[201; 32]);
    let certificate = certificate::by_steward(&steward, &Identity::from_seed(&[3; 32]), 0);
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    // Knows the key of the first town.
    let other = Town { id: steward.town(), name: "Other".into(), key: TOWN_KEY, certificate };
    net.add_node(3, Some(other), 3);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net.run_for(ms(30_000));
    assert!(net.ups(0).is_empty() && net.ups(1).is_empty());
}

#[test]
fn leaving_and_joining_a_town_closes_and_opens_links() {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    let now = net.now;
    net.peers[0].node.set_town(now, None);
    net.settle(0);
    net.run_for(ms(1000));
    assert_eq!(net.downs(1)[0].1, DownReason::Closed);
    assert!(net.links(0).is_empty() && net.links(1).is_empty());
    let now = net.now;
    net.peers[0].node.set_town(now, Some(town(1)));
    net.settle(0);
    net.run_for(ms(1000));
    net.assert_linked(0, 1);
}

#[test]
fn shutdown_says_goodbye() {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    let now = net.now;
    net.peers[0].node.shutdown(now);
    net.settle(0);
    assert!(matches!(net.peers[0].events.last(), Some((_, Event::LinkDown { reason: DownReason::Shutdown, .. }))));
    assert_eq!(net.peers[0].node.poll_timeout(), None);
    net.run_for(ms(20_000));
    assert_eq!(net.downs(1).len(), 1);
    assert_eq!(net.downs(1)[0].1, DownReason::Closed);
    assert_eq!(net.ups(0).len(), 1);
}
