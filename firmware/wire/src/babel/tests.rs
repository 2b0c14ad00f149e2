//! Bytes laid down by hand after RFC 8966, 9229 and 9616, golden bytes of our own packets, and what no bytes may do.

use core::net::Ipv6Addr;
use std::{format, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{Prefix, RouterId};

const ID: RouterId = RouterId([1, 2, 3, 4, 5, 6, 7, 8]);

fn packet(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![42, 2, (body.len() >> 8) as u8, body.len() as u8];
    bytes.extend(body);
    bytes
}

fn check<T>(body: &[u8], with: impl FnOnce(Vec<Result<Tlv<'_>, TlvError>>) -> T) -> T {
    with(Packet::parse(&packet(body)).unwrap().tlvs().collect())
}

fn tlvs_are(body: &[u8], expected: &[Result<Tlv<'_>, TlvError>]) {
    check(body, |tlvs| assert_eq!(tlvs, expected));
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn update(text: &str, metric: u16) -> Update<'static> {
    Update {
        prefix: Some(prefix(text)),
        interval: 6000,
        seqno: Seqno(0x0102),
        metric,
        router_id: Some(ID),
        proof: None,
    }
}

const ROUTER_ID: [u8; 12] = [6, 10, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

fn after_router_id(body: &[u8]) -> Vec<u8> {
    [&ROUTER_ID, body].concat()
}

#[test]
fn headers() {
    assert_eq!(Packet::parse(&[42, 2, 0]).err(), Some(PacketError::Short));
    assert_eq!(Packet::parse(&[41, 2, 0, 0]).err(), Some(PacketError::Magic));
    assert_eq!(Packet::parse(&[42, 3, 0, 0]).err(), Some(PacketError::Version(3)));
    assert_eq!(Packet::parse(&[42, 2, 0, 1]).err(), Some(PacketError::Short));
    // A trailer behind the body is none of our business.
    assert_eq!(Packet::parse(&[42, 2, 0, 0, 4, 4, 4]).unwrap().tlvs().count(), 0);
}

#[test]
fn paddings_and_unknown_types_are_skipped() {
    tlvs_are(&[0, 0, 1, 3, 0, 0, 0, 200, 2, 9, 9, 3, 2, 0, 7, 0], &[Ok(Tlv::Ack { opaque: 7 })]);
}

#[test]
fn acknowledgements() {
    tlvs_are(&[2, 6, 0, 0, 0x12, 0x34, 0, 10], &[Ok(Tlv::AckRequest { opaque: 0x1234, interval: 10 })]);
    tlvs_are(&[2, 5, 0, 0, 0x12, 0x34, 0], &[Err(TlvError::Short)]);
}

#[test]
fn hellos_and_their_timestamps() {
    let hello = Hello { unicast: true, seqno: Seqno(5), interval: 400, timestamp: None };
    tlvs_are(&[4, 6, 0x80, 0, 0, 5, 1, 144], &[Ok(Tlv::Hello(hello))]);
    let multicast = Hello { unicast: false, timestamp: Some(0x0102_0304), ..hello };
    tlvs_are(&[4, 14, 0, 0, 0, 5, 1, 144, 0, 1, 0, 3, 4, 1, 2, 3, 4, 0][..16], &[Err(TlvError::Short)]);
    tlvs_are(&[4, 15, 0, 0, 0, 5, 1, 144, 0, 1, 0, 3, 4, 1, 2, 3, 4], &[Ok(Tlv::Hello(multicast))]);
    tlvs_are(&[4, 10, 0, 0, 0, 5, 1, 144, 3, 2, 1, 2], &[Err(TlvError::Short)]);
}

#[test]
fn ihus_with_each_kind_of_address() {
    let ihu = Ihu { rxcost: 96, interval: 1200, timestamps: None };
    for (ae, size) in [(0, 0), (1, 4), (2, 16), (3, 8)] {
        let mut body = vec![5, 6 + size, ae, 0, 0, 96, 4, 176];
        body.extend(vec![7; usize::from(size)]);
        tlvs_are(&body, &[Ok(Tlv::Ihu(ihu))]);
        // Timestamps follow the address.
        body[1] += 10;
        body.extend([3, 8, 0, 0, 0, 1, 0, 0, 0, 2]);
        tlvs_are(&body, &[Ok(Tlv::Ihu(Ihu { timestamps: Some((1, 2)), ..ihu }))]);
    }
    tlvs_are(&[5, 6, 4, 0, 0, 96, 4, 176], &[Err(TlvError::Encoding)]);
    tlvs_are(&[5, 8, 1, 0, 0, 96, 4, 176, 1, 2], &[Err(TlvError::Short)]);
}

#[test]
fn an_update_takes_its_router_id_from_before() {
    let body = [8, 18, 2, 0, 64, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 1, 2, 3, 4, 5, 6, 7];
    tlvs_are(&after_router_id(&body), &[Ok(Tlv::Update(update("fd01:203:405:607::/64", 96)))]);
    tlvs_are(&body, &[Err(TlvError::Context)]);
    // A retraction needs none.
    let mut retraction = body;
    retraction[10..12].copy_from_slice(&[0xff, 0xff]);
    let expected = Update { router_id: None, ..update("fd01:203:405:607::/64", INFINITY) };
    tlvs_are(&retraction, &[Ok(Tlv::Update(expected))]);
}

#[test]
fn a_broken_router_id_leaves_none() {
    let body = [8, 18, 2, 0, 64, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 1, 2, 3, 4, 5, 6, 7];
    let zero = [6, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let short = [6, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7];
    for (broken, why) in [(&zero[..], TlvError::Value), (&short, TlvError::Short)] {
        let all = [&ROUTER_ID, broken, &body].concat();
        tlvs_are(&all, &[Err(why), Err(TlvError::Context)]);
    }
}

#[test]
fn prefixes_are_compressed_against_the_last_flagged_of_their_encoding() {
    let body = [
        // P flag, fd01:203::/32
        &[8, 14, 2, 0x80, 32, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 1, 2, 3][..],
        // an IPv4 one in between, of RFC 9229, also flagged
        &[8, 14, 4, 0x80, 32, 0, 0x17, 0x70, 1, 2, 0, 97, 100, 64, 1, 2],
        // two octets omitted, no flag
        &[8, 12, 2, 0, 32, 2, 0x17, 0x70, 1, 2, 0, 98, 9, 9],
        // all but one of them omitted: still against the first
        &[8, 11, 2, 0, 40, 4, 0x17, 0x70, 1, 2, 0, 99, 8],
        // more omitted than the prefix has
        &[8, 10, 2, 0, 16, 4, 0x17, 0x70, 1, 2, 0, 100],
        &[8, 11, 4, 0, 32, 3, 0x17, 0x70, 1, 2, 0, 101, 7],
    ]
    .concat();
    tlvs_are(
        &after_router_id(&body),
        &[
            Ok(Tlv::Update(update("fd01:203::/32", 96))),
            Ok(Tlv::Update(update("100.64.1.2/32", 97))),
            Ok(Tlv::Update(update("fd01:909::/32", 98))),
            Ok(Tlv::Update(update("fd01:203:800::/40", 99))),
            Ok(Tlv::Update(update("fd01::/16", 100))),
            Ok(Tlv::Update(update("100.64.1.7/32", 101))),
        ],
    );
    // Nothing to compress against: of this encoding there was none.
    let v4 = [&ROUTER_ID[..], &body[..16], &[8, 11, 4, 0, 32, 3, 0x17, 0x70, 1, 2, 0, 101, 7]].concat();
    check(&v4, |tlvs| assert_eq!(tlvs[1], Err(TlvError::Prefix)));
}

#[test]
fn bits_behind_a_prefix_are_ignored() {
    let body = [8, 12, 2, 0, 12, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 0xff];
    tlvs_are(&after_router_id(&body), &[Ok(Tlv::Update(update("fdf0::/12", 96)))]);
}

#[test]
fn the_r_flag_takes_the_router_id_from_the_address() {
    let mut body = vec![8, 26, 2, 0x40, 128, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 0, 0, 0, 0, 0, 0, 0];
    body.extend(ID.0);
    tlvs_are(&body, &[Ok(Tlv::Update(update("fd00::102:304:506:708/128", 96)))]);
    let v4 = [8, 14, 4, 0x40, 32, 0, 0x17, 0x70, 1, 2, 0, 96, 100, 64, 1, 2];
    let id = RouterId([0, 0, 0, 0, 100, 64, 1, 2]);
    tlvs_are(&v4, &[Ok(Tlv::Update(Update { router_id: Some(id), ..update("100.64.1.2/32", 96) }))]);
}

#[test]
fn a_mandatory_sub_tlv_hides_the_tlv_but_not_what_it_sets() {
    let body =
        [
            // An unknown mandatory sub-TLV (source prefix, RFC 9079), P and R flags set.
            &[
                8, 28, 2, 0xc0, 128, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
                128, 0,
            ][..],
            &[8, 13, 2, 0, 128, 15, 0x17, 0x70, 1, 2, 0, 97, 9, 20, 0],
        ]
        .concat();
    tlvs_are(&body, &[Err(TlvError::Mandatory), Ok(Tlv::Update(update("fd00::102:304:506:709/128", 97)))]);
    // The same for a Router-Id that is itself hidden (section 4.5).
    let hidden = [6, 12, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 250, 0, 8, 12, 2, 0, 16, 0, 0x17, 0x70, 1, 2, 0, 96, 0xfd, 0];
    tlvs_are(&hidden, &[Err(TlvError::Mandatory), Ok(Tlv::Update(update("fd00::/16", 96)))]);
    tlvs_are(&[3, 4, 0, 7, 127, 0], &[Ok(Tlv::Ack { opaque: 7 })]);
    tlvs_are(&[3, 4, 0, 7, 128, 0], &[Err(TlvError::Mandatory)]);
}

#[test]
fn ipv4_needs_a_next_hop_or_rfc_9229() {
    let ae1 = [8, 14, 1, 0, 32, 0, 0x17, 0x70, 1, 2, 0, 96, 100, 64, 1, 2];
    tlvs_are(&after_router_id(&ae1), &[Err(TlvError::Context)]);
    let next_hop = [&ROUTER_ID[..], &[7, 6, 1, 0, 10, 0, 0, 1], &ae1].concat();
    tlvs_are(&next_hop, &[Ok(Tlv::Update(update("100.64.1.2/32", 96)))]);
    let of_v6 = [&ROUTER_ID[..], &[7, 10, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1], &ae1].concat();
    tlvs_are(&of_v6, &[Err(TlvError::Context)]);
}

#[test]
fn malformed_updates() {
    for (body, why) in [
        (&[8, 14, 4, 0, 33, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4][..], TlvError::Prefix),
        (&[8, 14, 2, 0, 129, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], TlvError::Prefix),
        (&[8, 14, 2, 0, 64, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], TlvError::Short),
        (&[8, 10, 2, 0, 32, 17, 0, 0, 0, 0, 0, 0], TlvError::Prefix),
        (&[8, 10, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0], TlvError::Encoding),
        (&[8, 10, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0], TlvError::Encoding),
        (&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], TlvError::Value),
        (&[8, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0], TlvError::Short),
        (&[8, 12, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 240, 0], TlvError::Short),
        (&[8, 13, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 0], TlvError::Short),
        (&[8, 200, 2, 0], TlvError::Short),
    ] {
        tlvs_are(&after_router_id(body), &[Err(why)]);
    }
}

#[test]
fn a_wildcard_retraction() {
    let all = Update { prefix: None, router_id: None, seqno: Seqno(0), interval: 0, ..update("::/0", INFINITY) };
    tlvs_are(&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &[Ok(Tlv::Update(all))]);
}

#[test]
fn two_proofs_are_none() {
    let mut body = vec![8, 10 + 196, 2, 0, 0, 0, 0, 0, 0, 0, 0, 96];
    for _ in 0..2 {
        body.extend([240, 96]);
        body.extend([1; 96]);
    }
    tlvs_are(&after_router_id(&body), &[Err(TlvError::Value)]);
}

#[test]
fn requests() {
    tlvs_are(&[9, 2, 0, 0], &[Ok(Tlv::RouteRequest(None))]);
    tlvs_are(&[9, 2, 0, 8], &[Err(TlvError::Value)]);
    tlvs_are(&[9, 4, 2, 16, 0xfd, 1], &[Ok(Tlv::RouteRequest(Some(prefix("fd01::/16"))))]);
    tlvs_are(&[9, 6, 1, 32, 100, 64, 0, 9], &[Ok(Tlv::RouteRequest(Some(prefix("100.64.0.9/32"))))]);
    tlvs_are(&[9, 3, 2, 16, 0xfd], &[Err(TlvError::Short)]);
    let request = SeqnoRequest { prefix: prefix("100.64.0.9/32"), seqno: Seqno(0x0102), hop_count: 9, router_id: ID };
    let mut body = vec![10, 18, 1, 32, 1, 2, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 64, 0, 9];
    tlvs_are(&body, &[Ok(Tlv::SeqnoRequest(request))]);
    body[6] = 0;
    tlvs_are(&body, &[Err(TlvError::Value)]);
    tlvs_are(&[10, 14, 0, 0, 1, 2, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8], &[Err(TlvError::Encoding)]);
}

#[test]
fn a_packet_counter_may_have_an_index() {
    tlvs_are(&[17, 6, 0, 0, 1, 0, 240, 99], &[Ok(Tlv::PacketCounter(256))]);
}

/// A packet with everything we write, byte by byte: what other versions and other machines must read.
#[test]
fn golden_packet() {
    let (owner, signature) = ([0xaa; 32], [0xbb; 64]);
    let proof = Some(ProofView { owner: &owner, signature: &signature });
    let mut buf = [0; 1200];
    let mut writer = PacketWriter::new(&mut buf).unwrap();
    writer.ack(7).unwrap();
    writer.hello(&Hello { unicast: true, seqno: Seqno(5), interval: 400, timestamp: Some(0x0102_0304) }).unwrap();
    writer.ihu(&Ihu { rxcost: 96, interval: 1200, timestamps: Some((1, 2)) }).unwrap();
    writer.ack_request(0x1234, 10).unwrap();
    writer.packet_counter(0x0a0b_0c0d).unwrap();
    writer.route_request(None).unwrap();
    writer.route_request(Some(&prefix("fd01::/16"))).unwrap();
    let request = SeqnoRequest { prefix: prefix("100.64.0.9/32"), seqno: Seqno(2), hop_count: 64, router_id: ID };
    writer.seqno_request(&request).unwrap();
    writer.update(&update("100.64.0.9/32", 0)).unwrap();
    writer.update(&Update { proof, ..update("fd01:203:405:607::/64", 96) }).unwrap();
    writer.update(&update("fd01:203:405:700::/64", 96)).unwrap();
    writer.update(&Update { router_id: None, ..update("::/0", INFINITY) }).unwrap();
    let text: std::string::String = writer.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    let proof = format!("f060{}{}", "aa".repeat(32), "bb".repeat(64));
    let expected = [
        "2a0200fc",
        "03020007",
        "040c8000000501900304",
        "01020304",
        "05100000006004b0",
        "03080000000100000002",
        "02060000123400",
        "0a",
        "11040a0b0c0d",
        "09020000",
        "09040210fd01",
        "0a12012000024000010203040506070864400009",
        "060a00000102030405060708",
        "080e048020001770010200006440",
        "0009",
        "0874028040001770010200",
        "60fd01020304050607",
        &proof,
        "080c02804006177001020060",
        "0700",
        "080a0280000017700102ffff",
    ]
    .concat();
    assert_eq!(text, expected);
}

#[test]
fn a_full_packet_stays_as_it_was() {
    let mut buf = [0; 4 + 12 + 20 + 5];
    let mut writer = PacketWriter::new(&mut buf).unwrap();
    writer.update(&update("fd01:203:405:607::/64", 1)).unwrap();
    assert_eq!(writer.room(), 5);
    let other = Update { router_id: Some(RouterId([9; 8])), ..update("fd01:203:405:608::/64", 2) };
    assert_eq!(writer.update(&other), Err(Full));
    assert_eq!(writer.room(), 5);
    writer.ack(1).unwrap();
    let bytes = writer.finish().to_vec();
    let tlvs: Vec<_> = Packet::parse(&bytes).unwrap().tlvs().collect();
    assert_eq!(tlvs, [Ok(Tlv::Update(update("fd01:203:405:607::/64", 1))), Ok(Tlv::Ack { opaque: 1 })]);
    assert!(PacketWriter::new(&mut [0; 3]).is_err());
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        // Addresses with common beginnings, so that compression has something to do.
        (0_u128..4, 0_u32..128, any::<u128>(), 0_u8..=128).prop_map(|(head, shift, tail, len)| {
            Prefix::new_truncating(Ipv6Addr::from((head << 120) | (tail >> shift)).into(), len)
        }),
        (any::<u32>(), 0_u32..32, 0_u8..=32).prop_map(|(bits, shift, len)| {
            Prefix::new_truncating(core::net::Ipv4Addr::from(bits >> shift).into(), len)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn updates_come_back_as_they_were_written(
        updates in proptest::collection::vec((any_prefix(), 1_u8..5, any::<u16>(), any::<u16>(), any::<bool>()), 1..60),
    ) {
        let (owner, signature) = ([3; 32], [4; 64]);
        let mut buf = [0; 1200];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        let mut written = Vec::new();
        for (prefix, id, seqno, metric, proved) in updates {
            let update = Update {
                prefix: Some(prefix),
                interval: 6000,
                seqno: Seqno(seqno),
                metric,
                router_id: Some(RouterId([id; 8])),
                proof: proved.then_some(ProofView { owner: &owner, signature: &signature }),
            };
            if writer.update(&update).is_err() {
                break;
            }
            written.push(Ok(Tlv::Update(update)));
        }
        let bytes = writer.finish();
        prop_assert_eq!(Packet::parse(bytes).unwrap().tlvs().collect::<Vec<_>>(), written);
    }

    #[test]
    fn no_bytes_break_the_parser(bytes: Vec<u8>, body in proptest::collection::vec(0_u8..20, 0..300)) {
        if let Ok(packet) = Packet::parse(&bytes) {
            packet.tlvs().for_each(drop);
        }
        // Small numbers are likely types, lengths and encodings.
        let count = Packet::parse(&packet(&body)).unwrap().tlvs().count();
        prop_assert!(count <= body.len());
    }

    #[test]
    fn a_cut_packet_gives_a_beginning_or_nothing(cut in 0_usize..60) {
        let mut buf = [0; 100];
        let mut writer = PacketWriter::new(&mut buf).unwrap();
        writer.update(&update("fd01:203:405:607::/64", 1)).unwrap();
        writer.update(&update("fd01:203:405:608::/64", 1)).unwrap();
        let bytes = writer.finish();
        let whole: Vec<_> = Packet::parse(bytes).unwrap().tlvs().collect();
        let body = &bytes[4..bytes.len().min(4 + cut)];
        let shortened = packet(body);
        let good: Vec<_> = Packet::parse(&shortened).unwrap().tlvs().filter(Result::is_ok).collect();
        prop_assert_eq!(&good, &whole[..good.len()]);
    }
}
