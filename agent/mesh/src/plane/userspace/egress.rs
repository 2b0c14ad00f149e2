//! Sealing and sending; each thread has its own.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use grange_core::Instant;
use rustix::event::PollFd;

use super::{
    Shared,
    backlog::Pool,
    batch::Batch,
    frame::{FIRST, OVERHEAD, PARTIAL, SECOND, WHOLE},
    lane::Lane,
    reassembly::MAX_PACKET,
    tables::Link,
};
use crate::{
    packet::{IpHeader, MAX_SEGMENTS, Segmenter},
    plane::MIN_MTU,
    underlay::Underlay,
};

/// Largest IPv4 packet without "don't fragment" that is sent in two parts: what hosts on an Ethernet send.
const MAX_CUT_V4: usize = 1500;
const _: () = assert!(MAX_CUT_V4 <= MAX_PACKET);

/// Whether a packet of `len` bytes that does not fit is sent in two parts.
#[inline]
pub(super) fn may_be_cut(header: &IpHeader, len: usize) -> bool {
    len <= usize::from(MIN_MTU) || (!header.whole_only && len <= MAX_CUT_V4)
}

/// The packet does not fit the link and may not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBig {
    /// What the sender shall be told, in bytes.
    pub(super) mtu: u16,
}

/// One thread's way out to the links.
pub(super) struct Egress<D> {
    shared: Arc<Shared<D>>,
    batch: Batch,
    /// By the links' slots. A lane whose link is gone stays until the slot is used again.
    lanes: Vec<Option<Lane>>,
    pool: Pool,
    started: std::time::Instant,
}

