//! What a mesh shows of itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use grange_core::{Cipher, DownReason, IfaceKind, LinkId, LinkTraffic, PeerInfo};
use grange_wire::{NodeId, Prefix, RouterId, TownId};

use crate::{config::Role, plane::PlaneDrops};

/// A mesh at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node's id.
    pub id: NodeId,
    /// The node's name.
    pub name: String,
    /// Its IPv6 address.
    pub address: Ipv6Addr,
    /// Its IPv4 address.
    pub address_v4: Ipv4Addr,
    /// The /64 of its LAN.
    pub prefix: Prefix,
    /// Its town: id and name.
    pub town: Option<(TownId, String)>,
    /// Time since the start.
    pub uptime: Duration,
    /// What moves packets: `userspace` or `kernel`.
    pub plane: &'static str,
    /// What the user-space plane dropped since the start. What the kernel dropped, it counts itself.
    pub drops: PlaneDrops,
    /// What is announced beside the own prefixes.
    pub announced: Vec<Prefix>,
    /// The machine's interfaces by name.
    pub interfaces: Vec<InterfaceStatus>,
    /// Links that are up, oldest first.
    pub links: Vec<LinkStatus>,
    /// Seals that are up, oldest first.
    pub seals: Vec<SealStatus>,
    /// All known routes by prefix; the selected one of a prefix first.
    pub routes: Vec<RouteStatus>,
}

/// The machine's interfaces, and what it forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    /// By name.
    pub all: Vec<InterfaceStatus>,
    /// Whether the machine forwards IPv4 for others than the mesh, too.
    pub forwards_v4: bool,
    /// Whether the machine forwards IPv6 for others than the mesh, too.
    pub forwards_v6: bool,
    /// Whether the kernel forwards from neighbour to neighbour: the kernel plane.
    pub passing: bool,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Kind of medium.
    pub kind: IfaceKind,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Whether an IPv4 default route of the main table leaves by it.
    pub default_v4: bool,
    /// Whether an IPv6 default route of the main table leaves by it.
    pub default_v6: bool,
    /// What it is used for.
    pub role: Role,
    /// Whether links may form on it.
    pub links: bool,
    /// Why.
    pub why: String,
}

/// A link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Its number.
    pub link: LinkId,
    /// Who is at the other end.
    pub peer: PeerInfo,
    /// Name of the interface; none for static peers, whose interface the kernel chooses.
    pub interface: Option<String>,
    /// The neighbour's address and UDP port.
    pub endpoint: SocketAddr,
    /// Cost, as added to routes over it (RFC 8966, section 2.1); 65535: infinite.
    pub cost: u16,
    /// Cost of receiving on it.
    pub rxcost: u16,
    /// Cost of sending on it, as the neighbour says.
    pub txcost: u16,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// The largest inner IP packet, in bytes, that is known to pass whole.
    pub mtu: u16,
    /// Time since it came up.
    pub age: Duration,
    /// Data frames sent and received.
    pub traffic: LinkTraffic,
    /// What encrypts them where the agent moves packets.
    pub cipher: Cipher,
    /// What moves packets: `userspace` or `kernel`.
    pub plane: &'static str,
}

/// A seal: an end-to-end session with a node that is no neighbour.
#[derive(Clone, Debug)]
pub struct SealStatus {
    /// Its number.
    pub seal: LinkId,
    /// Who is at the other end.
    pub peer: PeerInfo,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// The largest inner IP packet, in bytes, that is known to pass whole.
    pub mtu: u16,
    /// Time since it came up.
    pub age: Duration,
    /// Time since a packet went through it, either way.
    pub idle: Duration,
    /// Data frames sent and received.
    pub traffic: LinkTraffic,
    /// What encrypts them where the agent moves packets.
    pub cipher: Cipher,
    /// What moves packets: `userspace` or `kernel`.
    pub plane: &'static str,
}

/// A route.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// Destination.
    pub prefix: Prefix,
    /// Over which link.
    pub via: LinkId,
    /// Who is at the other end of that link.
    pub neighbour: PeerInfo,
    /// Name of the link's interface; none for static peers.
    pub interface: Option<String>,
    /// Cost of the whole way.
    pub metric: u16,
    /// Cost that the neighbour announced.
    pub refmetric: u16,
    /// Who announced it.
    pub owner: NodeId,
    /// The owner's name where there is a link or a seal with it.
    pub owner_name: Option<String>,
    /// The announcement's router-id.
    pub router_id: RouterId,
    /// The announcement's sequence number.
    pub seqno: u16,
    /// Whether packets take it.
    pub selected: bool,
    /// Whether it may be taken without a loop (RFC 8966, section 3.5.1).
    pub feasible: bool,
}

/// What happened in a mesh.
#[derive(Clone, Debug)]
pub enum MeshEvent {
    /// A link carries packets from now on.
    LinkUp {
        /// Its number.
        link: LinkId,
        /// Who is at the other end.
        peer: PeerInfo,
    },
    /// A link is gone.
    LinkDown {
        /// Its number.
        link: LinkId,
        /// Who was at the other end.
        peer: PeerInfo,
        /// Why.
        reason: DownReason,
    },
    /// This is the way to a prefix from now on.
    RouteChanged {
        /// Destination.
        prefix: Prefix,
        /// Over which link.
        via: LinkId,
        /// Cost of the whole way.
        metric: u16,
        /// Who announced it.
        owner: NodeId,
    },
    /// There is no way to a prefix any more.
    RouteRemoved {
        /// Destination.
        prefix: Prefix,
    },
    /// An interface appeared, vanished, changed its state or use, or gained or lost a default route.
    Interfaces,
}

/// What answered at one hop of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Distance: 1 is the next node.
    pub hop: u8,
    /// Who answered; none if nobody did.
    pub address: Option<IpAddr>,
    /// Its name where it is this node, or there is a link or a seal with it.
    pub name: Option<String>,
    /// Round-trip times of the probes that were answered.
    pub rtt: Vec<Duration>,
    /// Whether the destination itself answered.
    pub reached: bool,
    /// Whether the hop said that there is no way on.
    pub unreachable: bool,
}
