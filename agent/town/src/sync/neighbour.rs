//! What is remembered of one neighbour. All of it has a constant bound, whatever he says.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use grange_core::Instant;

use crate::{
    entry::{EntryRef, LogId, Place},
    vector::{BUCKETS, Digest, Known, ShortHash},
};

/// Logs remembered of which a neighbour knows more, at most. What is beyond comes with the next digest.
pub(super) const TARGETS_MAX: usize = 1024;
/// News that wait for a neighbour, at most.
const NEWS_MAX: usize = 1024;
/// Logs that a neighbour is to be told of, at most.
const TELL_MAX: usize = 1024;
/// Forks that a neighbour is to see, or is to be asked for, at most.
const FORKS_MAX: usize = 256;
/// Entries remembered that a neighbour has, so as not to send them back.
const SEEN_MAX: usize = 256;

/// How soon a digest follows a change, and the next one if they do not match.
const DIGEST_FIRST: Duration = Duration::from_millis(500);
/// After so many that did not match the wait between them doubles, and again after each [`DIGESTS_MORE`].
const DIGESTS_SOON: u32 = 10;
const DIGESTS_MORE: u32 = 4;
/// The longest such wait; digests that match are repeated at twice that.
const DIGEST_LAST: Duration = Duration::from_secs(300);

/// What became of a neighbour's messages since the link came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries from him that were news.
    pub added: u64,
    /// Entries from him that were known.
    pub known: u64,
    /// Entries from him that came before others of their log.
    pub gaps: u64,
    /// Entries by authors that the town does not know.
    pub strangers: u64,
    /// Messages that are none, or had something in them that is not what it says.
    pub bad: u64,
    /// Requests to him without an answer.
    pub timeouts: u64,
    /// Bytes from him.
    pub bytes_in: u64,
    /// Bytes to him.
    pub bytes_out: u64,
}

/// A log of which a neighbour knows more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// How far he knows it.
    pub(super) known: Known,
    /// From where to ask for his history where it is another than ours; none: from our end.
    pub(super) after: Option<u64>,
    /// How far the next step back is.
    pub(super) step: u64,
}

/// A request that has not been answered to the end.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) logs: Vec<LogId>,
    pub(super) until: Instant,
    /// When it ends, whatever comes.
    pub(super) last: Instant,
    /// Whether anything came of it.
    pub(super) progress: bool,
}

/// An answer that has not been sent to the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) after: VecDeque<(LogId, u64)>,
    /// Bytes that it still may have.
    pub(super) left: usize,
}

/// A neighbour whose link is up.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) up: Instant,
    /// The digest at which both were the same.
    pub(super) agreed: Option<Digest>,
    pub(super) next_digest: Instant,
    /// Digests in a row that did not match.
    unmatched: u32,
    /// Before this his next list of buckets is not looked at.
    pub(super) next_buckets: Instant,
    /// Whether he has told what he knows, so that it is worth telling him news.
    pub(super) met: bool,
    /// Whether what he knows of this node's own author is known here.
    pub(super) word: bool,

    pub(super) targets: BTreeMap<LogId, Target>,
    pub(super) asked: Option<Asked>,
    /// Whether the request is still to be sent.
    pub(super) request: bool,
    /// Requests in a row that were not answered, and until when he is not asked again.
    pub(super) unanswered: u32,
    pub(super) rest_until: Instant,
    seen: VecDeque<ShortHash>,

    // What he is to be sent, in the order in which it goes.
    pub(super) forks: BTreeSet<LogId>,
    pub(super) news: VecDeque<Place>,
    pub(super) want_forks: BTreeSet<LogId>,
    /// Whether he is to be asked for pinned histories.
    pub(super) want_pinned: bool,
    /// The pinned entries that he asked for.
    pub(super) pinned: Vec<EntryRef>,
    /// A digest, and whether it is an answer.
    pub(super) digest: Option<bool>,
    pub(super) buckets: bool,
    pub(super) answer: Option<Answer>,
    pub(super) tell: BTreeSet<LogId>,
    /// For each bucket to be listed, from which log on.
    pub(super) vectors: BTreeMap<usize, LogId>,

    pub(super) counters: Counters,
}

