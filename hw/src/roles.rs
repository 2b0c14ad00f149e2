//! What each interface is used for.

use std::fmt;

use crate::{Interface, Kind, Machine};

/// A medium that carries the mesh, as far as costs and loss detection differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A cable or anything that behaves like one.
    Wired,
    /// A radio.
    Wireless,
}

/// What an interface is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Neighbours are looked for there.
    Mesh(Medium),
    /// The household's own network.
    Lan,
    /// The way to an Internet provider.
    Uplink,
    /// Nothing.
    Unused,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mesh(_) => "mesh",
            Self::Lan => "lan",
            Self::Uplink => "uplink",
            Self::Unused => "unused",
        })
    }
}

/// A setting that is either decided here or a list of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Decide by the rules of [`roles`].
    #[default]
    Auto,
    /// These interfaces and no others; an empty list is none.
    Named(Vec<String>),
}

impl Choice {
    fn names(&self) -> &[String] {
        match self {
            Self::Auto => &[],
            Self::Named(names) => names,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names().iter().any(|other| other == name)
    }
}

/// What the configuration says about interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `mesh.interfaces`.
    pub mesh: Choice,
    /// `mesh.exclude`: never carries the mesh.
    pub exclude: Vec<String>,
    /// `lan.interfaces`.
    pub lan: Choice,
    /// `uplink.interface`: `Named` with one name, or `Auto`.
    pub uplink: Choice,
    /// `mesh.tun`: the agent's own interface, whose default routes are the mesh's.
    pub tun: Option<String>,
    /// Interfaces that were the uplink when this was last decided: an uplink that lost its default route for a while must
    /// not start to look for neighbours at the provider's.
    pub former_uplinks: Vec<String>,
}

/// The role of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub interface: String,
    /// Its role.
    pub role: Role,
    /// Why, in a plain sentence without a full stop, to follow "because" or a colon.
    pub why: String,
}

/// Bridges that container and virtual-machine managers make.
const CONTAINER_BRIDGES: [&str; 10] =
    ["docker", "br-", "virbr", "lxcbr", "lxdbr", "incusbr", "podman", "cni", "nerdctl", "flannel"];

/// Decides what each interface of the machine is used for, in the machine's order.
///
/// What the configuration names has its way: `exclude` before `mesh.interfaces`, that before `lan.interfaces`, that before
/// `uplink.interface`. The rest, in this order: the agent's own tunnel and loopback are unused; a default route makes an
/// uplink, as does OpenWrt's configuration of `wan`; what an uplink stands on and ports of a bridge are unused; a bridge is a LAN; a cable and an 802.11s mesh
/// carry the mesh; everything else is unused. Whether an interface is up plays no part, so that roles do not change with
/// a pulled cable.
#[must_use]
pub fn roles(machine: &Machine, selection: &Selection) -> Vec<Assignment> {
    let uplinks = uplinks(machine, selection);
    let assign = |iface: &Interface| {
        let (role, why) = decide(machine, selection, &uplinks, iface);
        Assignment { interface: iface.name.clone(), role, why }
    };
    machine.interfaces.iter().map(assign).collect()
}

/// The interfaces that lead to an Internet provider, the preferred one first, whatever their role: an interface that the
/// configuration names for the mesh can be one too.
#[must_use]
pub fn uplinks(machine: &Machine, selection: &Selection) -> Vec<String> {
    match &selection.uplink {
        Choice::Named(names) => names.clone(),
        Choice::Auto => {
            let routes = machine.default_routes.interfaces().into_iter();
            let wan = machine.wan_devices.iter().filter(|name| !machine.pppoe_carriers.contains(name));
            let others = wan.chain(&selection.former_uplinks).map(String::as_str);
            let mut names: Vec<String> = Vec::new();
            for name in routes.chain(others.filter(|name| machine.interface(name).is_some())) {
                if !own_tunnel(selection, name) && !names.iter().any(|other| other == name) {
                    names.push(name.to_owned());
                }
            }
            names
        }
    }
}

