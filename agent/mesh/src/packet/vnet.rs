//! The offload header before each packet of a TUN device: `struct virtio_net_hdr` (virtio 1.2, section 5.1.6).

/// Bytes of the header.
pub const VNET_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one flow, over either.
    Udp,
}

/// The header, in the machine's byte order on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The transport checksum holds only the sum of the pseudo-header; whoever sends the packet on must finish it.
    pub partial: bool,
    /// Whether and how the packet is to be cut.
    pub offload: Offload,
    /// Bytes of all headers; a hint.
    pub header_len: u16,
    /// Bytes of payload in each segment but the last.
    pub segment: u16,
    /// Where the part begins that the checksum covers.
    pub checksum_start: u16,
    /// Where the checksum stands, from `checksum_start`.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Splits a packet as read from the device. `None`: too short, or a kind of super-packet that was not asked for.
    #[must_use]
    pub fn split(bytes: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (header, packet) = bytes.split_first_chunk_mut::<VNET_LEN>()?;
        let [flags, kind, a, b, c, d, e, f, g, h] = *header;
        let offload = match kind & !GSO_ECN {
            0 => Offload::None,
            GSO_TCPV4 => Offload::Tcp4,
            GSO_TCPV6 => Offload::Tcp6,
            GSO_UDP_L4 => Offload::Udp,
            _ => return None,
        };
        let header = Self {
            partial: flags & NEEDS_CSUM != 0,
            offload,
            header_len: u16::from_ne_bytes([a, b]),
            segment: u16::from_ne_bytes([c, d]),
            checksum_start: u16::from_ne_bytes([e, f]),
            checksum_offset: u16::from_ne_bytes([g, h]),
        };
        Some((header, packet))
    }

    /// The header as the device wants it.
    #[must_use]
    pub fn bytes(&self) -> [u8; VNET_LEN] {
        let kind = match self.offload {
            Offload::None => 0,
            Offload::Tcp4 => GSO_TCPV4,
            Offload::Tcp6 => GSO_TCPV6,
            Offload::Udp => GSO_UDP_L4,
        };
        let [a, b] = self.header_len.to_ne_bytes();
        let [c, d] = self.segment.to_ne_bytes();
        let [e, f] = self.checksum_start.to_ne_bytes();
        let [g, h] = self.checksum_offset.to_ne_bytes();
        [if self.partial { NEEDS_CSUM } else { 0 }, kind, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for offload in [Offload::None, Offload::Tcp4, Offload::Tcp6, Offload::Udp] {
            let header = VnetHeader {
                partial: offload != Offload::None,
                offload,
                header_len: 60,
                segment: 1379,
                checksum_start: 40,
                checksum_offset: 16,
            };
            let mut bytes = header.bytes().to_vec();
            bytes.extend(b"packet");
            let (read, packet) = VnetHeader::split(&mut bytes).unwrap();
            assert_eq!((read, &*packet), (header, b"packet".as_slice()));
        }
        assert!(VnetHeader::split(&mut [0; VNET_LEN - 1]).is_none());
        assert!(VnetHeader::split(&mut [0, 3, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
