//! Who reaches whom: ICMPv6 echoes (RFC 4443, section 4.1) without a process for each.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{Namespace, packet::wait_readable};

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// A raw ICMPv6 socket inside a namespace that asks several addresses at once.
#[derive(Debug)]
pub struct Prober {
    fd: OwnedFd,
    round: u16,
}

impl Prober {
    /// A prober inside this namespace.
    ///
    /// # Errors
    /// If the right (CAP_NET_RAW) is missing.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let fd = namespace
            .inside(|| {
                // SAFETY: socket(2) takes no pointer.
                let fd = unsafe {
                    libc::socket(
                        libc::AF_INET6,
                        libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                        libc::IPPROTO_ICMPV6,
                    )
                };
                if fd < 0 {
                    return Err(io::Error::last_os_error());
                }
                // SAFETY: `fd` was just made and nobody else owns it.
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            })
            .context("opening a raw ICMPv6 socket")?;
        Ok(Self { fd, round: 0 })
    }

    /// Asks each address once and waits for all answers, at most `limit`. Gives the round-trip time of those that
    /// answered.
    pub fn probe(&mut self, targets: &[Ipv6Addr], limit: Duration) -> Vec<Option<Duration>> {
        self.round = self.round.wrapping_add(1);
        let start = Instant::now();
        let mut answers = vec![None; targets.len()];
        for (number, target) in targets.iter().enumerate() {
            let mut message = [0; 16];
            message[0] = ECHO_REQUEST;
            message[4..6].copy_from_slice(&self.round.to_be_bytes());
            message[6..8].copy_from_slice(&(number as u16).to_be_bytes());
            // Without a route, the address stays without an answer. The kernel fills the checksum in.
            let _ = self.send(&message, *target);
        }
        let mut buffer = [0; 2048];
        while answers.iter().any(Option::is_none) && start.elapsed() < limit {
            wait_readable(std::slice::from_ref(&self.fd), limit.saturating_sub(start.elapsed()));
            while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
                let Some(header) = buffer[..length].first_chunk::<8>() else { continue };
                let round = u16::from_be_bytes([header[4], header[5]]);
                let number = usize::from(u16::from_be_bytes([header[6], header[7]]));
                if header[0] == ECHO_REPLY
                    && round == self.round
                    && let Some(answer) = answers.get_mut(number)
                {
                    *answer = Some(start.elapsed());
                }
            }
        }
        answers
    }

    fn send(&self, message: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(to, 0, 0, 0);
        // SAFETY: all-zero bytes are a valid sockaddr_in6.
        let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        address.sin6_family = libc::AF_INET6 as u16;
        address.sin6_addr.s6_addr = to.ip().octets();
        // SAFETY: both pointers come with the length of what they point to, which lives through the call.
        let count = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_in6>() as libc::socklen_t,
            )
        };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
