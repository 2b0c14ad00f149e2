//! Frames that go out in one send: a UDP GSO buffer.

use std::sync::Arc;

use super::{
    frame::{self, HEADER_LEN, OVERHEAD},
    tables::Link,
};
use crate::plane::aead::{FrameKey, NotAuthentic, TAG_LEN};

/// Longest UDP payload over IPv4, which bounds a batch over IPv6 too.
const MAX_BYTES: usize = 65_507;

/// The longest packet in one frame.
pub(super) const MAX_PACKET: u16 = 65_474;
const _: () = assert!(MAX_PACKET as usize + OVERHEAD == MAX_BYTES);

/// Frames of one link, of equal length but for the last, sealed into the buffer that is sent.
pub(super) struct Batch {
    bytes: Box<[u8]>,
    len: usize,
    frame: usize,
    frames: usize,
    /// A shorter frame ended it.
    closed: bool,
    link: Option<Arc<Link>>,
}

impl Batch {
    /// An empty batch.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; MAX_BYTES].into(), len: 0, frame: 0, frames: 0, closed: false, link: None }
    }

    /// Whether a packet of `len` bytes for `link` may be added. An empty batch takes any that fits a datagram.
    #[inline]
    pub(super) fn takes(&self, link: &Arc<Link>, len: usize, max_frames: usize) -> bool {
        let frame = len + OVERHEAD;
        if self.len + frame > MAX_BYTES {
            return false;
        }
        self.link.as_ref().is_none_or(|current| {
            Arc::ptr_eq(current, link) && !self.closed && frame <= self.frame && self.frames < max_frames
        })
    }

    /// Seals `plain`, flags and packet, as the next frame, from where it is straight into the batch. Only if
    /// [`Self::takes`] the packet.
    #[inline]
    pub(super) fn push(&mut self, link: &Arc<Link>, counter: u64, plain: &[u8]) {
        self.add(link, counter, plain.len(), |key, header, out| key.seal(counter, header, plain, out));
    }

    /// Seals a packet of `len` bytes, which `fill` writes, as the next frame. Only if [`Self::takes`] it.
    #[inline]
    pub(super) fn push_with(
        &mut self,
        link: &Arc<Link>,
        counter: u64,
        flags: u8,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        self.add(link, counter, 1 + len, |key, header, out| {
            out[0] = flags;
            fill(&mut out[1..=len]);
            key.seal_in_place(counter, header, out)
        });
    }

    /// Adds a frame for `plain` bytes of plaintext, which `seal` makes behind its header.
    #[inline]
    fn add(
        &mut self,
        link: &Arc<Link>,
        counter: u64,
        plain: usize,
        seal: impl FnOnce(&FrameKey, &[u8; HEADER_LEN], &mut [u8]) -> Result<(), NotAuthentic>,
    ) {
        let size = HEADER_LEN + plain + TAG_LEN;
        let Some(frame) = self.bytes.get_mut(self.len..self.len + size) else { return };
        let Some((place, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else { return };
        *place = frame::header(link.session.remote, counter);
        if seal(link.session.sealer(), place, sealed).is_err() {
            return;
        }
        if self.link.is_none() {
            self.link = Some(Arc::clone(link));
            self.frame = size;
        }
        self.closed = size < self.frame;
        self.len += size;
        self.frames += 1;
    }

    /// What is to be sent, if anything: to which link, the frames, the length of each but the last.
    #[inline]
    pub(super) fn contents(&self) -> Option<(&Arc<Link>, &[u8], usize)> {
        Some((self.link.as_ref()?, &self.bytes[..self.len], self.frame))
    }

    /// Empties it.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.len, self.frame, self.frames, self.closed, self.link) = (0, 0, 0, false, None);
    }
}