/// Interfaces that the configuration names and the machine does not have (yet).
#[must_use]
pub fn absent<'a>(machine: &Machine, selection: &'a Selection) -> Vec<&'a str> {
    let named = [&selection.mesh, &selection.lan, &selection.uplink].into_iter().flat_map(Choice::names);
    let mut names: Vec<&str> = named.map(String::as_str).filter(|name| machine.interface(name).is_none()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn own_tunnel(selection: &Selection, name: &str) -> bool {
    selection.tun.as_deref() == Some(name)
}

fn decide(machine: &Machine, selection: &Selection, uplinks: &[String], iface: &Interface) -> (Role, String) {
    let name = iface.name.as_str();
    let is_uplink = uplinks.iter().any(|uplink| uplink == name);
    if own_tunnel(selection, name) {
        return unused("it is Grange's own tunnel");
    }
    if iface.kind == Kind::Loopback {
        return unused("it is the loopback interface");
    }
    let excluded = selection.exclude.iter().any(|other| other == name);
    if selection.mesh.has(name) && !excluded {
        let also = if is_uplink { "; it is the uplink too" } else { "" };
        return (Role::Mesh(medium(&iface.kind)), format!("mesh.interfaces names it{also}"));
    }
    if selection.lan.has(name) {
        return (Role::Lan, "lan.interfaces names it".into());
    }
    if is_uplink {
        let why = match &selection.uplink {
            Choice::Named(_) => "uplink.interface names it".into(),
            Choice::Auto => uplink_reason(machine, name),
        };
        return (Role::Uplink, why);
    }
    if let Some(why) = carries_uplink(machine, uplinks, name) {
        return unused(why);
    }
    if let Some(master) = &iface.master {
        let warn = match iface.kind {
            Kind::Wireless { mesh: true } => ": take the 802.11s interface out of it to let it carry the mesh",
            _ => "",
        };
        return unused(format!("it is a port of {master}{warn}"));
    }
    if iface.kind == Kind::Bridge {
        return bridge(selection, name);
    }
    if excluded {
        return unused("mesh.exclude names it");
    }
    by_kind(selection, &iface.kind)
}

fn by_kind(selection: &Selection, kind: &Kind) -> (Role, String) {
    let why = match kind {
        Kind::Wired | Kind::Veth | Kind::Bond if selection.mesh == Choice::Auto => {
            return (Role::Mesh(Medium::Wired), "it is a cable and not the uplink".into());
        }
        Kind::Wireless { mesh: true } if selection.mesh == Choice::Auto => {
            return (Role::Mesh(Medium::Wireless), "it is an 802.11s mesh".into());
        }
        Kind::Wired | Kind::Veth | Kind::Bond | Kind::Wireless { mesh: true } => "mesh.interfaces does not name it",
        Kind::Wireless { mesh: false } => "it is Wi-Fi for phones or of a client, not an 802.11s mesh",
        Kind::SwitchConduit => "the ports of the built-in switch are used instead",
        Kind::Vlan { .. } => "it is a VLAN: name it in mesh.interfaces if neighbours are there",
        Kind::Tunnel => "it is a tunnel",
        Kind::Cellular => "it is a mobile-phone modem without a default route",
        Kind::Virtual => "it is a virtual interface of this machine only",
        Kind::Bridge | Kind::Loopback | Kind::Unknown => "its kind is not known: name it in mesh.interfaces to use it",
    };
    unused(why)
}

fn bridge(selection: &Selection, name: &str) -> (Role, String) {
    if selection.lan != Choice::Auto {
        unused("lan.interfaces does not name it")
    } else if of_containers(name) {
        unused("it is a bridge for containers or virtual machines: name it in lan.interfaces to serve them")
    } else {
        (Role::Lan, "it is a bridge and not the uplink".into())
    }
}

/// Docker's own networks are `br-` and twelve hexadecimal digits; OpenWrt's are `br-lan`, `br-guest` and the like.
fn of_containers(name: &str) -> bool {
    CONTAINER_BRIDGES.iter().any(|prefix| match (name.strip_prefix(prefix), *prefix) {
        (Some(rest), "br-") => rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()),
        (Some(_), _) => true,
        (None, _) => false,
    })
}

/// Why `name` is what an uplink stands on, if it is.
fn carries_uplink(machine: &Machine, uplinks: &[String], name: &str) -> Option<String> {
    let vlan = machine.interfaces.iter().find(|iface| {
        uplinks.contains(&iface.name)
            && matches!(&iface.kind, Kind::Vlan { parent: Some(parent) } if parent.as_str() == name)
    });
    if let Some(vlan) = vlan {
        return Some(format!("the uplink {} is a VLAN on it", vlan.name));
    }
    machine.pppoe_carriers.iter().any(|carrier| carrier == name).then(|| "it carries a PPPoE session".into())
}

fn uplink_reason(machine: &Machine, name: &str) -> String {
    let routes = &machine.default_routes;
    let has = |routes: &[crate::DefaultRoute]| routes.iter().any(|route| route.interface == name);
    match (has(&routes.v4), has(&routes.v6)) {
        (true, true) => "the default routes of IPv4 and IPv6 go through it".into(),
        (false, true) => "the default route of IPv6 goes through it".into(),
        (true, false) => "the default route of IPv4 goes through it".into(),
        (false, false) if machine.wan_devices.iter().any(|device| device == name) => {
            "the network configuration calls it wan".into()
        }
        (false, false) => "it was the uplink before and has no default route now".into(),
    }
}

fn medium(kind: &Kind) -> Medium {
    match kind {
        Kind::Wireless { .. } | Kind::Cellular => Medium::Wireless,
        _ => Medium::Wired,
    }
}

fn unused(why: impl Into<String>) -> (Role, String) {
    (Role::Unused, why.into())
}
