//! The logs that this node knows: how far, by which hash, and where their authors wrote two histories.
//!
//! Bodies stay in the [`Archive`]; in memory is one [`Head`] a log.

use std::collections::BTreeMap;

use grange_wire::TownId;

use crate::{
    entry::{Author, Entry, EntryError, EntryHash, EntryRef, LogId, Place},
    fork::{ForkError, ForkProof},
    store::StoreError,
    vector::{BUCKETS, Digest, Known, bucket_of},
};

/// Authors whose logs a node keeps, at most.
pub const AUTHORS_MAX: usize = 4096;
/// Lives that an author may begin. Who begins another one wrote two histories, as by a fork.
pub const LIVES_MAX: usize = 16;
/// Histories of forked logs that are kept besides the logs, at most.
pub const PINS_MAX: usize = 256;
/// Bytes of entries (bodies and signatures) that one life has at most; then the author begins the next.
pub const LIFE_BYTES_MAX: u64 = 2 << 20;

/// Where entries and proofs are kept.
///
/// What `keep` was given can be read at once; it may be lost at a power cut, `keep_durably`'s may not.
pub trait Archive {
    /// The entry at a place.
    ///
    /// # Errors
    /// If reading fails.
    fn entry(&self, place: Place) -> Result<Option<Entry>, StoreError>;

    /// The proof that this log was forked.
    ///
    /// # Errors
    /// If reading fails.
    fn fork(&self, log: LogId) -> Result<Option<ForkProof>, StoreError>;

