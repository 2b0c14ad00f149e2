//! Data frames (`docs/protocol.md`, "Data frames"): `06 0 0 0 | receiver u32 | counter u64 | sealed flags and packet | tag`.

use grange_wire::LinkIndex;

use crate::plane::aead::TAG_LEN;

/// Bytes before the ciphertext; the associated data.
pub(super) const HEADER_LEN: usize = 16;

/// Bytes of a frame beside the packet: header, flags, tag.
pub(super) const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;

const TYPE: [u8; 4] = [6, 0, 0, 0];

/// Bits 0 and 1: which part of a packet it is.
pub(super) const PART_MASK: u8 = 3;
/// A whole packet.
pub(super) const WHOLE: u8 = 0;
/// The first of two parts.
pub(super) const FIRST: u8 = 1;
/// The second of two parts.
pub(super) const SECOND: u8 = 2;
/// Bit 2: the packet's transport checksum is partial.
pub(super) const PARTIAL: u8 = 4;
/// Bits without a meaning; a frame with one of them set is from a later version.
const RESERVED: u8 = !(PART_MASK | PARTIAL);

/// A frame's header.
#[inline]
pub(super) fn header(receiver: LinkIndex, counter: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&TYPE);
    bytes[4..8].copy_from_slice(&receiver.0.to_be_bytes());
    bytes[8..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

/// Whether a datagram claims to be a data frame.
#[inline]
pub(super) fn is_data(datagram: &[u8]) -> bool {
    datagram.first() == Some(&TYPE[0])
}

/// Splits a data frame: header, receiver index, counter, ciphertext with its tag. `None`: malformed.
#[inline]
pub(super) fn split(datagram: &mut [u8]) -> Option<(&[u8; HEADER_LEN], u32, u64, &mut [u8])> {
    let (header, sealed) = datagram.split_first_chunk_mut::<HEADER_LEN>()?;
    let [a, b, c, d, i, j, k, l, counter @ ..] = *header;
    if [a, b, c, d] != TYPE || sealed.len() <= 1 + TAG_LEN {
        return None;
    }
    Some((header, u32::from_be_bytes([i, j, k, l]), u64::from_be_bytes(counter), sealed))
}

/// Whether flags say something that this version knows.
#[inline]
pub(super) fn known(flags: u8) -> bool {
    flags & RESERVED == 0 && flags & PART_MASK != PART_MASK
}
