//! A cable between two hosts, and what can happen to it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Capture, Impairment, Namespace, packet::PacketSocket, relay::Relay};

/// What a wire is like when it is laid.
#[derive(Clone, Copy, Debug)]
pub struct WireSpec {
    /// Largest IP packet in bytes: 1500 by default.
    pub mtu: u32,
    /// Segmentation and checksum offload at the hosts' ends; on by default. Without it, frames on the wire are such as a
    /// real cable carries, with their checksums filled in. Always off on a wire with a relay.
    pub offload: bool,
    /// Bits a second each way, kept by `tbf` with a queue of 50 ms; unlimited by default.
    pub rate: Option<u64>,
    /// Share of frames (0 to 1) that are lost each way, by nftables `numgen`; none by default.
    pub loss: f64,
    /// Delay, reordering and more, by a relay in user space; no relay by default.
    pub impairment: Option<Impairment>,
}

impl Default for WireSpec {
    fn default() -> Self {
        Self { mtu: 1500, offload: true, rate: None, loss: 0.0, impairment: None }
    }
}

/// How a wire is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The cable is pulled: both ends lose their carrier and stay administratively up.
    Carrier,
    /// Every frame is lost on the way; no end is told.
    Silent,
}

/// Whether a wire is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireState {
    /// It carries frames.
    Whole,
    /// It is cut.
    Cut(Cut),
}

/// A host's end of a wire.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// The host's name in the town.
    pub(crate) host: String,
    /// The interface in the host.
    pub(crate) interface: String,
}

/// A cable between two hosts.
#[derive(Debug)]
pub struct Wire {
    name: String,
    number: usize,
    ends: [End; 2],
    hub: Arc<Namespace>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: WireState,
    loss: f64,
    relay: Option<Relay>,
    detour: Option<Detour>,
}

/// A way round for some of the frames.
#[derive(Debug)]
struct Detour {
    /// One of so many frames takes it.
    one_of: u32,
    /// Carries them from the detour's ends to the wire's; ends when dropped.
    _relay: Relay,
}

