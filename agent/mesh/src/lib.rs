//! Drives [`grange_core::Node`] with sockets, a TUN device and kernel routes.
//!
//! [`Mesh`] is the whole: [`Mesh::start`] on a Tokio runtime, [`Mesh::snapshot`] to look at it, [`Mesh::shutdown`] to
//! take away all that it added. `docs/kernel.md` lists what that is.

mod clock;
mod config;
mod driver;
mod error;
mod interfaces;
mod kernel;
mod mdns;
mod mesh;
mod nft;
mod packet;
mod peers;
pub mod plane;
mod seal_socket;
mod snapshot;
#[cfg(test)]
mod tests;
mod trace;
pub mod underlay;

pub use config::{
    DEFAULT_MARK, DEFAULT_TUN, InterfaceChoice, InterfaceFacts, MAX_STATIC_PEERS, MeshConfig, ParsePeerError, Role,
    Selector, StaticPeer,
};
pub use error::{StartError, Stopped, TraceError};
pub use kernel::{GROUP, SEAL_GROUP};
pub use mesh::Mesh;
pub use nft::{NftError, NftTable, has_nft, quoted};
pub use snapshot::{Hop, InterfaceStatus, Interfaces, LinkStatus, MeshEvent, RouteStatus, SealStatus, Snapshot};
pub use trace::Trace;
