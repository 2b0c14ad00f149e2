//! One network interface, and what kind of thing it is.

use std::{collections::BTreeMap, fmt};

use crate::{root::Root, uci};

/// Interfaces that are looked at; a machine with more (a container host) shows the first ones by name.
pub const MAX_INTERFACES: usize = 1024;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part?, 16).ok()?;
        }
        (parts.next().is_none() && octets != [0; 6]).then_some(Self(octets))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Ethernet port of this machine, a port of its switch included.
    Wired,
    /// The Ethernet side that a built-in switch hangs on (DSA): its frames carry the switch's tags.
    SwitchConduit,
    /// One end of a virtual cable between namespaces (veth), or an Ethernet device of a container.
    Veth,
    /// A radio.
    Wireless {
        /// It is in 802.11s mesh mode.
        mesh: bool,
    },
    /// A mobile-phone modem.
    Cellular,
    /// A software bridge.
    Bridge,
    /// Several ports as one (bonding, team).
    Bond,
    /// A VLAN.
    Vlan {
        /// The interface that carries it, where this namespace sees it.
        parent: Option<String>,
    },
    /// Packets in packets: WireGuard, TUN, TAP, PPP, VXLAN, GRE and their like.
    Tunnel,
    /// `lo`.
    Loopback,
    /// Purely local: dummy, ifb, macvlan, VRF and their like.
    Virtual,
    /// Not known.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wired => "wired",
            Self::SwitchConduit => "switch conduit",
            Self::Veth => "veth",
            Self::Wireless { mesh: true } => "802.11s mesh",
            Self::Wireless { mesh: false } => "wireless",
            Self::Cellular => "cellular",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::Vlan { .. } => "vlan",
            Self::Tunnel => "tunnel",
            Self::Loopback => "loopback",
            Self::Virtual => "virtual",
            Self::Unknown => "unknown",
        })
    }
}

/// A network interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number; 0 if unknown.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Largest IP packet, in bytes; 0 if unknown.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The medium is there: a plugged cable, a joined network.
    pub carrier: bool,
    /// In Mbit/s, where the driver tells.
    pub speed_mbit: Option<u32>,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<String>,
    /// The kernel driver of its hardware.
    pub driver: Option<String>,
}

impl Interface {
    pub(crate) fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            index: 0,
            kind: Kind::Unknown,
            mac: None,
            mtu: 0,
            up: false,
            carrier: false,
            speed_mbit: None,
            master: None,
            driver: None,
        }
    }
}

/// ARPHRD numbers of `if_arp.h`.
mod arphrd {
    pub(super) const ETHER: u32 = 1;
    pub(super) const PPP: u32 = 512;
    pub(super) const RAWIP: u32 = 519;
    pub(super) const TUNNELS: [u32; 7] = [768, 769, 776, 778, 823, PPP, 65534];
    pub(super) const LOOPBACK: u32 = 772;
}

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

/// All interfaces, sorted by index and name.
///
/// `/sys/class/net` shows the network namespace in which it was mounted, `/proc/net` that of the reader. Where the two
/// disagree, only `/proc` is believed, which tells much less.
pub(crate) fn read_all(root: &Root<'_>) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    // An interface may come or go between the two readings: look again before believing that they differ.
    for _ in 0..2 {
        interfaces = from_sys(root);
        match from_proc(root) {
            Some(proc) if !agree(&interfaces, &proc) => interfaces = proc,
            _ => break,
        }
    }
    interfaces.sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
    interfaces
}

fn agree(sys: &[Interface], proc: &[Interface]) -> bool {
    let by_name: BTreeMap<&str, u32> = sys.iter().map(|iface| (iface.name.as_str(), iface.index)).collect();
    sys.len() == proc.len()
        && proc.iter().all(|iface| {
            by_name.get(iface.name.as_str()).is_some_and(|index| iface.index == 0 || iface.index == *index)
        })
}

