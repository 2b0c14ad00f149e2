//! Proofs that an author wrote two histories (`docs/town.md`, Entries).

use std::fmt;

use grange_wire::TownId;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryError, EntryHash, Place};

/// Two entries, both signed by one author, that cannot both be in one log: two at one place, or two that follow each
/// other by number while the later one names another before it.
///
/// The second kind is what a node sees that knows one history and hears the end of the other; it proves that there was a
/// second entry at the place of the first.
#[derive(Clone, PartialEq, Eq)]
pub struct ForkProof {
    /// The one with the lower number, or the lower hash.
    first: Entry,
    second: Entry,
}

/// Why two entries prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// The bytes are not two entries.
    #[error("the bytes are no proof of a fork")]
    Format,
    /// One of the entries is not good.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Both can be in one log.
    #[error("the two entries do not contradict each other")]
    NoFork,
}

#[derive(Serialize, Deserialize)]
struct Encoded<'a> {
    version: u8,
    #[serde(borrow)]
    first: &'a [u8],
    #[serde(borrow)]
    second: &'a [u8],
}

const VERSION: u8 = 1;

impl ForkProof {
    /// The proof that these two entries are, in whatever order.
    #[must_use]
    pub fn new(one: &Entry, other: &Entry) -> Option<Self> {
        let (first, second) =
            if (one.place(), one.hash()) <= (other.place(), other.hash()) { (one, other) } else { (other, one) };
        let (at, after) = (first.place(), second.place());
        let fork = at.log() == after.log()
            && match after.seq - at.seq {
                0 => first.hash() != second.hash(),
                1 => second.previous() != first.hash(),
                _ => false,
            };
        fork.then(|| Self { first: first.clone(), second: second.clone() })
    }

    /// The proof that these bytes are, if both entries are good in this town and contradict each other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(bytes: &[u8], town: &TownId) -> Result<Self, ForkError> {
        let encoded = Self::decode(bytes)?;
        Self::of(&Entry::parse(encoded.first, town)?, &Entry::parse(encoded.second, town)?)
    }

    /// As [`ForkProof::parse`], but the signatures are not looked at.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ForkError> {
        let encoded = Self::decode(bytes)?;
        Self::of(&Entry::read_bounded(encoded.first)?, &Entry::read_bounded(encoded.second)?)
    }

    fn decode(bytes: &[u8]) -> Result<Encoded<'_>, ForkError> {
        match postcard::take_from_bytes::<Encoded<'_>>(bytes) {
            Ok((encoded, [])) if encoded.version == VERSION => Ok(encoded),
            _ => Err(ForkError::Format),
        }
    }

    fn of(first: &Entry, second: &Entry) -> Result<Self, ForkError> {
        Self::new(first, second).ok_or(ForkError::NoFork)
    }

    /// The bytes that [`ForkProof::parse`] takes, at most twice [`crate::entry::ENTRY_MAX`] and eight more.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoded = Encoded { version: VERSION, first: self.first.as_bytes(), second: self.second.as_bytes() };
        postcard::to_allocvec(&encoded).unwrap_or_default()
    }

    /// The place at which there are two entries. What the author wrote in that log before it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.first.place()
    }

    /// The two entries.
    #[must_use]
    pub fn entries(&self) -> [&Entry; 2] {
        [&self.first, &self.second]
    }

    /// The two hashes, for showing.
    #[must_use]
    pub fn hashes(&self) -> [EntryHash; 2] {
        [self.first.hash(), self.second.hash()]
    }
}

impl fmt::Display for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} and {:?}", self.place(), self.first.hash(), self.second.hash())
    }
}

impl fmt::Debug for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForkProof({self})")
    }
}
