//! What is on the wires, and what an enemy on a wire can do.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use grange_core::Identity;
use grange_sim::{
    Dice, Note, Quality, Setup, Sim, Topology,
    report::{each_seed, measured},
    town,
};

const SECOND: Duration = Duration::from_secs(1);

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn enemy() -> SocketAddr {
    "[fe80::666]:7264".parse().expect("an address")
}

fn downs(sim: &Sim) -> usize {
    sim.notes().iter().filter(|note| matches!(note.note, Note::Down(_))).count()
}

#[test]
fn no_name_key_or_address_is_on_any_wire() {
    let members = town(5, 1);
    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        ("town key".into(), members[0].town.key.to_vec()),
        ("town id".into(), members[0].town.id.0.to_vec()),
        ("town name".into(), members[0].town.name.clone().into_bytes()),
    ];
    let mut sim = Setup { members: members.clone(), ..Setup::new(1, Topology::demo()) }.build();
    for (number, member) in members.iter().enumerate() {
        let identity = Identity::from_seed(&member.seed);
        secrets.push((format!("seed {number}"), member.seed.to_vec()));
        secrets.push((format!("identity {number}"), identity.public().to_vec()));
        secrets.push((format!("link key {number}"), identity.link_public().to_vec()));
        secrets.push((format!("id {number}"), identity.id().0[..8].to_vec()));
        secrets.push((format!("name {number}"), format!("node-{number}").into_bytes()));
        secrets.push((format!("certificate {number}"), member.town.certificate[4..20].to_vec()));
    }
    sim.tap();
    sim.run_for(300 * SECOND);
    assert!(sim.datagrams().len() > 1000);
    for datagram in sim.datagrams() {
        for (what, secret) in &secrets {
            assert!(!contains(&datagram.payload, secret), "{what} at {:?}: {:02x?}", datagram.at, datagram.payload);
        }
    }
}

#[test]
fn an_ephemeral_key_and_a_counter_are_used_once() {
    let mut sim = Setup::new(2, Topology::clique(4)).quality(Quality::BAD_RADIO).build();
    sim.tap();
    sim.run_for(400 * SECOND);
    let mut seen = BTreeSet::new();
    let mut own = BTreeSet::new();
    for datagram in sim.datagrams() {
        let bytes = &datagram.payload;
        match bytes[0] {
            2 if own.insert((datagram.from, bytes.clone())) => {
                assert!(seen.insert(bytes[8..40].to_vec()), "an ephemeral key in two initiations");
            }
            5 => {
                assert!(
                    own.insert((datagram.from, bytes[4..16].into())),
                    "a counter used twice: {:02x?}",
                    &bytes[..16]
                );
            }
            _ => {}
        }
    }
}

#[test]
fn two_towns_on_one_wire_stay_apart() {
    let mut setup = Setup::new(3, Topology::segment(6));
    let other = town(6, 99);
    setup.members.splice(3.., other.into_iter().skip(3));
    let mut sim = setup.build();
    sim.tap();
    sim.run_for(60 * SECOND);
    for host in 0..6 {
        assert_eq!(sim.link_count(host), 2, "node {host}");
        assert_eq!(sim.fib(host).len(), 4, "node {host}");
    }
    for datagram in sim.datagrams() {
        let apart = datagram.to.is_some_and(|to| (to < 3) != (datagram.from < 3));
        assert!(!apart || datagram.payload[0] == 1, "something beside beacons between the towns: {datagram:?}");
    }
}

#[test]
fn a_member_without_the_town_key_or_certificate_gets_no_link() {
    // Node 2 has a certificate but a wrong town key; node 3 the town key but another town's certificate; node 4 the
    // certificate of node 1.
    let mut setup = Setup::new(4, Topology::segment(5));
    setup.members[2].town.key[0] ^= 1;
    setup.members[3].town.certificate = town(5, 98)[3].town.certificate.clone();
    setup.members[4].town.certificate = setup.members[1].town.certificate.clone();
    let mut sim = setup.build();
    sim.tap();
    sim.run_for(60 * SECOND);
    for (host, links) in [1, 1, 0, 0, 0].into_iter().enumerate() {
        assert_eq!(sim.link_count(host), links, "node {host}");
    }
    let answers = sim.datagrams().iter().filter(|datagram| datagram.to == Some(2) && datagram.payload[0] != 1);
    assert_eq!(answers.count(), 0, "who lacks the town key is never spoken to");
}

/// Replays everything heard so far, whole, cut short and with a flipped bit, and random bytes, to everybody.
#[test]
fn replayed_damaged_and_random_datagrams_change_nothing() {
    each_seed(6, |seed| {
        let mut sim = Setup::new(seed, Topology::ring(4)).build();
        let mut dice = Dice::new(seed, 40);
        sim.tap();
        sim.run_for(150 * SECOND);
        sim.settled().expect("formed");
        let heard = sim.datagrams().to_vec();
        let (before, links) = (sim.notes().len(), downs(&sim));
        let strays = |sim: &Sim| sim.datagrams().iter().filter(|datagram| datagram.wire.is_none()).count();
        let answered = strays(&sim);
        for _ in 0..4000 {
            let Some(at) = dice.pick(&(0..heard.len()).collect::<Vec<_>>()) else { break };
            let (Some(wire), Some(to)) = (heard[at].wire, heard[at].to) else { continue };
            let mut bytes = heard[at].payload.to_vec();
            match dice.below(4) {
                0 => {}
                1 => bytes.truncate(dice.below(bytes.len() + 1)),
                2 => {
                    let bit = dice.below(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                _ => {
                    bytes = vec![0; dice.below(200)];
                    dice.fill(&mut bytes);
                    if let Some(first) = bytes.first_mut() {
                        *first = dice.below(8) as u8;
                    }
                }
            }
            sim.inject(wire, to, enemy(), &bytes);
            sim.run_for(Duration::from_millis(2));
        }
        sim.run_for(20 * SECOND);
        sim.settled().expect("nothing changed");
        assert_eq!(downs(&sim), links, "no link fell");
        let moved = sim.notes()[before..].iter().any(|note| matches!(note.note, Note::Moved | Note::Up));
        assert!(!moved, "no link moved to the enemy, none came up");
        // A beacon that was heard before may bring a beacon or an initiation for the enemy, which tell nothing. Nothing
        // else is for a stranger.
        let told = sim.datagrams().iter().filter(|datagram| datagram.wire.is_none() && datagram.payload[0] > 2);
        assert_eq!(told.map(|datagram| datagram.payload[0]).collect::<Vec<_>>(), [], "the enemy was answered");
        measured("beacons and initiations that 4000 replays by a stranger brought", strays(&sim) - answered);
    });
}

/// An enemy that delays: it records a link's datagrams to one end and plays them from the neighbour's own address later.
#[test]
fn datagrams_replayed_from_the_right_address_change_nothing() {
    each_seed(4, |seed| {
        let mut sim = Setup::new(seed, Topology::chain(2)).build();
        sim.tap();
        sim.run_for(140 * SECOND);
        let address = sim.address(0, 0);
        let heard: Vec<_> = sim.datagrams().iter().filter(|datagram| datagram.to == Some(1)).cloned().collect();
        let before = sim.notes().len();
        for datagram in &heard {
            sim.inject(0, 1, address, &datagram.payload);
            sim.run_for(SECOND / 100);
        }
        sim.run_for(10 * SECOND);
        sim.settled().expect("nothing changed");
        let changed = sim.notes()[before..].iter().any(|note| matches!(note.note, Note::Up | Note::Down(_)));
        assert!(!changed, "{:?}", &sim.notes()[before..]);
    });
}
