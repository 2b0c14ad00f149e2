//! Keeps the table of [`Fence`] in nftables.

use std::io;

use super::{
    fence::{self, Fence},
    tunnels::{TunnelReport, TunnelSpec},
};
use crate::nft::{NftError, NftTable};

/// The table, and what is in place of it.
pub(super) struct Guard {
    /// None: there is no nft.
    table: Option<NftTable>,
    /// None: nothing that is known.
    fence: Option<Fence>,
    /// Whether what an earlier run left is gone.
    cleared: bool,
}

impl Guard {
    /// Looks for nft. Nothing is changed yet.
    pub(super) fn new() -> Self {
        Self { table: NftTable::find(fence::TABLE).ok(), fence: None, cleared: false }
    }

    /// Whether the table is in place.
    pub(super) fn stands(&self) -> bool {
        self.fence.is_some()
    }

    /// Puts the table in place, or removes it for `None`. Nothing is done where it is so already.
    ///
    /// # Errors
    /// What nft said, or that there is none; what was in place is still.
    pub(super) async fn apply(&mut self, fence: Option<Fence>) -> io::Result<()> {
        if self.table.is_none() {
            self.table = NftTable::find(fence::TABLE).ok();
        }
        let there = self.fence.take();
        let Some(table) = &mut self.table else {
            return if fence.is_some() { Err(io::Error::other(NftError::Missing)) } else { Ok(()) };
        };
        let result = match &fence {
            None if there.is_none() && self.cleared => Ok(()),
            None => table.remove().await,
            Some(_) if there == fence => Ok(()),
            Some(fence) => table.apply(&fence.to_string()).await,
        };
        self.cleared |= result.is_ok();
        // What is refused leaves in place what was there.
        self.fence = if result.is_ok() { fence } else { there };
        result.map_err(io::Error::other)
    }

    /// Removes the table whatever is known of it.
    ///
    /// # Errors
    /// What nft said.
    pub(super) async fn remove(&mut self) -> io::Result<()> {
        self.cleared = false;
        self.apply(None).await
    }

    /// Completes when somebody else has changed the table, which is to be put in place again then. If it is dropped
    /// before, nothing is missed.
    pub(super) async fn lost(&mut self) {
        match &mut self.table {
            Some(table) if self.fence.is_some() => table.lost().await,
            _ => return std::future::pending().await,
        }
        tracing::info!("somebody else changed the table `{}`; putting it back", fence::TABLE);
        self.fence = None;
    }

    /// Whether the other end may learn of a WireGuard interface: only once there are rules for what comes by it.
    pub(super) fn knows(&self, spec: &TunnelSpec, report: &TunnelReport) -> bool {
        self.fence.as_ref().is_some_and(|fence| match spec.seal {
            true => fence.sealed.get(&report.port) == Some(&spec.node),
            false => fence.near.get(&report.name) == Some(&spec.node),
        })
    }
}