    /// Calls `each` with all entries: logs in the order of their ids, entries in that of their numbers.
    ///
    /// # Errors
    /// If reading fails, or what `each` returns.
    fn each_entry(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// Calls `each` with all proofs of forks, in the order of their logs' ids.
    ///
    /// # Errors
    /// If reading fails, or what `each` returns.
    fn each_fork(&self, each: &mut dyn FnMut(&ForkProof) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// The entry with this hash of a history that is kept besides the log.
    ///
    /// # Errors
    /// If reading fails.
    fn branch(&self, hash: EntryHash) -> Result<Option<Entry>, StoreError>;

    /// Calls `each` with all entries of such histories, in the order of their hashes.
    ///
    /// # Errors
    /// If reading fails, or what `each` returns.
    fn each_branch(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// Keeps an entry of a history besides the log.
    ///
    /// # Errors
    /// If writing fails.
    fn keep_branch(&mut self, entry: &Entry) -> Result<(), StoreError>;

    /// Keeps an entry that others have, too.
    ///
    /// # Errors
    /// If writing fails.
    fn keep(&mut self, entry: &Entry) -> Result<(), StoreError>;

    /// Keeps a proof, in place of the one that was there for its log.
    ///
    /// # Errors
    /// If writing fails.
    fn keep_fork(&mut self, proof: &ForkProof) -> Result<(), StoreError>;

    /// Keeps entries that nobody else has, all or none of them: returns when they are safe.
    ///
    /// # Errors
    /// If writing fails. Then none of them may be shown to anybody.
    fn keep_durably(&mut self, entries: &[Entry]) -> Result<(), StoreError>;
}

/// How far a log is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The number of its last entry that counts; 0: none is known.
    pub seq: u64,
    /// The hash of that entry.
    pub hash: EntryHash,
    /// The number at which there are two entries; 0: no fork is known. Always greater than `seq`.
    pub fork: u64,
    /// Bytes of the entries up to `seq`.
    bytes: u64,
}

impl Head {
    /// Whether an entry after the last one could count.
    fn goes_on(&self) -> bool {
        self.fork == 0 || self.seq + 1 < self.fork
    }
}

/// What became of an entry that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the next of its log and is kept.
    Added(Entry),
    /// It is known.
    Known,
    /// The entries between are missing: the log is known up to `have`.
    Gap {
        /// The last number that is known.
        have: u64,
    },
    /// It proves that its author wrote two histories. The log now ends before the fork.
    Fork(ForkProof),
    /// It is behind a fork, in a history that is pinned, and is kept.
    Pinned(Entry),
    /// Its author wrote two histories, and this is in none of them as far as they count.
    Ended,
}

/// Why an entry is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The entry itself is wrong.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The proof itself is wrong.
    #[error(transparent)]
    Fork(#[from] ForkError),
    /// Nobody that this town knows wrote it.
    #[error("its author is not known here")]
    Stranger,
    /// There are [`AUTHORS_MAX`] authors already.
    #[error("there are {AUTHORS_MAX} authors already")]
    Authors,
    /// The life is longer than [`LIFE_BYTES_MAX`].
    #[error("the log is longer than {LIFE_BYTES_MAX} bytes")]
    LifeFull,
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The logs of one author.
#[derive(Clone, Debug, Default)]
struct Lives {
    /// At most one more than [`LIVES_MAX`].
    heads: BTreeMap<u64, Head>,
}

impl Lives {
    fn overrun(&self) -> bool {
        self.heads.len() > LIVES_MAX
    }
}

/// All logs of a town, as this node knows them.
pub struct Logs<A> {
    town: TownId,
    archive: A,
    authors: BTreeMap<Author, Lives>,
    /// The digest of each bucket of logs; none after a change.
    digests: Vec<Option<Digest>>,
    /// Entries of pinned histories that are not here, and how many bytes of that history are.
    lacking: BTreeMap<EntryRef, u64>,
}

impl<A: Archive> Logs<A> {
    /// The logs that an archive holds. Reads all of it, and checks that each log is without a gap.
    ///
    /// # Errors
    /// If reading fails, or [`StoreError::Damaged`] if what is there does not fit together.
    pub fn open(archive: A, town: TownId) -> Result<Self, StoreError> {
        let mut authors = BTreeMap::<Author, Lives>::new();
        archive.each_fork(&mut |proof| {
            let place = proof.place();
            authors.entry(place.author).or_default().heads.entry(place.life).or_default().fork = place.seq;
            Ok(())
        })?;
        archive.each_entry(&mut |entry| {
            let place = entry.place();
            let head = authors.entry(place.author).or_default().heads.entry(place.life).or_default();
            if head.fork != 0 && place.seq >= head.fork {
                return Ok(());
            }
            if place.seq != head.seq + 1 || entry.previous() != head.hash {
                return Err(StoreError::Damaged(format!("entry {place} does not follow the one before it")));
            }
            extend(head, entry);
            Ok(())
        })?;
        Ok(Self { town, archive, authors, digests: vec![None; BUCKETS], lacking: BTreeMap::new() })
    }

    /// The town whose logs these are.
    #[must_use]
    pub fn town(&self) -> TownId {
        self.town
    }

    /// Where the entries are kept.
    #[must_use]
    pub fn archive(&self) -> &A {
        &self.archive
    }

    /// Where the entries are kept, for committing.
    pub fn archive_mut(&mut self) -> &mut A {
        &mut self.archive
    }

    /// How far a log is known.
    #[must_use]
    pub fn head(&self, log: LogId) -> Option<Head> {
        self.authors.get(&log.author)?.heads.get(&log.life).copied()
    }

    /// All logs of an author, by life.
    pub fn lives(&self, author: Author) -> impl Iterator<Item = (u64, Head)> + '_ {
        self.authors.get(&author).into_iter().flat_map(|lives| lives.heads.iter().map(|(&life, &head)| (life, head)))
    }

    /// Whether this author began more lives than [`LIVES_MAX`]. Then nothing of that author counts: nobody can say which of
    /// them came first.
    #[must_use]
    pub fn overrun(&self, author: Author) -> bool {
        self.authors.get(&author).is_some_and(Lives::overrun)
    }

    /// Calls `each` with all entries up to the forks of their logs: logs in the order of their ids, entries in that of
    /// their numbers.
    ///
    /// # Errors
    /// If reading fails.
    pub fn each(&self, each: &mut dyn FnMut(&Entry)) -> Result<(), StoreError> {
        self.archive.each_entry(&mut |entry| {
            if self.head(entry.place().log()).is_some_and(|head| entry.place().seq <= head.seq) {
                each(entry);
            }
            Ok(())
        })
    }

    /// Calls `each` with all entries that are here, also with those behind forks, of whatever history; then with
    /// the proofs. For the fold, which knows what of that counts.
    ///
    /// # Errors
    /// If reading fails.
    pub fn each_known(
        &self,
        each: &mut dyn FnMut(&Entry),
        each_fork: &mut dyn FnMut(&ForkProof),
    ) -> Result<(), StoreError> {
        let mut each = |entry: &Entry| {
            each(entry);
            Ok(())
        };
        self.archive.each_entry(&mut each)?;
        self.archive.each_branch(&mut each)?;
        self.archive.each_fork(&mut |proof| {
            each_fork(proof);
            Ok(())
        })
    }

    /// Says which histories of forked logs are to be kept, by the last entry of each: what stewards say is the true one. Those that
    /// were said before and are not any more stay, but are not asked for. Only the first [`PINS_MAX`] are looked at.
    ///
    /// # Errors
    /// If reading fails.
    pub fn pin(&mut self, pins: &[EntryRef]) -> Result<(), StoreError> {
        self.lacking.clear();
        for pin in pins.iter().take(PINS_MAX) {
            self.follow(*pin, 0)?;
        }
        Ok(())
    }

    /// Entries of pinned histories that are not here: the latest of each.
    pub fn lacking(&self) -> impl Iterator<Item = EntryRef> + '_ {
        self.lacking.keys().copied()
    }

