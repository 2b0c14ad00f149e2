//! A town of network namespaces, with real kernels, sockets and `grange` processes.
//!
//! ```text
//!   node "mill"            hub (the wires)            node "oak"
//!  +-----------+        +-------------------+        +-----------+
//!  |   to-oak  o--veth--o w0a  --fwd-->  w0b o--veth--o to-mill   |
//!  |           |        |     <--fwd--      |        |           |
//!  +-----------+        +-------------------+        +-----------+
//! ```
//!
//! Every cable runs through one namespace of its own, the hub, whose nftables forward each frame from one end to the
//! other at ingress. So a carrier cut takes the carrier from both ends and leaves both administratively up, as a pulled
//! cable does; a silent cut and loss tell no sender; captures and injected frames sit on the wire and not in a node.
//!
//! Nothing is global: names carry the process id, everything is removed when the [`Town`] is dropped (also by a panic),
//! and a janitor process removes what a killed test leaves.
//!
//! A test is a function given to [`town_test`]:
//!
//! ```no_run
//! grange_netns::town_test("two_nodes", || {
//!     let town = grange_netns::Town::builder().node("mill").node("oak").link("mill", "oak").build()?;
//!     town.found()?;
//!     town.start()?;
//!     town.wait_reachable(std::time::Duration::from_secs(5))?;
//!     Ok(())
//! });
//! ```

mod agent;
mod arrivals;
mod bare_wireguard;
mod builder;
mod capture;
mod datagrams;
mod echo;
mod features;
mod http;
mod internet;
mod iperf;
mod janitor;
mod laptop;
mod namespace;
mod node;
mod packet;
mod path_mtu;
mod pattern;
mod privileges;
mod reach;
mod refusal;
mod relay;
mod report;
mod snapshot;
mod spy;
mod town;
mod transfer;
mod wait;
mod wire;

pub use agent::{
    Binary, GatewayStatus, HopStatus, InterfaceStatus, Keys, LinkStatus, OwnerStatus, PeerStatus, RouteStatus,
    SealStatus, Status, TownStatus, TraceStatus, ViaStatus,
};
pub use arrivals::{Arrivals, Recovery};
pub use bare_wireguard::BareWireguard;
pub use builder::{NodeSpec, TownBuilder};
pub use capture::{Capture, Frame, Recording};
pub use datagrams::{Flow, FlowReport, FlowSpec};
pub use echo::{EchoReport, EchoServer, EchoStream};
pub use features::Feature;
pub use http::{Download, Progress, Response, WebServer, fetch};
pub use internet::{INTERNET_V4, INTERNET_V6, Internet};
pub use iperf::iperf3;
pub use janitor::scratch;
pub use laptop::Laptop;
pub use namespace::{Namespace, run};
pub use node::Node;
pub use packet::{Direction, PacketSocket};
pub use path_mtu::PathMtuProbe;
pub use pattern::{Pattern, Random};
pub use privileges::{Unavailable, ensure_privileges, ensure_tools, ensure_tun, town_test};
pub use reach::Prober;
pub use refusal::Refusal;
pub use relay::Impairment;
pub use report::measured;
pub use snapshot::Snapshot;
pub use spy::{Mischief, Spy};
pub use town::Town;
pub use transfer::{Transfer, Transferred};
pub use wait::wait_until;
pub use wire::{Cut, Wire, WireSpec, WireState};
