//! What a simulation is made of.

use std::time::Duration;

use grange_core::IfaceKind;

use super::Sim;
use crate::{Member, Quality, Topology, town};

/// What a simulation is made of.
#[derive(Clone)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Who is on which wire.
    pub topology: Topology,
    /// How good all wires are at the start.
    pub quality: Quality,
    /// What all wires are, but for the tunnels.
    pub kind: IfaceKind,
    /// Wires that are paths through the Internet between static peers, by index.
    pub tunnels: Vec<usize>,
    /// Largest IP packet on the wires.
    pub mtu: u16,
    /// Nodes start at random moments within this time.
    pub stagger: Duration,
    /// Timers fire up to this late, as under a busy kernel.
    pub lateness: Duration,
    /// The nodes' keys and memberships; by default one town of all.
    pub members: Vec<Member>,
}

impl Setup {
    /// Good cables, and all nodes of one town started at once.
    #[must_use]
    pub fn new(seed: u64, topology: Topology) -> Self {
        let members = town(topology.nodes, seed);
        Self {
            seed,
            topology,
            quality: Quality::CABLE,
            kind: IfaceKind::Wired,
            tunnels: Vec::new(),
            mtu: 1500,
            stagger: Duration::from_millis(100),
            lateness: Duration::from_millis(1),
            members,
        }
    }

    /// With these wires.
    #[must_use]
    pub fn quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// With this kind of interface.
    #[must_use]
    pub fn kind(mut self, kind: IfaceKind) -> Self {
        self.kind = kind;
        self
    }

    /// The simulation.
    #[must_use]
    pub fn build(self) -> Sim {
        Sim::new(self)
    }
}
