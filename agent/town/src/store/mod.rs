//! The entries on the disk (`docs/town.md`, Store): `town.redb`, copy on write and checksummed; a commit is all or nothing.

mod backend;
mod error;
mod mark;
mod memory;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use grange_core::Instant;
use grange_wire::TownId;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition};

pub use self::{
    backend::{Counted, Written},
    error::StoreError,
    mark::BootMark,
    memory::Memory,
};
use crate::{
    entry::{Author, Entry, EntryHash, LogId, Place},
    fork::ForkProof,
    log::Archive,
};

/// Bytes that redb keeps of the file in memory.
const CACHE: usize = 1 << 20;
/// Bytes of others' entries and proofs that wait in memory; then they are committed at once.
pub const BATCH_BYTES: usize = 256 << 10;
/// How long others' entries wait at most. A commit costs the flash some ten pages of 4 KiB however small it is: once an hour
/// keeps a node in a quiet town under 1 MiB a day.
pub const BATCH_AGE: Duration = Duration::from_secs(3600);

/// Author, life and number, big-endian: the order of keys is that of places.
type PlaceKey = [u8; 48];
/// Author and life, big-endian.
type LogKey = [u8; 40];

const ENTRIES: TableDefinition<'_, &PlaceKey, &[u8]> = TableDefinition::new("entries");
const FORKS: TableDefinition<'_, &LogKey, &[u8]> = TableDefinition::new("forks");
/// By hash: of one place there may be several.
const BRANCHES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("branches");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");

/// The version of the tables above.
const FORMAT: [u8; 1] = [1];

/// The store of one town's logs. One process has it open at a time.
///
/// Call [`Store::tick`] when [`Store::next_commit`] says, and [`Store::commit`] before the program ends or when something must
/// not be forgotten.
pub struct Store {
    database: Database,
    written: Written,
    waiting: BTreeMap<Place, Entry>,
    waiting_forks: BTreeMap<LogId, ForkProof>,
    waiting_branches: BTreeMap<EntryHash, Entry>,
    waiting_bytes: usize,
    /// When the oldest of what waits was first seen by `tick`.
    since: Option<Instant>,
}

impl Store {
    /// Opens the store, or makes it if there is no file. Reads the whole file and checks all its sums.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is damaged, of another town or of a newer program is left as it is.
    pub fn open(path: &Path, town: &TownId) -> Result<Self, StoreError> {
        match fs::metadata(path) {
            // Not a file that redb could have left: taking it for a new one would hide what is lost.
            Ok(metadata) if metadata.len() == 0 => return Err(StoreError::damaged(path, "it is empty")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path, town)?,
            Err(error) => return Err(StoreError::file(path, &error)),
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| StoreError::file(path, &e))?;
        let backend = redb::backends::FileBackend::new(file).map_err(|e| StoreError::opening(path, e))?;
        Self::with_backend(backend, path, town)
    }

