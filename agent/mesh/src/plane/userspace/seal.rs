//! Seals: what enters the mesh here for a node that is no neighbour travels in frames of its own inside the links' frames
//! (`docs/protocol.md`, Seals).
//!
//! ```text
//! link frame header [16] | flags | IPv6 [40] | UDP [8] | seal frame header [16] | flags | packet | tag [16] | tag [16]
//!                                  '------------- outer packet, under the link's key --------------------'
//!                                                                              '- under the seal's key -'
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
};

use grange_wire::{MESH_V4, MESH_V6, NodeId, Prefix, SEAL_PORT};
use portable_atomic::AtomicU16;

use super::{
    frame::{self, HEADER_LEN, OVERHEAD},
    tables::Session,
};
use crate::{
    packet::{IpHeader, UDP},
    plane::MIN_MTU,
};

/// IPv6 and UDP headers of an outer packet.
pub(super) const HEADERS: usize = 48;

/// Bytes of an outer packet beside the packet inside.
pub(super) const SEAL_OVERHEAD: u16 = 81;
const _: () = assert!(HEADERS + OVERHEAD == SEAL_OVERHEAD as usize);

/// Hop limit of outer packets. One for all, whatever the packet inside has: a seal is one hop (RFC 2473, section 3.1).
const HOP_LIMIT: u8 = 64;

/// Echo requests of this node with a lower hop limit than this go unsealed: those of `grange trace`, which asks each
/// router on the way and carries nothing. Hosts begin at 64 or higher.
const TRACE_HOPS: u8 = 33;

/// Protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// What a seal is beside a link: who may speak through it, and the headers of its outer packets.
///
/// Their UDP checksum is zero, as RFC 6935 allows for tunnels over IPv6: each link's tag covers the headers on its hop, the
/// seal's tag the rest on the whole way, and a receiver takes a frame only from the peer's own address. The flow label is zero too:
/// what tells flows apart is nobody's business on the way.
pub(super) struct Outer {
    own: Ipv6Addr,
    peer: Ipv6Addr,
    peer_v4: Ipv4Addr,
    peer_lan: Prefix,
    /// The largest outer packet that passes, as a router on the way said; `u16::MAX`: nobody said anything.
    path: AtomicU16,
}

impl Outer {
    /// Between the node with the address `own` and the node `peer`.
    pub(super) fn new(own: Ipv6Addr, peer: &NodeId) -> Self {
        Self {
            own,
            peer: grange_wire::node_address(peer),
            peer_v4: grange_wire::node_address_v4(peer),
            peer_lan: grange_wire::lan_prefix(peer),
            path: AtomicU16::new(u16::MAX),
        }
    }

    /// The address that outer packets go to and come from.
    #[inline]
    pub(super) fn peer(&self) -> Ipv6Addr {
        self.peer
    }

