//! Sealing and sending; each thread has its own.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use grange_core::Instant;
use quinn_udp::{Transmit, UdpSocketState};

use super::{
    Drops, Shared,
    backlog::Backlog,
    batch::Batch,
    count,
    frame::{FIRST, OVERHEAD, PARTIAL, SECOND, WHOLE},
    reassembly::MAX_PACKET,
    tables::Link,
};
use crate::{
    packet::{IpHeader, Segmenter},
    plane::MIN_MTU,
    underlay::Underlay,
};

/// How long single datagrams are sent after the kernel refused a batch. It refuses for ever if the interface cannot
/// finish checksums, but also once while an interface's MTU has just shrunk.
const WITHOUT_OFFLOAD: Duration = Duration::from_secs(30);

/// Largest IPv4 packet without "don't fragment" that is sent in two parts: what hosts on an Ethernet send.
const MAX_CUT_V4: usize = 1500;
const _: () = assert!(MAX_CUT_V4 <= MAX_PACKET);

/// The packet does not fit the link and may not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBig {
    /// What the sender shall be told, in bytes.
    pub(super) mtu: u16,
}

/// One thread's way out to the links.
pub(super) struct Egress<D> {
    shared: Arc<Shared<D>>,
    sender: Sender,
    batch: Batch,
    backlog: Backlog,
    started: std::time::Instant,
}

impl<D> Egress<D> {
    /// # Errors
    /// The socket's options cannot be set.
    pub(super) fn new(shared: Arc<Shared<D>>) -> io::Result<Self> {
        let sender = Sender { state: UdpSocketState::new(shared.underlay.socket().into())?, refused_at: None };
        Ok(Self {
            shared,
            sender,
            batch: Batch::new(),
            backlog: Backlog::default(),
            started: std::time::Instant::now(),
        })
    }

    /// The thread's clock.
    pub(super) fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    /// Seals one packet for `link`, in two parts if it must.
    ///
    /// # Errors
    /// [`TooBig`].
    #[inline]
    pub(super) fn packet(
        &mut self,
        link: &Arc<Link>,
        packet: &[u8],
        header: &IpHeader,
        partial: bool,
    ) -> Result<(), TooBig> {
        let partial = if partial { PARTIAL } else { 0 };
        if packet.len() > usize::from(link.mtu) {
            let may_cut = packet.len() <= usize::from(MIN_MTU) || (!header.whole_only && packet.len() <= MAX_CUT_V4);
            if !may_cut {
                return Err(TooBig { mtu: link.mtu.max(MIN_MTU) });
            }
            let Some(counter) = link.session.reserve(2) else { return Ok(()) };
            let (first, second) = packet.split_at(packet.len().div_ceil(2));
            self.push(link, counter, partial | FIRST, first.len(), |out| out.copy_from_slice(first));
            self.push(link, counter + 1, partial | SECOND, second.len(), |out| out.copy_from_slice(second));
            link.counters.sent(2, packet.len() as u64);
            return Ok(());
        }
        let Some(counter) = link.session.reserve(1) else { return Ok(()) };
        self.push(link, counter, partial | WHOLE, packet.len(), |out| out.copy_from_slice(packet));
        link.counters.sent(1, packet.len() as u64);
        Ok(())
    }

    /// Cuts a super-packet and seals its segments for `link`.
    ///
    /// # Errors
    /// [`TooBig`]: the segments do not fit the link.
    pub(super) fn segments(&mut self, link: &Arc<Link>, segmenter: &Segmenter, packet: &[u8]) -> Result<(), TooBig> {
        if segmenter.len(0) > usize::from(link.mtu) {
            return Err(TooBig { mtu: link.mtu.max(MIN_MTU) });
        }
        let frames = segmenter.count();
        let Some(first) = link.session.reserve(frames as u64) else { return Ok(()) };
        let mut bytes = 0;
        for index in 0..frames {
            let len = segmenter.len(index);
            bytes += len as u64;
            self.push(link, first + index as u64, PARTIAL | WHOLE, len, |out| segmenter.write(packet, index, out));
        }
        link.counters.sent(frames as u64, bytes);
        Ok(())
    }

