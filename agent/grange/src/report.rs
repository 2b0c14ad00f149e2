//! What the agent shows of itself. With `--json` these are the command line's output, whose form stays.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use grange_core::{Cipher, IfaceKind, PeerInfo};
use grange_mesh::{Hop as MeshHop, LinkStatus, RouteStatus, SealStatus, Snapshot, plane::PlaneDrops};
use grange_uplink::GatewayStatus;
use serde::{Deserialize, Serialize};

/// `grange status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Of the running agent.
    pub(crate) version: String,
    /// The node's id.
    pub(crate) id: String,
    /// The node's name.
    pub(crate) name: String,
    /// The node's IPv6 address.
    pub(crate) address: Ipv6Addr,
    /// The node's IPv4 address.
    pub(crate) address_v4: Ipv4Addr,
    /// The /64 of its LAN.
    pub(crate) prefix: String,
    /// The town, if it is in one.
    pub(crate) town: Option<Town>,
    /// Seconds since the agent started.
    pub(crate) uptime_s: u64,
    /// What moves packets.
    pub(crate) plane: String,
    /// Number of links.
    pub(crate) links: usize,
    /// Number of prefixes that can be reached.
    pub(crate) routes: usize,
    /// What is shared.
    pub(crate) gateway: Gateway,
    /// What the agent dropped since it started.
    pub(crate) drops: Drops,
    /// The machine's interfaces.
    pub(crate) interfaces: Vec<Interface>,
}

/// Packets and datagrams that the agent dropped, by reason. What moves in the kernel is not counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Drops {
    /// No session could open them: another's, altered, or under keys that are gone.
    pub(crate) unauthenticated: u64,
    /// Seen before.
    pub(crate) replayed: u64,
    /// Malformed, or with a source or destination that may not be.
    pub(crate) invalid: u64,
    /// Of a node farther away, without the seal that `mesh.seals` asks for.
    pub(crate) unsealed: u64,
    /// No way to their destination.
    pub(crate) unroutable: u64,
    /// Larger than the next link.
    pub(crate) too_big: u64,
    /// Their hop limit ran out.
    pub(crate) expired: u64,
    /// By full queues.
    pub(crate) congested: u64,
    /// The kernel would not send them.
    pub(crate) refused: u64,
    /// Control datagrams that came faster than they were handled.
    pub(crate) control: u64,
    /// This machine's network stack did not take them.
    pub(crate) device: u64,
}

impl From<PlaneDrops> for Drops {
    fn from(drops: PlaneDrops) -> Self {
        let PlaneDrops {
            unauthenticated,
            replayed,
            invalid,
            unsealed,
            unroutable,
            too_big,
            expired,
            congested,
            refused,
            control,
            device,
        } = drops;
        Self {
            unauthenticated,
            replayed,
            invalid,
            unsealed,
            unroutable,
            too_big,
            expired,
            congested,
            refused,
            control,
            device,
        }
    }
}

/// A town.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Town {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
}

impl From<&grange_core::Town> for Town {
    fn from(town: &grange_core::Town) -> Self {
        Self { id: town.id.to_string(), name: town.name.clone() }
    }
}

/// What a node shares of its uplink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Gateway {
    /// Whether sharing is switched on.
    pub(crate) sharing: bool,
    /// The uplink's interface.
    pub(crate) interface: Option<String>,
    /// Whether IPv4 is announced to the town.
    pub(crate) v4: bool,
    /// Whether IPv6 is announced to the town.
    pub(crate) v6: bool,
}

impl From<GatewayStatus> for Gateway {
    fn from(status: GatewayStatus) -> Self {
        Self { sharing: status.sharing, interface: status.interface, v4: status.v4, v6: status.v6 }
    }
}

