//! IPv4 and IPv6 headers, as far as forwarding reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::replace_word;

/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;
/// Protocol number of ICMP.
pub(super) const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub(super) const ICMPV6: u8 = 58;

/// Extension headers that are walked over to find the transport header; hosts send one or two.
const MAX_EXTENSIONS: usize = 8;

/// What a packet's header says, checked against the packet's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpHeader {
    /// Source address.
    pub(crate) source: IpAddr,
    /// Destination address.
    pub(crate) destination: IpAddr,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
    /// Protocol of what begins at `transport`.
    pub(crate) protocol: u8,
    /// Where the transport header begins: never beyond `total`.
    pub(crate) transport: usize,
    /// Bytes of the packet by its header; what stands behind is no part of it.
    pub(crate) total: usize,
    /// Not the first fragment of a packet: there is no transport header.
    pub(crate) later_fragment: bool,
    /// A fragment, be it the first.
    pub(crate) fragment: bool,
    /// May not be fragmented: IPv6 always, IPv4 by its flag.
    pub(crate) whole_only: bool,
}

impl IpHeader {
    /// Reads a header. `None`: not IP, or lengths that contradict each other.
    #[inline]
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let transport = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if transport < 20 || total < transport || packet.len() < total {
            return None;
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        Some(Self {
            source: Ipv4Addr::from([header[12], header[13], header[14], header[15]]).into(),
            destination: Ipv4Addr::from([header[16], header[17], header[18], header[19]]).into(),
            hop_limit: header[8],
            protocol: header[9],
            transport,
            total,
            later_fragment: fragment & 0x1fff != 0,
            fragment: fragment & 0x3fff != 0,
            whole_only: fragment & 0x4000 != 0,
        })
    }

    #[inline]
    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let packet = packet.get(..total)?;
        let mut parsed = Self {
            source: Ipv6Addr::from(*header[8..].first_chunk::<16>()?).into(),
            destination: Ipv6Addr::from(*header[24..].first_chunk::<16>()?).into(),
            hop_limit: header[7],
            protocol: header[6],
            transport: 40,
            total,
            later_fragment: false,
            fragment: false,
            whole_only: true,
        };
        for _ in 0..MAX_EXTENSIONS {
            let rest = &packet[parsed.transport..];
            // RFC 8200, section 4: hop-by-hop options, routing, fragment, destination options; RFC 4302.
            let len = match (parsed.protocol, rest) {
                (0 | 43 | 60, [_, len, ..]) => (usize::from(*len) + 1) * 8,
                (51, [_, len, ..]) => (usize::from(*len) + 2) * 4,
                (44, [_, _, high, low, ..]) => {
                    parsed.fragment = true;
                    parsed.later_fragment = u16::from_be_bytes([*high, *low]) & 0xfff8 != 0;
                    8
                }
                _ => break,
            };
            if rest.len() < len {
                return None;
            }
            parsed.protocol = rest[0];
            parsed.transport += len;
            if parsed.later_fragment {
                break;
            }
        }
        Some(parsed)
    }

    /// Whether a router may pass the packet on: unicast beyond one link (RFC 4291, sections 2.5.6 and 2.7; RFC 3927,
    /// section 7; RFC 1122, section 3.2.1.3), and from somebody who can be answered.
    #[inline]
    pub(crate) fn is_forwardable(&self) -> bool {
        let scope = |address: IpAddr| match address {
            IpAddr::V4(v4) => {
                v4.is_multicast() || v4.is_link_local() || v4.is_loopback() || v4.is_broadcast() || v4.octets()[0] == 0
            }
            IpAddr::V6(v6) => {
                v6.is_multicast() || v6.is_unicast_link_local() || v6.is_loopback() || v6.is_unspecified()
            }
        };
        !scope(self.source) && !scope(self.destination)
    }
}