    #[inline]
    fn push(&mut self, link: &Arc<Link>, counter: u64, flags: u8, len: usize, fill: impl FnOnce(&mut [u8])) {
        if !self.batch.takes(link, len, self.sender.max_frames()) {
            self.flush();
        }
        self.batch.push(link, counter, flags, len, fill);
    }

    /// Sends what is sealed. Never blocks: what the socket does not take waits.
    pub(super) fn flush(&mut self) {
        let Some((link, frames, frame, _)) = self.batch.contents() else { return };
        let Shared { underlay, drops, .. } = &*self.shared;
        // Control datagrams that wait go first.
        let blocked = !self.backlog.is_empty()
            || underlay.has_waiting()
            || matches!(
                self.sender.send(underlay, drops, link.destination, frames, frame, self.started),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            );
        if blocked {
            let now = Instant::START + self.started.elapsed();
            if !self.backlog.push(now, link.destination, frames, frame) {
                drops.congested.fetch_add(frames.len().div_ceil(frame) as u64, Ordering::Relaxed);
            }
        }
        self.batch.clear();
    }

    /// Whether the thread shall wait for the socket to take more.
    pub(super) fn wants_writable(&self) -> bool {
        !self.backlog.is_empty() || self.shared.underlay.has_waiting()
    }

    /// The socket takes more.
    pub(super) fn writable(&mut self) {
        let Shared { underlay, drops, .. } = &*self.shared;
        if underlay.has_waiting() {
            underlay.flush_waiting();
            if underlay.has_waiting() {
                return;
            }
        }
        let now = Instant::START + self.started.elapsed();
        let (sender, started) = (&mut self.sender, self.started);
        let drained = self
            .backlog
            .drain(now, |destination, frames, frame| sender.send(underlay, drops, destination, frames, frame, started));
        drops.congested.fetch_add(drained.dropped, Ordering::Relaxed);
    }
}

/// Sends with segmentation offload where the kernel takes it.
struct Sender {
    state: UdpSocketState,
    /// When the kernel refused a batch.
    refused_at: Option<Duration>,
}

impl Sender {
    #[inline]
    fn max_frames(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// # Errors
    /// `WouldBlock` only: everything else is counted and lost.
    fn send(
        &mut self,
        underlay: &Underlay,
        drops: &Drops,
        destination: SocketAddr,
        frames: &[u8],
        frame: usize,
        started: std::time::Instant,
    ) -> io::Result<()> {
        if let Some(refused) = self.refused_at
            && started.elapsed() >= refused + WITHOUT_OFFLOAD
            && let Ok(fresh) = UdpSocketState::new(underlay.socket().into())
        {
            (self.state, self.refused_at) = (fresh, None);
        }
        if self.max_frames() > 1 || frames.len() <= frame {
            match self.try_send(underlay, destination, frames, frame) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if frames.len() <= frame || self.max_frames() > 1 => {
                    tracing::trace!(%destination, %error, "frames not sent");
                    drops.refused.fetch_add(frames.len().div_ceil(frame) as u64, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(%destination, %error, "the kernel refused a batch: sending datagrams one by one");
                    self.refused_at = Some(started.elapsed());
                }
            }
        }
        for (index, single) in frames.chunks(frame).enumerate() {
            match self.try_send(underlay, destination, single, frame) {
                // Nothing is sent yet: all of it can wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && index == 0 => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let rest = frames.len() - index * frame;
                    drops.congested.fetch_add(rest.div_ceil(frame) as u64, Ordering::Relaxed);
                    return Ok(());
                }
                Err(_) => count(&drops.refused),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn try_send(&self, underlay: &Underlay, destination: SocketAddr, frames: &[u8], frame: usize) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents: frames, segment_size: Some(frame), src_ip: None };
        self.state.try_send(underlay.socket().into(), &transmit)
    }
}

const _: () = assert!(OVERHEAD == 33);
