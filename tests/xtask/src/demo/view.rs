//! What is known of the town at one moment: what the screen shows.

use std::time::Duration;

use grange_netns::WireState;

use super::plan::{LAPTOPS, LINKS, NODES};

/// How many rows and columns of hosts the matrix has; one more column is the Internet.
pub(super) const HOSTS: usize = NODES.len() + LAPTOPS.len();

/// One node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeView {
    /// Whether the agent runs.
    pub(super) running: bool,
    /// Whether it answers.
    pub(super) answers: bool,
    /// Number of routes.
    pub(super) routes: u64,
}

/// One wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireView {
    /// What was done to the wire.
    pub(super) state: WireState,
    /// Whether the agents at its ends have a link over it (the uplink: whether the gateway has Internet).
    pub(super) linked: bool,
    /// The larger cost of both ends.
    pub(super) cost: u64,
    /// Bytes a second, both ways together.
    pub(super) rate: f64,
    /// Whether lena's way to the Internet goes over it.
    pub(super) used: bool,
}

impl Default for WireView {
    fn default() -> Self {
        Self { state: WireState::Whole, linked: false, cost: 0, rate: 0.0, used: false }
    }
}

/// The town.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The nodes, in the plan's order.
    pub(super) nodes: Vec<NodeView>,
    /// The wires, in the plan's order, the uplink last.
    pub(super) wires: Vec<WireView>,
    /// Who reaches whom: nodes, then laptops; the last column is the Internet.
    pub(super) reach: Vec<[Option<Duration>; HOSTS + 1]>,
    /// Names of the nodes on lena's way to the Internet; empty if there is none.
    pub(super) way: Vec<String>,
    /// Whether the gateway offers IPv4 and IPv6 Internet.
    pub(super) gateway: (bool, bool),
    /// Whether lena got an answer from the Internet within the last moment, over IPv4 and IPv6.
    pub(super) internet: (bool, bool),
    /// How long lena's traffic stood still after the last act.
    pub(super) last_gap: Option<Duration>,
    /// What happened, newest last: seconds since the start and text.
    pub(super) events: Vec<(f64, String)>,
    /// Seconds since the start.
    pub(super) uptime: f64,
    /// Bytes a second of lena's download.
    pub(super) download: f64,
}

impl Default for View {
    fn default() -> Self {
        Self {
            nodes: vec![NodeView::default(); NODES.len()],
            wires: vec![WireView::default(); LINKS.len() + 1],
            reach: vec![[None; HOSTS + 1]; HOSTS],
            way: Vec::new(),
            gateway: (false, false),
            internet: (false, false),
            last_gap: None,
            events: Vec::new(),
            uptime: 0.0,
            download: 0.0,
        }
    }
}

/// Bytes a second in at most five characters.
pub(super) fn rate_text(rate: f64) -> String {
    match rate {
        rate if rate < 100.0 => "0".into(),
        rate if rate < 1e5 => format!("{:.1}k", rate / 1e3),
        rate if rate < 1e6 => format!("{:.0}k", rate / 1e3),
        rate if rate < 1e8 => format!("{:.1}M", rate / 1e6),
        rate => format!("{:.0}M", rate / 1e6),
    }
}

/// A time in at most six characters.
pub(super) fn time_text(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros @ 10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
