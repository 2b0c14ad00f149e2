//! Small files that must never be half there: secrets and membership.
//!
//! Each is TOML between two comments, so that a person can look at it and a damaged one is noticed:
//!
//! ```text
//! # grange node key, version 1
//! seed = "..."
//! # checksum 8f0c...
//! ```
//!
//! The checksum is the first 8 bytes of BLAKE3 of all lines before it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use zeroize::Zeroizing;

use crate::failure::{Code, Failure};

/// Files beyond this size are none of ours.
const MAX_SIZE: u64 = 16 * 1024;

/// What a file holds: names and texts.
pub(crate) type Body = BTreeMap<String, Zeroizing<String>>;

/// What kind of file it is, as its first line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// File name in the state directory.
    pub(crate) file: &'static str,
    /// As in `# grange node key, version 1`.
    pub(crate) title: &'static str,
    /// What to do about a damaged one, as sentences.
    pub(crate) remedy: &'static str,
}

/// Why a file could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// One stands there.
    Exists,
    /// The system refused.
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The state directory, made if it is missing (0700), locked against other processes that write there until dropped.
pub(crate) struct Locked {
    path: PathBuf,
    dir: File,
}

impl Locked {
    /// Makes and locks `path`.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Failure::write(path, &error))?;
        let dir = File::open(path).map_err(|error| Failure::read(path, &error))?;
        flock(&dir, FlockOperation::LockExclusive).map_err(|error| Failure::write(path, &error.into()))?;
        Ok(Self { path: path.into(), dir })
    }

    /// Writes a file of `kind` with the lines of `body`, 0600, all or nothing. One that exists is never overwritten.
    pub(crate) fn write(&self, kind: Kind, body: &[(&str, &str)]) -> Result<(), Failure> {
        let path = self.path.join(kind.file);
        self.place(kind.file, text(kind, body).as_bytes()).map_err(|error| match error {
            WriteError::Exists => {
                Failure::new(Code::State, format!("{} exists already and is not overwritten.", path.display()))
            }
            WriteError::Io(error) => Failure::write(&path, &error),
        })
    }

    /// Removes a file for good. It is no error if there is none.
    pub(crate) fn remove(&self, kind: Kind) -> Result<(), Failure> {
        let path = self.path.join(kind.file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::write(&path, &error)),
            _ => self.dir.sync_all().map_err(|error| Failure::write(&path, &error)),
        }
    }

    fn place(&self, name: &str, content: &[u8]) -> Result<(), WriteError> {
        let target = self.path.join(name);
        if fs::symlink_metadata(&target).is_ok() {
            return Err(WriteError::Exists);
        }
        // The lock makes this name ours; one that a power cut left is written anew.
        let temporary = self.path.join(format!(".{name}.new"));
        let result = self
            .write_synced(&temporary, content)
            .map_err(WriteError::Io)
            .and_then(|()| self.rename(&temporary, &target));
        if result.is_err() {
            // Nothing more can be done if this fails too; the next writer takes the name over.
            let _ = fs::remove_file(&temporary);
        }
        result?;
        Ok(self.dir.sync_all()?)
    }

    fn write_synced(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), WriteError> {
        match renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => return Err(WriteError::Exists),
            // Some filesystems of routers know no such rename: the check above and the lock must do.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(WriteError::Io(error.into())),
        }
        Ok(fs::rename(from, to)?)
    }
}

fn text(kind: Kind, body: &[(&str, &str)]) -> Zeroizing<String> {
    // Room for all of it, so that no copy is left behind where it grew.
    let mut text = Zeroizing::new(String::with_capacity(MAX_SIZE as usize));
    text.push_str(&format!("# grange {}, version 1\n", kind.title));
    for (key, value) in body {
        // JSON's escapes are TOML's for the texts that are kept here.
        let line = Zeroizing::new(serde_json::to_string(value).unwrap_or_default());
        for part in [key, " = ", &*line, "\n"] {
            text.push_str(part);
        }
    }
    let sum = checksum(&text);
    text.push_str(&format!("# checksum {sum}\n"));
    text
}

fn checksum(text: &str) -> String {
    HEXLOWER.encode(&blake3::hash(text.as_bytes()).as_bytes()[..8])
}

/// Reads a file of `kind` from the state directory; `None` if there is none.
///
/// # Errors
/// If it can be read by others, or is damaged: with the reason and what to do. It is never changed.
pub(crate) fn read(dir: &Path, kind: Kind) -> Result<Option<Body>, Failure> {
    let path = dir.join(kind.file);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::read(&path, &error)),
    };
    let meta = file.metadata().map_err(|error| Failure::read(&path, &error))?;
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o7777;
        let path = path.display();
        return Err(Failure::new(
            Code::State,
            format!(
                "{path} holds a secret, and other users of this machine may read or write it (its mode is {mode:04o}). It is not used until that is \
                 mended: type `chmod 600 {path}`. If somebody may have copied it, its secret is no longer one. {}",
                kind.remedy
            ),
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_SIZE as usize + 1));
    let read = Read::by_ref(&mut file).take(MAX_SIZE + 1).read_to_string(&mut text);
    let damage = match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "it is not text".to_owned(),
        Err(error) => return Err(Failure::read(&path, &error)),
        Ok(_) => match parse(kind, &text) {
            Ok(body) => return Ok(Some(body)),
            Err(damage) => damage,
        },
    };
    Err(damaged(dir, kind, &damage))
}

