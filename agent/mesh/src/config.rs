//! What a mesh is started with.

use std::{fmt, net::SocketAddr, path::PathBuf};

use grange_core::{GatewayPolicy, IfaceKind, Town};
use zeroize::Zeroize;

/// What an interface is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Links form here.
    Mesh,
    /// The way to an Internet provider.
    Uplink,
    /// Hosts of the household are here: the interface gets this node's `::1/64`.
    Lan,
    /// Nothing.
    Unused,
}

impl Role {
    /// The word that is shown: `mesh`, `uplink`, `lan` or `unused`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Uplink => "uplink",
            Self::Lan => "lan",
            Self::Unused => "unused",
        }
    }
}

/// What the kernel says of an interface when its role is to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Name, such as `eth0`.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Whether a default route of the main table leaves by it, of either IP version.
    pub default_route: bool,
    /// Whether it is a port of a bridge or bond: its packets belong to that one.
    pub enslaved: bool,
}

/// What an interface shall be used for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceChoice {
    /// Its use.
    pub role: Role,
    /// Whether links may form on it: always for [`Role::Mesh`], never for [`Role::Unused`], as chosen for the others.
    pub links: bool,
    /// Kind of medium.
    pub kind: IfaceKind,
    /// One short sentence for the person who wonders.
    pub why: String,
}

/// Chooses what an interface is used for. Asked when an interface appears, is renamed, joins or leaves a bridge, and
/// when it gains or loses a default route. Must be quick: the driver waits for it.
pub type Selector = Box<dyn Fn(&InterfaceFacts) -> InterfaceChoice + Send>;

/// The selector that chooses nothing.
pub(crate) fn nothing(_: &InterfaceFacts) -> InterfaceChoice {
    InterfaceChoice { role: Role::Unused, links: false, kind: IfaceKind::Wired, why: String::new() }
}

/// A peer to keep a link with, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticPeer {
    /// Name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

impl fmt::Display for StaticPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePeerError {
    /// No `HOST:PORT`.
    #[error("expected HOST:PORT, as in mesh.example.org:7264 or [2001:db8::1]:7264")]
    Form,
    /// The host is empty or longer than a DNS name can be (253 bytes).
    #[error("the host must have 1 to 253 characters")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

impl std::str::FromStr for StaticPeer {
    type Err = ParsePeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let port = if addr.port() == 0 { return Err(ParsePeerError::Port) } else { addr.port() };
            return Ok(Self { host: addr.ip().to_string(), port });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ParsePeerError::Form)?;
        if host.contains([':', '[', ']', '/', ' ']) {
            return Err(ParsePeerError::Form);
        }
        if host.is_empty() || host.len() > 253 {
            return Err(ParsePeerError::Host);
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ParsePeerError::Port)?;
        Ok(Self { host: host.into(), port })
    }
}

/// What a mesh is started with.
pub struct MeshConfig {
    /// The node's 32-byte seed.
    pub seed: [u8; 32],
    /// The name that neighbours see: at most 32 bytes.
    pub name: String,
    /// The town; without one the node forms no links.
    pub town: Option<Town>,
    /// Whose default routes are taken.
    pub gateways: GatewayPolicy,
    /// UDP port of links and beacons.
    pub port: u16,
    /// Chooses what each interface is used for.
    pub interfaces: Selector,
    /// Peers to keep links with. At most [`MAX_STATIC_PEERS`] are kept.
    pub peers: Vec<StaticPeer>,
    /// Whether to announce and look for peers by mDNS.
    pub mdns: bool,
    /// Name of the TUN device: 1 to 15 bytes.
    pub tun: String,
    /// Mark of the underlay's own packets, so that they never take the mesh's routes.
    pub fwmark: u32,
    /// Number of the routing table that is ours.
    pub table: u32,
    /// Whether AES-256-GCM may be agreed on where it is fast at both ends; else ChaCha20-Poly1305 always.
    pub aes: bool,
    /// Whether the kernel's WireGuard is used where both ends have it.
    pub kernel_plane: bool,
    /// Whether what this node sends to nodes that are not its neighbours is sealed from end to end. Seals that others
    /// make are answered in any case.
    pub seals: bool,
    /// Directory for what must not outlive a reboot; made if it is missing.
    pub runtime_dir: PathBuf,
}

/// Default of [`MeshConfig::fwmark`] and [`MeshConfig::table`].
pub const DEFAULT_MARK: u32 = 7264;

/// Default of [`MeshConfig::tun`].
pub const DEFAULT_TUN: &str = "grange0";

/// Most static peers that are kept.
pub const MAX_STATIC_PEERS: usize = 64;

impl MeshConfig {
    /// A configuration with the defaults: no town, any gateway, port 7264, no static peers, mDNS on, device `grange0`,
    /// mark and table 7264, both ciphers and planes, seals, runtime directory `/run/grange`.
    #[must_use]
    pub fn new(seed: [u8; 32], name: String, interfaces: Selector) -> Self {
        Self {
            seed,
            name,
            town: None,
            gateways: GatewayPolicy::Any,
            port: grange_wire::PORT,
            interfaces,
            peers: Vec::new(),
            mdns: true,
            tun: DEFAULT_TUN.into(),
            fwmark: DEFAULT_MARK,
            table: DEFAULT_MARK,
            aes: true,
            kernel_plane: true,
            seals: true,
            runtime_dir: "/run/grange".into(),
        }
    }
}

impl Drop for MeshConfig {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_parse_and_print_alike() {
        for text in ["mesh.example.org:7264", "[2001:db8::1]:7264", "192.0.2.1:1"] {
            assert_eq!(text.parse::<StaticPeer>().unwrap().to_string(), text);
        }
        assert_eq!("mesh.example.org".parse::<StaticPeer>(), Err(ParsePeerError::Form));
        assert_eq!("2001:db8::1:7264".parse::<StaticPeer>(), Err(ParsePeerError::Form));
        assert_eq!(":7264".parse::<StaticPeer>(), Err(ParsePeerError::Host));
        assert_eq!("host:0".parse::<StaticPeer>(), Err(ParsePeerError::Port));
        assert_eq!("192.0.2.1:0".parse::<StaticPeer>(), Err(ParsePeerError::Port));
        assert_eq!("host:65536".parse::<StaticPeer>(), Err(ParsePeerError::Port));
    }
}
