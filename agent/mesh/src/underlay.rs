//! The UDP socket that everything of the mesh goes through.
//!
//! One dual-stack socket for control datagrams and beacons, which receives data frames too; each link sends its data frames
//! by a socket of its own at the same port. Sends never block: a control datagram that finds the socket full waits in a small
//! queue.

mod outlet;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use grange_core::{Endpoint, IfaceId, Target};
use grange_wire::PORT;
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use outlet::Outlet;

/// The multicast group of beacons.
pub const BEACON_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6772);

/// Bytes that the kernel keeps of what was received and not yet read: a burst of several super-packets.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Control datagrams that wait for the socket to take more.
const PRIORITY_QUEUE: usize = 256;

/// The largest control datagram that is sent: an Ethernet frame's payload and some (probes of jumbo frames).
const MAX_CONTROL: usize = 9216;

/// How to make the socket.
#[derive(Clone, Debug)]
pub struct UnderlayConfig {
    /// UDP port; [`PORT`] by default, 0 for any (tests).
    pub port: u16,
    /// Mark of all packets of the socket (`SO_MARK`), by which policy routing keeps them out of the mesh; none by
    /// default.
    pub mark: Option<u32>,
}

impl Default for UnderlayConfig {
    fn default() -> Self {
        Self { port: PORT, mark: None }
    }
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("UDP port {port} is in use by another process")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The port may not be used by this process.
    #[error("no right to use UDP port {port}")]
    PortDenied {
        /// The port.
        port: u16,
    },
    /// Packets cannot be marked.
    #[error(
        "cannot mark the mesh's own packets (SO_MARK): CAP_NET_ADMIN is needed, so run as root or grant the capability"
    )]
    Mark(#[source] io::Error),
    /// The kernel has no IPv6 or it is disabled.
    #[error("the kernel has no IPv6: links need it even to reach neighbours over IPv4")]
    NoIpv6(#[source] io::Error),
    /// Anything else.
    #[error("cannot make the UDP socket: {0}")]
    Socket(#[source] io::Error),
}

/// A datagram for the driver: any type but data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it; the interface is the one it came in by.
    pub from: Endpoint,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// The socket. Shared by the driver, which sends control datagrams, and the plane, which receives.
pub struct Underlay {
    socket: Socket,
    control: UdpSocketState,
    port: u16,
    mark: Option<u32>,
    /// Links may have sockets of their own.
    has_outlets: bool,
    waiting: Mutex<VecDeque<(SocketAddr, Vec<u8>)>>,
    any_waiting: AtomicBool,
    wake: OwnedFd,
}

impl Underlay {
    /// Makes the socket.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(config: &UnderlayConfig) -> Result<Self, BindError> {
        let socket =
            Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP)).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EAFNOSUPPORT) => BindError::NoIpv6(error),
                    _ => BindError::Socket(error),
                }
            })?;
        socket.set_only_v6(false).map_err(BindError::Socket)?;
        if let Some(mark) = config.mark {
            socket.set_mark(mark).map_err(BindError::Mark)?;
        }
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, config.port));
        socket.bind(&address.into()).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::PortInUse { port: config.port },
            Some(libc::EACCES | libc::EPERM) => BindError::PortDenied { port: config.port },
            Some(libc::EADDRNOTAVAIL) => BindError::NoIpv6(error),
            _ => BindError::Socket(error),
        })?;
        let finish = || -> io::Result<Self> {
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_hops_v6(1)?;
            // The unprivileged option is cut to net.core.rmem_max; still better than the default.
            if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
                socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
            }
            // Sets non-blocking, GRO, packet information and "don't fragment" (PMTUDISC_PROBE) for both families.
            let control = UdpSocketState::new((&socket).into())?;
            let port = socket.local_addr()?.as_socket().map_or(config.port, |address| address.port());
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            Ok(Self {
                control,
                port,
                mark: config.mark,
                has_outlets: outlet::allow(&socket, port, config.mark),
                waiting: Mutex::new(VecDeque::new()),
                any_waiting: AtomicBool::new(false),
                wake,
                socket,
            })
        };
        finish().map_err(BindError::Socket)
    }

    /// The UDP port that the socket has.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes part in the beacon group on an interface. Fine if it already does.
    ///
    /// # Errors
    /// The interface is gone or cannot do multicast, or the machine's limit of memberships is reached.
    pub fn join_beacons(&self, iface: IfaceId) -> io::Result<()> {
        match self.socket.join_multicast_v6(&BEACON_GROUP, iface.0) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
            other => other,
        }
    }

    /// Leaves the beacon group on an interface. Fine if it had not joined or the interface is gone.
    ///
    /// # Errors
    /// None that a caller can do something about.
    pub fn leave_beacons(&self, iface: IfaceId) -> io::Result<()> {
        match self.socket.leave_multicast_v6(&BEACON_GROUP, iface.0) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Sends a control datagram or a beacon, before any data that waits. Never blocks: a full socket makes it wait in a
    /// bounded queue.
    ///
    /// # Errors
    /// Those of the kernel: `EMSGSIZE` if it is larger than the interface's MTU, no route, interface down;
    /// `WouldBlock` if the queue is full too.
    pub fn send(&self, to: Target, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_CONTROL {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let destination = match to {
            Target::Endpoint(endpoint) => destination(endpoint),
            Target::Beacon(iface) => SocketAddrV6::new(BEACON_GROUP, self.port, 0, iface.0).into(),
        };
        if !self.any_waiting.load(Ordering::Acquire) {
            match self.send_now(destination, payload) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= PRIORITY_QUEUE {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            waiting.push_back((destination, payload.to_vec()));
            self.any_waiting.store(true, Ordering::Release);
        }
        self.wake();
        Ok(())
    }

    /// Wakes the thread that looks at [`Self::wake_fd`].
    pub(crate) fn wake(&self) {
        // A counter that cannot overflow: EAGAIN means that the wake-up is already there.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether control datagrams wait for the socket to take more.
    pub(crate) fn has_waiting(&self) -> bool {
        self.any_waiting.load(Ordering::Acquire)
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush_waiting(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((destination, payload)) = waiting.front() {
            match self.send_now(*destination, payload) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%destination, %error, "control datagram not sent"),
                Ok(()) => {}
            }
            waiting.pop_front();
        }
        self.any_waiting.store(false, Ordering::Release);
    }

    /// Becomes readable when a control datagram starts to wait, or by [`Self::wake`]; see [`Self::take_wake`].
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes [`Self::wake_fd`] unreadable again.
    pub(crate) fn take_wake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    fn send_now(&self, destination: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let transmit =
            quinn_udp::Transmit { destination, ecn: None, contents: payload, segment_size: None, src_ip: None };
        self.control.try_send((&self.socket).into(), &transmit)
    }
}

/// What the kernel wants as the destination for an endpoint, on a dual-stack socket.
pub(crate) fn destination(endpoint: Endpoint) -> SocketAddr {
    let (ip, scope) = match endpoint.addr.ip() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 0),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => (v6, endpoint.iface.0),
        IpAddr::V6(v6) => (v6, 0),
    };
    SocketAddrV6::new(ip, endpoint.addr.port(), 0, scope).into()
}

/// Who sent a datagram.
pub(crate) fn source(meta: &RecvMeta) -> Endpoint {
    Endpoint {
        iface: IfaceId(meta.interface_index.unwrap_or(0)),
        addr: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_named() {
        let first = Underlay::bind(&UnderlayConfig { port: 0, mark: None }).unwrap();
        match Underlay::bind(&UnderlayConfig { port: first.port(), mark: None }) {
            Err(BindError::PortInUse { port }) => assert_eq!(port, first.port()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("the port was free"),
        }
    }

    #[test]
    fn endpoints_round_trip_through_the_kernels_form() {
        for (iface, text) in [(0, "192.0.2.7:7264"), (3, "[fe80::1]:7264"), (0, "[2001:db8::1]:9")] {
            let endpoint = Endpoint { iface: IfaceId(iface), addr: text.parse().unwrap() };
            let mut meta = RecvMeta::default();
            meta.addr = destination(endpoint);
            meta.interface_index = Some(iface);
            assert_eq!(source(&meta), endpoint);
        }
    }
}
