//! What goes in and out of a [`Node`](crate::Node).

use alloc::{string::String, vec::Vec};
use core::{fmt, net::SocketAddr, time::Duration};

use grange_wire::{LinkIndex, NodeId, Prefix, RouterId};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A network interface: the kernel's index in the agent, any number in a simulation. Zero: whichever the kernel
/// chooses (static peers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfaceId(pub u32);

impl IfaceId {
    /// The mesh itself, the underlay of seals: endpoints there are nodes' own addresses at [`grange_wire::SEAL_PORT`].
    pub const MESH: Self = Self(u32::MAX);
}

/// A link or a seal, for as long as it is up; never used again in one run of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// What kind of medium an interface is, as far as costs and loss detection differ (RFC 8966, appendix A.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfaceKind {
    /// A cable or a bridge: loses little; a link is up or down.
    Wired,
    /// A radio: loses often; the cost is the expected number of transmissions.
    Wireless,
    /// An underlay of several hops (static peers): the cost grows with the round-trip time (RFC 9616).
    Tunnel,
}

/// An interface that links may form on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfaceState {
    /// Kind of medium.
    pub kind: IfaceKind,
    /// Largest IP packet the interface carries, in bytes.
    pub mtu: u16,
    /// Carrier present and administratively up.
    pub up: bool,
    /// Whether to send beacons there.
    pub beacons: bool,
}

/// Where a neighbour's datagrams come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The interface; zero for static peers.
    pub iface: IfaceId,
    /// Address and UDP port. The scope id of link-local addresses is zero here: `iface` says it.
    pub addr: SocketAddr,
}

/// To whom a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One address.
    Endpoint(Endpoint),
    /// The beacon group (`ff02::6772`, at our own UDP port: [`grange_wire::PORT`] unless configured) on one interface.
    Beacon(IfaceId),
}

/// A datagram that the shell shall send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: Target,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// Cumulative counters of one link's data frames, as its plane counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTraffic {
    /// Data frames sent.
    pub sent_packets: u64,
    /// Bytes of IP packets sent.
    pub sent_bytes: u64,
    /// Data frames that authenticated.
    pub received_packets: u64,
    /// Bytes of IP packets received.
    pub received_bytes: u64,
}

/// The cipher of a link's data frames, agreed in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D): where both ends' processors have instructions for it.
    Aes256Gcm,
}

/// Keys of a link's data frames, for the plane. Control frames have keys of their own that never leave the core.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKeys {
    /// The cipher.
    #[zeroize(skip)]
    pub cipher: Cipher,
    /// The index in the frames that come to us.
    #[zeroize(skip)]
    pub local: LinkIndex,
    /// The index in the frames that we send.
    #[zeroize(skip)]
    pub remote: LinkIndex,
    /// Key that seals what we send.
    pub seal: [u8; 32],
    /// Key that opens what we receive.
    pub open: [u8; 32],
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeys({:?} -> {:?})", self.local, self.remote)
    }
}

/// Who is at the other end of a link, as the handshake proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The node's id, proved by its certificate.
    pub id: NodeId,
    /// The name that the node gives itself: at most 32 bytes, printable, proved by nobody.
    pub name: String,
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The interface lost its carrier or was removed.
    Interface,
    /// Frames were sent and nothing came back.
    Silent,
    /// The neighbour said that it stops.
    Closed,
    /// The neighbour started anew; another link takes this one's place.
    Replaced,
    /// No new keys could be agreed before the old ones ran out.
    Expired,
    /// Nobody used it.
    Idle,
    /// We stop.
    Shutdown,
}

/// What the shell shall know or do.
#[derive(Clone, Debug)]
pub enum Event {
    /// A link carries packets from now on.
    LinkUp {
        /// Its id.
        link: LinkId,
        /// Who is there.
        peer: PeerInfo,
        /// Where.
        endpoint: Endpoint,
        /// For the plane.
        keys: DataKeys,
        /// The largest inner IP packet, in bytes, that is known to pass.
        mtu: u16,
        /// Both ends have the kernel plane: tell where it listens by [`Node::set_plane_port`](crate::Node::set_plane_port).
        kernel: bool,
    },
    /// A seal carries packets from now on. What is said of links in `LinkKeysOffered`, `LinkRekeyed`, `LinkMtu` and
    /// `LinkPlanePort` is said of seals too.
    SealUp {
        /// Its id.
        seal: LinkId,
        /// Who is there.
        peer: PeerInfo,
        /// Its address, on [`IfaceId::MESH`].
        endpoint: Endpoint,
        /// For the plane.
        keys: DataKeys,
        /// The largest inner IP packet, in bytes, that is known to pass.
        mtu: u16,
        /// As for links.
        kernel: bool,
    },
    /// The seal is gone; packets for its peer need another.
    SealDown {
        /// Which seal.
        seal: LinkId,
        /// Why.
        reason: DownReason,
    },
    /// Where the neighbour's kernel plane listens for this link, at the address of the link's endpoint.
    LinkPlanePort {
        /// Which link.
        link: LinkId,
        /// UDP port; zero: it has none any more.
        port: u16,
    },
    /// New keys, first half: open with them from now on, beside the present ones, and go on sealing with the present
    /// ones. `LinkRekeyed` brings the same keys again when the neighbour has them too; without it they lapse at the
    /// next `LinkKeysOffered`. Comes on the end that began the rekeying, so that no frame arrives before its key.
    LinkKeysOffered {
        /// Which link.
        link: LinkId,
        /// For the plane.
        keys: DataKeys,
    },
    /// New keys: seal with them from now on; open with the old ones until the next `LinkRekeyed`.
    LinkRekeyed {
        /// Which link.
        link: LinkId,
        /// For the plane.
        keys: DataKeys,
    },
    /// The neighbour's address changed.
    LinkMoved {
        /// Which link.
        link: LinkId,
        /// Where it is now.
        endpoint: Endpoint,
    },
    /// Padded packets proved another size.
    LinkMtu {
        /// Which link.
        link: LinkId,
        /// The largest inner IP packet, in bytes, that is known to pass.
        mtu: u16,
    },
    /// The link is gone; so are the routes over it (their events came before this one).
    LinkDown {
        /// Which link.
        link: LinkId,
        /// Why.
        reason: DownReason,
    },
    /// This is the way to the prefix from now on.
    RouteChanged {
        /// Destination.
        prefix: Prefix,
        /// Over which link.
        via: LinkId,
        /// Cost of the whole way (RFC 8966, section 3.5.2).
        metric: u16,
        /// Who announced it, proved by signature.
        owner: NodeId,
        /// The announcement's router-id.
        router_id: RouterId,
    },
    /// There is no way to the prefix any more.
    RouteRemoved {
        /// Destination.
        prefix: Prefix,
    },
    /// A round trip on a link was measured.
    LinkRtt {
        /// Which link.
        link: LinkId,
        /// Smoothed.
        rtt: Duration,
    },
}
