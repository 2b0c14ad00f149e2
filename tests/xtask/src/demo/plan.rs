//! The demo's town.
//!
//! ```text
//!            ┌── oak ───3─── pond ──┐
//!            1    │           │     5
//!   lena ── mill  7           8   gate ══u══ the Internet
//!            2    │           │     6
//!            └── barn ──4─── kiln ──┘
//!                 │
//!                tom
//! ```
//!
//! From lena's router to the gateway it is three hops, and every wire on the way has another one beside it.

use anyhow::Result;
use grange_netns::{Internet, Town};

/// The nodes; the first founds the town.
pub(super) const NODES: [&str; 6] = ["mill", "oak", "barn", "pond", "kiln", "gate"];

/// Where lena is.
pub(super) const FIRST: &str = "mill";

/// The node that shares its uplink.
pub(super) const GATEWAY: &str = "gate";

/// The laptops and their routers.
pub(super) const LAPTOPS: [(&str, &str); 2] = [("lena", "mill"), ("tom", "barn")];

/// The wires between nodes, by key from 1. The uplink comes behind them, at the place [`UPLINK`].
pub(super) const LINKS: [(&str, &str); 8] = [
    ("mill", "oak"),
    ("mill", "barn"),
    ("oak", "pond"),
    ("barn", "kiln"),
    ("pond", "gate"),
    ("kiln", "gate"),
    ("oak", "barn"),
    ("pond", "kiln"),
];

/// The uplink's place among the town's wires.
pub(super) const UPLINK: usize = LINKS.len();

/// Builds the town's namespaces and wires and makes the nodes members; starts nothing.
pub(super) fn build() -> Result<Town> {
    let mut builder = Town::builder().nodes(&NODES).links(&LINKS).uplink(GATEWAY);
    for (laptop, node) in LAPTOPS {
        builder = builder.laptop(laptop, node);
    }
    let town = builder.build()?;
    town.found()?;
    Ok(town)
}

/// The name of a wire as people see it: `mill-oak`, `the uplink`.
pub(super) fn wire_name(number: usize) -> String {
    match LINKS.get(number) {
        Some((a, b)) => format!("{a}-{b}"),
        None => "the uplink".into(),
    }
}

/// The place of the wire between two hosts.
pub(super) fn wire_between(a: &str, b: &str) -> Option<usize> {
    if [a, b].contains(&Internet::NAME) {
        return Some(UPLINK);
    }
    LINKS.iter().position(|pair| *pair == (a, b) || *pair == (b, a))
}
