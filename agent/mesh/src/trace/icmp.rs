//! Echo requests and what comes back, as bytes (RFC 792, RFC 4443).

use std::net::IpAddr;

/// Bytes of an echo request: header and 24 bytes of padding.
pub(crate) const REQUEST: usize = 32;

/// What an ICMP packet says about an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The destination answered.
    Reply,
    /// The hop limit ran out where the packet came from.
    Expired,
    /// There is no way on from where the packet came from.
    Unreachable,
}

/// An answer to an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The request's sequence number.
    pub sequence: u16,
    /// What became of it.
    pub verdict: Verdict,
}

/// An echo request. The kernel fills in the checksum of ICMPv6.
pub(crate) fn request(to: IpAddr, id: u16, sequence: u16) -> [u8; REQUEST] {
    let mut packet = [0; REQUEST];
    packet[0] = if to.is_ipv4() { 8 } else { 128 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    if to.is_ipv4() {
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum = words.fold(0u32, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Reads what a raw socket got: for IPv4 with its IP header, for IPv6 without. None if it is no answer to a request
/// with this id to this destination.
pub(crate) fn answer(to: IpAddr, id: u16, received: &[u8]) -> Option<Answer> {
    let v4 = to.is_ipv4();
    let packet = if v4 { after_v4_header(received)?.1 } else { received };
    let kind = *packet.first()?;
    let (reply, expired, unreachable, request) = if v4 { (0, 11, 3, 8) } else { (129, 3, 1, 128) };
    if kind == reply {
        return echo(packet, reply, id).map(|sequence| Answer { sequence, verdict: Verdict::Reply });
    }
    let verdict = match kind {
        kind if kind == expired => Verdict::Expired,
        kind if kind == unreachable => Verdict::Unreachable,
        _ => return None,
    };
    let quoted = packet.get(8..)?;
    let (destination, quoted) = if v4 { after_v4_header(quoted)? } else { after_v6_header(quoted)? };
    if destination != to {
        return None;
    }
    echo(quoted, request, id).map(|sequence| Answer { sequence, verdict })
}

fn echo(packet: &[u8], kind: u8, id: u16) -> Option<u16> {
    let header: &[u8; 8] = packet.first_chunk()?;
    let same = header[0] == kind && u16::from_be_bytes([header[4], header[5]]) == id;
    same.then(|| u16::from_be_bytes([header[6], header[7]]))
}

fn after_v4_header(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 || header[9] != 1 {
        return None;
    }
    Some((IpAddr::from([header[16], header[17], header[18], header[19]]), packet.get(length..)?))
}

fn after_v6_header(packet: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    if header[0] >> 4 != 6 || header[6] != 58 {
        return None;
    }
    Some((IpAddr::from(*header.last_chunk::<16>()?), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4_header(protocol: u8, destination: [u8; 4]) -> Vec<u8> {
        let mut header = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 1];
        header.extend(destination);
        header.extend([0; 4]);
        header
    }

    fn v6_header(next: u8, destination: IpAddr) -> Vec<u8> {
        let IpAddr::V6(v6) = destination else { panic!("an IPv6 address") };
        let mut header = vec![0x60, 0, 0, 0, 0, 32, next, 64];
        header.extend([0; 16]);
        header.extend(v6.octets());
        header
    }

    #[test]
    fn a_v4_request_has_a_valid_checksum() {
        let packet = request("192.0.2.1".parse().unwrap(), 0xabcd, 0xfffe);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2, "the example of RFC 1071");
    }

    #[test]
    fn replies_and_errors_name_the_probe() {
        let to = IpAddr::from([192, 0, 2, 1]);
        let probe = request(to, 7, 9);
        let mut reply = v4_header(1, [10, 0, 0, 2]);
        reply.extend(probe);
        reply[24] = 0;
        assert_eq!(answer(to, 7, &reply), Some(Answer { sequence: 9, verdict: Verdict::Reply }));
        assert_eq!(answer(to, 8, &reply), None, "another trace's");
        for (kind, verdict) in [(11, Verdict::Expired), (3, Verdict::Unreachable)] {
            let mut error = v4_header(1, [10, 0, 0, 2]);
            error.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
            error.extend(v4_header(1, [192, 0, 2, 1]));
            error.extend(&probe[..8]);
            assert_eq!(answer(to, 7, &error), Some(Answer { sequence: 9, verdict }));
            assert_eq!(answer([192, 0, 2, 2].into(), 7, &error), None, "to another destination");
        }

        let to: IpAddr = "fd00::1".parse().unwrap();
        let probe = request(to, 7, 9);
        let mut reply = probe;
        reply[0] = 129;
        assert_eq!(answer(to, 7, &reply), Some(Answer { sequence: 9, verdict: Verdict::Reply }));
        for (kind, verdict) in [(3, Verdict::Expired), (1, Verdict::Unreachable)] {
            let mut error = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            error.extend(v6_header(58, to));
            error.extend(probe);
            assert_eq!(answer(to, 7, &error), Some(Answer { sequence: 9, verdict }));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, id: u16, v4: bool) {
            let to: IpAddr = if v4 { [192, 0, 2, 1].into() } else { "fd00::1".parse().unwrap() };
            let _ = answer(to, id, &bytes);
        }

        #[test]
        fn cut_errors_are_no_answers(cut in 0usize..56) {
            let to: IpAddr = "fd00::1".parse().unwrap();
            let mut error = vec![3, 0, 0, 0, 0, 0, 0, 0];
            error.extend(v6_header(58, to));
            error.extend(&request(to, 1, 2)[..8]);
            prop_assert_eq!(answer(to, 1, &error[..cut]), None);
        }
    }
}
