//! Neighbours that lie: nothing that they say is kept, all that they can make a node do has a bound, and others go on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::time::Duration;

use common::{Facts, TOWN, author, chain, identity};
use grange_core::{Identity, Instant};
use grange_town::{
    Author, EntryHash, LogId,
    log::{Accepted, LIFE_BYTES_MAX, Logs, Refused},
    store::Memory,
    sync::{ANSWER_MAX, LogSync, MESSAGE_MAX, Message},
    vector::{Digest, Known},
    writer::{WriteError, Writer},
};
use grange_wire::NodeId;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

struct Victim {
    now: Instant,
    logs: Logs<Memory>,
    sync: LogSync,
    peer: NodeId,
}

impl Victim {
    fn new() -> Self {
        let own = identity(1);
        let (logs, peer) = (Logs::open(Memory::default(), TOWN).unwrap(), identity(9).id());
        let mut victim = Self { now: Instant::START, logs, sync: LogSync::new(own.id(), author(&own)), peer };
        victim.sync.neighbour_up(victim.now, peer);
        victim
    }

    fn hear(&mut self, message: &Message<'_>, known: &dyn Fn(&Author) -> bool) {
        self.hear_bytes(&message.to_bytes(), known);
    }

    fn hear_bytes(&mut self, bytes: &[u8], known: &dyn Fn(&Author) -> bool) {
        self.sync.handle(self.now, self.peer, bytes, &mut self.logs, known).unwrap();
    }

    /// All that it has to say at this moment: messages and bytes.
    fn said(&mut self) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        while let Some((_, bytes)) = self.sync.poll_message(&mut self.logs).unwrap() {
            assert!(bytes.len() <= MESSAGE_MAX);
            said.push(bytes);
            assert!(said.len() < 1000, "it does not stop talking");
        }
        said
    }
}

fn log(number: u64) -> LogId {
    LogId { author: author(&identity(number)), life: 1 }
}

#[test]
fn strangers_cannot_make_anybody_keep_anything() {
    let mut victim = Victim::new();
    let entries = chain(&identity(7), 1, 20, 50);
    let bytes: Vec<&[u8]> = entries.iter().map(|entry| entry.as_bytes()).collect();
    victim.hear(&Message::Entries { entries: bytes, end: false }, &|_| false);
    let known = entries.iter().map(|e| Known { log: e.place().log(), seq: 20, hash: [0; 16], fork: 0 }).collect();
    victim.hear(&Message::Vector { all: None, known }, &|_| false);
    assert_eq!(victim.logs.count(), (0, 0));
    assert!(!victim.said().iter().any(|bytes| matches!(Message::parse(bytes), Some(Message::Want { .. }))));
    assert_eq!(victim.sync.counters(victim.peer).unwrap().strangers, 40);
}

#[test]
fn a_wrong_signature_ends_the_message() {
    let mut victim = Victim::new();
    let entries = chain(&identity(7), 1, 3, 50);
    let mut forged = entries[1].as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let message = Message::Entries {
        entries: vec![entries[0].as_bytes(), &forged, entries[1].as_bytes(), entries[2].as_bytes()],
        end: false,
    };
    victim.hear(&message, &|_| true);
    assert_eq!(victim.logs.head(log(7)).unwrap().seq, 1);
    let counters = victim.sync.counters(victim.peer).unwrap();
    assert_eq!((counters.added, counters.bad), (1, 1));
}

/// He says that he has much and gives nothing: he is asked now and then, and others are asked for the same.
#[test]
fn promises_that_are_not_kept_cost_little() {
    let mut victim = Victim::new();
    let honest = identity(8).id();
    victim.sync.neighbour_up(victim.now, honest);
    let entries = chain(&identity(7), 1, 3, 50);
    let known = vec![Known { log: log(7), seq: 1_000_000, hash: [1; 16], fork: 0 }];
    victim.hear(&Message::Vector { all: None, known }, &|_| true);
    let true_known = vec![Known { log: log(7), seq: 3, hash: Known::short(entries[2].hash()), fork: 0 }];
    let promise = Message::Vector { all: None, known: true_known }.to_bytes();
    victim.sync.handle(victim.now, honest, &promise, &mut victim.logs, &|_| true).unwrap();
    let (mut asked, mut done) = (0, None);
    for step in 0..3000 {
        victim.now += Duration::from_millis(100);
        if victim.sync.next_timeout().is_some_and(|at| at <= victim.now) {
            victim.sync.handle_timeout(victim.now, &victim.logs);
        }
        while let Some((peer, bytes)) = victim.sync.poll_message(&mut victim.logs).unwrap() {
            let Some(Message::Want { after, .. }) = Message::parse(&bytes) else { continue };
            assert_eq!(after.len(), 1);
            if peer == victim.peer {
                asked += 1;
            } else {
                let entries = entries.iter().map(|entry| entry.as_bytes()).collect();
                let answer = Message::Entries { entries, end: true }.to_bytes();
                victim.sync.handle(victim.now, honest, &answer, &mut victim.logs, &|_| true).unwrap();
                done.get_or_insert(step);
            }
        }
    }
    assert!(done.is_some_and(|step| step < 30), "{done:?}");
    assert!(asked < 30, "asked {asked} times in 300 s");
}

