//! The record of what was changed on this machine, written before it is changed.
//!
//! A run that is killed cannot restore anything; the next one reads from here what there is to restore, and above all
//! what a setting was before the first change. The file lies in the runtime directory: after a reboot neither it nor
//! the changes exist.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::plan::{LanAddress, Rule};

/// Version of the file's form.
const VERSION: u32 = 1;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A setting under `/proc/sys` that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SysctlChange {
    /// Path below `/proc/sys`, such as `net/ipv6/conf/all/forwarding`.
    pub path: String,
    /// What it was.
    pub before: String,
    /// What it was set to. Where the kernel changed it as a consequence of another one: the same as `before`.
    pub after: String,
}

/// What was changed. All changes are idempotent: an entry may name what was never done or is undone already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    version: u32,
    /// Routing tables that hold routes of ours.
    pub tables: BTreeSet<u32>,
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Addresses on interfaces that are not ours.
    pub addresses: BTreeSet<LanAddress>,
    /// Settings, in the order in which they are to be restored.
    pub sysctls: Vec<SysctlChange>,
}

impl Default for Undo {
    fn default() -> Self {
        Self {
            version: VERSION,
            tables: BTreeSet::new(),
            rules: BTreeSet::new(),
            addresses: BTreeSet::new(),
            sysctls: Vec::new(),
        }
    }
}

impl Undo {
    /// What a setting was before any change of ours.
    pub(crate) fn before(&self, path: &str) -> Option<&str> {
        self.sysctls.iter().find(|change| change.path == path).map(|change| change.before.as_str())
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct UndoFile {
    path: PathBuf,
    /// What it says at this moment.
    written: Option<Undo>,
}

impl UndoFile {
    /// Opens the record in a runtime directory, which is made if it is missing, and gives what an earlier run left in
    /// it.
    ///
    /// A record that cannot be understood (a newer version, a disk that lied) is put aside as `undo.json.bad`: what is
    /// known to be ours by its marks is cleaned up all the same.
    pub(crate) fn open(runtime_dir: &Path) -> io::Result<(Self, Undo)> {
        fs::create_dir_all(runtime_dir)?;
        let path = runtime_dir.join("undo.json");
        let found = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_FILE => None,
            Ok(_) => serde_json::from_slice::<Undo>(&fs::read(&path)?).ok().filter(|undo| undo.version == VERSION),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self { path, written: None }, Undo::default()));
            }
            Err(error) => return Err(error),
        };
        if let Some(undo) = found {
            return Ok((Self { path, written: Some(undo.clone()) }, undo));
        }
        let aside = path.with_extension("json.bad");
        fs::rename(&path, &aside)?;
        let file = aside.display();
        tracing::warn!(%file, "an earlier run's record of changes cannot be read; settings that it changed stay");
        Ok((Self { path, written: None }, Undo::default()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the record, whole or not at all. Does nothing if the file says the same already.
    pub(crate) fn write(&mut self, undo: &Undo) -> io::Result<()> {
        if self.written.as_ref() == Some(undo) {
            return Ok(());
        }
        let temporary = self.path.with_extension("json.new");
        let result = (|| {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(undo)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)
        })();
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        } else {
            self.written = Some(undo.clone());
        }
        result
    }

    /// Removes the file: there is nothing left to undo.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.written = None;
        // Of a run that was killed while it wrote.
        let _ = fs::remove_file(self.path.with_extension("json.new"));
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::plan;

    fn sample() -> Undo {
        Undo {
            tables: [7264].into(),
            rules: plan::rules(1, 7264),
            addresses: [LanAddress { interface: "br-lan".into(), address: "fd01::1".parse().unwrap(), len: 64 }].into(),
            sysctls: vec![SysctlChange {
                path: "net/ipv6/conf/all/forwarding".into(),
                before: "0".into(),
                after: "1".into(),
            }],
            ..Undo::default()
        }
    }

    #[test]
    fn a_later_run_reads_what_an_earlier_one_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("a/b");
        let (mut file, found) = UndoFile::open(&runtime).unwrap();
        assert_eq!(found, Undo::default());
        file.write(&sample()).unwrap();
        let (mut later, found) = UndoFile::open(&runtime).unwrap();
        assert_eq!(found, sample());
        assert_eq!(found.before("net/ipv6/conf/all/forwarding"), Some("0"));
        later.remove().unwrap();
        later.remove().unwrap();
        assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn a_damaged_record_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&sample()).unwrap();
        for damaged in [&text[..text.len() / 2], "", &text.replace("\"version\":1", "\"version\":9")] {
            fs::write(dir.path().join("undo.json"), damaged).unwrap();
            let (_, found) = UndoFile::open(dir.path()).unwrap();
            assert_eq!(found, Undo::default());
            assert_eq!(fs::read_to_string(dir.path().join("undo.json.bad")).unwrap(), damaged);
            assert!(!dir.path().join("undo.json").exists());
        }
    }

    #[test]
    fn a_failed_write_leaves_the_record_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = UndoFile::open(dir.path()).unwrap();
        file.write(&sample()).unwrap();
        fs::create_dir(dir.path().join("undo.json.new")).unwrap();
        assert!(file.write(&Undo::default()).is_err());
        assert_eq!(UndoFile::open(dir.path()).unwrap().1, sample());
    }
}
