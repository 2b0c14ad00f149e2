//! `cargo xtask test`: every check of the project, one after another, whatever the one before said.

mod bare;
mod deny;
mod harness;
mod layers;
mod lines;
mod lint;
mod suites;
mod vm;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// What `cargo xtask test` is asked for.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Args {
    /// Run these steps only
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// Show the steps and stop
    #[arg(long)]
    list: bool,
    /// Run only those tests whose name contains one of these (steps unit, sim, netns and vm)
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// What the steps work with.
struct Context<'a> {
    root: &'a Path,
    filter: &'a [String],
}

/// A named part of the whole.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Context<'_>) -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "format", about: "the sources are as rustfmt writes them", run: lint::format },
    Step { name: "clippy", about: "no lint warns, tests included", run: lint::clippy },
    Step { name: "rustdoc", about: "the documentation builds without a warning", run: lint::rustdoc },
    Step {
        name: "layers",
        about: "dependencies point one way; firmware is no_std without unsafe code",
        run: layers::run,
    },
    Step { name: "lines", about: "no source file is too long", run: lines::run },
    Step { name: "unit", about: "unit and property tests of every crate", run: suites::unit },
    Step { name: "doc", about: "the examples in the documentation", run: suites::doc },
    Step { name: "sim", about: "a town in virtual time", run: suites::sim },
    Step { name: "netns", about: "a town of network namespaces, with real sockets and processes", run: suites::netns },
    Step { name: "vm", about: "the kernel plane, in a virtual machine with Debian's kernel", run: vm::run },
    Step { name: "demo", about: "cargo xtask demo --script", run: suites::demo },
    Step { name: "bare", about: "firmware/wire and firmware/core build for microcontrollers", run: bare::run },
    Step { name: "licences", about: "licences and sources of all dependencies", run: deny::licences },
    Step { name: "advisories", about: "no dependency has a known vulnerability", run: deny::advisories },
];

/// Something that this machine could not check, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LeftOut {
    name: String,
    reason: String,
}

/// What a step found. A step that is no test run counts as one test.
#[derive(Debug, Default)]
struct Outcome {
    passed: usize,
    failed: usize,
    /// What failed, for the summary; a name may stand for several tests.
    faults: Vec<String>,
    left_out: Vec<LeftOut>,
}

impl Outcome {
    fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    fn left_out(name: &str, reason: impl Into<String>) -> Self {
        Self { left_out: vec![LeftOut { name: name.to_owned(), reason: reason.into() }], ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.faults.extend(other.faults);
        self.left_out.extend(other.left_out);
    }
}

/// How one step ended, for the table at the end.
struct Line {
    name: &'static str,
    result: String,
    took: Duration,
}

/// Runs the steps and prints the summary.
///
/// # Errors
/// If a step is named that does not exist.
pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step `{unknown}`; the steps are {}", names.join(", "));
    }
    if args.list {
        STEPS.iter().for_each(|step| println!("{:<11} {}", step.name, step.about));
        return Ok(ExitCode::SUCCESS);
    }
    let context = Context { root, filter: &args.filter };
    let chosen = STEPS.iter().filter(|step| args.only.is_empty() || args.only.iter().any(|name| name == step.name));
    let mut total = Outcome::default();
    let mut lines = Vec::new();
    for step in chosen {
        println!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let mut outcome = (step.run)(&context).unwrap_or_else(|error| {
            println!("   FAILED: {error:#}");
            Outcome { failed: 1, faults: vec![format!("{error:#}")], ..Outcome::default() }
        });
        outcome.faults.iter_mut().for_each(|fault| *fault = format!("{}: {fault}", step.name));
        let line = Line { name: step.name, result: verdict(&outcome), took: start.elapsed() };
        println!("== {}: {} in {}", line.name, line.result, seconds(line.took));
        lines.push(line);
        total.add(outcome);
    }
    summary(&lines, &total);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(outcome: &Outcome) -> String {
    let Outcome { passed, failed, left_out, .. } = outcome;
    match (*passed, *failed, left_out.len()) {
        (1, 0, 0) => "ok".into(),
        (0, 0, 0) => "no test".into(),
        (passed, 0, 0) => format!("ok, {passed} passed"),
        (0, 1, 0) => "FAILED".into(),
        (0, 0, 1) => "left out".into(),
        (passed, 0, skipped) => format!("{passed} passed, {skipped} left out"),
        (passed, failed, skipped) => format!("FAILED: {passed} passed, {failed} failed, {skipped} left out"),
    }
}

fn summary(lines: &[Line], total: &Outcome) {
    println!("\n== summary");
    for line in lines {
        println!("   {:<11} {:>9}   {}", line.name, seconds(line.took), line.result);
    }
    let took: Duration = lines.iter().map(|line| line.took).sum();
    println!("   {:<11} {:>9}", "all", seconds(took));
    if !total.faults.is_empty() {
        println!("\n== failed, and why");
        total.faults.iter().for_each(|fault| println!("   {fault}"));
    }
    if !total.left_out.is_empty() {
        println!("\n== left out, and why");
        total.left_out.iter().for_each(|one| println!("   {}: {}", one.name, one.reason));
    }
    // Machines read this line: alone, in this form, the last one.
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.left_out.len());
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..120 => format!("{} s", took.as_secs()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_step_is_an_error_that_names_the_steps() {
        let args = Args { only: vec!["netsn".into()], ..Args::default() };
        let error = run(Path::new("/"), &args).unwrap_err().to_string();
        assert!(error.contains("`netsn`") && error.contains("netns"), "{error}");
    }

    #[test]
    fn a_step_that_leaves_everything_out_is_not_ok() {
        assert_eq!(verdict(&Outcome::left_out("advisories", "no network")), "left out");
        assert_eq!(verdict(&Outcome { passed: 3, ..Outcome::default() }), "ok, 3 passed");
        assert!(verdict(&Outcome { passed: 3, failed: 1, ..Outcome::default() }).starts_with("FAILED"));
    }
}
