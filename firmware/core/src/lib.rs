//! Links, neighbours and routing of the Grange mesh, without I/O.
//!
//! `no_std` with `alloc`. What decides is plain state: datagrams, interface changes and traffic counters come in by
//! `handle_*(now, ...)`; datagrams and events go out by `poll_*()`. `now` and a random seed are passed in; nothing here
//! reads a clock, a file or a random source. [`Node`] is the whole; its documentation states the order of calls.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod babel;
pub mod certificate;
mod event;
pub mod identity;
pub mod link;
mod node;
mod offer;
mod time;
mod town;

pub use event::{
    Cipher, DataKeys, DownReason, Endpoint, Event, IfaceId, IfaceKind, IfaceState, LinkId, LinkTraffic, PeerInfo,
    Target, Transmit,
};
pub use identity::Identity;
pub use node::{DropCounters, LinkInfo, Node, NodeConfig, SealInfo};
pub use offer::Offer;
pub use time::Instant;
pub use town::{GatewayPolicy, Town};