impl Wire {
    /// Lays a wire: makes both veth pairs and joins them in the hub.
    pub(crate) fn lay(
        hub: &Arc<Namespace>,
        number: usize,
        ends: &[(End, &Namespace); 2],
        spec: &WireSpec,
    ) -> Result<Self> {
        let wire = Self {
            name: format!("{}-{}", ends[0].0.host, ends[1].0.host),
            number,
            ends: [ends[0].0.clone(), ends[1].0.clone()],
            hub: Arc::clone(hub),
            inner: Mutex::new(Inner { state: WireState::Whole, loss: spec.loss, relay: None, detour: None }),
        };
        for (side, (end, namespace)) in ends.iter().enumerate() {
            let (port, interface, mtu) = (wire.port(side), &end.interface, spec.mtu);
            hub.ip(&format!(
                "link add {port} mtu {mtu} type veth peer name {interface} mtu {mtu} netns {}",
                namespace.name()
            ))?;
            if !spec.offload || spec.impairment.is_some() {
                namespace
                    .inside(|| no_offload(interface))
                    .with_context(|| format!("switching off the offloads of {interface}"))?;
            }
            if let Some(rate) = spec.rate {
                // One timer tick's worth at 250 Hz, and never less than two segmentation-offload packets.
                let burst = (rate / 8 / 250).max(128 << 10);
                hub.sh(&format!("tc qdisc add dev {port} root tbf rate {rate}bit burst {burst} latency 50ms"))?;
            }
            hub.ip(&format!("link set {port} up"))?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        if let Some(impairment) = spec.impairment {
            wire.impair(impairment)?;
        } else if wire.load_rules(&wire.lock()).is_err() {
            // A kernel without nftables `fwd`: the relay carries everything.
            wire.impair(Impairment { loss: spec.loss, ..Impairment::default() })?;
        }
        Ok(wire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name: `A-B`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the hosts at its ends.
    #[must_use]
    pub fn hosts(&self) -> [&str; 2] {
        [&self.ends[0].host, &self.ends[1].host]
    }

    /// Whether this wire joins these two hosts, in either order.
    #[must_use]
    pub fn joins(&self, a: &str, b: &str) -> bool {
        self.hosts() == [a, b] || self.hosts() == [b, a]
    }

    /// The interface at the end of `host`, if it has one.
    #[must_use]
    pub fn interface(&self, host: &str) -> Option<&str> {
        self.ends.iter().find(|end| end.host == host).map(|end| end.interface.as_str())
    }

    /// Whether it is whole.
    #[must_use]
    pub fn state(&self) -> WireState {
        self.lock().state
    }

    /// The hub's interface that faces the end `side`.
    fn port(&self, side: usize) -> String {
        format!("w{}{}", self.number, if side == 0 { 'a' } else { 'b' })
    }

    fn side(&self, host: &str) -> Result<usize> {
        self.ends.iter().position(|end| end.host == host).with_context(|| format!("{host} has no end of {}", self.name))
    }

    /// The hub's rules for this wire, replaced as a whole. `fwd` sends a frame on as it is; without it the frame ends
    /// here, though the relay's and the captures' sockets have seen it.
    fn load_rules(&self, inner: &Inner) -> Result<()> {
        let table = format!("wire{}", self.number);
        let mut rules = format!("table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n");
        for side in 0..2 {
            let (from, to) = (self.port(side), self.port(1 - side));
            rules += &format!(
                " chain from{side} {{\n  type filter hook ingress device \"{from}\" priority 0; policy drop;\n"
            );
            if inner.state != WireState::Cut(Cut::Silent) && inner.relay.is_none() {
                if inner.loss > 0.0 {
                    rules += &format!("  numgen random mod 10000 < {} drop\n", (inner.loss * 10000.0) as u32);
                }
                if let Some(detour) = &inner.detour {
                    rules += &format!("  numgen inc mod {} 0 fwd to \"{}\"\n", detour.one_of, self.detour_port(side));
                }
                rules += &format!("  fwd to \"{to}\"\n");
            }
            rules += " }\n";
        }
        self.hub.nft(&(rules + "}\n"))
    }

    fn set_carrier(&self, on: bool) -> Result<()> {
        for side in 0..2 {
            self.hub.ip(&format!("link set {} {}", self.port(side), if on { "up" } else { "down" }))?;
        }
        Ok(())
    }

    /// Cuts the wire. A wire that is cut in another way is first mended.
    ///
    /// # Errors
    /// If `ip` or `nft` fails.
    pub fn cut(&self, how: Cut) -> Result<()> {
        let mut inner = self.lock();
        if inner.state == WireState::Cut(how) {
            return Ok(());
        }
        let before = inner.state;
        inner.state = WireState::Cut(how);
        if before == WireState::Cut(Cut::Carrier) {
            self.set_carrier(true)?;
        }
        if let Some(relay) = &inner.relay {
            relay.set_cut(true);
        }
        match how {
            Cut::Carrier => self.set_carrier(false),
            Cut::Silent => self.load_rules(&inner),
        }
    }

    /// Makes the wire whole again.
    ///
    /// # Errors
    /// If `ip` or `nft` fails.
    pub fn mend(&self) -> Result<()> {
        let mut inner = self.lock();
        let before = inner.state;
        inner.state = WireState::Whole;
        if let Some(relay) = &inner.relay {
            relay.set_cut(false);
        }
        if before == WireState::Cut(Cut::Carrier) {
            self.set_carrier(true)?;
        }
        self.load_rules(&inner)
    }

    /// Loses this share (0 to 1) of frames from now on, each way.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn set_loss(&self, loss: f64) -> Result<()> {
        let mut inner = self.lock();
        inner.loss = loss;
        self.load_rules(&inner)
    }

    /// Carries the frames by a relay from now on. Offloads are best off on such a wire ([`WireSpec::offload`]): the relay
    /// does not carry a packet's segmentation and checksum marks.
    ///
    /// # Errors
    /// If the relay cannot start.
    pub fn impair(&self, impairment: Impairment) -> Result<()> {
        let mut inner = self.lock();
        match &inner.relay {
            Some(relay) => relay.set_impairment(impairment),
            None => {
                let ports = [self.port(0), self.port(1)];
                inner.relay = Some(Relay::start(&self.hub, [&ports[0], &ports[1]], impairment)?);
                self.load_rules(&inner)?;
            }
        }
        Ok(())
    }

    /// From now on one of `one_of` frames takes `hold` longer, so that later ones overtake it; with `None` all go
    /// straight on again. The others stay in the kernel, so the wire is as fast as it was. Offloads are best off on such a
    /// wire ([`WireSpec::offload`]), as with [`Self::impair`].
    ///
    /// # Errors
    /// If `ip` or `nft` fails or the relay cannot start.
    pub fn reorder(&self, how: Option<(u32, Duration)>) -> Result<()> {
        let mut inner = self.lock();
        if inner.detour.take().is_some() {
            // The rules name the ports: they go first.
            self.load_rules(&inner)?;
            for side in 0..2 {
                self.hub.ip(&format!("link del {}", self.detour_port(side)))?;
            }
        }
        let Some((one_of, hold)) = how else { return Ok(()) };
        let exits = [0, 1].map(|side| format!("{}x", self.detour_port(side)));
        for (side, exit) in exits.iter().enumerate() {
            let port = self.detour_port(side);
            self.hub.ip(&format!("link add {port} mtu 65535 type veth peer name {exit} mtu 65535"))?;
            self.hub.ip(&format!("link set {port} up"))?;
            self.hub.ip(&format!("link set {exit} up"))?;
        }
        let (ports, impairment) = ([self.port(0), self.port(1)], Impairment { delay: hold, ..Impairment::default() });
        let relay = Relay::between(&self.hub, [&exits[0], &exits[1]], [&ports[0], &ports[1]], impairment)?;
        inner.detour = Some(Detour { one_of, _relay: relay });
        self.load_rules(&inner)
    }

    /// Where the hub's frames from end `side` enter the detour.
    fn detour_port(&self, side: usize) -> String {
        format!("{}d", self.port(side))
    }

    /// Records the frames on the wire, both ways, until stopped.
    ///
    /// # Errors
    /// If the socket cannot be opened.
    pub fn capture(&self) -> Result<Capture> {
        Ok(Capture::start(PacketSocket::open(&self.hub, &self.port(0), false)?))
    }

    /// A socket whose sent frames reach `host` as if they came out of the cable.
    ///
    /// # Errors
    /// If the host has no end of this wire.
    pub fn injector(&self, host: &str) -> Result<PacketSocket> {
        PacketSocket::open(&self.hub, &self.port(self.side(host)?), true)
    }
}

/// Switches off what lets a host leave segmentation and checksums to the other side of a veth pair (ethtool ioctls,
/// linux/ethtool.h).
fn no_offload(interface: &str) -> std::io::Result<()> {
    const SET_TX_CHECKSUM: u32 = 0x17;
    const SET_TSO: u32 = 0x1f;
    const SET_GSO: u32 = 0x24;
    const SET_GRO: u32 = 0x2c;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::]:0"))?;
    for command in [SET_TSO, SET_GSO, SET_GRO, SET_TX_CHECKSUM] {
        let mut value = Value { command, data: 0 };
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request and the value it points to live through the call and have the layout of SIOCETHTOOL.
        let outcome =
            unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCETHTOOL as _, &raw mut request) };
        if outcome < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
