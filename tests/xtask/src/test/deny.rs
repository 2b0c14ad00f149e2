//! What the dependencies allow and what is known against them, by cargo-deny and `deny.toml`.

use anyhow::Result;

use super::{Context, Outcome};
use crate::command::{cargo, has_subcommand, output, succeed};

/// The release whose form of `deny.toml` this project uses.
const VERSION: &str = "^0.20";

pub(super) fn licences(_: &Context<'_>) -> Result<Outcome> {
    if let Err(error) = install() {
        return Ok(Outcome::left_out("licences", format!("{error:#}")));
    }
    succeed(cargo().args(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    Ok(Outcome::passed())
}

pub(super) fn advisories(_: &Context<'_>) -> Result<Outcome> {
    if let Err(error) = install() {
        return Ok(Outcome::left_out("advisories", format!("{error:#}")));
    }
    if let Err(error) = output(cargo().args(["deny", "fetch", "db"])) {
        let reason = format!("the advisory database cannot be fetched: {error:#}");
        return Ok(Outcome::left_out("advisories", reason));
    }
    succeed(cargo().args(["deny", "--log-level", "error", "check", "--disable-fetch", "advisories"]))?;
    Ok(Outcome::passed())
}

fn install() -> Result<()> {
    if has_subcommand("deny") {
        return Ok(());
    }
    println!("   installing cargo-deny, once; this takes some minutes");
    succeed(cargo().args(["install", "--locked", "--version", VERSION, "cargo-deny"]))
}
