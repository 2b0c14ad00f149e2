//! The writer: sure or not sure of its end, and what follows from it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{Facts, TOWN, author, chain, identity};
use grange_core::{Identity, Instant};
use grange_town::{
    Author, Entry, EntryHash, LogId, Place,
    log::{Accepted, Archive, Logs},
    store::{BootMark, Memory, Store, StoreError},
    sync::{LogSync, SyncEvent},
    writer::{Beginning as _, WriteError, Writer},
};

fn own() -> Identity {
    identity(1)
}

fn me() -> Author {
    author(&own())
}

fn open(folder: &Path) -> Logs<Store> {
    Logs::open(Store::open(&folder.join("town.redb"), &TOWN).unwrap(), TOWN).unwrap()
}

fn mark(folder: &Path, boot: &[u8]) -> Option<BootMark> {
    Some(BootMark::new(folder, me(), boot))
}

fn write<A: Archive>(writer: &mut Writer, logs: &mut Logs<A>, text: &str, fresh: u64) -> Vec<Entry> {
    writer.append(logs, &own(), &Facts, 0, text.as_bytes(), fresh).unwrap()
}

/// All that was ever written: no place twice.
#[derive(Default)]
struct Written(BTreeMap<Place, Entry>);

impl Written {
    fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            assert_eq!(self.0.insert(entry.place(), entry.clone()), None, "{} is used twice", entry.place());
        }
    }
}

#[test]
fn a_restart_goes_on_and_a_boot_begins_a_life() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut written = Written::default();
    for start in 0..3 {
        let mut logs = open(folder);
        let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"boot 1")).unwrap();
        assert_eq!(writer.is_sure(), start > 0);
        let entries = write(&mut writer, &mut logs, "fact", 10);
        assert_eq!(entries.len(), 1);
        written.add(&entries);
    }
    // The directory of the mark survived the boot.
    let mut logs = open(folder);
    let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"boot 2")).unwrap();
    assert!(!writer.is_sure());
    let entries = write(&mut writer, &mut logs, "after the boot", 10);
    written.add(&entries);
    let [begin, fact] = &entries[..] else { panic!("{entries:?}") };
    let parent = Facts.parent(begin.payload()).unwrap();
    assert_eq!((parent.place.life, parent.place.seq, begin.place().seq, fact.place().seq), (10, 3, 1, 2));
    assert_ne!(begin.place().life, 10, "the random number is in use");
    assert!(writer.is_sure());
}

/// The state directory is put back from yesterday while the machine runs, and the mark is that of today.
#[test]
fn a_node_restored_from_a_backup_repeats_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (file, backup) = (folder.join("town.redb"), folder.join("backup"));
    let mut written = Written::default();
    let mut logs = open(folder);
    let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"boot")).unwrap();
    (0..5).for_each(|_| written.add(&write(&mut writer, &mut logs, "before", 10)));
    drop(logs);
    fs::copy(&file, &backup).unwrap();
    let mut logs = open(folder);
    let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"boot")).unwrap();
    (0..5).for_each(|_| written.add(&write(&mut writer, &mut logs, "lost", 10)));
    drop(logs);
    fs::copy(&backup, &file).unwrap();
    let mut logs = open(folder);
    let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"boot")).unwrap();
    assert!(!writer.is_sure());
    let entries = write(&mut writer, &mut logs, "after", 20);
    assert_eq!(Facts.parent(entries[0].payload()).unwrap().place.seq, 5);
    written.add(&entries);
    // And once more from the same backup, in another boot.
    drop(logs);
    fs::copy(&backup, &file).unwrap();
    let mut logs = open(folder);
    let mut writer = Writer::open(me(), &logs, &Facts, mark(folder, b"another boot")).unwrap();
    written.add(&write(&mut writer, &mut logs, "again", 30));
    // The lives do not contradict each other: whoever knows the lost entries takes all.
    let mut all = Logs::open(Memory::default(), TOWN).unwrap();
    for entry in written.0.values() {
        assert!(matches!(all.accept(entry.as_bytes(), &|_| true), Ok(Accepted::Added(_))));
    }
    assert_eq!(all.lives(me()).map(|(_, head)| head.seq).collect::<Vec<_>>(), [10, 2, 2]);
}

/// Messages between two nodes until there are none, at one moment.
fn settle(now: Instant, nodes: &mut [(LogSync, Logs<Memory>); 2]) {
    let ids = [identity(1).id(), identity(2).id()];
    loop {
        let mut quiet = true;
        for from in 0..2 {
            let (sync, logs) = &mut nodes[from];
            sync.handle_timeout(now, logs);
            let Some((_, bytes)) = sync.poll_message(logs).unwrap() else { continue };
            quiet = false;
            let (sync, logs) = &mut nodes[1 - from];
            sync.handle(now, ids[from], &bytes, logs, &|_| true).unwrap();
            while let Some(event) = sync.poll_event() {
                assert!(matches!(event, SyncEvent::Added(_)), "{event:?}");
            }
        }
        if quiet {
            return;
        }
    }
}