/// An interface of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Kind of medium: `wired`, `wireless` or `tunnel`.
    pub(crate) kind: String,
    /// Administratively up, with carrier.
    pub(crate) up: bool,
    /// In bytes.
    pub(crate) mtu: u32,
    /// `mesh`, `uplink`, `lan` or `unused`.
    pub(crate) role: String,
    /// Why.
    pub(crate) why: String,
}

/// A node as others know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its id.
    pub(crate) id: String,
    /// The name that it gives itself.
    pub(crate) name: String,
    /// Its IPv6 address.
    pub(crate) address: Ipv6Addr,
}

impl From<&PeerInfo> for Peer {
    fn from(peer: &PeerInfo) -> Self {
        Self { id: peer.id.to_string(), name: peer.name.clone(), address: grange_wire::node_address(&peer.id) }
    }
}

/// A cipher's name.
fn cipher_name(cipher: Cipher) -> String {
    match cipher {
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        Cipher::Aes256Gcm => "aes-256-gcm",
    }
    .into()
}

/// One of `grange links`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) link: u32,
    /// Who is there.
    pub(crate) peer: Peer,
    /// Over which interface; null for static peers.
    pub(crate) interface: Option<String>,
    /// The neighbour's address and UDP port.
    pub(crate) endpoint: String,
    /// Cost of routes over it; 65535: unusable.
    pub(crate) cost: u16,
    /// Cost of receiving.
    pub(crate) rxcost: u16,
    /// Cost of sending.
    pub(crate) txcost: u16,
    /// Round-trip time in microseconds.
    pub(crate) rtt_us: Option<u64>,
    /// The largest packet that passes whole, in bytes.
    pub(crate) mtu: u16,
    /// Seconds since it came up.
    pub(crate) age_s: u64,
    /// Bytes of packets sent.
    pub(crate) sent_bytes: u64,
    /// Bytes of packets received.
    pub(crate) received_bytes: u64,
    /// Packets sent.
    pub(crate) sent_packets: u64,
    /// Packets received.
    pub(crate) received_packets: u64,
    /// What encrypts packets that the agent moves: `aes-256-gcm` or `chacha20-poly1305`.
    pub(crate) cipher: String,
    /// What moves packets: `userspace` or `kernel`.
    pub(crate) plane: String,
}

impl From<&LinkStatus> for Link {
    fn from(link: &LinkStatus) -> Self {
        Self {
            link: link.link.0,
            peer: (&link.peer).into(),
            interface: link.interface.clone(),
            endpoint: link.endpoint.to_string(),
            cost: link.cost,
            rxcost: link.rxcost,
            txcost: link.txcost,
            rtt_us: link.rtt.map(micros),
            mtu: link.mtu,
            age_s: link.age.as_secs(),
            sent_bytes: link.traffic.sent_bytes,
            received_bytes: link.traffic.received_bytes,
            sent_packets: link.traffic.sent_packets,
            received_packets: link.traffic.received_packets,
            cipher: cipher_name(link.cipher),
            plane: link.plane.into(),
        }
    }
}

/// One of `grange seals`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// Its number; links and seals are counted together.
    pub(crate) seal: u32,
    /// Who is there.
    pub(crate) peer: Peer,
    /// The largest packet that passes whole, in bytes.
    pub(crate) mtu: u16,
    /// Round-trip time in microseconds.
    pub(crate) rtt_us: Option<u64>,
    /// Seconds since it came up.
    pub(crate) age_s: u64,
    /// Seconds since a packet went through it, either way.
    pub(crate) idle_s: u64,
    /// What encrypts packets that the agent moves: `aes-256-gcm` or `chacha20-poly1305`.
    pub(crate) cipher: String,
    /// What moves packets: `userspace` or `kernel`.
    pub(crate) plane: String,
    /// Bytes of packets sent.
    pub(crate) sent_bytes: u64,
    /// Bytes of packets received.
    pub(crate) received_bytes: u64,
}

