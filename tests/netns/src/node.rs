//! A router of the town: a namespace and the agent in it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::{
    Binary, Keys, LinkStatus, Namespace, Refusal, RouteStatus, SealStatus, Status, TraceStatus, ensure_tun, wait_until,
};

/// How long the agent may take to clean up after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A router: its namespace, its files and, while started, its agent.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Arc<Namespace>,
    directory: PathBuf,
    binary: Binary,
    child: Mutex<Option<Child>>,
}

impl Node {
    pub(crate) fn new(
        name: &str,
        namespace: &Arc<Namespace>,
        directory: PathBuf,
        binary: Binary,
        config: &str,
    ) -> Result<Self> {
        fs::create_dir_all(directory.join("run")).context("making a node's directory")?;
        let node = Self {
            name: name.to_owned(),
            namespace: Arc::clone(namespace),
            directory,
            binary,
            child: Mutex::new(None),
        };
        node.write_config(config)?;
        Ok(node)
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace it runs in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The directory of its keys and membership.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The directory of its control socket.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("grange.toml")
    }

    /// What the agent printed, over all its starts.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("grange.log")
    }

    /// Replaces the configuration; the agent reads it at its next start.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        fs::write(self.config_file(), text).context("writing a node's configuration")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the options that name this node's files.
    pub fn with_files(&self, command: &mut Command) {
        command.arg("--config").arg(self.config_file());
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--runtime-dir").arg(self.runtime_dir());
        // What the caller's environment says about another agent is not meant for this one.
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"GRANGE_") {
                command.env_remove(variable);
            }
        }
    }

    /// `grange --config ... ARGUMENTS` inside the node's namespace, ready to run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(self.binary.path());
        self.with_files(&mut command);
        command.args(arguments);
        command
    }

    /// Runs `grange ARGUMENTS` for this node to its end, whatever its outcome.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).stdin(Stdio::null()).output().with_context(|| format!("running grange {arguments:?}"))
    }

    /// Runs `grange ARGUMENTS` for this node and gives what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn grange(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "grange {} on {} failed ({}):\n{}{text}",
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// Runs `grange --json ARGUMENTS` and reads its answer.
    ///
    /// # Errors
    /// If it fails or answers something else.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        // The control socket is a file: no need to enter the namespace.
        let mut command = Command::new(self.binary.path());
        self.with_files(&mut command);
        let text = crate::run(command.arg("--json").args(arguments), None)?;
        serde_json::from_str(&text).with_context(|| format!("what grange --json {arguments:?} said: {text}"))
    }

    /// Asks the agent for its status.
    ///
    /// # Errors
    /// If it does not run or does not answer.
    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    /// The node's id and public keys; the agent need not run.
    ///
    /// # Errors
    /// If the node has no key yet.
    pub fn keys(&self) -> Result<Keys> {
        self.json(&["key"])
    }

    /// Asks the agent for its links.
    ///
    /// # Errors
    /// If it does not run or does not answer.
    pub fn links(&self) -> Result<Vec<LinkStatus>> {
        self.json(&["links"])
    }

    /// Asks the agent for its routes.
    ///
    /// # Errors
    /// If it does not run or does not answer.
    pub fn routes(&self) -> Result<Vec<RouteStatus>> {
        self.json(&["routes"])
    }

    /// Asks the agent for its seals.
    ///
    /// # Errors
    /// If it does not run or does not answer.
    pub fn seals(&self) -> Result<Vec<SealStatus>> {
        self.json(&["seals"])
    }

    /// Traces the way to an address from this node.
    ///
    /// # Errors
    /// If it fails or answers something else.
    pub fn trace(&self, address: &str) -> Result<TraceStatus> {
        let text = self.grange(&["--json", "trace", address])?;
        serde_json::from_str(&text).with_context(|| format!("what grange trace said: {text}"))
    }

    /// The node's address.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn address(&self) -> Result<Ipv6Addr> {
        let keys = self.keys()?;
        keys.address.parse().with_context(|| format!("the address of {}: {:?}", self.name, keys.address))
    }

    /// The node's IPv4 address.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn address_v4(&self) -> Result<Ipv4Addr> {
        let keys = self.keys()?;
        keys.address_v4.parse().with_context(|| format!("the address of {}: {:?}", self.name, keys.address_v4))
    }

    /// Starts the agent without waiting for anything.
    ///
    /// # Errors
    /// [`Unavailable`](crate::Unavailable) without `/dev/net/tun`; or if it runs already or cannot be started.
    pub fn spawn(&self) -> Result<()> {
        self.spawn_by(|command| command.spawn().with_context(|| format!("starting {command:?}")))
    }

    /// Starts the agent under a [`Refusal`] and waits until it answers.
    ///
    /// # Errors
    /// As [`Self::start`]; [`Unavailable`](crate::Unavailable) where the kernel supervises no system calls.
    pub fn start_refusable(&self) -> Result<Refusal> {
        let refusal = Refusal::default();
        self.spawn_by(|command| refusal.spawn(command))?;
        self.wait_ready(Duration::from_secs(5))?;
        Ok(refusal)
    }

    fn spawn_by(&self, spawn: impl FnOnce(&mut Command) -> Result<Child>) -> Result<()> {
        ensure_tun()?;
        let mut child = self.lock();
        if child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            bail!("the agent of {} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(self.log_file()).context("opening a node's log")?;
        let mut command = self.command(&["run"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *child = Some(spawn(&mut command)?);
        Ok(())
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Errors
    /// As [`Self::spawn`]; if it ends or does not answer within 5 s: the end of its log.
    pub fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait_ready(Duration::from_secs(5))
    }

    /// Waits until the agent answers.
    ///
    /// # Errors
    /// If it ends or does not answer within `limit`: the end of its log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let mut ended = None;
        wait_until(&format!("the agent of {} to answer", self.name), limit, || {
            ended = self.ended();
            if ended.is_some() {
                return Ok(Some(()));
            }
            self.status().map(|_| Some(()))
        })
        .with_context(|| format!("the log of {} ends so:\n{}", self.name, self.log_tail(30)))?;
        if let Some(status) = ended {
            bail!("the agent of {} ended ({status}); its log:\n{}", self.name, self.log_tail(30));
        }
        Ok(())
    }

    /// How the agent ended, if it was started and ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lock().as_mut()?.try_wait().ok()?
    }

    /// Whether the agent runs.
    pub fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The agent's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.with_context(|| format!("the agent of {} does not run", self.name))?, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// If the agent does not end within 5 s (then it is killed), or not with status 0.
    pub fn stop(&self) -> Result<()> {
        if !self.is_running() {
            bail!("the agent of {} had ended before it was stopped:\n{}", self.name, self.log_tail(30));
        }
        self.signal(Signal::TERM)?;
        let outcome =
            wait_until(&format!("the agent of {} to end", self.name), STOP_LIMIT, || Ok(self.ended())).map(|it| it.0);
        if outcome.is_err() {
            self.kill()?;
        }
        *self.lock() = None;
        let status = outcome?;
        if !status.success() {
            bail!("the agent of {} ended with {status} on SIGTERM; its log:\n{}", self.name, self.log_tail(30));
        }
        Ok(())
    }

    /// Kills the agent (SIGKILL).
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.lock();
        let mut taken = child.take().with_context(|| format!("the agent of {} does not run", self.name))?;
        taken.kill().with_context(|| format!("killing the agent of {}", self.name))?;
        taken.wait().context("waiting for a killed agent")?;
        Ok(())
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_file(), lines)
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Drop for Node {
    fn drop(&mut self) {
        // A failed test wants the logs, and the directory is about to go away.
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "seen only when a test fails")]
            {
                eprintln!("--- the log of {} ends so:\n{}", self.name, self.log_tail(40));
            }
        }
        if self.is_running() {
            let _ = self.kill();
        }
    }
}
