//! Seals: sessions from end to end, over a mesh that somebody else routes.

use grange_core::{DownReason, Endpoint, Event, IfaceId, IfaceKind, IfaceState, Town};
use grange_wire::DatagramKind;
use proptest::prelude::*;

use crate::net::{Flight, Net, invited, ms, town};

/// As many as a node has at most.
const SEALS: usize = 512;

fn kinds(net: &Net) -> Vec<DatagramKind> {
    net.log.iter().filter_map(|(_, flight)| flight.kind()).collect()
}

#[test]
fn a_seal_is_made_on_demand_within_three_round_trips() {
    use DatagramKind::{Beacon, Control, Finish, Initiation, Response};
    for entropy in 0..20 {
        let mut net = Net::far_pair(entropy);
        net.run_for(ms(60_000));
        assert!(net.log.is_empty(), "nobody looks for anybody");
        let wanted_at = net.now;
        (0..100).for_each(|_| net.want_seal(0, 1));
        net.run_for(ms(60));
        net.assert_sealed(0, 1);
        assert_eq!(net.seal_ups(0)[0].since(wanted_at), ms(60));
        assert_eq!(net.seal_ups(1)[0].since(wanted_at), ms(50));
        assert_eq!(kinds(&net)[..6], [Beacon, Beacon, Initiation, Response, Finish, Control]);
        assert_eq!((net.links(0), net.links(1)), (vec![], vec![]));
        assert_eq!(net.peers[0].node.seals(net.now).next().unwrap().peer.name, "node 2");
    }
}

#[test]
fn an_idle_seal_says_nothing_and_ends() {
    let mut net = Net::far_pair(1);
    net.want_seal(0, 1);
    net.run_for(ms(1000));
    let made_of = net.log.len();
    let routed = |(_, event): &(_, Event)| matches!(event, Event::RouteChanged { .. });
    assert!(!net.peers[0].events.iter().any(routed));
    net.run_for(ms(110_000));
    // New searches for what passes.
    assert!(net.log.len() - made_of <= 8, "{}", net.log.len() - made_of);
    net.run_for(ms(60_000));
    net.assert_sealed(0, 1);
    net.run_for(ms(20_000));
    for node in 0..2 {
        let downs = net.seal_downs(node);
        assert_eq!(downs.len(), 1);
        assert!(matches!(downs[0].1, DownReason::Idle | DownReason::Closed));
        assert_eq!(net.peers[node].node.seals(net.now).count(), 0);
    }
    let said = net.log.len();
    net.run_for(ms(600_000));
    assert_eq!(net.log.len(), said);
}

#[test]
fn data_in_either_direction_keeps_a_seal() {
    let mut net = Net::far_pair(2);
    net.keep_log = false;
    net.add_sealed_flow(0, 1, ms(100_000));
    net.run_for(ms(50));
    net.want_seal(0, 1);
    net.run_for(ms(1_000_000));
    assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len()), (1, 1));
    net.assert_sealed(0, 1);
    net.stop_flows();
    net.run_for(ms(200_000));
    assert_eq!((net.seal_downs(0).len(), net.seal_downs(1).len()), (1, 1));
}

#[test]
fn both_want_it_at_once_and_get_one() {
    for entropy in 0..40_u8 {
        for apart in [0, 3, 12, 25, 45] {
            let mut net = Net::far_pair(entropy);
            net.want_seal(0, 1);
            net.run_for(ms(apart));
            net.want_seal(1, 0);
            net.run_for(ms(1500));
            net.assert_sealed(0, 1);
            assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len()), (1, 1), "{entropy} {apart}");
        }
    }
}

#[test]
fn any_lost_message_costs_a_moment() {
    for lost in 0..6 {
        let mut net = Net::far_pair(3);
        let mut n = 0;
        net.filter = Box::new(move |_, _| {
            n += 1;
            n != lost + 1
        });
        net.want_seal(0, 1);
        net.run_for(ms(700));
        net.assert_sealed(0, 1);
        assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len()), (1, 1), "message {lost}");
    }
}

#[test]
fn seals_are_made_at_heavy_loss() {
    for entropy in 0..30 {
        let mut net = Net::far_pair(entropy);
        net.mesh.loss = 350;
        net.add_sealed_flow(0, 1, ms(20));
        net.run_for(ms(15_000));
        assert!(!net.seal_ups(0).is_empty() && !net.seal_ups(1).is_empty(), "entropy {entropy}");
    }
}

