//! TCP maximum segment size (RFC 9293, section 3.7.1), lowered where a link carries less.

use super::{
    checksum::replace_word,
    ip::{IpHeader, TCP},
};

/// Lowers the maximum segment size that a SYN offers to what fits packets of `mtu` bytes. `partial`: the checksum covers
/// the pseudo-header only, so the options are not in it yet.
#[inline]
pub(crate) fn clamp_mss(packet: &mut [u8], header: &IpHeader, mtu: u16, partial: bool) {
    if header.protocol != TCP || header.later_fragment {
        return;
    }
    let Some(tcp) = packet.get_mut(header.transport..header.total) else { return };
    // Byte 13: flags; 0x02 is SYN.
    if tcp.len() < 20 || tcp[13] & 0x02 == 0 {
        return;
    }
    let fixed: u16 = if header.source.is_ipv4() { 40 } else { 60 };
    lower(tcp, mtu.saturating_sub(fixed), partial);
}

/// Walks the options of a SYN; what is malformed stays as it is.
fn lower(tcp: &mut [u8], most: u16, partial: bool) {
    let end = (usize::from(tcp[12] >> 4) * 4).min(tcp.len());
    let mut at = 20;
    while at < end {
        match tcp[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let len = tcp.get(at + 1).map_or(0, |len| usize::from(*len));
                if len < 2 || at + len > end {
                    return;
                }
                if kind == 2 && len == 4 {
                    let old = [tcp[at + 2], tcp[at + 3]];
                    if u16::from_be_bytes(old) > most {
                        let new = most.to_be_bytes();
                        tcp[at + 2..at + 4].copy_from_slice(&new);
                        if !partial {
                            let checksum = replace([tcp[16], tcp[17]], old, new, at % 2 == 1);
                            tcp[16..18].copy_from_slice(&checksum);
                        }
                    }
                    return;
                }
                at += len;
            }
        }
    }
}

/// The option may begin at an odd place: its bytes are then in the other halves of their words, which a checksum with
/// swapped bytes accounts for (RFC 1071, section 2).
fn replace(checksum: [u8; 2], old: [u8; 2], new: [u8; 2], odd: bool) -> [u8; 2] {
    let swap = |[a, b]: [u8; 2]| if odd { [b, a] } else { [a, b] };
    replace_word(checksum, swap(old), swap(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::ip::tests::{checksums_are_right, packet};

    /// A SYN with `before` one-byte options, then a maximum segment size.
    fn syn(v4: bool, before: usize, mss: u16) -> Vec<u8> {
        let mut options = vec![1; before];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        options.extend([3, 3, 7]);
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = vec![0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0];
        tcp[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        tcp.extend(options);
        packet(v4, TCP, &tcp)
    }

    fn mss_of(packet: &[u8], before: usize) -> u16 {
        let at = IpHeader::parse(packet).unwrap().transport + 22 + before;
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    proptest! {
        #[test]
        fn is_lowered_and_never_raised(v4: bool, before in 0..4usize, mss: u16, mtu in 576..2000u16) {
            let mut bytes = syn(v4, before, mss);
            let header = IpHeader::parse(&bytes).unwrap();
            clamp_mss(&mut bytes, &header, mtu, false);
            prop_assert_eq!(mss_of(&bytes, before), mss.min(mtu - if v4 { 40 } else { 60 }));
            prop_assert!(checksums_are_right(&bytes));
        }

        #[test]
        fn any_options_are_survived(v4: bool, mut tcp in prop::collection::vec(any::<u8>(), 20..80), mtu: u16) {
            tcp[13] |= 2;
            let mut bytes = packet(v4, TCP, &tcp);
            let header = IpHeader::parse(&bytes).unwrap();
            clamp_mss(&mut bytes, &header, mtu, false);
            prop_assert!(checksums_are_right(&bytes));
        }
    }

    #[test]
    fn a_partial_checksum_stays() {
        let mut bytes = syn(true, 0, 1460);
        let field = bytes[36..38].to_vec();
        let header = IpHeader::parse(&bytes).unwrap();
        clamp_mss(&mut bytes, &header, 1000, true);
        assert_eq!(mss_of(&bytes, 0), 960);
        assert_eq!(bytes[36..38], field);
    }

    #[test]
    fn only_a_syn_is_touched() {
        let mut bytes = syn(false, 0, 9000);
        let flags = IpHeader::parse(&bytes).unwrap().transport + 13;
        bytes[flags] = 0x10;
        let before = bytes.clone();
        let header = IpHeader::parse(&bytes).unwrap();
        clamp_mss(&mut bytes, &header, 1280, false);
        assert_eq!(bytes, before);
    }
}
