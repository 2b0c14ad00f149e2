//! The `grange` program and what it says in JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Where the program to test is.
#[derive(Clone, Debug)]
pub struct Binary(PathBuf);

impl Binary {
    /// `$GRANGE_BIN`, else the newer one of the workspace's debug and release builds.
    ///
    /// # Errors
    /// If there is none.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os("GRANGE_BIN") {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("GRANGE_BIN names {}, which is no file", path.display());
            }
            return Ok(Self(path));
        }
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
        let newest = ["debug", "release"]
            .into_iter()
            .map(|profile| target.join(profile).join("grange"))
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .max();
        let (_, path) =
            newest.with_context(|| format!("no grange program under {}; run `cargo build` first", target.display()))?;
        Ok(Self(path.canonicalize().context("finding the grange program")?))
    }

    /// This file.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// `grange --json status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// The node's id in hexadecimal.
    pub id: String,
    /// The node's name.
    pub name: String,
    /// The node's IPv6 address.
    pub address: String,
    /// The node's IPv4 address.
    pub address_v4: String,
    /// The /64 of the node's LAN.
    pub prefix: String,
    /// The town it belongs to.
    pub town: Option<TownStatus>,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// What moves packets.
    pub plane: String,
    /// Number of links that are up.
    pub links: u64,
    /// Number of routes.
    pub routes: u64,
    /// What it does with its uplink.
    pub gateway: GatewayStatus,
    /// What it dropped, by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
    /// What it takes each interface for.
    pub interfaces: Vec<InterfaceStatus>,
}

/// `grange --json key`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Keys {
    /// The node's id in hexadecimal.
    pub id: String,
    /// The node's IPv6 address.
    pub address: String,
    /// The node's IPv4 address.
    pub address_v4: String,
    /// The /64 of the node's LAN.
    pub prefix: String,
    /// The Ed25519 public key in hexadecimal.
    pub identity_key: String,
    /// The X25519 public key in hexadecimal.
    pub link_key: String,
}

/// A town in [`Status`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TownStatus {
    /// The town's id in hexadecimal.
    pub id: String,
    /// The town's name.
    pub name: String,
}

/// The gateway's part of [`Status`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GatewayStatus {
    /// Whether the uplink is shared with the town.
    pub sharing: bool,
    /// The uplink's interface.
    pub interface: Option<String>,
    /// Whether it has IPv4 Internet.
    pub v4: bool,
    /// Whether it has IPv6 Internet.
    pub v6: bool,
}

/// An interface in [`Status`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// The interface's name.
    pub name: String,
    /// Kind of medium.
    pub kind: String,
    /// Whether it has a carrier.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// `mesh`, `uplink`, `lan` or `unused`.
    pub role: String,
    /// Why it has this role.
    pub why: String,
}

/// A neighbour in [`LinkStatus`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Its id in hexadecimal.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its IPv6 address.
    pub address: String,
}

/// One of `grange --json links`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// The link's number, never used again while the agent runs.
    pub link: u64,
    /// Who is at the other end.
    pub peer: PeerStatus,
    /// Over which interface.
    pub interface: Option<String>,
    /// The underlay address of the other end.
    pub endpoint: String,
    /// Routing cost.
    pub cost: u64,
    /// Cost of receiving, as we measure it.
    pub rxcost: u64,
    /// Cost of sending, as the other end measures it.
    pub txcost: u64,
    /// Round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Largest inner packet in bytes.
    pub mtu: u64,
    /// Seconds since it came up.
    pub age_s: f64,
    /// Bytes of inner packets sent.
    pub sent_bytes: u64,
    /// Bytes of inner packets received.
    pub received_bytes: u64,
    /// Data frames sent.
    pub sent_packets: u64,
    /// Data frames received.
    pub received_packets: u64,
    /// What moves its packets: `userspace` or `kernel`.
    pub plane: String,
}

/// One of `grange --json seals`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SealStatus {
    /// The seal's number, never used again while the agent runs.
    pub seal: u64,
    /// Who is at the other end.
    pub peer: PeerStatus,
    /// Largest inner packet in bytes.
    pub mtu: u64,
    /// Seconds since it came up.
    pub age_s: f64,
    /// Seconds since a packet went through it.
    pub idle_s: f64,
    /// Bytes of inner packets sent.
    pub sent_bytes: u64,
    /// Bytes of inner packets received.
    pub received_bytes: u64,
    /// What moves its packets: `userspace` or `kernel`.
    pub plane: String,
}

/// The next node in [`RouteStatus`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ViaStatus {
    /// The link's number.
    pub link: u64,
    /// The neighbour's id in hexadecimal.
    pub id: String,
    /// The neighbour's name.
    pub name: String,
}

/// Whose prefix it is in [`RouteStatus`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerStatus {
    /// The owner's id in hexadecimal.
    pub id: String,
    /// The owner's name, if known.
    pub name: Option<String>,
}

/// One of `grange --json routes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// Destination.
    pub prefix: String,
    /// The next node.
    pub via: ViaStatus,
    /// Over which interface.
    pub interface: Option<String>,
    /// Cost of the whole way.
    pub metric: u64,
    /// Who announced it.
    pub owner: OwnerStatus,
    /// Whether packets go this way.
    pub selected: bool,
}

/// A hop in [`TraceStatus`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HopStatus {
    /// Its number, from 1.
    pub hop: u64,
    /// Who answered, if anybody did.
    pub address: Option<String>,
    /// Its name, if known.
    pub name: Option<String>,
    /// Round-trip times in microseconds, one for each answer.
    pub rtt_us: Vec<Option<u64>>,
}

/// `grange --json trace ADDR`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TraceStatus {
    /// The address asked for.
    pub destination: String,
    /// Whether the last hop is the destination.
    pub reached: bool,
    /// The hops.
    pub hops: Vec<HopStatus>,
}