#[test]
fn new_keys_come_under_traffic_without_a_gap() {
    let mut net = Net::far_pair(4);
    net.keep_log = false;
    net.mesh.latency = ms(40);
    net.add_sealed_flow(0, 1, ms(10));
    net.add_sealed_flow(1, 0, ms(10));
    net.run_for(ms(1_200_000));
    assert!((8..=10).contains(&net.rekeys(0)), "{}", net.rekeys(0));
    assert_eq!(net.rekeys(0), net.rekeys(1));
    assert_eq!((net.seal_ups(0).len(), net.seal_downs(0).len(), net.seal_downs(1).len()), (1, 0, 0));
    assert_eq!(net.undecipherable, 0);
    net.assert_sealed(0, 1);
}

/// How long no sealed frame came to `node`, from `since` on.
fn gap(net: &Net, node: usize, since: grange_core::Instant) -> u128 {
    let first = net.unsealed.iter().find(|(at, to)| *at >= since && *to == node).expect("something came");
    first.0.since(since).as_millis()
}

#[test]
fn a_far_end_that_started_anew_is_found_by_traffic() {
    for entropy in 0..20 {
        // Traffic from the end that goes on, to it, and both ways.
        for (there, back) in [(true, false), (false, true), (true, true)] {
            let mut net = Net::far_pair(entropy);
            net.want_seal(0, 1);
            net.run_for(ms(200));
            if there {
                net.add_sealed_flow(0, 1, ms(10));
            }
            if back {
                net.add_sealed_flow(1, 0, ms(10));
            }
            net.run_for(ms(10_000));
            let restarted = net.now;
            net.restart(1, 0, IfaceKind::Wired, entropy + 100);
            net.run_for(ms(3000));
            net.assert_sealed(0, 1);
            let (node, most) = if back { (0, 200) } else { (1, 1700) };
            assert!(gap(&net, node, restarted + ms(20)) < most, "{entropy} {there} {back}");
            let downs: Vec<_> = net.seal_downs(0).iter().map(|down| down.1).collect();
            assert_eq!(downs, [if back { DownReason::Replaced } else { DownReason::Silent }]);
        }
    }
}

#[test]
fn a_cut_is_found_and_mended_with_little_air() {
    let mut net = Net::far_pair(5);
    net.add_sealed_flow(0, 1, ms(10));
    net.run_for(ms(20_000));
    let cut_at = net.now;
    net.mesh.cut = true;
    net.run_for(ms(3000));
    assert_eq!(net.seal_downs(0)[0].1, DownReason::Silent);
    assert!(net.seal_downs(0)[0].0.since(cut_at) < ms(1500));
    net.log.clear();
    net.run_for(ms(60_000));
    // From whoever wants something: the other end has nobody to miss.
    let asked = net.log.iter().filter(|(_, flight)| flight.sender == 0).count();
    assert!((40..=80).contains(&asked), "{asked}");
    net.mesh.cut = false;
    let mended = net.now;
    net.run_for(ms(2500));
    net.assert_sealed(0, 1);
    assert!(gap(&net, 1, mended) < 1500);
    // The other end may have kept its half all the time. It knows now that it is another one.
    assert_eq!((net.rekeys(0), net.rekeys(1)), (0, 0));
    assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len()), (2, 2));
}

#[test]
fn an_end_that_nobody_answers_is_left_in_peace() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 6);
    net.add_node(2, None, 7);
    net.want_seal(0, 1);
    net.run_for(ms(600_000));
    assert!((8..=17).contains(&net.log.len()), "{}", net.log.len());
    assert!(net.log.iter().all(|(_, flight)| flight.kind() == Some(DatagramKind::Beacon)));
}

