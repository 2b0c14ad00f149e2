//! Strangers: another town, replays, forgeries, floods. Silence is the answer, and nothing changes.

use grange_core::{Endpoint, IfaceId, IfaceKind, IfaceState, Instant};
use grange_wire::DatagramKind;
use proptest::prelude::*;
use rand_core::Rng;

use crate::net::{Flight, Net, ms, town};

/// A pair that has run for a while, with all that was on the wire.
fn with_history() -> Net {
    let mut net = Net::pair();
    net.run_for(ms(1000));
    net.add_flow(0, 1, ms(100));
    net.run_for(ms(5000));
    net.stop_flows();
    net.run_for(ms(130_000));
    net
}

fn history(net: &Net) -> Vec<Flight> {
    net.log.iter().map(|(_, flight)| flight.clone()).collect()
}

/// Delivers a datagram and gives what the receiver says to it: datagrams, and whether anything changed.
fn poke(net: &mut Net, flight: &Flight) -> (Vec<Vec<u8>>, bool) {
    let now = net.now;
    let node = &mut net.peers[flight.receiver].node;
    let before: Vec<_> = node.links().collect();
    node.handle_datagram(now, flight.from, &flight.payload);
    let answers = std::iter::from_fn(|| node.poll_transmit()).map(|transmit| transmit.payload).collect();
    let events = std::iter::from_fn(|| node.poll_event()).count();
    let changed = events > 0 || before != node.links().collect::<Vec<_>>();
    (answers, changed)
}

#[test]
fn another_town_gets_no_answer() {
    let mut net = Net::new();
    net.add_node(1, Some(town(1)), 1);
    let mut stranger = town(2);
    stranger.key = [43; 32];
    net.add_node(2, Some(stranger), 2);
    net.add_wire(&[0, 1], IfaceKind::Wired);
    net.add_wire(&[0, 1], IfaceKind::Tunnel);
    net.run_for(ms(120_000));
    assert!(net.ups(0).is_empty() && net.ups(1).is_empty());
    // All that was sent came by itself: beacons, and solicits to static peers. Nobody got as far as a handshake.
    assert!(net.log.iter().all(|(_, flight)| flight.kind() == Some(DatagramKind::Beacon)));
    assert!(net.peers[0].node.stats().foreign > 20);
    for (_, flight) in net.log.clone().into_iter().filter(|(_, flight)| flight.sender != flight.receiver) {
        let (answers, changed) = poke(&mut net, &flight);
        assert!(answers.is_empty() && !changed);
    }
}

#[test]
fn who_knows_no_town_key_cannot_begin() {
    // Another key, and yet nonces and addresses as an insider would use them.
    let mut net = Net::pair();
    net.run_for(ms(100));
    let mut stranger = Net::new();
    let mut other = town(3);
    other.key = [43; 32];
    stranger.add_node(3, Some(other.clone()), 3);
    stranger.add_node(4, Some(other), 4);
    stranger.add_wire(&[0, 1], IfaceKind::Wired);
    stranger.run_for(ms(5000));
    for mut flight in history(&stranger) {
        flight.receiver = 0;
        let (answers, changed) = poke(&mut net, &flight);
        assert!(answers.is_empty() && !changed, "{:?}", flight.kind());
    }
}

#[test]
fn replays_change_nothing_and_get_no_answer() {
    let mut net = with_history();
    for flight in history(&net) {
        let (answers, changed) = poke(&mut net, &flight);
        assert!(!changed, "{:?}", flight.kind());
        if flight.kind() != Some(DatagramKind::Beacon) {
            assert!(answers.is_empty(), "{:?}", flight.kind());
        }
    }
    net.run_for(ms(30_000));
    net.assert_linked(0, 1);
    assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
}

#[test]
fn replays_from_elsewhere_get_no_more_than_a_beacon() {
    let mut net = with_history();
    let stranger = Endpoint { iface: IfaceId(1), addr: "[fe80::666]:7264".parse().unwrap() };
    let mut answered = 0;
    for mut flight in history(&net) {
        flight.from = stranger;
        let (answers, changed) = poke(&mut net, &flight);
        assert!(!changed, "{:?}", flight.kind());
        for answer in answers {
            // To a solicit a beacon; to a beacon the beginning of a handshake that the stranger cannot go on with.
            assert_eq!(flight.kind(), Some(DatagramKind::Beacon));
            assert!(matches!(DatagramKind::of(&answer), Some(DatagramKind::Beacon | DatagramKind::Initiation)));
            answered += 1;
        }
    }
    assert!(answered < 80, "{answered}");
    net.run_for(ms(60_000));
    net.assert_linked(0, 1);
    assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
}

#[test]
fn an_initiation_is_answered_once() {
    let mut net = Net::pair();
    net.run_for(ms(100));
    let initiation =
        net.log.iter().find(|(_, flight)| flight.kind() == Some(DatagramKind::Initiation)).unwrap().1.clone();
    for port in 1..200 {
        let mut again = initiation.clone();
        again.from.addr.set_port(port);
        assert_eq!(poke(&mut net, &again), (vec![], false));
    }
    assert_eq!(net.peers[initiation.receiver].node.stats().replayed_initiation, 199);
    net.run_for(ms(60_000));
    for port in 1..200 {
        let mut again = initiation.clone();
        again.from.addr.set_port(port);
        assert_eq!(poke(&mut net, &again), (vec![], false));
    }
    assert!(net.peers[initiation.receiver].node.stats().stale_nonce >= 199);
}

