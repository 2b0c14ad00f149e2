//! What a neighbour that lies may not do. Node 0 listens to a liar on one link and to an honest node on another.

use alloc::vec::Vec;
use core::time::Duration;

use grange_wire::{
    NodeId, Prefix, RouterId,
    babel::{INFINITY, Packet, PacketWriter, Seqno, SeqnoRequest, Tlv, Update},
    lan_prefix, node_address_v4,
};
use proptest::prelude::*;

use super::net::{Net, TOWN};
use crate::{
    GatewayPolicy, Identity, IfaceKind, Instant, LinkId,
    babel::{
        RouteEvent, Router, RouterConfig,
        proof::{Claim, Proof},
        route::MAX_PREFIXES,
    },
};

const LIAR: LinkId = LinkId(1);
const HONEST: LinkId = LinkId(2);

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

/// A node with two links, whose neighbours speak only what the test writes.
struct Listener {
    router: Router,
    now: Instant,
}

impl Listener {
    fn new(gateways: GatewayPolicy) -> Self {
        let now = Instant::from_micros(5_000_000);
        let config = RouterConfig { identity: identity(0), town: TOWN, gateways };
        let mut router = Router::new(config, now, [7; 32]);
        for link in [LIAR, HONEST] {
            router.neighbour_up(now, link, NodeId([link.0 as u8; 32]), IfaceKind::Wired);
        }
        Self { router, now }
    }

    fn hear(&mut self, link: LinkId, update: &Update<'_>) {
        let mut buf = [0; 1200];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        writer.update(update).unwrap();
        self.router.handle_packet(self.now, link, writer.finish());
    }

    /// The same in the neighbour's packet of this number.
    fn hear_numbered(&mut self, link: LinkId, counter: u32, update: &Update<'_>) {
        let mut buf = [0; 1200];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        writer.packet_counter(counter).unwrap();
        writer.update(update).unwrap();
        self.router.handle_packet(self.now, link, writer.finish());
    }

    fn hear_claim(&mut self, link: LinkId, claim: &Claim, metric: u16, proof: &Proof) {
        self.hear(link, &update(claim, metric, proof));
    }

    fn via(&self, prefix: &Prefix) -> Option<LinkId> {
        self.router.routes().find(|route| route.selected && route.prefix == *prefix).map(|route| route.via)
    }

    fn events(&mut self) -> Vec<RouteEvent> {
        core::iter::from_fn(|| self.router.poll_event()).collect()
    }

    /// What was said over a link since the last look.
    fn said(&mut self, link: LinkId) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.router.poll_packet()).filter(|(to, _)| *to == link).map(|(_, p)| p).collect()
    }

    /// Acknowledges everything for a while, as neighbours do.
    fn acknowledge(&mut self) {
        for _ in 0..10 {
            while let Some((link, packet)) = self.router.poll_packet() {
                for tlv in Packet::parse(&packet).unwrap().tlvs() {
                    if let Ok(Tlv::AckRequest { opaque, .. }) = tlv {
                        let mut buf = [0; 8];
                        let mut writer = PacketWriter::new(&mut buf).unwrap();
                        writer.ack(opaque).unwrap();
                        self.router.handle_packet(self.now, link, writer.finish());
                    }
                }
            }
            self.wait(Duration::from_millis(10));
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.router.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
        }
        self.now = end;
    }
}

fn update<'a>(claim: &Claim, metric: u16, proof: &'a Proof) -> Update<'a> {
    Update {
        prefix: Some(claim.prefix),
        interval: 6000,
        seqno: claim.seqno,
        metric,
        router_id: Some(claim.router_id),
        proof: Some(proof.view()),
    }
}

fn claim(owner: &Identity, seqno: u16) -> Claim {
    Claim { prefix: lan_prefix(&owner.id()), router_id: RouterId([5; 8]), seqno: Seqno(seqno) }
}

#[test]
fn a_proved_route_is_taken_and_its_proof_passed_on_unchanged() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 3);
    let proof = claim.sign(&TOWN, &owner);
    node.said(HONEST);
    node.hear_claim(LIAR, &claim, 96, &proof);
    let router_id = claim.router_id;
    let expected = RouteEvent::Changed { prefix: claim.prefix, via: LIAR, metric: 192, owner: owner.id(), router_id };
    assert_eq!(node.events(), [expected]);
    node.wait(Duration::from_millis(10));
    let packets = node.said(HONEST);
    let passed_on: Vec<_> = packets
        .iter()
        .flat_map(|packet| Packet::parse(packet).unwrap().tlvs())
        .filter_map(|tlv| if let Ok(Tlv::Update(update)) = tlv { Some(update) } else { None })
        .filter(|update| update.prefix == Some(claim.prefix))
        .collect();
    assert_eq!(passed_on, [update(&claim, 192, &proof)]);
}

