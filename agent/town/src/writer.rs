//! Appends what this node, or a steward at it, says. No number is ever used twice (`docs/town.md`, Entries).

use std::{collections::BTreeSet, io};

use crate::{
    entry::{Author, ENTRY_MAX, Entry, EntryError, EntryRef, LogId, Place, Signer},
    log::{Archive, LIVES_MAX, Logs},
    store::{BootMark, StoreError},
};

/// The fact that begins a new life, in whatever encoding facts have.
pub trait Beginning {
    /// The payload that says: this life goes on from there.
    fn encode(&self, parent: &EntryRef) -> Vec<u8>;
    /// Where a payload says that its life goes on from; none if it is another fact.
    fn parent(&self, payload: &[u8]) -> Option<EntryRef>;
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The payload does not fit into an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The author wrote two histories: nothing more of this key counts.
    #[error("this key's log was forked at {0}: nothing that it writes counts any more; a new key is needed")]
    Forked(Place),
    /// There is no life left.
    #[error("this key has begun {LIVES_MAX} lives, and may begin no more; a new key is needed")]
    Lives,
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mark cannot be written.
    #[error("the mark of this boot cannot be written: {0}")]
    Mark(io::Error),
    /// Somebody else's key.
    #[error("the key is not that of this log's author")]
    Key,
}

/// Writes the logs of one author.
///
/// After a start the writer may not be sure how far it had counted: the store could come from a backup. It is sure if the mark
/// of this boot names an entry that is there, or from [`Writer::confirm`] on. [`Writer::append`] of one that is not sure begins a
/// new life, of which there are few; so what can wait waits for [`Writer::is_sure`].
pub struct Writer {
    author: Author,
    mark: Option<BootMark>,
    /// The last entry of the life that goes on, if the writer is sure of it.
    end: Option<EntryRef>,
}

impl Writer {
    /// The writer of an author's logs. Without a mark it is never sure by itself.
    ///
    /// # Errors
    /// If the store or the mark fails.
    pub fn open<A: Archive>(
        author: Author,
        logs: &Logs<A>,
        facts: &dyn Beginning,
        mark: Option<BootMark>,
    ) -> Result<Self, WriteError> {
        let mut writer = Self { author, mark, end: None };
        let Some(marked) = writer.mark.as_ref().and_then(BootMark::read) else { return Ok(writer) };
        let there = marked.place.author == author && logs.entry(marked.place)?.is_some_and(|e| e.to_ref() == marked);
        // A life that another goes on from has ended, whatever the mark says.
        if there && !writer.parents(logs, facts)?.contains(&marked.place.life) {
            // A kill between the commit and the mark leaves the store one step ahead of it.
            writer.go_on(logs, marked.place.log())?;
        }
        Ok(writer)
    }

    /// Whose logs.
    #[must_use]
    pub fn author(&self) -> Author {
        self.author
    }

