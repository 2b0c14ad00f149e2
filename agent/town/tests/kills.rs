//! A node that is killed while it writes: no entry that it acknowledged is lost, no number is used twice, the store opens.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    collections::BTreeMap,
    env,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{Facts, TOWN, author, chain, identity};
use grange_town::{
    log::Logs,
    store::{BootMark, Store},
    writer::Writer,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

const FOLDER: &str = "GRANGE_TOWN_KILLED";

fn open(folder: &Path) -> Logs<Store> {
    Logs::open(Store::open(&folder.join("town.redb"), &TOWN).unwrap(), TOWN).unwrap()
}

/// Not a test by itself: the process that is killed.
#[test]
fn the_node_that_is_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut logs = open(folder);
    let own = identity(1);
    let mark = BootMark::new(&folder.join("run"), author(&own), b"this boot");
    let mut writer = Writer::open(author(&own), &logs, &Facts, Some(mark)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(logs.head(log_of(&logs)).map_or(0, |head| head.seq));
    let mut others = chain(&identity(2), 5, 400, 300).into_iter();
    let mut out = std::io::stdout().lock();
    loop {
        for other in others.by_ref().take(3) {
            logs.accept(other.as_bytes(), &|_| true).unwrap();
        }
        let payload = vec![9; random.next_u32() as usize % 500];
        let fresh = random.next_u64();
        for entry in writer.append(&mut logs, &own, &Facts, 0, &payload, fresh).unwrap() {
            let place = entry.place();
            writeln!(out, "ACK {} {} {}", place.life, place.seq, entry.hash()).unwrap();
            out.flush().unwrap();
        }
    }
}

/// Any log of the node's own; it is enough to make the random numbers differ between starts.
fn log_of(logs: &Logs<Store>) -> grange_town::LogId {
    let own = author(&identity(1));
    let life = logs.lives(own).map(|(life, head)| (head.seq, life)).max().map_or(0, |(_, life)| life);
    grange_town::LogId { author: own, life }
}

/// All entries of the killed node that are in the store must be those that were acknowledged, and all of these there.
fn check(folder: &Path, acknowledged: &BTreeMap<(u64, u64), String>) -> usize {
    let logs = open(folder);
    let mut there = BTreeMap::new();
    logs.each(&mut |entry| {
        if entry.place().author == author(&identity(1)) {
            there.insert((entry.place().life, entry.place().seq), entry.hash().to_string());
        }
    })
    .unwrap();
    for (place, hash) in acknowledged {
        assert_eq!(there.get(place), Some(hash), "acknowledged and lost, or written twice: {place:?}");
    }
    assert!(logs.lives(author(&identity(1))).all(|(_, head)| head.fork == 0));
    there.len()
}

/// `KILLS=n` kills so many times.
#[test]
fn a_killed_node_loses_nothing_and_repeats_nothing() {
    let rounds = env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut acknowledged = BTreeMap::new();
    let (mut silent, mut reboots) = (0, 0);
    for round in 0..rounds {
        if round % (rounds / 8 + 1) == rounds / 8 {
            // A boot: the mark is gone, and the node cannot know that the disk is what it was.
            std::fs::remove_dir_all(&run).unwrap();
            std::fs::create_dir(&run).unwrap();
            reboots += 1;
        }
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_node_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Most moments are while it writes, some while it opens the store.
        let mut out = child.stdout.take().unwrap();
        let mut text = Vec::new();
        let wait = Duration::from_micros(u64::from(random.next_u32() % 20_000));
        if round % 8 != 0 {
            let mut byte = [0];
            while out.read(&mut byte).unwrap() == 1 {
                text.push(byte[0]);
                if text.ends_with(b"ACK ") {
                    break;
                }
            }
        }
        thread::sleep(wait);
        child.kill().unwrap();
        out.read_to_end(&mut text).unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        child.wait().unwrap();
        assert!(!errors.contains("panicked"), "round {round}: {errors}");
        let text = String::from_utf8(text).unwrap();
        let mut count = 0;
        // The last line may be cut off.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Some((_, line)) = line.split_once("ACK ") else { continue };
            let [life, seq, hash] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let place = (life.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap());
            let before = acknowledged.insert(place, hash.to_owned());
            assert_eq!(before, None, "round {round}: {place:?} was used twice");
            count += 1;
        }
        silent += usize::from(count == 0);
        if round % 25 == 24 {
            check(folder.path(), &acknowledged);
        }
    }
    let there = check(folder.path(), &acknowledged);
    println!(
        "{rounds} kills and {reboots} boots: {} entries acknowledged, {there} there; {silent} killed before the first",
        acknowledged.len()
    );
    assert!(acknowledged.len() >= rounds / 2);
}
