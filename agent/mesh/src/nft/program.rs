//! Runs the program `nft`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Where `nft` may be although the agent's PATH does not name it.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// Most of a refusal that is kept, in characters.
const MAX_REFUSAL: usize = 600;

/// Why nftables did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// The program `nft` is missing.
    #[error("the program `nft` is not installed")]
    Missing,
    /// It refused, and said why.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// Whether the program `nft` is there, without which the kernel is not to forward for the mesh: nothing would keep it
/// from forwarding for others too.
#[must_use]
pub fn has_nft() -> bool {
    Program::find().is_ok()
}

/// An interface's name as nft reads it: in quotes. The kernel allows quotes and backslashes in names, nft allows
/// neither in a string; such an interface matches nothing.
#[must_use]
pub fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'*' | b'$'));
    if plain && (1..16).contains(&name.len()) { format!("\"{name}\"") } else { "\"-\"".into() }
}

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
}

impl Program {
    /// Looks for the program in PATH and the usual places.
    ///
    /// # Errors
    /// [`NftError::Missing`].
    pub(super) fn find() -> Result<Self, NftError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
        let found = places.map(|place| place.join("nft")).find(|program| program.is_file());
        found.map(|path| Self { path }).ok_or(NftError::Missing)
    }

    /// Applies commands: as a whole or not at all.
    ///
    /// # Errors
    /// What nft said.
    pub(super) async fn apply(&self, commands: String) -> Result<(), NftError> {
        let path = self.path.clone();
        let run = move || {
            let mut child = Command::new(path)
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // If it ended before it read everything, its exit status says why.
                let _ = stdin.write_all(commands.as_bytes());
            }
            child.wait_with_output()
        };
        blocking(run).await.map(drop)
    }

    /// A table's text as nft prints it.
    ///
    /// # Errors
    /// What nft said, among it that there is no such table.
    pub(super) async fn list(&self, table: &str) -> Result<Vec<u8>, NftError> {
        let path = self.path.clone();
        let words = format!("list table {table}");
        blocking(move || Command::new(path).args(words.split(' ')).stdin(Stdio::null()).output()).await
    }
}

async fn blocking(run: impl FnOnce() -> io::Result<Output> + Send + 'static) -> Result<Vec<u8>, NftError> {
    let output = tokio::task::spawn_blocking(run).await.map_err(|error| NftError::Refused(error.to_string()))?;
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => {
            Err(NftError::Refused(String::from_utf8_lossy(&output.stderr).trim().chars().take(MAX_REFUSAL).collect()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NftError::Missing),
        Err(error) => Err(NftError::Refused(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_break_out_of_its_quotes() {
        for name in ["a\"; accept #", "a\\", "*", "", "x$y", "ab\ncd", "0123456789abcdef"] {
            assert_eq!(quoted(name), "\"-\"", "{name:?}");
        }
        assert_eq!(quoted("br-lan.1"), "\"br-lan.1\"");
    }
}
