//! Sealed frames that wait for the socket to take more.

use std::{collections::VecDeque, io, net::SocketAddr};

use grange_core::Instant;

use super::codel::Codel;

/// Most bytes that wait in one direction.
const MAX_BYTES: usize = 512 << 10;

/// Most batches that wait in one direction.
const MAX_BATCHES: usize = 1024;

/// Emptied buffers that are kept for the next batches.
const SPARE: usize = 8;

/// A queue of batches, bounded in bytes, whose head [`Codel`] watches.
#[derive(Default)]
pub(super) struct Backlog {
    batches: VecDeque<Waiting>,
    bytes: usize,
    codel: Codel,
    spare: Vec<Vec<u8>>,
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

/// What became of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Frames that queue management dropped.
    pub(super) dropped: u64,
}

impl Backlog {
    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Lets frames of `frame` bytes each (the last may be shorter) wait. Gives `false` if there is no room.
    pub(super) fn push(&mut self, now: Instant, destination: SocketAddr, frames: &[u8], frame: usize) -> bool {
        if self.bytes + frames.len() > MAX_BYTES || self.batches.len() >= MAX_BATCHES {
            return false;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frames);
        self.bytes += bytes.len();
        self.batches.push_back(Waiting { destination, bytes, from: 0, frame: frame.max(1), since: now });
        true
    }

    /// Sends as long as `send` does not say `WouldBlock`. Other errors lose the batch: `send` counts them.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8], usize) -> io::Result<()>,
    ) -> Drained {
        let mut drained = Drained::default();
        while let Some(head) = self.batches.front_mut() {
            // One frame of a batch is dropped, not the batch: sixty lost segments in a row would stall a flow.
            let last = self.bytes <= head.frame;
            if self.codel.drops(now, now.since(head.since), last) {
                let frame = head.frame.min(head.bytes.len() - head.from);
                head.from += frame;
                self.bytes -= frame;
                drained.dropped += 1;
            } else {
                match send(head.destination, &head.bytes[head.from..], head.frame) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return drained,
                    _ => {
                        self.bytes -= head.bytes.len() - head.from;
                        head.from = head.bytes.len();
                    }
                }
            }
            if head.from == head.bytes.len()
                && let Some(done) = self.batches.pop_front()
                && self.spare.len() < SPARE
            {
                self.spare.push(done.bytes);
            }
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn is_bounded_and_keeps_the_order() {
        let mut backlog = Backlog::default();
        let frames = [0; 64_000];
        let taken = (0..20).take_while(|_| backlog.push(Instant::START, TO, &frames, 1400)).count();
        assert_eq!(taken, MAX_BYTES / 64_000);
        assert!(backlog.push(Instant::START, TO, &[1; 100], 100));
        let mut sent = Vec::new();
        backlog.drain(Instant::START, |_, bytes, _| {
            sent.push(bytes.len());
            Ok(())
        });
        assert_eq!(sent.len(), taken + 1);
        assert_eq!(sent.last(), Some(&100));
        assert!(backlog.is_empty() && backlog.bytes == 0);
    }

    #[test]
    fn a_standing_queue_loses_single_frames() {
        let mut backlog = Backlog::default();
        let mut sent = 0;
        let mut dropped = 0;
        for millis in 0..1000u64 {
            let now = Instant::from_micros(millis * 1000);
            // What comes in is as much as goes out, behind a queue of ten.
            if millis == 0 {
                (0..10).for_each(|_| assert!(backlog.push(now, TO, &[0; 3000], 1000)));
            }
            assert!(backlog.push(now, TO, &[0; 3000], 1000));
            let mut room = true;
            dropped += backlog
                .drain(now, |_, bytes, _| {
                    if std::mem::take(&mut room) {
                        sent += bytes.len();
                        Ok(())
                    } else {
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                })
                .dropped;
        }
        assert!((5..100).contains(&dropped), "{dropped}");
        assert_eq!(sent + backlog.bytes + usize::try_from(dropped).unwrap() * 1000, 3000 * 1010);
        assert!(Duration::from_millis(20) > Duration::from_millis(u64::try_from(backlog.batches.len()).unwrap()));
    }
}
