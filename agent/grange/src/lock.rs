//! One agent for one runtime directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::failure::{Code, Failure};

/// The runtime directory is ours until this is dropped.
pub(crate) struct Lock {
    path: PathBuf,
    // Closing it releases the lock.
    _file: File,
    made_dir: bool,
}

impl Lock {
    /// Takes the runtime directory, which is made if it is missing.
    ///
    /// # Errors
    /// [`Code::AlreadyRunning`] if another agent has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, Failure> {
        let made_dir = !dir.exists();
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|error| Failure::write(dir, &error))?;
        let path = dir.join("grange.lock");
        let file = Self::open(&path, dir).inspect_err(|_| {
            if made_dir {
                let _ = fs::remove_dir(dir);
            }
        })?;
        Ok(Self { path, _file: file, made_dir })
    }

    fn open(path: &Path, dir: &Path) -> Result<File, Failure> {
        loop {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
            let mut file = opened.map_err(|error| Failure::write(path, &error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Self::taken(&mut file, dir)),
                Err(error) => return Err(Failure::write(path, &io::Error::from(error))),
            }
            // Its owner may have removed the file between our opening and locking it: then the lock is of no use.
            let same = fs::metadata(path).ok().zip(file.metadata().ok()).is_some_and(|(a, b)| a.ino() == b.ino());
            if same {
                let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                return match written {
                    Ok(()) => Ok(file),
                    Err(error) => {
                        let _ = fs::remove_file(path);
                        Err(Failure::write(path, &error))
                    }
                };
            }
        }
    }

    fn taken(file: &mut File, dir: &Path) -> Failure {
        let mut pid = String::new();
        let _ = file.take(32).read_to_string(&mut pid);
        let who = match pid.trim().parse::<u32>() {
            Ok(pid) => format!("another grange, process {pid},"),
            Err(_) => "another grange".into(),
        };
        let dir = dir.display();
        Failure::new(
            Code::AlreadyRunning,
            format!(
                "{who} is running already with the runtime directory {dir}. See what it does with `grange status`, or stop it first. A second agent on \
                 this machine needs directories, a port and a TUN name of its own."
            ),
        )
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let (true, Some(dir)) = (self.made_dir, self.path.parent()) {
            // Fails, rightly, if somebody else put something there.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        let first = Lock::take(&dir).unwrap();
        let refused = Lock::take(&dir).err().unwrap();
        assert_eq!(refused.code, Code::AlreadyRunning);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(!dir.exists());
        drop(Lock::take(&dir).unwrap());
    }
}
