//! The bytes of entries, proofs and messages: the same on every machine, and nothing else is taken for one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use common::{TOWN, author, chain, identity};
use grange_core::certificate::Steward;
use grange_town::{
    Author, Entry, EntryError, EntryHash, EntryRef, ForkError, ForkProof, LogId,
    entry::{ENTRY_MAX, PAYLOAD_MAX},
    sync::{MESSAGE_MAX, Message},
    vector::{Digest, Known},
};
use grange_wire::TownId;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry() -> Entry {
    Entry::sign(&identity(1), &TOWN, 0x0123_4567_89ab_cdef, 1, EntryHash::NONE, 1_800_000_000, b"hello").unwrap()
}

const GOLDEN_BODY: &str = "01c79f84ef9ecf745c07c3191e2c03502c50f9de82cf15c4c20d3b7a627952ce19ef9bafcdf8acd1910101000000000000000000000000000000000000000000000000000000000000000080a4a7da060568656c6c6f";
const GOLDEN_ENTRY: &str = "c60d572d6a6d88937784630a01803e99409b3d29b94b489c4daecdd8c1db9ef1";
const GOLDEN_PROOF: &str = "8f526f07f6beec8e709a91d9516652465e2d0cd95f6860b6a1e93a3fc5867804";

/// Ed25519 is deterministic: whoever makes these from the same seeds, in any language and byte order, gets these bytes.
#[test]
fn golden_entries() {
    let entry = entry();
    let bytes = entry.as_bytes();
    assert_eq!(hex(&bytes[..bytes.len() - 64]), GOLDEN_BODY);
    assert_eq!(blake3::hash(bytes).to_string(), GOLDEN_ENTRY);
    assert_eq!(entry.hash().0, *blake3::hash(&bytes[..bytes.len() - 64]).as_bytes());
    let other = Entry::sign(&identity(1), &TOWN, 0x0123_4567_89ab_cdef, 1, EntryHash::NONE, 0, b"").unwrap();
    let proof = ForkProof::new(&entry, &other).unwrap();
    assert_eq!(blake3::hash(&proof.to_bytes()).to_string(), GOLDEN_PROOF);
    assert_eq!(ForkProof::parse(&proof.to_bytes(), &TOWN), Ok(proof.clone()));
    assert_eq!(ForkProof::new(&other, &entry), Some(proof));
}

const GOLDEN_MESSAGES: [&str; 6] = [
    "01000101010101010101010101010101010101",
    "d3c1fee67b0db21715d972678337bbcf1ff7e1da12392ed4f7d2a5391c1658ca",
    "0102010202020202020202020202020202020202020202020202020202020202020202ac020202020202020202020202020202020202020202020202020202020202020202ac02010202020202020202020202020202020202020202020202020202020202020202ac02050303030303030303030303030303030300",
    "0103010202020202020202020202020202020202020202020202020202020202020202ac028101010202020202020202020202020202020202020202020202020202020202020202ac02010202020202020202020202020202020202020202020202020202020202020202ac02090404040404040404040404040404040404040404040404040404040404040404",
    "010402026162016301",
    "0105010164",
];

#[test]
fn golden_messages() {
    let log = LogId { author: Author([2; 32]), life: 300 };
    let known = Known { log, seq: 5, hash: [3; 16], fork: 0 };
    let messages = [
        Message::Digest { digest: Digest([1; 16]), answer: true },
        Message::Buckets((0..64).map(|number| Digest([number; 16])).collect()),
        Message::Vector { all: Some((log, log)), known: vec![known] },
        Message::Want {
            after: vec![(log, 129)],
            forks: vec![log],
            pinned: vec![EntryRef { place: log.at(9), hash: EntryHash([4; 32]) }],
        },
        Message::Entries { entries: vec![b"ab", b"c"], end: true },
        Message::Forks(vec![b"d"]),
    ];
    for (message, golden) in messages.iter().zip(GOLDEN_MESSAGES) {
        let bytes = message.to_bytes();
        let shown = if bytes.len() > 200 { blake3::hash(&bytes).to_string() } else { hex(&bytes) };
        assert_eq!(shown, golden, "{message:?}");
        assert_eq!(Message::parse(&bytes).as_ref(), Some(message));
    }
}

#[test]
fn no_single_bit_can_be_changed() {
    let good = entry();
    for bit in 0..good.as_bytes().len() * 8 {
        let mut bad = good.as_bytes().to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Entry::parse(&bad, &TOWN).is_err(), "bit {bit}");
    }
}