fn from_sys(root: &Root<'_>) -> Vec<Interface> {
    let names = root.names("sys/class/net", MAX_INTERFACES);
    let mut interfaces: Vec<Interface> = names.iter().filter_map(|name| one(root, name)).collect();
    // Older kernels have no `dsa` directory on the conduit, but its ports point to it.
    let conduits: Vec<u32> = names
        .iter()
        .filter(|name| devtype(root, &format!("sys/class/net/{name}")).as_deref() == Some("dsa"))
        .filter_map(|name| root.number(&format!("sys/class/net/{name}/iflink")))
        .collect();
    for iface in &mut interfaces {
        if iface.kind == Kind::Wired && conduits.contains(&iface.index) {
            iface.kind = Kind::SwitchConduit;
        }
    }
    interfaces
}

fn one(root: &Root<'_>, name: &str) -> Option<Interface> {
    let at = format!("sys/class/net/{name}");
    if !root.is_dir(&at) {
        return None;
    }
    Some(Interface {
        name: name.to_owned(),
        index: root.number(&format!("{at}/ifindex")).unwrap_or(0),
        kind: kind(root, name),
        mac: root.line(&format!("{at}/address")).and_then(|text| Mac::parse(&text)),
        mtu: root.number(&format!("{at}/mtu")).unwrap_or(0),
        up: flags(root, &at) & IFF_UP != 0,
        // The file of an interface that is down exists and cannot be read.
        carrier: root.number::<u8>(&format!("{at}/carrier")) == Some(1),
        // The kernel writes -1 for "unknown", older ones 65535 or the same as an unsigned number.
        speed_mbit: root.number(&format!("{at}/speed")).filter(|&speed: &u32| !matches!(speed, 0 | 65_535 | u32::MAX)),
        master: root.link_name(&format!("{at}/master")).or_else(|| root.link_name(&format!("{at}/brport/bridge"))),
        driver: root.link_name(&format!("{at}/device/driver")),
    })
}

fn flags(root: &Root<'_>, at: &str) -> u32 {
    let text = root.line(&format!("{at}/flags")).unwrap_or_default();
    u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
}

fn devtype(root: &Root<'_>, at: &str) -> Option<String> {
    let text = root.read(&format!("{at}/uevent"), 4096)?;
    text.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(str::to_owned)
}

fn kind(root: &Root<'_>, name: &str) -> Kind {
    let at = format!("sys/class/net/{name}");
    let has = |leaf: &str| root.exists(&format!("{at}/{leaf}"));
    let hardware_type = root.number::<u32>(&format!("{at}/type"));
    let devtype = devtype(root, &at);
    match devtype.as_deref() {
        Some("wlan") => return wireless(root, name),
        Some("wwan") => return Kind::Cellular,
        Some("bridge") => return Kind::Bridge,
        Some("bond") => return Kind::Bond,
        Some("vlan") => return Kind::Vlan { parent: vlan_parent(root, name) },
        Some("dsa") => return Kind::Wired,
        Some("wireguard" | "vxlan" | "geneve" | "gretap" | "gtp" | "ppp" | "bareudp" | "macsec" | "ovpn") => {
            return Kind::Tunnel;
        }
        Some(_) if !has("device") => return Kind::Virtual,
        _ => {}
    }
    match hardware_type {
        Some(arphrd::LOOPBACK) => return Kind::Loopback,
        Some(arphrd::RAWIP) => return Kind::Cellular,
        Some(number) if arphrd::TUNNELS.contains(&number) => return Kind::Tunnel,
        _ => {}
    }
    if has("tun_flags") {
        Kind::Tunnel
    } else if has("phy80211") || has("wireless") {
        wireless(root, name)
    } else if has("bridge") {
        Kind::Bridge
    } else if has("bonding") {
        Kind::Bond
    } else if root.exists(&format!("proc/net/vlan/{name}")) {
        Kind::Vlan { parent: vlan_parent(root, name) }
    } else if hardware_type != Some(arphrd::ETHER) {
        Kind::Unknown
    } else if has("dsa") {
        Kind::SwitchConduit
    } else if has("device") {
        Kind::Wired
    } else if flags(root, &at) & IFF_NOARP != 0 || !lowers(root, &at).is_empty() {
        // dummy and ifb set NOARP; macvlan and ipvlan show the interface that they sit on.
        Kind::Virtual
    } else {
        Kind::Veth
    }
}

