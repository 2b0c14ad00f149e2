//! Feeds rulesets to the program `nft`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::gateway::GatewayError;

/// Where `nft` may be although the agent's PATH does not name it.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// Most of a refusal that is kept, in characters.
const MAX_REFUSAL: usize = 600;

/// Whether the program `nft` is there, without which the kernel is not to forward for the mesh: nothing would keep it
/// from forwarding for others too.
#[must_use]
pub fn has_nft() -> bool {
    Nft::find().is_ok()
}

/// The program.
#[derive(Clone, Debug)]
pub(crate) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Looks for the program in PATH and the usual places.
    ///
    /// # Errors
    /// [`GatewayError::NoNft`].
    pub(crate) fn find() -> Result<Self, GatewayError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
        places
            .map(|place| place.join("nft"))
            .find(|program| program.is_file())
            .map(|program| Self { program })
            .ok_or(GatewayError::NoNft)
    }

    /// Applies a ruleset: as a whole or not at all.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] with what nft said; [`GatewayError::NoNft`] if the program is gone.
    pub(crate) async fn apply(&self, ruleset: String) -> Result<(), GatewayError> {
        let program = self.program.clone();
        self.blocking(move || {
            let mut child = Command::new(program)
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // If it ended before it read everything, its exit status says why.
                let _ = stdin.write_all(ruleset.as_bytes());
            }
            child.wait_with_output()
        })
        .await
    }

    /// Whether our table is there.
    pub(crate) async fn has_table(&self) -> bool {
        let program = self.program.clone();
        let list = move || {
            Command::new(program).args(["list", "chain", "inet", "grange", "forward"]).stdin(Stdio::null()).output()
        };
        self.blocking(list).await.is_ok()
    }

    async fn blocking(
        &self,
        run: impl FnOnce() -> io::Result<std::process::Output> + Send + 'static,
    ) -> Result<(), GatewayError> {
        let output =
            tokio::task::spawn_blocking(run).await.map_err(|error| GatewayError::Refused(error.to_string()))?;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(MAX_REFUSAL).collect();
                Err(GatewayError::Refused(said))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(GatewayError::NoNft),
            Err(error) => Err(GatewayError::Refused(error.to_string())),
        }
    }
}