#[test]
fn the_word_of_a_neighbour_makes_sure() {
    let mut now = Instant::from_micros(1_000_000);
    // The neighbour knows five entries, the backup that this node was restored from three.
    let entries = chain(&own(), 10, 5, 20);
    let mut nodes = [1, 2].map(|number| {
        let mut logs = Logs::open(Memory::default(), TOWN).unwrap();
        for entry in entries.iter().take(if number == 1 { 3 } else { 5 }) {
            logs.accept(entry.as_bytes(), &|_| true).unwrap();
        }
        (LogSync::new(identity(number).id(), author(&identity(number))), logs)
    });
    let mut writer = Writer::open(me(), &nodes[0].1, &Facts, None).unwrap();
    assert!(!writer.is_sure() && !nodes[0].0.has_word(now));
    nodes[0].0.neighbour_up(now, identity(2).id());
    nodes[1].0.neighbour_up(now, identity(1).id());
    // Another neighbour, who says nothing, is waited for a while.
    nodes[0].0.neighbour_up(now, identity(3).id());
    for _ in 0..20 {
        settle(now, &mut nodes);
        now += std::time::Duration::from_millis(200);
    }
    assert_eq!(nodes[0].1.head(entries[0].place().log()).unwrap().seq, 5);
    assert!(!nodes[0].0.has_word(now));
    now += std::time::Duration::from_secs(10);
    assert!(nodes[0].0.has_word(now));
    writer.confirm(&nodes[0].1, &Facts).unwrap();
    assert!(writer.is_sure());
    let (sync, logs) = &mut nodes[0];
    let written = write(&mut writer, logs, "on it goes", 99);
    assert_eq!(written[0].place(), LogId { author: me(), life: 10 }.at(6));
    sync.announce(now, &written[0]);
    settle(now, &mut nodes);
    assert_eq!(nodes[1].1.head(entries[0].place().log()).unwrap().seq, 6);
}

/// Of lives that go on from each other the writer takes the last, however their numbers are ordered.
#[test]
fn the_last_life_is_the_one_that_goes_on() {
    let mut logs = Logs::open(Memory::default(), TOWN).unwrap();
    for fresh in [50, 7, 30] {
        let mut writer = Writer::open(me(), &logs, &Facts, None).unwrap();
        write(&mut writer, &mut logs, "fact", fresh);
    }
    let mut writer = Writer::open(me(), &logs, &Facts, None).unwrap();
    writer.confirm(&logs, &Facts).unwrap();
    let entries = write(&mut writer, &mut logs, "fact", 0);
    assert_eq!((entries.len(), entries[0].place().life, entries[0].place().seq), (1, 30, 3));
}

#[test]
fn a_twin_is_noticed_and_a_forked_key_is_of_no_more_use() {
    let mut logs = Logs::open(Memory::default(), TOWN).unwrap();
    let mut writer = Writer::open(me(), &logs, &Facts, None).unwrap();
    let first = write(&mut writer, &mut logs, "one", 10).remove(0);
    // Somebody else goes on in this life: that is fetched, and the writer leaves the life to him.
    let twin = Entry::sign(&own(), &TOWN, 10, 2, first.hash(), 0, b"twin").unwrap();
    logs.accept(twin.as_bytes(), &|_| true).unwrap();
    let entries = write(&mut writer, &mut logs, "two", 11);
    assert_eq!((entries.len(), entries[0].place().life), (2, 11));
    let fork = Entry::sign(&own(), &TOWN, 10, 2, first.hash(), 0, b"fork").unwrap();
    assert!(matches!(logs.accept(fork.as_bytes(), &|_| true), Ok(Accepted::Fork(_))));
    let refused = writer.append(&mut logs, &own(), &Facts, 0, b"three", 12);
    assert!(matches!(refused, Err(WriteError::Forked(place)) if place == fork.place()));
    assert!(matches!(writer.append(&mut logs, &identity(2), &Facts, 0, b"", 12), Err(WriteError::Key)));
}

/// A store that cannot write acknowledges nothing, and the log is as it was.
#[test]
fn what_cannot_be_stored_is_not_written() {
    struct Full(Memory);
    impl Archive for Full {
        fn entry(&self, place: Place) -> Result<Option<Entry>, StoreError> {
            self.0.entry(place)
        }
        fn fork(&self, log: LogId) -> Result<Option<grange_town::ForkProof>, StoreError> {
            self.0.fork(log)
        }
        fn each_entry(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
            self.0.each_entry(each)
        }
        fn each_fork(
            &self,
            each: &mut dyn FnMut(&grange_town::ForkProof) -> Result<(), StoreError>,
        ) -> Result<(), StoreError> {
            self.0.each_fork(each)
        }
        fn branch(&self, hash: EntryHash) -> Result<Option<Entry>, StoreError> {
            self.0.branch(hash)
        }
        fn each_branch(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
            self.0.each_branch(each)
        }
        fn keep_branch(&mut self, entry: &Entry) -> Result<(), StoreError> {
            self.0.keep_branch(entry)
        }
        fn keep(&mut self, entry: &Entry) -> Result<(), StoreError> {
            self.0.keep(entry)
        }
        fn keep_fork(&mut self, proof: &grange_town::ForkProof) -> Result<(), StoreError> {
            self.0.keep_fork(proof)
        }
        fn keep_durably(&mut self, _: &[Entry]) -> Result<(), StoreError> {
            Err(StoreError::Database("no space left on device".into()))
        }
    }
    let mut logs = Logs::open(Full(Memory::default()), TOWN).unwrap();
    let mut writer = Writer::open(me(), &logs, &Facts, None).unwrap();
    let refused = writer.append(&mut logs, &own(), &Facts, 0, b"fact", 1);
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Database(_)))));
    assert!(!writer.is_sure());
    assert_eq!(logs.count(), (0, 0));
}
