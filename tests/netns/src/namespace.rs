//! One network namespace, removed when dropped.

use std::{
    fs::File,
    io::{self, Write},
    net::Ipv6Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::{janitor, wait_until};

/// Runs a command to its end and gives what it printed on standard output.
///
/// # Errors
/// If it cannot be started, or fails: the command line and what it printed on standard error.
pub fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let line = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {line}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).with_context(|| format!("writing to {line}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {line}"))?;
    if !output.status.success() {
        bail!(
            "{line} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A network namespace known to `ip netns`. Its loopback is up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace. `label` makes its unique name readable.
    ///
    /// # Errors
    /// If `ip netns add` fails.
    pub fn new(label: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        janitor::start()?;
        let name = format!("{}{}-{label}", janitor::name_prefix(), COUNTER.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]), None)?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside, with a `/sys` that shows the namespace's interfaces. The process has the same id as
    /// the command itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command line (split at blanks) inside and gives its output.
    ///
    /// # Errors
    /// As [`run`].
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        run(self.command(words.next().context("an empty command line")?).args(words), None)
    }

    /// Runs `ip` (arguments split at blanks) on this namespace and gives its output.
    ///
    /// # Errors
    /// As [`run`].
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()), None)
    }

    /// Loads nftables rules.
    ///
    /// # Errors
    /// As [`run`].
    pub fn nft(&self, rules: &str) -> Result<()> {
        run(self.command("nft").args(["-f", "-"]), Some(rules)).map(drop).with_context(|| format!("loading\n{rules}"))
    }

    /// Writes a value under `/proc/sys/`, named with dots or slashes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.inside(|| std::fs::write(&path, value)).with_context(|| format!("writing {value} to {path}"))
    }

    /// Runs `work` on a thread of its own that is inside the namespace. Sockets that it opens stay there, and the caller
    /// may go on using them.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or the error of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                rustix::thread::move_into_link_name_space(
                    file.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
        })
    }

    /// The link-local IPv6 address of an interface.
    ///
    /// # Errors
    /// If it has none or duplicate address detection still runs.
    pub fn link_local(&self, interface: &str) -> Result<Ipv6Addr> {
        let text = self.ip(&format!("-6 -o addr show dev {interface} scope link -tentative"))?;
        text.split_whitespace()
            .skip_while(|word| *word != "inet6")
            .nth(1)
            .and_then(|word| word.split('/').next()?.parse().ok())
            .with_context(|| format!("{interface} has no link-local address yet"))
    }

    /// The processes that run inside.
    ///
    /// # Errors
    /// If `ip netns pids` fails.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let text = run(Command::new("ip").args(["netns", "pids", &self.name]), None)?;
        Ok(text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for process in self.processes().unwrap_or_default() {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        let _ = wait_until("the processes of a namespace to end", Duration::from_secs(2), || {
            Ok(self.processes()?.is_empty().then_some(()))
        });
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]), None);
    }
}
