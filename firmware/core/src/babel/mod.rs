//! The Babel speaker (RFC 8966) of a node, without I/O. The choices that the RFC leaves open are explained in
//! `docs/routing.md`.
//!
//! From the bottom: what is known of one neighbour (`history`, `rtt`, `withdrawn`, `outbox`, `neighbour`); what is known of prefixes
//! (`proof`, `source`, `route`, `origin`, `request`); and the [`Router`] that joins them, in four files: its edge and
//! timers (`router`), what comes in (`receive`), what is chosen (`selection`), what goes out (`send`).

mod history;
mod info;
mod neighbour;
mod origin;
mod outbox;
mod proof;
mod receive;
mod request;
mod route;
mod router;
mod rtt;
mod selection;
mod send;
mod source;
#[cfg(test)]
mod tests;
mod withdrawn;

pub use info::{NeighbourInfo, RouteEvent, RouteInfo, RouterStats};
pub use router::{Router, RouterConfig};
