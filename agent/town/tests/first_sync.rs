//! The first sync of a new node: 10,000 entries from an old one, both with their stores on the disk, in two processes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    env, fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::Instant as Clock,
};

use common::{TOWN, author, chain, identity};
use grange_core::Instant;
use grange_town::{
    Author, LogId,
    log::{Archive as _, Logs},
    store::Store,
    sync::LogSync,
};

const FOLDER: &str = "GRANGE_TOWN_NEW_NODE";
const AUTHORS: u64 = 100;
const EACH: u64 = 100;

/// One node at one end of a pair of pipes. Stops when `done` says so.
fn exchange(
    number: u64,
    peer: u64,
    logs: &mut Logs<Store>,
    from: &mut impl Read,
    to: &mut impl Write,
    done: &dyn Fn(&Logs<Store>) -> bool,
) {
    let start = Clock::now();
    let now = || Instant::START + start.elapsed();
    let peer = identity(peer).id();
    let mut sync = LogSync::new(identity(number).id(), author(&identity(number)));
    sync.neighbour_up(now(), peer);
    loop {
        if sync.next_timeout().is_some_and(|at| at <= now()) {
            sync.handle_timeout(now(), logs);
        }
        while let Some((_, bytes)) = sync.poll_message(logs).unwrap() {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            // The new node leaves when it has all.
            if to.write_all(&length).and_then(|()| to.write_all(&bytes)).is_err() {
                return;
            }
        }
        if done(logs) {
            return;
        }
        let mut length = [0; 4];
        if from.read_exact(&mut length).is_err() {
            return;
        }
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut bytes).unwrap();
        sync.handle(now(), peer, &bytes, logs, &|_| true).unwrap();
        while sync.poll_event().is_some() {}
    }
}

/// Not a test by itself: the new node, at the pipes.
#[test]
fn the_new_node() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut logs = Logs::open(Store::open(&folder.join("new.redb"), &TOWN).unwrap(), TOWN).unwrap();
    let start = Clock::now();
    exchange(1, 2, &mut logs, &mut std::io::stdin(), &mut std::io::stderr(), &whole);
    logs.archive_mut().commit().unwrap();
    let took = start.elapsed();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let written = logs.archive().written();
    fs::write(folder.join("result"), format!("{} {written} {peak}", took.as_millis())).unwrap();
}

fn whole(logs: &Logs<Store>) -> bool {
    let (count, _) = logs.count();
    let first = LogId { author: Author([0; 32]), life: 0 };
    count == usize::try_from(AUTHORS).unwrap() && logs.known_from(first).all(|log| log.seq == EACH)
}

#[test]
fn ten_thousand_entries_in_forty_eight_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Store::open(&folder.path().join("old.redb"), &TOWN).unwrap();
    for number in 0..AUTHORS {
        chain(&identity(1000 + number), number, EACH, 200).iter().for_each(|entry| old.keep(entry).unwrap());
    }
    old.commit().unwrap();
    let mut logs = Logs::open(old, TOWN).unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_new_node", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut from, mut to) = (child.stderr.take().unwrap(), child.stdin.take().unwrap());
    exchange(2, 1, &mut logs, &mut from, &mut to, &|_| false);
    drop(to);
    assert!(child.wait().unwrap().success());
    let result = fs::read_to_string(folder.path().join("result")).unwrap();
    let parts: Vec<&str> = result.split_whitespace().collect();
    let (millis, written, peak) = (parts[0], parts[1], parts[3].parse::<u64>().unwrap());
    println!("10,000 entries in {millis} ms, {peak} KiB at the peak, {written} bytes to the disk");
    assert!(peak <= 48 << 10, "{peak} KiB");
}
