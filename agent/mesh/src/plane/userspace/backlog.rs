//! Sealed frames that wait for a link's socket to take more.

use std::{collections::VecDeque, io, net::SocketAddr};

use grange_core::Instant;

use super::codel::Codel;

/// Most bytes that wait for one link in one direction.
const MAX_BYTES: usize = 512 << 10;

/// Most batches that wait for one link in one direction.
const MAX_BATCHES: usize = 256;

/// Most bytes that wait for all links in one direction.
const MAX_TOTAL: usize = 3 << 20;

/// Emptied buffers that are kept for the next batches.
const SPARE: usize = 4;

/// The least that is put into a kept buffer: else small frames would hold large buffers.
const MIN_IN_SPARE: usize = 32 << 10;

/// What the backlogs of one thread share: a bound, and buffers.
#[derive(Default)]
pub(super) struct Pool {
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// Room for one more link's queue that has `queued` bytes. It may grow to what is left for all: so the links that
    /// are blocked share the room evenly, and one that is blocked alone cannot take all of it (Choudhury and Hahne,
    /// "Dynamic queue length thresholds for shared-memory packet switches", 1998).
    fn room(&self, queued: usize) -> usize {
        MAX_BYTES.min(MAX_TOTAL.saturating_sub(self.bytes)).saturating_sub(queued)
    }

    fn copy(&mut self, frames: &[u8]) -> Vec<u8> {
        let mut bytes = if frames.len() < MIN_IN_SPARE { Vec::new() } else { self.spare.pop().unwrap_or_default() };
        bytes.clear();
        bytes.extend_from_slice(frames);
        self.bytes += frames.len();
        bytes
    }

    fn take_back(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() >= MIN_IN_SPARE && self.spare.len() < SPARE {
            self.spare.push(bytes);
        }
    }
}

/// A queue of batches, bounded in bytes, whose head [`Codel`] watches.
#[derive(Default)]
pub(super) struct Backlog {
    batches: VecDeque<Waiting>,
    bytes: usize,
    codel: Codel,
}

struct Waiting {
    destination: SocketAddr,
    bytes: Vec<u8>,
    /// Where the frames begin that are not dropped.
    from: usize,
    /// Length of every frame but the last.
    frame: usize,
    since: Instant,
}

impl Backlog {
    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Lets frames of `frame` bytes each (the last may be shorter) wait, as many as there is room for. Gives the number
    /// of those that are lost.
    pub(super) fn push(
        &mut self,
        pool: &mut Pool,
        now: Instant,
        destination: SocketAddr,
        frames: &[u8],
        frame: usize,
    ) -> u64 {
        let frame = frame.max(1);
        let room = if self.batches.len() < MAX_BATCHES { pool.room(self.bytes) } else { 0 };
        let taken = if frames.len() <= room { frames.len() } else { room / frame * frame };
        if taken > 0 {
            let bytes = pool.copy(&frames[..taken]);
            self.bytes += taken;
            self.batches.push_back(Waiting { destination, bytes, from: 0, frame, since: now });
        }
        (frames.len() - taken).div_ceil(frame) as u64
    }

