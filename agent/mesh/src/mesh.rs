//! A running mesh, as the rest of the agent sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use grange_core::{Identity, Node, NodeConfig, Offer, Town};
use grange_wire::{NodeId, Prefix};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    config::MeshConfig,
    driver::{Command, Driver, Inputs, Parts},
    error::{StartError, Stopped, TraceError},
    interfaces::Table,
    kernel::{
        GRACE, Kernel, SEAL_MARK, Setup, monitor, netlink::Netlink, sysctl::Sysctls, tunnels, wireguard::WireGuard,
    },
    mdns::Mdns,
    peers,
    plane::{self, MTU_OVER_ETHERNET, OpenTunError, Planes, Tun, TunConfig, Userspace, UserspaceConfig},
    seal_socket::{self, SealSocket},
    snapshot::{Interfaces, MeshEvent, Snapshot},
    trace::{self, Trace},
    underlay::{BindError, Underlay, UnderlayConfig},
};

/// Commands that wait for the driver.
const COMMANDS: usize = 16;

/// Control datagrams that wait for the driver; what is more is dropped and counted.
const DATAGRAMS: usize = 512;

/// Peers found by mDNS that wait for the driver.
const SUGGESTIONS: usize = 16;

/// Seals asked for that wait for the driver.
const SEALS: usize = 64;

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 256;

/// A running mesh: one task that owns the node, a plane that moves packets, and what both added to the kernel.
///
/// Clones are handles to the same mesh; each call is a message to the task. When all handles are dropped the mesh shuts
/// itself down, but nobody can wait for that: call [`Mesh::shutdown`].
#[derive(Clone, Debug)]
pub struct Mesh {
    id: NodeId,
    name: Arc<str>,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<MeshEvent>,
}

impl Mesh {
    /// Opens the socket and the TUN device, adds rules and addresses, and starts the node. Must be called on a Tokio
    /// runtime with I/O and time.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub async fn start(mut config: MeshConfig) -> Result<Self, StartError> {
        let id = Identity::from_seed(&config.seed).id();
        // The socket and the device come first: where another Grange has them, its routes are not to be touched.
        let underlay = Underlay::bind(&UnderlayConfig { port: config.port, mark: Some(config.fwmark) })
            .map(Arc::new)
            .map_err(|error| bind_error(error, config.port))?;
        let seal_socket =
            SealSocket::bind(grange_wire::node_address(&id), Some(SEAL_MARK)).map_err(|error| match error {
                seal_socket::BindError::PortInUse => StartError::SealPortOccupied,
                seal_socket::BindError::Socket(source) => StartError::Socket { port: grange_wire::SEAL_PORT, source },
            })?;
        let netlink =
            Netlink::open().map_err(|source| StartError::Netlink { action: "open a netlink socket", source })?;
        let tun = Tun::open(&TunConfig { name: config.tun.clone(), mtu: MTU_OVER_ETHERNET })
            .map_err(|error| tun_error(error, &config.tun))?;
        let tun_failed = |source| StartError::Tun { name: config.tun.clone(), source };
        let tun_index = tun.index().map_err(tun_failed)?;
        let (control, datagrams) = mpsc::channel(DATAGRAMS);
        let (wanting, seals) = mpsc::channel(SEALS);
        let plane = UserspaceConfig { device: tun, underlay: Arc::clone(&underlay), control, seals: wanting };
        let plane = Userspace::start(plane).map_err(|error| plane_error(error, config.port))?;
        let wireguard = match config.kernel_plane {
            true => find_wireguard(&netlink).await,
            false => None,
        };
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(|error| StartError::Random(io::Error::other(error)))?;
        let interfaces = monitor::watch(&netlink)
            .await
            .map_err(|source| StartError::Netlink { action: "list its interfaces", source })?;
        let setup = Setup {
            id,
            tun: config.tun.clone(),
            tun_index,
            tun_mtu: MTU_OVER_ETHERNET,
            mark: config.fwmark,
            table: config.table,
            runtime_dir: config.runtime_dir.clone(),
            seals: config.seals,
            grace: GRACE,
        };
        let kernel = Kernel::start(netlink, wireguard, Sysctls::default(), setup).await?;
        let kernel_plane = kernel.has_wireguard();
        let plane = Planes::new(Box::new(plane), kernel.wants(), kernel_plane, config.fwmark);