#[test]
fn an_announcement_that_its_retraction_overtook_is_not_taken() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 3);
    let proof = claim.sign(&TOWN, &owner);
    let retraction = Update { metric: INFINITY, router_id: None, proof: None, ..update(&claim, 0, &proof) };
    node.hear_numbered(HONEST, 8, &retraction);
    node.hear_numbered(HONEST, 7, &update(&claim, 96, &proof));
    assert_eq!(node.via(&claim.prefix), None);
    node.hear_numbered(HONEST, 9, &update(&claim, 96, &proof));
    assert_eq!(node.via(&claim.prefix), Some(HONEST));
    node.hear_numbered(HONEST, 8, &retraction);
    assert_eq!(node.via(&claim.prefix), Some(HONEST));
}

#[test]
fn a_forged_proof_is_refused() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let right = claim(&owner, 3);
    let proof = right.sign(&TOWN, &owner);
    // Another seqno, another router-id, another signer, another town: none is covered by the signature.
    let seqno = Claim { seqno: Seqno(4), ..right };
    let router = Claim { router_id: RouterId([6; 8]), ..right };
    node.hear_claim(LIAR, &seqno, 0, &proof);
    node.hear_claim(LIAR, &router, 0, &proof);
    node.hear_claim(LIAR, &right, 0, &right.sign(&grange_wire::TownId([1; 16]), &owner));
    let (stolen, thief) = (right, identity(2));
    node.hear_claim(LIAR, &stolen, 0, &stolen.sign(&TOWN, &thief));
    assert_eq!(node.router.stats().refused, 4);
    assert_eq!(node.router.stats().verified, 3, "a stolen prefix does not even cost a verification");
    assert_eq!(node.router.routes().count(), 0);
    assert!(node.events().is_empty());
}

#[test]
fn a_wrong_word_ends_what_the_same_neighbour_said_before() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 3);
    let proof = claim.sign(&TOWN, &owner);
    node.hear_claim(LIAR, &claim, 0, &proof);
    node.hear_claim(LIAR, &Claim { seqno: Seqno(4), ..claim }, 0, &proof);
    assert_eq!(node.via(&claim.prefix), None);
}

#[test]
fn a_replayed_lower_seqno_does_not_attract() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let (old, new) = (claim(&owner, 3), claim(&owner, 4));
    node.hear_claim(HONEST, &new, 500, &new.sign(&TOWN, &owner));
    node.wait(Duration::from_millis(10));
    node.hear_claim(LIAR, &old, 0, &old.sign(&TOWN, &owner));
    node.wait(Duration::from_secs(5));
    assert_eq!(node.via(&new.prefix), Some(HONEST));
    let replayed = node.router.routes().find(|route| route.via == LIAR).unwrap();
    assert!(!replayed.feasible && !replayed.selected);
    // Not even when the honest way is gone.
    node.router.neighbour_down(node.now, HONEST);
    assert_eq!(node.via(&new.prefix), None);
}

#[test]
fn an_update_without_a_proof_refreshes_and_does_nothing_else() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 3);
    let proof = claim.sign(&TOWN, &owner);
    let bare = |seqno, metric| Update { seqno: Seqno(seqno), proof: None, ..update(&claim, metric, &proof) };
    node.hear(HONEST, &bare(3, 96));
    assert_eq!((node.router.routes().count(), node.router.stats().unproved), (0, 1));
    let asked = node.said(HONEST).iter().any(|packet| {
        Packet::parse(packet).unwrap().tlvs().any(|tlv| tlv == Ok(Tlv::RouteRequest(Some(claim.prefix))))
    });
    assert!(asked, "the proof is asked for");
    node.hear_claim(HONEST, &claim, 96, &proof);
    node.hear(HONEST, &bare(3, 200));
    assert_eq!(node.router.routes().next().unwrap().metric, 296);
    // A proof that came over another link, or for another seqno, is none.
    node.hear(LIAR, &bare(3, 0));
    node.hear(HONEST, &bare(4, 0));
    let routes: Vec<_> = node.router.routes().map(|route| (route.via, route.refmetric, route.seqno)).collect();
    assert_eq!(routes, [(HONEST, 200, Seqno(3))]);
}

