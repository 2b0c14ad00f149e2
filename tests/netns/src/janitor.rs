//! Removes what a killed test leaves.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Waits for the end of its standard input, which comes when the process that started it ends in any way, then removes
/// the namespaces and directories of that process. In the usual case there is nothing left to remove.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for name in $(ip netns list | cut -d' ' -f1); do
    case "$name" in "$1"*)
        for pid in $(ip netns pids "$name"); do kill -9 "$pid"; done
        ip netns del "$name" ;;
    esac
done
rm -rf "$2"*
"#;

static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// What the names of this process's namespaces begin with.
pub(crate) fn name_prefix() -> String {
    format!("grange{}-", std::process::id())
}

/// What the names of this process's directories begin with.
pub(crate) fn directory_prefix() -> String {
    format!("grange-town-{}-", std::process::id())
}

/// A directory that goes away when dropped, or when this process is killed.
///
/// # Errors
/// If it cannot be made.
pub fn scratch() -> Result<TempDir> {
    start()?;
    tempfile::Builder::new().prefix(&directory_prefix()).tempdir().context("making a directory")
}

/// Starts the janitor of this process, once.
pub(crate) fn start() -> Result<()> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_some() {
        return Ok(());
    }
    let directories: PathBuf = std::env::temp_dir().join(directory_prefix());
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "grange-janitor", &name_prefix()]).arg(directories);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, so that the terminal's Ctrl-C and a test runner's kill do not reach it.
    command.process_group(0);
    let mut child = command.spawn().context("starting the janitor (sh)")?;
    *pipe = child.stdin.take();
    Ok(())
}
