//! The one door for people and CI: `cargo xtask demo`, `cargo xtask test`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod bench;
mod command;
mod demo;
mod packages;
mod test;
mod vm;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use grange_netns::Unavailable;

/// Shows and tests Grange. Each command does all its own set-up.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Five routers form one encrypted network on this machine, and a laptop reaches "the Internet" through them
    Demo(demo::Args),
    /// Everything that must hold: format, lints, documentation, layers, tests, builds, licences
    Test(test::Args),
    /// How fast Grange and other meshes are on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// A command in a virtual machine with Debian's kernel, which has WireGuard
    Vm(vm::Args),
}

/// Exit code for "this machine cannot do that", as test drivers use it.
const UNAVAILABLE: u8 = 77;

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            if error.is::<Unavailable>() { UNAVAILABLE.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let root = root();
    env::set_current_dir(&root).with_context(|| format!("going to {}", root.display()))?;
    match command {
        Command::Demo(args) => {
            packages::ensure(packages::NETWORK)?;
            packages::load_tun();
            let agent = command::build_agent(&root)?;
            // SAFETY: no other thread runs yet.
            unsafe { env::set_var("GRANGE_BIN", agent) };
            demo::run(args)
        }
        Command::Test(args) => test::run(&root, &args),
        Command::Bench(bench) => bench::run(&root, &bench),
        Command::Vm(args) => vm::run(&root, &args),
    }
}

/// The workspace's folder. Cargo says at run time where this crate is; the path of the build is for a program that was
/// started without Cargo.
fn root() -> PathBuf {
    let crate_dir = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    crate_dir.ancestors().nth(2).map_or_else(|| crate_dir.clone(), Path::to_path_buf)
}
