//! `cargo xtask bench`: how fast it is, on this machine, beside others.

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use grange_bench::Place;

use crate::{command, packages};

const AFTER: &str = "\
Real agents (release build) and the peers' real daemons run in network namespaces joined by veth pairs.
Each measurement sets all subjects up first, then measures them in turn, round after round, so that whatever
else the machine does hits all alike. The tables show medians of the rounds; ratios are to wireguard-go
20231211 in the same round. CPU seconds are those of the daemons, from /proc. The peers are Debian packages,
unpacked under target/peers and not installed. Needs root.

  cargo xtask bench planes                                    everything, about three quarters of an hour
  cargo xtask bench planes --only two-nodes,queue             two measurements, all subjects
  cargo xtask bench planes --only grange-aes,wireguard-go     two subjects, all measurements
  cargo xtask bench planes --only cipher,two-nodes --rounds 1 --seconds 2     a first look";

/// What is measured.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Bench {
    /// Speed, processor time, latency and memory of the planes that move packets
    #[command(after_help = AFTER)]
    Planes(grange_bench::Args),
}

/// Runs a benchmark.
///
/// # Errors
/// What keeps it from running at all: missing tools or rights, an agent that does not build.
pub(crate) fn run(root: &Path, bench: &Bench) -> Result<ExitCode> {
    let Bench::Planes(args) = bench;
    grange_bench::planes(args, || {
        grange_netns::ensure_privileges()?;
        packages::ensure(packages::NETWORK)?;
        packages::ensure(packages::BENCH)?;
        packages::load_tun();
        grange_netns::ensure_tun()?;
        Ok(Place {
            grange: command::build_release_agent(root)?,
            peers: command::target(root).join("peers"),
            doc: root.join("docs/performance.md"),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}
