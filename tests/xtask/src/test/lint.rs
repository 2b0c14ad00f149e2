//! Steps that are one Cargo command each.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Context, Outcome};
use crate::command::{cargo, find_program, has_subcommand, output, succeed};

pub(super) fn format(_: &Context<'_>) -> Result<Outcome> {
    component("fmt", "rustfmt")?;
    succeed(cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::passed())
}

pub(super) fn clippy(_: &Context<'_>) -> Result<Outcome> {
    component("clippy", "clippy")?;
    succeed(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    Ok(Outcome::passed())
}

pub(super) fn rustdoc(_: &Context<'_>) -> Result<Outcome> {
    let flags = "-D warnings";
    succeed(cargo().env("RUSTDOCFLAGS", flags).args(["doc", "--workspace", "--no-deps"]))?;
    Ok(Outcome::passed())
}

/// rustup's minimal profile comes without these.
fn component(subcommand: &str, component: &str) -> Result<()> {
    if has_subcommand(subcommand) {
        return Ok(());
    }
    let command = format!("`rustup component add {component}`");
    find_program("rustup")
        .with_context(|| format!("{component} is missing and so is rustup; with rustup: {command}"))?;
    output(Command::new("rustup").args(["component", "add", component]))
        .with_context(|| format!("{component} is missing"))?;
    Ok(())
}
