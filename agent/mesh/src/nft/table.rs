//! A table of ours: put in place as a whole, and missed when somebody else changes or removes it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    changes::Changes,
    program::{NftError, Program},
};

/// How often the table is looked for in any case: messages may be lost, or the kernel may send none.
const CHECK: Duration = Duration::from_secs(60);

/// How long after the first message of a change it is looked at: several commands may belong to it.
const SETTLE: Duration = Duration::from_millis(5);

/// A table of nftables that is ours alone.
#[derive(Debug)]
pub struct NftTable {
    program: Program,
    /// Such as `inet grange`.
    name: &'static str,
    changes: Option<Changes>,
    /// How nft printed it when it had just been put in place; none: it is not to be there.
    listed: Option<Vec<u8>>,
    /// Whether it may have been changed since.
    touched: bool,
    check: Instant,
}

impl NftTable {
    /// Looks for the program. `name` is the family and the name of the table. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// [`NftError::Missing`].
    pub fn find(name: &'static str) -> Result<Self, NftError> {
        let program = Program::find()?;
        let changes = Changes::open()
            .inspect_err(|error| tracing::debug!(%error, "the kernel does not tell of changes to nftables"))
            .ok();
        Ok(Self { program, name, changes, listed: None, touched: false, check: Instant::now() + CHECK })
    }

    /// Puts the table in place, or in the place of the one that is there: as a whole or not at all. `text` begins with
    /// `table` and ends with the last brace.
    ///
    /// # Errors
    /// [`NftError`]; what was there before is there still, and not watched any more.
    pub async fn apply(&mut self, text: &str) -> Result<(), NftError> {
        self.listed = None;
        self.program.apply(format!("{}{text}", self.removal())).await?;
        // One that is gone already is missed at once.
        let listed = self.program.list(self.name).await;
        self.touched = listed.is_err();
        self.listed = Some(listed.unwrap_or_default());
        self.check = Instant::now() + CHECK;
        Ok(())
    }

    /// Removes the table, whether it is there or not.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn remove(&mut self) -> Result<(), NftError> {
        self.listed = None;
        self.program.apply(self.removal()).await
    }

    /// Adding it first makes the deletion succeed where there is none.
    fn removal(&self) -> String {
        let name = self.name;
        format!("table {name}\ndelete table {name}\n")
    }

    /// Completes when the table is not as it was put in place any more; never while it is not to be there. If it is
    /// dropped before, nothing is missed.
    pub async fn lost(&mut self) {
        // The name without the family.
        let name = self.name.rsplit(' ').next().unwrap_or_default();
        loop {
            let Some(listed) = &self.listed else { return std::future::pending().await };
            if self.touched {
                if self.program.list(self.name).await.as_ref() != Ok(listed) {
                    return;
                }
                self.touched = false;
                self.check = Instant::now() + CHECK;
            }
            let changed = async {
                match &self.changes {
                    Some(changes) => changes.of(name).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {
                    self.touched = true;
                    tokio::time::sleep(SETTLE).await;
                }
                () = tokio::time::sleep_until(self.check) => self.touched = true,
            }
        }
    }
}
