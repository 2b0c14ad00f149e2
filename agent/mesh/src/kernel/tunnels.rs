//! The WireGuard interfaces that are there, kept in step with those that are wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use grange_core::LinkId;
use grange_wire::{MESH_V4, MESH_V6, NodeId, Prefix};

use super::{
    interface_index,
    netlink::Netlink,
    plan::{GROUP, SEAL_GROUP},
    sysctl::Sysctls,
    wireguard::{DeviceChange, PeerChange, WireGuard},
};
use crate::plane::Secret;

/// Names of our interfaces begin with this and end with a number.
const NAME: &str = "grange";

/// Numbers that are tried for a name; others may have taken some.
const NAMES: u32 = 1024;

/// How often the kernel is asked for handshakes while one is wanted, and otherwise.
const POLL: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// A WireGuard interface as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunnelSpec {
    /// Its private key.
    pub private: Secret,
    /// The other end's public key.
    pub peer: [u8; 32],
    /// The key that both ends share beside.
    pub preshared: Secret,
    /// Where the other end is, if that is known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that are sent in any case; zero: none.
    pub keepalive: u16,
    /// Whether a handshake is waited for.
    pub proving: bool,
    /// MTU in bytes.
    pub mtu: u16,
    /// Mark of its packets.
    pub mark: u32,
    /// The node at the other end.
    pub node: NodeId,
    /// Whether it is of a seal: packets with a source in the mesh may come from that node only.
    pub seal: bool,
    /// When this changes, the session is forgotten and a new handshake needed.
    pub generation: u32,
}

/// What there is to know of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TunnelReport {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// UDP port that it listens on.
    pub port: u16,
    /// Handshakes that succeeded since the session was forgotten last, as far as they were seen.
    pub handshakes: u32,
    /// The generation that it is set to.
    pub generation: u32,
}

/// What there is to know of all of them.
pub(crate) type Reports = BTreeMap<LinkId, TunnelReport>;

/// Whether this kernel has WireGuard and lets us use it: makes an interface and removes it.
///
/// # Errors
/// What the kernel said.
pub(crate) async fn detect(netlink: &Netlink) -> io::Result<WireGuard> {
    let wireguard = WireGuard::open()?;
    let (_, index) = add_interface(netlink, crate::plane::MIN_MTU, GROUP).await?;
    netlink.remove_interface(index).await?;
    Ok(wireguard)
}

async fn add_interface(netlink: &Netlink, mtu: u16, group: u32) -> io::Result<(String, u32)> {
    for number in 1..=NAMES {
        let name = format!("{NAME}{number}");
        if interface_index(&name).is_some() {
            continue;
        }
        match netlink.add_wireguard(&name, mtu, group).await {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                let index = interface_index(&name).ok_or(io::ErrorKind::NotFound)?;
                return Ok((name, index));
            }
        }
    }
    Err(io::Error::other("all names of WireGuard interfaces are taken"))
}

struct There {
    spec: TunnelSpec,
    report: TunnelReport,
    /// When the wall clock says that the last handshake was. Only that it changes is looked at: clocks jump.
    last: (i64, i64),
}

/// The interfaces.
pub(crate) struct Tunnels {
    wireguard: Option<WireGuard>,
    /// The key of a peer that is nobody: addresses that are allowed to it are refused to the real one.
    nobody: [u8; 32],
    fenced: Vec<Prefix>,
    there: BTreeMap<LinkId, There>,
    /// Those of an earlier run: index and name.
    left: BTreeMap<u32, String>,
}

impl Tunnels {
    /// None so far. Without `wireguard` there will be none.
    pub(crate) fn new(wireguard: Option<WireGuard>, id: &NodeId) -> Self {
        let mut nobody = [0; 32];
        // Any value does that is nobody's key.
        if getrandom::fill(&mut nobody).is_err() {
            nobody = id.0;
        }
        Self { wireguard, nobody, fenced: fenced(id), there: BTreeMap::new(), left: BTreeMap::new() }
    }

    /// Whether there can be any.
    pub(crate) fn enabled(&self) -> bool {
        self.wireguard.is_some()
    }

    /// Notes what an earlier run left.
    pub(crate) async fn adopt(&mut self, netlink: &Netlink) -> io::Result<()> {
        self.left = netlink.wireguards().await?.into_iter().collect();
        Ok(())
    }

    /// Indices of the interfaces.
    pub(crate) fn indices(&self) -> BTreeMap<LinkId, u32> {
        self.there.iter().map(|(link, there)| (*link, there.report.index)).collect()
    }