    /// Opens a store on something else than a file; `path` is what it is called in errors.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn with_backend(backend: impl StorageBackend, path: &Path, town: &TownId) -> Result<Self, StoreError> {
        let written = Written::default();
        let database = Builder::new()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(Counted::new(backend, written.clone()))
            .map_err(|error| StoreError::opening(path, error))?;
        let store = Self {
            database,
            written,
            waiting: BTreeMap::new(),
            waiting_forks: BTreeMap::new(),
            waiting_branches: BTreeMap::new(),
            waiting_bytes: 0,
            since: None,
        };
        store.claim(path, town)?;
        Ok(store)
    }

    /// Makes the file under another name first: a file of this name is whole.
    fn create(path: &Path, town: &TownId) -> Result<(), StoreError> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let failed = |error: io::Error| StoreError::file(&draft, &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(&draft).map_err(failed)?;
        let backend = redb::backends::FileBackend::new(file).map_err(|e| StoreError::opening(&draft, e))?;
        drop(Self::with_backend(backend, &draft, town)?);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        synced(&draft).map_err(failed)?;
        fs::rename(&draft, path).and_then(|()| synced(folder)).map_err(failed)
    }

    /// Writes into a new database whose it is; checks that of an old one.
    fn claim(&self, path: &Path, town: &TownId) -> Result<(), StoreError> {
        let read = self.database.begin_read()?;
        match read.open_table(ABOUT) {
            Ok(about) => {
                match about.get("format")? {
                    Some(format) if format.value() == FORMAT => {}
                    Some(_) => return Err(StoreError::Newer(path.into())),
                    None => return Err(StoreError::damaged(path, "it does not say what it is")),
                }
                match about.get("town")? {
                    Some(id) if id.value() == town.0 => Ok(()),
                    _ => Err(StoreError::OtherTown(path.into())),
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {
                drop(read);
                let write = self.database.begin_write()?;
                {
                    let mut about = write.open_table(ABOUT)?;
                    about.insert("format", FORMAT.as_slice())?;
                    about.insert("town", town.0.as_slice())?;
                    write.open_table(ENTRIES)?;
                    write.open_table(FORKS)?;
                    write.open_table(BRANCHES)?;
                }
                Ok(write.commit()?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes written to the file since it was opened.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.bytes()
    }

    /// Bytes of entries and proofs that wait in memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting_bytes
    }

    /// Commits what has waited for [`BATCH_AGE`].
    ///
    /// # Errors
    /// If writing fails. What waits goes on waiting.
    pub fn tick(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.waiting_bytes == 0 {
            self.since = None;
            return Ok(());
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= BATCH_AGE { self.commit() } else { Ok(()) }
    }

    /// When `tick` has something to do; none before it was called since something waits.
    #[must_use]
    pub fn next_commit(&self) -> Option<Instant> {
        self.since.map(|since| since + BATCH_AGE)
    }

    /// Commits all that waits, now.
    ///
    /// # Errors
    /// If writing fails. What waits goes on waiting.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.waiting_bytes == 0 { Ok(()) } else { self.commit_with(&[]) }
    }

    fn commit_with(&mut self, own: &[Entry]) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut entries = write.open_table(ENTRIES)?;
            for entry in self.waiting.values().chain(own) {
                entries.insert(&place_key(entry.place()), entry.as_bytes())?;
            }
            let mut forks = write.open_table(FORKS)?;
            for (log, proof) in &self.waiting_forks {
                forks.insert(&log_key(*log), proof.to_bytes().as_slice())?;
            }
            let mut branches = write.open_table(BRANCHES)?;
            for (hash, entry) in &self.waiting_branches {
                branches.insert(&hash.0, entry.as_bytes())?;
            }
        }
        write.commit()?;
        self.waiting.clear();
        self.waiting_forks.clear();
        self.waiting_branches.clear();
        self.waiting_bytes = 0;
        self.since = None;
        Ok(())
    }

    fn full(&mut self, more: usize) -> Result<(), StoreError> {
        self.waiting_bytes += more;
        if self.waiting_bytes >= BATCH_BYTES { self.commit() } else { Ok(()) }
    }
}

impl Archive for Store {
    fn entry(&self, place: Place) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = self.waiting.get(&place) {
            return Ok(Some(entry.clone()));
        }
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let found = entries.get(&place_key(place))?;
        found.map(|bytes| stored(place, bytes.value())).transpose()
    }

    fn fork(&self, log: LogId) -> Result<Option<ForkProof>, StoreError> {
        if let Some(proof) = self.waiting_forks.get(&log) {
            return Ok(Some(proof.clone()));
        }
        let forks = self.database.begin_read()?.open_table(FORKS)?;
        let found = forks.get(&log_key(log))?;
        found.map(|bytes| stored_fork(bytes.value())).transpose()
    }

    fn each_entry(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let mut waiting = self.waiting.values().peekable();
        for pair in entries.iter()? {
            let (key, bytes) = pair?;
            let place = place_of(key.value());
            while let Some(entry) = waiting.next_if(|entry| entry.place() < place) {
                each(entry)?;
            }
            each(&stored(place, bytes.value())?)?;
        }
        waiting.try_for_each(each)
    }

    fn each_fork(&self, each: &mut dyn FnMut(&ForkProof) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let forks = self.database.begin_read()?.open_table(FORKS)?;
        let mut waiting = self.waiting_forks.iter().peekable();
        for pair in forks.iter()? {
            let (key, bytes) = pair?;
            while let Some((_, proof)) = waiting.next_if(|(log, _)| log_key(**log) < *key.value()) {
                each(proof)?;
            }
            // A proof that waits takes the place of the one that is stored.
            match waiting.next_if(|(log, _)| log_key(**log) == *key.value()) {
                Some((_, proof)) => each(proof)?,
                None => each(&stored_fork(bytes.value())?)?,
            }
        }
        waiting.try_for_each(|(_, proof)| each(proof))
    }

    fn branch(&self, hash: EntryHash) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = self.waiting_branches.get(&hash) {
            return Ok(Some(entry.clone()));
        }
        let branches = self.database.begin_read()?.open_table(BRANCHES)?;
        let found = branches.get(&hash.0)?;
        found.map(|bytes| stored_branch(hash, bytes.value())).transpose()
    }

    fn each_branch(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let branches = self.database.begin_read()?.open_table(BRANCHES)?;
        let mut waiting = self.waiting_branches.iter().peekable();
        for pair in branches.iter()? {
            let (key, bytes) = pair?;
            let hash = EntryHash(*key.value());
            while let Some((_, entry)) = waiting.next_if(|(waiting, _)| **waiting < hash) {
                each(entry)?;
            }
            each(&stored_branch(hash, bytes.value())?)?;
        }
        waiting.try_for_each(|(_, entry)| each(entry))
    }

    fn keep_branch(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.waiting_branches.insert(entry.hash(), entry.clone());
        self.full(entry.as_bytes().len())
    }

    fn keep(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.waiting.insert(entry.place(), entry.clone());
        self.full(entry.as_bytes().len())
    }

    fn keep_fork(&mut self, proof: &ForkProof) -> Result<(), StoreError> {
        self.waiting_forks.insert(proof.place().log(), proof.clone());
        self.full(proof.entries().iter().map(|entry| entry.as_bytes().len()).sum())
    }

    fn keep_durably(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.commit_with(entries)
    }
}

