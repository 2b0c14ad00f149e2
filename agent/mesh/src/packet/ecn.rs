//! Traffic class and explicit congestion notification of packets in tunnels (RFC 6040).

use super::checksum::replace_word;

/// The bits of explicit congestion notification in a traffic class (RFC 3168, section 5).
const ECN: u8 = 3;

/// "Congestion experienced".
const CONGESTED: u8 = 3;

/// The traffic class (in IPv4, type of service) of a packet.
#[inline]
pub(crate) fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [_, second, ..] => *second,
        _ => 0,
    }
}

/// Brings congestion that the outer packet met to the packet that was inside (RFC 6040, section 4.2). `false`: it is to
/// be dropped, since its sender would understand nothing else. The packet's header is well-formed.
#[inline]
pub(crate) fn hand_on_congestion(outer_class: u8, packet: &mut [u8]) -> bool {
    if outer_class & ECN != CONGESTED {
        return true;
    }
    match traffic_class(packet) & ECN {
        0 => return false,
        CONGESTED => return true,
        _ => {}
    }
    match packet {
        [first, second, ..] if *first >> 4 == 6 => *second |= CONGESTED << 4,
        [first, second, _, _, _, _, _, _, _, _, high, low, ..] => {
            let new = *second | CONGESTED;
            let checksum = replace_word([*high, *low], [*first, *second], [*first, new]);
            (*second, [*high, *low]) = (new, checksum);
        }
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{
        UDP,
        testing::{checksums_are_right, packet},
    };

    /// The table of RFC 6040, section 4.2, as far as it forwards: only congestion outside changes anything inside.
    #[test]
    fn congestion_comes_through() {
        for v4 in [true, false] {
            for inner in 0..4 {
                for outer in 0..4 {
                    let mut bytes = packet(v4, UDP, &[0, 1, 0, 2, 0, 9, 0, 0, 1]);
                    if v4 {
                        let checksum = replace_word([bytes[10], bytes[11]], [0x45, 0], [0x45, 0xb8 | inner]);
                        bytes[1] = 0xb8 | inner;
                        bytes[10..12].copy_from_slice(&checksum);
                    } else {
                        (bytes[0], bytes[1]) = (0x6b, 0x80 | inner << 4);
                    }
                    assert_eq!(traffic_class(&bytes), 0xb8 | inner);
                    let kept = hand_on_congestion(0x44 | outer, &mut bytes);
                    assert_eq!(kept, (outer, inner) != (3, 0));
                    let want = if outer == 3 && inner != 0 { 3 } else { inner };
                    assert_eq!(traffic_class(&bytes), 0xb8 | want);
                    assert!(checksums_are_right(&bytes));
                }
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_left_alone() {
        for len in 0..12 {
            for first in [0x45, 0x60] {
                let mut bytes = vec![1; len];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                hand_on_congestion(3, &mut bytes);
            }
        }
    }
}
