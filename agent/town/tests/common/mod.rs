//! What several of the tests use.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "a test; each uses some of it")]

use grange_core::Identity;
use grange_town::{Author, Entry, EntryHash, EntryRef, LogId, Place, writer::Beginning};
use grange_wire::TownId;

pub const TOWN: TownId = TownId([7; 16]);

/// The identity number `number`.
pub fn identity(number: u64) -> Identity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

pub fn author(identity: &Identity) -> Author {
    Author(identity.public())
}

/// The first `count` entries of a life, each with so many bytes of payload.
pub fn chain(identity: &Identity, life: u64, count: u64, bytes: usize) -> Vec<Entry> {
    let mut previous = EntryHash::NONE;
    (1..=count)
        .map(|seq| {
            let mut payload = vec![0; bytes];
            payload.iter_mut().zip(seq.to_be_bytes()).for_each(|(byte, of)| *byte = of);
            let entry = Entry::sign(identity, &TOWN, life, seq, previous, 0, &payload).unwrap();
            previous = entry.hash();
            entry
        })
        .collect()
}

/// Beginnings as these tests write them.
pub struct Facts;

const BEGIN: &[u8] = b"begin";

impl Beginning for Facts {
    fn encode(&self, parent: &EntryRef) -> Vec<u8> {
        let Place { author, life, seq } = parent.place;
        [BEGIN, &author.0, &life.to_be_bytes(), &seq.to_be_bytes(), &parent.hash.0].concat()
    }

    fn parent(&self, payload: &[u8]) -> Option<EntryRef> {
        let rest = payload.strip_prefix(BEGIN)?;
        let author = Author(rest.get(..32)?.try_into().ok()?);
        let life = u64::from_be_bytes(rest.get(32..40)?.try_into().ok()?);
        let seq = u64::from_be_bytes(rest.get(40..48)?.try_into().ok()?);
        let hash = EntryHash(rest.get(48..)?.try_into().ok()?);
        Some(EntryRef { place: LogId { author, life }.at(seq), hash })
    }
}
