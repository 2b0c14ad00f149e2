//! Entries: what an author signed, and where in which log it stands (`docs/town.md`, Entries).

use std::{fmt, ops::Range, sync::Arc};

use grange_core::{Identity, certificate::Steward, identity};
use grange_wire::{NodeId, TownId};
use serde::{Deserialize, Serialize};

/// Bytes of payload that an entry has at most.
pub const PAYLOAD_MAX: usize = 16 << 10;
/// Bytes that an entry has at most: body and signature.
pub const ENTRY_MAX: usize = BODY_REST_MAX + PAYLOAD_MAX + SIGNATURE;

/// Bytes of a body without its payload, at most: version, author, three numbers, the hash before, the payload's length.
const BODY_REST_MAX: usize = 1 + 32 + 3 * 10 + 32 + 3;
/// Bytes of a signature.
const SIGNATURE: usize = 64;
/// The version of a body that this writes and reads.
const VERSION: u8 = 1;
/// What an entry's signature is for.
const CONTEXT: &str = "grange v1 log entry";

/// Who writes a log: an Ed25519 public key, a node's identity or a steward's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Author(pub [u8; 32]);

impl Author {
    /// The id of the node whose identity key this is. Of a steward's key it is the id of no node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of_key(&self.0)
    }
}

/// The BLAKE3 hash of an entry's body. All zeros: there is no entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// What the first entry of a life names as the one before it.
    pub const NONE: Self = Self([0; 32]);
}

macro_rules! hex_format {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    )*};
}
hex_format!(Author, EntryHash);

/// One log of an author: a life, by its random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// Who writes it.
    pub author: Author,
    /// Which of the author's logs it is.
    pub life: u64,
}

impl LogId {
    /// The place of the entry with this number in this log.
    #[must_use]
    pub fn at(self, seq: u64) -> Place {
        Place { author: self.author, life: self.life, seq }
    }
}

/// Where an entry stands. Two different entries at one place are a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Who wrote it.
    pub author: Author,
    /// Which of the author's logs it is in.
    pub life: u64,
    /// Its number in that log, from 1.
    pub seq: u64,
}

impl Place {
    /// The log that it is in.
    #[must_use]
    pub fn log(&self) -> LogId {
        LogId { author: self.author, life: self.life }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:016x}/{}", self.author, self.life, self.seq)
    }
}

/// One entry and no other: its place and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryRef {
    /// Where it stands.
    pub place: Place,
    /// Its hash.
    pub hash: EntryHash,
}

/// What is signed. Encoded by postcard, in one way only: numbers in their shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body<'a> {
    /// The version of this format, 1.
    pub version: u8,
    /// Who writes.
    pub author: Author,
    /// Which of the author's logs it is in.
    pub life: u64,
    /// Its number in that log, from 1, without gaps.
    pub seq: u64,
    /// The hash of the entry before it; [`EntryHash::NONE`] for the first.
    pub previous: EntryHash,
    /// Second of mesh time (Unix time) at which it was written; 0: unknown.
    pub time: u64,
    /// What it says, at most [`PAYLOAD_MAX`] bytes.
    #[serde(borrow)]
    pub payload: &'a [u8],
}

/// Why bytes are no entry, or an entry cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More bytes than an entry may have.
    #[error("the entry is longer than {ENTRY_MAX} bytes, or its payload than {PAYLOAD_MAX}")]
    Size,
    /// Not the encoding of a body.
    #[error("the bytes are no entry")]
    Format,
    /// A version that this program does not know.
    #[error("the entry has version {0}, which this program does not know")]
    Version(u8),
    /// Number 0, or a first entry that names one before it, or a later one that names none.
    #[error("the entry's number and link do not go together")]
    Link,
    /// The signature is not the author's, or is for another town.
    #[error("the entry's signature is wrong")]
    Signature,
}

/// A key that signs entries: a node's [`Identity`] or a [`Steward`]'s.
pub trait Signer {
    /// The Ed25519 public key.
    fn author(&self) -> Author;
    /// Signs the hash of `context` and `parts`, as [`Identity::sign`] does.
    fn sign(&self, context: &str, parts: &[&[u8]]) -> [u8; 64];
}

impl Signer for Identity {
    fn author(&self) -> Author {
        Author(self.public())
    }
    fn sign(&self, context: &str, parts: &[&[u8]]) -> [u8; 64] {
        Self::sign(self, context, parts)
    }
}

impl Signer for Steward {
    fn author(&self) -> Author {
        Author(self.public())
    }
    fn sign(&self, context: &str, parts: &[&[u8]]) -> [u8; 64] {
        self.sign_parts(context, parts)
    }
}

