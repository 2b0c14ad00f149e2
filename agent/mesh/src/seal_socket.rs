//! The UDP socket that seals are made through: handshakes and control frames, with the mesh as underlay.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use grange_core::{Endpoint, IfaceId};
use grange_wire::SEAL_PORT;
use rustix::net::sockopt::{Ipv6PathMtuDiscovery, set_ipv6_mtu_discover};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::underlay::Received;

/// The longest datagram that is read: what is longer is cut, and then opens with no key.
const MAX_DATAGRAM: usize = 9216;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another process has the port.
    #[error("UDP port {SEAL_PORT} is in use by another process")]
    PortInUse,
    /// Anything else.
    #[error("cannot make the UDP socket of seals: {0}")]
    Socket(#[source] io::Error),
}

/// The socket, at the node's own address. Its packets go into the mesh as those of any other process do; the mark that
/// they have tells the kernel plane's rules that a seal they make cannot carry them.
///
/// It is bound whether the address is on an interface or not (`IPV6_FREEBIND`), so it outlives that the address goes
/// and comes with a LAN, and may be there before the address is.
pub(crate) struct SealSocket(UdpSocket);

impl SealSocket {
    /// Makes the socket. Must be called on a Tokio runtime with I/O.
    ///
    /// # Errors
    /// [`BindError`].
    pub(crate) fn bind(own: Ipv6Addr, mark: Option<u32>) -> Result<Arc<Self>, BindError> {
        let address = SocketAddr::from((own, SEAL_PORT));
        let bind = || -> io::Result<Self> {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
            if let Some(mark) = mark {
                socket.set_mark(mark)?;
            }
            // Padded probes measure what passes: they must neither be cut here nor held back by what was measured before.
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
            socket.bind(&address.into())?;
            UdpSocket::from_std(socket.into()).map(Self)
        };
        bind().map(Arc::new).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::PortInUse,
            _ => BindError::Socket(error),
        })
    }

    /// Sends a datagram. Never blocks: what the socket does not take is lost, as on the way.
    ///
    /// # Errors
    /// Those of the kernel: no route, `EMSGSIZE`; `WouldBlock` if the socket is full.
    pub(crate) fn send(&self, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        // Not by Tokio: before it has waited for the socket once it knows of no room.
        SockRef::from(&self.0).send_to(payload, &to.into()).map(drop)
    }

    /// The next datagram.
    pub(crate) async fn receive(&self) -> Received {
        loop {
            match self.0.readable().await.and_then(|()| self.try_receive()) {
                Ok(received) => return received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What an earlier datagram met: the kernel says it once.
                Err(error) => tracing::trace!(%error, "the socket of seals"),
            }
        }
    }

    /// A datagram that is there already.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. Others tell of datagrams that were sent.
    pub(crate) fn try_receive(&self) -> io::Result<Received> {
        let mut buffer = [0; MAX_DATAGRAM];
        let (len, addr) = self.0.try_recv_from(&mut buffer)?;
        let from = Endpoint { iface: IfaceId::MESH, addr };
        Ok(Received { from, payload: buffer[..len].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_bound_before_its_address_is_there_and_taken_once() {
        // On no interface: a documentation address.
        let own = "2001:db8::7265".parse().unwrap();
        let first = SealSocket::bind(own, None).unwrap();
        assert!(matches!(SealSocket::bind(own, None), Err(BindError::PortInUse)));
        assert_eq!(first.try_receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        SealSocket::bind(own, None).unwrap();
    }

    #[tokio::test]
    async fn datagrams_come_from_the_mesh() {
        let socket = SealSocket::bind(Ipv6Addr::LOCALHOST, None).unwrap();
        let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, SEAL_PORT));
        socket.send(addr, b"hello").unwrap();
        let want = Received { from: Endpoint { iface: IfaceId::MESH, addr }, payload: b"hello".to_vec() };
        assert_eq!(socket.receive().await, want);
        assert!(socket.send(addr, &[0; 65_508]).is_err());
    }
}
