//! One link's way into the kernel, as one thread uses it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use grange_core::Instant;
use quinn_udp::{Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags};

use super::{
    Drops,
    backlog::{Backlog, Pool},
    count,
};
use crate::underlay::{Outlet, Underlay};

/// How long single datagrams are sent after the kernel refused a batch. It refuses for ever if the interface cannot
/// finish checksums, but also once while an interface's MTU has just shrunk.
const WITHOUT_OFFLOAD: Duration = Duration::from_secs(30);

/// A socket with segmentation offload where the kernel takes it, and the frames that wait for it.
///
/// Links have lanes of their own because a socket's send buffer counts what stands in an interface's queue: frames for
/// a slow link must not use up the room of all.
pub(super) struct Lane {
    outlet: Arc<Outlet>,
    state: UdpSocketState,
    /// When the kernel refused a batch.
    refused_at: Option<Instant>,
    backlog: Backlog,
}

impl Lane {
    /// # Errors
    /// The socket's options cannot be set.
    pub(super) fn new(underlay: &Underlay, outlet: &Arc<Outlet>) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new(outlet.socket(underlay).into())?,
            outlet: Arc::clone(outlet),
            refused_at: None,
            backlog: Backlog::default(),
        })
    }

    /// Whether it leads to this socket.
    #[inline]
    pub(super) fn is_of(&self, outlet: &Arc<Outlet>) -> bool {
        Arc::ptr_eq(&self.outlet, outlet)
    }

    /// Most frames in a batch.
    #[inline]
    pub(super) fn max_frames(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// What to wait for, if frames wait for the socket.
    pub(super) fn interest<'a>(&'a self, underlay: &'a Underlay) -> Option<PollFd<'a>> {
        (!self.backlog.is_empty()).then(|| PollFd::new(self.outlet.socket(underlay), PollFlags::OUT))
    }

    /// Sends frames, or lets them wait behind those that do. Never blocks.
    pub(super) fn send(
        &mut self,
        underlay: &Underlay,
        drops: &Drops,
        pool: &mut Pool,
        now: Instant,
        (destination, frames, frame): (SocketAddr, &[u8], usize),
    ) {
        // Control datagrams that wait go first where they go the same way.
        let blocked = !self.backlog.is_empty()
            || (self.outlet.is_shared() && underlay.has_waiting())
            || matches!(
                self.try_send(underlay, drops, now, destination, frames, frame),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            );
        if blocked {
            let lost = self.backlog.push(pool, now, destination, frames, frame);
            drops.congested.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn drain(&mut self, underlay: &Underlay, drops: &Drops, pool: &mut Pool, now: Instant) {
        if self.backlog.is_empty() || (self.outlet.is_shared() && underlay.has_waiting()) {
            return;
        }
        let mut backlog = std::mem::take(&mut self.backlog);
        let dropped = backlog.drain(pool, now, |destination, frames, frame| {
            self.try_send(underlay, drops, now, destination, frames, frame)
        });
        self.backlog = backlog;
        drops.congested.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Drops what waits.
    pub(super) fn clear(&mut self, drops: &Drops, pool: &mut Pool) {
        drops.congested.fetch_add(self.backlog.clear(pool), Ordering::Relaxed);
    }

    /// # Errors
    /// `WouldBlock` only: everything else is counted and lost.
    fn try_send(
        &mut self,
        underlay: &Underlay,
        drops: &Drops,
        now: Instant,
        destination: SocketAddr,
        frames: &[u8],
        frame: usize,
    ) -> io::Result<()> {
        let socket = self.outlet.socket(underlay);
        if let Some(refused) = self.refused_at
            && now >= refused + WITHOUT_OFFLOAD
            && let Ok(fresh) = UdpSocketState::new(socket.into())
        {
            (self.state, self.refused_at) = (fresh, None);
        }
        let state = &self.state;
        let put = |contents: &[u8]| {
            let transmit = Transmit { destination, ecn: None, contents, segment_size: Some(frame), src_ip: None };
            state.try_send(socket.into(), &transmit)
        };
        if state.max_gso_segments() > 1 || frames.len() <= frame {
            match put(frames) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if frames.len() <= frame || state.max_gso_segments() > 1 => {
                    tracing::trace!(%destination, %error, "frames not sent");
                    drops.refused.fetch_add(frames.len().div_ceil(frame) as u64, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(%destination, %error, "the kernel refused a batch: sending datagrams one by one");
                    self.refused_at = Some(now);
                }
            }
        }
        for (index, single) in frames.chunks(frame).enumerate() {
            match put(single) {
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
}
