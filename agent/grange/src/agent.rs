//! The running agent: puts the mesh, the gateway and the control socket together, and takes them apart again.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use grange_core::Identity;
use grange_hw::Machine;
use grange_mesh::{Mesh, MeshConfig, Role, StartError, TraceError};
use grange_uplink::{Gateway, GatewayConfig, GatewayStatus, has_nft};
use grange_wire::node_address;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Cipher, Config, Plane, UplinkInterface},
    control::{
        protocol::Ask,
        server::{Answer, Handler, Server},
    },
    failure::{Code, Failure},
    interfaces,
    lock::Lock,
    report,
    state::{Places, key, town},
};

/// Most hops of a trace that are kept.
const MAX_HOPS: usize = 64;

/// Runs until a signal asks to stop, and then removes all that was added.
///
/// # Errors
/// Why it could not start or go on. Nothing is left behind.
pub(crate) fn run(places: &Places, config: &Config) -> Result<(), Failure> {
    let _lock = Lock::take(&places.runtime)?;
    let (seed, made) = key::read_or_make(&places.state)?;
    let identity = Identity::from_seed(&seed);
    let town = town::read(&places.state, &identity)?;
    if made {
        tracing::info!("made a key for this node: {}", places.state.join(key::NODE_KEY.file).display());
    }
    announce(places, config, &identity, town.as_ref());
    let root = Path::new("/");
    let selection = interfaces::selection(config);
    for name in grange_hw::absent(&Machine::read(root), &selection) {
        tracing::warn!(
            "the configuration names the interface {name}, which this machine does not have now: it is used when it appears"
        );
    }
    let mut mesh_config =
        MeshConfig::new(*seed, config.name.value.0.clone(), interfaces::selector(root.to_owned(), selection));
    mesh_config.town = town;
    mesh_config.gateways = config.uplink_gateways.value.0.clone();
    mesh_config.port = config.mesh_port.value.0;
    mesh_config.peers.clone_from(&config.mesh_peers.value.0);
    mesh_config.mdns = config.mesh_mdns.value;
    mesh_config.tun.clone_from(&config.mesh_tun.value.0);
    mesh_config.aes = config.mesh_cipher.value == Cipher::Auto;
    mesh_config.kernel_plane = config.mesh_plane.value == Plane::Auto && has_nft();
    if config.mesh_plane.value == Plane::Auto && !mesh_config.kernel_plane {
        tracing::info!("the program nft is missing, without which the kernel's WireGuard is not used");
    }
    mesh_config.seals = config.mesh_seals.value;
    mesh_config.runtime_dir.clone_from(&places.runtime);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Code::Other,
            format!("the agent could not be started: {error}. Look at the limits of processes and open files."),
        )
    })?;
    runtime.block_on(Agent::live(places.clone(), config, identity, mesh_config))
}

