//! Making the messages, one at a time, when a link can take one.

use grange_wire::NodeId;

use super::{
    LogSync,
    message::{FILL, LOGS_MAX, MESSAGE_MAX, Message, PINNED_MAX, WANTS_MAX},
    neighbour::{Answer, Neighbour},
};
use crate::{
    entry::{Entry, EntryRef},
    log::{Archive, Logs},
    store::StoreError,
    vector::{Known, last_of},
};

/// Bytes that an entry or a proof costs in a message besides its own.
const OVERHEAD: usize = 3;

impl LogSync {
    /// The next message, and for whom. Neighbours take turns.
    ///
    /// # Errors
    /// If the store fails. What was to be sent is then forgotten: the next digest finds it again.
    pub fn poll_message<A: Archive>(&mut self, logs: &mut Logs<A>) -> Result<Option<(NodeId, Vec<u8>)>, StoreError> {
        let after = self.last_sent.map_or(NodeId([0; 32]), |last| last);
        let later = self.neighbours.range(after..).map(|(peer, _)| *peer).filter(|peer| Some(*peer) != self.last_sent);
        let turns: Vec<NodeId> = later.chain(self.neighbours.range(..=after).map(|(peer, _)| *peer)).collect();
        for peer in turns {
            if let Some(bytes) = self.poll_message_for(peer, logs)? {
                self.last_sent = Some(peer);
                return Ok(Some((peer, bytes)));
            }
        }
        Ok(None)
    }

    /// The next message for one neighbour, for links that take messages at their own pace.
    ///
    /// # Errors
    /// As [`poll_message`](Self::poll_message).
    pub fn poll_message_for<A: Archive>(
        &mut self,
        peer: NodeId,
        logs: &mut Logs<A>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return Ok(None) };
        let asked = neighbour.asked.is_some();
        let bytes = next(neighbour, logs)?;
        if let Some(bytes) = &bytes {
            debug_assert!(bytes.len() <= MESSAGE_MAX);
            neighbour.counters.bytes_out += bytes.len() as u64;
        }
        if asked && neighbour.asked.is_none() {
            self.asked_of.retain(|_, asked| *asked != peer);
        }
        Ok(bytes)
    }
}

/// What is most urgent first.
fn next<A: Archive>(neighbour: &mut Neighbour, logs: &mut Logs<A>) -> Result<Option<Vec<u8>>, StoreError> {
    while let Some(log) = neighbour.forks.pop_first() {
        if let Some(proof) = logs.archive().fork(log)? {
            return Ok(Some(Message::Forks(vec![&proof.to_bytes()]).to_bytes()));
        }
    }
    if let Some(bytes) = news(neighbour, logs)? {
        return Ok(Some(bytes));
    }
    if neighbour.request || neighbour.want_pinned || !neighbour.want_forks.is_empty() {
        let after = if neighbour.request { LogSync::wants(neighbour, logs) } else { Vec::new() };
        let mut forks = Vec::new();
        while forks.len() < WANTS_MAX {
            let Some(log) = neighbour.want_forks.pop_first() else { break };
            forks.push(log);
        }
        if std::mem::take(&mut neighbour.request) && after.is_empty() {
            // It has come by another way in the meantime.
            neighbour.asked = None;
        }
        let mut pinned = Vec::new();
        if std::mem::take(&mut neighbour.want_pinned) {
            pinned.extend(logs.lacking().take(PINNED_MAX));
        }
        if !after.is_empty() || !forks.is_empty() || !pinned.is_empty() {
            return Ok(Some(Message::Want { after, forks, pinned }.to_bytes()));
        }
    }
    if let Some(answer) = neighbour.digest.take() {
        return Ok(Some(Message::Digest { digest: logs.digest(), answer }.to_bytes()));
    }
    if std::mem::take(&mut neighbour.buckets) {
        return Ok(Some(Message::Buckets(logs.digests()).to_bytes()));
    }
    if let Some(bytes) = answer(neighbour, logs)? {
        return Ok(Some(bytes));
    }
    if let Some(bytes) = pinned(neighbour, logs)? {
        return Ok(Some(bytes));
    }
    if let Some(bytes) = tell(neighbour, logs) {
        return Ok(Some(bytes));
    }
    Ok(vector(neighbour, logs))
}

