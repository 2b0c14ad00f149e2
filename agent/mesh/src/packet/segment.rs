//! Cuts a super-packet of the kernel into packets.

use super::{
    checksum::{Sum, pseudo_header},
    ip::{IpHeader, TCP, UDP},
    vnet::{Offload, VnetHeader},
};

/// A super-packet and how it is to be cut.
///
/// Each segment has a copy of the headers, with lengths, identification, sequence number, flags and the partial checksum
/// its own (what `skb_segment` of Linux does); the transport checksum stays partial.
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
        if (tcp && fixed < 20) || headers >= header.total {
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

    /// Writes segment `index` of `packet` to `out`, which is as long as [`Self::len`] says.
    #[inline]
    pub(crate) fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) {
        let start = self.headers + index * self.segment;
        let end = (start + self.segment).min(self.total);
        let Some((headers, payload)) = out.split_at_mut_checked(self.headers) else { return };
        let (Some(from_headers), Some(from_payload)) = (packet.get(..self.headers), packet.get(start..end)) else {
            return;
        };
        if payload.len() != from_payload.len() {
            return;
        }
        headers.copy_from_slice(from_headers);
        payload.copy_from_slice(from_payload);

        let (ip, transport) = headers.split_at_mut(self.transport);
        let transport_len = transport.len() + payload.len();
        if self.v4 {
            put(ip, 2, word(self.transport + transport_len));
            let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(low_word(index));
            put(ip, 4, identification.to_be_bytes());
            put(ip, 10, [0, 0]);
            let checksum = Sum::default().add(ip).checksum();
            put(ip, 10, checksum);
        } else {
            put(ip, 4, word(self.transport - 40 + transport_len));
        }
        let partial = self.pseudo.add_word(low_word(transport_len)).folded();
        if self.tcp {
            let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let offset = u32::try_from(index * self.segment).unwrap_or(0);
            transport[4..8].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
            if index > 0 {
                transport[13] &= !CWR;
            }
            if end < self.total {
                transport[13] &= !FIN_PSH;
            }
            put(transport, 16, partial);
        } else {
            put(transport, 4, word(transport_len));
            put(transport, 6, partial);
        }
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
