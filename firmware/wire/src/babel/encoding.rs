//! Addresses and prefixes on the wire (RFC 8966, sections 4.1.4 and 4.1.5; RFC 9229, section 4).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::TlvError;
use crate::Prefix;

/// Wildcard.
pub(super) const AE_WILDCARD: u8 = 0;
/// IPv4, with an IPv4 next hop.
pub(super) const AE_V4: u8 = 1;
/// IPv6.
pub(super) const AE_V6: u8 = 2;
/// Link-local IPv6: the last 8 octets.
pub(super) const AE_LINK_LOCAL: u8 = 3;
/// IPv4, whose next hop is an IPv6 neighbour (RFC 9229).
pub(super) const AE_V4_VIA_V6: u8 = 4;

/// Address octets of the encodings that carry prefixes; `None` for the others.
pub(super) fn address_octets(ae: u8) -> Option<usize> {
    match ae {
        AE_V4 | AE_V4_VIA_V6 => Some(4),
        AE_V6 => Some(16),
        _ => None,
    }
}

/// Octets that a prefix of `plen` bits takes.
pub(super) fn prefix_octets(plen: u8) -> usize {
    usize::from(plen).div_ceil(8)
}

/// An address's octets, IPv4 in the first four.
pub(super) fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The prefix of `plen` bits that starts with these octets. Bits behind the length are ignored, as the RFC says.
pub(super) fn prefix(ae: u8, octets: &[u8; 16], plen: u8) -> Option<Prefix> {
    let size = address_octets(ae)?;
    if usize::from(plen) > size * 8 {
        return None;
    }
    let addr = if size == 4 {
        IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(*octets))
    };
    Some(Prefix::new_truncating(addr, plen))
}

/// Takes a prefix without compression from the front of `body`, as requests carry it; gives it and what follows.
pub(super) fn take_prefix(ae: u8, plen: u8, body: &[u8]) -> Result<(Prefix, &[u8]), TlvError> {
    let size = address_octets(ae).ok_or(TlvError::Encoding)?;
    let count = prefix_octets(plen);
    if count > size {
        return Err(TlvError::Prefix);
    }
    let (bytes, rest) = body.split_at_checked(count).ok_or(TlvError::Short)?;
    let mut octets = [0; 16];
    octets[..count].copy_from_slice(bytes);
    Ok((prefix(ae, &octets, plen).ok_or(TlvError::Prefix)?, rest))
}

/// The last prefix of each address encoding that an Update with the P flag left behind (section 4.6.9).
#[derive(Clone, Debug, Default)]
pub(super) struct DefaultPrefixes {
    v4: Option<[u8; 16]>,
    v6: Option<[u8; 16]>,
    v4_via_v6: Option<[u8; 16]>,
}

impl DefaultPrefixes {
    pub(super) fn get(&self, ae: u8) -> Option<&[u8; 16]> {
        match ae {
            AE_V4 => self.v4.as_ref(),
            AE_V6 => self.v6.as_ref(),
            AE_V4_VIA_V6 => self.v4_via_v6.as_ref(),
            _ => None,
        }
    }

    pub(super) fn set(&mut self, ae: u8, octets: [u8; 16]) {
        match ae {
            AE_V4 => self.v4 = Some(octets),
            AE_V6 => self.v6 = Some(octets),
            AE_V4_VIA_V6 => self.v4_via_v6 = Some(octets),
            _ => {}
        }
    }
}
