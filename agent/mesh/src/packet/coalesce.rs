//! Makes one super-packet of consecutive segments of a flow (as the kernel's GRO does), without copying.

use std::ops::Range;

use super::{
    checksum::{Sum, pseudo_header},
    ip::{IpHeader, TCP, UDP},
    vnet::{Offload, VnetHeader},
};

/// Most segments in a super-packet: what a UDP GSO batch has, so one datagram batch becomes one super-packet.
pub(crate) const MAX_SEGMENTS: usize = 64;

/// Longest packet that an IP header can state.
const MAX_TOTAL: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// A super-packet in the making. The segments stay where they are in an arena; this remembers places.
#[derive(Debug)]
pub(crate) struct Coalescer {
    /// Where the first packet is, headers and all.
    first: Range<usize>,
    header: Option<IpHeader>,
    /// The payloads of the others.
    payloads: [Range<usize>; MAX_SEGMENTS - 1],
    count: usize,
    /// Bytes of all headers.
    headers: usize,
    /// Payload of each segment but the last.
    segment: usize,
    total: usize,
    next_sequence: u32,
    /// Flags to add to the first TCP header: PSH and FIN of the last segment.
    flags: u8,
    partial: bool,
    /// Nothing can follow: the flow ended, the last was shorter, or it cannot be coalesced at all.
    closed: bool,
    udp_segments: bool,
}

/// What is to be written: the first packet, then the payloads.
pub(crate) struct SuperPacket<'a> {
    /// The offload header.
    pub(crate) vnet: VnetHeader,
    /// The first packet; its headers are those of the whole.
    pub(crate) first: Range<usize>,
    /// The other segments' payloads.
    pub(crate) rest: &'a [Range<usize>],
}

impl Coalescer {
    /// Without anything in it. `udp_segments`: the device takes super-packets of UDP.
    pub(crate) fn new(udp_segments: bool) -> Self {
        Self {
            first: 0..0,
            header: None,
            payloads: std::array::from_fn(|_| 0..0),
            count: 0,
            headers: 0,
            segment: 0,
            total: 0,
            next_sequence: 0,
            flags: 0,
            partial: false,
            closed: true,
            udp_segments,
        }
    }

    /// Adds the packet at `at` in `arena`, whose header is `header`. Gives `false`, and nothing has changed, if it does
    /// not continue what is there: [`Self::take`] that first.
    #[inline]
    pub(crate) fn push(&mut self, arena: &[u8], at: Range<usize>, header: &IpHeader, partial: bool) -> bool {
        let at = at.start..at.start + header.total;
        if self.count == 0 {
            self.begin(arena, at, header, partial);
            return true;
        }
        !self.closed && self.append(arena, at, header, partial)
    }

    fn begin(&mut self, arena: &[u8], at: Range<usize>, header: &IpHeader, partial: bool) {
        let packet = &arena[at.clone()];
        self.count = 1;
        self.total = header.total;
        self.partial = partial;
        self.flags = 0;
        self.closed = true;
        self.headers = header.total;
        if let Some(headers) = headers_of(packet, header, self.udp_segments)
            && headers < header.total
        {
            self.headers = headers;
            self.segment = header.total - headers;
            let tcp = header.protocol == TCP;
            // Options and extension headers are rare where it matters; the device would copy them blindly.
            let plain = header.transport == if header.source.is_ipv4() { 20 } else { 40 };
            let flags = if tcp { packet[header.transport + 13] } else { ACK };
            self.closed = !plain || header.fragment || flags != ACK;
            if tcp {
                self.next_sequence = sequence(packet, header).wrapping_add(low_u32(self.segment));
            }
        }
        self.first = at;
        self.header = Some(*header);
    }

