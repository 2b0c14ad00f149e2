//! The rights and tools that network namespaces need, and what to say where they are missing.

use std::{
    ffi::OsString,
    fmt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use anyhow::{Context, Result, bail};

use crate::report;

/// This machine cannot do what a test or the demo needs; the test is reported as skipped with this reason.
#[derive(Clone, Debug)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Set in the environment after the re-execution inside a user namespace.
const INSIDE: &str = "GRANGE_NETNS_INSIDE";

/// Makes sure that this process may create network namespaces.
///
/// As root: nothing to do. As an ordinary user the process replaces itself by the same program with the same arguments
/// inside a new user, mount and network namespace (with an empty `/run` of its own, where `ip netns` keeps its names),
/// and this function does not return.
///
/// # Errors
/// [`Unavailable`] if the kernel forbids that, with the reason.
pub fn ensure_privileges() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return may_make_namespaces();
    }
    if std::env::var_os(INSIDE).is_some() {
        return Err(Unavailable("still not root inside a user namespace".into()).into());
    }
    if find_tool("unshare").is_none() {
        return Err(Unavailable("`unshare` is missing (Debian package: util-linux)".into()).into());
    }
    // A trial first, because the real thing replaces this process and could not say why it failed.
    let trial = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/run"])
        .output()
        .context("running unshare")?;
    if !trial.status.success() {
        return Err(Unavailable(format!(
            "this kernel lets an ordinary user have no user namespace ({}); run it as root",
            String::from_utf8_lossy(&trial.stderr).trim()
        ))
        .into());
    }
    let program = std::env::current_exe().context("finding this program")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"")
        .arg(program)
        .args(arguments)
        .env(INSIDE, "1")
        .exec();
    Err(error).context("running unshare")
}

/// Root in a container may lack the rights all the same.
fn may_make_namespaces() -> Result<()> {
    let outcome = std::thread::spawn(|| {
        // SAFETY: this thread shares no file descriptor table or file system information that the flag would unshare,
        // and ends right after.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
    })
    .join();
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Unavailable(format!(
            "root may make no network namespace here ({error}); a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
        ))
        .into()),
        Err(_) => bail!("the thread that tried a network namespace panicked"),
    }
}

/// Where a program is, by `PATH` and the system administrator's directories.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Makes sure that the programs which build a town are installed.
///
/// # Errors
/// [`Unavailable`] with the Debian packages to install.
pub fn ensure_tools() -> Result<()> {
    let packages: Vec<&str> = [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables"), ("mount", "mount")]
        .into_iter()
        .filter(|(tool, _)| find_tool(tool).is_none())
        .map(|(_, package)| package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let mut unique = packages;
    unique.dedup();
    Err(Unavailable(format!("missing programs; as root: apt-get install {}", unique.join(" "))).into())
}

/// Makes sure that the agent can open `/dev/net/tun`.
///
/// # Errors
/// [`Unavailable`] with the reason.
pub fn ensure_tun() -> Result<()> {
    let device = Path::new("/dev/net/tun");
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Unavailable("/dev/net/tun is missing; as root: modprobe tun".into()).into())
        }
        Err(error) => Err(Unavailable(format!("/dev/net/tun cannot be opened ({error}); run it as root")).into()),
    }
}

/// Runs a network test: gets the rights, runs `body`, and turns its error into a panic.
///
/// Where this machine cannot run it, prints the line `SKIPPED name: reason`, which `cargo xtask test` looks for, and
/// returns.
///
/// # Panics
/// If `body` fails.
pub fn town_test(name: &str, body: impl FnOnce() -> Result<()>) {
    static ONCE: Once = Once::new();
    let mut outcome = Ok(());
    // Tests of one process run on several threads; only one may replace the process.
    ONCE.call_once(|| outcome = ensure_privileges());
    let outcome = outcome.and_then(|()| ensure_tools()).and_then(|()| body());
    if let Err(error) = outcome {
        if let Some(reason) = error.downcast_ref::<Unavailable>() {
            report::skipped(name, &reason.0);
        } else {
            panic!("{name}: {error:#}");
        }
    }
}