impl From<&SealStatus> for Seal {
    fn from(seal: &SealStatus) -> Self {
        Self {
            seal: seal.seal.0,
            peer: (&seal.peer).into(),
            mtu: seal.mtu,
            rtt_us: seal.rtt.map(micros),
            age_s: seal.age.as_secs(),
            idle_s: seal.idle.as_secs(),
            cipher: cipher_name(seal.cipher),
            plane: seal.plane.into(),
            sent_bytes: seal.traffic.sent_bytes,
            received_bytes: seal.traffic.received_bytes,
        }
    }
}

/// One of `grange routes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Destination.
    pub(crate) prefix: String,
    /// The next node.
    pub(crate) via: Via,
    /// Over which interface; null for static peers.
    pub(crate) interface: Option<String>,
    /// Cost of the whole way; 65535: unreachable.
    pub(crate) metric: u16,
    /// Who announced it.
    pub(crate) owner: Owner,
    /// Whether packets take it.
    pub(crate) selected: bool,
}

/// The next node of a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Via {
    /// Number of the link.
    pub(crate) link: u32,
    /// The neighbour's id.
    pub(crate) id: String,
    /// The neighbour's name.
    pub(crate) name: String,
}

/// Who announced a route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Its id.
    pub(crate) id: String,
    /// Its name, if there is a link or a seal with it.
    pub(crate) name: Option<String>,
}

impl From<&RouteStatus> for Route {
    fn from(route: &RouteStatus) -> Self {
        Self {
            prefix: route.prefix.to_string(),
            via: Via { link: route.via.0, id: route.neighbour.id.to_string(), name: route.neighbour.name.clone() },
            interface: route.interface.clone(),
            metric: route.metric,
            owner: Owner { id: route.owner.to_string(), name: route.owner_name.clone() },
            selected: route.selected,
        }
    }
}

/// `grange trace`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// The address that was probed.
    pub(crate) destination: IpAddr,
    /// Whether it answered.
    pub(crate) reached: bool,
    /// The way, hop by hop.
    pub(crate) hops: Vec<Hop>,
}

/// A hop of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hop {
    /// Distance; 1 is the next node.
    pub(crate) hop: u8,
    /// Who answered.
    pub(crate) address: Option<IpAddr>,
    /// Its name, where it is known here.
    pub(crate) name: Option<String>,
    /// Round-trip times in microseconds of the probes that were answered.
    pub(crate) rtt_us: Vec<u64>,
}

impl From<&MeshHop> for Hop {
    fn from(hop: &MeshHop) -> Self {
        Self {
            hop: hop.hop,
            address: hop.address,
            name: hop.name.clone(),
            rtt_us: hop.rtt.iter().copied().map(micros).collect(),
        }
    }
}

impl Status {
    /// The status of a mesh and what is shared.
    pub(crate) fn new(snapshot: &Snapshot, gateway: GatewayStatus) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            id: snapshot.id.to_string(),
            name: snapshot.name.clone(),
            address: snapshot.address,
            address_v4: snapshot.address_v4,
            prefix: snapshot.prefix.to_string(),
            town: snapshot.town.as_ref().map(|(id, name)| Town { id: id.to_string(), name: name.clone() }),
            uptime_s: snapshot.uptime.as_secs(),
            plane: snapshot.plane.into(),
            links: snapshot.links.len(),
            routes: snapshot.routes.iter().filter(|route| route.selected).count(),
            gateway: gateway.into(),
            drops: snapshot.drops.into(),
            interfaces: snapshot
                .interfaces
                .iter()
                .map(|iface| Interface {
                    name: iface.name.clone(),
                    kind: kind(iface.kind).into(),
                    up: iface.up,
                    mtu: iface.mtu,
                    role: iface.role.as_str().into(),
                    why: iface.why.clone(),
                })
                .collect(),
        }
    }
}

fn kind(kind: IfaceKind) -> &'static str {
    match kind {
        IfaceKind::Wired => "wired",
        IfaceKind::Wireless => "wireless",
        IfaceKind::Tunnel => "tunnel",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