    /// Whether the peer may send packets with this source: its own of the mesh, and any from beyond, since it may be a
    /// gateway.
    #[inline]
    pub(super) fn may_speak_for(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(v4) => v4 == self.peer_v4 || !MESH_V4.contains(source),
            IpAddr::V6(_) => self.peer_lan.contains(source) || !MESH_V6.contains(source),
        }
    }

    /// The largest packet inside that a router on the way is known to let pass; more than any if none said anything.
    #[inline]
    pub(super) fn path_mtu(&self) -> u16 {
        self.path.load(Ordering::Relaxed).saturating_sub(SEAL_OVERHEAD)
    }

    /// A router on the way takes outer packets of `mtu` bytes at most. Never less than what all of the mesh carries.
    pub(super) fn note_path_mtu(&self, mtu: u16) {
        self.path.fetch_min(mtu.max(MIN_MTU), Ordering::Relaxed);
    }

    /// Whether a router on the way said anything.
    pub(super) fn is_narrow(&self) -> bool {
        self.path.load(Ordering::Relaxed) != u16::MAX
    }

    /// Forgets what routers on the way said (RFC 8201, section 4: a path may change).
    pub(super) fn forget_path_mtu(&self) {
        self.path.store(u16::MAX, Ordering::Relaxed);
    }

    /// The headers of an outer packet with a frame of `payload` bytes. The traffic class is the inner packet's (RFC 6040,
    /// section 4.1).
    #[inline]
    fn headers(&self, class: u8, payload: usize) -> [u8; HEADERS] {
        // A frame fits a batch, which fits a UDP datagram.
        let len = u16::try_from(payload + 8).unwrap_or(u16::MAX).to_be_bytes();
        let port = SEAL_PORT.to_be_bytes();
        let mut bytes = [0; HEADERS];
        (bytes[0], bytes[1]) = (0x60 | class >> 4, class << 4);
        bytes[4..6].copy_from_slice(&len);
        (bytes[6], bytes[7]) = (UDP, HOP_LIMIT);
        bytes[8..24].copy_from_slice(&self.own.octets());
        bytes[24..40].copy_from_slice(&self.peer.octets());
        bytes[40..42].copy_from_slice(&port);
        bytes[42..44].copy_from_slice(&port);
        bytes[44..46].copy_from_slice(&len);
        bytes
    }

    /// Seals `plain`, flags and packet, from where it is into `out`, as an outer packet: [`SEAL_OVERHEAD`] longer than the
    /// packet. `class`: the packet's traffic class.
    #[inline]
    pub(super) fn write(&self, session: &Session, counter: u64, class: u8, plain: &[u8], out: &mut [u8]) {
        let payload = out.len().saturating_sub(HEADERS);
        let Some((headers, frame)) = out.split_first_chunk_mut::<HEADERS>() else { return };
        let Some((header, sealed)) = frame.split_first_chunk_mut::<HEADER_LEN>() else { return };
        *headers = self.headers(class, payload);
        *header = frame::header(session.remote, counter);
        if session.sealer().seal(counter, header, plain, sealed).is_err() {
            // Nothing goes out that is not sealed. It cannot be: the lengths fit.
            sealed.fill(0);
        }
    }
}

/// Whether a packet that enters the mesh here goes as it is, though its destination is behind a seal: the datagrams that
/// make seals, what another plane of this node has sealed, and the probes of `grange trace`. `own` is the node's address
/// of the packet's family, `sealed_ports` the other plane's UDP ports, sorted.
#[inline]
pub(super) fn goes_bare(header: &IpHeader, packet: &[u8], own: Option<IpAddr>, sealed_ports: &[u16]) -> bool {
    if own != Some(header.source) || header.fragment {
        return false;
    }
    let Some(transport) = packet.get(header.transport..header.total) else { return false };
    match (header.protocol, transport) {
        (UDP, [a, b, c, d, ..]) => {
            let source = u16::from_be_bytes([*a, *b]);
            [*a, *b, *c, *d] == PORTS || (header.source.is_ipv6() && sealed_ports.binary_search(&source).is_ok())
        }
        (ICMP, [8, ..]) | (ICMPV6, [128, ..]) => header.hop_limit < TRACE_HOPS,
        _ => false,
    }
}

const PORTS: [u8; 4] = {
    let [high, low] = SEAL_PORT.to_be_bytes();
    [high, low, high, low]
};

/// Where a seal's frame begins in a packet to `own`, if it is an outer packet. Seals' other datagrams are none: they go
/// to the socket that has the port.
#[inline]
pub(super) fn frame_in(header: &IpHeader, packet: &[u8], own: Option<Ipv6Addr>) -> Option<usize> {
    let to_own = matches!((header.destination, own), (IpAddr::V6(to), Some(own)) if to == own);
    if header.protocol != UDP || !to_own || header.transport != HEADERS - 8 || header.fragment {
        return None;
    }
    let udp = packet.get(HEADERS - 8..header.total)?;
    let fits = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?])) == udp.len();
    (fits && udp[..4] == PORTS && frame::is_data(&udp[8..])).then_some(HEADERS)
}

