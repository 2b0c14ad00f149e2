//! Follows the machine's uplinks: announces default routes while there are some, and keeps the nftables table in step.

use std::time::Duration;

use grange_mesh::{Mesh, MeshEvent, NftError, NftTable, Stopped};
use tokio::{
    sync::{broadcast::error::RecvError, oneshot, watch},
    time::Instant,
};

use crate::{
    plan::{Addresses, Plan},
    ruleset,
};

/// How often nft is looked for where there is none, and how soon a refused table is tried again.
const CHECK: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(10);

/// What a gateway is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Whether to share the uplink with the town.
    pub share: bool,
    /// Name of the uplink's interface; none: the one with a default route.
    pub interface: Option<String>,
}

/// A gateway at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Whether sharing is switched on.
    pub sharing: bool,
    /// The uplink's interface, if there is one, whether shared or not.
    pub interface: Option<String>,
    /// Whether IPv4 is announced to the town.
    pub v4: bool,
    /// Whether IPv6 is announced to the town.
    pub v6: bool,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The program `nft` is missing.
    #[error(
        "the program `nft`, which translates addresses, is not installed. Install the package nftables (Debian: `apt \
         install nftables`; OpenWrt: `apk add nftables` or `opkg install nftables`)"
    )]
    NoNft,
    /// `nft` refused the table.
    #[error(
        "nft refused the table `inet grange`: {0}. See that the kernel has nftables with NAT (OpenWrt: kmod-nft-core \
         and kmod-nft-nat) and that grange may use it"
    )]
    Refused(String),
    /// The mesh has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<NftError> for GatewayError {
    fn from(error: NftError) -> Self {
        match error {
            NftError::Missing => Self::NoNft,
            NftError::Refused(said) => Self::Refused(said),
        }
    }
}

/// A gateway or, without sharing, the translation of a member's LAN.
///
/// When it is dropped it withdraws and removes what it added as [`Gateway::shutdown`] does, but nobody can wait for
/// that.
#[derive(Debug)]
pub struct Gateway {
    status: watch::Receiver<GatewayStatus>,
    stop: oneshot::Sender<oneshot::Sender<()>>,
}

impl Gateway {
    /// Removes what an earlier run left, puts the table in place if it is needed, and follows the mesh's interfaces
    /// from then on.
    ///
    /// # Errors
    /// [`GatewayError`], and nothing is left behind. Without sharing, a missing or refusing nft is only warned of: the
    /// mesh works, but for hosts of the LAN, for whom nothing is forwarded without rules.
    pub async fn start(config: GatewayConfig, mesh: Mesh) -> Result<Self, GatewayError> {
        let table = match NftTable::find(ruleset::TABLE) {
            Ok(table) => Some(table),
            Err(error) if config.share => return Err(error.into()),
            Err(_) => None,
        };
        let own = Addresses { v4: mesh.address_v4(), v6: mesh.address(), prefix: grange_wire::lan_prefix(&mesh.id()) };
        let (status, view) = watch::channel(GatewayStatus::default());
        let mut keeper = Keeper { config, own, mesh, table, status, placed: None, refused: false, flushed: false };
        // Subscribed before the first look, so that nothing is missed in between.
        let events = keeper.mesh.subscribe();
        if let Err(error) = keeper.follow().await {
            if keeper.config.share {
                keeper.remove().await;
                return Err(error);
            }
            keeper.complain(&error);
        }
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(keeper.run(events, stopped));
        Ok(Self { status: view, stop })
    }

    /// What is shared at this moment.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        self.status.borrow().clone()
    }

    /// Withdraws the default routes and removes the table. Call it before [`Mesh::shutdown`].
    pub async fn shutdown(self) {
        let (done, wait) = oneshot::channel();
        if self.stop.send(done).is_ok() {
            let _ = wait.await;
        }
    }
}

struct Keeper {
    config: GatewayConfig,
    own: Addresses,
    mesh: Mesh,
    /// None: there is no nft.
    table: Option<NftTable>,
    status: watch::Sender<GatewayStatus>,
    /// What is announced and in place.
    placed: Option<Plan>,
    /// Whether nft refused the last table, and that was said.
    refused: bool,
    /// Whether somebody changed or removed our table.
    flushed: bool,
}