    /// Sends as long as `send` does not say `WouldBlock`; other errors lose the batch, and `send` counts them. Gives the
    /// number of frames that queue management dropped.
    pub(super) fn drain(
        &mut self,
        pool: &mut Pool,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8], usize) -> io::Result<()>,
    ) -> u64 {
        let mut dropped = 0;
        while let Some(head) = self.batches.front_mut() {
            // One frame of a batch is dropped, not the batch: sixty lost segments in a row would stall a flow.
            let last = self.bytes <= head.frame;
            let gone = if self.codel.drops(now, now.since(head.since), last) {
                dropped += 1;
                head.frame.min(head.bytes.len() - head.from)
            } else {
                match send(head.destination, &head.bytes[head.from..], head.frame) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return dropped,
                    _ => head.bytes.len() - head.from,
                }
            };
            head.from += gone;
            self.bytes -= gone;
            pool.bytes -= gone;
            if head.from == head.bytes.len()
                && let Some(done) = self.batches.pop_front()
            {
                pool.take_back(done.bytes);
            }
        }
        dropped
    }

    /// Drops everything. Gives the number of frames.
    pub(super) fn clear(&mut self, pool: &mut Pool) -> u64 {
        pool.bytes -= self.bytes;
        self.bytes = 0;
        self.batches.drain(..).map(|batch| (batch.bytes.len() - batch.from).div_ceil(batch.frame) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    /// Empties a backlog and gives the lengths of what was sent.
    fn emptied(backlog: &mut Backlog, pool: &mut Pool) -> Vec<usize> {
        let mut sent = Vec::new();
        backlog.drain(pool, Instant::START, |_, bytes, _| {
            sent.push(bytes.len());
            Ok(())
        });
        assert!(backlog.is_empty() && backlog.bytes == 0);
        sent
    }

    #[test]
    fn is_bounded_and_keeps_the_order() {
        let (mut backlog, mut pool) = (Backlog::default(), Pool::default());
        let frames = [0; 63_000];
        let lost: Vec<u64> = (0..20).map(|_| backlog.push(&mut pool, Instant::START, TO, &frames, 1400)).collect();
        // Whole frames, until there is no room for one.
        assert_eq!(lost[..8], [0; 8]);
        assert_eq!(lost[8], 45 - 14);
        assert!(lost[9..].iter().all(|lost| *lost == 45));
        assert_eq!(backlog.push(&mut pool, Instant::START, TO, &[1; 100], 100), 0);
        let sent = emptied(&mut backlog, &mut pool);
        assert_eq!(sent, [vec![63_000; 8], vec![14 * 1400], vec![100]].concat());
        assert_eq!(pool.bytes, 0);
        assert!(pool.spare.len() <= SPARE);
    }

    #[test]
    fn blocked_links_share_the_room() {
        let mut pool = Pool::default();
        let mut links: Vec<Backlog> = (0..50).map(|_| Backlog::default()).collect();
        for _ in 0..20 {
            for link in &mut links {
                link.push(&mut pool, Instant::START, TO, &[0; 60_000], 1200);
            }
        }
        assert!(pool.bytes <= MAX_TOTAL);
        assert!(links.iter().all(|link| link.bytes > MAX_TOTAL / 200), "each has some");
        assert!(links.iter().map(|link| link.bytes).max() <= Some(MAX_BYTES));
        let lost: u64 = links.iter_mut().map(|link| link.clear(&mut pool)).sum();
        assert_eq!(pool.bytes, 0);
        assert!(lost > 0 && links.iter().all(Backlog::is_empty));
    }

    #[test]
    fn a_standing_queue_loses_single_frames() {
        let (mut backlog, mut pool) = (Backlog::default(), Pool::default());
        let mut sent = 0;
        let mut dropped = 0;
        for millis in 0..1000u64 {
            let now = Instant::from_micros(millis * 1000);
            // What comes in is as much as goes out, behind a queue of ten.
            if millis == 0 {
                (0..10).for_each(|_| assert_eq!(backlog.push(&mut pool, now, TO, &[0; 3000], 1000), 0));
            }
            assert_eq!(backlog.push(&mut pool, now, TO, &[0; 3000], 1000), 0);
            let mut room = true;
            dropped += backlog.drain(&mut pool, now, |_, bytes, _| {
                if std::mem::take(&mut room) {
                    sent += bytes.len();
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
        }
        assert!((5..100).contains(&dropped), "{dropped}");
        assert_eq!(sent + backlog.bytes + usize::try_from(dropped).unwrap() * 1000, 3000 * 1010);
        assert_eq!(pool.bytes, backlog.bytes);
        assert!(Duration::from_millis(20) > Duration::from_millis(u64::try_from(backlog.batches.len()).unwrap()));
    }
}