#[test]
fn only_allowed_gateways_are_followed() {
    let (good, bad) = (identity(1), identity(2));
    let mut node = Listener::new(GatewayPolicy::Only(alloc::vec![good.id()]));
    let claim = Claim { prefix: Prefix::DEFAULT_V4, router_id: RouterId([5; 8]), seqno: Seqno(0) };
    node.hear_claim(LIAR, &claim, 0, &claim.sign(&TOWN, &bad));
    assert_eq!(node.via(&claim.prefix), None);
    node.hear_claim(HONEST, &claim, 900, &claim.sign(&TOWN, &good));
    assert_eq!(node.via(&claim.prefix), Some(HONEST));
    node.router.set_gateways(node.now, GatewayPolicy::Nobody);
    assert_eq!(node.via(&claim.prefix), None);
    node.hear_claim(HONEST, &claim, 900, &claim.sign(&TOWN, &good));
    assert_eq!(node.router.routes().count(), 0);
}

#[test]
fn another_gateway_cannot_use_up_the_seqnos_of_a_router_id() {
    let (good, bad) = (identity(1), identity(2));
    let mut node = Listener::new(GatewayPolicy::Any);
    let honest = Claim { prefix: Prefix::DEFAULT_V6, router_id: RouterId([5; 8]), seqno: Seqno(0) };
    let lie = Claim { seqno: Seqno(1000), ..honest };
    node.hear_claim(LIAR, &lie, 10, &lie.sign(&TOWN, &bad));
    node.wait(Duration::from_millis(10));
    node.hear_claim(HONEST, &honest, 0, &honest.sign(&TOWN, &good));
    assert!(node.router.routes().find(|route| route.via == HONEST).unwrap().feasible);
}

#[test]
fn nobody_speaks_for_the_node_itself() {
    let mut node = Listener::new(GatewayPolicy::Any);
    let own = Claim { prefix: lan_prefix(&identity(0).id()), router_id: RouterId([5; 8]), seqno: Seqno(9) };
    node.hear_claim(LIAR, &own, 0, &own.sign(&TOWN, &identity(0)));
    let stranger = Claim { router_id: node.router.router_id(), ..claim(&identity(1), 0) };
    node.hear_claim(LIAR, &stranger, 0, &stranger.sign(&TOWN, &identity(1)));
    assert_eq!(node.router.routes().count(), 0);
}

/// Two identities that draw the same IPv4 address, the lower id first.
fn clash() -> (Identity, Identity) {
    let mut seen = alloc::collections::BTreeMap::new();
    for number in 0_u32.. {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let found = Identity::from_seed(&seed);
        if let Some(seed) = seen.insert(node_address_v4(&found.id()), seed) {
            let other = Identity::from_seed(&seed);
            return if other.id() < found.id() { (other, found) } else { (found, other) };
        }
    }
    unreachable!("22 bits are soon used up")
}

#[test]
fn of_two_nodes_with_one_ipv4_address_the_lower_id_keeps_it() {
    let (low, high) = clash();
    let prefix = Prefix::host(node_address_v4(&low.id()).into());
    let claim = Claim { prefix, router_id: RouterId([5; 8]), seqno: Seqno(0) };
    let mut node = Listener::new(GatewayPolicy::Any);
    node.hear_claim(LIAR, &claim, 0, &claim.sign(&TOWN, &high));
    assert_eq!(node.via(&prefix), Some(LIAR));
    node.hear_claim(HONEST, &claim, 500, &claim.sign(&TOWN, &low));
    node.hear_claim(LIAR, &claim, 0, &claim.sign(&TOWN, &high));
    assert_eq!(node.via(&prefix), None, "first the neighbours must know that the old way is gone");
    node.acknowledge();
    assert_eq!(node.via(&prefix), Some(HONEST));

    // The node with the higher id gives its address up, and takes it back when the other is gone.
    let config = RouterConfig { identity: high, town: TOWN, gateways: GatewayPolicy::Any };
    let mut loser = Listener { router: Router::new(config, node.now, [8; 32]), now: node.now };
    loser.router.neighbour_up(loser.now, HONEST, low.id(), IfaceKind::Wired);
    loser.hear_claim(HONEST, &claim, 0, &claim.sign(&TOWN, &low));
    loser.acknowledge();
    assert_eq!(loser.via(&prefix), Some(HONEST));
    loser.router.neighbour_down(loser.now, HONEST);
    assert_eq!(loser.via(&prefix), None);
    assert!(loser.router.origins.announces(&prefix));
}

#[test]
fn wrong_signatures_cost_a_bounded_number_of_verifications() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let proof = claim(&owner, 0).sign(&TOWN, &owner);
    for seqno in 1..1000 {
        node.hear_claim(LIAR, &claim(&owner, seqno), 0, &proof);
    }
    assert_eq!(node.router.stats().verified, 32);
    // The honest neighbour is heard as ever.
    node.hear_claim(HONEST, &claim(&owner, 0), 0, &proof);
    assert_eq!(node.via(&claim(&owner, 0).prefix), Some(HONEST));
}