    /// An entry of whatever history.
    ///
    /// # Errors
    /// If reading fails.
    pub fn find(&self, entry: EntryRef) -> Result<Option<Entry>, StoreError> {
        match self.archive.entry(entry.place)? {
            Some(found) if found.hash() == entry.hash => Ok(Some(found)),
            _ => self.archive.branch(entry.hash),
        }
    }

    /// Goes down a history from an entry as far as it is here, and notes what is not. `bytes`: of what is above.
    fn follow(&mut self, mut at: EntryRef, mut bytes: u64) -> Result<(), StoreError> {
        loop {
            let head = self.head(at.place.log()).unwrap_or_default();
            let Some(entry) = self.find(at)? else { break };
            bytes += entry.as_bytes().len() as u64;
            // At the common beginning of the histories, or at the first entry.
            let common = at.place.seq <= head.seq && self.archive.entry(at.place)?.as_ref() == Some(&entry);
            if common || at.place.seq <= 1 || bytes > LIFE_BYTES_MAX {
                return Ok(());
            }
            at = EntryRef { place: at.place.log().at(at.place.seq - 1), hash: entry.previous() };
        }
        if at.place.seq > 0 {
            self.lacking.insert(at, bytes);
        }
        Ok(())
    }

    /// An entry that counts: one up to the fork of its log.
    ///
    /// # Errors
    /// If reading fails.
    pub fn entry(&self, place: Place) -> Result<Option<Entry>, StoreError> {
        match self.head(place.log()) {
            Some(head) if place.seq <= head.seq => self.archive.entry(place),
            _ => Ok(None),
        }
    }

