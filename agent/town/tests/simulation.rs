//! Two hundred nodes in virtual time: partitions, loss, duplicates, reordering, forks; all agree soon after healing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod common;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use common::{Facts, TOWN, author, identity};
use grange_core::{Identity, Instant};
use grange_town::{
    Author, Entry, EntryHash, EntryRef, ForkProof, LogId,
    log::{Archive as _, Logs},
    store::Memory,
    sync::{LogSync, SyncEvent},
    writer::Writer,
};
use grange_wire::NodeId;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// One way.
const DELAY: Duration = Duration::from_millis(100);
/// After which a town that does not agree never will.
const PATIENCE: Duration = Duration::from_secs(180);

struct Node {
    id: NodeId,
    /// The key that it signs entries with.
    key: Identity,
    logs: Logs<Memory>,
    sync: LogSync,
    writer: Writer,
    /// What the events say that there is; must be what the logs say.
    added: BTreeMap<(Author, u64), u64>,
    forks: Vec<ForkProof>,
}

#[derive(Clone, Copy)]
struct Faults {
    /// Of 100.
    loss: u32,
    twice: u32,
    /// A message may take so much longer than another.
    jitter: Duration,
}

/// When it arrives, a number that orders what arrives at one moment, from whom, to whom, and what.
type Flying = (Instant, u64, usize, usize, Vec<u8>);

struct World {
    now: Instant,
    nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
    links: BTreeSet<(usize, usize)>,
    /// Messages on their way.
    flying: BinaryHeap<Reverse<Flying>>,
    sent: u64,
    bytes: u64,
    faults: Faults,
    random: ChaCha8Rng,
}

impl World {
    fn new(count: usize, seed: u64, faults: Faults) -> Self {
        let nodes: Vec<Node> = (0..count)
            .map(|number| {
                let key = identity(number as u64 + 1);
                let logs = Logs::open(Memory::default(), TOWN).unwrap();
                let writer = Writer::open(author(&key), &logs, &Facts, None).unwrap();
                let sync = LogSync::new(key.id(), author(&key));
                Node { id: key.id(), key, logs, sync, writer, added: BTreeMap::new(), forks: Vec::new() }
            })
            .collect();
        let index = nodes.iter().enumerate().map(|(number, node)| (node.id, number)).collect();
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self {
            now: Instant::START,
            nodes,
            index,
            links: BTreeSet::new(),
            flying: BinaryHeap::new(),
            sent: 0,
            bytes: 0,
            faults,
            random,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u32() as usize) % bound
    }

    /// A connected town: a ring of short ways and as many random links.
    fn topology(&mut self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        let mut links: BTreeSet<(usize, usize)> = (1..count).map(|to| (self.below(to), to)).collect();
        for _ in 0..count / 2 {
            let (a, b) = (self.below(count), self.below(count));
            if a != b {
                links.insert((a.min(b), a.max(b)));
            }
        }
        links.into_iter().collect()
    }

    fn link_up(&mut self, (a, b): (usize, usize)) {
        self.links.insert((a, b));
        for (one, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].id;
            assert!(self.nodes[one].sync.neighbour_up(self.now, peer));
        }
    }

    fn link_down(&mut self, (a, b): (usize, usize)) {
        self.links.remove(&(a, b));
        for (one, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].id;
            self.nodes[one].sync.neighbour_down(self.now, peer);
        }
    }

    fn write(&mut self, at: usize) {
        let fresh = self.random.next_u64();
        let size = self.below(200);
        let node = &mut self.nodes[at];
        let written = node.writer.append(&mut node.logs, &node.key, &Facts, 0, &vec![1; size], fresh).unwrap();
        for entry in &written {
            node.sync.announce(self.now, entry);
            note(node, entry);
        }
    }

    /// Writes, unless the node has already heard that its log was forked.
    fn write_forked(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.logs.lives(author(&node.key)).all(|(_, head)| head.fork == 0) {
            self.write(at);
        }
    }

    /// Sends what the nodes have to send, until there is nothing at this moment.
    fn drain(&mut self) {
        for from in 0..self.nodes.len() {
            let node = &mut self.nodes[from];
            while let Some((peer, bytes)) = node.sync.poll_message(&mut node.logs).unwrap() {
                let to = self.index[&peer];
                self.bytes += bytes.len() as u64;
                self.sent += 1;
                let copies = match self.random.next_u32() % 100 {
                    n if n < self.faults.loss => 0,
                    n if n < self.faults.loss + self.faults.twice => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let jitter = self.random.next_u64() % (self.faults.jitter.as_micros() as u64 + 1);
                    let at = self.now + DELAY + Duration::from_micros(jitter);
                    self.flying.push(Reverse((at, self.random.next_u64(), from, to, bytes.clone())));
                }
            }
        }
    }

    /// Lets time pass until `end`, or until all agree.
    fn run(&mut self, end: Instant, until_agreed: bool) -> bool {
        let mut looked = Instant::START;
        loop {
            self.drain();
            if until_agreed && self.now.since(looked) >= Duration::from_millis(20) {
                looked = self.now;
                if self.agreed() {
                    return true;
                }
            }
            let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
            let timer = self.nodes.iter().filter_map(|node| node.sync.next_timeout()).min();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            // All that happens within a millisecond happens now: a town of this size has many timers.
            let tick = self.now + Duration::from_millis(1);
            for node in &mut self.nodes {
                if node.sync.next_timeout().is_some_and(|at| at <= tick) {
                    node.sync.handle_timeout(tick, &node.logs);
                }
            }
            while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= tick) {
                let Some(Reverse((_, _, from, to, bytes))) = self.flying.pop() else { break };
                if !self.links.contains(&(from.min(to), from.max(to))) {
                    continue;
                }
                let peer = self.nodes[from].id;
                let node = &mut self.nodes[to];
                node.sync.handle(tick, peer, &bytes, &mut node.logs, &|_| true).unwrap();
                while let Some(event) = node.sync.poll_event() {
                    match event {
                        SyncEvent::Added(entry) => note(node, &entry),
                        SyncEvent::Fork(proof) => node.forks.push(proof),
                        SyncEvent::Overrun(_) => {}
                    }
                }
            }
            self.now = tick;
        }
    }

    fn agreed(&mut self) -> bool {
        let first = self.nodes[0].logs.digest();
        self.nodes.iter_mut().all(|node| node.logs.digest() == first)
    }

    fn entries(&self, at: usize) -> usize {
        let mut count = 0;
        self.nodes[at].logs.each(&mut |_| count += 1).unwrap();
        count
    }
}

