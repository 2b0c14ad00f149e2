//! The store: what a power cut, a damaged file and a quiet day do to it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Facts, TOWN, author, chain, identity};
use grange_core::Instant;
use grange_town::{
    log::{Accepted, Archive as _, Logs},
    store::{BATCH_AGE, BATCH_BYTES, Store, StoreError},
    writer::Writer,
};
use grange_wire::TownId;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use redb::StorageBackend;

#[test]
fn what_waits_can_be_read_and_is_there_after_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("town.redb");
    let entries = chain(&identity(1), 3, 20, 100);
    let mut logs = Logs::open(Store::open(&path, &TOWN).unwrap(), TOWN).unwrap();
    for entry in &entries[..10] {
        assert_eq!(logs.accept(entry.as_bytes(), &|_| true).unwrap(), Accepted::Added(entry.clone()));
    }
    assert!(logs.archive().waiting() > 0);
    logs.archive_mut().commit().unwrap();
    assert_eq!(logs.archive().waiting(), 0);
    for entry in &entries[10..] {
        logs.accept(entry.as_bytes(), &|_| true).unwrap();
    }
    let mut read = Vec::new();
    logs.each(&mut |entry| read.push(entry.clone())).unwrap();
    assert_eq!(read, entries);
    assert_eq!(logs.entry(entries[14].place()).unwrap().as_ref(), Some(&entries[14]));
    // What was not committed is gone with the process, as at a kill; nothing else is.
    drop(logs);
    let logs = Logs::open(Store::open(&path, &TOWN).unwrap(), TOWN).unwrap();
    let head = logs.head(entries[0].place().log()).unwrap();
    assert_eq!((head.seq, head.hash), (10, entries[9].hash()));
}

#[test]
fn a_batch_is_committed_by_its_size_and_by_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("town.redb"), &TOWN).unwrap();
    let entries = chain(&identity(1), 3, 30, 16 << 10);
    let mut most = 0;
    for entry in &entries {
        store.keep(entry).unwrap();
        most = most.max(store.waiting());
    }
    assert!(most < BATCH_BYTES && store.waiting() < most);
    let start = Instant::from_micros(5);
    store.tick(start).unwrap();
    assert_eq!(store.next_commit(), Some(start + BATCH_AGE));
    store.tick(start + (BATCH_AGE - Duration::from_secs(1))).unwrap();
    assert!(store.waiting() > 0);
    store.tick(start + BATCH_AGE).unwrap();
    assert_eq!((store.waiting(), store.next_commit()), (0, None));
}

#[test]
fn a_store_is_for_one_town_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("town.redb");
    let store = Store::open(&path, &TOWN).unwrap();
    assert!(matches!(Store::open(&path, &TOWN), Err(StoreError::InUse(_))));
    drop(store);
    assert!(matches!(Store::open(&path, &TownId([8; 16])), Err(StoreError::OtherTown(_))));
    assert!(Store::open(&path, &TOWN).is_ok());
}

/// A whole file, a cut one, an empty one, one of something else: opened, or refused with a sentence, and never changed when refused.
#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("town.redb");
    let mut logs = Logs::open(Store::open(&path, &TOWN).unwrap(), TOWN).unwrap();
    let entries = chain(&identity(1), 3, 300, 200);
    for entry in &entries {
        logs.accept(entry.as_bytes(), &|_| true).unwrap();
    }
    logs.archive_mut().commit().unwrap();
    drop(logs);
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let opened = Store::open(&path, &TOWN).and_then(|store| Logs::open(store, TOWN));
        match opened {
            Err(error @ StoreError::Damaged(_)) => {
                assert!(error.to_string().contains("Move the file away"), "{error}");
                true
            }
            Err(other) => panic!("{other}"),
            // Then what was changed is of no use to anybody: all entries are there.
            Ok(logs) => {
                assert_eq!(logs.head(entries[0].place().log()).unwrap().seq, 300);
                false
            }
        }
    };
    assert!(!refused(&whole));
    assert!(refused(b""));
    assert!(fs::read(&path).unwrap().is_empty());
    assert!(refused(b"<html>not a database</html>"));
    for length in [1, 100, 4096, whole.len() / 2, whole.len() - 4096] {
        assert!(refused(&whole[..length]), "cut to {length}");
    }
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut found = 0;
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let at = random.next_u32() as usize % bytes.len();
        bytes[at] ^= 1 << (random.next_u32() % 8);
        found += usize::from(refused(&bytes));
    }
    println!("{found} of 200 changed bits found, the others were in free pages; {} bytes", whole.len());
    assert!(found > 0);
}

/// Memory that forgets at a power cut what was written since it was last told to keep it; of that, parts may survive.
#[derive(Clone, Default)]
struct Flash(Arc<Mutex<Image>>);

/// Writes: where, and what.
type Writes = Vec<(usize, Vec<u8>)>;

#[derive(Default)]
struct Image {
    now: Vec<u8>,
    kept: Vec<u8>,
    since: Writes,
    /// In how many syncs the power is cut.
    syncs_left: Option<u32>,
    /// What was kept and what was written since, at the cut.
    dead: Option<(Vec<u8>, Writes)>,
}

impl Flash {
    /// The power will be cut at the sync after so many, before it has done anything.
    fn cut_after(&self, syncs: u32) {
        self.0.lock().unwrap().syncs_left = Some(syncs);
    }

