//! What the tests print, and which seeds they run.
#![expect(clippy::print_stdout, reason = "the numbers are what these tests are for")]

use std::{fmt, time::Duration};

/// Prints one result, as `measured: NAME = VALUE`.
pub fn measured(name: &str, value: impl fmt::Display) {
    println!("measured: {name} = {value}");
}

/// Prints one line of a trace.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    println!("{line}");
}

/// Runs `test` with `count` seeds (times `SIM_ROUNDS`, if set), or with the one that `SIM_SEED` names. The seed of a
/// failed run is printed. Returns what the runs returned.
///
/// # Panics
/// If one of the variables is no number, or the test fails.
pub fn each_seed<T>(count: u64, mut test: impl FnMut(u64) -> T) -> Vec<T> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: no number")))
    };
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count * number("SIM_ROUNDS").unwrap_or(1),
    };
    seeds
        .map(|seed| {
            let told = Told(seed);
            let value = test(seed);
            std::mem::forget(told);
            value
        })
        .collect()
}

/// Whether runs that take minutes were asked for (`SIM_LARGE`); if not, says that the test called `name` is left out.
#[must_use]
pub fn large_runs(name: &str) -> bool {
    let asked = std::env::var_os("SIM_LARGE").is_some();
    if !asked {
        println!("SKIPPED {name}: takes minutes; SIM_LARGE=1 runs it");
    }
    asked
}

/// Whether one seed was asked for: then statistics over many mean nothing.
#[must_use]
pub fn one_seed() -> bool {
    std::env::var_os("SIM_SEED").is_some()
}

/// Names the seed when a test panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        println!("this run again: SIM_SEED={}", self.0);
    }
}

/// Times in order, for percentiles.
#[derive(Clone, Debug, Default)]
pub struct Distribution(Vec<Duration>);

impl Distribution {
    /// From any order.
    #[must_use]
    pub fn new(mut values: Vec<Duration>) -> Self {
        values.sort_unstable();
        Self(values)
    }

    /// The value that this share of the others (0 to 1) does not exceed; zero without values.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let index = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(index.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share| self.percentile(share).as_millis();
        write!(
            f,
            "min {} p10 {} p50 {} p90 {} p99 {} max {} ms over {} runs",
            at(0.0),
            at(0.1),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            self.0.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let all = Distribution::new((1..=100).rev().map(Duration::from_secs).collect());
        assert_eq!(all.percentile(0.0), Duration::from_secs(1));
        assert_eq!(all.percentile(0.5), Duration::from_secs(50));
        assert_eq!(all.percentile(0.99), Duration::from_secs(99));
        assert_eq!(all.percentile(1.0), Duration::from_secs(100));
        assert_eq!(Distribution::default().percentile(0.5), Duration::ZERO);
    }
}