/// Says who this is, in what town, and where that is written.
fn announce(places: &Places, config: &Config, identity: &Identity, town: Option<&grange_core::Town>) {
    let from = if places.config.exists() {
        format!("configuration {}", places.config.display())
    } else {
        "no configuration file, so all settings have their defaults".into()
    };
    let (version, name, address) = (env!("CARGO_PKG_VERSION"), &config.name.value.0, node_address(&identity.id()));
    tracing::info!("grange {version}, node {name} at {address}; {from}");
    match town {
        Some(town) => tracing::info!("in the town {:?}", town.name),
        None => tracing::warn!(
            "in no town: no links are formed. Found one with `grange town found NAME`, or join one with `grange town join INVITATION`"
        ),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Code::Other, format!("signals cannot be received: {error}.")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Completes when somebody wants the agent to stop.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

struct Agent {
    places: Places,
    identity: Identity,
    mesh: Mesh,
    gateway: Mutex<Option<Gateway>>,
}

impl Agent {
    async fn live(places: Places, config: &Config, identity: Identity, mesh_config: MeshConfig) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let mesh = Mesh::start(mesh_config)
            .await
            .map_err(|error| started_not(&error, config).unwrap_or_else(|| error.into()))?;
        let gateway = match Self::share(config, &mesh).await {
            Ok(gateway) => gateway,
            Err(failure) => {
                mesh.shutdown().await;
                return Err(failure);
            }
        };
        let agent = Arc::new(Self { places, identity, mesh, gateway: Mutex::new(gateway) });
        let socket = agent.places.socket();
        let result = match Server::start(&socket, agent.clone().handler()) {
            Ok(server) => {
                agent.tell_interfaces().await;
                let result = agent.until_stopped(&mut signals).await;
                drop(server);
                result
            }
            Err(error) => Err(Failure::write(&socket, &error)),
        };
        let mut again = std::pin::pin!(signals.stop());
        tokio::select! {
            () = agent.take_apart() => tracing::info!("stopped; everything that was added is removed"),
            _ = &mut again => tracing::warn!("stopped in a hurry: the next start removes what was left"),
        }
        result
    }

    async fn share(config: &Config, mesh: &Mesh) -> Result<Option<Gateway>, Failure> {
        let share = config.uplink_share.value;
        let interface = match &config.uplink_interface.value {
            UplinkInterface::Auto => None,
            UplinkInterface::This(name) => Some(name.clone()),
        };
        let settings = GatewayConfig { share, interface };
        match Gateway::start(settings, mesh.clone()).await {
            Ok(gateway) => Ok(Some(gateway)),
            Err(error) if share => Err(Failure::new(
                Code::Network,
                format!("the uplink cannot be shared: {error}. Or set `share = false` under [uplink] in grange.toml."),
            )),
            Err(error) => {
                tracing::warn!("hosts of the LAN reach the town by this node's own network only: {error}");
                Ok(None)
            }
        }
    }

    async fn until_stopped(&self, signals: &mut Signals) -> Result<(), Failure> {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return stopping("SIGTERM"),
                _ = signals.interrupt.recv() => return stopping("SIGINT"),
                _ = signals.hangup.recv() => {
                    if let Err(error) = self.reload_town().await {
                        tracing::warn!("the membership was not read again: {error}");
                    }
                }
                () = self.mesh.stopped() => {
                    return Err(Failure::new(
                        Code::Network,
                        "the mesh stopped by itself: its socket or its TUN device is gone. The log says more. Start the agent again.",
                    ));
                }
            }
        }
    }

    /// Takes away what was added, in the opposite order.
    async fn take_apart(&self) {
        let gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(gateway) = gateway {
            gateway.shutdown().await;
        }
        self.mesh.clone().shutdown().await;
    }

    /// Says where neighbours are looked for; that nowhere is worth a warning.
    async fn tell_interfaces(&self) {
        let Ok(snapshot) = self.mesh.snapshot().await else { return };
        let names: Vec<&str> =
            snapshot.interfaces.iter().filter(|iface| iface.links).map(|iface| iface.name.as_str()).collect();
        let uplink = snapshot.interfaces.iter().find(|iface| iface.role == Role::Uplink);
        let uplink = uplink.map_or("none was found".into(), |iface| iface.name.clone());
        if names.is_empty() {
            tracing::warn!(
                "no interface to look for neighbours on (uplink: {uplink}). Plug in a cable, set up an 802.11s mesh, or name interfaces in mesh.interfaces; \
                 `grange status` says why each is not used"
            );
        } else {
            tracing::info!("looking for neighbours on {}; uplink: {uplink}", names.join(", "));
        }
    }

    fn handler(self: Arc<Self>) -> Handler {
        Arc::new(move |ask| -> Answer {
            let agent = Arc::clone(&self);
            Box::pin(async move { agent.answer(ask).await })
        })
    }

    async fn answer(&self, ask: Ask) -> Result<serde_json::Value, String> {
        let snapshot = async || self.mesh.snapshot().await.map_err(|error| error.to_string());
        let json = match ask {
            Ask::Status => {
                let snapshot = snapshot().await?;
                serde_json::to_value(report::Status::new(&snapshot, self.shared()))
            }
            Ask::Links => {
                serde_json::to_value(snapshot().await?.links.iter().map(report::Link::from).collect::<Vec<_>>())
            }
            Ask::Seals => {
                serde_json::to_value(snapshot().await?.seals.iter().map(report::Seal::from).collect::<Vec<_>>())
            }
            Ask::Routes => {
                serde_json::to_value(snapshot().await?.routes.iter().map(report::Route::from).collect::<Vec<_>>())
            }
            Ask::Trace { destination } => serde_json::to_value(self.trace(&destination).await?),
            Ask::TownChanged => {
                let town = self.reload_town().await?;
                serde_json::to_value(town)
            }
        };
        json.map_err(|error| error.to_string())
    }

    fn shared(&self) -> GatewayStatus {
        let gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        gateway.as_ref().map(Gateway::status).unwrap_or_default()
    }

    async fn reload_town(&self) -> Result<Option<report::Town>, String> {
        let town = town::read(&self.places.state, &self.identity).map_err(|error| error.to_string())?;
        let shown = town.as_ref().map(report::Town::from);
        match &town {
            Some(town) => tracing::info!("now in the town {:?}", town.name),
            None => tracing::info!("now in no town"),
        }
        self.mesh.set_town(town).await.map_err(|error| error.to_string())?;
        Ok(shown)
    }

    async fn trace(&self, destination: &str) -> Result<report::Trace, String> {
        let destination = self.resolve(destination).await?;
        let mut report = report::Trace { destination, reached: false, hops: Vec::new() };
        let mut trace = match self.mesh.trace(destination).await {
            Ok(trace) => trace,
            // An answer like any other: the way ends here.
            Err(TraceError::Unreachable) => return Ok(report),
            Err(error) => return Err(error.to_string()),
        };
        while let Some(hop) = trace.next().await {
            if report.hops.len() < MAX_HOPS {
                report.hops.push((&hop).into());
            }
            report.reached |= hop.reached;
        }
        Ok(report)
    }

    /// An address, or the name or id of this node or one that it has a link or a seal with.
    async fn resolve(&self, text: &str) -> Result<IpAddr, String> {
        if let Ok(addr) = text.parse() {
            return Ok(addr);
        }
        let snapshot = self.mesh.snapshot().await.map_err(|error| error.to_string())?;
        let own = (snapshot.id, snapshot.name.as_str());
        let peers = snapshot.links.iter().map(|link| &link.peer).chain(snapshot.seals.iter().map(|seal| &seal.peer));
        let mut found: Vec<_> = peers.map(|peer| (peer.id, peer.name.as_str())).collect();
        found.push(own);
        found.retain(|(id, name)| *name == text || id.to_string() == text);
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [(id, _)] => Ok(node_address(id).into()),
            [] => Err(format!("{text:?} is neither an address nor the name or id of a neighbour")),
            _ => Err(format!("several neighbours call themselves {text:?}: give an address")),
        }
    }
}

fn stopping(signal: &str) -> Result<(), Failure> {
    tracing::info!("stopping, as {signal} asks");
    Ok(())
}

/// A message that knows where the setting came from, which the mesh's own does not.
fn started_not(error: &StartError, config: &Config) -> Option<Failure> {
    let (key, origin) = match error {
        StartError::PortOccupied { .. } => ("mesh.port", &config.mesh_port.origin),
        StartError::TunTaken { .. } | StartError::TunName { .. } => ("mesh.tun", &config.mesh_tun.origin),
        _ => return None,
    };
    Some(Failure::new(
        Code::Network,
        format!("the mesh could not be started: {error}. The present value of {key} comes from: {origin}."),
    ))
}
