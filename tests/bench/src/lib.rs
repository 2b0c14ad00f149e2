//! How fast the planes are: Grange and other meshes and tunnels, on the same machine, in the same run.
//!
//! ```text
//!   planes()                 the measurements, one after another
//!     Measure                what is laid (Plan), who takes part (Subject), what one round is (Sample)
//!       Lab                  hosts (network namespaces) joined by plain veth pairs
//!         Overlay            a subject's daemons in the lab, and the addresses that lead through it
//!     Report                 all samples; Markdown tables, JSON, goals
//! ```
//!
//! Of each measurement all subjects are set up first, each in a lab of its own. Then each round measures every subject once,
//! so that what else the machine does hits all alike, and ratios are taken within a round.
//!
//! Nothing stays behind: daemons end with their `peer::Overlay`, namespaces with their `lab::Lab`, and the janitor of
//! `grange-netns` removes both when the program is killed.
#![allow(clippy::print_stdout, reason = "a tool for the terminal")]

mod args;
mod daemon;
mod debian;
mod iperf;
mod lab;
mod machine;
mod measure;
mod peer;
mod ping;
mod report;
mod run;
mod stats;
mod subject;

pub use args::Args;
pub use run::{Place, planes};
