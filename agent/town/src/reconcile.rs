//! Comparing large sets of ids at a cost that follows the difference and not the size (`docs/town.md`, Sync).
//!
//! Range-based set reconciliation (Meyer, "Range-Based Set Reconciliation and Authenticated Set Representations",
//! arXiv:2212.13567) as the `negentropy` crate does it: ranges of the sorted set are compared by fingerprints, those that differ are cut
//! into 16, and ranges of fewer than 32 items are listed. A list costs 32 bytes an item on both ways, so a set is first cut into
//! up to 8 parts by the last bits of the ids, such that the lists come out at two to four items: 1,000,000 items are compared in 4 parts,
//! which halves what lists of 15 would cost.
//!
//! A set is in memory, 40 bytes an item, while it is compared: 38 MiB for a million. A router compares such sets in slices of time.

use std::{cmp::Ordering, collections::BTreeSet};

use negentropy::{Bound, Id, Item, Negentropy, NegentropyStorageBase};
use serde::{Deserialize, Serialize};

/// Bytes that a message has at most.
pub const MESSAGE_MAX: usize = 40 << 10;
/// Differences that one comparison finds at most; with more it ends early, and the next one finds the rest.
pub const DIFFERENCES_MAX: usize = 1 << 16;
/// Questions that one comparison asks at most.
pub const ROUNDS_MAX: u32 = 4096;

/// The version of the messages.
const VERSION: u8 = 1;
/// Parts, at most: a power of two.
const PARTS_MAX: usize = 8;
/// Bytes of all parts of a message together.
const FILL: usize = 32 << 10;
/// Into how many ranges `negentropy` cuts one that differs, and from how many items on it does so.
const CUT: usize = 16;
const CUT_FROM: usize = 32;

/// Why a comparison ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// The bytes are no such message.
    #[error("the message is none of a comparison of sets")]
    Format,
    /// `negentropy` cannot read it.
    #[error("the message does not make sense: {0}")]
    Protocol(String),
    /// More than [`ROUNDS_MAX`] questions.
    #[error("the comparison does not end")]
    Endless,
}

impl From<negentropy::Error> for ReconcileError {
    fn from(error: negentropy::Error) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// One item: a time, by which items that belong together stand together, and an id.
pub type Dated = (u64, [u8; 32]);

/// A set of dated ids.
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    items: Vec<Dated>,
}

impl IdSet {
    /// The set of these items.
    #[must_use]
    pub fn new(mut items: Vec<Dated>) -> Self {
        items.sort_unstable();
        items.dedup();
        Self { items }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Into how many parts a set of this size is cut, such that the ranges that are listed have two to four items.
    fn parts(&self) -> usize {
        let listed = |parts: usize| {
            let mut range = self.items.len() / parts;
            while range >= CUT_FROM {
                range /= CUT;
            }
            range
        };
        [1, 2, 4, PARTS_MAX].into_iter().min_by_key(|parts| listed(*parts)).unwrap_or(1)
    }

    /// The part `number` of `parts`.
    fn part(&self, parts: usize, number: usize) -> Part<'_> {
        let within = |item: &Dated| usize::from(item.1[31]) % parts == number;
        let picked = self.items.iter().zip(0..).filter(|(item, _)| within(item)).map(|(_, index)| index).collect();
        Part { items: &self.items, picked }
    }
}

/// Some items of a set, by their indices, ascending.
struct Part<'a> {
    items: &'a [Dated],
    picked: Vec<u32>,
}

impl Part<'_> {
    fn item(&self, index: u32) -> Option<Item> {
        let (time, id) = self.items.get(usize::try_from(index).ok()?)?;
        Some(Item::with_timestamp_and_id(*time, Id::from_byte_array(*id)))
    }
}

impl NegentropyStorageBase for Part<'_> {
    fn size(&self) -> Result<usize, negentropy::Error> {
        Ok(self.picked.len())
    }

    fn get_item(&self, i: usize) -> Result<Option<Item>, negentropy::Error> {
        Ok(self.picked.get(i).and_then(|index| self.item(*index)))
    }

    fn iterate(
        &self,
        begin: usize,
        end: usize,
        each: &mut dyn FnMut(Item, usize) -> Result<bool, negentropy::Error>,
    ) -> Result<(), negentropy::Error> {
        let picked = self.picked.get(begin..end).ok_or(negentropy::Error::BadRange)?;
        for (at, index) in (begin..).zip(picked) {
            let item = self.item(*index).ok_or(negentropy::Error::BadRange)?;
            if !each(item, at)? {
                break;
            }
        }
        Ok(())
    }

    fn find_lower_bound(&self, first: usize, last: usize, value: &Bound) -> usize {
        let within = self.picked.get(first..last).unwrap_or_default();
        first + within.partition_point(|index| self.item(*index).map(|i| i.cmp(&value.item)) == Some(Ordering::Less))
    }
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    version: u8,
    /// Into how many parts the asking side cut the sets.
    parts: u8,
    /// The number of a part, and what is said of it.
    #[serde(borrow)]
    messages: Vec<(u8, &'a [u8])>,
}

