//! A process that is measured.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{lab::Host, machine::ticks_per_second};

/// Starts a program with a `/run` of its own, which no other host sees and which goes away with it.
const OWN_RUN: &str = r#"mount -t tmpfs tmpfs /run && exec "$0" "$@""#;

/// A process in a host, ended when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program in a host; its working directory is the host's.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(
        host: &Host,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        libraries: Option<&OsStr>,
    ) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = (0..)
            .map(|number| host.directory().join(format!("{name}.{number}.log")))
            .find(|path| !path.exists())
            .context("naming a log")?;
        let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = host.namespace().command("sh");
        command.args(["-c", OWN_RUN]).arg(program).args(arguments).current_dir(host.directory());
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name, log })
    }

    /// The process id: `ip netns exec` and `sh` replace themselves by the program.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A command inside the daemon's network and mount namespaces.
    pub(crate) fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id().to_string(), "--net", "--mount"]).arg(program);
        command
    }

    /// A file as the daemon sees it.
    pub(crate) fn sees(&self, path: &str) -> bool {
        Path::new(&format!("/proc/{}/root{path}", self.id())).exists()
    }

    /// Processor time that it used so far, in user space and in the kernel, in seconds (proc(5): utime and stime).
    ///
    /// # Errors
    /// If it has ended: with the end of its log.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).with_context(|| self.last_words())?;
        // The name in brackets may hold blanks; fields 14 and 15 are the 12th and 13th behind it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            bail!("{}", self.last_words());
        }
        let ticks =
            |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("reading /proc/PID/stat");
        Ok((ticks(11)? + ticks(12)?) / ticks_per_second())
    }

    /// The largest memory that it ever had in use (VmHWM), in MiB.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).with_context(|| self.last_words())?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(kib.with_context(|| self.last_words())? / 1024.0)
    }

    /// What to say of a daemon that does not do what it should.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{}, whose log ends so: {}", self.name, lines[lines.len().saturating_sub(3)..].join(" / "))
    }

    /// Asks it to end.
    pub(crate) fn stop(&self) {
        if let Some(pid) = Pid::from_raw(self.id().cast_signed()) {
            // It is still ours: nobody has waited for it.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
