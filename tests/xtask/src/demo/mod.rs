//! `cargo xtask demo`: a town of five routers and a gateway on this machine, with real kernels, sockets and packets.

mod live;
mod map;
mod plan;
mod screen;
mod script;
mod view;
mod watch;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Result;

/// What the demo is asked for.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Args {
    /// Print what happens with measured times and exit by the result, instead of drawing the town
    #[arg(long)]
    pub(crate) script: bool,
}

/// Runs the demo. The exit code says whether every goal was met (`--script`).
///
/// # Errors
/// What keeps the demo from running at all: missing tools or rights, no `grange` program.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    grange_netns::ensure_privileges()?;
    grange_netns::ensure_tools()?;
    grange_netns::ensure_tun()?;
    if args.script {
        script::run()
    } else if std::io::stdout().is_terminal() {
        live::run()
    } else {
        anyhow::bail!("the demo draws on a terminal, and this is none; `cargo xtask demo --script` only prints")
    }
}