/// Whether a packet to `own` belongs to a seal without being an outer packet of ours: a datagram that makes seals, or one
/// of another plane's, at one of its UDP ports.
pub(super) fn is_of_seal(header: &IpHeader, packet: &[u8], own: Option<Ipv6Addr>, sealed_ports: &[u16]) -> bool {
    if header.protocol != UDP || header.fragment || own.map(IpAddr::V6) != Some(header.destination) {
        return false;
    }
    let Some(&[a, b, c, d, ..]) = packet.get(header.transport..header.total) else { return false };
    [a, b, c, d] == PORTS || sealed_ports.binary_search(&u16::from_be_bytes([c, d])).is_ok()
}

/// What a router on the way said about an outer packet's size: to whom that went, and what fits, in bytes. `packet` came
/// for this node, whose address is `own` (RFC 4443, section 3.2).
pub(super) fn too_big_for(header: &IpHeader, packet: &[u8], own: Option<Ipv6Addr>) -> Option<(Ipv6Addr, u16)> {
    let own = own?;
    if header.protocol != ICMPV6 || header.fragment || header.destination != IpAddr::V6(own) {
        return None;
    }
    let message = packet.get(header.transport..header.total)?;
    let [2, 0, _, _, a, b, c, d, quoted @ ..] = message else { return None };
    let mtu = u16::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(u16::MAX);
    let [0x60..=0x6f, _, _, _, _, _, UDP, _, addresses @ ..] = quoted else { return None };
    let (source, rest) = addresses.split_first_chunk::<16>()?;
    let (destination, udp) = rest.split_first_chunk::<16>()?;
    (*source == own.octets() && udp.get(..4)? == PORTS).then_some((Ipv6Addr::from(*destination), mtu))
}

#[cfg(test)]
mod tests {
    use grange_core::{Cipher, DataKeys};
    use grange_wire::LinkIndex;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing;

    fn keys() -> DataKeys {
        DataKeys {
            cipher: Cipher::ChaCha20Poly1305,
            local: LinkIndex(0x0102_0304),
            remote: LinkIndex(0xa1a2_a3a4),
            seal: [7; 32],
            open: [7; 32],
        }
    }

    fn own() -> Ipv6Addr {
        "fd00::1".parse().unwrap()
    }

    #[test]
    fn the_outer_packet_is_plain_ipv6() {
        let peer = NodeId([0x11; 32]);
        let outer = Outer::new(own(), &peer);
        let session = Session::new(0, &keys()).unwrap();
        let mut out = vec![0xee; usize::from(SEAL_OVERHEAD) + 5];
        outer.write(&session, 0x0506, 0xb9, b"\x04inner", &mut out);
        let mut want = vec![0x6b, 0x90, 0, 0, 0, 46, 17, 64];
        want.extend(own().octets());
        want.extend([0xfd].into_iter().chain([0x11; 15]));
        want.extend([0x1c, 0x61, 0x1c, 0x61, 0, 46, 0, 0]);
        want.extend([6, 0, 0, 0, 0xa1, 0xa2, 0xa3, 0xa4, 0, 0, 0, 0, 0, 0, 5, 6]);
        assert_eq!(out[..64], want);
        assert_eq!(out.len(), 40 + 46);
        let header = IpHeader::parse(&out).unwrap();
        assert_eq!(frame_in(&header, &out, Some(outer.peer())), Some(48));
        assert_eq!(frame_in(&header, &out, Some(own())), None, "somebody else's");
        let (header, index, counter, sealed) = frame::split(&mut out[48..]).unwrap();
        assert_eq!((index, counter), (0xa1a2_a3a4, 0x0506));
        assert_eq!(session.opener().open(counter, header, sealed).unwrap(), b"\x04inner");
    }

