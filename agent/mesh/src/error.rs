//! Why a mesh does not start.

use std::{io, path::PathBuf};

/// Why a mesh does not start. Nothing is left behind when it does not. Each text is one paragraph that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `/dev/net/tun` is missing.
    #[error(
        "there is no /dev/net/tun, through which Grange hands packets to the kernel. Load the driver with `modprobe \
         tun` (OpenWrt: install kmod-tun); in a container, pass the device in"
    )]
    NoTun,
    /// The process may not change the network.
    #[error(
        "no right to change the network: {action} was refused. Run grange as root, or give it the capabilities \
         CAP_NET_ADMIN and CAP_NET_RAW (systemd: AmbientCapabilities=)"
    )]
    NoRights {
        /// What was tried.
        action: &'static str,
    },
    /// Another process has the UDP port.
    #[error(
        "UDP port {port} is occupied by another process: perhaps another grange runs (see `ss -ulpn sport = \
         {port}`). Stop it, or set another `port` under [mesh] in grange.toml"
    )]
    PortOccupied {
        /// The port.
        port: u16,
    },
    /// Another process has the UDP port of seals.
    #[error(
        "UDP port {} at this node's address is occupied by another process: perhaps another grange runs (see `ss \
         -ulpn sport = {}`). Stop it; this port cannot be chosen",
        grange_wire::SEAL_PORT,
        grange_wire::SEAL_PORT
    )]
    SealPortOccupied,
    /// An interface with the TUN device's name exists.
    #[error(
        "an interface named {name} exists already: perhaps another grange runs. Stop it, remove the interface with \
         `ip link del {name}`, or set another name as `tun` under [mesh] in grange.toml"
    )]
    TunTaken {
        /// The name.
        name: String,
    },
    /// The TUN device's name is none that the kernel takes.
    #[error(
        "`{name}` cannot be the name of an interface: `tun` under [mesh] in grange.toml needs 1 to 15 letters, \
         digits, `-`, `_` or `.`"
    )]
    TunName {
        /// The name.
        name: String,
    },
    /// The kernel has no IPv6.
    #[error(
        "the kernel has no IPv6, which links and addresses need. Start it without `ipv6.disable=1` (OpenWrt: install \
         kmod-ipv6) and see that net.ipv6.conf.all.disable_ipv6 is 0"
    )]
    NoIpv6,
    /// The TUN device could not be made or set up.
    #[error("the TUN device {name} could not be set up: {source}")]
    Tun {
        /// The device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The UDP socket could not be made.
    #[error("the UDP socket on port {port} could not be opened: {source}")]
    Socket {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("the kernel refused to {action}: {source}")]
    Netlink {
        /// What was asked.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record of changes could not be written, so nothing was changed.
    #[error(
        "{} could not be written ({source}), so Grange would not know what to undo and changed nothing. See that the \
         directory can be made and has room, or name another with --runtime-dir",
        path.display()
    )]
    Undo {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

/// Why a route could not be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No right to open raw sockets.
    #[error("tracing needs raw sockets: run the agent as root or give it CAP_NET_RAW")]
    NoRights,
    /// No route to the destination at all.
    #[error("this node has no route to the destination")]
    Unreachable,
    /// The mesh is shutting down.
    #[error("the agent is stopping")]
    Stopped,
    /// As many traces run already as are allowed at once.
    #[error("{limit} traces run already; try again when one has ended")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// Something else.
    #[error("the probe could not be sent: {0}")]
    Io(#[from] io::Error),
}

/// The mesh has stopped; nothing answers any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mesh has stopped")]
pub struct Stopped;