    /// Takes an entry that somebody sent. `known` says whose entries this node keeps.
    ///
    /// # Errors
    /// Why it is not taken. The signature is checked only if all else says that the entry is news.
    pub fn accept(&mut self, bytes: &[u8], known: &dyn Fn(&Author) -> bool) -> Result<Accepted, Refused> {
        let entry = Entry::read_bounded(bytes)?;
        let place = entry.place();
        if !known(&place.author) {
            return Err(Refused::Stranger);
        }
        let lives = self.authors.get(&place.author);
        if lives.is_none() && self.authors.len() >= AUTHORS_MAX {
            return Err(Refused::Authors);
        }
        if lives.is_some_and(Lives::overrun) {
            return Ok(Accepted::Ended);
        }
        let head = self.head(place.log()).unwrap_or_default();
        if head.fork != 0 && place.seq >= head.fork {
            let Some(above) = self.lacking.get(&entry.to_ref()).copied() else { return Ok(Accepted::Ended) };
            entry.verify(&self.town)?;
            self.archive.keep_branch(&entry)?;
            self.lacking.remove(&entry.to_ref());
            self.follow(entry.to_ref(), above)?;
            return Ok(Accepted::Pinned(entry));
        }
        if place.seq > head.seq + 1 {
            return Ok(Accepted::Gap { have: head.seq });
        }
        if place.seq == head.seq && entry.hash() == head.hash {
            return Ok(Accepted::Known);
        }
        let next = place.seq == head.seq + 1;
        if next && entry.previous() == head.hash {
            if head.bytes + entry.as_bytes().len() as u64 > LIFE_BYTES_MAX {
                return Err(Refused::LifeFull);
            }
            entry.verify(&self.town)?;
            self.archive.keep(&entry)?;
            self.add(&entry);
            return Ok(Accepted::Added(entry));
        }
        let ours = self.archive.entry(place.log().at(place.seq.min(head.seq)))?;
        let Some(ours) = ours else {
            return Err(StoreError::Damaged(format!("entry {place} is not where it was")).into());
        };
        if ours == entry {
            return Ok(Accepted::Known);
        }
        entry.verify(&self.town)?;
        let proof = ForkProof::new(&ours, &entry).ok_or(ForkError::NoFork)?;
        self.cut(&proof)?;
        Ok(Accepted::Fork(proof))
    }

