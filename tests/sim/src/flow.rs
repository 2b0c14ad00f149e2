//! Traffic of the model data plane: requests and replies between two nodes, packet by packet over the routes that the
//! nodes' events made.

use std::{net::SocketAddr, time::Duration};

use grange_core::IfaceId;
use grange_wire::{LinkIndex, Prefix};

/// A flow, for as long as the simulation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub(crate) usize);

/// One request and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it left.
    pub sent: Duration,
    /// When the reply was back.
    pub answered: Option<Duration>,
}

/// Requests at a steady pace, each answered at once by the other end.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) src: usize,
    pub(crate) dst: usize,
    pub(crate) interval: Duration,
    pub(crate) size: u16,
    pub(crate) running: bool,
    pub(crate) requests: Vec<Request>,
}

/// An IP packet on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) flow: usize,
    pub(crate) request: usize,
    pub(crate) reply: bool,
    pub(crate) to: Prefix,
    pub(crate) size: u16,
    pub(crate) hops_left: u8,
}

/// A packet between two nodes, sealed.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) iface: IfaceId,
    pub(crate) from: SocketAddr,
    pub(crate) receiver: LinkIndex,
    pub(crate) key: [u8; 32],
    pub(crate) parts: u16,
    pub(crate) counter: u64,
    pub(crate) packet: Packet,
}
