//! Follows the machine's uplinks: announces default routes while there are some, and keeps the nftables table in step.

use std::time::Duration;

use grange_mesh::{Mesh, MeshEvent, Stopped};
use tokio::{
    sync::{broadcast::error::RecvError, oneshot, watch},
    time::Instant,
};

use crate::{
    nft::Nft,
    plan::{Addresses, Plan},
    ruleset,
};

/// How often the table is looked for, since a restarted firewall may have flushed it, and how soon a refused one is
/// tried again.
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
    /// mesh works, and only IPv4 hosts of the LAN do not reach it.
    pub async fn start(config: GatewayConfig, mesh: Mesh) -> Result<Self, GatewayError> {
        let nft = match Nft::find() {
            Ok(nft) => Some(nft),
            Err(error) if config.share => return Err(error),
            Err(_) => None,
        };
        let own = Addresses { v4: mesh.address_v4(), v6: mesh.address(), prefix: grange_wire::lan_prefix(&mesh.id()) };
        let (status, view) = watch::channel(GatewayStatus::default());
        let mut keeper = Keeper { config, own, mesh, nft, status, placed: None, refused: false, flushed: false };
        // Subscribed before the first look, so that nothing is missed in between.
        let events = keeper.mesh.subscribe();
        if let Some(nft) = &keeper.nft
            && let Err(error) = nft.apply(ruleset::removal()).await
            && keeper.config.share
        {
            return Err(error);
        }
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
    nft: Option<Nft>,
    status: watch::Sender<GatewayStatus>,
    /// What is announced and in place.
    placed: Option<Plan>,
    /// Whether nft refused the last table, and that was said.
    refused: bool,
    /// Whether somebody removed our table.
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
            tokio::select! {
                biased;
                done = &mut stop => break done.ok(),
                event = events.recv() => match event {
                    Ok(MeshEvent::Interfaces) | Err(RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(RecvError::Closed) => break None,
                },
                () = self.mesh.stopped() => break None,
                () = tokio::time::sleep_until(check) => self.look().await,
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

    /// Looks whether our table is still there, and for nft if there was none.
    async fn look(&mut self) {
        match &self.nft {
            Some(nft) if self.placed.as_ref().is_some_and(|plan| plan.ruleset.is_some()) => {
                self.flushed = !nft.has_table().await;
                if self.flushed {
                    tracing::info!("the table `inet grange` was removed by somebody else; putting it back");
                }
            }
            Some(_) => {}
            None => self.nft = Nft::find().ok(),
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
        let text = match &plan.ruleset {
            Some(ruleset) => ruleset.to_string(),
            None => ruleset::removal(),
        };
        let applied = match &self.nft {
            Some(nft) => nft.apply(text).await,
            None if plan.ruleset.is_none() => Ok(()),
            None => Err(GatewayError::NoNft),
        };
        if let Err(error) = applied {
            self.announce(Vec::new()).await?;
            self.placed = None;
            self.status.send_replace(GatewayStatus { v4: false, v6: false, ..plan.status });
            return Err(error);
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
        if let Some(nft) = &self.nft
            && let Err(error) = nft.apply(ruleset::removal()).await
        {
            tracing::warn!(%error, "the table `inet grange` could not be removed; the next start tries again");
        }
        self.status.send_replace(GatewayStatus::default());
    }
}