/// Entries come to the fold in the order of their logs, none is left out and none comes twice. Those after a fork may come
/// before the proof does.
fn note(node: &mut Node, entry: &Entry) {
    let place = entry.place();
    let seq = node.added.entry((place.author, place.life)).or_default();
    assert!(place.seq == *seq + 1 || node.forks.iter().any(|fork| fork.place().log() == place.log()), "{place}");
    *seq = place.seq;
}

/// A run with two partitions into three parts each, in which all parts go on writing; how long after healing all agreed.
fn healing(count: usize, seed: u64, faults: Faults) -> Vec<Duration> {
    let mut world = World::new(count, seed, faults);
    let links = world.topology();
    links.iter().for_each(|link| world.link_up(*link));
    (0..count).for_each(|at| world.write(at));
    assert!(world.run(world.now + PATIENCE, true), "seed {seed}: no agreement at the start");
    let start = world.now.since(Instant::START);
    let mut took = Vec::new();
    for _ in 0..2 {
        let part: Vec<usize> = (0..count).map(|_| world.below(3)).collect();
        let cut: Vec<_> = links.iter().copied().filter(|(a, b)| part[*a] != part[*b]).collect();
        cut.iter().for_each(|link| world.link_down(*link));
        for _ in 0..20 {
            for _ in 0..10 {
                let at = world.below(count);
                world.write(at);
            }
            world.run(world.now + Duration::from_secs(1), false);
        }
        assert!(!world.agreed(), "seed {seed}: cutting {} of {} links cut nothing off", cut.len(), links.len());
        cut.iter().for_each(|link| world.link_up(*link));
        let healed = world.now;
        assert!(world.run(healed + PATIENCE, true), "seed {seed}: no agreement {PATIENCE:?} after healing");
        took.push(world.now.since(healed));
    }
    let entries = world.entries(0);
    assert!((0..count).all(|at| world.entries(at) == entries && world.nodes[at].added.len() == count));
    // One entry more, to all.
    let (written, at, bytes) = (world.now, world.below(count), world.bytes);
    world.write(at);
    assert!(world.run(written + PATIENCE, true), "seed {seed}: one entry did not reach all");
    let pushed = world.now.since(written);
    println!(
        "seed {seed}: {entries} entries at {count} nodes, {} links; start {start:?}, agreed {took:?} after healing; \
         one entry reaches all in {pushed:?} by {} bytes a node; {} messages, {} KiB in all",
        links.len(),
        (world.bytes - bytes) / count as u64,
        world.sent,
        world.bytes >> 10
    );
    took
}

/// `SIM_SEED=n` runs one town again, `SIM_ROUNDS=k` runs more of them.
fn seeds(rounds: u64) -> impl Iterator<Item = u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("SIM_ROUNDS").unwrap_or(rounds) + 1,
    }
}

#[test]
fn two_hundred_nodes_agree_within_ten_seconds_of_healing() {
    let faults = Faults { loss: 5, twice: 5, jitter: Duration::from_millis(80) };
    for seed in seeds(1) {
        for took in healing(200, seed, faults) {
            assert!(took < Duration::from_secs(10), "seed {seed}: agreement {took:?} after healing");
        }
    }
}

