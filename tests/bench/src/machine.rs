//! What this machine is, and how busy it is.

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use grange_netns::Namespace;
use serde::Serialize;

/// Below this share the rest of the machine counts as quiet.
const QUIET: f64 = 0.2;

/// For how long [`busy`] looks.
const LOOK: Duration = Duration::from_millis(300);

/// The machine, for the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// Processors that run.
    pub(crate) cores: usize,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// Whether the kernel can make WireGuard interfaces.
    pub(crate) wireguard: bool,
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// If `/proc` cannot be read or no namespace can be made.
    pub(crate) fn look() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        // ARM kernels name no model.
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            processor: processor.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("reading the kernel's version")?
                .trim()
                .into(),
            wireguard: Namespace::new("try")?.ip("link add wg0 type wireguard").is_ok(),
        })
    }
}

/// The processors' time since the start, of all together, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    total: f64,
    idle: f64,
    stolen: f64,
}

impl Time {
    /// Reads it.
    ///
    /// # Errors
    /// If `/proc/stat` is not as proc(5) says.
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let ticks: Vec<f64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|word| word.parse().ok())
            .collect();
        let [_, _, _, idle, wait, _, _, stolen] = ticks[..] else {
            anyhow::bail!("/proc/stat begins otherwise than proc(5) says")
        };
        let hz = ticks_per_second();
        Ok(Self { total: ticks.iter().sum::<f64>() / hz, idle: (idle + wait) / hz, stolen: stolen / hz })
    }

    /// Seconds that processors worked between an earlier moment and this one.
    pub(crate) fn worked_since(self, earlier: Self) -> f64 {
        (self.total - earlier.total) - (self.idle - earlier.idle)
    }

    /// Seconds that the hypervisor gave to others between an earlier moment and this one.
    pub(crate) fn stolen_since(self, earlier: Self) -> f64 {
        self.stolen - earlier.stolen
    }

    /// The share (0 to 1) of all processors that worked between an earlier moment and this one.
    fn busy_since(self, earlier: Self) -> f64 {
        self.worked_since(earlier) / (self.total - earlier.total).max(f64::EPSILON)
    }
}

/// What `/proc` counts processor time in.
pub(crate) fn ticks_per_second() -> f64 {
    // SAFETY: sysconf(3) takes no pointer.
    (unsafe { libc::sysconf(libc::_SC_CLK_TCK) }) as f64
}

/// The share (0 to 1) of all processors that is in use while nothing is measured. While that is more than a little, waits
/// for up to `patience`.
///
/// # Errors
/// As [`Time::now`].
pub(crate) fn busy(patience: Duration) -> Result<f64> {
    let start = Instant::now();
    loop {
        let before = Time::now()?;
        sleep(LOOK);
        let busy = Time::now()?.busy_since(before);
        if busy < QUIET || start.elapsed() >= patience {
            return Ok(busy);
        }
    }
}

/// The version that a program states, on one line.
pub(crate) fn version(program: &mut Command) -> Option<String> {
    let output = program.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.trim().to_owned()).filter(|line| !line.is_empty())
}