fn stored(place: Place, bytes: &[u8]) -> Result<Entry, StoreError> {
    match Entry::read_bounded(bytes) {
        Ok(entry) if entry.place() == place => Ok(entry),
        _ => Err(StoreError::Damaged(format!("what is at {place} is not that entry"))),
    }
}

fn stored_branch(hash: EntryHash, bytes: &[u8]) -> Result<Entry, StoreError> {
    match Entry::read_bounded(bytes) {
        Ok(entry) if entry.hash() == hash => Ok(entry),
        _ => Err(StoreError::Damaged(format!("what is at {hash} is not that entry"))),
    }
}

fn stored_fork(bytes: &[u8]) -> Result<ForkProof, StoreError> {
    ForkProof::read(bytes).map_err(|error| StoreError::Damaged(format!("the proof of a fork: {error}")))
}

fn place_key(place: Place) -> PlaceKey {
    let mut key = [0; 48];
    key[..40].copy_from_slice(&log_key(place.log()));
    key[40..].copy_from_slice(&place.seq.to_be_bytes());
    key
}

fn log_key(log: LogId) -> LogKey {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&log.author.0);
    key[32..].copy_from_slice(&log.life.to_be_bytes());
    key
}

fn place_of(key: &PlaceKey) -> Place {
    let mut author = [0; 32];
    author.copy_from_slice(&key[..32]);
    let number = |from: usize| key[from..from + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Place { author: Author(author), life: number(32), seq: number(40) }
}
