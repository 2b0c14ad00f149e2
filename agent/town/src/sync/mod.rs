//! Brings neighbours' logs to the same length (`docs/town.md`, Sync).
//!
//! Neighbours compare digests when their link comes up and after changes; where they differ, the digests of 64 buckets of
//! logs, then lists of logs; then each asks for what it misses, in order. Entries that are news are pushed at once. Any message may be lost,
//! come twice or late: the next digest finds what is still missing.

mod compare;
mod fetch;
mod message;
mod neighbour;
mod send;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use grange_core::Instant;
use grange_wire::NodeId;

use self::neighbour::Neighbour;
pub use self::{
    message::{MESSAGE_MAX, Message},
    neighbour::Counters,
};
use crate::{
    entry::{Author, Entry, LogId},
    fork::ForkProof,
    log::{Archive, Logs},
    store::StoreError,
    vector::ShortHash,
};

/// Neighbours whose links are up, at most.
pub const NEIGHBOURS_MAX: usize = 256;
/// Bytes of entries that a neighbour sends for one request, at most.
pub const ANSWER_MAX: usize = 64 << 10;
/// How long nothing may come of a request before it counts as lost; up to five times as long after some that were.
const ASK_TIMEOUT: Duration = Duration::from_millis(600);
/// How long a request lasts at most, however slowly the answer trickles.
const ASK_LAST: Duration = Duration::from_secs(15);
/// How long a neighbour with the higher id waits for the other's first digest.
const SECOND: Duration = Duration::from_millis(500);
/// How long a neighbour that says nothing of this node's author keeps the author from being sure.
const WORD_PATIENCE: Duration = Duration::from_secs(10);

/// What changed in the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncEvent {
    /// An entry was added.
    Added(Entry),
    /// An author wrote two histories: the log ends before the proof's place, also for entries that were added before.
    Fork(ForkProof),
    /// An author began too many lives: nothing of that author counts.
    Overrun(Author),
}

/// The state of one node's exchange with its neighbours.
///
/// Order of calls: [`neighbour_up`](Self::neighbour_up), [`neighbour_down`](Self::neighbour_down), [`handle`](Self::handle) as things happen,
/// [`handle_timeout`](Self::handle_timeout) when [`next_timeout`](Self::next_timeout) says; after each of them
/// [`poll_event`](Self::poll_event) until it returns nothing, and [`poll_message`](Self::poll_message) as long as the links take messages.
/// What the node itself wrote is [`announce`](Self::announce)d. All messages wait here in short form and are made when they are polled.
pub struct LogSync {
    node: NodeId,
    /// The author of whose logs this node wants to hear how far they are known.
    own: Author,
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// Who is asked for which log: nobody else is at the same time.
    asked_of: BTreeMap<LogId, NodeId>,
    events: VecDeque<SyncEvent>,
    /// Whose turn it was to send.
    last_sent: Option<NodeId>,
    /// When the next neighbour is asked for pinned histories, and how many were.
    next_pinned: Option<Instant>,
    pinned_tries: u32,
}

impl LogSync {
    /// The exchange of a node whose own entries `own` signs.
    #[must_use]
    pub fn new(node: NodeId, own: Author) -> Self {
        Self {
            node,
            own,
            neighbours: BTreeMap::new(),
            asked_of: BTreeMap::new(),
            events: VecDeque::new(),
            last_sent: None,
            next_pinned: None,
            pinned_tries: 0,
        }
    }

