//! The mark by which an author knows, within one boot of one machine, how far it had counted (`docs/town.md`, Entries).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::entry::{Author, EntryRef};

/// A file in a directory that does not survive a boot and is in no backup: `/run/grange`.
///
/// A store that was put back from a backup while the machine ran does not hold the entry that the mark names. A mark in
/// a directory that does survive, as in some containers, names another boot.
#[derive(Clone, Debug)]
pub struct BootMark {
    path: PathBuf,
    boot: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Content<'a> {
    version: u8,
    #[serde(borrow)]
    boot: &'a [u8],
    marked: EntryRef,
}

const VERSION: u8 = 1;

impl BootMark {
    /// The mark of an author in `directory`. `boot` names the present boot: what Linux says in
    /// `/proc/sys/kernel/random/boot_id`.
    #[must_use]
    pub fn new(directory: &Path, author: Author, boot: &[u8]) -> Self {
        Self { path: directory.join(format!("town-{}.mark", short(author))), boot: boot.into() }
    }

    /// The entry that was written last in this boot. A mark that cannot be read is none: then the author is not sure.
    #[must_use]
    pub fn read(&self) -> Option<EntryRef> {
        let bytes = fs::read(&self.path).ok()?;
        let content = postcard::from_bytes::<Content<'_>>(&bytes).ok()?;
        (content.version == VERSION && content.boot == self.boot).then_some(content.marked)
    }

    /// Writes the mark anew, as a whole.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, marked: EntryRef) -> io::Result<()> {
        let content = Content { version: VERSION, boot: &self.boot, marked };
        let bytes = postcard::to_allocvec(&content).map_err(io::Error::other)?;
        let draft = self.path.with_extension("new");
        fs::write(&draft, bytes)?;
        fs::rename(&draft, &self.path)
    }

    /// Takes the mark away: the next start is not sure.
    ///
    /// # Errors
    /// What the system says, except that there is none.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The first half of the key is enough of a name; two authors on one machine do not share it.
fn short(author: Author) -> String {
    author.to_string().chars().take(32).collect()
}