    fn is_dead(&self) -> bool {
        self.0.lock().unwrap().dead.is_some()
    }

    /// What a power cut leaves: of the writes since the last sync any, whole or in part.
    fn left(&self, random: &mut ChaCha8Rng) -> Self {
        let mut image = self.0.lock().unwrap();
        let (kept, since) = image.dead.take().unwrap_or_else(|| (image.kept.clone(), image.since.clone()));
        let mut left = kept;
        for (at, bytes) in &since {
            for (sector, bytes) in bytes.chunks(512).enumerate() {
                if random.next_u32().is_multiple_of(2) {
                    let at = at + sector * 512;
                    left.resize(left.len().max(at + bytes.len()), 0);
                    left[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        // Files grow by whole pages before they are written.
        left.resize(left.len().next_multiple_of(4096).max(image.now.len()), 0);
        Self(Arc::new(Mutex::new(Image { now: left.clone(), kept: left, ..Image::default() })))
    }
}

impl fmt::Debug for Flash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flash")
    }
}

impl StorageBackend for Flash {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let image = self.0.lock().unwrap();
        out.copy_from_slice(image.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        image.now.resize(usize::try_from(len).unwrap(), 0);
        let len = image.now.len();
        image.since.retain(|(at, bytes)| at + bytes.len() <= len);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        image.syncs_left = match image.syncs_left {
            Some(0) => {
                image.dead = Some((image.kept.clone(), image.since.clone()));
                None
            }
            left => left.map(|left| left - 1),
        };
        image.kept = image.now.clone();
        image.since.clear();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut image = self.0.lock().unwrap();
        image.now[at..at + data.len()].copy_from_slice(data);
        image.since.push((at, data.to_vec()));
        Ok(())
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_written_durably() {
    let own = identity(1);
    let path = Path::new("flash");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut flash = Flash::default();
    drop(Store::with_backend(flash.clone(), path, &TOWN).unwrap());
    let mut acknowledged = Vec::new();
    let others = chain(&identity(2), 1, 2000, 150);
    let mut in_commits = 0;
    for cut in 0..300 {
        let store =
            Store::with_backend(flash.clone(), path, &TOWN).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        let mut logs = Logs::open(store, TOWN).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        let mut there = BTreeSet::new();
        logs.each(&mut |entry| {
            there.insert(entry.to_ref());
        })
        .unwrap();
        assert!(acknowledged.iter().all(|entry| there.contains(entry)), "cut {cut}");
        let mut writer = Writer::open(author(&own), &logs, &Facts, None).unwrap();
        writer.confirm(&logs, &Facts).unwrap();
        let have = logs.head(others[0].place().log()).map_or(0, |head| head.seq);
        let mut next = others.iter().skip(usize::try_from(have).unwrap());
        flash.cut_after(random.next_u32() % 8);
        for _ in 0..6 {
            for entry in next.by_ref().take(2) {
                logs.accept(entry.as_bytes(), &|_| true).unwrap();
            }
            let written = writer.append(&mut logs, &own, &Facts, 0, &[1; 100], 77).unwrap();
            if flash.is_dead() {
                in_commits += 1;
                break;
            }
            acknowledged.extend(written.iter().map(|entry| entry.to_ref()));
        }
        // If not in a commit, then while it is closed, or after that.
        drop(logs);
        flash = flash.left(&mut random);
    }
    println!("{} entries acknowledged, {in_commits} of 300 cuts in a commit", acknowledged.len());
    assert!(acknowledged.len() > 200);
    let seqs: BTreeSet<_> = acknowledged.iter().map(|entry| entry.place).collect();
    assert_eq!(seqs.len(), acknowledged.len(), "a number was used twice");
}

/// A quiet day in a town: two entries of one's own, forty of others at any time, a start and a stop.
#[test]
fn a_quiet_day_costs_less_than_a_mebibyte_of_flash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("town.redb");
    let mut store = Store::open(&path, &TOWN).unwrap();
    // A town that is some years old.
    for number in 100..200 {
        chain(&identity(number), 1, 50, 200).iter().for_each(|entry| store.keep(entry).unwrap());
    }
    store.commit().unwrap();
    drop(store);
    let mut logs = Logs::open(Store::open(&path, &TOWN).unwrap(), TOWN).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let own = identity(1);
    let mut writer = Writer::open(author(&own), &logs, &Facts, None).unwrap();
    let mut news = chain(&identity(2), 1, 40, 200).into_iter();
    let minutes: BTreeSet<u32> = (0..40).map(|_| random.next_u32() % 1440).collect();
    for minute in 0..1440 {
        let now = Instant::START + Duration::from_secs(60) * minute;
        if minutes.contains(&minute) {
            logs.accept(news.next().unwrap().as_bytes(), &|_| true).unwrap();
        }
        if minute == 300 || minute == 1200 {
            writer.append(&mut logs, &own, &Facts, 0, &[3; 200], 5).unwrap();
        }
        logs.archive_mut().tick(now).unwrap();
    }
    let day = logs.archive().written();
    logs.archive_mut().commit().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    println!("{day} bytes written in a quiet day, into a file of {size}");
    assert!(day < 1 << 20, "{day}");
}