    /// A link to a neighbour is up. False: there are too many, this one is left out.
    pub fn neighbour_up(&mut self, now: Instant, peer: NodeId) -> bool {
        self.neighbour_down(now, peer);
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            return false;
        }
        // One of the two begins.
        let wait = if self.node < peer { Duration::ZERO } else { SECOND };
        self.neighbours.insert(peer, Neighbour::new(now, wait));
        self.pins_changed(now + SECOND);
        true
    }

    /// A neighbour has no link any more. Others are asked for what was expected of him.
    pub fn neighbour_down(&mut self, now: Instant, peer: NodeId) {
        if self.neighbours.remove(&peer).is_some() {
            self.asked_of.retain(|_, asked| *asked != peer);
            for neighbour in self.neighbours.values_mut() {
                neighbour.changed(now);
            }
        }
    }

    /// The fold knows authors that it did not know before: their logs may be asked for.
    pub fn authors_changed(&mut self, now: Instant) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.agreed = None;
            neighbour.changed(now);
            neighbour.next_digest = now;
        }
    }

    /// The stewards say anew which histories of forked logs are true ([`Logs::pin`], [`crate::fold::Facts::pins`]): those that are
    /// not here are asked for.
    pub fn pins_changed(&mut self, now: Instant) {
        self.pinned_tries = 0;
        self.next_pinned = Some(now);
    }

    /// This node wrote an entry, and it is safe on the disk: all neighbours are to have it.
    pub fn announce(&mut self, now: Instant, entry: &Entry) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.push(entry.place());
            neighbour.changed(now);
        }
    }

    /// A message of a neighbour came. `known` says whose logs this node keeps.
    ///
    /// # Errors
    /// If the store fails. What a neighbour does wrong is no error; it is counted.
    pub fn handle<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        bytes: &[u8],
        logs: &mut Logs<A>,
        known: &dyn Fn(&Author) -> bool,
    ) -> Result<(), StoreError> {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return Ok(()) };
        neighbour.counters.bytes_in += bytes.len() as u64;
        let Some(message) = Message::parse(bytes) else {
            neighbour.counters.bad += 1;
            tracing::debug!(%peer, bytes = bytes.len(), "a message that is none");
            return Ok(());
        };
        match message {
            Message::Digest { digest, answer } => self.on_digest(now, peer, digest, answer, logs),
            Message::Buckets(digests) => self.on_buckets(now, peer, &digests, logs),
            Message::Vector { all, known: theirs } => self.on_vector(now, peer, all, &theirs, logs, known),
            Message::Want { after, forks, pinned } => self.on_want(peer, after, &forks, pinned),
            Message::Entries { entries, end } => self.on_entries(now, peer, &entries, end, logs, known)?,
            Message::Forks(proofs) => self.on_forks(now, peer, &proofs, logs, known)?,
        }
        self.ask(now, logs);
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.neighbours
            .values()
            .flat_map(|neighbour| {
                let asked = neighbour.asked.as_ref().map(|asked| asked.until);
                let rest = (neighbour.unanswered > 0 && asked.is_none() && !neighbour.targets.is_empty())
                    .then_some(neighbour.rest_until);
                [Some(neighbour.next_digest), asked, rest]
            })
            .flatten()
            .chain(self.next_pinned)
            .min()
    }

    /// Time has passed.
    pub fn handle_timeout<A: Archive>(&mut self, now: Instant, logs: &Logs<A>) {
        self.expire(now);
        if self.next_pinned.is_some() {
            self.ask_for_pinned(now, logs);
        }
        for neighbour in self.neighbours.values_mut().filter(|neighbour| neighbour.next_digest <= now) {
            if neighbour.asked.is_some() {
                // Much is on its way; what is missing after it shows then.
                neighbour.comparing(now);
            } else {
                neighbour.digest = Some(false);
                neighbour.postpone(now);
            }
        }
        self.ask(now, logs);
    }

    /// The next change of the logs.
    pub fn poll_event(&mut self) -> Option<SyncEvent> {
        self.events.pop_front()
    }

    /// Whether the neighbours have said how far they know this node's own author, and all that they know is here: at
    /// least one, and all others but those that have been up for 10 s without a word.
    #[must_use]
    pub fn has_word(&self, now: Instant) -> bool {
        self.neighbours.values().any(|neighbour| neighbour.word)
            && self.neighbours.values().all(|neighbour| neighbour.word || now.since(neighbour.up) >= WORD_PATIENCE)
    }

    /// Whether this neighbour and this node knew the same at their last comparison.
    #[must_use]
    pub fn agrees<A: Archive>(&self, peer: NodeId, logs: &mut Logs<A>) -> bool {
        let digest = logs.digest();
        self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.agreed == Some(digest))
    }

    /// What became of a neighbour's messages.
    #[must_use]
    pub fn counters(&self, peer: NodeId) -> Option<Counters> {
        self.neighbours.get(&peer).map(|neighbour| neighbour.counters)
    }

    /// The neighbours whose links are up.
    pub fn neighbours(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.neighbours.keys().copied()
    }

    /// This node learned something from `from`.
    fn learned(&mut self, now: Instant, from: NodeId, event: SyncEvent) {
        for (peer, neighbour) in &mut self.neighbours {
            neighbour.changed(now);
            if *peer == from {
                continue;
            }
            match &event {
                SyncEvent::Added(entry) => neighbour.push(entry.place()),
                SyncEvent::Fork(proof) => neighbour.show_fork(proof.place().log()),
                SyncEvent::Overrun(_) => {}
            }
        }
        self.events.push_back(event);
    }

    /// The neighbour has this entry.
    fn has(&mut self, peer: NodeId, hash: ShortHash) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.has(hash);
        }
    }
}
