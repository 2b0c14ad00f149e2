//! Bytes on the wire and on disk, addresses and ids of the Grange mesh.
//!
//! `no_std`, no allocation. A parser takes a slice and returns a view or an error: it never panics and never
//! trusts a length that the sender chose. All integers are big-endian unless a type says otherwise.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod addr;
mod id;
mod prefix;

pub use addr::{MESH_V4, MESH_V6, PORT, lan_gateway, lan_prefix, node_address, node_address_v4};
pub use id::{LinkIndex, NodeId, RouterId, TownId};
pub use prefix::{ParsePrefixError, Prefix};