#[test]
fn small_towns_agree_under_heavy_loss() {
    let faults = Faults { loss: 30, twice: 20, jitter: Duration::from_millis(500) };
    for seed in seeds(8) {
        healing(12, seed, faults);
    }
}

/// A disk was copied while its node ran, and both copies go on, in two parts of the town, for so many entries each. Some
/// of the others know one history, some the other, some the beginning of either. All agree on the last common entry.
fn cloned(seed: u64, faults: Faults) {
    let count = 16;
    let mut world = World::new(count, seed, faults);
    let links = world.topology();
    links.iter().for_each(|link| world.link_up(*link));
    (0..5).for_each(|_| world.write(0));
    let common = world.below(6) as u64;
    assert!(world.run(world.now + Duration::from_secs(60), true));
    // The twin at the other end has the key, and believes its log.
    world.nodes[count - 1].key = identity(1);
    let twin = &mut world.nodes[count - 1];
    twin.writer = Writer::open(author(&twin.key), &twin.logs, &Facts, None).unwrap();
    twin.writer.confirm(&twin.logs, &Facts).unwrap();
    assert!(twin.writer.is_sure());
    for _ in 0..common {
        world.write(0);
        assert!(world.run(world.now + Duration::from_secs(60), true));
    }
    let twin = &mut world.nodes[count - 1];
    twin.writer = Writer::open(author(&twin.key), &twin.logs, &Facts, None).unwrap();
    twin.writer.confirm(&twin.logs, &Facts).unwrap();
    let fork = 5 + common + 1;
    links.iter().for_each(|link| world.link_down(*link));
    let (first, second) = (1 + world.below(40), 1 + world.below(40));
    // Links come up one after the other, while both write.
    for step in 0..first.max(second) {
        if step < first {
            world.write_forked(0);
        }
        if step < second {
            world.write_forked(count - 1);
        }
        let link = links[world.below(links.len())];
        if step > 10 && !world.links.contains(&link) {
            world.link_up(link);
        }
        world.run(world.now + Duration::from_millis(100), false);
    }
    for link in &links {
        if !world.links.contains(link) {
            world.link_up(*link);
        }
    }
    let healed = world.now;
    assert!(world.run(healed + Duration::from_secs(120), true), "seed {seed}: no agreement on a fork");
    println!("seed {seed}: fork at {fork}, {first} and {second} entries: agreed after {:?}", world.now.since(healed));
    let log =
        LogId { author: author(&identity(1)), life: world.nodes[0].logs.lives(author(&identity(1))).next().unwrap().0 };
    for node in &world.nodes {
        let head = node.logs.head(log).unwrap();
        assert_eq!((head.seq, head.fork), (fork - 1, fork), "seed {seed}");
        assert_eq!(node.forks.iter().map(|proof| proof.place().seq).min(), Some(fork));
        assert!(node.logs.archive().fork(log).unwrap().is_some_and(|proof| proof.place() == log.at(fork)));
    }
    // The stewards say that the twin's history is the true one: all come to have it, and it alone.
    let last = world.nodes[count - 1].added[&(log.author, log.life)];
    let end = world.nodes[count - 1].logs.archive().entry(log.at(last)).unwrap().unwrap().to_ref();
    for node in &mut world.nodes {
        node.logs.pin(&[end]).unwrap();
        node.sync.pins_changed(world.now);
    }
    let said = world.now;
    world.run(said + Duration::from_secs(30), false);
    for node in &world.nodes {
        assert_eq!(node.logs.lacking().next(), None, "seed {seed}");
        let mut at = end;
        while at.place.seq >= fork {
            let entry = node.logs.find(at).unwrap().unwrap();
            at = EntryRef { place: log.at(at.place.seq - 1), hash: entry.previous() };
        }
        assert_eq!(node.logs.head(log).unwrap().hash, at.hash);
    }
}

#[test]
fn all_agree_where_a_cloned_author_forked() {
    for seed in seeds(20) {
        cloned(seed, Faults { loss: 5, twice: 5, jitter: Duration::from_millis(80) });
    }
}

/// Nine lives in one part and nine in the other are too many together, and nobody can say which came first.
#[test]
fn all_agree_on_an_author_with_too_many_lives() {
    for seed in seeds(5) {
        let count = 10;
        let mut world = World::new(count, seed, Faults { loss: 5, twice: 5, jitter: Duration::from_millis(80) });
        let links = world.topology();
        for part in 0..2_u64 {
            let at = usize::try_from(part).unwrap() * (count - 1);
            for life in 0..9 {
                let entry = Entry::sign(&identity(77), &TOWN, part * 100 + life, 1, EntryHash::NONE, 0, b"").unwrap();
                world.nodes[at].logs.accept(entry.as_bytes(), &|_| true).unwrap();
            }
        }
        links.iter().for_each(|link| world.link_up(*link));
        assert!(world.run(world.now + Duration::from_secs(60), true), "seed {seed}");
        assert!(world.nodes.iter().all(|node| node.logs.overrun(author(&identity(77)))), "seed {seed}");
    }
}
