//! What the keeper is told, and what it tells.

use std::collections::{BTreeMap, BTreeSet};

use grange_core::LinkId;
use grange_wire::Prefix;
use tokio::sync::watch;

use super::{
    keeper::REMOVAL,
    plan::Path,
    sysctl::Forwarding,
    tunnels::{Reports, TunnelSpec},
};

/// What the driver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// MTU of the TUN.
    pub tun_mtu: u16,
    /// Prefixes that the mesh leads to, and how.
    pub paths: BTreeMap<Prefix, Path>,
    /// WireGuard interfaces.
    pub tunnels: BTreeMap<LinkId, TunnelSpec>,
    /// Default routes that leave the mesh here.
    pub exits: BTreeSet<Prefix>,
    /// The LAN's interface: index and name.
    pub lan: Option<(u32, String)>,
    /// Networks of all LANs.
    pub lans: BTreeSet<Prefix>,
    /// What is forwarded; none: nothing is for our sake.
    pub forwarding: Option<Forwarding>,
    /// Counts how often it was decided what is forwarded; zero: not yet.
    pub turn: u32,
    /// Counts the times at which something may have been taken away behind our back.
    pub resync: u32,
    /// Whether all is to be taken away.
    pub stop: bool,
}

impl Wanted {
    /// Nothing but the TUN.
    pub(super) fn new(tun_mtu: u16) -> Self {
        Self {
            tun_mtu,
            paths: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            exits: BTreeSet::new(),
            lan: None,
            lans: BTreeSet::new(),
            forwarding: None,
            turn: 0,
            resync: 0,
            stop: false,
        }
    }

    /// Whether packets leave the mesh here for other machines.
    pub(super) fn forwards_for_others(&self) -> bool {
        self.lan.is_some() || !self.exits.is_empty()
    }
}

/// Completes when the kernel is as it was wanted at some time.
#[derive(Debug)]
pub(crate) struct Done {
    turn: u32,
    done: watch::Receiver<u32>,
}

impl Done {
    /// For a [`Wanted::turn`]; `done` says which was followed last.
    pub(super) fn new(turn: u32, done: watch::Receiver<u32>) -> Self {
        Self { turn, done }
    }

    /// Waits for that, but not for ever for a kernel that does not answer.
    pub(crate) async fn wait(mut self) {
        let wait = self.done.wait_for(|done| *done >= self.turn);
        let _ = tokio::time::timeout(REMOVAL, wait).await;
    }
}

/// Tells the keeper what is wanted, and what became of it. Clones speak to the same keeper.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    wanted: watch::Sender<Wanted>,
    reports: watch::Receiver<Reports>,
}

impl Wants {
    pub(super) fn new(wanted: watch::Sender<Wanted>, reports: watch::Receiver<Reports>) -> Self {
        Self { wanted, reports }
    }

    /// Changes what is wanted; the kernel follows.
    pub(crate) fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let before = wanted.clone();
            change(wanted);
            before != *wanted
        });
    }

    /// As [`Self::want`] for prefixes, for what happens often. `None`: the mesh does not lead there any more.
    pub(crate) fn want_paths(&self, paths: impl IntoIterator<Item = (Prefix, Option<Path>)>) {
        self.wanted.send_if_modified(|all| {
            let mut changed = false;
            for (prefix, path) in paths {
                let before = match path {
                    Some(path) => all.paths.insert(prefix, path),
                    None => all.paths.remove(&prefix),
                };
                changed |= before != path;
            }
            changed
        });
    }

    /// As [`Self::want`] for one WireGuard interface, likewise.
    pub(crate) fn want_tunnel(&self, link: LinkId, spec: Option<TunnelSpec>) {
        self.wanted.send_if_modified(|all| {
            if all.tunnels.get(&link) == spec.as_ref() {
                return false;
            }
            match spec {
                Some(spec) => all.tunnels.insert(link, spec),
                None => all.tunnels.remove(&link),
            };
            true
        });
    }

    /// A handle without a keeper; the test plays the kernel.
    #[cfg(test)]
    pub(crate) fn alone() -> (Self, watch::Sender<Reports>) {
        let (wanted, _) = watch::channel(Wanted::new(crate::plane::MTU_OVER_ETHERNET));
        let (sender, reports) = watch::channel(Reports::new());
        (Self { wanted, reports }, sender)
    }

    /// What is wanted at this moment.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.borrow().clone()
    }

    /// The WireGuard interfaces that are there.
    pub(crate) fn reports(&self) -> watch::Ref<'_, Reports> {
        self.reports.borrow()
    }
}
