//! Requests to the kernel's WireGuard, by generic netlink (Linux `include/uapi/linux/wireguard.h`).
//!
//! Written by hand rather than with a crate: messages hold private keys both ways (the kernel's answers repeat them), so
//! they are built in and read from buffers that are erased, without copies. The socket blocks: the kernel does what it
//! is asked within `send`, and has its answer ready when `send` returns.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use grange_wire::Prefix;
use socket2::{Domain, Protocol, Socket, Type};
use zeroize::Zeroizing;

/// `NETLINK_GENERIC`.
const NETLINK_GENERIC: i32 = 16;

/// The family that tells about families (`GENL_ID_CTRL`), its request and attributes.
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WG_GENL_VERSION: u8 = 1;

const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_FLAGS: u16 = 5;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_FWMARK: u16 = 7;
const WGDEVICE_A_PEERS: u16 = 8;
const WGDEVICE_F_REPLACE_PEERS: u32 = 1;

const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGPEER_F_UPDATE_ONLY: u32 = 4;

const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = !(NLA_F_NESTED | 1 << 14);

/// The kernel answers in pieces of a page or two.
const REPLY: usize = 32 << 10;

/// Pieces of one answer that are read: an interface of ours has two peers.
const MAX_PIECES: usize = 64;

/// How long an answer may take that the kernel has ready already.
const PATIENCE: Duration = Duration::from_secs(2);

/// A peer's settings. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerChange<'a> {
    /// The peer's public key.
    pub public: [u8; 32],
    /// The key that both ends share beside their own; WireGuard takes it into its next handshake.
    pub preshared: Option<&'a [u8; 32]>,
    /// Where the other end is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that are sent in any case; zero: none.
    pub keepalive: Option<u16>,
    /// Sources of packets that come from it, destinations of those that go to it.
    pub allowed: &'a [Prefix],
    /// Do nothing if the peer is not there.
    pub update: bool,
}

/// An interface's settings. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceChange<'a> {
    /// The interface's own key.
    pub private: Option<&'a [u8; 32]>,
    /// UDP port; zero: the kernel chooses one when the interface is switched on.
    pub port: Option<u16>,
    /// Mark of its packets.
    pub mark: Option<u32>,
    /// Whether peers that are there go first, and their sessions with them.
    pub replace: bool,
    /// Its peers.
    pub peers: &'a [PeerChange<'a>],
}

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceStatus {
    /// UDP port; zero while the interface is off and none was set.
    pub port: u16,
    /// Public keys and the wall clock's seconds and nanoseconds of the last handshake; zero: there was none.
    pub peers: Vec<([u8; 32], (i64, i64))>,
}

/// A connection to the kernel's WireGuard.
#[derive(Debug)]
pub(crate) struct WireGuard {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl WireGuard {
    /// Asks for WireGuard; the kernel loads its module if it has one.
    ///
    /// # Errors
    /// `NotFound`: the kernel has none; or what the kernel said.
    pub(crate) fn open() -> io::Result<Self> {
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), Some(Protocol::from(NETLINK_GENERIC)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut open = Self { socket, family: CONTROLLER, sequence: 0 };
        let mut message = Message::new(CONTROLLER, 0, CTRL_CMD_GETFAMILY);
        message.attribute(CTRL_ATTR_FAMILY_NAME, b"wireguard\0");
        let mut family = None;
        open.ask(message, |attributes| {
            family = find(attributes, CTRL_ATTR_FAMILY_ID).and_then(number_16);
        })?;
        open.family = family.ok_or(io::ErrorKind::InvalidData)?;
        Ok(open)
    }

    /// Changes an interface.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn set(&mut self, index: u32, change: &DeviceChange<'_>) -> io::Result<()> {
        self.ask(set_message(self.family, index, change), |_| {})
    }

