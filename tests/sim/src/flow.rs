//! Traffic of the model data plane: requests and replies between two nodes, packet by packet over the routes that the
//! nodes' events made.

use std::{net::SocketAddr, rc::Rc, time::Duration};

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
    /// From end to end, in a seal.
    pub(crate) sealed: bool,
    pub(crate) running: bool,
    pub(crate) requests: Vec<Request>,
}

/// A request or its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) flow: usize,
    pub(crate) request: usize,
    pub(crate) reply: bool,
}

/// What an IP packet holds.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    /// What a host sends.
    Plain(Part),
    /// The same in a frame of a seal, for this index and under this key.
    Sealed { part: Part, receiver: LinkIndex, key: [u8; 32], parts: u16, size: u16 },
    /// A datagram between nodes that have or want a seal.
    Seal { from: usize, payload: Rc<[u8]> },
}

/// An IP packet on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) cargo: Cargo,
    pub(crate) to: Prefix,
    pub(crate) size: u16,
    pub(crate) hops_left: u8,
}

/// A packet between two neighbours, sealed.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) iface: IfaceId,
    pub(crate) from: SocketAddr,
    pub(crate) receiver: LinkIndex,
    pub(crate) key: [u8; 32],
    pub(crate) parts: u16,
    pub(crate) counter: u64,
    pub(crate) packet: Packet,
}
