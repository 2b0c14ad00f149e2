//! What can be wrong with a store, in words for the one who runs the node.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there and cannot be opened, or not be made.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by another program: is the agent running already?", path = .0.display())]
    InUse(PathBuf),
    /// The file is not what was written. It was left as it is.
    #[error(
        "the town's log is damaged ({0}). Move the file away and start again: what the neighbours know comes back from \
         them, and this node goes on in a new life of its log. Keep the old file if this node wrote something that had \
         not reached a neighbour"
    )]
    Damaged(String),
    /// It is the store of another town. It was left as it is.
    #[error("{path} holds the log of another town; move it away to join this one", path = .0.display())]
    OtherTown(PathBuf),
    /// A newer program wrote it.
    #[error("{path} was written by a newer version of this program; install that, or move it away", path = .0.display())]
    Newer(PathBuf),
    /// Reading or writing failed. After a failed write nothing more is written until the store is opened again.
    #[error("the town's log cannot be read or written: {0}")]
    Database(String),
}

impl StoreError {
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        let error = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        Self::File { path: path.into(), error }
    }

    pub(super) fn damaged(path: &Path, why: &str) -> Self {
        Self::Damaged(format!("{}: {why}", path.display()))
    }

    /// Why redb does not open a file.
    pub(super) fn opening(path: &Path, error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse(path.into()),
            redb::DatabaseError::UpgradeRequired(_) => Self::damaged(path, "it has a format that was never written"),
            redb::DatabaseError::Storage(redb::StorageError::Io(error)) => match error.kind() {
                // So redb says that a file is none of its own, or ends too early.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                    Self::damaged(path, &error.to_string())
                }
                _ => Self::file(path, &error),
            },
            redb::DatabaseError::Storage(redb::StorageError::Corrupted(why)) => Self::damaged(path, &why),
            other => Self::Database(format!("{}: {other}", path.display())),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                match redb::Error::from(error) {
                    redb::Error::Corrupted(why) => Self::Damaged(why),
                    error => Self::Database(error.to_string()),
                }
            }
        }
    )*};
}
from_redb!(TransactionError, TableError, StorageError, CommitError);
