//! A virtual machine with Debian's kernel: for what this machine's own kernel may lack, such as WireGuard.
//!
//! The guest sees the host's root file system read only, with a layer in memory over it that takes what is written and
//! is gone with the machine. So every program, library and path that the host has is there, what has just been built
//! too, and only the kernel is another. `tests/vm` has what builds and starts it.

use std::{
    env,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use grange_netns::Unavailable;

use crate::packages;

const BUILD: &str = "tests/vm/build.sh";
const INIT: &str = include_str!("../../vm/init");
const INSIDE: &str = include_str!("../../vm/inside");

/// What the guest has.
const PROCESSORS: &str = "2";
const MEMORY: &str = "1536M";

/// A machine with hardware acceleration has started long before; one that hangs there is stopped.
const TRIAL: Duration = Duration::from_secs(10);

/// An emulated one starts in 6 s, on a busy host in several times that.
const BOOT: Duration = Duration::from_secs(120);

/// Lines of the guest's kernel that are shown where the machine fails: those of a crash.
const KERNEL_LINES: usize = 60;

/// Of the host's environment the guest gets variables with these names and beginnings.
const NAMES: [&str; 6] = ["CARGO_TARGET_DIR", "HOME", "LANG", "PATH", "TERM", "USER"];
const BEGINNINGS: [&str; 3] = ["GRANGE_", "RUST_", "VM_"];

/// Runs a command in the virtual machine, in the project's folder, with everything that is installed and built here.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Stop the machine after so many seconds [default: 3600, none at a terminal]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// The command; a shell where it is left out
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `cargo xtask vm`. Ends with the command's exit status.
///
/// # Errors
/// [`Unavailable`] where this machine cannot have one; if the guest fails by itself.
pub(crate) fn run(root: &Path, args: &Args) -> Result<ExitCode> {
    let machine = Machine::prepare(root)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let shell = ["bash".to_owned(), "-l".to_owned()];
    let words = if args.command.is_empty() { &shell[..] } else { &args.command };
    let limit = match args.limit {
        Some(seconds) => Duration::from_secs(seconds),
        None if terminal => Duration::MAX,
        None => Duration::from_secs(3600),
    };
    let end = if terminal {
        machine.run_at_terminal(words, limit)?
    } else {
        machine.run(words, limit, |bytes| {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("passing on the guest's output")
        })?
    };
    eprintln!("   {end}");
    Ok(ExitCode::from(u8::try_from(end.status).unwrap_or(1)))
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acceleration {
    /// The host's processor.
    Kvm,
    /// qemu, by translation.
    Emulation,
}

impl Acceleration {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulation => "emulation",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Without vector instructions, the slowest to translate, ChaCha20 in the kernel is four times as fast.
            Self::Emulation => ["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
        }
    }
}

/// How a guest that did what it should ended.
#[derive(Debug)]
pub(crate) struct End {
    /// The command's exit status.
    pub(crate) status: i32,
    release: String,
    acceleration: Acceleration,
    boot: String,
    took: Duration,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, release, acceleration, boot, took } = self;
        let (how, took) = (acceleration.name(), took.as_secs_f64());
        write!(f, "virtual machine, Linux {release} by {how}: up in {boot} s, all in {took:.1} s, exit status {status}")
    }
}

/// A kernel and an initramfs under `target/vm`, ready to run any number of times.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: PathBuf,
    release: String,
    acceleration: Acceleration,
}

