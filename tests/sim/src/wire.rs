//! What lies between nodes: cables and radio segments with their faults.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use grange_core::{IfaceId, IfaceKind, IfaceState};

/// How well a wire carries datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Time on the way.
    pub latency: Duration,
    /// At most this much more, drawn for each datagram: so they overtake each other.
    pub jitter: Duration,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that it arrives twice.
    pub duplication: f64,
    /// Probability that it is held back for up to a hundred milliseconds.
    pub reordering: f64,
}

impl Quality {
    /// A cable: 200 microseconds, nothing lost.
    pub const CABLE: Self = Self {
        latency: Duration::from_micros(200),
        jitter: Duration::from_micros(50),
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
    };

    /// A radio in a bad place: 3 to 15 milliseconds, a little of every fault.
    pub const BAD_RADIO: Self = Self {
        latency: Duration::from_millis(3),
        jitter: Duration::from_millis(12),
        loss: 0.1,
        duplication: 0.02,
        reordering: 0.05,
    };

    /// The same with another probability of loss.
    #[must_use]
    pub const fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same with another time on the way.
    #[must_use]
    pub const fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }
}

/// One node's place on a wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub(crate) host: usize,
    /// Zero on a tunnel.
    pub(crate) iface: IfaceId,
    pub(crate) addr: SocketAddr,
}

/// A cable, a radio segment or a path through the Internet.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) kind: IfaceKind,
    pub(crate) ports: Vec<Port>,
    pub(crate) quality: Quality,
    /// What the interfaces say.
    pub(crate) mtu: u16,
    /// What really passes.
    pub(crate) path_mtu: u16,
    pub(crate) up: bool,
    /// Ordered pairs whose datagrams vanish though the carrier stands.
    pub(crate) deaf: BTreeSet<(usize, usize)>,
}

impl Wire {
    pub(crate) fn port(&self, host: usize) -> Option<&Port> {
        self.ports.iter().find(|port| port.host == host)
    }

    /// Whether datagrams of `from` have a chance to reach `to`.
    pub(crate) fn carries(&self, from: usize, to: usize) -> bool {
        self.up && !self.deaf.contains(&(from, to))
    }

    /// What the interfaces on it say.
    pub(crate) fn state(&self) -> IfaceState {
        IfaceState { kind: self.kind, mtu: self.mtu, up: self.up, beacons: true }
    }

    /// Every ordered pair on the wire.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.ports.iter().flat_map(|a| self.ports.iter().map(|b| (a.host, b.host))).filter(|(a, b)| a != b)
    }
}