#[test]
fn whether_a_handshake_renews_both_ends_see_alike() {
    // One end gives its seal up and the other does not hear of it.
    let mut net = Net::far_pair(7);
    net.want_seal(0, 1);
    net.run_for(ms(1000));
    net.add_sealed_flow(0, 1, ms(10));
    net.filter = Box::new(|_, flight| flight.sender == 0 && flight.kind() == Some(DatagramKind::Data));
    while net.seal_downs(0).is_empty() {
        net.run_for(ms(10));
    }
    net.stop_flows();
    assert_eq!(net.seal_downs(1), []);
    net.filter = Box::new(|_, _| true);
    net.want_seal(0, 1);
    net.run_for(ms(2000));
    net.assert_sealed(0, 1);
    assert_eq!(net.seal_downs(1).iter().map(|down| down.1).collect::<Vec<_>>(), [DownReason::Replaced]);
    assert_eq!((net.rekeys(0), net.rekeys(1)), (0, 0));

    // The same of links.
    let mut net = Net::pair();
    net.run_for(ms(20_000));
    net.add_flow(0, 1, ms(10));
    net.filter = Box::new(|_, flight| flight.sender == 0 && flight.kind() == Some(DatagramKind::Data));
    while net.downs(0).is_empty() {
        net.run_for(ms(10));
    }
    net.stop_flows();
    assert_eq!(net.downs(1), []);
    // What says that it is lost stays lost.
    net.filter = Box::new(|_, flight| flight.payload.len() != 16 + 5 + 16);
    net.run_for(ms(2500));
    net.assert_linked(0, 1);
    assert_eq!(net.downs(1).iter().map(|down| down.1).collect::<Vec<_>>(), [DownReason::Replaced]);
    assert_eq!((net.rekeys(0), net.rekeys(1)), (0, 0));
}

#[test]
fn no_node_on_the_way_stands_in_for_another() {
    // Node 2 sits between 0 and 1: it gets what is for 1 and answers from its address. It is a member like all others.
    for entropy in 0..10 {
        let mut net = Net::far_pair(entropy);
        net.add_node(3, Some(town(3)), 77);
        let honest = net.peers[1].place();
        net.add_sealed_flow(0, 1, ms(10));
        let mut answered = 0;
        net.filter = Box::new(|_, _| false);
        for _ in 0..2000 {
            net.run_for(ms(10));
            let now = net.now;
            let sent: Vec<_> = std::mem::take(&mut net.log);
            for (_, flight) in sent.into_iter().filter(|(_, flight)| flight.sender == 0) {
                let victim = net.peers[0].place();
                net.peers[2].node.handle_datagram(now, victim, &flight.payload);
                while let Some(answer) = net.peers[2].node.poll_transmit() {
                    answered += 1;
                    let flight = Flight { sender: 1, receiver: 0, from: honest, payload: answer.payload };
                    net.deliver(&flight);
                }
                while net.peers[2].node.poll_event().is_some() {}
            }
        }
        assert!(answered > 10);
        assert!(net.seal_ups(0).is_empty(), "entropy {entropy}");
        assert_eq!(net.peers[2].node.seals(net.now).count(), 0, "message 3 is not for it");
        let refused = net.peers[0].node.stats().impostor;
        assert!((5..=25).contains(&refused), "once a second at most: {refused} in 20 s");
    }
}

#[test]
fn nobody_begins_in_anothers_name() {
    let mut net = Net::far_pair(8);
    net.add_node(3, Some(town(3)), 77);
    // Node 2 wants a seal with 0, and its datagrams are made to come from node 1's address.
    let claimed = net.peers[1].place();
    net.tamper = Box::new(move |flight| {
        if flight.sender == 2 {
            flight.from = claimed;
        }
    });
    for _ in 0..200 {
        net.want_seal(2, 0);
        net.run_for(ms(10));
        // What node 0 answers to node 1's address comes to node 2.
        let answers: Vec<_> = net.log.drain(..).filter(|(_, flight)| flight.sender == 0).collect();
        for (_, flight) in answers {
            let from = net.peers[0].place();
            net.deliver(&Flight { receiver: 2, from, ..flight });
        }
    }
    assert!(net.seal_ups(0).is_empty());
    assert!(net.peers[0].node.stats().impostor > 0);
}

