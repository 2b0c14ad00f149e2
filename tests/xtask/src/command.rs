//! Starting other programs.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

/// Cargo, as a person would start it: without what `cargo run` sets for this program, which would make build scripts
/// that look at it (that of `ring`, for one) run again each time.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "LD_LIBRARY_PATH"].contains(&&*text)
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command with this program's terminal.
///
/// # Errors
/// If it cannot be started or does not succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    println!("   {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("starting `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and hands over each line of what it prints, on either stream.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn stream(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("   {}", shown(command));
    let name = shown(command);
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let also = writer.try_clone().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(also)
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    // The command still holds the writing ends: the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).with_context(|| format!("reading from `{name}`"))? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    child.wait().with_context(|| format!("waiting for `{name}`"))
}

/// Runs a command quietly and gives what it printed on standard output.
///
/// # Errors
/// If it cannot be started or does not succeed; with the last line that it printed on standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{name}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
        bail!("`{name}` failed: {last}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a Cargo subcommand is installed.
pub(crate) fn has_subcommand(name: &str) -> bool {
    output(cargo().args([name, "--version"])).is_ok()
}

/// Where a program is, by `PATH` and the system administrator's directories.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|place| place.is_file())
}

/// The folder that Cargo builds into.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Builds the agent and says where it is. `GRANGE_BIN` names one that is used as it is.
///
/// # Errors
/// If it does not build.
pub(crate) fn build_agent(root: &Path) -> Result<PathBuf> {
    build(cargo().args(["build", "--package", "grange"]), &target(root).join("debug/grange"))
}

/// The same for the agent as it is shipped.
///
/// # Errors
/// If it does not build.
pub(crate) fn build_release_agent(root: &Path) -> Result<PathBuf> {
    build(cargo().args(["build", "--release", "--package", "grange"]), &target(root).join("release/grange"))
}

fn build(command: &mut Command, agent: &Path) -> Result<PathBuf> {
    if let Some(agent) = env::var_os("GRANGE_BIN") {
        return Ok(agent.into());
    }
    succeed(command)?;
    if !agent.is_file() {
        bail!("`{}` left nothing at {}", shown(command), agent.display());
    }
    Ok(agent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_arrive_and_the_result_counts() {
        let mut lines = Vec::new();
        let status = stream(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]), |line| {
            lines.push(line.to_owned());
        });
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn an_error_has_the_last_words() {
        let error =
            output(Command::new("sh").args(["-c", "echo first >&2; echo 'the reason' >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().ends_with("the reason"), "{error}");
    }
}