impl Neighbour {
    pub(super) fn new(now: Instant, first_digest: Duration) -> Self {
        Self {
            up: now,
            agreed: None,
            next_digest: now + first_digest,
            unmatched: 0,
            next_buckets: now,
            met: false,
            word: false,
            targets: BTreeMap::new(),
            asked: None,
            request: false,
            unanswered: 0,
            rest_until: now,
            seen: VecDeque::new(),
            forks: BTreeSet::new(),
            news: VecDeque::new(),
            want_forks: BTreeSet::new(),
            want_pinned: false,
            pinned: Vec::new(),
            digest: None,
            buckets: false,
            answer: None,
            tell: BTreeSet::new(),
            vectors: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// This node knows more than before: he is to hear a digest soon.
    pub(super) fn changed(&mut self, now: Instant) {
        self.unmatched = 0;
        self.next_digest = self.next_digest.min(now + DIGEST_FIRST);
    }

    /// He and this node are comparing: no need for another digest at once.
    pub(super) fn comparing(&mut self, now: Instant) {
        self.next_digest = self.next_digest.max(now + DIGEST_FIRST);
    }

    /// The moment of the digest after one at `now` that has no match yet.
    pub(super) fn postpone(&mut self, now: Instant) {
        let doublings = self.unmatched.saturating_sub(DIGESTS_SOON).div_ceil(DIGESTS_MORE).min(16);
        self.next_digest = now + (DIGEST_FIRST * (1 << doublings)).min(DIGEST_LAST);
        self.unmatched = self.unmatched.saturating_add(1);
    }

    pub(super) fn agree(&mut self, now: Instant, digest: Digest) {
        self.agreed = Some(digest);
        self.next_digest = now + 2 * DIGEST_LAST;
        self.unmatched = 0;
        self.met = true;
        self.word = true;
    }

    /// He has this entry.
    pub(super) fn has(&mut self, hash: ShortHash) {
        if !self.seen.contains(&hash) {
            if self.seen.len() >= SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back(hash);
        }
    }

    pub(super) fn has_seen(&self, hash: &ShortHash) -> bool {
        self.seen.contains(hash)
    }

    /// He is to hear of this entry, unless he is known to be as far.
    pub(super) fn push(&mut self, place: Place) {
        let ahead = self.targets.get(&place.log()).is_some_and(|target| target.known.seq >= place.seq);
        if self.met && !ahead && self.news.len() < NEWS_MAX {
            self.news.push_back(place);
        }
    }

    /// He knows more of this log.
    pub(super) fn aim(&mut self, known: Known) {
        if let Some(target) = self.targets.get_mut(&known.log) {
            target.known = known;
        } else if self.targets.len() < TARGETS_MAX {
            self.targets.insert(known.log, Target { known, after: None, step: 0 });
        }
    }

    /// Something came of the request for this log; from where to go on with it, if not from our end.
    pub(super) fn progress(&mut self, log: LogId, after: Option<u64>) {
        if let Some(target) = self.targets.get_mut(&log) {
            target.after = after;
        }
        if let Some(asked) = &mut self.asked {
            asked.progress = true;
        }
    }

    pub(super) fn show_fork(&mut self, log: LogId) {
        add(&mut self.forks, FORKS_MAX, log);
    }

    pub(super) fn want_fork(&mut self, log: LogId) {
        add(&mut self.want_forks, FORKS_MAX, log);
    }

    pub(super) fn tell_of(&mut self, log: LogId) {
        add(&mut self.tell, TELL_MAX, log);
    }

    pub(super) fn list(&mut self, bucket: usize) {
        debug_assert!(bucket < BUCKETS);
        self.vectors.entry(bucket).or_insert(LogId { author: crate::vector::first_of(bucket), life: 0 });
    }
}

fn add(set: &mut BTreeSet<LogId>, most: usize, log: LogId) {
    if set.len() < most {
        set.insert(log);
    }
}
