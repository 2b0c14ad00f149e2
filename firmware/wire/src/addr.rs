//! Addresses that follow from a node's id (design, section 3): nothing to allocate, nobody to ask.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{NodeId, Prefix};

/// UDP port of links and beacons.
pub const PORT: u16 = 7264;

/// UDP port of seals, at the nodes' own addresses.
pub const SEAL_PORT: u16 = 7265;

/// What every node's IPv6 address and LAN prefix lies in (RFC 4193).
pub const MESH_V6: Prefix = Prefix::v6_const(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);

/// What every node's IPv4 address lies in (RFC 6598).
pub const MESH_V4: Prefix = Prefix::v4_const(Ipv4Addr::new(100, 64, 0, 0), 10);

/// A node's address: `fd`, then the first 120 bits of its id.
#[must_use]
pub fn node_address(id: &NodeId) -> Ipv6Addr {
    let mut octets = [0xfd; 16];
    octets[1..].copy_from_slice(&id.0[..15]);
    Ipv6Addr::from(octets)
}

/// The /64 of a node's LAN: the first 64 bits of its address. A node announces this prefix.
#[must_use]
pub fn lan_prefix(id: &NodeId) -> Prefix {
    Prefix::new_truncating(node_address(id).into(), 64)
}

/// The address that a node has on its own LAN: `::1` in its prefix.
#[must_use]
pub fn lan_gateway(id: &NodeId) -> Ipv6Addr {
    let mut octets = node_address(id).octets();
    octets[8..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
    Ipv6Addr::from(octets)
}

/// A node's IPv4 address: 22 bits of its id in 100.64.0.0/10. Never the network's first or last address.
///
/// Two nodes of a large town may draw the same one; the lower id keeps it.
#[must_use]
pub fn node_address_v4(id: &NodeId) -> Ipv4Addr {
    let drawn = u32::from_be_bytes([0, id.0[29], id.0[30], id.0[31]]) & 0x003f_ffff;
    Ipv4Addr::from(0x6440_0000 | drawn.clamp(1, 0x003f_fffe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_known_key() {
        let id = NodeId::of_key(&[7; 32]);
        let address = node_address(&id).octets();
        assert_eq!(address[0], 0xfd);
        assert_eq!(address[1..], id.0[..15]);
        assert!(lan_prefix(&id).contains(node_address(&id).into()));
        assert!(lan_prefix(&id).contains(lan_gateway(&id).into()));
        assert!(MESH_V6.contains(node_address(&id).into()));
        assert!(MESH_V4.contains(node_address_v4(&id).into()));
    }

    #[test]
    fn no_node_has_the_first_or_last_v4_address() {
        let mut id = NodeId([0; 32]);
        assert_eq!(node_address_v4(&id), Ipv4Addr::new(100, 64, 0, 1));
        id.0 = [0xff; 32];
        assert_eq!(node_address_v4(&id), Ipv4Addr::new(100, 127, 255, 254));
    }
}