    /// Whether the next entry goes on in the last life.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.end.is_some()
    }

    /// The neighbours have said how far they know this author, and all of it is here
    /// ([`crate::sync::LogSync::has_word`]): the writer is sure from now on.
    ///
    /// # Errors
    /// If the store or the mark fails.
    pub fn confirm<A: Archive>(&mut self, logs: &Logs<A>, facts: &dyn Beginning) -> Result<(), WriteError> {
        if self.end.is_some() {
            return Ok(());
        }
        match self.last_life(logs, facts)? {
            Some(life) => self.go_on(logs, LogId { author: self.author, life }),
            None => Ok(()),
        }
    }

    /// Writes an entry: it is safe on the disk when this returns, and may then be shown to others.
    ///
    /// Two entries come back if a new life had to begin. `time`: second of mesh time, 0 if unknown. `fresh`: a random
    /// number, for the case that a life begins.
    ///
    /// # Errors
    /// [`WriteError`]. If it is that of the mark, the entries are in the log all the same.
    pub fn append<A: Archive>(
        &mut self,
        logs: &mut Logs<A>,
        signer: &dyn Signer,
        facts: &dyn Beginning,
        time: u64,
        payload: &[u8],
        fresh: u64,
    ) -> Result<Vec<Entry>, WriteError> {
        if signer.author() != self.author {
            return Err(WriteError::Key);
        }
        self.check(logs)?;
        let town = logs.town();
        let mut entries = Vec::with_capacity(2);
        let last = match self.end {
            // What is there and was not written here comes from a twin of this machine.
            Some(end) if is_end(logs, end) && logs.fits(end.place.log(), ENTRY_MAX) => end,
            _ => {
                let parent = match (self.end, self.last_life(logs, facts)?) {
                    (Some(end), _) => Some(end),
                    (None, Some(life)) => end_of(logs, LogId { author: self.author, life }),
                    (None, None) => None,
                };
                let life = self.new_life(logs, fresh)?;
                match parent {
                    Some(parent) => {
                        let payload = facts.encode(&parent);
                        let begin = Entry::sign(signer, &town, life, 1, Default::default(), time, &payload)?;
                        entries.push(begin.clone());
                        begin.to_ref()
                    }
                    None => EntryRef { place: LogId { author: self.author, life }.at(0), hash: Default::default() },
                }
            }
        };
        let Place { life, seq, .. } = last.place;
        let entry = Entry::sign(signer, &town, life, seq + 1, last.hash, time, payload)?;
        entries.push(entry.clone());
        logs.append(&entries)?;
        self.end = Some(entry.to_ref());
        self.remember()?;
        Ok(entries)
    }

    /// Sure of a log from now on.
    fn go_on<A: Archive>(&mut self, logs: &Logs<A>, log: LogId) -> Result<(), WriteError> {
        self.end = end_of(logs, log);
        self.remember()
    }

    fn remember(&self) -> Result<(), WriteError> {
        match (&self.mark, self.end) {
            (Some(mark), Some(end)) => mark.write(end).map_err(WriteError::Mark),
            _ => Ok(()),
        }
    }

    /// Whether what this key writes still counts.
    fn check<A: Archive>(&self, logs: &Logs<A>) -> Result<(), WriteError> {
        if logs.overrun(self.author) {
            return Err(WriteError::Lives);
        }
        match logs.lives(self.author).find(|(_, head)| head.fork != 0) {
            Some((life, head)) => Err(WriteError::Forked(LogId { author: self.author, life }.at(head.fork))),
            None => Ok(()),
        }
    }

    /// The life that no other goes on from; of several the one with the lowest number.
    fn last_life<A: Archive>(&self, logs: &Logs<A>, facts: &dyn Beginning) -> Result<Option<u64>, WriteError> {
        let parents = self.parents(logs, facts)?;
        let mut lives = logs.lives(self.author).filter(|(_, head)| head.seq > 0).map(|(life, _)| life);
        Ok(lives.find(|life| !parents.contains(life)))
    }

    /// The lives that others go on from.
    fn parents<A: Archive>(&self, logs: &Logs<A>, facts: &dyn Beginning) -> Result<BTreeSet<u64>, WriteError> {
        let mut parents = BTreeSet::new();
        for (life, _) in logs.lives(self.author) {
            let first = logs.entry(LogId { author: self.author, life }.at(1))?;
            parents.extend(first.and_then(|entry| facts.parent(entry.payload())).map(|parent| parent.place.life));
        }
        Ok(parents)
    }

    /// A number that no life of this author has.
    fn new_life<A: Archive>(&self, logs: &Logs<A>, fresh: u64) -> Result<u64, WriteError> {
        let taken: BTreeSet<u64> = logs.lives(self.author).map(|(life, _)| life).collect();
        if taken.len() >= LIVES_MAX {
            return Err(WriteError::Lives);
        }
        let mut life = fresh;
        while taken.contains(&life) {
            life = life.wrapping_add(1);
        }
        Ok(life)
    }
}

/// The last entry of a log.
fn end_of<A: Archive>(logs: &Logs<A>, log: LogId) -> Option<EntryRef> {
    logs.head(log).filter(|head| head.seq > 0).map(|head| EntryRef { place: log.at(head.seq), hash: head.hash })
}

fn is_end<A: Archive>(logs: &Logs<A>, end: EntryRef) -> bool {
    end_of(logs, end.place.log()) == Some(end)
}
