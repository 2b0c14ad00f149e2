//! What is told when something fails: one paragraph with what happened, why, and what to do; and an exit code.

use std::{fmt, io, path::Path};

/// Exit codes. `grange --help` lists them; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Something failed that has no code of its own.
    Other = 1,
    /// A setting is wrong.
    Config = 3,
    /// No agent runs here.
    NotRunning = 4,
    /// Another agent runs here.
    AlreadyRunning = 5,
    /// A right is missing.
    Rights = 6,
    /// A file of the state directory is damaged or open to others.
    State = 7,
    /// The disk is full, or a directory cannot be written.
    Disk = 8,
    /// The network cannot be used: no TUN device, an occupied port.
    Network = 9,
    /// The invitation is not good.
    Invitation = 10,
    /// The node's membership does not allow it.
    Town = 11,
    /// The destination of a trace was not reached.
    Unreached = 12,
}

/// A failure as it is told to a person.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The process's exit code.
    pub(crate) code: Code,
    text: String,
}

impl Failure {
    /// A failure; `text` is the whole paragraph.
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A file or directory that could not be written.
    pub(crate) fn write(path: &Path, error: &io::Error) -> Self {
        let path_shown = path.display();
        let mut code = Code::Disk;
        let todo = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                // What was just made may be gone again; `df` wants something that exists.
                let dir = path.ancestors().skip(1).find(|dir| dir.exists()).unwrap_or(path).display();
                return Self::new(
                    Code::Disk,
                    format!(
                        "there is no room to write {path_shown}: {error}. Nothing was changed. Make room on the filesystem of {dir} \
                         (see `df {dir}`), or choose another directory with --state-dir or --runtime-dir, and try again."
                    ),
                );
            }
            io::ErrorKind::PermissionDenied => {
                code = Code::Rights;
                "Run the command as root (with sudo), or choose a directory that you may write with --state-dir or --runtime-dir."
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "Mount the filesystem writable, or choose another directory with --state-dir or --runtime-dir."
            }
            io::ErrorKind::NotADirectory => {
                "A part of this path is a file and not a directory: move it away, or choose another directory with --state-dir or \
                 --runtime-dir."
            }
            _ => "Nothing was changed. Look at the directory and its filesystem, and try again.",
        };
        Self::new(code, format!("{path_shown} could not be written: {error}. {todo}"))
    }

    /// A file that could not be read.
    pub(crate) fn read(path: &Path, error: &io::Error) -> Self {
        let (code, todo) = match error.kind() {
            io::ErrorKind::PermissionDenied => (Code::Rights, "Run the command as root (with sudo)."),
            _ => (Code::State, "Look at the file and its filesystem, and try again."),
        };
        Self::new(code, format!("{} could not be read: {error}. {todo}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<grange_mesh::StartError> for Failure {
    fn from(error: grange_mesh::StartError) -> Self {
        use grange_mesh::StartError as E;
        let code = match &error {
            E::NoRights { .. } => Code::Rights,
            E::Undo { .. } => Code::Disk,
            _ => Code::Network,
        };
        Self::new(code, format!("the mesh could not be started: {error}."))
    }
}
