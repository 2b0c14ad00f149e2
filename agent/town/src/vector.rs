//! How far logs are known, as neighbours tell each other (`docs/town.md`, Sync).

use serde::{Deserialize, Serialize};

use crate::{
    entry::{Author, EntryHash, LogId},
    log::Head,
};

/// Into how many parts the logs are cut by the first bits of their authors' keys, so that only those that differ are
/// listed.
pub const BUCKETS: usize = 64;

/// The part of a bucket that a log is in.
pub(crate) fn bucket_of(author: Author) -> usize {
    usize::from(author.0[0] >> 2)
}

/// The least author of a bucket.
pub(crate) fn first_of(bucket: usize) -> Author {
    let mut first = [0; 32];
    first[0] = u8::try_from(bucket << 2).unwrap_or(u8::MAX);
    Author(first)
}

/// The greatest log of a bucket.
pub(crate) fn last_of(bucket: usize) -> LogId {
    let mut last = [255; 32];
    last[0] = u8::try_from((bucket << 2) | 3).unwrap_or(u8::MAX);
    LogId { author: Author(last), life: u64::MAX }
}

/// The first half of an entry's hash: enough to tell two histories apart.
pub type ShortHash = [u8; 16];

/// How far somebody knows a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which log.
    pub log: LogId,
    /// The number of the last entry that counts; 0: none.
    pub seq: u64,
    /// The hash of that entry, its first half.
    pub hash: ShortHash,
    /// The number at which it forks; 0: no fork is known.
    pub fork: u64,
}

impl Known {
    pub(crate) fn new(log: LogId, head: &Head) -> Self {
        Self { log, seq: head.seq, hash: Self::short(head.hash), fork: head.fork }
    }

    /// The first half of a hash.
    #[must_use]
    pub fn short(hash: EntryHash) -> ShortHash {
        let mut short = [0; 16];
        short.copy_from_slice(&hash.0[..16]);
        short
    }
}

/// What two nodes compare to see whether they know the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    pub(crate) fn hasher() -> DigestHasher {
        DigestHasher(blake3::Hasher::new_derive_key("grange v1 log vector"))
    }

    pub(crate) fn of_all(buckets: &[Self]) -> Self {
        let mut hasher = Self::hasher();
        for bucket in buckets {
            hasher.0.update(&bucket.0);
        }
        hasher.finish()
    }
}

/// Makes the digest of a bucket. Integers are big-endian.
pub(crate) struct DigestHasher(blake3::Hasher);

impl DigestHasher {
    pub(crate) fn log(&mut self, known: &Known) {
        self.0.update(&[1]);
        self.0.update(&known.log.author.0);
        self.0.update(&known.log.life.to_be_bytes());
        self.0.update(&known.seq.to_be_bytes());
        self.0.update(&known.hash);
        self.0.update(&known.fork.to_be_bytes());
    }

    /// An author with too many lives: which of them a node has met makes no difference.
    pub(crate) fn overrun(&mut self, author: Author) {
        self.0.update(&[2]);
        self.0.update(&author.0);
    }

    pub(crate) fn finish(&self) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Digest(digest)
    }
}