#[test]
fn a_flood_of_genuine_initiations_is_met_with_cookies_and_bounded_work() {
    // The attacker holds the town key and makes initiations as fast as it likes, from ever new addresses.
    let mut net = Net::pair();
    net.run_for(ms(1000));
    let shown = |flight: &Flight| flight.kind() == Some(DatagramKind::Beacon) && flight.sender == 0;
    let beacon = net.log.iter().rfind(|(_, flight)| shown(flight)).unwrap().1.payload.clone();
    let (mut responses, mut cookies) = (0, 0);
    let mut now = net.now;
    for n in 0..3000_u32 {
        // A node of its own for each address: hears the beacon and begins.
        let mut attacker = grange_core::Node::new(
            grange_core::NodeConfig {
                seed: [66; 32],
                name: String::new(),
                town: Some(town(66)),
                gateways: grange_core::GatewayPolicy::Any,
                offer: grange_core::Offer::default(),
            },
            now,
            std::array::from_fn(|at| n.to_be_bytes()[at % 4]),
        );
        let at = |last: u32| {
            let ip = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, (last >> 16) as u16, last as u16);
            Endpoint { iface: IfaceId(1), addr: (ip, 7264).into() }
        };
        let state = IfaceState { kind: IfaceKind::Wired, mtu: 1500, up: true, beacons: false };
        attacker.set_iface(now, IfaceId(1), Some(state));
        attacker.handle_datagram(now, at(1), &beacon);
        attacker.handle_timeout(now + ms(400));
        let initiation = std::iter::from_fn(|| attacker.poll_transmit())
            .find(|transmit| DatagramKind::of(&transmit.payload) == Some(DatagramKind::Initiation))
            .unwrap();
        net.peers[0].node.handle_datagram(now, at(0x0001_0000 + n), &initiation.payload);
        while let Some(transmit) = net.peers[0].node.poll_transmit() {
            match DatagramKind::of(&transmit.payload) {
                Some(DatagramKind::Response) => responses += 1,
                Some(DatagramKind::Beacon) => cookies += 1,
                _ => {}
            }
        }
        now = Instant::from_micros(now.as_micros() + 300);
    }
    assert!((1..=50).contains(&responses), "{responses} answers that cost Diffie-Hellman work");
    assert!((1..=200).contains(&cookies), "{cookies} cookies");
    // Who does answer from its address still gets in.
    net.now = now;
    net.restart(1, 0, IfaceKind::Wired, 77);
    net.run_for(ms(1000));
    net.assert_linked(0, 1);
}

#[test]
fn noise_on_the_air_keeps_no_neighbours_apart() {
    let mut net = Net::pair();
    for _ in 0..200 {
        for kind in 0..8_u8 {
            let mut payload = vec![0; 100];
            net.random().fill_bytes(&mut payload);
            payload[..4].copy_from_slice(&[kind, 1, 0, 0]);
            let from = Endpoint { iface: IfaceId(1), addr: "[fe80::666]:7264".parse().unwrap() };
            net.deliver(&Flight { sender: 1, receiver: 0, from, payload });
        }
        net.run_for(ms(5));
    }
    net.assert_linked(0, 1);
    assert_eq!(net.ups(0).len(), 1);
}

/// A way to spoil a datagram.
#[derive(Clone, Debug)]
enum Spoil {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Grow(Vec<u8>),
    Replace(Vec<u8>),
    Index(u32),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        any::<prop::sample::Index>().prop_map(Spoil::Cut),
        proptest::collection::vec(any::<u8>(), 1..40).prop_map(Spoil::Grow),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Spoil::Replace),
        any::<u32>().prop_map(Spoil::Index),
    ]
}

fn spoiled(payload: &[u8], how: &Spoil) -> Vec<u8> {
    let mut out = payload.to_vec();
    match how {
        Spoil::Flip(at, bit) => {
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
        }
        Spoil::Cut(at) => out.truncate(at.index(payload.len())),
        Spoil::Grow(more) => out.extend(more),
        Spoil::Replace(other) => {
            out.truncate(4);
            out.extend(other);
        }
        Spoil::Index(index) if out.len() >= 8 => out[4..8].copy_from_slice(&index.to_be_bytes()),
        Spoil::Index(_) => {}
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_datagrams_change_nothing(
        at in 0..1500_u64,
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), spoil()), 200),
    ) {
        // At a moment in the middle of a handshake as well as long after it.
        let mut net = Net::pair();
        net.run_for(ms(at / 100));
        if at > 1000 {
            net.run_for(ms(at));
        }
        let all = history(&net);
        prop_assume!(!all.is_empty());
        for (which, how) in spoils {
            let original = &all[which.index(all.len())];
            let payload = spoiled(&original.payload, &how);
            if payload == original.payload {
                continue;
            }
            let flight = Flight { payload, ..original.clone() };
            let (answers, changed) = poke(&mut net, &flight);
            prop_assert!(answers.is_empty() && !changed, "{:?} {:?}", original.kind(), how);
        }
        net.run_for(ms(2000));
        net.assert_linked(0, 1);
        prop_assert_eq!((net.ups(0).len(), net.ups(1).len()), (1, 1));
    }
}