#[test]
fn a_seal_stays_where_its_address_is() {
    let mut net = Net::far_pair(9);
    net.add_node(3, Some(town(3)), 77);
    net.add_sealed_flow(0, 1, ms(50));
    net.run_for(ms(1000));
    net.add_wire(&[0, 2], IfaceKind::Wired);
    net.run_for(ms(1000));
    let elsewhere = net.peers[2].place();
    // Genuine frames that come from another node's address, another port, an interface.
    for at in [
        elsewhere,
        Endpoint { addr: (net.peers[1].place().addr.ip(), 7264).into(), ..elsewhere },
        Endpoint { iface: IfaceId(1), ..net.peers[1].place() },
        Endpoint { iface: IfaceId(1), addr: "[fe80::1]:7264".parse().unwrap() },
    ] {
        net.tamper = Box::new(move |flight| {
            if flight.sender == 1 && flight.kind() == Some(DatagramKind::Control) {
                flight.from = at;
            }
        });
        net.run_for(ms(30));
        let (now, seal) = (net.now, *net.peers[0].seals.keys().next().unwrap());
        net.peers[0].node.handle_roamed(now, seal, at);
        net.settle(0);
    }
    net.tamper = Box::new(|_| {});
    net.run_for(ms(1000));
    net.assert_sealed(0, 1);
    assert!(net.seal_downs(0).is_empty());
    assert!(!net.peers[0].events.iter().any(|(_, event)| matches!(event, Event::LinkMoved { .. })));
}

#[test]
fn only_nodes_addresses_speak_on_the_mesh() {
    let mut net = Net::far_pair(10);
    net.want_seal(0, 1);
    net.run_for(ms(100));
    let solicit = net.log.iter().find(|(_, flight)| flight.kind() == Some(DatagramKind::Beacon)).unwrap().1.clone();
    let own = net.peers[1].place();
    let mesh = |addr: &str| Endpoint { iface: IfaceId::MESH, addr: addr.parse().unwrap() };
    let strange = ["[fd12::1]:7264", "[fe80::1]:7265", "[2001:db8::1]:7265", "100.64.0.9:7265"].map(mesh);
    for from in strange.into_iter().chain([own]) {
        let now = net.now;
        net.peers[1].node.handle_datagram(now, from, &solicit.payload);
        assert!(net.peers[1].node.poll_transmit().is_none(), "{from:?}");
    }
    assert_eq!(net.peers[1].node.stats().interface, 5);
    // What seals say means nothing on links, and the other way round.
    net.add_wire(&[0, 1], IfaceKind::Wired);
    let from = Endpoint { iface: IfaceId(1), addr: "[fe80::9]:7264".parse().unwrap() };
    let now = net.now;
    while net.peers[1].node.poll_transmit().is_some() {}
    net.peers[1].node.handle_datagram(now, from, &solicit.payload);
    assert!(net.peers[1].node.poll_transmit().is_none());
    assert_eq!(net.peers[1].node.stats().foreign, 1);
}

#[test]
fn replays_change_nothing_and_get_no_more_than_a_beacon() {
    let mut net = Net::far_pair(11);
    net.add_sealed_flow(0, 1, ms(100));
    net.run_for(ms(5000));
    net.stop_flows();
    net.run_for(ms(140_000));
    let before = (net.seal_ups(0).len(), net.seal_ups(1).len(), net.rekeys(0), net.rekeys(1));
    for (_, flight) in net.log.clone() {
        let now = net.now;
        let node = &mut net.peers[flight.receiver].node;
        node.handle_datagram(now, flight.from, &flight.payload);
        while let Some(answer) = node.poll_transmit() {
            assert_eq!(flight.kind(), Some(DatagramKind::Beacon));
            assert_eq!(DatagramKind::of(&answer.payload), Some(DatagramKind::Beacon));
        }
        assert!(node.poll_event().is_none());
    }
    net.assert_sealed(0, 1);
    assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len(), net.rekeys(0), net.rekeys(1)), before);
}

#[test]
fn what_passes_is_found_and_followed() {
    let mtu = |net: &Net, node: usize| net.peers[node].node.seals(net.now).next().unwrap().mtu;
    let mut net = Net::far_pair(12);
    net.add_sealed_flow(0, 1, ms(100));
    net.add_sealed_flow(1, 0, ms(100));
    net.run_for(ms(100));
    let started = |(_, event): &(_, Event)| matches!(event, Event::SealUp { mtu: 1199, .. });
    assert!(net.peers[0].events.iter().any(started));
    net.run_for(ms(900));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1338, 1338));
    net.mesh.mtu = 1380;
    net.run_for(ms(66_000));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1298, 1298));
    net.mesh.mtu = 1439;
    let (now, state) = (net.now, IfaceState { kind: IfaceKind::Tunnel, mtu: 1439, up: true, beacons: true });
    for node in 0..2 {
        net.peers[node].node.set_iface(now, IfaceId::MESH, Some(state));
        net.settle(node);
    }
    net.run_for(ms(2000));
    assert_eq!((mtu(&net, 0), mtu(&net, 1)), (1358, 1358));
    let now = net.now;
    net.peers[0].node.set_iface(now, IfaceId::MESH, Some(IfaceState { up: false, ..state }));
    net.settle(0);
    assert_eq!(net.seal_downs(0), [(now, DownReason::Interface)]);
    net.stop_flows();
    net.want_seal(0, 1);
    net.run_for(ms(5000));
    assert_eq!(net.seal_ups(0).len(), 1);
}