    /// What an interface is set to and does.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn get(&mut self, index: u32) -> io::Result<DeviceStatus> {
        let mut message = Message::new(self.family, libc::NLM_F_DUMP, WG_CMD_GET_DEVICE);
        message.attribute(WGDEVICE_A_IFINDEX, &index.to_ne_bytes());
        let mut status = DeviceStatus::default();
        self.ask(message, |attributes| take_status(attributes, &mut status))?;
        Ok(status)
    }

    /// Sends a request and hands each piece of the answer to `take`, until the kernel says that it is done.
    fn ask(&mut self, message: Message, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        self.socket.send(&bytes)?;
        let mut reply = Zeroizing::new(vec![0; REPLY]);
        for _ in 0..MAX_PIECES {
            let len = io::Read::read(&mut &self.socket, &mut reply)?;
            for (header, payload) in messages(&reply[..len]) {
                if header.sequence != self.sequence {
                    continue;
                }
                match header.kind {
                    NLMSG_ERROR | NLMSG_DONE => return outcome(header.kind, payload),
                    _ => take(payload.get(4..).unwrap_or_default()),
                }
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

/// What the end of an answer says: an error number, negative, or zero. A dump's end may leave it out.
fn outcome(kind: u16, payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match code {
        Some(0) => Ok(()),
        None if kind == NLMSG_DONE => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A request as it is built; erased when it is dropped.
struct Message {
    bytes: Zeroizing<Vec<u8>>,
}

impl Message {
    fn new(family: u16, flags: i32, command: u8) -> Self {
        // Never grown beyond this, since that would leave keys behind in what was freed.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[command, WG_GENL_VERSION, 0, 0]);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn finish(mut self, sequence: u32) -> Zeroizing<Vec<u8>> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

fn set_message(family: u16, index: u32, change: &DeviceChange<'_>) -> Message {
    let mut message = Message::new(family, 0, WG_CMD_SET_DEVICE);
    message.attribute(WGDEVICE_A_IFINDEX, &index.to_ne_bytes());
    if change.replace {
        message.attribute(WGDEVICE_A_FLAGS, &WGDEVICE_F_REPLACE_PEERS.to_ne_bytes());
    }
    if let Some(private) = change.private {
        message.attribute(WGDEVICE_A_PRIVATE_KEY, private);
    }
    if let Some(port) = change.port {
        message.attribute(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = change.mark {
        message.attribute(WGDEVICE_A_FWMARK, &mark.to_ne_bytes());
    }
    if !change.peers.is_empty() {
        message.nest(WGDEVICE_A_PEERS, |message| {
            for peer in change.peers {
                message.nest(0, |message| put_peer(message, peer));
            }
        });
    }
    message
}

fn put_peer(message: &mut Message, peer: &PeerChange<'_>) {
    message.attribute(WGPEER_A_PUBLIC_KEY, &peer.public);
    if peer.update {
        message.attribute(WGPEER_A_FLAGS, &WGPEER_F_UPDATE_ONLY.to_ne_bytes());
    }
    if let Some(preshared) = peer.preshared {
        message.attribute(WGPEER_A_PRESHARED_KEY, preshared);
    }
    if let Some(endpoint) = peer.endpoint {
        let (bytes, len) = socket_address(endpoint);
        message.attribute(WGPEER_A_ENDPOINT, &bytes[..len]);
    }
    if let Some(keepalive) = peer.keepalive {
        message.attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &keepalive.to_ne_bytes());
    }
    if !peer.allowed.is_empty() {
        message.nest(WGPEER_A_ALLOWEDIPS, |message| {
            for prefix in peer.allowed {
                message.nest(0, |message| put_allowed(message, *prefix));
            }
        });
    }
}

fn put_allowed(message: &mut Message, prefix: Prefix) {
    let (family, v4, v6);
    let address: &[u8] = match prefix.addr() {
        IpAddr::V4(address) => {
            family = libc::AF_INET as u16;
            v4 = address.octets();
            &v4
        }
        IpAddr::V6(address) => {
            family = libc::AF_INET6 as u16;
            v6 = address.octets();
            &v6
        }
    };
    message.attribute(WGALLOWEDIP_A_FAMILY, &family.to_ne_bytes());
    message.attribute(WGALLOWEDIP_A_IPADDR, address);
    message.attribute(WGALLOWEDIP_A_CIDR_MASK, &[prefix.len()]);
}

/// `sockaddr_in` or `sockaddr_in6`, and its length.
fn socket_address(address: SocketAddr) -> ([u8; 28], usize) {
    let mut bytes = [0; 28];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            (bytes, 16)
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (bytes, 28)
        }
    }
}

/// What is needed of a message's header.
struct Header {
    kind: u16,
    sequence: u32,
}

/// The messages of a datagram; ends at the first that is cut.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::try_from(number_32(bytes.get(..4)?)?).ok()?;
        let kind = number_16(bytes.get(4..6)?)?;
        let sequence = number_32(bytes.get(8..12)?)?;
        let payload = bytes.get(16..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((Header { kind, sequence }, payload))
    })
}

/// Attributes and their kinds; ends at the first that is cut.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(number_16(bytes.get(..2)?)?);
        let kind = number_16(bytes.get(2..4)?)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn number_16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn number_32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// Adds one piece of an answer to what is known. A peer whose allowed addresses do not fit comes again in the next
/// piece, without its handshake.
fn take_status(bytes: &[u8], status: &mut DeviceStatus) {
    if let Some(port) = find(bytes, WGDEVICE_A_LISTEN_PORT).and_then(number_16) {
        status.port = port;
    }
    let peers = find(bytes, WGDEVICE_A_PEERS).unwrap_or_default();
    for (_, peer) in attributes(peers).take(MAX_PIECES) {
        let public: Option<[u8; 32]> = find(peer, WGPEER_A_PUBLIC_KEY).and_then(|key| key.try_into().ok());
        let Some((public, time)) = public.zip(find(peer, WGPEER_A_LAST_HANDSHAKE_TIME)) else { continue };
        let number = |at| time.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_ne_bytes);
        if let Some(handshake) = number(0).zip(number(8)) {
            status.peers.push((public, handshake));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole() -> Zeroizing<Vec<u8>> {
        let allowed = [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6];
        let peer = PeerChange {
            public: [1; 32],
            preshared: Some(&[2; 32]),
            endpoint: Some("[fe80::5%3]:7777".parse().unwrap()),
            keepalive: Some(1),
            allowed: &allowed,
            update: true,
        };
        let change =
            DeviceChange { private: Some(&[3; 32]), port: Some(0), mark: Some(7264), replace: true, peers: &[peer] };
        set_message(30, 9, &change).finish(5)
    }

    #[test]
    fn a_change_is_nested_as_the_kernel_reads_it() {
        let bytes = whole();
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!((found.len(), found[0].0.kind, found[0].0.sequence), (1, 30, 5));
        assert_eq!(found[0].1[..4], [WG_CMD_SET_DEVICE, 1, 0, 0]);
        let device = &found[0].1[4..];
        assert_eq!(find(device, WGDEVICE_A_IFINDEX).and_then(number_32), Some(9));
        assert_eq!(find(device, WGDEVICE_A_FLAGS).and_then(number_32), Some(WGDEVICE_F_REPLACE_PEERS));
        assert_eq!(find(device, WGDEVICE_A_PRIVATE_KEY), Some(&[3; 32][..]));
        assert_eq!(find(device, WGDEVICE_A_FWMARK).and_then(number_32), Some(7264));
        let peers: Vec<_> = attributes(find(device, WGDEVICE_A_PEERS).unwrap()).collect();
        assert_eq!(peers.len(), 1);
        let peer = peers[0].1;
        assert_eq!(find(peer, WGPEER_A_PUBLIC_KEY), Some(&[1; 32][..]));
        assert_eq!(find(peer, WGPEER_A_FLAGS).and_then(number_32), Some(WGPEER_F_UPDATE_ONLY));
        assert_eq!(find(peer, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL).and_then(number_16), Some(1));
        let endpoint = find(peer, WGPEER_A_ENDPOINT).unwrap();
        assert_eq!(endpoint.len(), 28);
        assert_eq!(endpoint[2..4], 7777u16.to_be_bytes());
        assert_eq!(endpoint[8..10], [0xfe, 0x80]);
        assert_eq!(endpoint[24..], 3u32.to_ne_bytes());
        let allowed: Vec<_> = attributes(find(peer, WGPEER_A_ALLOWEDIPS).unwrap()).collect();
        let lengths = allowed.iter().map(|(_, one)| find(one, WGALLOWEDIP_A_IPADDR).unwrap().len());
        assert_eq!(lengths.collect::<Vec<_>>(), [4, 16]);
        assert_eq!(find(allowed[1].1, WGALLOWEDIP_A_CIDR_MASK), Some(&[0][..]));
    }

    #[test]
    fn the_largest_request_fits_its_buffer() {
        // More would move it in memory, and leave keys behind.
        assert_eq!(whole().capacity(), 4096);
    }

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let piece = |port: Option<u16>, public: u8, handshake: Option<i64>| {
            let mut message = Message::new(0, 0, 0);
            if let Some(port) = port {
                message.attribute(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
            }
            message.nest(WGDEVICE_A_PEERS, |message| {
                message.nest(0, |message| {
                    message.attribute(WGPEER_A_PUBLIC_KEY, &[public; 32]);
                    if let Some(seconds) = handshake {
                        let time = [seconds.to_ne_bytes(), 7i64.to_ne_bytes()].concat();
                        message.attribute(WGPEER_A_LAST_HANDSHAKE_TIME, &time);
                    }
                });
            });
            message.finish(0)[16 + 4..].to_vec()
        };
        let mut status = DeviceStatus::default();
        for bytes in [piece(Some(4000), 1, Some(99)), piece(None, 1, None), piece(None, 2, Some(0))] {
            take_status(&bytes, &mut status);
        }
        let peers = vec![([1; 32], (99, 7)), ([2; 32], (0, 7))];
        assert_eq!(status, DeviceStatus { port: 4000, peers });
    }

    #[test]
    fn the_kernels_errors_are_heard() {
        assert!(outcome(NLMSG_ERROR, &0i32.to_ne_bytes()).is_ok());
        assert!(outcome(NLMSG_DONE, &[]).is_ok());
        let error = outcome(NLMSG_ERROR, &(-libc::ENODEV).to_ne_bytes()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(outcome(NLMSG_ERROR, &[1]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes: Vec<u8>) {
            let mut status = DeviceStatus::default();
            for (header, payload) in messages(&bytes) {
                take_status(payload, &mut status);
                let _ = outcome(header.kind, payload);
            }
            take_status(&bytes, &mut status);
        }
    }
}
