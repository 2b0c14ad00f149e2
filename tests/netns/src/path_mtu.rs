//! How large a packet passes, and whether the network says so.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::Namespace;

/// A UDP socket connected to an [`EchoServer`](crate::EchoServer) that never lets its packets be fragmented.
#[derive(Debug)]
pub struct PathMtuProbe {
    socket: UdpSocket,
    server: IpAddr,
}

impl PathMtuProbe {
    /// A probe of the way from this namespace to the echo server at `server`.
    ///
    /// # Errors
    /// If the socket cannot be made or there is no route.
    pub fn new(namespace: &Namespace, server: IpAddr) -> Result<Self> {
        let any: SocketAddr = if server.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
        let socket = namespace
            .inside(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(SocketAddr::new(server, 7))?;
                Ok(socket)
            })
            .with_context(|| format!("connecting to {server} from {}", namespace.name()))?;
        let (level, option, value) = if server.is_ipv6() {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        };
        // SAFETY: the pointer and the length are those of an int that lives through the call.
        let outcome = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if outcome < 0 {
            return Err(io::Error::last_os_error()).context("forbidding fragments");
        }
        Ok(Self { socket, server })
    }

    /// What the kernel believes about the way at this moment: the largest IP packet in bytes.
    ///
    /// # Errors
    /// What getsockopt(2) gives.
    pub fn path_mtu(&self) -> io::Result<u32> {
        let (level, option) =
            if self.server.is_ipv6() { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value is valid for writing with the length given.
        let outcome = unsafe {
            libc::getsockopt(self.socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length)
        };
        if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(value as u32) }
    }

    /// Whether an IP packet of exactly `size` bytes goes there and back, asked up to `attempts` times. `false`: no
    /// answer, or the kernel already knows that it is too large.
    ///
    /// # Errors
    /// What the socket gives otherwise.
    pub fn passes(&self, size: usize, attempts: u32) -> Result<bool> {
        let header = if self.server.is_ipv6() { 48 } else { 28 };
        let mut payload = vec![b'm'; size.saturating_sub(header)];
        let mut answer = vec![0; 65536];
        for attempt in 0..attempts {
            payload[0] = attempt as u8;
            match self.socket.send(&payload) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(false),
                // The answer of a moment ago (no route, refused) is told at the next call.
                Err(_) => continue,
            }
            self.socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            while let Ok(length) = self.socket.recv(&mut answer) {
                if answer[..length] == payload[..] {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