#[test]
fn a_neighbour_may_be_asked_for_a_seal_too_and_leaving_closes_all() {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    net.want_seal(1, 0);
    net.run_for(ms(1000));
    net.assert_linked(0, 1);
    net.assert_sealed(0, 1);
    let now = net.now;
    let own = net.peers[0].node.id();
    net.peers[0].node.want_seal(now, own);
    assert!(net.peers[0].node.poll_transmit().is_none(), "not with itself");
    net.peers[0].node.set_town(now, None);
    net.settle(0);
    net.run_for(ms(100));
    assert_eq!(net.seal_downs(0).iter().map(|down| down.1).collect::<Vec<_>>(), [DownReason::Shutdown]);
    assert_eq!(net.seal_downs(1).iter().map(|down| down.1).collect::<Vec<_>>(), [DownReason::Closed]);
}

#[test]
fn a_full_table_keeps_what_is_in_use() {
    let mut net = Net::new();
    net.keep_log = false;
    net.mesh.latency = ms(1);
    for node in 0..SEALS as u16 + 4 {
        net.add_node(node, Some(town(node)), (node % 251) as u8);
    }
    // All want one with node 0, at the rate at which it answers.
    for node in 1..=SEALS {
        net.want_seal(node, 0);
        net.run_for(ms(25));
    }
    net.run_for(ms(3000));
    assert_eq!(net.peers[0].node.seals(net.now).count(), SEALS);
    // All others send to node 0; it uses but one half itself.
    for node in 1..=SEALS {
        net.add_sealed_flow(node, 0, ms(2000));
        if node % 2 == 0 {
            net.add_sealed_flow(0, node, ms(2000));
        }
    }
    net.run_for(ms(12_000));
    assert_eq!(net.seal_downs(0), []);
    // Newcomers find no room, however often they try...
    for _ in 0..40 {
        net.want_seal(SEALS + 1, 0);
        net.want_seal(SEALS + 2, 0);
        net.run_for(ms(100));
    }
    assert_eq!((net.seal_downs(0), net.seal_ups(SEALS + 1)), (vec![], vec![]));
    assert!(net.peers[0].node.stats().full > 0);
    // ...but whom node 0 wants itself comes in, in place of one that it does not use.
    net.want_seal(0, SEALS + 3);
    net.run_for(ms(500));
    assert_eq!(net.peers[0].node.seals(net.now).count(), SEALS);
    let newcomer = net.peers[SEALS + 3].node.id();
    assert!(net.peers[0].node.seals(net.now).any(|seal| seal.peer.id == newcomer));
    assert_eq!(net.seal_downs(0).len(), 1);
    assert_eq!(net.seal_downs(0)[0].1, DownReason::Idle);
    let gone: Vec<_> = (1..=SEALS).filter(|node| !net.seal_downs(*node).is_empty()).collect();
    assert!(gone.len() == 1 && gone[0] % 2 == 1, "{gone:?}");
}

/// Node 0 with as many seals as it has room for, all of which nodes made that came by `of`, and which are in use both ways;
/// behind them `more` nodes of the steward's.
fn crowded(of: impl Fn(u16) -> Town, more: u16) -> Net {
    let mut net = Net::new();
    net.keep_log = false;
    net.mesh.latency = ms(1);
    net.add_node(0, Some(town(0)), 0);
    for node in 1..=SEALS as u16 {
        net.add_node(node, Some(of(node)), (node % 251) as u8);
    }
    for node in 0..more {
        net.add_node(SEALS as u16 + 1 + node, Some(town(SEALS as u16 + 1 + node)), (node % 251) as u8);
    }
    for node in 1..=SEALS {
        net.want_seal(node, 0);
        net.run_for(ms(25));
    }
    net.run_for(ms(3000));
    assert_eq!(net.peers[0].node.seals(net.now).count(), SEALS);
    for node in 1..=SEALS {
        net.add_sealed_flow(node, 0, ms(4000));
        net.add_sealed_flow(0, node, ms(4000));
    }
    net.run_for(ms(12_000));
    assert_eq!(net.seal_downs(0), []);
    // Who is given up does not come back at once, so that the counts stand still.
    net.stop_flows();
    net
}

