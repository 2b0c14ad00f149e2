//! The one task that owns the node: feeds it, and does what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use grange_core::{
    Cipher, DownReason, Endpoint, Event, IfaceId, IfaceKind, IfaceState, LinkId, LinkTraffic, Node, PeerInfo, Target,
    Town,
};
use grange_wire::{NodeId, Prefix};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    interfaces::{Change, Table},
    kernel::{Done, Kernel, monitor::Interfaces},
    mdns::Mdns,
    plane::{LinkSpec, Local, MIN_MTU, MTU_OVER_ETHERNET, Plane, Way},
    seal_socket::SealSocket,
    snapshot::{self, LinkStatus, MeshEvent, RouteStatus, SealStatus, Snapshot},
    underlay::{Received, Underlay},
};

/// How often the plane's counters are read while there is traffic, while there is none, and without any link.
const TICK: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(5)];

/// Datagrams that are handled before the driver looks at anything else.
const BATCH: usize = 64;

/// What a [`crate::Mesh`] asks.
pub(crate) enum Command {
    Snapshot(oneshot::Sender<Box<Snapshot>>),
    Interfaces(oneshot::Sender<snapshot::Interfaces>),
    SetTown(Box<Option<Town>>, oneshot::Sender<()>),
    SetAnnounced(Vec<Prefix>, oneshot::Sender<()>),
    SetGuarded(Option<BTreeSet<String>>, oneshot::Sender<Done>),
    Shutdown(oneshot::Sender<()>),
}

/// A link that is up.
struct Link {
    peer: PeerInfo,
    endpoint: Endpoint,
    mtu: u16,
    cipher: Cipher,
    traffic: LinkTraffic,
}

/// A seal that is up.
struct Seal {
    peer: PeerInfo,
    cipher: Cipher,
    traffic: LinkTraffic,
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub id: NodeId,
    pub name: String,
    pub town: Option<Town>,
    pub tun: String,
    pub tun_index: u32,
    pub clock: Clock,
    pub node: Node,
    pub plane: Box<dyn Plane>,
    /// Whether the kernel has WireGuard.
    pub kernel_plane: bool,
    /// Whether to seal what goes farther than a neighbour.
    pub seals: bool,
    pub seal_socket: Arc<SealSocket>,
    pub underlay: Arc<Underlay>,
    pub kernel: Kernel,
    pub table: Table,
    pub mdns: Option<Mdns>,
    pub events: broadcast::Sender<MeshEvent>,
    pub linked: watch::Sender<BTreeSet<SocketAddr>>,
}

/// What the driver listens to.
pub(crate) struct Inputs {
    pub commands: mpsc::Receiver<Command>,
    pub interfaces: watch::Receiver<Interfaces>,
    pub datagrams: mpsc::Receiver<Received>,
    pub peers: mpsc::Receiver<Vec<Endpoint>>,
    pub suggestions: mpsc::Receiver<Endpoint>,
    pub seals: mpsc::Receiver<NodeId>,
    pub seal_socket: Arc<SealSocket>,
}

