//! ICMP errors of a router (RFC 792, RFC 1812 section 4.3, RFC 4443).

use std::net::IpAddr;

use super::{
    checksum::{Sum, pseudo_header},
    ip::{ICMP, ICMPV6, IpHeader},
};

/// The longest error that is made: an IPv6 packet that passes everywhere (RFC 4443, section 2.4 c).
pub(crate) const MAX_ERROR: usize = 1280;

/// The longest IPv4 error: what every host takes (RFC 1812, section 4.3.2.3).
const MAX_ERROR_V4: usize = 576;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    /// There is no way to the destination.
    NoRoute,
    /// The packet is larger than the next link takes.
    TooBig {
        /// What it takes, in bytes.
        mtu: u16,
    },
    /// The hop limit ran out.
    TimeExceeded,
}

/// Writes the error about `packet` from `own` (of the same family) to `out`, and gives its length. `None` where there
/// must be no error: about ICMP errors, later fragments, and packets that nobody can be answered for.
pub(crate) fn icmp_error(
    error: IcmpError,
    packet: &[u8],
    header: &IpHeader,
    own: IpAddr,
    out: &mut [u8; MAX_ERROR],
) -> Option<usize> {
    if header.later_fragment || !header.is_forwardable() || own.is_ipv4() != header.source.is_ipv4() {
        return None;
    }
    let kind = packet.get(header.transport).copied();
    match (header.protocol, own, header.source) {
        (ICMP, IpAddr::V4(own), IpAddr::V4(to)) if matches!(kind, Some(0 | 8 | 13 | 14)) => {
            Some(error_v4(error, packet, header, own.octets(), to.octets(), out))
        }
        (ICMP, ..) => None,
        (ICMPV6, ..) if kind.is_none_or(|kind| kind < 128) => None,
        (_, IpAddr::V4(own), IpAddr::V4(to)) => Some(error_v4(error, packet, header, own.octets(), to.octets(), out)),
        (_, IpAddr::V6(own), IpAddr::V6(to)) => {
            let (kind, code, value) = match error {
                IcmpError::NoRoute => (1, 0, 0),
                IcmpError::TooBig { mtu } => (2, 0, u32::from(mtu)),
                IcmpError::TimeExceeded => (3, 0, 0),
            };
            let quoted = header.total.min(MAX_ERROR - 48);
            let len = 8 + quoted;
            out[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, 64]);
            out[4..6].copy_from_slice(&short(len).to_be_bytes());
            out[8..24].copy_from_slice(&own.octets());
            out[24..40].copy_from_slice(&to.octets());
            out[40..44].copy_from_slice(&[kind, code, 0, 0]);
            out[44..48].copy_from_slice(&value.to_be_bytes());
            out[48..48 + quoted].copy_from_slice(&packet[..quoted]);
            let checksum =
                pseudo_header(own.into(), to.into(), ICMPV6).add_word(short(len)).add(&out[40..40 + len]).checksum();
            out[42..44].copy_from_slice(&checksum);
            Some(40 + len)
        }
        _ => None,
    }
}

fn error_v4(
    error: IcmpError,
    packet: &[u8],
    header: &IpHeader,
    own: [u8; 4],
    to: [u8; 4],
    out: &mut [u8; MAX_ERROR],
) -> usize {
    let (kind, code, value) = match error {
        // "Network unreachable" (RFC 1812, section 5.2.7.1).
        IcmpError::NoRoute => (3, 0, 0),
        // RFC 1191, section 4.
        IcmpError::TooBig { mtu } => (3, 4, u32::from(mtu)),
        IcmpError::TimeExceeded => (11, 0, 0),
    };
    let quoted = header.total.min(MAX_ERROR_V4 - 28);
    let len = 28 + quoted;
    // Precedence 6: internetwork control (RFC 1812, section 4.3.2.5).
    out[..12].copy_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0]);
    out[2..4].copy_from_slice(&short(len).to_be_bytes());
    out[12..16].copy_from_slice(&own);
    out[16..20].copy_from_slice(&to);
    let checksum = Sum::default().add(&out[..20]).checksum();
    out[10..12].copy_from_slice(&checksum);
    out[20..24].copy_from_slice(&[kind, code, 0, 0]);
    out[24..28].copy_from_slice(&value.to_be_bytes());
    out[28..len].copy_from_slice(&packet[..quoted]);
    let checksum = Sum::default().add(&out[20..len]).checksum();
    out[22..24].copy_from_slice(&checksum);
    len
}

fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{
        checksum::tests::reference,
        ip::{TCP, UDP, tests::packet},
    };

    fn own(v4: bool) -> IpAddr {
        if v4 { IpAddr::from([100, 64, 0, 9]) } else { "fd00::9".parse().unwrap() }
    }

    proptest! {
        #[test]
        fn an_error_is_well_formed_and_quotes(v4: bool, tcp in prop::collection::vec(any::<u8>(), 20..3000), mtu: u16) {
            let bytes = packet(v4, TCP, &tcp);
            let header = IpHeader::parse(&bytes).unwrap();
            let mut out = [0; MAX_ERROR];
            let len = icmp_error(IcmpError::TooBig { mtu }, &bytes, &header, own(v4), &mut out).unwrap();
            let error = IpHeader::parse(&out[..len]).unwrap();
            prop_assert_eq!((error.source, error.destination, error.total), (own(v4), header.source, len));
            let body = &out[error.transport..len];
            prop_assert_eq!(&body[..2], if v4 { &[3, 4] } else { &[2, 0] });
            prop_assert_eq!(&body[6..8], &mtu.to_be_bytes());
            let quoted = bytes.len().min(if v4 { 548 } else { 1232 });
            prop_assert_eq!(&body[8..], &bytes[..quoted]);
            let mut covered = Vec::new();
            if v4 {
                prop_assert_eq!(reference(&out[..20]), 0);
            } else {
                covered.extend(&out[8..40]);
                covered.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
                covered.extend([0, 0, 0, ICMPV6]);
            }
            covered.extend(body);
            prop_assert_eq!(reference(&covered), 0);
        }
    }

    #[test]
    fn there_is_no_error_about_an_error() {
        let mut out = [0; MAX_ERROR];
        for (v4, protocol, kind, answered) in [
            (true, 1, 3, false),
            (true, 1, 11, false),
            (true, 1, 8, true),
            (false, 58, 1, false),
            (false, 58, 128, true),
            (true, UDP, 0, true),
        ] {
            let bytes = packet(v4, protocol, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            let header = IpHeader::parse(&bytes).unwrap();
            let error = icmp_error(IcmpError::TimeExceeded, &bytes, &header, own(v4), &mut out);
            assert_eq!(error.is_some(), answered, "{v4} {protocol} {kind}");
        }
    }
}
