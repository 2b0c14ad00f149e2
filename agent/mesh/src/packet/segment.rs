//! Cuts a super-packet of the kernel into packets.

use std::ops::Range;

use super::{
    checksum::{Sum, pseudo_header},
    ip::{IpHeader, TCP, UDP},
    vnet::{Offload, VnetHeader},
};

/// A super-packet and how it is to be cut.
///
/// Each segment has a copy of the headers, with lengths, identification, sequence number, flags and the partial checksum
/// its own (what `skb_segment` of Linux does); the transport checksum stays partial. The payload is never copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segmenter {
    tcp: bool,
    v4: bool,
    transport: usize,
    /// Bytes of all headers.
    headers: usize,
    total: usize,
    segment: usize,
    /// Sum of the pseudo-header without the length.
    pseudo: Sum,
    /// TCP's flags as the kernel wrote them.
    flags: u8,
}

/// FIN and PSH belong to the last segment, CWR to the first (RFC 3168, section 6.1.2).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

impl Segmenter {
    /// Checks that a packet is of the kind that its offload header says. `None`: it is not, or needs no cutting.
    pub(crate) fn new(vnet: &VnetHeader, header: &IpHeader, packet: &[u8]) -> Option<Self> {
        let v4 = header.source.is_ipv4();
        let tcp = match vnet.offload {
            Offload::Tcp4 if v4 => true,
            Offload::Tcp6 if !v4 => true,
            Offload::Udp => false,
            _ => return None,
        };
        if header.fragment || header.protocol != if tcp { TCP } else { UDP } || vnet.segment == 0 || !vnet.partial {
            return None;
        }
        let fixed = if tcp { usize::from(packet.get(header.transport + 12)? >> 4) * 4 } else { 8 };
        let headers = header.transport + fixed;
        if (tcp && fixed < 20) || headers >= header.total || header.total > packet.len() {
            return None;
        }
        Some(Self {
            tcp,
            v4,
            transport: header.transport,
            headers,
            total: header.total,
            segment: usize::from(vnet.segment),
            pseudo: pseudo_header(header.source, header.destination, header.protocol),
            flags: if tcp { packet[header.transport + 13] } else { 0 },
        })
    }

    /// Number of segments; at least 1.
    pub(crate) fn count(&self) -> usize {
        (self.total - self.headers).div_ceil(self.segment)
    }

    /// Length of a segment with its headers; all but the last have that of the first.
    #[inline]
    pub(crate) fn len(&self, index: usize) -> usize {
        let start = self.headers + index * self.segment;
        self.headers + self.segment.min(self.total.saturating_sub(start))
    }

    /// Makes segment `index` where its payload is, with its headers over the end of the segment before it, and gives its
    /// place. In order, from 0 on and each once: the headers are made from those of the one before.
    #[inline]
    pub(crate) fn place(&self, packet: &mut [u8], index: usize) -> Range<usize> {
        let start = index * self.segment;
        let len = self.len(index);
        if index > 0 && start + len <= packet.len() {
            let before = start - self.segment;
            packet.copy_within(before..before + self.headers, start);
        }
        let Some(headers) = packet.get_mut(start..start + self.headers) else { return 0..0 };
        let (ip, transport) = headers.split_at_mut(self.transport);
        let transport_len = len - self.transport;
        if self.v4 {
            put(ip, 2, word(len));
            if index > 0 {
                let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(1);
                put(ip, 4, identification.to_be_bytes());
            }
            put(ip, 10, [0, 0]);
            let checksum = Sum::default().add(ip).checksum();
            put(ip, 10, checksum);
        } else {
            put(ip, 4, word(len - 40));
        }
        let partial = self.pseudo.add_word(low_word(transport_len)).folded();
        if self.tcp {
            if index > 0 {
                let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
                let step = u32::try_from(self.segment).unwrap_or(0);
                transport[4..8].copy_from_slice(&sequence.wrapping_add(step).to_be_bytes());
            }
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if start + len < self.total {
                flags &= !FIN_PSH;
            }
            transport[13] = flags;
            put(transport, 16, partial);
        } else {
            put(transport, 4, word(transport_len));
            put(transport, 6, partial);
        }
        start..start + len
    }
}

/// Finishes a partial checksum that is not the one of the packet's own TCP or UDP header (a tunnel inside). Gives
/// `false` if the header points outside the packet.
pub(crate) fn complete_checksum(vnet: &VnetHeader, packet: &mut [u8]) -> bool {
    let start = usize::from(vnet.checksum_start);
    let field = start + usize::from(vnet.checksum_offset);
    let Some(covered) = packet.get(start..) else { return false };
    let checksum = match Sum::default().add(covered).checksum() {
        // Zero says "no checksum" in UDP; both zeros are the same number (RFC 768).
        [0, 0] => [0xff, 0xff],
        other => other,
    };
    let Some(place) = packet.get_mut(field..field + 2) else { return false };
    place.copy_from_slice(&checksum);
    true
}

#[inline]
fn put(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    bytes[at..at + 2].copy_from_slice(&value);
}

fn word(len: usize) -> [u8; 2] {
    low_word(len).to_be_bytes()
}

fn low_word(value: usize) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(0)
}