/// Whether node 0 has a seal with this one.
fn has(net: &Net, node: usize) -> bool {
    let id = net.peers[node].node.id();
    net.peers[0].node.seals(net.now).any(|seal| seal.peer.id == id)
}

#[test]
fn half_of_the_places_are_there_for_what_a_node_wants_itself() {
    const OWN: usize = 256;
    let mut net = crowded(town, OWN as u16 + 4);
    let begun = net.now;
    for node in SEALS + 1..=SEALS + OWN {
        net.want_seal(0, node);
        net.run_for(ms(8));
        if node > SEALS + 1 {
            assert!(has(&net, node - 1), "{} of its own are there", node - SEALS - 1);
        }
    }
    net.run_for(ms(8));
    assert!(net.now.since(begun) < ms(5000), "nobody's was unused for ten seconds");
    // No more than that without somebody's being idle, and others take none of them.
    net.want_seal(0, SEALS + OWN + 1);
    net.want_seal(SEALS + OWN + 2, 0);
    net.run_for(ms(100));
    assert!(!has(&net, SEALS + OWN + 1) && !has(&net, SEALS + OWN + 2));
    assert!((SEALS + 1..=SEALS + OWN).all(|node| has(&net, node)));
    net.run_for(ms(11_000));
    for node in 1..=SEALS / 2 {
        net.want_seal(node, 0);
        net.run_for(ms(25));
    }
    assert!((SEALS + 1..=SEALS + OWN).all(|node| has(&net, node)), "others took a place of its own");
}

#[test]
fn who_came_by_one_invitation_crowds_nobody_out() {
    // The first half came by one invitation, the others by another.
    let mut net = crowded(|node| invited(node, if node <= 500 { 1 } else { 2 }), 4);
    let of_second = |net: &Net| (501..=SEALS).filter(|node| has(net, *node)).count();
    // Of the steward's, who vouches for each: at once.
    for node in SEALS + 1..=SEALS + 4 {
        net.want_seal(node, 0);
        net.run_for(ms(50));
        assert!(has(&net, node), "the newcomer {node}");
    }
    assert_eq!((net.seal_downs(0).len(), of_second(&net)), (4, 12));
    // More by the first find no room while all of the first are in use.
    for node in (1..=500).filter(|node| !has(&net, *node)).collect::<Vec<_>>() {
        net.want_seal(node, 0);
        net.run_for(ms(50));
        assert!(!has(&net, node), "{node} is back");
    }
    // When they are not, they take each other's places only.
    net.run_for(ms(11_000));
    let mut back = 0;
    for node in (1..=500).filter(|node| !has(&net, *node)).collect::<Vec<_>>() {
        net.want_seal(node, 0);
        net.run_for(ms(50));
        back += usize::from(has(&net, node));
    }
    assert_eq!((back, of_second(&net)), (4, 12));
    assert!((SEALS + 1..=SEALS + 4).all(|node| has(&net, node)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_datagrams_change_nothing(
        at in 0..100_u64,
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..=255_u8), 12),
    ) {
        let mut net = Net::far_pair(13);
        net.want_seal(0, 1);
        net.run_for(ms(at));
        prop_assume!(!net.log.is_empty());
        let all: Vec<_> = net.log.iter().map(|(_, flight)| flight.clone()).collect();
        for (which, place, bits) in spoils {
            let mut flight = which.get(&all).clone();
            let place = place.index(flight.payload.len());
            flight.payload[place] ^= bits;
            let now = net.now;
            let node = &mut net.peers[flight.receiver].node;
            node.handle_datagram(now, flight.from, &flight.payload);
            prop_assert!(node.poll_transmit().is_none() && node.poll_event().is_none());
        }
        net.run_for(ms(1000));
        net.assert_sealed(0, 1);
        prop_assert_eq!((net.seal_ups(0).len(), net.seal_ups(1).len()), (1, 1));
    }
}