impl<D> Egress<D> {
    /// Without any lane.
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self {
            shared,
            batch: Batch::new(),
            lanes: Vec::new(),
            pool: Pool::default(),
            started: std::time::Instant::now(),
        }
    }

    /// The thread's clock.
    pub(super) fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    /// Seals one packet for `link`, in two parts if it must. `plain`: a byte for the frame's flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]; the packet is as it was.
    #[inline]
    pub(super) fn packet(
        &mut self,
        link: &Arc<Link>,
        plain: &mut [u8],
        header: &IpHeader,
        partial: bool,
    ) -> Result<(), TooBig> {
        let flags = if partial { PARTIAL } else { 0 };
        let len = plain.len() - 1;
        let fits = len <= usize::from(link.mtu);
        if !fits && !may_be_cut(header, len) {
            return Err(TooBig { mtu: link.mtu.max(MIN_MTU) });
        }
        let frames = if fits { 1 } else { 2 };
        let Some(counter) = link.session.reserve(frames) else { return Ok(()) };
        if fits {
            self.whole(link, counter, flags, plain);
        } else {
            self.parts(link, counter, flags, plain);
        }
        link.counters.sent(frames, len as u64);
        Ok(())
    }

    /// Cuts a super-packet and seals its segments for `link`, each in two parts if it must. `plain`: a byte for the frame's
    /// flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]: the segments do not fit the link; the packet is as it was.
    pub(super) fn segments(&mut self, link: &Arc<Link>, segmenter: &Segmenter, plain: &mut [u8]) -> Result<(), TooBig> {
        let len = segmenter.len(0);
        let fits = len <= usize::from(link.mtu);
        if !fits && len > usize::from(MIN_MTU) {
            return Err(TooBig { mtu: link.mtu.max(MIN_MTU) });
        }
        let each = if fits { 1 } else { 2 };
        let frames = segmenter.count() as u64 * each;
        let Some(mut counter) = link.session.reserve(frames) else { return Ok(()) };
        let mut bytes = 0;
        for index in 0..segmenter.count() {
            // The byte before a segment is of the one before, which is sealed already.
            let segment = segmenter.place(&mut plain[1..], index);
            bytes += segment.len() as u64;
            let plain = &mut plain[segment.start..=segment.end];
            if fits || plain.len() - 1 <= usize::from(link.mtu) {
                self.whole(link, counter, PARTIAL, plain);
            } else {
                self.parts(link, counter, PARTIAL, plain);
            }
            counter += each;
        }
        link.counters.sent(frames, bytes);
        Ok(())
    }

    #[inline]
    fn whole(&mut self, link: &Arc<Link>, counter: u64, flags: u8, plain: &mut [u8]) {
        plain[0] = flags | WHOLE;
        self.push(link, counter, plain);
    }

    /// In two frames, with this counter and the next one.
    fn parts(&mut self, link: &Arc<Link>, counter: u64, flags: u8, plain: &mut [u8]) {
        let cut = (plain.len() - 1).div_ceil(2);
        plain[0] = flags | FIRST;
        self.push(link, counter, &plain[..=cut]);
        // The last byte of what is sealed already has room for the flags of what follows.
        plain[cut] = flags | SECOND;
        self.push(link, counter + 1, &plain[cut..]);
    }

    #[inline]
    fn push(&mut self, link: &Arc<Link>, counter: u64, plain: &[u8]) {
        if !self.batch.takes(link, plain.len() - 1, self.max_frames(link)) {
            self.flush();
        }
        self.batch.push(link, counter, plain);
    }

    /// As [`Batch::push_with`], for a packet of `len` bytes.
    #[inline]
    pub(super) fn push_with(
        &mut self,
        link: &Arc<Link>,
        counter: u64,
        flags: u8,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        if !self.batch.takes(link, len, self.max_frames(link)) {
            self.flush();
        }
        self.batch.push_with(link, counter, flags, len, fill);
    }

    /// Most frames in a batch for a link.
    #[inline]
    fn max_frames(&self, link: &Link) -> usize {
        match self.lanes.get(link.session.slot as usize) {
            Some(Some(lane)) => lane.max_frames(),
            // Known once there is a lane; a first batch that is too long goes out one by one.
            _ => MAX_SEGMENTS,
        }
    }

    /// Sends what is sealed. Never blocks: what the link's socket does not take waits.
    pub(super) fn flush(&mut self) {
        let Some((link, frames, frame)) = self.batch.contents() else { return };
        let Shared { underlay, drops, .. } = &*self.shared;
        let now = Instant::START + self.started.elapsed();
        match lane(&mut self.lanes, underlay, link) {
            Ok((lane, replaced)) => {
                if let Some(mut replaced) = replaced {
                    replaced.clear(drops, &mut self.pool);
                }
                lane.send(underlay, drops, &mut self.pool, now, (link.destination, frames, frame));
            }
            Err(error) => {
                tracing::debug!(%error, "a link's socket cannot be used");
                drops.refused.fetch_add(frames.len().div_ceil(frame) as u64, Ordering::Relaxed);
            }
        }
        self.batch.clear();
    }

    /// The sockets that frames wait for: [`Self::writable`] when one of them has something to say.
    pub(super) fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.lanes.iter().flatten().filter_map(|lane| lane.interest(&self.shared.underlay))
    }

    /// A socket takes more.
    pub(super) fn writable(&mut self) {
        let Shared { underlay, drops, .. } = &*self.shared;
        if underlay.has_waiting() {
            underlay.flush_waiting();
        }
        let now = Instant::START + self.started.elapsed();
        for lane in self.lanes.iter_mut().flatten() {
            lane.drain(underlay, drops, &mut self.pool, now);
        }
    }
}

/// The lane for a link, and the one of another link that was in its place.
fn lane<'a>(
    lanes: &'a mut Vec<Option<Lane>>,
    underlay: &Underlay,
    link: &Link,
) -> io::Result<(&'a mut Lane, Option<Lane>)> {
    let slot = link.session.slot as usize;
    if lanes.len() <= slot {
        lanes.resize_with(slot + 1, || None);
    }
    let place = &mut lanes[slot];
    let replaced = place.take_if(|lane| !lane.is_of(&link.outlet));
    let lane = match place {
        Some(lane) => lane,
        None => place.insert(Lane::new(underlay, &link.outlet)?),
    };
    Ok((lane, replaced))
}

const _: () = assert!(OVERHEAD == 33);
