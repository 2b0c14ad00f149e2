//! Frames on an interface (`AF_PACKET`, packet(7)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Namespace;

/// The largest frame: a segmentation-offload packet of 64 KiB and its Ethernet header.
pub(crate) const MAX_FRAME: usize = 65536 + 64;

const RECEIVE_BUFFER: libc::c_int = 32 << 20;

/// Which way a frame went, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in from the cable.
    In,
    /// It went out to the cable.
    Out,
}

/// A socket that sees and sends whole Ethernet frames on one interface. Does not block.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on the interface `name` of a namespace. With `incoming_only` it does not see what goes out there.
    ///
    /// # Errors
    /// If the namespace has no such interface or the right (CAP_NET_RAW) is missing.
    pub fn open(namespace: &Namespace, name: &str, incoming_only: bool) -> Result<Self> {
        namespace
            .inside(|| Self::open_here(name, libc::ETH_P_ALL as u16, incoming_only))
            .with_context(|| format!("opening a packet socket on {name} in {}", namespace.name()))
    }

    /// Opens a socket that only sends: nothing piles up in it.
    pub(crate) fn sender(namespace: &Namespace, name: &str) -> Result<Self> {
        namespace
            .inside(|| Self::open_here(name, 0, true))
            .with_context(|| format!("opening a packet socket on {name} in {}", namespace.name()))
    }

    /// `protocol` is what it receives (linux/if_ether.h); 0: nothing.
    fn open_here(name: &str, protocol: u16, incoming_only: bool) -> io::Result<Self> {
        let name = std::ffi::CString::new(name).map_err(io::Error::other)?;
        // SAFETY: `name` is a string that ends in zero and lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // Protocol 0: nothing is received before the bind below names the interface.
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and nobody else owns it.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).or_else(|_| {
            // Inside a user namespace only the plain option is allowed, up to the system's limit.
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)
        })?;
        if incoming_only {
            socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        }
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: the pointer and the length are those of a sockaddr_ll that lives through the call.
        let outcome = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    fn set(&self, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of an int that lives through the call.
        let outcome = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that waits, or `None`.
    ///
    /// # Errors
    /// What recvfrom(2) gives, as when the interface goes away. A downed interface is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Direction)>> {
        loop {
            // SAFETY: all-zero bytes are a valid sockaddr_ll.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the buffer and the address are valid for writing with the lengths given.
            let count = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            if count >= 0 {
                let outgoing = libc::c_uint::from(from.sll_pkttype) == libc::c_uint::from(libc::PACKET_OUTGOING);
                return Ok(Some((count as usize, if outgoing { Direction::Out } else { Direction::In })));
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENETDOWN)) => {}
                error => return Err(error),
            }
        }
    }

    /// Sends one whole frame out of the interface.
    ///
    /// # Errors
    /// What send(2) gives: no buffers, interface down, frame too long for its MTU.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of `frame`.
        let count = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Frames that the kernel dropped because nobody read fast enough, since the last call.
    ///
    /// # Errors
    /// What getsockopt(2) gives.
    pub fn dropped(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the structure is valid for writing with the length given.
        let outcome = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(statistics.tp_drops) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of the sockets has something to read, for at most `limit`.
pub(crate) fn wait_readable<T: AsFd>(sockets: &[T], limit: Duration) {
    let mut polls: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    // An interrupted or failed wait is only a short one: the callers read without blocking.
    let _ = rustix::event::poll(&mut polls, Some(&limit));
}