impl Machine {
    /// Builds the machine, if that has not been done yet, and tries which acceleration works.
    ///
    /// # Errors
    /// [`Unavailable`] where this machine cannot have one, with the reason.
    pub(crate) fn prepare(root: &Path) -> Result<Self> {
        if env::consts::ARCH != "x86_64" {
            return Err(Unavailable(format!("the virtual machine is for x86_64, not for {}", env::consts::ARCH)).into());
        }
        packages::ensure(packages::NETWORK)
            .and_then(|()| packages::ensure(packages::MACHINE))
            .map_err(|error| Unavailable(format!("{error:#}")))?;
        let folder =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir)).join("vm");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let lock = OpenOptions::new().create(true).append(true).open(folder.join("lock"))?;
        lock.lock().context("waiting for another build of the virtual machine")?;
        forget_dead(&folder);
        build(root, &folder)?;
        let release = release(&folder)?;
        let mut machine = Self { folder, release, acceleration: Acceleration::Kvm };
        machine.acceleration = machine.choose()?;
        Ok(machine)
    }

    /// What works here, remembered until the host boots again.
    fn choose(&self) -> Result<Acceleration> {
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Acceleration::Emulation);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let note = self.folder.join("acceleration");
        let known = fs::read_to_string(&note).unwrap_or_default();
        for one in [Acceleration::Kvm, Acceleration::Emulation] {
            if known == format!("{} {boot}", one.name()) {
                return Ok(one);
            }
        }
        // A device that is there may still be of no use to this kernel, in a virtual machine for one.
        let found = match self.run(&["true".to_owned()], TRIAL, |_| Ok(())) {
            Ok(end) if end.status == 0 => Acceleration::Kvm,
            _ => Acceleration::Emulation,
        };
        fs::write(&note, format!("{} {boot}", found.name())).context("noting which acceleration works")?;
        Ok(found)
    }

    /// Runs a command, without input, and hands over what it prints on either stream.
    ///
    /// # Errors
    /// If the guest does not start, fails, or has not ended within `limit`, with the last lines of its kernel; the error of
    /// `sink`. The machine is stopped then.
    pub(crate) fn run(
        &self,
        words: &[String],
        limit: Duration,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<End> {
        let guest = Guest::new(&self.folder, self.acceleration, words, false)?;
        let mut command = self.command(&guest);
        command.args([
            "-chardev",
            "file,id=output,path=/dev/stdout",
            "-device",
            "virtserialport,chardev=output,name=output",
        ]);
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let (sender, receiver) = mpsc::sync_channel(16);
        let mut pipe = running.child.stdout.take().context("the machine has no output")?;
        let reader = thread::spawn(move || forward(&mut pipe, &sender));
        let outcome = guest.watch(running.started, limit, |patience| match receiver.recv_timeout(patience) {
            Ok(bytes) => sink(&bytes).map(|()| false),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Ok(true),
        });
        drop(receiver);
        let took = running.stop(outcome.is_ok());
        let _ = reader.join();
        outcome.and_then(|()| self.end(&guest, took))
    }

    /// Runs a command with this program's terminal.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn run_at_terminal(&self, words: &[String], limit: Duration) -> Result<End> {
        let guest = Guest::new(&self.folder, self.acceleration, words, true)?;
        let mut command = self.command(&guest);
        command.args(["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal"]);
        let mut running = Running::start(&mut command)?;
        let outcome = guest.watch(running.started, limit, |patience| {
            thread::sleep(patience);
            Ok(running.child.try_wait().context("waiting for the machine")?.is_some())
        });
        let took = running.stop(outcome.is_ok());
        outcome.and_then(|()| self.end(&guest, took))
    }

    fn end(&self, guest: &Guest, took: Duration) -> Result<End> {
        let Some(status) = guest.said("status").and_then(|text| text.parse().ok()) else {
            bail!("the virtual machine ended without a result; its kernel's last lines:\n{}", guest.console());
        };
        let boot = guest.said("ready").unwrap_or_else(|| "?".into());
        Ok(End { status, release: self.release.clone(), acceleration: self.acceleration, boot, took })
    }

    /// The machine without the device for its output.
    fn command(&self, guest: &Guest) -> Command {
        let machine = self.folder.join("machine");
        // qemu ends with the thread that started it, whatever becomes of this program.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35,i8042=off,hpet=off"]);
        command.args(self.acceleration.arguments()).args(["-smp", PROCESSORS, "-m", MEMORY]);
        command.args(["-nodefaults", "-no-reboot", "-nic", "none", "-display", "none", "-monitor", "none"]);
        command.arg("-kernel").arg(machine.join("kernel")).arg("-initrd").arg(machine.join("initramfs"));
        command
            .args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on mitigations=off nokaslr"]);
        command.arg("-serial").arg(option("file:", &guest.folder.join("console"), ""));
        for (tag, folder, access) in [
            ("root", Path::new("/"), ",readonly=on,multidevs=remap"),
            ("modules", &machine.join("modules"), ",readonly=on"),
            ("run", &guest.folder, ""),
        ] {
            let head = format!("local,id={tag},security_model=none,path=");
            command.arg("-fsdev").arg(option(&head, folder, access));
            command.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        command
    }
}

/// An option of qemu with a path in it, where a comma is written twice.
fn option(head: &str, path: &Path, tail: &str) -> String {
    format!("{head}{}{tail}", path.to_string_lossy().replace(',', ",,"))
}