impl Keeper {
    async fn run(
        mut self,
        mut events: tokio::sync::broadcast::Receiver<MeshEvent>,
        mut stop: oneshot::Receiver<oneshot::Sender<()>>,
    ) {
        let mut check = Instant::now() + if self.refused { RETRY } else { CHECK };
        let done = loop {
            let lost = async {
                match &mut self.table {
                    Some(table) => table.lost().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                done = &mut stop => break done.ok(),
                event = events.recv() => match event {
                    Ok(MeshEvent::Interfaces) | Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => break None,
                },
                () = self.mesh.stopped() => break None,
                () = lost => {
                    tracing::info!("somebody else changed the table `{}`; putting it back", ruleset::TABLE);
                    self.flushed = true;
                }
                () = tokio::time::sleep_until(check) => self.look(),
            }
            match self.follow().await {
                Ok(()) => {
                    if std::mem::take(&mut self.refused) {
                        tracing::info!("nft has taken the table now");
                    }
                    check = Instant::now() + CHECK;
                }
                Err(GatewayError::Stopped(_)) => break None,
                Err(error) => {
                    self.complain(&error);
                    check = Instant::now() + RETRY;
                }
            }
        };
        self.remove().await;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn complain(&mut self, error: &GatewayError) {
        if !std::mem::replace(&mut self.refused, true) {
            tracing::warn!(%error, "hosts of the LAN and the town are not translated");
        }
    }

    /// Looks for nft if there was none.
    fn look(&mut self) {
        if self.table.is_none() {
            self.table = NftTable::find(ruleset::TABLE).ok();
        }
    }

    /// Brings announcements and the table in step with the machine.
    async fn follow(&mut self) -> Result<(), GatewayError> {
        let interfaces = self.mesh.interfaces().await?;
        let plan = Plan::new(&self.config, &interfaces, self.own);
        if self.placed.as_ref() == Some(&plan) && !self.flushed {
            return Ok(());
        }
        let announced = |plan: &Option<Plan>| plan.as_ref().map(|plan| plan.announced.clone()).unwrap_or_default();
        let before = announced(&self.placed);
        // First withdraw what cannot be kept, then translate, then announce: nobody is attracted to a gateway that does
        // not translate.
        let kept: Vec<_> = before.iter().filter(|prefix| plan.announced.contains(prefix)).copied().collect();
        if kept != before {
            self.announce(kept.clone()).await?;
        }
        let applied = match (&plan.ruleset, &mut self.table) {
            (Some(ruleset), Some(table)) => table.apply(&ruleset.to_string()).await,
            (Some(_), None) => Err(NftError::Missing),
            (None, table) => {
                // Nothing is forwarded any more before the rules for it go.
                self.mesh.set_guarded(None).await?;
                match table {
                    Some(table) => table.remove().await,
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = applied {
            self.announce(Vec::new()).await?;
            self.mesh.set_guarded(None).await?;
            self.placed = None;
            self.status.send_replace(GatewayStatus { v4: false, v6: false, ..plan.status });
            return Err(error.into());
        }
        if let Some(ruleset) = &plan.ruleset {
            self.mesh.set_guarded(Some(ruleset.interfaces())).await?;
        }
        self.flushed = false;
        if plan.announced != kept {
            self.announce(plan.announced.clone()).await?;
        }
        let changed = self.placed.as_ref().map(|placed| &placed.status) != Some(&plan.status);
        if changed && plan.status.sharing {
            let GatewayStatus { interface, v4, v6, .. } = &plan.status;
            tracing::info!(interface, v4, v6, "sharing the uplink");
        }
        self.status.send_replace(plan.status.clone());
        self.placed = Some(plan);
        Ok(())
    }

    async fn announce(&self, prefixes: Vec<grange_wire::Prefix>) -> Result<(), GatewayError> {
        self.mesh.set_announced(prefixes).await.map_err(GatewayError::Stopped)
    }

    async fn remove(&mut self) {
        let _ = self.mesh.set_announced(Vec::new()).await;
        let _ = self.mesh.set_guarded(None).await;
        if let Some(table) = &mut self.table
            && let Err(error) = table.remove().await
        {
            tracing::warn!(%error, "the table `inet grange` could not be removed; the next start tries again");
        }
        self.status.send_replace(GatewayStatus::default());
    }
}
