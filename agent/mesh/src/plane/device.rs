//! Where packets enter and leave the machine's own network stack.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
};

/// A packet device with offload, as a Linux TUN opened with `IFF_VNET_HDR`: every packet has a `virtio_net_hdr` (10
/// bytes, [`VnetHeader`](super::VnetHeader)) before it, and may be a super-packet of up to 64 KiB that one of
/// the two sides cuts into segments.
///
/// One thread reads while another one writes.
pub trait PacketDevice: Send + Sync + 'static {
    /// Reads one packet behind its header; never blocks.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else means that the device is gone.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes one packet, the concatenation of `parts`, the first of which begins with the header; never blocks.
    ///
    /// # Errors
    /// Those of the device. The packet is lost then.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Becomes readable when [`Self::read`] has something.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether super-packets of UDP datagrams may be written (`TUN_F_USO4`, Linux 6.2).
    fn takes_udp_segments(&self) -> bool;
}
