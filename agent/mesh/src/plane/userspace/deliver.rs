//! Writing to the device, as few and as large packets as the flows allow.

use std::{io::IoSlice, ops::Range};

use super::{Drops, count};
use crate::{
    packet::{Coalescer, IpHeader, MAX_SEGMENTS, VNET_LEN},
    plane::PacketDevice,
};

/// The packets that go to the device next.
pub(super) struct Deliver {
    coalescer: Coalescer,
}

impl Deliver {
    /// `udp_segments`: the device takes super-packets of UDP.
    pub(super) fn new(udp_segments: bool) -> Self {
        Self { coalescer: Coalescer::new(udp_segments) }
    }

    /// The packet at `at` in `arena` goes to the device. It must stay there until [`Self::flush`] with the same arena.
    #[inline]
    pub(super) fn push(
        &mut self,
        device: &impl PacketDevice,
        drops: &Drops,
        arena: &mut [u8],
        at: Range<usize>,
        header: &IpHeader,
        partial: bool,
    ) {
        if !self.coalescer.push(arena, at.clone(), header, partial) {
            self.flush(device, drops, arena);
            // An empty one takes everything.
            self.coalescer.push(arena, at, header, partial);
        }
    }

    /// Writes what is there.
    pub(super) fn flush(&mut self, device: &impl PacketDevice, drops: &Drops, arena: &mut [u8]) {
        let Some(whole) = self.coalescer.take(arena) else { return };
        let vnet = whole.vnet.bytes();
        let mut parts = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        parts[0] = IoSlice::new(&vnet);
        parts[1] = IoSlice::new(&arena[whole.first]);
        for (part, range) in parts[2..].iter_mut().zip(whole.rest) {
            *part = IoSlice::new(&arena[range.clone()]);
        }
        if device.write(&parts[..2 + whole.rest.len()]).is_err() {
            count(&drops.device);
        }
    }
}

/// Writes one packet without offload.
pub(super) fn write_single(device: &impl PacketDevice, drops: &Drops, packet: &[u8]) {
    if device.write(&[IoSlice::new(&[0; VNET_LEN]), IoSlice::new(packet)]).is_err() {
        count(&drops.device);
    }
}