#[test]
fn entries_are_of_one_town_and_one_form() {
    let good = entry();
    assert_eq!(Entry::parse(good.as_bytes(), &TOWN).as_ref(), Ok(&good));
    assert_eq!(Entry::parse(good.as_bytes(), &TownId([8; 16])), Err(EntryError::Signature));
    assert_eq!(Entry::parse(&vec![1; ENTRY_MAX + 1], &TOWN), Err(EntryError::Size));
    assert_eq!(Entry::parse(&[], &TOWN), Err(EntryError::Format));
    let mut newer = good.as_bytes().to_vec();
    newer[0] = 2;
    assert_eq!(Entry::parse(&newer, &TOWN), Err(EntryError::Version(2)));
    // The number 1 in two bytes: the same entry would have two hashes.
    let body = &good.as_bytes()[..good.as_bytes().len() - 64];
    let at = 1 + 32 + 9;
    assert_eq!(body[at], 1);
    let longer = [&body[..at], &[0x81, 0x00], &body[at + 1..], &[0; 64]].concat();
    assert_eq!(Entry::parse(&longer, &TOWN), Err(EntryError::Format));
    let sign = |seq, previous, payload: &[u8]| Entry::sign(&identity(1), &TOWN, 1, seq, previous, 0, payload);
    assert_eq!(sign(0, EntryHash::NONE, b""), Err(EntryError::Link));
    assert_eq!(sign(2, EntryHash::NONE, b""), Err(EntryError::Link));
    assert_eq!(sign(1, EntryHash([1; 32]), b""), Err(EntryError::Link));
    assert_eq!(sign(1, EntryHash::NONE, &vec![0; PAYLOAD_MAX + 1]), Err(EntryError::Size));
    let largest = Entry::sign(&identity(1), &TOWN, u64::MAX, u64::MAX, good.hash(), u64::MAX, &vec![0; PAYLOAD_MAX]);
    let largest = largest.unwrap();
    assert_eq!(largest.as_bytes().len(), ENTRY_MAX);
    assert_eq!(Entry::parse(largest.as_bytes(), &TOWN), Ok(largest));
}

#[test]
fn stewards_sign_entries_too() {
    let steward = Steward::from_seed(&[5; 32]);
    let entry = Entry::sign(&steward, &TOWN, 1, 1, EntryHash::NONE, 0, b"policy").unwrap();
    assert_eq!(entry.place().author, Author(steward.public()));
    assert_eq!(Entry::parse(entry.as_bytes(), &TOWN), Ok(entry));
}

#[test]
fn a_fork_is_two_entries_that_cannot_both_be() {
    let one = chain(&identity(1), 3, 5, 10);
    let other = chain(&identity(1), 3, 5, 11);
    assert_eq!(ForkProof::new(&one[2], &other[2]).unwrap().place(), one[2].place());
    // The end of another history.
    assert_eq!(ForkProof::new(&other[3], &one[2]).unwrap().place(), one[2].place());
    assert_eq!(ForkProof::new(&one[2], &one[2]), None);
    assert_eq!(ForkProof::new(&one[2], &one[3]), None);
    assert_eq!(ForkProof::new(&one[1], &other[3]), None);
    assert_eq!(ForkProof::new(&one[2], &chain(&identity(1), 4, 5, 11)[2]), None);
    assert_eq!(ForkProof::new(&one[2], &chain(&identity(2), 3, 5, 11)[2]), None);
    // Nobody else can accuse an author.
    let bytes = ForkProof::new(&one[2], &other[2]).unwrap().to_bytes();
    for at in [bytes.len() - 1, bytes.len() / 2 - 1] {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        assert!(ForkProof::parse(&forged, &TOWN).is_err());
    }
    assert_eq!(ForkProof::parse(b"", &TOWN), Err(ForkError::Format));
    assert_eq!(one[0].place().author, author(&identity(1)));
}

proptest! {
    #[test]
    fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), first in 0u8..8) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = 1;
        }
        if let Some(byte) = bytes.get_mut(1) {
            *byte = first;
        }
        let _ = Entry::parse(&bytes, &TOWN);
        let _ = ForkProof::parse(&bytes, &TOWN);
        if let Some(message) = Message::parse(&bytes) {
            prop_assert!(message.to_bytes().len() <= MESSAGE_MAX);
        }
    }
}
