//! Reading what test runners print.

use super::LeftOut;

/// Before `name: reason` in what a test prints that this machine cannot run.
const SKIPPED: &str = "SKIPPED ";

/// Counts over one run of a test runner.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Names of tests that failed, as the runner prints them.
    pub(super) faults: Vec<String>,
    /// Tests that were not run because their source says so, counted but perhaps not named.
    pub(super) ignored: usize,
    /// Of the passed ones, those that said that they could not run.
    pub(super) said_skipped: usize,
    pub(super) left_out: Vec<LeftOut>,
}

impl Tally {
    /// Runners name what failed as it happens and again at the end.
    fn fault(&mut self, test: &str) {
        let test = test.trim();
        if !self.faults.iter().any(|other| other == test) {
            self.faults.push(test.to_owned());
        }
    }

    fn skipped(&mut self, line: &str) {
        let Some((name, reason)) = line.trim().strip_prefix(SKIPPED).and_then(|rest| rest.split_once(": ")) else {
            return;
        };
        let one = LeftOut { name: name.to_owned(), reason: reason.to_owned() };
        // Both runners show some output twice.
        if !self.left_out.contains(&one) {
            self.said_skipped += 1;
            self.left_out.push(one);
        }
    }
}

/// Reads `cargo nextest run --color never`.
#[derive(Debug, Default)]
pub(super) struct Nextest {
    tally: Tally,
    /// Inside the output of a test that passed.
    quiet: bool,
}

impl Nextest {
    /// Takes a line; says whether a person should see it.
    pub(super) fn line(&mut self, line: &str) -> bool {
        self.tally.skipped(line);
        if let Some(rest) = line.trim_start().strip_prefix("Summary [") {
            self.quiet = false;
            self.summary(rest);
            return true;
        }
        if let Some(status) = status(line) {
            self.quiet = matches!(status, "PASS" | "LEAK" | "SLOW");
            if !self.quiet
                && let Some((_, test)) = line.split_once(") ")
            {
                self.tally.fault(test);
            }
            return true;
        }
        if line.starts_with("────") || line.starts_with("error:") {
            self.quiet = false;
        }
        !self.quiet
    }

    /// Such as `  0.120s] 12/23 tests run: 11 passed (1 slow), 1 failed, 1 timed out, 2 skipped`.
    fn summary(&mut self, rest: &str) {
        let Some((_, counts)) = rest.split_once(" run: ") else { return };
        let mut depth = 0;
        let plain: String = counts
            .chars()
            .filter(|&letter| {
                depth += i32::from(letter == '(');
                let keep = depth == 0;
                depth -= i32::from(letter == ')');
                keep
            })
            .collect();
        for part in plain.split(',') {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match what.trim() {
                "passed" => self.tally.passed += number,
                "skipped" => self.tally.ignored += number,
                _ => self.tally.failed += number,
            }
        }
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }
}

/// The word of a line such as `        PASS [   0.008s] ( 1/23) crate test`.
fn status(line: &str) -> Option<&str> {
    let (word, rest) = line.strip_prefix("    ")?.split_once(" [")?;
    let word = word.trim_start();
    let upper =
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || b" 0123456789-".contains(&byte));
    (upper && rest.trim_start_matches([' ', '>']).starts_with(|letter: char| letter.is_ascii_digit())).then_some(word)
}

/// Reads `cargo test`.
#[derive(Debug, Default)]
pub(super) struct Libtest {
    tally: Tally,
    /// Inside the output of tests that passed.
    quiet: bool,
}

impl Libtest {
    /// Takes a line; says whether a person should see it.
    pub(super) fn line(&mut self, line: &str) -> bool {
        self.tally.skipped(line);
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.result(rest);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.tally.fault(name);
        } else if let Some((name, reason)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
        {
            let reason = reason.trim_start_matches(", ").trim();
            let reason = if reason.is_empty() { "ignored where it is written" } else { reason };
            self.tally.left_out.push(LeftOut { name: name.to_owned(), reason: reason.to_owned() });
        }
        self.quiet = match line {
            "successes:" => true,
            "failures:" => false,
            line => self.quiet && !line.starts_with("test result:"),
        };
        !self.quiet
    }

    /// Such as `ok. 7 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.11s`.
    fn result(&mut self, rest: &str) {
        for part in rest.split([';', '.']) {
            match part.trim().split_once(' ').map(|(number, what)| (number.parse::<usize>(), what)) {
                Some((Ok(number), "passed")) => self.tally.passed += number,
                Some((Ok(number), "failed")) => self.tally.failed += number,
                Some((Ok(number), "ignored")) => self.tally.ignored += number,
                _ => {}
            }
        }
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXTEST: &str = "\
   Compiling grange-hw v0.1.0
────────────
    Starting 4 tests across 2 binaries (2 tests skipped)
        PASS [   0.008s] (1/4) grange-hw root::tests::a
  stdout ───

    running 1 test
    SKIPPED a_town: /dev/net/tun is missing; as root: modprobe tun
    test root::tests::a ... ok

        SLOW [> 60.000s] (───) grange-netns b
        FAIL [   0.115s] (2/4) grange-hw c
  stderr ───

    thread 'c' panicked at hw/src/interface.rs:360:13:
     SIGSEGV [   0.100s] (3/4) grange-hw d
     TIMEOUT [ 300.000s] (4/4) grange-netns b
────────────
     Summary [   0.120s] 4 tests run: 1 passed (1 slow, 1 leaky), 2 failed, 1 timed out, 2 skipped
";

    #[test]
    fn nextest_is_counted_and_the_output_of_failures_shown() {
        let mut reader = Nextest::default();
        let shown: Vec<&str> = NEXTEST.lines().filter(|line| reader.line(line)).collect();
        assert!(!shown.iter().any(|line| line.contains("running 1 test") || line.contains("SKIPPED")), "{shown:#?}");
        assert!(shown.iter().any(|line| line.contains("panicked at")));
        assert!(shown.iter().any(|line| line.contains("Compiling")));
        let tally = reader.into_tally();
        assert_eq!((tally.passed, tally.failed, tally.ignored, tally.said_skipped), (1, 3, 2, 1));
        assert_eq!(tally.faults, ["grange-hw c", "grange-hw d", "grange-netns b"]);
        assert_eq!(tally.left_out[0].name, "a_town");
        assert_eq!(tally.left_out[0].reason, "/dev/net/tun is missing; as root: modprobe tun");
    }

    #[test]
    fn cargo_test_is_counted_over_all_binaries() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored, takes an hour\n\
                    \nsuccesses:\n\n---- a stdout ----\nSKIPPED a: no rights\n\
                    \nfailures:\n\n---- b stdout ----\npanicked\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.11s\n\
                    test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let mut reader = Libtest::default();
        let shown: Vec<&str> = text.lines().filter(|line| reader.line(line)).collect();
        assert!(shown.contains(&"panicked") && !shown.iter().any(|line| line.contains("SKIPPED")), "{shown:#?}");
        let tally = reader.into_tally();
        assert_eq!((tally.passed, tally.failed, tally.ignored, tally.said_skipped), (5, 1, 1, 1));
        assert_eq!(tally.faults, ["b"]);
        let names: Vec<(&str, &str)> =
            tally.left_out.iter().map(|one| (one.name.as_str(), one.reason.as_str())).collect();
        assert_eq!(names, [("c", "takes an hour"), ("a", "no rights")]);
    }
}