    fn append(&mut self, arena: &[u8], at: Range<usize>, header: &IpHeader, partial: bool) -> bool {
        let (Some(first_header), packet) = (&self.header, &arena[at.clone()]) else { return false };
        let first = &arena[self.first.clone()];
        if header.protocol != first_header.protocol
            || header.transport != first_header.transport
            || header.fragment
            || partial != self.partial
            || self.count == MAX_SEGMENTS
            || headers_of(packet, header, self.udp_segments) != Some(self.headers)
            || header.total <= self.headers
        {
            return false;
        }
        let payload = header.total - self.headers;
        if payload > self.segment || self.total + payload > MAX_TOTAL {
            return false;
        }
        let transport = header.transport;
        if !same_ip_header(first, packet, self.count) {
            return false;
        }
        let mut last = false;
        let mut flags = 0;
        if header.protocol == TCP {
            // Ports, then (behind the sequence number) acknowledgement, length and window: the same; options too.
            let (a, b) = (&first[transport..self.headers], &packet[transport..self.headers]);
            flags = b[13];
            let same = a[..4] == b[..4]
                && a[8..13] == b[8..13]
                && flags & !(PSH | FIN) == ACK
                && a[14..16] == b[14..16]
                && a[20..] == b[20..];
            if !same || sequence(packet, header) != self.next_sequence {
                return false;
            }
            last = flags != ACK;
        } else if first[transport..transport + 4] != packet[transport..transport + 4] {
            return false;
        }
        // The kernel will make the checksums anew: a wrong one must not become right.
        if !partial {
            if self.count == 1 && !checksum_is_right(first, first_header) {
                self.closed = true;
                return false;
            }
            if !checksum_is_right(packet, header) {
                return false;
            }
        }
        self.payloads[self.count - 1] = at.start + self.headers..at.end;
        self.count += 1;
        self.total += payload;
        self.flags |= flags & (PSH | FIN);
        self.next_sequence = self.next_sequence.wrapping_add(low_u32(payload));
        self.closed = last || payload < self.segment;
        true
    }

    /// Takes out what is there and finishes its headers in `arena`. `None` if nothing is.
    pub(crate) fn take(&mut self, arena: &mut [u8]) -> Option<SuperPacket<'_>> {
        let header = self.header.take()?;
        let count = std::mem::take(&mut self.count);
        let many = count > 1;
        let tcp = header.protocol == TCP;
        let checksum_offset = if tcp { 16 } else { 6 };
        let partial = (self.partial || many) && header.transport + checksum_offset + 2 <= header.total;
        if many {
            let packet = &mut arena[self.first.clone()];
            let (ip, transport) = packet.split_at_mut(header.transport);
            let transport_len = low_u16(self.total - header.transport);
            if header.source.is_ipv4() {
                ip[2..4].copy_from_slice(&low_u16(self.total).to_be_bytes());
                ip[10..12].fill(0);
                let checksum = Sum::default().add(ip).checksum();
                ip[10..12].copy_from_slice(&checksum);
            } else {
                ip[4..6].copy_from_slice(&transport_len.to_be_bytes());
            }
            if tcp {
                transport[13] |= self.flags;
            } else {
                transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
            }
            let sum =
                pseudo_header(header.source, header.destination, header.protocol).add_word(transport_len).folded();
            transport[checksum_offset..checksum_offset + 2].copy_from_slice(&sum);
        }
        let offload = match (many, tcp, header.source.is_ipv4()) {
            (false, ..) => Offload::None,
            (true, true, true) => Offload::Tcp4,
            (true, true, false) => Offload::Tcp6,
            (true, false, _) => Offload::Udp,
        };
        let vnet = if partial {
            VnetHeader {
                partial,
                offload,
                header_len: low_u16(self.headers.min(header.total)),
                segment: if many { low_u16(self.segment) } else { 0 },
                checksum_start: low_u16(header.transport),
                checksum_offset: low_u16(checksum_offset),
            }
        } else {
            VnetHeader::default()
        };
        Some(SuperPacket { vnet, first: self.first.clone(), rest: &self.payloads[..count - 1] })
    }
}

/// Bytes of all headers of a TCP or UDP packet that may be part of a super-packet.
#[inline]
fn headers_of(packet: &[u8], header: &IpHeader, udp_segments: bool) -> Option<usize> {
    let headers = match header.protocol {
        TCP => {
            let len = usize::from(packet.get(header.transport + 12)? >> 4) * 4;
            if len < 20 {
                return None;
            }
            header.transport + len
        }
        UDP if udp_segments => header.transport + 8,
        _ => return None,
    };
    (headers <= header.total).then_some(headers)
}

/// Whether two packets' IP headers differ only in what segments of one packet differ in. `index`: how many segments
/// after `a` comes `b`.
#[inline]
fn same_ip_header(a: &[u8], b: &[u8], index: usize) -> bool {
    if a[0] >> 4 == 4 {
        let identification = |packet: &[u8]| u16::from_be_bytes([packet[4], packet[5]]);
        // An identification means nothing where "don't fragment" is set (RFC 6864, section 4.1).
        let in_order = a[6] & 0x40 != 0 || identification(b) == identification(a).wrapping_add(low_u16(index));
        a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..20] == b[12..20] && in_order
    } else {
        a[..4] == b[..4] && a[6..40] == b[6..40]
    }
}