/// Makes `FOLDER/machine`, unless it stands there and was made by the same recipe.
fn build(root: &Path, folder: &Path) -> Result<()> {
    let (script, machine) = (root.join(BUILD), folder.join("machine"));
    let recipe = fs::read_to_string(&script).with_context(|| format!("reading {BUILD}"))? + INIT;
    if fs::read_to_string(machine.join("recipe")).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    let start = Instant::now();
    eprintln!("   building the virtual machine");
    let done = Command::new("bash").arg(script).arg(&machine).stdin(Stdio::null()).output().context("starting bash")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        if done.status.code() == Some(77) {
            return Err(Unavailable(said).into());
        }
        bail!("{BUILD} failed ({}): {said}", done.status);
    }
    fs::write(machine.join("recipe"), recipe).context("noting how the virtual machine was made")?;
    eprintln!("   built in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The release of the kernel under `FOLDER/machine`.
fn release(folder: &Path) -> Result<String> {
    let modules = folder.join("machine/modules");
    let mut entries = fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))?;
    let entry = entries.next().context("the virtual machine's kernel has no modules")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// Removes what runs left whose program was killed.
fn forget_dead(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder that one run shares with its guest: the command goes in, results come out. Removed when dropped.
#[derive(Debug)]
struct Guest {
    folder: PathBuf,
}

impl Guest {
    fn new(machines: &Path, acceleration: Acceleration, words: &[String], terminal: bool) -> Result<Self> {
        let folder = (0..1000)
            .map(|number| machines.join(format!("run-{}-{number}", std::process::id())))
            .find(|folder| fs::create_dir(folder).is_ok())
            .with_context(|| format!("making a folder under {}", machines.display()))?;
        let guest = Self { folder };
        let here = env::current_dir().context("finding this folder")?;
        fs::write(guest.folder.join("inside"), INSIDE)?;
        fs::write(guest.folder.join("command"), script(&here, acceleration, words))?;
        if terminal {
            let (columns, rows) = crossterm::terminal::size().unwrap_or((80, 24));
            fs::write(guest.folder.join("terminal"), format!("rows {rows} cols {columns}\n"))?;
        }
        Ok(guest)
    }

    /// Waits for the guest's end: calls `wait` with how long it may take, until it says that the end has come.
    fn watch(&self, start: Instant, limit: Duration, mut wait: impl FnMut(Duration) -> Result<bool>) -> Result<()> {
        let mut ready = false;
        while !wait(Duration::from_millis(50))? {
            ready = ready || self.folder.join("ready").exists();
            if !ready && start.elapsed() >= BOOT.min(limit) {
                bail!("the virtual machine has not started in {} s:\n{}", start.elapsed().as_secs(), self.console());
            }
            if start.elapsed() >= limit {
                bail!("the virtual machine was stopped after {} s:\n{}", limit.as_secs(), self.console());
            }
        }
        Ok(())
    }

    /// What the guest left in a file.
    fn said(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(name)).ok()?;
        (text.ends_with('\n')).then(|| text.trim().to_owned())
    }

    /// The last lines of its kernel.
    fn console(&self) -> String {
        let text = fs::read(self.folder.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(KERNEL_LINES)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// qemu, stopped when dropped.
struct Running {
    child: Child,
    started: Instant,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let child = command.spawn().context("starting setpriv and qemu")?;
        Ok(Self { child, started })
    }

    /// Waits for its end if it has come to it, else stops it. Gives how long it ran.
    fn stop(&mut self, ended: bool) -> Duration {
        if !ended {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        self.started.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(false);
    }
}

/// The script that the guest runs.
fn script(folder: &Path, acceleration: Acceleration, words: &[String]) -> String {
    let mut text = format!("cd {} || exit\n", quoted(&folder.to_string_lossy()));
    for (name, value) in env::vars() {
        if NAMES.contains(&name.as_str()) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            let _ = writeln!(text, "export {name}={}", quoted(&value));
        }
    }
    // Tests with limits of time look at the second.
    let _ = write!(text, "export TMPDIR=/run/tmp VM_ACCELERATION={}\nexec", acceleration.name());
    words.iter().for_each(|word| text.extend([" ", &quoted(word)]));
    text.push('\n');
    text
}

/// A word as a shell takes it for one.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Passes on a pipe until it ends or nobody takes it.
fn forward(pipe: &mut impl Read, sender: &SyncSender<Vec<u8>>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut bytes) {
        if sender.send(bytes[..length].to_vec()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME", ""].map(str::to_owned);
        let text = script(Path::new("/"), Acceleration::Emulation, &words);
        let printed = Command::new("sh").args(["-c", &text]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), "a b|it's|$HOME||");
    }
}
