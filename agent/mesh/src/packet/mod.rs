//! Bytes of the packets that planes move: IPv4, IPv6, TCP, UDP, ICMP, and the kernel's offload header.
//!
//! Everything works on slices, allocates nothing and never panics, whatever the bytes are.

mod checksum;
mod coalesce;
mod ecn;
mod icmp;
mod ip;
mod mss;
mod segment;
mod vnet;

pub(crate) use coalesce::{Coalescer, MAX_SEGMENTS};
pub(crate) use ecn::{hand_on_congestion, traffic_class};
pub(crate) use icmp::{IcmpError, MAX_ERROR, icmp_error};
pub(crate) use ip::{IpHeader, TCP, UDP, decrement_hop_limit};
pub(crate) use mss::clamp_mss;
pub(crate) use segment::{Segmenter, complete_checksum};
pub use vnet::{Offload, VNET_LEN, VnetHeader};

#[cfg(test)]
pub(crate) use ip::tests as testing;