    /// Names of the interfaces, those of an earlier run included.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let ours = self.there.values().map(|there| there.report.name.as_str());
        ours.chain(self.left.values().map(String::as_str)).collect()
    }

    /// What there is to know of those that `told` says may be told of: the rest is not fenced yet.
    pub(crate) fn reports(&self, told: impl Fn(&TunnelSpec, &TunnelReport) -> bool) -> Reports {
        let told = self.there.iter().filter(|(_, there)| told(&there.spec, &there.report));
        told.map(|(link, there)| (*link, there.report.clone())).collect()
    }

    /// Who is at the other end of each link's interface.
    pub(crate) fn near(&self) -> BTreeMap<String, NodeId> {
        let links = self.there.values().filter(|there| !there.spec.seal);
        links.map(|there| (there.report.name.clone(), there.spec.node)).collect()
    }

    /// Who is at the other end of the seal whose interface listens on which port.
    pub(crate) fn sealed(&self) -> BTreeMap<u16, NodeId> {
        let seals = self.there.values().filter(|there| there.spec.seal && there.report.port != 0);
        seals.map(|there| (there.report.port, there.spec.node)).collect()
    }

    /// When [`Self::poll`] has something to ask.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let eager = self.there.values().any(|there| there.spec.proving);
        (!self.there.is_empty()).then_some(POLL[usize::from(!eager)])
    }

    /// Makes what is wanted and not there, and changes what is to be another way; what is refused keeps nothing else
    /// from being done.
    pub(crate) async fn make(
        &mut self,
        netlink: &Netlink,
        sysctls: &Sysctls,
        wanted: &BTreeMap<LinkId, TunnelSpec>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for (link, spec) in wanted {
            let done = match self.there.get(link) {
                None => self.add(netlink, sysctls, *link, spec).await,
                Some(there) if there.spec != *spec => self.change(netlink, *link, spec).await,
                Some(_) => Ok(()),
            };
            if done.is_err() {
                result = done;
            }
        }
        result
    }

    async fn add(&mut self, netlink: &Netlink, sysctls: &Sysctls, link: LinkId, spec: &TunnelSpec) -> io::Result<()> {
        let group = if spec.seal { SEAL_GROUP } else { GROUP };
        let (name, index) = add_interface(netlink, spec.mtu, group).await?;
        let port = self.set_up(netlink, sysctls, &name, index, spec).await;
        let port = match port {
            Ok(port) => port,
            Err(error) => {
                let _ = netlink.remove_interface(index).await;
                return Err(error);
            }
        };
        tracing::debug!(link = link.0, interface = name, port, "WireGuard interface made");
        let report = TunnelReport { name, index, port, handshakes: 0, generation: spec.generation };
        self.there.insert(link, There { spec: spec.clone(), report, last: (0, 0) });
        Ok(())
    }

    async fn set_up(
        &mut self,
        netlink: &Netlink,
        sysctls: &Sysctls,
        name: &str,
        index: u32,
        spec: &TunnelSpec,
    ) -> io::Result<u16> {
        // As for the TUN; all of it vanishes with the interface.
        let _ = sysctls.set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
        let _ = sysctls.set(&format!("net/ipv4/conf/{name}/rp_filter"), "2");
        sysctls.set(&format!("net/ipv4/conf/{name}/forwarding"), "1")?;
        let wireguard = self.wireguard.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        let (allowed, refused) = (spec.allowed(), spec.refused(&self.fenced));
        let change = DeviceChange {
            private: Some(spec.private.bytes()),
            port: Some(0),
            mark: Some(spec.mark),
            replace: true,
            peers: &peers(spec, &allowed, &self.nobody, &refused),
        };
        wireguard.set(index, &change)?;
        netlink.switch_on(index).await?;
        Ok(wireguard.get(index)?.port)
    }

    async fn change(&mut self, netlink: &Netlink, link: LinkId, spec: &TunnelSpec) -> io::Result<()> {
        let Some(there) = self.there.get_mut(&link) else { return Ok(()) };
        let wireguard = self.wireguard.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        let before = &there.spec;
        let index = there.report.index;
        if before.mtu != spec.mtu {
            netlink.set_mtu(index, spec.mtu).await?;
        }
        if before.generation != spec.generation {
            let (allowed, refused) = (spec.allowed(), spec.refused(&self.fenced));
            let peers = peers(spec, &allowed, &self.nobody, &refused);
            wireguard.set(index, &DeviceChange { replace: true, peers: &peers, ..DeviceChange::default() })?;
            (there.report.handshakes, there.last) = (0, (0, 0));
            there.report.generation = spec.generation;
        } else {
            // Only what is new: WireGuard itself may have found the other end at another address meanwhile.
            let peer = PeerChange {
                public: spec.peer,
                preshared: (before.preshared != spec.preshared).then(|| spec.preshared.bytes()),
                endpoint: spec.endpoint.filter(|_| before.endpoint != spec.endpoint),
                keepalive: (before.keepalive != spec.keepalive).then_some(spec.keepalive),
                allowed: &[],
                update: true,
            };
            wireguard.set(index, &DeviceChange { peers: &[peer], ..DeviceChange::default() })?;
        }
        there.spec = spec.clone();
        Ok(())
    }

    /// Removes what is not wanted; what an earlier run left too, unless `spare`.
    pub(crate) async fn sweep(
        &mut self,
        netlink: &Netlink,
        wanted: &BTreeMap<LinkId, TunnelSpec>,
        spare: bool,
    ) -> io::Result<()> {
        let mut result = Ok(());
        let old: Vec<LinkId> = self.there.keys().filter(|link| !wanted.contains_key(link)).copied().collect();
        for link in old {
            let Some(there) = self.there.get(&link) else { continue };
            match netlink.remove_interface(there.report.index).await {
                Ok(()) => drop(self.there.remove(&link)),
                error => result = error,
            }
        }
        if !spare {
            for index in self.left.keys().copied().collect::<Vec<_>>() {
                match netlink.remove_interface(index).await {
                    Ok(()) => drop(self.left.remove(&index)),
                    error => result = error,
                }
            }
        }
        result
    }

    /// Asks for handshakes. Says whether an interface is gone that we have not removed, or listens at another port.
    pub(crate) fn poll(&mut self) -> bool {
        let Some(wireguard) = &mut self.wireguard else { return false };
        let before = self.there.len();
        let mut moved = false;
        self.there.retain(|link, there| match wireguard.get(there.report.index) {
            Ok(status) => {
                moved |= std::mem::replace(&mut there.report.port, status.port) != status.port;
                let last = status.peers.iter().find(|(key, _)| *key == there.spec.peer).map(|(_, last)| *last);
                if let Some(last) = last.filter(|last| *last != (0, 0) && *last != there.last) {
                    there.last = last;
                    there.report.handshakes = there.report.handshakes.saturating_add(1);
                }
                true
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                tracing::warn!(interface = there.report.name, "somebody removed a WireGuard interface; making another");
                false
            }
            Err(error) => {
                tracing::debug!(link = link.0, interface = there.report.name, %error, "no news of handshakes");
                true
            }
        });
        moved || self.there.len() != before
    }

    /// Switches on what somebody else has switched off.
    pub(crate) async fn refresh(&mut self, netlink: &Netlink) -> io::Result<()> {
        self.poll();
        for there in self.there.values() {
            netlink.switch_on(there.report.index).await?;
        }
        Ok(())
    }
}