#[test]
fn tables_stay_bounded_and_say_so() {
    let mut node = Listener::new(GatewayPolicy::Any);
    for number in 0..3200_u32 {
        let mut seed = [1; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let owner = Identity::from_seed(&seed);
        let claim = claim(&owner, 0);
        node.hear_claim(LIAR, &claim, 0, &claim.sign(&TOWN, &owner));
        while node.router.poll_packet().is_some() {}
    }
    assert_eq!(node.router.routes().count(), 3072);
    assert!(node.router.stats().overflows > 0 && node.router.table.entries.len() <= MAX_PREFIXES);
    let owner = identity(9);
    let claim = claim(&owner, 0);
    node.hear_claim(HONEST, &claim, 0, &claim.sign(&TOWN, &owner));
    assert_eq!(node.via(&claim.prefix), Some(HONEST), "one neighbour does not use up another's share");
}

#[test]
fn a_seqno_request_raises_by_one_only() {
    let mut net = Net::new(2, 1);
    let edge = net.add_edge(0, 1);
    net.run(Duration::from_secs(1));
    let (prefix, router_id) = (net.prefixes(0)[0], net.router(0).router_id());
    let ask = |seqno| {
        let mut buf = [0; 100];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        writer.seqno_request(&SeqnoRequest { prefix, seqno: Seqno(seqno), hop_count: 9, router_id }).unwrap();
        writer.finish().to_vec()
    };
    for _ in 0..50 {
        net.inject(edge, 0, &ask(30_000));
    }
    assert_eq!(net.router(0).stats().seqno_increments, 1);
    net.run(Duration::from_secs(3));
    let route = net.router(1).routes().find(|route| route.prefix == prefix).unwrap();
    assert_eq!(route.seqno, Seqno(1));
}

#[test]
fn a_retraction_speaks_for_its_sender_alone() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 0);
    let proof = claim.sign(&TOWN, &owner);
    node.hear_claim(HONEST, &claim, 0, &proof);
    let all = Update { prefix: None, metric: INFINITY, router_id: None, proof: None, ..update(&claim, 0, &proof) };
    node.hear(LIAR, &all);
    assert_eq!(node.via(&claim.prefix), Some(HONEST));
    node.hear(HONEST, &all);
    assert_eq!(node.via(&claim.prefix), None);
}

#[test]
fn an_overtaken_packet_does_not_bring_a_retracted_route_back() {
    let (mut node, owner) = (Listener::new(GatewayPolicy::Any), identity(1));
    let claim = claim(&owner, 0);
    let proof = claim.sign(&TOWN, &owner);
    let packet = |counter: u32, update: &Update<'_>| {
        let mut buf = [0; 300];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        writer.packet_counter(counter).unwrap();
        writer.update(update).unwrap();
        writer.finish().to_vec()
    };
    let retraction = Update { metric: INFINITY, router_id: None, proof: None, ..update(&claim, 0, &proof) };
    let all = Update { prefix: None, ..retraction };
    let now = node.now;
    for gone in [retraction, all] {
        node.router.handle_packet(now, HONEST, &packet(u32::MAX, &update(&claim, 0, &proof)));
        assert_eq!(node.via(&claim.prefix), Some(HONEST));
        node.router.handle_packet(now, HONEST, &packet(1, &gone));
        node.router.handle_packet(now, HONEST, &packet(0, &update(&claim, 0, &proof)));
        assert_eq!(node.via(&claim.prefix), None);
        node.router.handle_packet(now, HONEST, &packet(2, &update(&claim, 0, &proof)));
        assert_eq!(node.via(&claim.prefix), Some(HONEST));
        // The counter of a neighbour that started anew is anywhere.
        node.router.handle_packet(now, HONEST, &packet(0x7000_0000, &retraction));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_of_a_neighbour_break_the_speaker(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..40),
        framed: bool,
    ) {
        let mut node = Listener::new(GatewayPolicy::Any);
        for body in packets {
            let mut packet = body.clone();
            if framed {
                packet = alloc::vec![42, 2, 0, body.len() as u8];
                packet.extend(body.iter().enumerate().map(|(at, byte)| if at % 7 == 0 { byte % 12 } else { *byte }));
            }
            node.router.handle_packet(node.now, LIAR, &packet);
            node.wait(Duration::from_millis(50));
            node.said(LIAR);
        }
        prop_assert_eq!(node.router.routes().filter(|route| route.selected).count(), 0);
    }
}
