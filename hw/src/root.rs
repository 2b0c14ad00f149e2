//! Reading small files under a root directory.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
};

/// Symbolic links followed on one path before it counts as a loop, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A directory that stands for `/`.
///
/// Symbolic links are resolved inside it, absolute ones too: a fixture's `/etc/os-release -> /usr/lib/os-release`
/// never leads to the file of the machine that runs the test.
pub(crate) struct Root<'a>(pub(crate) &'a Path);

impl Root<'_> {
    /// The place of `path` behind all symbolic links, or `None` if it does not exist.
    pub(crate) fn resolve(&self, path: &str) -> Option<PathBuf> {
        let mut rest: Vec<OsString> = Vec::new();
        push_reversed(&mut rest, Path::new(path));
        let mut inside = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                inside.pop();
                continue;
            }
            inside.push(&name);
            let place = self.0.join(&inside);
            let meta = fs::symlink_metadata(&place).ok()?;
            if meta.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                let target = fs::read_link(&place).ok()?;
                inside.pop();
                if target.is_absolute() {
                    inside = PathBuf::new();
                }
                push_reversed(&mut rest, &target);
            }
        }
        Some(self.0.join(inside))
    }

    /// Whether `path` exists and is a directory.
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.resolve(path).is_some_and(|place| place.is_dir())
    }

    /// Whether `path` exists.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// At most `limit` bytes of a regular file as text; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Option<String> {
        let place = self.resolve(path)?;
        // A FIFO or a device in a broken root would block for ever.
        if !fs::metadata(&place).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(place).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A one-line attribute, trimmed of white space and the zero bytes that end device-tree strings; `None` if empty.
    pub(crate) fn line(&self, path: &str) -> Option<String> {
        let text = self.read(path, 4096)?;
        let line = text.split(['\n', '\0']).next().unwrap_or_default().trim();
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// A decimal attribute.
    pub(crate) fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        self.line(path)?.parse().ok()
    }

    /// The last component of what a symbolic link points to, whether or not it exists.
    pub(crate) fn link_name(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/')?;
        let target = fs::read_link(self.resolve(parent)?.join(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The names in a directory, sorted, at most `limit`; those that are not UTF-8 are left out.
    pub(crate) fn names(&self, path: &str, limit: usize) -> Vec<String> {
        let Some(entries) = self.resolve(path).and_then(|place| fs::read_dir(place).ok()) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).take(limit).collect();
        names.sort();
        names
    }
}

fn push_reversed(rest: &mut Vec<OsString>, path: &Path) {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let at = rest.len();
    rest.extend(parts);
    rest[at..].reverse();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("usr/lib/os-release"), "ID=here\n").unwrap();
        symlink("/usr/lib/os-release", dir.path().join("etc/os-release")).unwrap();
        symlink("../../../../usr/lib/os-release", dir.path().join("etc/above")).unwrap();
        symlink("loop", dir.path().join("etc/loop")).unwrap();
        symlink("/nowhere/at/all", dir.path().join("etc/broken")).unwrap();
        let root = Root(dir.path());
        assert_eq!(root.line("etc/os-release").as_deref(), Some("ID=here"));
        assert_eq!(root.line("/etc/above").as_deref(), Some("ID=here"));
        assert_eq!(root.line("etc/loop"), None);
        assert_eq!(root.line("etc/broken"), None);
        assert_eq!(root.link_name("etc/broken").as_deref(), Some("all"));
    }

    #[test]
    fn a_directory_or_an_endless_file_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("long"), vec![b'x'; 100_000]).unwrap();
        let root = Root(dir.path());
        assert_eq!(root.read("d", 10), None);
        assert_eq!(root.read("long", 10).map(|text| text.len()), Some(10));
    }
}