#[inline]
fn sequence(packet: &[u8], header: &IpHeader) -> u32 {
    packet
        .get(header.transport + 4..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Whether a packet's own, full transport checksum is there and right.
fn checksum_is_right(packet: &[u8], header: &IpHeader) -> bool {
    let transport = &packet[header.transport..header.total];
    if header.protocol == UDP && transport.get(6..8) == Some(&[0, 0]) {
        return false;
    }
    pseudo_header(header.source, header.destination, header.protocol)
        .add_word(low_u16(transport.len()))
        .add(transport)
        .verifies()
}

fn low_u16(value: usize) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}

fn low_u32(value: usize) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        ip::tests::{checksums_are_right, packet},
        segment::{Segmenter, complete_checksum},
    };

    fn tcp_header(sequence: u32, flags: u8, options: usize) -> Vec<u8> {
        let mut header = vec![0x12, 0x34, 0, 80];
        header.extend(sequence.to_be_bytes());
        header.extend([9, 9, 9, 9, 0, flags, 0x20, 0, 0, 0, 0, 0]);
        header.extend(std::iter::repeat_n(1, options));
        header[12] = u8::try_from(header.len() / 4).unwrap() << 4;
        header
    }

    /// Puts packets into an arena with gaps, coalesces them, and gives what the device would see.
    fn coalesce(packets: &[Vec<u8>], partial: bool, udp_segments: bool) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut arena = Vec::new();
        let places: Vec<_> = packets
            .iter()
            .map(|packet| {
                arena.extend([0xee; 17]);
                let start = arena.len();
                arena.extend(packet);
                start..arena.len()
            })
            .collect();
        let mut coalescer = Coalescer::new(udp_segments);
        let mut out = Vec::new();
        let take = |coalescer: &mut Coalescer, arena: &mut Vec<u8>, out: &mut Vec<(VnetHeader, Vec<u8>)>| {
            if let Some(whole) = coalescer.take(arena) {
                let mut bytes = arena[whole.first.clone()].to_vec();
                whole.rest.iter().for_each(|range| bytes.extend(&arena[range.clone()]));
                out.push((whole.vnet, bytes));
            }
        };
        for place in places {
            let header = IpHeader::parse(&arena[place.clone()]).unwrap();
            if !coalescer.push(&arena, place.clone(), &header, partial) {
                take(&mut coalescer, &mut arena, &mut out);
                assert!(coalescer.push(&arena, place, &header, partial));
            }
        }
        take(&mut coalescer, &mut arena, &mut out);
        out
    }

    /// What a kernel would give for a super-packet: cut, with full checksums.
    fn cut(vnet: &VnetHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
        let header = IpHeader::parse(bytes).unwrap();
        let Some(segmenter) = Segmenter::new(vnet, &header, bytes) else {
            let mut one = bytes.to_vec();
            if vnet.partial {
                assert!(complete_checksum(vnet, &mut one));
            }
            return vec![one];
        };
        let mut whole = bytes.to_vec();
        (0..segmenter.count())
            .map(|index| {
                let place = segmenter.place(&mut whole, index);
                let mut segment = whole[place].to_vec();
                assert!(complete_checksum(vnet, &mut segment));
                segment
            })
            .collect()
    }

    proptest! {
        #[test]
        fn tcp_cut_and_coalesced_is_the_same(
            v4: bool,
            payload in prop::collection::vec(any::<u8>(), 1..20_000),
            segment in 300..1500u16,
            sequence: u32,
            options in 0..4usize,
            push: bool,
        ) {
            let mut tcp = tcp_header(sequence, if push { 0x18 } else { 0x10 }, options * 4);
            tcp.extend(&payload);
            let whole = packet(v4, TCP, &tcp);
            let headers = whole.len() - payload.len();
            let vnet = VnetHeader {
                partial: true,
                offload: if v4 { Offload::Tcp4 } else { Offload::Tcp6 },
                header_len: u16::try_from(headers).unwrap(),
                segment,
                checksum_start: if v4 { 20 } else { 40 },
                checksum_offset: 16,
            };
            let segments = cut(&vnet, &whole);
            prop_assert_eq!(segments.len(), payload.len().div_ceil(usize::from(segment)));
            for segment in &segments {
                prop_assert!(checksums_are_right(segment));
            }
            let joined: Vec<u8> = segments.iter().flat_map(|segment| segment[headers..].to_vec()).collect();
            prop_assert_eq!(&joined, &payload);
            let back = coalesce(&segments, false, false);
            let many: Vec<_> = back.iter().flat_map(|(vnet, bytes)| cut(vnet, bytes)).collect();
            prop_assert_eq!(&many, &segments);
            // As few super-packets as the bounds allow.
            let most = MAX_SEGMENTS.min((MAX_TOTAL - headers) / usize::from(segment));
            prop_assert_eq!(back.len(), segments.len().div_ceil(most));
        }

        #[test]
        fn udp_cut_and_coalesced_is_the_same(
            v4: bool,
            payload in prop::collection::vec(any::<u8>(), 1..20_000),
            segment in 300..1400u16,
        ) {
            let mut udp = vec![0x12, 0x34, 0, 53, 0, 0, 0, 0];
            udp.extend(&payload);
            let len = u16::try_from(udp.len()).unwrap();
            udp[4..6].copy_from_slice(&len.to_be_bytes());
            let whole = packet(v4, UDP, &udp);
            let headers = whole.len() - payload.len();
            let vnet = VnetHeader {
                partial: true,
                offload: Offload::Udp,
                header_len: u16::try_from(headers).unwrap(),
                segment,
                checksum_start: if v4 { 20 } else { 40 },
                checksum_offset: 6,
            };
            let segments = cut(&vnet, &whole);
            for segment in &segments {
                prop_assert!(checksums_are_right(segment));
            }
            for with in [false, true] {
                let back = coalesce(&segments, false, with);
                prop_assert_eq!(back.len() == segments.len(), !with || segments.len() == 1);
                let many: Vec<_> = back.iter().flat_map(|(vnet, bytes)| cut(vnet, bytes)).collect();
                prop_assert_eq!(&many, &segments);
            }
        }

        /// Whatever comes in whatever order comes out again, packet for packet.
        #[test]
        fn nothing_is_lost_or_changed(steps in prop::collection::vec((0..4u8, 0..6u32, 1..3usize, 0..4u8, any::<bool>()), 0..40)) {
            let packets: Vec<_> = steps
                .iter()
                .map(|(kind, sequence, len, flag, v4)| {
                    let flags = [0x10, 0x18, 0x11, 0x02][usize::from(*flag)];
                    let mut transport = match kind {
                        0 | 1 => tcp_header(sequence * 100, flags, 0),
                        2 => vec![0, 1, 0, 2, 0, u8::try_from(8 + len * 100).unwrap(), 0, 0],
                        _ => vec![8, 0, 0, 0, 0, 0, 0, 0],
                    };
                    transport.extend(std::iter::repeat_n(u8::try_from(*sequence).unwrap(), len * 100));
                    packet(*v4, [TCP, TCP, UDP, 1][usize::from(*kind)], &transport)
                })
                .collect();
            let out = coalesce(&packets, false, true);
            let mut many: Vec<_> = out.iter().flat_map(|(vnet, bytes)| cut(vnet, bytes)).collect();
            // With "don't fragment" the identification is free, and is counted up when a super-packet is cut.
            for packet in &mut many {
                if packet[0] == 0x45 {
                    packet[4..6].copy_from_slice(&[0, 7]);
                    packet[10..12].fill(0);
                    let checksum = Sum::default().add(&packet[..20]).checksum();
                    packet[10..12].copy_from_slice(&checksum);
                }
            }
            prop_assert_eq!(many, packets);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let make = |sequence: u32| {
            let mut tcp = tcp_header(sequence, 0x10, 0);
            tcp.extend([7; 100]);
            packet(true, TCP, &tcp)
        };
        let mut packets = vec![make(0), make(100), make(200)];
        packets[1][60] ^= 1;
        let out = coalesce(&packets, false, false);
        assert!(out.iter().any(|(vnet, bytes)| !vnet.partial && *bytes == packets[1]));
        packets[1][60] ^= 1;
        assert_eq!(coalesce(&packets, false, false).len(), 1);
    }
}