/// Entries that trickle for ever hold nobody up.
#[test]
fn an_answer_without_an_end_is_given_up() {
    let mut victim = Victim::new();
    let honest = identity(8).id();
    victim.sync.neighbour_up(victim.now, honest);
    let endless = chain(&identity(6), 1, 2000, 0);
    let known = vec![
        Known { log: log(6), seq: 1_000_000, hash: [1; 16], fork: 0 },
        Known { log: log(7), seq: 3, hash: [1; 16], fork: 0 },
    ];
    let promise = Message::Vector { all: None, known: known.clone() };
    victim.hear(&promise, &|_| true);
    let bytes = Message::Vector { all: None, known: known[1..].to_vec() }.to_bytes();
    victim.sync.handle(victim.now, honest, &bytes, &mut victim.logs, &|_| true).unwrap();
    let mut asked_honest = false;
    for entry in &endless {
        victim.now += Duration::from_millis(100);
        victim.sync.handle_timeout(victim.now, &victim.logs);
        victim.hear(&Message::Entries { entries: vec![entry.as_bytes()], end: false }, &|_| true);
        while let Some((peer, bytes)) = victim.sync.poll_message(&mut victim.logs).unwrap() {
            asked_honest |= peer == honest && matches!(Message::parse(&bytes), Some(Message::Want { .. }));
        }
    }
    assert!(asked_honest);
}

/// Whatever he sends, what the node holds for him and says at once has a bound.
#[test]
fn floods_are_bounded() {
    let mut victim = Victim::new();
    for number in 100..130 {
        for entry in chain(&identity(number), 1, 40, 600) {
            victim.logs.accept(entry.as_bytes(), &|_| true).unwrap();
        }
    }
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..200 {
        let any = |random: &mut ChaCha8Rng| {
            let mut key = [0; 32];
            random.fill_bytes(&mut key);
            LogId { author: Author(key), life: random.next_u64() }
        };
        let known = (0..500)
            .map(|_| Known {
                log: any(&mut random),
                seq: random.next_u64(),
                hash: [0; 16],
                fork: random.next_u64() % 2,
            })
            .collect();
        let least = LogId { author: Author([0; 32]), life: 0 };
        let most = LogId { author: Author([255; 32]), life: u64::MAX };
        victim.hear(&Message::Vector { all: Some((least, most)), known }, &|_| true);
        victim.hear(&Message::Buckets(vec![Digest([0; 16]); 64]), &|_| true);
        victim.hear(&Message::Digest { digest: Digest([0; 16]), answer: false }, &|_| true);
        let after = (100..130).map(|number| (log(number), 0)).collect();
        victim.hear(&Message::Want { after, forks: vec![log(100); 128], pinned: Vec::new() }, &|_| true);
    }
    let said = victim.said();
    let entries: usize = said
        .iter()
        .filter_map(|bytes| match Message::parse(bytes) {
            Some(Message::Entries { entries, .. }) => Some(entries.iter().map(|entry| entry.len()).sum::<usize>()),
            _ => None,
        })
        .sum();
    let bytes: usize = said.iter().map(Vec::len).sum();
    assert!(entries <= ANSWER_MAX, "{entries}");
    println!("{} messages of {bytes} bytes after a flood of 800", said.len());
    assert!(bytes < 512 << 10, "{bytes}");
}

