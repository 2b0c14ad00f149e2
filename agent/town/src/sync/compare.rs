//! Finding out who knows what: digests, buckets, vectors.

use std::time::Duration;

use grange_core::Instant;
use grange_wire::NodeId;

use super::LogSync;
use crate::{
    entry::{Author, LogId},
    log::{Archive, Logs},
    vector::{Digest, Known, bucket_of},
};

/// How often a neighbour's list of buckets is looked at, at most: answering is much more work than asking.
const BUCKETS_EVERY: Duration = Duration::from_millis(250);

/// Up to how many entries are sent to a neighbour who shows that he lacks them, without being asked.
const NEWS_FEW: usize = 16;

impl LogSync {
    pub(super) fn on_digest<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        theirs: Digest,
        answer: bool,
        logs: &mut Logs<A>,
    ) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if theirs == logs.digest() {
            neighbour.agree(now, theirs);
            neighbour.targets.clear();
            if !answer {
                neighbour.digest = Some(true);
            }
        } else {
            neighbour.agreed = None;
            neighbour.buckets = true;
            neighbour.comparing(now);
        }
    }

    pub(super) fn on_buckets<A: Archive>(&mut self, now: Instant, peer: NodeId, theirs: &[Digest], logs: &mut Logs<A>) {
        let own = bucket_of(self.own);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if now < neighbour.next_buckets {
            return;
        }
        neighbour.next_buckets = now + BUCKETS_EVERY;
        let mut same = true;
        for (bucket, (ours, theirs)) in logs.digests().iter().zip(theirs).enumerate() {
            if ours != theirs {
                same = false;
                neighbour.list(bucket);
            } else if bucket == own {
                neighbour.word = true;
            }
        }
        if same {
            neighbour.agree(now, logs.digest());
            neighbour.digest = Some(true);
        } else {
            neighbour.comparing(now);
        }
    }

    pub(super) fn on_vector<A: Archive>(
        &mut self,
        now: Instant,
        peer: NodeId,
        all: Option<(LogId, LogId)>,
        theirs: &[Known],
        logs: &Logs<A>,
        known: &dyn Fn(&Author) -> bool,
    ) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.met = true;
        let mut behind = false;
        for item in theirs {
            let missing = logs.missing(item);
            if missing.after.is_none() && !missing.fork {
                neighbour.targets.remove(&item.log);
            } else if known(&item.log.author) {
                behind |= item.log.author == self.own;
                neighbour.aim(*item);
                if missing.fork {
                    neighbour.want_fork(item.log);
                }
            } else {
                neighbour.counters.strangers += 1;
            }
            if logs.more_than(item) && all.is_some() {
                // Few entries are sent at once: that saves the question. He is told in any case.
                let few = neighbour.news.len() < NEWS_FEW;
                let ours = logs.head(item.log).map_or(0, |head| head.seq);
                if few && ours > item.seq && ours - item.seq <= NEWS_FEW as u64 && item.fork == 0 {
                    (item.seq + 1..=ours).for_each(|seq| neighbour.push(item.log.at(seq)));
                }
                neighbour.tell_of(item.log);
            }
        }
        let Some((from, to)) = all else { return };
        neighbour.comparing(now);
        // What is not in the list the neighbour does not know at all. Both are in the same order.
        let mut listed = theirs.iter().map(|item| item.log).peekable();
        for ours in logs.known_from(from).take_while(|ours| ours.log <= to) {
            while listed.next_if(|log| *log < ours.log).is_some() {}
            if listed.peek() != Some(&ours.log) && (ours.seq > 0 || ours.fork > 0) {
                neighbour.tell_of(ours.log);
            }
        }
        let own = |life| LogId { author: self.own, life };
        if from <= own(0) && own(u64::MAX) <= to && !behind {
            neighbour.word = true;
        }
    }
}