/// Entries that the neighbour does not have yet.
fn news<A: Archive>(neighbour: &mut Neighbour, logs: &Logs<A>) -> Result<Option<Vec<u8>>, StoreError> {
    let mut entries = Vec::<Entry>::new();
    let mut bytes = 0;
    while let Some(place) = neighbour.news.front() {
        if let Some(entry) = logs.entry(*place)? {
            let hash = Known::short(entry.hash());
            if !neighbour.has_seen(&hash) {
                bytes += entry.as_bytes().len() + OVERHEAD;
                if !entries.is_empty() && bytes > FILL {
                    break;
                }
                neighbour.has(hash);
                entries.push(entry);
            }
        }
        neighbour.news.pop_front();
    }
    Ok((!entries.is_empty()).then(|| to_message(&entries, false)))
}

/// The next part of what the neighbour asked for.
fn answer<A: Archive>(neighbour: &mut Neighbour, logs: &Logs<A>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(answer) = &mut neighbour.answer else { return Ok(None) };
    let mut entries = Vec::new();
    let end = fill(answer, logs, &mut entries)?;
    if end {
        neighbour.answer = None;
    }
    Ok(Some(to_message(&entries, end)))
}

/// Takes as much of an answer as goes into a message; whether that was all.
fn fill<A: Archive>(answer: &mut Answer, logs: &Logs<A>, entries: &mut Vec<Entry>) -> Result<bool, StoreError> {
    let mut bytes = 0;
    while let Some((log, after)) = answer.after.front_mut() {
        let seq = after.saturating_add(1);
        let Some(entry) = logs.entry(log.at(seq))? else {
            answer.after.pop_front();
            continue;
        };
        let size = entry.as_bytes().len() + OVERHEAD;
        if size > answer.left {
            return Ok(true);
        }
        if !entries.is_empty() && bytes + size > FILL {
            return Ok(false);
        }
        answer.left -= size;
        bytes += size;
        *after = seq;
        entries.push(entry);
    }
    Ok(true)
}

/// Histories behind forks, from their ends down, as much as goes into a message.
fn pinned<A: Archive>(neighbour: &mut Neighbour, logs: &Logs<A>) -> Result<Option<Vec<u8>>, StoreError> {
    let mut entries = Vec::<Entry>::new();
    let mut bytes = 0;
    for mut at in std::mem::take(&mut neighbour.pinned) {
        while let Some(entry) = logs.find(at)? {
            bytes += entry.as_bytes().len() + OVERHEAD;
            if !entries.is_empty() && bytes > FILL {
                return Ok(Some(to_message(&entries, false)));
            }
            at = EntryRef { place: at.place.log().at(at.place.seq.saturating_sub(1)), hash: entry.previous() };
            entries.push(entry);
            // Below the fork it is the common history, which is asked for as such.
            if logs.head(at.place.log()).is_none_or(|head| at.place.seq <= head.seq) {
                break;
            }
        }
    }
    Ok((!entries.is_empty()).then(|| to_message(&entries, false)))
}

fn to_message(entries: &[Entry], end: bool) -> Vec<u8> {
    Message::Entries { entries: entries.iter().map(Entry::as_bytes).collect(), end }.to_bytes()
}

/// Logs that the neighbour knows less of.
fn tell<A: Archive>(neighbour: &mut Neighbour, logs: &Logs<A>) -> Option<Vec<u8>> {
    let mut known = Vec::new();
    while known.len() < LOGS_MAX {
        let Some(log) = neighbour.tell.pop_first() else { break };
        known.extend(logs.head(log).map(|head| Known::new(log, &head)));
    }
    (!known.is_empty()).then(|| Message::Vector { all: None, known }.to_bytes())
}

/// The next part of a bucket that differs.
fn vector<A: Archive>(neighbour: &mut Neighbour, logs: &Logs<A>) -> Option<Vec<u8>> {
    let (bucket, from) = neighbour.vectors.pop_first()?;
    let last = last_of(bucket);
    let mut listed = logs.known_from(from).take_while(|known| known.log <= last);
    let known: Vec<Known> = listed.by_ref().take(LOGS_MAX).collect();
    let to = match (listed.next(), known.last()) {
        (Some(next), Some(end)) => {
            neighbour.vectors.insert(bucket, next.log);
            end.log
        }
        _ => last,
    };
    Some(Message::Vector { all: Some((from, to)), known }.to_bytes())
}
