//! Tests of `tests/netns` that need more of a kernel than this machine may have, in the virtual machine.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use grange_netns::Unavailable;
use serde_json::Value;

use super::{Context, Outcome, harness::Libtest, suites::finish};
use crate::{
    command::{build_agent, cargo, shown},
    vm::{Machine, quoted},
};

/// Test programs and which of their tests run, as the harness takes it: all where none is named.
const PROGRAMS: [(&str, &[&str]); 4] = [
    // The machine itself: cables, and a town on the plane that every kernel has.
    ("wires", &["a_silent_cut_leaves_the_carrier_and_tells_no_sender"]),
    ("outsiders", &["a_node_without_a_town_forms_no_link_until_it_joins"]),
    ("bare_wireguard", &[]),
    // But for the one that is about kernels which lack it.
    ("kernel_plane", &["--skip=without_wireguard"]),
];

/// The whole run, also by emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What is shown of the output where the machine fails.
const TAIL: usize = 40;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome> {
    let machine = match Machine::prepare(context.root) {
        Ok(machine) => machine,
        Err(error) if error.is::<Unavailable>() => {
            return Ok(Outcome::left_out("vm (tests of the kernel plane)", format!("{error:#}")));
        }
        Err(error) => return Err(error),
    };
    let agent = build_agent(context.root)?;
    let programs = build()?;
    let words = ["sh".to_owned(), "-c".to_owned(), script(&agent, &programs, context.filter)?];
    let (mut tally, mut lines, mut last) = (Libtest::default(), Lines::default(), VecDeque::new());
    let end = machine.run(&words, LIMIT, |bytes| {
        lines.push(bytes, |line| {
            // Figures are worth a look where tests passed too.
            if tally.line(line) || line.starts_with("MEASURED ") {
                println!("{line}");
            }
            last.push_back(line.to_owned());
            last.drain(..last.len().saturating_sub(TAIL));
        });
        Ok(())
    });
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            println!("   the last lines of the output:");
            last.iter().for_each(|line| println!("   | {line}"));
            return Err(error);
        }
    };
    println!("   {end}");
    let mut outcome = finish(tally.into_tally(), end.status == 0, !context.filter.is_empty())?;
    // The machine is made for these tests: one that it cannot run is a fault.
    for left_out in outcome.left_out.drain(..) {
        outcome.failed += 1;
        outcome.faults.push(format!("{} did not run in the virtual machine: {}", left_out.name, left_out.reason));
    }
    Ok(outcome)
}

/// Builds the test programs and says where they are.
fn build() -> Result<BTreeMap<String, String>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--package", "grange-netns", "--message-format", "json-render-diagnostics"]);
    command.args(PROGRAMS.iter().flat_map(|(name, _)| ["--test", name]));
    println!("   {}", shown(&command));
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo")?;
    if !done.status.success() {
        bail!("the tests did not build");
    }
    Ok(String::from_utf8_lossy(&done.stdout).lines().filter_map(executable).collect())
}

/// The name and the file in one of Cargo's messages, if it is about a program.
fn executable(line: &str) -> Option<(String, String)> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.to_owned()))
}

/// Runs one program after another, whatever the one before said.
fn script(agent: &Path, programs: &BTreeMap<String, String>, filter: &[String]) -> Result<String> {
    let agent = agent.to_str().context("the path of the agent is not UTF-8")?;
    let mut text = format!("export GRANGE_BIN={}; cd tests/netns || exit; status=0; ", quoted(agent));
    for (name, own) in PROGRAMS {
        let file = programs.get(name).with_context(|| format!("Cargo built no test program {name}"))?;
        let filter: Vec<&str> =
            if filter.is_empty() { own.to_vec() } else { filter.iter().map(String::as_str).collect() };
        let filter: Vec<String> = filter.into_iter().map(quoted).collect();
        text += &format!("echo '   {name}'; ");
        text += &format!("{} --test-threads 1 --show-output {} || status=1; ", quoted(file), filter.join(" "));
    }
    Ok(text + "exit $status")
}

/// Makes lines out of pieces of text.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                line(String::from_utf8_lossy(&self.rest).trim_end_matches(['\n', '\r']));
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["one\ntw", "o\r\n", "\nthree"] {
            lines.push(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["one", "two", ""]);
    }
}