/// The driver.
pub(crate) struct Driver {
    parts: Parts,
    links: BTreeMap<LinkId, Link>,
    seals: BTreeMap<LinkId, Seal>,
    announced: Vec<Prefix>,
    /// The interfaces whose forwarding is guarded; none: nothing is to be forwarded.
    guarded: Option<BTreeSet<String>>,
    /// How often that was said.
    turn: u32,
    tun_up: bool,
    /// The WireGuard interfaces that are switched on.
    tunnels: BTreeSet<u32>,
    tick_due: tokio::time::Instant,
    counters: Vec<(LinkId, LinkTraffic)>,
    roamed: Vec<(LinkId, Endpoint)>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            links: BTreeMap::new(),
            seals: BTreeMap::new(),
            announced: Vec::new(),
            guarded: None,
            turn: 0,
            tun_up: true,
            tunnels: BTreeSet::new(),
            tick_due: tokio::time::Instant::now(),
            counters: Vec::new(),
            roamed: Vec::new(),
        }
    }

    /// Runs until it is told to stop, all handles are dropped, or the plane fails; takes away all that was added then.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        self.set_local();
        self.take_interfaces(inputs.interfaces.borrow_and_update().clone());
        let stopped = loop {
            self.pump();
            let timeout = self.parts.node.poll_timeout().map(|at| self.parts.clock.to_tokio(at));
            let due = timeout.map_or(self.tick_due, |at| at.min(self.tick_due));
            // Carrier changes first, then datagrams: news that the kernel has is older than what its queues hold.
            tokio::select! {
                biased;
                changed = inputs.interfaces.changed() => match changed {
                    Ok(()) => {
                        let reports = inputs.interfaces.borrow_and_update().clone();
                        self.take_interfaces(reports);
                    }
                    Err(_) => {
                        tracing::error!("the kernel's messages about interfaces ended; stopping");
                        break None;
                    }
                },
                command = inputs.commands.recv() => match command {
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(command) => self.obey(command),
                    None => break None,
                },
                () = tokio::time::sleep_until(due) => {
                    self.handle_due();
                    if let Err(failure) = self.parts.plane.health() {
                        tracing::error!(%failure, "the plane cannot go on; stopping");
                        break None;
                    }
                }
                Some(datagram) = inputs.datagrams.recv() => {
                    self.take_datagram(&datagram);
                    for _ in 1..BATCH {
                        let Ok(datagram) = inputs.datagrams.try_recv() else { break };
                        self.take_datagram(&datagram);
                    }
                }
                datagram = inputs.seal_socket.receive() => {
                    self.take_datagram(&datagram);
                    for _ in 1..BATCH {
                        let Ok(datagram) = inputs.seal_socket.try_receive() else { break };
                        self.take_datagram(&datagram);
                    }
                }
                Some(peers) = inputs.peers.recv() => {
                    let now = self.parts.clock.now();
                    self.parts.node.set_static_peers(now, &peers);
                }
                Some(peer) = inputs.seals.recv() => {
                    let now = self.parts.clock.now();
                    self.parts.node.want_seal(now, peer);
                }
                Some(peer) = inputs.suggestions.recv() => {
                    let now = self.parts.clock.now();
                    self.parts.node.suggest_peer(now, peer);
                }
            }
        };
        drop(inputs);
        self.stop().await;
        if let Some(done) = stopped {
            let _ = done.send(());
        }
    }

    async fn stop(mut self) {
        let now = self.parts.clock.now();
        self.parts.node.shutdown(now);
        self.pump();
        let Parts { plane, kernel, mdns, .. } = self.parts;
        // The rules go before the device: packets of this machine never see a mesh without a way.
        kernel.remove().await;
        if let Some(mdns) = mdns {
            mdns.stop().await;
        }
        // Waits for the plane's threads, after which the TUN is gone.
        drop(plane);
    }

    fn handle_due(&mut self) {
        if self.tick_due <= tokio::time::Instant::now() {
            self.tick();
        }
        let now = self.parts.clock.now();
        if self.parts.node.poll_timeout().is_some_and(|due| due <= now) {
            self.parts.node.handle_timeout(now);
        }
    }

    /// Brings the plane's news to the node.
    fn tick(&mut self) {
        let now = self.parts.clock.now();
        let mut traffic = false;
        self.counters.clear();
        self.parts.plane.counters(&mut self.counters);
        for (id, counters) in &self.counters {
            if let Some(link) = self.links.get_mut(id) {
                traffic |= link.traffic != *counters;
                link.traffic = *counters;
            } else if let Some(seal) = self.seals.get_mut(id) {
                traffic |= seal.traffic != *counters;
                seal.traffic = *counters;
            } else {
                continue;
            }
            self.parts.node.handle_traffic(now, *id, *counters);
        }
        self.roamed.clear();
        self.parts.plane.take_roamed(&mut self.roamed);
        for (id, endpoint) in &self.roamed {
            self.parts.node.handle_roamed(now, *id, *endpoint);
        }
        let mut ports = Vec::new();
        self.parts.plane.take_ports(&mut ports);
        for (id, port) in ports {
            self.parts.node.set_plane_port(now, id, port);
        }
        let pause = match (self.links.is_empty(), traffic) {
            (true, _) => TICK[2],
            (false, false) => TICK[1],
            (false, true) => TICK[0],
        };
        self.tick_due = tokio::time::Instant::now() + pause;
    }

    fn take_datagram(&mut self, datagram: &Received) {
        let now = self.parts.clock.now();
        self.parts.node.handle_datagram(now, datagram.from, &datagram.payload);
        self.pump();
    }

    fn take_interfaces(&mut self, reports: Interfaces) {
        let now = self.parts.clock.now();
        let tun_up = reports.get(&self.parts.tun_index).is_some_and(|tun| tun.enabled);
        let tun_again = tun_up && !std::mem::replace(&mut self.tun_up, tun_up);
        // Gone or switched off by us or by others: the kernel has dropped the routes into them.
        let tunnels: BTreeSet<u32> =
            reports.iter().filter(|(_, report)| report.ours && report.enabled).map(|(index, _)| *index).collect();
        let tunnel_gone = !std::mem::replace(&mut self.tunnels, tunnels).is_subset(&self.tunnels);
        for Change { index, state, join } in self.parts.table.update(reports) {
            let iface = IfaceId(index);
            let name = self.parts.table.name(index).unwrap_or("?").to_owned();
            match state {
                Some(state) => {
                    if join && state.beacons {
                        let joined = self
                            .parts
                            .underlay
                            .leave_beacons(iface)
                            .and_then(|()| self.parts.underlay.join_beacons(iface));
                        if let Err(error) = joined {
                            tracing::warn!(interface = name, %error, "no beacons can be received on this interface");
                        }
                    }
                    tracing::debug!(interface = name, up = state.up, mtu = state.mtu, "interface");
                }
                None => {
                    let _ = self.parts.underlay.leave_beacons(iface);
                    tracing::debug!(interface = name, "interface is not used for links any more");
                }
            }
            self.parts.node.set_iface(now, iface, state);
        }
        if let Some(mdns) = &mut self.parts.mdns {
            mdns.set_interfaces(self.parts.table.wired().map(Into::into).collect());
        }
        self.want(tun_again || tunnel_gone);
        let _ = self.parts.events.send(MeshEvent::Interfaces);
    }

    /// Tells the kernel's keeper what interfaces and announcements ask for.
    fn want(&mut self, resync: bool) {
        let lan = self.parts.table.lan();
        let shared = self.announced.iter().any(Prefix::is_default);
        let tun = &self.parts.tun;
        let forwarding = self.parts.table.forwarding(tun, shared, self.parts.kernel_plane);
        let forwarding = forwarding.zip(self.guarded.as_ref()).map(|(mut forwarding, guarded)| {
            forwarding.from.retain(|name| name == tun || guarded.contains(name));
            forwarding
        });
        let lans = self.parts.table.lan_networks();
        let turn = self.turn;
        self.parts.kernel.want(|wanted| {
            wanted.lan = lan;
            wanted.lans = lans;
            wanted.forwarding = forwarding;
            wanted.turn = turn;
            wanted.resync = wanted.resync.wrapping_add(u32::from(resync));
        });
    }

    fn set_local(&mut self) {
        let id = &self.parts.id;
        let local = Local {
            address_v6: Some(grange_wire::node_address(id)),
            address_v4: Some(grange_wire::node_address_v4(id)),
            prefixes: vec![grange_wire::lan_prefix(id)],
            exits: self.announced.clone(),
            sealed: self.parts.seals,
        };
        if let Err(error) = self.parts.plane.set_local(&local) {
            tracing::warn!(%error, "the plane does not deliver what this node announces");
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.parts.clock.now();
        match command {
            Command::Snapshot(reply) => {
                let _ = reply.send(Box::new(self.snapshot()));
            }
            Command::Interfaces(reply) => {
                let (forwards_v4, forwards_v6) = self.parts.kernel.forwards_for_others();
                let all = self.parts.table.status();
                let passing = self.parts.kernel_plane;
                let _ = reply.send(snapshot::Interfaces { all, forwards_v4, forwards_v6, passing });
            }
            Command::SetTown(town, done) => {
                self.parts.town.clone_from(&town);
                self.parts.node.set_town(now, *town);
                self.pump();
                let _ = done.send(());
            }
            Command::SetAnnounced(prefixes, done) => {
                let unique: BTreeSet<Prefix> = prefixes.into_iter().take(crate::plane::MAX_LOCAL / 2).collect();
                self.announced = unique.into_iter().collect();
                self.set_local();
                self.parts.node.set_announced(now, &self.announced);
                self.want(false);
                self.pump();
                let _ = done.send(());
            }
            Command::SetGuarded(guarded, done) => {
                self.guarded = guarded;
                self.turn = self.turn.wrapping_add(1).max(1);
                self.want(false);
                let _ = done.send(self.parts.kernel.done(self.turn));
            }
            // The run loop's own.
            Command::Shutdown(_) => {}
        }
    }

    /// Does all that the node says, until it says nothing more.
    fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(transmit) = self.parts.node.poll_transmit() {
                idle = false;
                let sent = match transmit.to {
                    Target::Endpoint(Endpoint { iface: IfaceId::MESH, addr }) => {
                        self.parts.seal_socket.send(addr, &transmit.payload)
                    }
                    to => self.parts.underlay.send(to, &transmit.payload),
                };
                if let Err(error) = sent {
                    let to = match transmit.to {
                        Target::Endpoint(endpoint) => endpoint.iface,
                        Target::Beacon(iface) => iface,
                    };
                    tracing::trace!(interface = to.0, %error, "datagram not sent");
                }
            }
            while let Some(event) = self.parts.node.poll_event() {
                idle = false;
                self.take_event(event);
            }
            if idle {
                return;
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::LinkUp { link, peer, endpoint, keys, mtu, kernel } => {
                let cipher = keys.cipher;
                let spec = LinkSpec { peer: peer.id, endpoint, keys, mtu, kernel };
                if let Err(error) = self.parts.plane.add_link(link, spec) {
                    tracing::warn!(peer = peer.name, %error, "a link carries no packets");
                }
                let interface = self.interface(endpoint);
                tracing::info!(peer = peer.name, id = %peer.id, address = %endpoint.addr, interface, "link up");
                let entry = Link { peer: peer.clone(), endpoint, mtu, cipher, traffic: LinkTraffic::default() };
                self.links.insert(link, entry);
                self.links_changed();
                let _ = self.parts.events.send(MeshEvent::LinkUp { link, peer });
            }
            Event::SealUp { seal, peer, endpoint, keys, mtu, kernel } => {
                tracing::debug!(seal = seal.0, peer = peer.name, id = %peer.id, "seal up");
                let cipher = keys.cipher;
                let spec = LinkSpec { peer: peer.id, endpoint, keys, mtu, kernel };
                if let Err(error) = self.parts.plane.add_link(seal, spec) {
                    tracing::warn!(peer = peer.name, %error, "a seal carries no packets");
                }
                self.seals.insert(seal, Seal { peer, cipher, traffic: LinkTraffic::default() });
                self.watch_traffic();
            }
            Event::SealDown { seal, reason } => {
                self.seals.remove(&seal);
                tracing::debug!(seal = seal.0, reason = reason_text(reason), "seal down");
                if let Err(error) = self.parts.plane.remove_link(seal) {
                    tracing::debug!(%error, "seal down");
                }
            }
            Event::LinkPlanePort { link, port } => self.parts.plane.set_peer_port(link, port),
            Event::LinkKeysOffered { link, keys } => {
                if let Err(error) = self.parts.plane.offer_keys(link, keys) {
                    tracing::debug!(link = link.0, %error, "offered keys not taken");
                }
            }
            Event::LinkRekeyed { link, keys } => {
                let cipher = keys.cipher;
                match self.parts.plane.rekey(link, keys) {
                    Err(error) => tracing::debug!(link = link.0, %error, "new keys not taken"),
                    Ok(()) => {
                        if let Some(entry) = self.links.get_mut(&link) {
                            entry.cipher = cipher;
                        } else if let Some(entry) = self.seals.get_mut(&link) {
                            entry.cipher = cipher;
                        }
                    }
                }
            }
            Event::LinkMoved { link, endpoint } => {
                if let Err(error) = self.parts.plane.set_endpoint(link, endpoint) {
                    tracing::debug!(%error, "new address not taken");
                }
                if let Some(entry) = self.links.get_mut(&link) {
                    tracing::debug!(peer = entry.peer.name, address = %endpoint.addr, "link moved");
                    entry.endpoint = endpoint;
                }
                self.links_changed();
            }
            Event::LinkMtu { link, mtu } => {
                if let Err(error) = self.parts.plane.set_mtu(link, mtu) {
                    tracing::debug!(%error, "new size not taken");
                }
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.mtu = mtu;
                    self.links_changed();
                }
            }
            Event::LinkDown { link, reason } => {
                if let Err(error) = self.parts.plane.remove_link(link) {
                    tracing::debug!(%error, "link down");
                }
                if let Some(entry) = self.links.remove(&link) {
                    let text = reason_text(reason);
                    tracing::info!(peer = entry.peer.name, id = %entry.peer.id, reason = text, "link down");
                    let _ = self.parts.events.send(MeshEvent::LinkDown { link, peer: entry.peer, reason });
                }
                self.links_changed();
            }
            Event::RouteChanged { prefix, via, metric, owner, .. } => {
                if let Err(error) = self.parts.plane.set_route(prefix, self.way(via, owner)) {
                    tracing::debug!(%prefix, %error, "route not taken");
                }
                tracing::debug!(%prefix, link = via.0, metric, "route");
                let _ = self.parts.events.send(MeshEvent::RouteChanged { prefix, via, metric, owner });
            }
            Event::RouteRemoved { prefix } => {
                self.parts.plane.remove_route(prefix);
                tracing::debug!(%prefix, "no route any more");
                let _ = self.parts.events.send(MeshEvent::RouteRemoved { prefix });
            }
            Event::LinkRtt { link, rtt } => tracing::trace!(link = link.0, ?rtt, "round trip"),
        }
    }

    /// How packets of a route go: a route that ends at the link's other end needs no seal.
    fn way(&self, via: LinkId, owner: NodeId) -> Way {
        let direct = self.links.get(&via).is_some_and(|link| link.peer.id == owner);
        Way { link: via, seal: (self.parts.seals && !direct).then_some(owner) }
    }

    fn links_changed(&mut self) {
        let mtu = self.links.values().map(|link| link.mtu).max().unwrap_or(MTU_OVER_ETHERNET).max(MIN_MTU);
        self.parts.kernel.want(|wanted| wanted.tun_mtu = mtu);
        let mesh = IfaceState { kind: IfaceKind::Tunnel, mtu, up: true, beacons: false };
        let now = self.parts.clock.now();
        self.parts.node.set_iface(now, IfaceId::MESH, Some(mesh));
        let linked: BTreeSet<SocketAddr> = self.links.values().map(|link| link.endpoint.addr).collect();
        self.parts.linked.send_if_modified(|before| {
            let changed = *before != linked;
            *before = linked;
            changed
        });
        self.watch_traffic();
    }

    /// Soon: the traffic of what is new is watched closely from the start.
    fn watch_traffic(&mut self) {
        self.tick_due = self.tick_due.min(tokio::time::Instant::now() + TICK[0]);
    }

    /// Whom there is a session with.
    fn peers(&self) -> impl Iterator<Item = &PeerInfo> {
        self.seals.values().map(|seal| &seal.peer).chain(self.links.values().map(|link| &link.peer))
    }

    fn interface(&self, endpoint: Endpoint) -> Option<&str> {
        self.parts.table.name(endpoint.iface.0)
    }

    fn snapshot(&self) -> Snapshot {
        let Parts { id, node, plane, table, clock, .. } = &self.parts;
        let now = clock.now();
        let links = node.links().map(|link| LinkStatus {
            link: link.link,
            interface: self.interface(link.endpoint).map(Into::into),
            endpoint: link.endpoint.addr,
            cost: link.cost,
            rxcost: link.rxcost,
            txcost: link.txcost,
            rtt: link.rtt,
            mtu: link.mtu,
            age: now.since(link.since),
            traffic: self.links.get(&link.link).map(|known| known.traffic).unwrap_or_default(),
            cipher: self.links.get(&link.link).map_or(Cipher::ChaCha20Poly1305, |known| known.cipher),
            plane: plane.plane_of(link.link),
            peer: link.peer,
        });
        let seals = node.seals(now).map(|seal| SealStatus {
            seal: seal.seal,
            rtt: seal.rtt,
            mtu: seal.mtu,
            age: now.since(seal.since),
            idle: seal.idle,
            traffic: self.seals.get(&seal.seal).map(|known| known.traffic).unwrap_or_default(),
            cipher: self.seals.get(&seal.seal).map_or(Cipher::ChaCha20Poly1305, |known| known.cipher),
            plane: plane.plane_of(seal.seal),
            peer: seal.peer,
        });
        let names: BTreeMap<NodeId, &str> = self.peers().map(|peer| (peer.id, peer.name.as_str())).collect();
        let mut routes: Vec<RouteStatus> = node
            .routes()
            .filter_map(|route| {
                let link = self.links.get(&route.via)?;
                Some(RouteStatus {
                    prefix: route.prefix,
                    via: route.via,
                    neighbour: link.peer.clone(),
                    interface: self.interface(link.endpoint).map(Into::into),
                    metric: route.metric,
                    refmetric: route.refmetric,
                    owner: route.owner,
                    owner_name: names.get(&route.owner).map(|name| (*name).into()),
                    router_id: route.router_id,
                    seqno: route.seqno.0,
                    selected: route.selected,
                    feasible: route.feasible,
                })
            })
            .collect();
        routes.sort_by_key(|route| (route.prefix, !route.selected, route.metric, route.via));
        Snapshot {
            id: *id,
            name: self.parts.name.clone(),
            address: grange_wire::node_address(id),
            address_v4: grange_wire::node_address_v4(id),
            prefix: grange_wire::lan_prefix(id),
            town: self.parts.town.as_ref().map(|town| (town.id, town.name.clone())),
            uptime: now.since(grange_core::Instant::START),
            plane: plane.name(),
            drops: plane.drops(),
            announced: self.announced.clone(),
            interfaces: table.status(),
            links: links.collect(),
            seals: seals.collect(),
            routes,
        }
    }
}

fn reason_text(reason: DownReason) -> &'static str {
    match reason {
        DownReason::Interface => "the interface lost its carrier or is gone",
        DownReason::Silent => "nothing came back",
        DownReason::Closed => "the neighbour stopped",
        DownReason::Replaced => "the neighbour started anew",
        DownReason::Expired => "no new keys were agreed",
        DownReason::Idle => "nobody used it",
        DownReason::Shutdown => "this node stops",
    }
}
