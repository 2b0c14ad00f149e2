//! Shares an Internet uplink with the town: default routes and address translation.
//!
//! [`Gateway`] follows the mesh's interfaces. While sharing is on and the uplink has a default route, it announces one
//! to the town and translates; on every member it translates hosts of the LAN whose addresses mean nothing in the town.
//! All of it stands in one nftables table, `inet grange`, whose text [`ruleset`] makes.

mod gateway;
mod plan;
pub mod ruleset;

pub use gateway::{Gateway, GatewayConfig, GatewayError, GatewayStatus};
pub use grange_mesh::has_nft;