    /// Takes a proof of a fork that somebody sent; whether it is news: the first of its log, or of an earlier place.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn accept_fork(&mut self, bytes: &[u8], known: &dyn Fn(&Author) -> bool) -> Result<Option<ForkProof>, Refused> {
        let proof = ForkProof::read(bytes)?;
        let place = proof.place();
        if !known(&place.author) {
            return Err(Refused::Stranger);
        }
        if self.overrun(place.author) {
            return Ok(None);
        }
        match self.head(place.log()) {
            Some(head) if head.fork != 0 && head.fork <= place.seq => return Ok(None),
            None if !self.authors.contains_key(&place.author) && self.authors.len() >= AUTHORS_MAX => {
                return Err(Refused::Authors);
            }
            _ => {}
        }
        for entry in proof.entries() {
            entry.verify(&self.town)?;
        }
        self.cut(&proof)?;
        Ok(Some(proof))
    }

    /// Appends entries of this node's own, each the next of its log, safe on the disk when this returns.
    ///
    /// # Errors
    /// If writing fails; then nothing has changed here.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.archive.keep_durably(entries)?;
        entries.iter().for_each(|entry| self.add(entry));
        Ok(())
    }

    /// Whether `bytes` more fit into a log.
    pub(crate) fn fits(&self, log: LogId, bytes: usize) -> bool {
        self.head(log).unwrap_or_default().bytes + bytes as u64 <= LIFE_BYTES_MAX
    }

    fn add(&mut self, entry: &Entry) {
        let place = entry.place();
        extend(self.authors.entry(place.author).or_default().heads.entry(place.life).or_default(), entry);
        self.lacking.remove(&entry.to_ref());
        self.changed(place.author);
    }

    /// Ends a log before the place of a proof.
    fn cut(&mut self, proof: &ForkProof) -> Result<(), StoreError> {
        let place = proof.place();
        let log = place.log();
        let mut head = self.head(log).unwrap_or_default();
        // Bytes of what is cut off are not counted back: nothing is appended behind a fork.
        if head.seq >= place.seq {
            head.seq = place.seq - 1;
            head.hash = match head.seq {
                0 => EntryHash::NONE,
                seq => match self.archive.entry(log.at(seq))? {
                    Some(entry) => entry.hash(),
                    None => return Err(StoreError::Damaged(format!("entry {} is not where it was", log.at(seq)))),
                },
            };
        }
        head.fork = place.seq;
        self.archive.keep_fork(proof)?;
        self.authors.entry(place.author).or_default().heads.insert(place.life, head);
        self.changed(place.author);
        Ok(())
    }

    fn changed(&mut self, author: Author) {
        self.digests[bucket_of(author)] = None;
    }

    /// What this node tells others of the logs from `from` on, in the order of their ids.
    pub fn known_from(&self, from: LogId) -> impl Iterator<Item = Known> + '_ {
        self.authors.range(from.author..).flat_map(move |(&author, lives)| {
            let first = if author == from.author { from.life } else { 0 };
            lives.heads.range(first..).map(move |(&life, head)| Known::new(LogId { author, life }, head))
        })
    }

    /// The digest of each bucket of logs.
    pub fn digests(&mut self) -> Vec<Digest> {
        (0..BUCKETS).map(|bucket| self.digest_of(bucket)).collect()
    }

    /// The digest of all logs. Nodes with the same have the same entries.
    pub fn digest(&mut self) -> Digest {
        Digest::of_all(&self.digests())
    }

    fn digest_of(&mut self, bucket: usize) -> Digest {
        if let Some(digest) = self.digests[bucket] {
            return digest;
        }
        let mut hasher = Digest::hasher();
        for (&author, lives) in self.authors.range(crate::vector::first_of(bucket)..) {
            if bucket_of(author) != bucket {
                break;
            }
            if lives.overrun() {
                hasher.overrun(author);
            } else {
                lives.heads.iter().for_each(|(&life, head)| hasher.log(&Known::new(LogId { author, life }, head)));
            }
        }
        let digest = hasher.finish();
        self.digests[bucket] = Some(digest);
        digest
    }

    /// What this node misses of a log of which somebody said how far he knows it.
    pub(crate) fn missing(&self, theirs: &Known) -> Missing {
        let lives = match self.authors.get(&theirs.log.author) {
            Some(lives) if lives.overrun() => return Missing::default(),
            Some(lives) => lives,
            None => &Lives::default(),
        };
        let ours = lives.heads.get(&theirs.log.life).copied().unwrap_or_default();
        let fork = theirs.fork != 0 && (ours.fork == 0 || theirs.fork < ours.fork);
        let same = theirs.seq == ours.seq && theirs.seq != 0 && theirs.hash != Known::short(ours.hash);
        let after = match () {
            // There is another history that ends at the same number: to be asked for from before that.
            () if same => Some(ours.seq - 1),
            () if theirs.seq > ours.seq && ours.goes_on() => Some(ours.seq),
            () => None,
        };
        Missing { after, fork }
    }

    /// Whether somebody who knows this much of a log would learn from this node.
    pub(crate) fn more_than(&self, theirs: &Known) -> bool {
        let Some(ours) = self.head(theirs.log) else { return false };
        let fork = ours.fork != 0 && (theirs.fork == 0 || ours.fork < theirs.fork);
        let same = theirs.seq == ours.seq && theirs.hash != Known::short(ours.hash);
        fork || same || ours.seq > theirs.seq
    }

    /// How many logs there are, of how many authors.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.authors.values().map(|lives| lives.heads.len()).sum(), self.authors.len())
    }
}

/// What a node lacks of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Entries, from the one after this number.
    pub(crate) after: Option<u64>,
    /// The proof of a fork.
    pub(crate) fork: bool,
}

fn extend(head: &mut Head, entry: &Entry) {
    head.seq = entry.place().seq;
    head.hash = entry.hash();
    head.bytes += entry.as_bytes().len() as u64;
}