    #[test]
    fn nobody_speaks_for_another() {
        let peer = NodeId([0x22; 32]);
        let outer = Outer::new(own(), &peer);
        let speaks = |address: &str| outer.may_speak_for(address.parse().unwrap());
        assert!(outer.may_speak_for(grange_wire::node_address_v4(&peer).into()));
        assert!(speaks("fd22:2222:2222:2222::7") && speaks("2001:db8::1") && speaks("192.0.2.1"));
        assert!(!speaks("fd22:2222:2222:2223::7") && !speaks("fd00::1") && !speaks("100.64.0.1"));
    }

    #[test]
    fn what_makes_seals_and_traces_goes_bare() {
        let bare = |bytes: &[u8], own: &str| {
            goes_bare(&IpHeader::parse(bytes).unwrap(), bytes, Some(own.parse().unwrap()), &[7000, 7100])
        };
        let control = testing::packet(false, UDP, &[0x1c, 0x61, 0x1c, 0x61, 0, 12, 0, 0, 5, 0, 0, 0]);
        assert!(bare(&control, "fd00::1"));
        assert!(!bare(&control, "fd00::9"), "of a host behind");
        assert!(!bare(&testing::packet(false, UDP, &[0x1c, 0x61, 0x1c, 0x62, 0, 12, 0, 0, 5, 0, 0, 0]), "fd00::1"));
        assert!(
            bare(&testing::packet(false, UDP, &[0x1b, 0xbc, 0x12, 0x34, 0, 12, 0, 0, 5, 0, 0, 0]), "fd00::1"),
            "7100"
        );
        let mut echo = testing::packet(false, 58, &[128, 0, 0, 0, 0, 1, 0, 1]);
        assert!(!bare(&echo, "fd00::1"), "a ping");
        echo[7] = 32;
        assert!(bare(&echo, "fd00::1"));
        assert!(!bare(&echo, "fd00::9"));
        echo[40] = 129;
        assert!(!bare(&echo, "fd00::1"), "a reply");
    }

    #[test]
    fn a_router_on_the_way_says_what_fits() {
        let outer = Outer::new(own(), &NodeId([0x11; 32]));
        let quoted = outer.headers(0, 500);
        let mut message = vec![2, 0, 0, 0, 0, 0, 5, 0x32];
        message.extend(quoted);
        // The packets of these tests go to fd00::2: that is us here, so it is said of our own packet.
        let of = |message: &[u8], own: &str| {
            let bytes = testing::packet(false, 58, message);
            too_big_for(&IpHeader::parse(&bytes).unwrap(), &bytes, Some(own.parse().unwrap()))
        };
        assert_eq!(of(&message, "fd00::2"), None, "the quoted packet is another's");
        message[8 + 8..8 + 24].copy_from_slice(&"fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(of(&message, "fd00::2"), Some((outer.peer(), 0x532)));
        for len in 0..message.len() - 4 {
            assert_eq!(of(&message[..len], "fd00::2"), None);
        }
        assert_eq!(outer.path_mtu(), u16::MAX - 81);
        outer.note_path_mtu(0x532);
        assert_eq!(outer.path_mtu(), 0x532 - 81);
        outer.note_path_mtu(3);
        assert_eq!(outer.path_mtu(), 1280 - 81, "a forged one does not stop it");
        outer.forget_path_mtu();
        assert_eq!(outer.path_mtu(), u16::MAX - 81);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0..3u8) {
            if let Some(first) = bytes.first_mut() {
                *first = if kind == 0 { 0x45 } else { 0x60 };
            }
            if let (2, Some(next)) = (kind, bytes.get_mut(6)) {
                *next = 58;
            }
            if let Some(header) = IpHeader::parse(&bytes) {
                let to = match header.destination {
                    IpAddr::V6(v6) => Some(v6),
                    IpAddr::V4(_) => None,
                };
                let _ = goes_bare(&header, &bytes, Some(header.source), &[1]);
                let _ = too_big_for(&header, &bytes, to);
                let _ = is_of_seal(&header, &bytes, to, &[1]);
                if let Some(at) = frame_in(&header, &bytes, to) {
                    prop_assert!(at < header.total);
                }
            }
        }
    }
}
