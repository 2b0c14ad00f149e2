//! Sockets that only send, one a link, from the underlay's port.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Underlay;

/// Bytes that the kernel may hold of what was sent for one link and has not left the interface, as it counts them; the
/// batch that passes the bound goes too. Small, so that queues build up where they are managed: at 100 Mbit/s, ping under
/// a full load is 11 ms with this and 30 ms with eight times as much, and nothing is slower by it (`docs/performance.md`).
const SEND_BUFFER: usize = 32 << 10;

/// "Return 0" of classic BPF (`BPF_RET | BPF_K`).
const RETURN_ZERO: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Where one link's data frames leave.
///
/// A socket's send buffer counts what stands in the interface's queue. In one for all links, frames for a slow one take up
/// all the room, and the others stand still. So each link has a socket of its own, and the underlay's, which all of them
/// share the port with (`SO_REUSEPORT`), is the one that receives. Where the kernel does not let us, a link shares that
/// one socket.
#[derive(Debug, Default)]
pub(crate) struct Outlet(Option<Socket>);

impl Outlet {
    /// The socket to send by.
    #[inline]
    pub(crate) fn socket<'a>(&'a self, underlay: &'a Underlay) -> &'a Socket {
        self.0.as_ref().unwrap_or(&underlay.socket)
    }

    /// Whether it is the underlay's own socket.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.0.is_none()
    }
}

impl Underlay {
    /// A way out for one link.
    pub(crate) fn outlet(&self) -> Outlet {
        if !self.has_outlets {
            return Outlet::default();
        }
        Outlet(
            sender(self.port, self.mark)
                .inspect_err(|error| tracing::debug!(%error, "a link shares the socket of all"))
                .ok(),
        )
    }
}

/// Lets sockets that only send join `socket` at its port. The answer says whether they can; else nothing has changed.
///
/// `socket` must be bound and have been so without `SO_REUSEPORT`: so another process that has the port was found out.
pub(super) fn allow(socket: &Socket, port: u16, mark: Option<u32>) -> bool {
    let join = || -> io::Result<()> {
        socket.set_reuse_port(true)?;
        // The kernel makes a group of the two, whose first member is the socket that was there first. The program must
        // be there before anything is sent to us; it stays when the second member goes.
        let _second = sender(port, mark)?;
        receive_by_first(socket)
    };
    join()
        .inspect_err(|error| {
            tracing::debug!(%error, "links share one socket");
            let _ = socket.set_reuse_port(false);
        })
        .is_ok()
}

fn sender(port: u16, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_port(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Multicast goes to every socket of a port: whatever comes is dropped before it is queued.
    socket.attach_filter(&[RETURN_ZERO])?;
    // Receive offload looks any socket of the port up, and asks that one whether it may join datagrams.
    quinn_udp::UdpSocketState::new((&socket).into())?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// Of the sockets that share the port of `socket`, the first one gets all that comes (`SO_ATTACH_REUSEPORT_CBPF`: the
/// program's answer is the socket's number).
fn receive_by_first(socket: &Socket) -> io::Result<()> {
    let mut instruction = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut instruction };
    let len = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    // SAFETY: the descriptor is open while `socket` is borrowed; the option's value is a `sock_fprog` of the given size,
    // whose one instruction lives until the call returns. The kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;
    use crate::underlay::UnderlayConfig;

    #[test]
    fn links_send_from_the_port_and_only_the_underlay_receives() {
        let underlay = Underlay::bind(&UnderlayConfig { port: 0, mark: None }).unwrap();
        let outlets: Vec<Outlet> = (0..8).map(|_| underlay.outlet()).collect();
        assert!(outlets.iter().all(|outlet| !outlet.is_shared()));
        let peer = UdpSocket::bind("[::1]:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let us: SocketAddr = (Ipv6Addr::LOCALHOST, underlay.port()).into();
        let mut buffer = [0; 16];
        for outlet in &outlets {
            let to = peer.local_addr().unwrap();
            outlet.socket(&underlay).send_to(b"out", &to.into()).unwrap();
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (3, us));
        }
        // From many ports, so that a choice by hash would hit each of the nine.
        underlay.socket.set_nonblocking(false).unwrap();
        underlay.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for _ in 0..64 {
            UdpSocket::bind("[::1]:0").unwrap().send_to(b"in", us).unwrap();
            let mut place = [std::mem::MaybeUninit::uninit(); 16];
            assert_eq!(underlay.socket.recv(&mut place).unwrap(), 2);
        }
    }
}
