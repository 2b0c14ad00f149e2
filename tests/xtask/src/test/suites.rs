//! The test runs: `cargo nextest` where it is installed, else `cargo test`.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{
    Context, LeftOut, Outcome,
    harness::{Libtest, Nextest, Tally},
};
use crate::{
    UNAVAILABLE,
    command::{self, build_agent, cargo, has_subcommand, output},
    packages,
};

/// Crates whose tests are steps of their own.
const OWN_STEP: [&str; 2] = ["grange-sim", "grange-netns"];

pub(super) fn unit(context: &Context<'_>) -> Result<Outcome> {
    let mut packages = vec!["--workspace"];
    OWN_STEP.iter().for_each(|name| packages.extend(["--exclude", name]));
    suite(context, &packages, &[], false)
}

pub(super) fn sim(context: &Context<'_>) -> Result<Outcome> {
    suite(context, &["--package", "grange-sim"], &[], false)
}

pub(super) fn netns(context: &Context<'_>) -> Result<Outcome> {
    if let Err(error) = packages::ensure(packages::NETWORK) {
        return Ok(Outcome::left_out("netns (all network tests)", format!("{error:#}")));
    }
    packages::load_tun();
    let agent = build_agent(context.root)?;
    let agent = agent.to_str().context("the path of the agent is not UTF-8")?;
    // These measure real seconds: on few cores, two towns at a time would disturb each other.
    suite(context, &["--package", "grange-netns"], &[("GRANGE_BIN", agent)], true)
}

/// The demo as a script: what a newcomer runs first.
pub(super) fn demo(context: &Context<'_>) -> Result<Outcome> {
    if let Err(error) = packages::ensure(packages::NETWORK) {
        return Ok(Outcome::left_out("demo", format!("{error:#}")));
    }
    packages::load_tun();
    let agent = build_agent(context.root)?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut last = String::new();
    let status = command::stream(Command::new(program).args(["demo", "--script"]).env("GRANGE_BIN", agent), |line| {
        println!("{line}");
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut last);
        }
    })?;
    match status.code() {
        Some(0) => Ok(Outcome::passed()),
        Some(code) if code == i32::from(UNAVAILABLE) => Ok(Outcome::left_out("demo", last)),
        _ => bail!("the demo failed ({status}): {last}"),
    }
}

/// Examples in the documentation, which nextest does not run.
pub(super) fn doc(_: &Context<'_>) -> Result<Outcome> {
    let mut tally = Libtest::default();
    let status = command::stream(cargo().args(["test", "--doc", "--workspace"]), |line| {
        if tally.line(line) {
            println!("{line}");
        }
    })?;
    finish(tally.into_tally(), status.success(), true)
}

fn suite(context: &Context<'_>, packages: &[&str], env: &[(&str, &str)], serial: bool) -> Result<Outcome> {
    let env = env.iter().copied();
    if !has_subcommand("nextest") {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast", "--lib", "--bins", "--tests"]).args(packages).envs(env);
        command.args(["--", "--show-output"]).args(context.filter);
        if serial {
            command.arg("--test-threads=1");
        }
        let mut tally = Libtest::default();
        let status = command::stream(&mut command, |line| {
            if tally.line(line) {
                println!("{line}");
            }
        })?;
        return finish(tally.into_tally(), status.success(), !context.filter.is_empty());
    }
    let mut command = cargo();
    command.args(["nextest", "run", "--color", "never", "--no-fail-fast", "--no-tests", "pass"]);
    // Output of tests that passed is read for the line that says that they could not run.
    command.args(["--success-output", "immediate"]).args(packages).envs(env);
    if serial {
        command.args(["--test-threads", "1"]);
    }
    command.args(context.filter);
    let mut tally = Nextest::default();
    let status = command::stream(&mut command, |line| {
        if tally.line(line) {
            println!("{line}");
        }
    })?;
    let mut tally = tally.into_tally();
    if tally.ignored > 0 && context.filter.is_empty() {
        let listed = output(
            cargo()
                .args(["nextest", "list", "--color", "never", "--run-ignored", "only"])
                .args(["--message-format", "oneline"])
                .args(packages),
        )?;
        let names = listed.lines().map(str::trim).filter(|line| !line.is_empty());
        tally
            .left_out
            .extend(names.map(|name| LeftOut { name: name.to_owned(), reason: "ignored where it is written".into() }));
    }
    finish(tally, status.success(), !context.filter.is_empty())
}

pub(super) fn finish(tally: Tally, good: bool, may_be_empty: bool) -> Result<Outcome> {
    if !good && tally.failed == 0 {
        bail!("the tests did not build or did not end");
    }
    if !may_be_empty && tally.passed + tally.failed == 0 {
        bail!("no test ran");
    }
    // A test that says that it could not run has passed, as far as its runner knows.
    let passed = tally.passed.saturating_sub(tally.said_skipped);
    Ok(Outcome { passed, failed: tally.failed, faults: tally.faults, left_out: tally.left_out })
}
