//! What moves packets between the TUN device and the links.
//!
//! A [`Plane`] holds the links' data keys and a copy of the routing table and never asks the node anything on the way of
//! a packet. [`Userspace`] is ours; a kernel plane is told the same things.

mod aead;
mod device;
mod fib;
pub(crate) mod kernel;
mod tun;
mod userspace;

use std::net::{Ipv4Addr, Ipv6Addr};

use grange_core::{DataKeys, Endpoint, LinkId, LinkTraffic};
use grange_wire::{LinkIndex, NodeId, Prefix};

pub use crate::packet::{Offload, VNET_LEN, VnetHeader};
pub use aead::has_fast_aes;
pub use device::PacketDevice;
pub(crate) use kernel::{Planes, Secret};
pub use tun::{OpenTunError, Tun, TunConfig};
pub use userspace::{StartError, Userspace, UserspaceConfig};

/// Most links that a plane carries.
pub const MAX_LINKS: usize = 1024;

/// Most routes that a plane holds.
pub const MAX_ROUTES: usize = 16_384;

/// Most prefixes in [`Local`], of both kinds together.
pub const MAX_LOCAL: usize = 64;

/// The largest inner packet, in bytes, that an underlay of 1500 bytes carries: 40 IPv6, 8 UDP, 33 frame.
pub const MTU_OVER_ETHERNET: u16 = 1419;

/// Every link carries inner packets of this size, in two parts if it must (RFC 8200, section 5).
pub const MIN_MTU: u16 = 1280;

/// A link or a seal as it comes up.
#[derive(Clone, Debug)]
pub struct LinkSpec {
    /// Who is there.
    pub peer: NodeId,
    /// Where the other end is. On [`IfaceId::MESH`](grange_core::IfaceId::MESH): it is a seal.
    pub endpoint: Endpoint,
    /// Keys of the data frames and the cipher they are for.
    pub keys: DataKeys,
    /// The largest inner IP packet, in bytes, that passes in one frame.
    pub mtu: u16,
    /// Both ends have the kernel plane.
    pub kernel: bool,
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Over this link.
    pub link: LinkId,
    /// What enters the mesh here goes in the seal to this node; `None`: as it is. What only passes through is never
    /// sealed.
    pub seal: Option<NodeId>,
}

/// What this node keeps for itself: where packets from links leave the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The node's own address: source of ICMPv6 errors. Delivered to the TUN without being named in `prefixes` too.
    pub address_v6: Option<Ipv6Addr>,
    /// The node's own IPv4 address: source of ICMP errors. Delivered like `address_v6`.
    pub address_v4: Option<Ipv4Addr>,
    /// Prefixes behind this node (its LAN's /64, more own addresses). A packet from a link that claims a source in
    /// them is dropped.
    pub prefixes: Vec<Prefix>,
    /// Foreign prefixes that leave the mesh here: the default routes of a gateway. Never taken for a destination in the
    /// mesh's own prefixes; of equal length, they come before routes over links.
    pub exits: Vec<Prefix>,
    /// Whether what ends here, and comes in the name of a node that is not at the other end of its link, must have come in
    /// a seal: the other side of sealing what this node sends.
    pub sealed: bool,
}

/// What a plane dropped, for whatever reason; cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneDrops {
    /// Datagrams that no session could open: unknown index, wrong tag, malformed.
    pub unauthenticated: u64,
    /// Data frames seen before or older than the replay window.
    pub replayed: u64,
    /// Packets that are not well-formed IP, have a source or destination that may not be forwarded, or a spoofed source.
    pub invalid: u64,
    /// Packets that claim to be of a node farther away and came without a seal, where [`Local::sealed`] asks for one.
    pub unsealed: u64,
    /// Packets without a route.
    pub unroutable: u64,
    /// Packets larger than the next link and not to be cut.
    pub too_big: u64,
    /// Packets whose hop limit ran out.
    pub expired: u64,
    /// Frames dropped by queue management or a full queue.
    pub congested: u64,
    /// Datagrams that the kernel refused to send (no route to the neighbour, interface down).
    pub refused: u64,
    /// Control datagrams that the driver was too slow to take.
    pub control: u64,
    /// Packets that the TUN device did not take.
    pub device: u64,
}

/// Why a link was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddLinkError {
    /// The id is taken: ids are never used again.
    #[error("link {} is already there", .0.0)]
    Exists(LinkId),
    /// Another session uses the same receiver index.
    #[error("receiver index {0:?} is in use")]
    IndexInUse(LinkIndex),
    /// [`MAX_LINKS`] links are there.
    #[error("no room for more than {MAX_LINKS} links")]
    Full,
    /// This plane has no such cipher or cannot use such an endpoint.
    #[error("the plane does not support this link: {0}")]
    Unsupported(&'static str),
}

/// Why a link's keys were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// There is no such link.
    #[error("no link {}", .0.0)]
    UnknownLink(LinkId),
    /// Another session uses the same receiver index.
    #[error("receiver index {0:?} is in use")]
    IndexInUse(LinkIndex),
    /// This plane has no such cipher.
    #[error("the plane does not support these keys: {0}")]
    Unsupported(&'static str),
}