/// Takes one from the hop limit of a packet with a well-formed header, keeping the IPv4 checksum right (RFC 1624).
/// The hop limit must not be zero.
#[inline]
pub(crate) fn decrement_hop_limit(packet: &mut [u8]) {
    match packet {
        [first, rest @ ..] if *first >> 4 == 4 && rest.len() >= 19 => {
            // Offsets are from the second byte on.
            let (old, protocol) = (rest[7], rest[8]);
            let new = old.saturating_sub(1);
            rest[7] = new;
            let checksum = replace_word([rest[9], rest[10]], [old, protocol], [new, protocol]);
            rest[9..11].copy_from_slice(&checksum);
        }
        [first, _, _, _, _, _, _, hop_limit, ..] if *first >> 4 == 6 => *hop_limit = hop_limit.saturating_sub(1),
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::checksum::{Sum, pseudo_header};

    /// A packet with right lengths and checksums.
    pub(crate) fn packet(v4: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let len = u16::try_from(transport.len()).unwrap();
        let mut packet = if v4 {
            let mut header = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2];
            header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            let checksum = Sum::default().add(&header).checksum();
            header[10..12].copy_from_slice(&checksum);
            header
        } else {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header[4..6].copy_from_slice(&len.to_be_bytes());
            header.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
            header.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
            header
        };
        let at = packet.len();
        packet.extend(transport);
        let field = match protocol {
            TCP => at + 16,
            UDP => at + 6,
            _ => return packet,
        };
        let header = IpHeader::parse(&packet).unwrap();
        packet[field..field + 2].fill(0);
        let sum = pseudo_header(header.source, header.destination, protocol).add_word(len).add(&packet[at..]);
        let mut checksum = sum.checksum();
        if protocol == UDP && checksum == [0, 0] {
            checksum = [0xff, 0xff];
        }
        packet[field..field + 2].copy_from_slice(&checksum);
        packet
    }

    /// Whether the transport checksum and the IPv4 header checksum are right.
    pub(crate) fn checksums_are_right(packet: &[u8]) -> bool {
        let header = IpHeader::parse(packet).unwrap();
        let transport = &packet[header.transport..header.total];
        let v4 = !header.source.is_ipv4() || Sum::default().add(&packet[..header.transport]).verifies();
        v4 && pseudo_header(header.source, header.destination, header.protocol)
            .add_word(u16::try_from(transport.len()).unwrap())
            .add(transport)
            .verifies()
    }

    #[test]
    fn extension_headers_are_walked_over() {
        // Hop-by-hop options, then a first fragment of TCP.
        let mut transport = vec![44, 0, 1, 4, 0, 0, 0, 0];
        transport.extend([TCP, 0, 0, 1, 0, 0, 0, 9]);
        transport.extend([0; 20]);
        let mut bytes = packet(false, 0, &transport);
        let header = IpHeader::parse(&bytes).unwrap();
        assert_eq!((header.protocol, header.transport, header.fragment, header.later_fragment), (TCP, 56, true, false));
        bytes[51] = 0x08 | 1;
        assert!(IpHeader::parse(&bytes).unwrap().later_fragment);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0..4u8) {
            if let (Some(first), 0..=1) = (bytes.first_mut(), version) {
                *first = if version == 0 { 0x45 } else { 0x60 };
            }
            if let Some(header) = IpHeader::parse(&bytes) {
                prop_assert!(header.transport <= header.total && header.total <= bytes.len());
            }
            decrement_hop_limit(&mut bytes);
        }

        #[test]
        fn a_hop_keeps_checksums(v4: bool, payload in prop::collection::vec(any::<u8>(), 20..60), hops in 1..60u8) {
            let mut bytes = packet(v4, TCP, &payload);
            for _ in 0..hops {
                decrement_hop_limit(&mut bytes);
            }
            prop_assert_eq!(IpHeader::parse(&bytes).unwrap().hop_limit, 64 - hops);
            prop_assert!(checksums_are_right(&bytes));
        }
    }
}