impl<'a> Wire<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ReconcileError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(ReconcileError::Format);
        }
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((wire, [])) => {
                let parts = usize::from(wire.parts);
                let numbers: BTreeSet<u8> = wire.messages.iter().map(|(number, _)| *number).collect();
                let once = numbers.len() == wire.messages.len() && numbers.iter().all(|number| *number < wire.parts);
                let good = wire.version == VERSION && parts.is_power_of_two() && parts <= PARTS_MAX && once;
                if good { Ok(wire) } else { Err(ReconcileError::Format) }
            }
            _ => Err(ReconcileError::Format),
        }
    }

    fn make(parts: u8, messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let messages = messages.iter().map(|(number, message)| (*number, message.as_slice())).collect();
        postcard::to_allocvec(&Wire { version: VERSION, parts, messages }).unwrap_or_default()
    }
}

/// Bytes that one part of a message may have.
fn share(parts: u8) -> u64 {
    (FILL / usize::from(parts.max(1))) as u64
}

/// Answers a question about a set. Keeps nothing between questions.
///
/// # Errors
/// If the question is none.
pub fn answer(set: &IdSet, question: &[u8]) -> Result<Vec<u8>, ReconcileError> {
    let wire = Wire::parse(question)?;
    let mut messages = Vec::with_capacity(wire.messages.len());
    for (number, message) in &wire.messages {
        let part = set.part(usize::from(wire.parts), usize::from(*number));
        messages.push((*number, Negentropy::owned(part, share(wire.parts))?.reconcile(message)?));
    }
    Ok(Wire::make(wire.parts, &messages))
}

/// What one side knows and the other does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Ids that only this side has.
    pub have: BTreeSet<[u8; 32]>,
    /// Ids that only the other side has.
    pub need: BTreeSet<[u8; 32]>,
}

/// What comes after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next question.
    Ask(Vec<u8>),
    /// The comparison is at its end.
    Done(Difference),
}

/// The side that asks.
pub struct Comparison<'a> {
    parts: u8,
    open: Vec<(u8, Negentropy<'a, Part<'a>>)>,
    found: Difference,
    rounds: u32,
}

impl<'a> Comparison<'a> {
    /// Begins to compare a set with another node's. The bytes are the first question.
    ///
    /// # Errors
    /// If `negentropy` cannot begin.
    pub fn new(set: &'a IdSet) -> Result<(Self, Vec<u8>), ReconcileError> {
        let count = set.parts();
        let parts = u8::try_from(count).map_err(|_| ReconcileError::Format)?;
        let mut open = Vec::with_capacity(count);
        let mut messages = Vec::with_capacity(count);
        for number in 0..parts {
            let mut side = Negentropy::owned(set.part(count, usize::from(number)), share(parts))?;
            messages.push((number, side.initiate()?));
            open.push((number, side));
        }
        let comparison = Self { parts, open, found: Difference::default(), rounds: 1 };
        Ok((comparison, Wire::make(parts, &messages)))
    }

    /// The answer to the last question came.
    ///
    /// # Errors
    /// If it is none, or the questions do not come to an end. The comparison is then void.
    pub fn handle(&mut self, answer: &[u8]) -> Result<Step, ReconcileError> {
        let wire = Wire::parse(answer)?;
        let mut messages = Vec::new();
        let mut open = Vec::new();
        for (number, mut side) in std::mem::take(&mut self.open) {
            let Some((_, message)) = wire.messages.iter().find(|(part, _)| *part == number) else { continue };
            let (mut have, mut need) = (Vec::new(), Vec::new());
            if let Some(next) = side.reconcile_with_ids(message, &mut have, &mut need)? {
                messages.push((number, next));
                open.push((number, side));
            }
            self.found.have.extend(have.iter().map(|id| **id));
            self.found.need.extend(need.iter().map(|id| **id));
        }
        self.open = open;
        let many = self.found.have.len() + self.found.need.len() >= DIFFERENCES_MAX;
        if messages.is_empty() || many {
            return Ok(Step::Done(std::mem::take(&mut self.found)));
        }
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(ReconcileError::Endless);
        }
        Ok(Step::Ask(Wire::make(self.parts, &messages)))
    }
}