/// The failure of a file whose content is wrong.
pub(crate) fn damaged(dir: &Path, kind: Kind, damage: &str) -> Failure {
    let path = dir.join(kind.file);
    let (path, title, remedy) = (path.display(), kind.title, kind.remedy);
    Failure::new(
        Code::State,
        format!(
            "the {title} file {path} is damaged: {damage}. It is left as it is. Put a copy from a backup in its place. {remedy}"
        ),
    )
}

fn parse(kind: Kind, text: &str) -> Result<Body, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() as u64 > MAX_SIZE {
        return Err(format!("it is larger than {MAX_SIZE} bytes"));
    }
    let title = format!("# grange {}, version ", kind.title);
    let version = text.lines().next().and_then(|line| line.strip_prefix(&title));
    match version {
        Some("1") => {}
        Some(version) if version.parse::<u32>().is_ok() => {
            return Err(format!(
                "its version is {version}, and this grange knows version 1 only: is this grange older than the file?"
            ));
        }
        _ => return Err(format!("its first line is not `{title}1`")),
    }
    let Some(at) = text.rfind("# checksum ") else {
        return Err("its last line, with the checksum, is missing: it was cut short".into());
    };
    let (body, last) = text.split_at(at);
    let given = last.trim_start_matches("# checksum ");
    if given.strip_suffix('\n') != Some(checksum(body).as_str()) {
        return Err("its checksum does not fit its content: it was changed or cut short".into());
    }
    let body: BTreeMap<String, String> =
        toml::from_str(body).map_err(|error| format!("it is not TOML: {}", error.message()))?;
    Ok(body.into_iter().map(|(key, value)| (key, Zeroizing::new(value))).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KIND: Kind = Kind { file: "test.key", title: "test key", remedy: "Do this." };

    fn written(dir: &Path) -> String {
        let locked = Locked::new(dir).unwrap();
        locked.write(KIND, &[("seed", "abc"), ("name", "Ober\"dorf\\")]).unwrap();
        fs::read_to_string(dir.join(KIND.file)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let body = read(dir.path(), KIND).unwrap().unwrap();
        assert_eq!((body["seed"].as_str(), body["name"].as_str()), ("abc", "Ober\"dorf\\"));
        assert_eq!(names(dir.path()), ["test.key"]);
        assert_eq!(fs::metadata(dir.path().join("test.key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_existing_file_is_not_overwritten_and_a_leftover_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".test.key.new"), "half").unwrap();
        let before = written(dir.path());
        let locked = Locked::new(dir.path()).unwrap();
        let error = locked.write(KIND, &[("seed", "xyz")]).unwrap_err();
        assert_eq!(error.code, Code::State);
        assert_eq!(fs::read_to_string(dir.path().join(KIND.file)).unwrap(), before);
        locked.remove(KIND).unwrap();
        locked.write(KIND, &[("seed", "xyz")]).unwrap();
        assert_eq!(read(dir.path(), KIND).unwrap().unwrap()["seed"].as_str(), "xyz");
        assert_eq!(names(dir.path()), ["test.key"]);
    }

    #[test]
    fn each_damage_is_named_and_the_file_left() {
        let dir = tempfile::tempdir().unwrap();
        let good = written(dir.path());
        let path = dir.path().join(KIND.file);
        let half = good.len() / 2;
        let cases: [(Vec<u8>, &str); 7] = [
            (Vec::new(), "it is empty"),
            (good.as_bytes()[..half].to_vec(), "its last line, with the checksum, is missing: it was cut short"),
            (good.as_bytes()[..good.len() - 1].to_vec(), "its checksum does not fit"),
            (good.replace("abc", "abd").into(), "its checksum does not fit its content: it was changed or cut short"),
            (good.replace("version 1", "version 2").into(), "its version is 2"),
            (b"hello\n".to_vec(), "its first line is not `# grange test key, version 1`"),
            (vec![0xff; 40], "it is not text"),
        ];
        for (content, reason) in cases {
            fs::write(&path, &content).unwrap();
            let error = read(dir.path(), KIND).unwrap_err();
            assert_eq!(error.code, Code::State);
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.to_string().contains("Do this."), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let path = dir.path().join(KIND.file);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = read(dir.path(), KIND).unwrap_err().to_string();
        assert!(error.contains("its mode is 0644") && error.contains("chmod 600"), "{error}");
    }
}