/// There is no such link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no link {}", .0.0)]
pub struct UnknownLink(pub LinkId);

/// Why a route was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetRouteError {
    /// There is no such link.
    #[error("no link {}", .0.0)]
    UnknownLink(LinkId),
    /// [`MAX_ROUTES`] routes are there.
    #[error("no room for more than {MAX_ROUTES} routes")]
    Full,
}

/// Why the local prefixes were not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetLocalError {
    /// More than [`MAX_LOCAL`] prefixes.
    #[error("no room for more than {MAX_LOCAL} local prefixes")]
    Full,
}

/// Why a plane moves no packets any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaneFailure {
    /// The TUN device is gone or refuses to be read.
    #[error("the TUN device failed: {0}")]
    Device(String),
    /// The UDP socket cannot be read.
    #[error("the UDP socket failed: {0}")]
    Underlay(String),
    /// A thread of the plane ended unexpectedly.
    #[error("a thread of the plane ended unexpectedly")]
    Thread,
}

/// Moves the packets of links. What it is told comes from [`grange_core::Event`]s, in their order; dropping it stops
/// it and erases its keys.
pub trait Plane: Send {
    /// The plane's name: `userspace` or `kernel`.
    fn name(&self) -> &'static str;

    /// A link carries packets from now on.
    ///
    /// # Errors
    /// [`AddLinkError`]; nothing has changed then.
    fn add_link(&mut self, link: LinkId, spec: LinkSpec) -> Result<(), AddLinkError>;

    /// New keys, first half: opens with them from now on too, and goes on sealing with the present ones. A `rekey` with the
    /// same keys completes it; another offer takes its place.
    ///
    /// # Errors
    /// [`RekeyError`]; nothing has changed then.
    fn offer_keys(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError>;

    /// Seals with new keys from now on; opens with the old ones too, until the next rekey or for 60 s. Counters and
    /// routes stay.
    ///
    /// # Errors
    /// [`RekeyError`]; nothing has changed then.
    fn rekey(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError>;

    /// The neighbour is elsewhere now.
    ///
    /// # Errors
    /// [`UnknownLink`].
    fn set_endpoint(&mut self, link: LinkId, endpoint: Endpoint) -> Result<(), UnknownLink>;

    /// The largest inner IP packet, in bytes, that passes in one frame.
    ///
    /// # Errors
    /// [`UnknownLink`].
    fn set_mtu(&mut self, link: LinkId, mtu: u16) -> Result<(), UnknownLink>;

    /// The link is gone, and with it all routes over it.
    ///
    /// # Errors
    /// [`UnknownLink`].
    fn remove_link(&mut self, link: LinkId) -> Result<(), UnknownLink>;

    /// Packets to `prefix` go this way from now on, whatever was said before. Those for a seal that is not there wait for
    /// a moment, and the plane asks for it.
    ///
    /// # Errors
    /// [`SetRouteError`]; nothing has changed then.
    fn set_route(&mut self, prefix: Prefix, way: Way) -> Result<(), SetRouteError>;

    /// There is no way to `prefix` any more. Does nothing if there was none.
    fn remove_route(&mut self, prefix: Prefix);

    /// What is delivered to the TUN from now on, in place of what was said before.
    ///
    /// # Errors
    /// [`SetLocalError`]; nothing has changed then.
    fn set_local(&mut self, local: &Local) -> Result<(), SetLocalError>;

    /// Adds each link's cumulative counters to `into`. Also the moment at which old keys are erased: call it at least
    /// every few seconds, and every 100 ms while there is traffic.
    fn counters(&mut self, into: &mut Vec<(LinkId, LinkTraffic)>);

    /// Adds to `into` the links whose data frames authenticated from another address than theirs since the last call,
    /// each with the latest such address.
    fn take_roamed(&mut self, into: &mut Vec<(LinkId, Endpoint)>);

    /// What was dropped so far.
    fn drops(&self) -> PlaneDrops;

    /// Whether the plane still moves packets.
    ///
    /// # Errors
    /// [`PlaneFailure`]: it does not and will not; start another one.
    fn health(&self) -> Result<(), PlaneFailure>;

    /// Where the neighbour's kernel plane listens for this link; zero: nowhere. Does nothing without a kernel plane.
    fn set_peer_port(&mut self, _link: LinkId, _port: u16) {}

    /// Adds to `into` where the kernel plane listens, for the links for which that changed since the last call: what the
    /// neighbours are to be told. Nothing without a kernel plane.
    fn take_ports(&mut self, _into: &mut Vec<(LinkId, u16)>) {}

    /// UDP source ports of this node's address whose packets are sealed already, by the kernel plane: what enters with
    /// them goes over the link as it is. At most 128.
    fn set_sealed_ports(&mut self, _ports: &[u16]) {}

    /// What moves this link's packets at this moment: `userspace` or `kernel`.
    fn plane_of(&self, _link: LinkId) -> &'static str {
        self.name()
    }
}
