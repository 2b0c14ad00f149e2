//! A town in virtual time: many `grange_core::Node`s on a graph with latency, loss, reordering, duplication, cuts,
//! partitions and restarts. The same seed gives the same run, to the byte.
//!
//! [`Sim`] plays the shells of all nodes and the wires between them. It also plays the planes: each node's forwarding
//! table is built from that node's events alone, packets walk it hop by hop, and frames open only if the keys that the
//! two ends were told fit. What no node may ever do is checked at every event, in every run: see [`Sim`].
//!
//! `SIM_SEED=N` runs a test with one seed again; `SIM_ROUNDS=N` runs N times as many; `SIM_TRACE=1` prints
//! every event; `SIM_LARGE=1` runs what takes minutes, too.
#![forbid(unsafe_code)]

mod dice;
mod flow;
mod host;
pub mod reference;
pub mod report;
mod script;
mod sim;
mod topology;
mod town;
mod wire;

pub use dice::Dice;
pub use flow::{FlowId, Request};
pub use host::{Counters, Route};
pub use script::{Script, Step};
pub use sim::{Datagram, LinkNote, Note, Setup, Sim, Walk};
pub use topology::Topology;
pub use town::{Member, town};
pub use wire::Quality;