#[test]
fn mangled_messages_do_no_harm() {
    let mut victim = Victim::new();
    let entries = chain(&identity(7), 1, 10, 30);
    let bytes: Vec<&[u8]> = entries.iter().map(|entry| entry.as_bytes()).collect();
    let known = Known { log: log(7), seq: 9, hash: [0; 16], fork: 3 };
    let good = [
        Message::Entries { entries: bytes, end: true }.to_bytes(),
        Message::Vector { all: Some((log(7), log(8))), known: vec![known; 20] }.to_bytes(),
        Message::Want { after: vec![(log(7), u64::MAX)], forks: vec![log(7)], pinned: Vec::new() }.to_bytes(),
        Message::Buckets(vec![Digest([1; 16]); 64]).to_bytes(),
    ];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for round in 0..20_000 {
        let mut bytes = good[round % good.len()].clone();
        for _ in 0..random.next_u32() % 3 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32().to_le_bytes()[0];
        }
        if round % 7 == 0 {
            bytes.truncate(random.next_u32() as usize % bytes.len());
        }
        victim.now += Duration::from_millis(20);
        victim.hear_bytes(&bytes, &|_| true);
        victim.sync.handle_timeout(victim.now, &victim.logs);
        victim.said();
        while victim.sync.poll_event().is_some() {}
    }
    assert!(victim.logs.count().0 <= 1);
    assert_eq!(victim.logs.head(log(7)).unwrap().seq, 10);
}

#[test]
fn a_life_has_a_bound_and_the_writer_begins_the_next() {
    let own = identity(3);
    let mut logs = Logs::open(Memory::default(), TOWN).unwrap();
    let mut writer = Writer::open(author(&own), &logs, &Facts, None).unwrap();
    let payload = vec![0; 16 << 10];
    let mut entries = Vec::new();
    for fresh in 0..LIFE_BYTES_MAX / (16 << 10) + 5 {
        entries.extend(writer.append(&mut logs, &own, &Facts, 0, &payload, fresh).unwrap());
    }
    let lives: Vec<_> = logs.lives(author(&own)).collect();
    assert_eq!(lives.len(), 2);
    // Somebody who takes no notice of the bound is not followed.
    let (life, head) = lives[0];
    let mut other = Logs::open(Memory::default(), TOWN).unwrap();
    for entry in &entries {
        assert!(matches!(other.accept(entry.as_bytes(), &|_| true).unwrap(), Accepted::Added(_)));
    }
    let log = LogId { author: author(&own), life };
    let more = grange_town::Entry::sign(&own, &TOWN, life, head.seq + 1, head.hash, 0, &payload).unwrap();
    assert!(matches!(other.accept(more.as_bytes(), &|_| true), Err(Refused::LifeFull)));
    assert_eq!(other.head(log).unwrap().seq, head.seq);
}

/// Sixteen lives and no more, by the writer; whoever begins more than that counts for nothing.
#[test]
fn lives_are_few() {
    let own: Identity = identity(3);
    let mut logs = Logs::open(Memory::default(), TOWN).unwrap();
    for life in 0..16 {
        let mut writer = Writer::open(author(&own), &logs, &Facts, None).unwrap();
        assert!(!writer.is_sure());
        let written = writer.append(&mut logs, &own, &Facts, 0, b"fact", 5).unwrap();
        assert_eq!(written.len(), if life == 0 { 1 } else { 2 });
        assert!(writer.is_sure());
    }
    let mut writer = Writer::open(author(&own), &logs, &Facts, None).unwrap();
    assert!(matches!(writer.append(&mut logs, &own, &Facts, 0, b"fact", 5), Err(WriteError::Lives)));
    writer.confirm(&logs, &Facts).unwrap();
    assert_eq!(writer.append(&mut logs, &own, &Facts, 0, b"fact", 5).unwrap().len(), 1);
    assert!(!logs.overrun(author(&own)));
    let more = grange_town::Entry::sign(&own, &TOWN, 999, 1, EntryHash::NONE, 0, b"").unwrap();
    logs.accept(more.as_bytes(), &|_| true).unwrap();
    assert!(logs.overrun(author(&own)));
    let again = grange_town::Entry::sign(&own, &TOWN, 998, 1, EntryHash::NONE, 0, b"").unwrap();
    assert_eq!(logs.accept(again.as_bytes(), &|_| true).unwrap(), Accepted::Ended);
    assert_eq!(logs.lives(author(&own)).count(), 17);
}