        let clock = Clock::start();
        let selector = std::mem::replace(&mut config.interfaces, Box::new(crate::config::nothing));
        let node = NodeConfig {
            seed: config.seed,
            name: config.name.clone(),
            town: config.town.clone(),
            gateways: std::mem::take(&mut config.gateways),
            offer: Offer { fast_aes: config.aes && plane::has_fast_aes(), kernel_plane },
        };
        let (found, suggestions) = mpsc::channel(SUGGESTIONS);
        let (linked, linked_view) = watch::channel(BTreeSet::new());
        let (events, _) = broadcast::channel(EVENTS);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let parts = Parts {
            id,
            name: config.name.clone(),
            town: config.town.take(),
            tun: config.tun.clone(),
            tun_index,
            clock,
            node: Node::new(node, clock.now(), entropy),
            plane: Box::new(plane),
            kernel_plane,
            seals: config.seals,
            seal_socket: Arc::clone(&seal_socket),
            mdns: config.mdns.then(|| Mdns::start(underlay.port(), found)).flatten(),
            underlay,
            kernel,
            table: Table::new(selector, tun_index),
            events: events.clone(),
            linked,
        };
        let inputs = Inputs {
            commands: receiver,
            interfaces,
            datagrams,
            peers: peers::spawn(std::mem::take(&mut config.peers), linked_view),
            suggestions,
            seals,
            seal_socket,
        };
        tracing::info!(%id, address = %grange_wire::node_address(&id), tun = config.tun, "the mesh runs");
        tokio::spawn(Driver::new(parts).run(inputs));
        Ok(Self { id, name: config.name.as_str().into(), commands, events })
    }

    /// The node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The node's IPv6 address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        grange_wire::node_address(&self.id)
    }

    /// The node's IPv4 address.
    #[must_use]
    pub fn address_v4(&self) -> Ipv4Addr {
        grange_wire::node_address_v4(&self.id)
    }

    /// Status, links and routes at this moment.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask(Command::Snapshot).await.map(|snapshot| *snapshot)
    }

    /// The machine's interfaces: part of a snapshot, for those who need no more.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn interfaces(&self) -> Result<Interfaces, Stopped> {
        self.ask(Command::Interfaces).await
    }

    /// The node joined or left a town: all links are closed and made anew.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_town(&self, town: Option<Town>) -> Result<(), Stopped> {
        self.ask(|done| Command::SetTown(Box::new(town), done)).await
    }

    /// What to announce beside the own prefixes: the default routes of a gateway. While there is any, forwarding is on.
    /// At most 32.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_announced(&self, prefixes: Vec<Prefix>) -> Result<(), Stopped> {
        self.ask(|done| Command::SetAnnounced(prefixes, done)).await
    }

    /// Which interfaces of the LAN and to the Internet may be forwarded from, since nftables has rules for them: without
    /// any word of this, or with `None`, nothing is forwarded for the mesh's sake, and there is no kernel plane. With
    /// `None` it returns when forwarding is off again.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_guarded(&self, interfaces: Option<BTreeSet<String>>) -> Result<(), Stopped> {
        let wait = interfaces.is_none();
        let done = self.ask(|done| Command::SetGuarded(interfaces, done)).await?;
        if wait {
            done.wait().await;
        }
        Ok(())
    }

    /// Probes the way to `destination` hop by hop: three echo requests for each of at most 32 hops.
    ///
    /// # Errors
    /// [`TraceError`].
    pub async fn trace(&self, destination: IpAddr) -> Result<Trace, TraceError> {
        let snapshot = self.snapshot().await.map_err(|Stopped| TraceError::Stopped)?;
        let mut names = BTreeMap::from(trace::names_of(&self.id, &self.name));
        let peers = snapshot.seals.iter().map(|seal| &seal.peer).chain(snapshot.links.iter().map(|link| &link.peer));
        names.extend(peers.flat_map(|peer| trace::names_of(&peer.id, &peer.name)));
        trace::start(destination, names)
    }

    /// What happens from now on. Who is more than 256 events behind misses the oldest, and is told so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<MeshEvent> {
        self.events.subscribe()
    }

    /// Completes when the mesh has stopped: by [`Mesh::shutdown`] of any handle, or by itself because its socket or
    /// device is gone, which is in the log then.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// Says goodbye to the neighbours and removes everything that was added: routes, rules, addresses, the device;
    /// restores settings.
    pub async fn shutdown(self) {
        let _ = self.ask(Command::Shutdown).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// The kernel's WireGuard, if it has one that we may use.
async fn find_wireguard(netlink: &Netlink) -> Option<WireGuard> {
    match tunnels::detect(netlink).await {
        Ok(wireguard) => Some(wireguard),
        Err(error) => {
            tracing::info!(%error, "the kernel's WireGuard cannot be used; Grange moves all packets itself");
            None
        }
    }
}

fn bind_error(error: BindError, port: u16) -> StartError {
    match error {
        BindError::PortInUse { port } => StartError::PortOccupied { port },
        BindError::PortDenied { .. } => StartError::NoRights { action: "opening the UDP port" },
        BindError::Mark(_) => StartError::NoRights { action: "marking its own packets (SO_MARK)" },
        BindError::NoIpv6(_) => StartError::NoIpv6,
        BindError::Socket(source) => StartError::Socket { port, source },
    }
}

fn tun_error(error: OpenTunError, tun: &str) -> StartError {
    let name = tun.to_owned();
    match error {
        OpenTunError::Missing => StartError::NoTun,
        OpenTunError::Denied { .. } => StartError::NoRights { action: "making the TUN device" },
        OpenTunError::InUse { .. } => StartError::TunTaken { name },
        OpenTunError::Name { .. } => StartError::TunName { name },
        // What an interface of another kind with this name gives.
        OpenTunError::Other { .. } if crate::kernel::interface_index(tun).is_some() => StartError::TunTaken { name },
        OpenTunError::Other { source, .. } => StartError::Tun { name, source },
    }
}

fn plane_error(error: plane::StartError, port: u16) -> StartError {
    match error {
        plane::StartError::Thread(source) | plane::StartError::Event(source) | plane::StartError::Underlay(source) => {
            StartError::Socket { port, source }
        }
    }
}