/// A signed entry. It never changes, and a clone shares its bytes.
#[derive(Clone)]
pub struct Entry(Arc<Parts>);

struct Parts {
    /// The body and after it the signature.
    bytes: Box<[u8]>,
    place: Place,
    previous: EntryHash,
    hash: EntryHash,
    time: u64,
    payload: Range<usize>,
}

impl Entry {
    /// Writes and signs the entry number `seq` of a log of the signer's.
    ///
    /// `time`: second of mesh time, 0 if unknown.
    ///
    /// # Errors
    /// [`EntryError::Size`] if the payload is too long, [`EntryError::Link`] if `seq` and `previous` do not go together.
    pub fn sign(
        signer: &dyn Signer,
        town: &TownId,
        life: u64,
        seq: u64,
        previous: EntryHash,
        time: u64,
        payload: &[u8],
    ) -> Result<Self, EntryError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(EntryError::Size);
        }
        let body = Body { version: VERSION, author: signer.author(), life, seq, previous, time, payload };
        let mut bytes = postcard::to_allocvec(&body).map_err(|_| EntryError::Format)?;
        bytes.extend(signer.sign(CONTEXT, &[&town.0, &bytes]));
        Self::read(bytes.into())
    }

    /// The entry that these bytes are, if they are one of this town: size, version and form, then the signature,
    /// strictly.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing is allocated before the size is known to be good.
    pub fn parse(bytes: &[u8], town: &TownId) -> Result<Self, EntryError> {
        let entry = Self::read_bounded(bytes)?;
        entry.verify(town)?;
        Ok(entry)
    }

    /// As [`Entry::parse`], but the signature is not looked at.
    pub(crate) fn read_bounded(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_MAX { Err(EntryError::Size) } else { Self::read(bytes.into()) }
    }

    /// Whether the author signed it for this town.
    pub(crate) fn verify(&self, town: &TownId) -> Result<(), EntryError> {
        let (body, signature) = split(&self.0.bytes)?;
        let good = identity::verify(&self.0.place.author.0, CONTEXT, &[&town.0, body], signature);
        if good { Ok(()) } else { Err(EntryError::Signature) }
    }

    /// The entry that these bytes are, without looking at the signature: for what was checked before it was stored.
    pub(crate) fn read(bytes: Box<[u8]>) -> Result<Self, EntryError> {
        let (body_bytes, _) = split(&bytes)?;
        match body_bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(EntryError::Version(other)),
            None => return Err(EntryError::Format),
        }
        let (body, rest) = postcard::take_from_bytes::<Body<'_>>(body_bytes).map_err(|_| EntryError::Format)?;
        // Numbers that are longer than they need be would give one entry two hashes.
        let shortest = postcard::experimental::serialized_size(&body).map_err(|_| EntryError::Format)?;
        if !rest.is_empty() || shortest != body_bytes.len() {
            return Err(EntryError::Format);
        }
        if body.payload.len() > PAYLOAD_MAX {
            return Err(EntryError::Size);
        }
        if body.seq == 0 || (body.seq == 1) != (body.previous == EntryHash::NONE) {
            return Err(EntryError::Link);
        }
        let payload = body_bytes.len() - body.payload.len()..body_bytes.len();
        let place = Place { author: body.author, life: body.life, seq: body.seq };
        let (previous, time) = (body.previous, body.time);
        let hash = EntryHash(*blake3::hash(body_bytes).as_bytes());
        Ok(Self(Arc::new(Parts { place, previous, hash, time, payload, bytes })))
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// The hash of the entry before it.
    #[must_use]
    pub fn previous(&self) -> EntryHash {
        self.0.previous
    }

    /// The hash of its body.
    #[must_use]
    pub fn hash(&self) -> EntryHash {
        self.0.hash
    }

    /// Place and hash.
    #[must_use]
    pub fn to_ref(&self) -> EntryRef {
        EntryRef { place: self.0.place, hash: self.0.hash }
    }

    /// Second of mesh time (Unix time) at which it was written, as the author says; 0: unknown.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.0.time
    }

    /// What it says.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.bytes[self.0.payload.clone()]
    }

    /// Body and signature, as [`Entry::parse`] takes them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} {:?}, {} bytes)", self.0.place, self.0.hash, self.0.payload.len())
    }
}

/// Body and signature.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8; SIGNATURE]), EntryError> {
    bytes.split_last_chunk().ok_or(EntryError::Format)
}