/// The interfaces that this one sits on.
fn lowers(root: &Root<'_>, at: &str) -> Vec<String> {
    let names = root.names(at, MAX_INTERFACES);
    names.iter().filter_map(|name| name.strip_prefix("lower_")).map(str::to_owned).collect()
}

fn vlan_parent(root: &Root<'_>, name: &str) -> Option<String> {
    if let Some(parent) = lowers(root, &format!("sys/class/net/{name}")).into_iter().next() {
        return Some(parent);
    }
    let text = root.read(&format!("proc/net/vlan/{name}"), 4096)?;
    text.lines().find_map(|line| line.trim().strip_prefix("Device:")).map(|parent| parent.trim().to_owned())
}

/// Without netlink, three things tell an 802.11s interface from others: debugfs, OpenWrt's configuration, and the name
/// that OpenWrt gives it.
fn wireless(root: &Root<'_>, name: &str) -> Kind {
    let debugfs = || {
        let phy = root.link_name(&format!("sys/class/net/{name}/phy80211"))?;
        let at = format!("sys/kernel/debug/ieee80211/{phy}/netdev:{name}");
        Some(root.is_dir(&format!("{at}/mesh_config")) || root.is_dir(&format!("{at}/mesh_stats")))
    };
    let named = || {
        let (phy, number) = name.rsplit_once("-mesh")?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        Some(phy.starts_with("phy") && digits(number))
    };
    let mesh = debugfs().unwrap_or(false) || named().unwrap_or(false) || uci_mesh(root, name);
    Kind::Wireless { mesh }
}

/// Whether `/etc/config/wireless` has a `wifi-iface` with this `ifname` and `mode 'mesh'`.
fn uci_mesh(root: &Root<'_>, name: &str) -> bool {
    let text = root.read("etc/config/wireless", uci::MAX_FILE).unwrap_or_default();
    let mut sections = uci::sections(&text);
    sections.any(|section| section.get("mode") == Some("mesh") && section.get("ifname") == Some(name))
}

/// What `/proc/net` tells: names, most indices, which of them speak Ethernet (a six-byte multicast group), which are up
/// (an IPv6 address). `None` if `/proc/net/dev` is missing.
fn from_proc(root: &Root<'_>) -> Option<Vec<Interface>> {
    let text = root.read("proc/net/dev", 1 << 20)?;
    let groups = root.read("proc/net/dev_mcast", 1 << 20).unwrap_or_default();
    let addresses = root.read("proc/net/if_inet6", 1 << 20).unwrap_or_default();
    let mut ethernet: BTreeMap<&str, u32> = BTreeMap::new();
    for line in groups.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(Ok(index)), Some(name), Some(12)) =
            (fields.next().map(str::parse), fields.next(), fields.nth(2).map(str::len))
        {
            ethernet.insert(name, index);
        }
    }
    let mut addressed: BTreeMap<&str, u32> = BTreeMap::new();
    for line in addresses.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let &[_, index, _, _, _, name] = fields.as_slice()
            && let Ok(index) = u32::from_str_radix(index, 16)
        {
            addressed.insert(name, index);
        }
    }
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let interfaces = names.filter(|name| !name.is_empty()).take(MAX_INTERFACES).map(|name| {
        let mut iface = Interface::unknown(name);
        iface.index = ethernet.get(name).or_else(|| addressed.get(name)).copied().unwrap_or(0);
        iface.mtu = root.number(&format!("proc/sys/net/ipv6/conf/{name}/mtu")).unwrap_or(0);
        iface.up = addressed.contains_key(name);
        iface.carrier = iface.up;
        iface.kind = if name == "lo" {
            Kind::Loopback
        } else if root.exists(&format!("proc/net/vlan/{name}")) {
            Kind::Vlan { parent: vlan_parent(root, name) }
        } else if ethernet.contains_key(name) {
            Kind::Veth
        } else {
            Kind::Unknown
        };
        iface
    });
    Some(interfaces.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses() {
        assert_eq!(Mac::parse("94:83:c4:0a:0b:0c").map(|mac| mac.to_string()).as_deref(), Some("94:83:c4:0a:0b:0c"));
        for text in ["", "00:00:00:00:00:00", "94:83:c4:0a:0b", "94:83:c4:0a:0b:0c:0d", "+1:83:c4:0a:0b:0c", "x"] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }
}