impl TunnelSpec {
    /// What the other end may send from.
    fn allowed(&self) -> Vec<Prefix> {
        let own = [grange_wire::lan_prefix(&self.node), Prefix::host(grange_wire::node_address_v4(&self.node).into())];
        [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6].into_iter().chain(own.into_iter().filter(|_| self.seal)).collect()
    }

    /// What it may not, beside `fenced`.
    fn refused(&self, fenced: &[Prefix]) -> Vec<Prefix> {
        let others = [MESH_V4, MESH_V6].into_iter().filter(|_| self.seal);
        fenced.iter().copied().chain(others).collect()
    }
}

/// The other end and nobody. WireGuard takes a packet only from the peer that its source is allowed to, the longest
/// prefix deciding.
fn peers<'a>(
    spec: &'a TunnelSpec,
    allowed: &'a [Prefix],
    nobody: &[u8; 32],
    refused: &'a [Prefix],
) -> [PeerChange<'a>; 2] {
    let real = PeerChange {
        public: spec.peer,
        preshared: Some(spec.preshared.bytes()),
        endpoint: spec.endpoint,
        keepalive: Some(spec.keepalive),
        allowed,
        update: false,
    };
    [real, PeerChange { public: *nobody, allowed: refused, ..PeerChange::default() }]
}

/// What no neighbour may send from: this node's own addresses, and those that mean nothing beyond one cable.
fn fenced(id: &NodeId) -> Vec<Prefix> {
    vec![
        grange_wire::lan_prefix(id),
        Prefix::host(grange_wire::node_address_v4(id).into()),
        Prefix::new_truncating(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
        Prefix::new_truncating(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
        Prefix::new_truncating(Ipv4Addr::new(169, 254, 0, 0).into(), 16),
        Prefix::new_truncating(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Prefix::new_truncating(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
    ]
}
