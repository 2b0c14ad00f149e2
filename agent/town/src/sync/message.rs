//! What neighbours say to each other to bring their logs to the same length. Postcard, after a version byte.

use serde::{Deserialize, Serialize};

use crate::{
    entry::{EntryRef, LogId},
    vector::{BUCKETS, Digest, Known},
};

/// Bytes that a message has at most. One with the proof of a fork in it is longest.
pub const MESSAGE_MAX: usize = 40 << 10;
/// Up to how many bytes a message is filled with entries, if it has more than one.
pub(crate) const FILL: usize = 32 << 10;
/// Logs in one message, at most.
pub(crate) const LOGS_MAX: usize = 512;
/// Logs that are asked for at once, at most.
pub(crate) const WANTS_MAX: usize = 128;

/// Pinned entries that are asked for at once, at most.
pub(crate) const PINNED_MAX: usize = 16;

/// The version of the messages.
const VERSION: u8 = 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// The digest of all that the sender knows.
    Digest {
        /// That digest.
        digest: Digest,
        /// Whether it is the answer to such a message. It is not answered again.
        answer: bool,
    },
    /// The digests did not match: here are those of each bucket.
    Buckets(Vec<Digest>),
    /// How far the sender knows some logs.
    Vector {
        /// The ids from which to which the sender knows no other logs: he is to be told what else there is. None: an
        /// answer, or news.
        all: Option<(LogId, LogId)>,
        /// How far he knows them.
        known: Vec<Known>,
    },
    /// The sender asks for entries and for proofs of forks.
    Want {
        /// For each log the number of the last entry that is not asked for.
        after: Vec<(LogId, u64)>,
        /// The logs whose forks he wants to see proved.
        forks: Vec<LogId>,
        /// Entries behind forks, each with those before it in its history.
        pinned: Vec<EntryRef>,
    },
    /// Entries, in the order of their numbers within each log.
    Entries {
        /// Their bytes.
        #[serde(borrow)]
        entries: Vec<&'a [u8]>,
        /// Whether this is the end of an answer.
        end: bool,
    },
    /// Proofs of forks.
    Forks(#[serde(borrow)] Vec<&'a [u8]>),
}

impl<'a> Message<'a> {
    /// The message that these bytes are; none if they are none, or one that is larger than it may be.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MESSAGE_MAX {
            return None;
        }
        let (&VERSION, rest) = bytes.split_first()? else { return None };
        let (message, []) = postcard::take_from_bytes::<Message<'a>>(rest).ok()? else { return None };
        let good = match &message {
            Self::Digest { .. } | Self::Entries { .. } | Self::Forks(_) => true,
            Self::Buckets(digests) => digests.len() == BUCKETS,
            Self::Vector { known, .. } => known.len() <= LOGS_MAX,
            Self::Want { after, forks, pinned } => {
                after.len() <= WANTS_MAX && forks.len() <= WANTS_MAX && pinned.len() <= PINNED_MAX
            }
        };
        good.then_some(message)
    }

    /// The bytes that [`Message::parse`] takes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }
}
