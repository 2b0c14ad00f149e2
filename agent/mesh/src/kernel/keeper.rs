//! Keeps what is in the kernel in step with what the driver wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use grange_wire::NodeId;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    fence::Fence,
    guard::Guard,
    netlink::Netlink,
    plan::{self, Difference, LanAddress, Route, Rule},
    sysctl::Sysctls,
    tunnels::{Reports, Tunnels},
    undo::{Undo, UndoFile},
    wants::{Done, Wanted, Wants},
    wireguard::WireGuard,
};
use crate::error::StartError;

/// How long what an earlier run left, and is not wanted yet, stays by default: the time in which routing converges.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How long after a refusal the kernel is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// Queue of the TUN in packets. The plane reads eagerly into queues that it manages, so this one only holds what comes
/// while the plane's thread waits for a processor: all fragments of a large datagram, a burst of small ones. With 32,
/// a flow lost super-packets and a third of its speed.
const TUN_QUEUE: u32 = 512;

/// Longest that taking everything away may last; what is left then, the next start removes.
pub(super) const REMOVAL: Duration = Duration::from_secs(5);

/// What does not change while the mesh runs.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The node.
    pub id: NodeId,
    /// Name of the TUN device.
    pub tun: String,
    /// Its index.
    pub tun_index: u32,
    /// Its MTU.
    pub tun_mtu: u16,
    /// Mark of the underlay's packets.
    pub mark: u32,
    /// Our table.
    pub table: u32,
    /// Where the record of changes lies.
    pub runtime_dir: PathBuf,
    /// Whether what comes from nodes that are no neighbours has to come by a seal.
    pub seals: bool,
    /// How long what an earlier run left, and is not wanted yet, stays.
    pub grace: Duration,
}

/// Keeps what is in the kernel in step with what the driver wants.
#[derive(Debug)]
pub(crate) struct Kernel {
    wants: Wants,
    task: JoinHandle<()>,
    /// Whether the machine forwards IPv4 and IPv6 for others than us; said before it is changed for our sake.
    others: watch::Receiver<(bool, bool)>,
    done: watch::Receiver<u32>,
    has_wireguard: bool,
}

impl Kernel {
    /// Sets up the TUN and the rules, and takes over what an earlier run left.
    ///
    /// # Errors
    /// What the kernel refused. What was added until then is taken away.
    pub(crate) async fn start(
        netlink: Netlink,
        wireguard: Option<WireGuard>,
        sysctls: Sysctls,
        setup: Setup,
    ) -> Result<Self, StartError> {
        let path = setup.runtime_dir.join("undo.json");
        let (file, undo) =
            UndoFile::open(&setup.runtime_dir).map_err(|source| StartError::Undo { path: path.clone(), source })?;
        let (wanted, changes) = watch::channel(Wanted::new(setup.tun_mtu));
        let mut guard = Guard::new();
        let wireguard = match wireguard {
            Some(wireguard) => guarded(&mut guard, &setup).await.then_some(wireguard),
            None => None,
        };
        let has_wireguard = wireguard.is_some();
        let (done, done_view) = watch::channel(0);
        let (reports, reports_view) = watch::channel(Reports::new());
        let (others, others_view) = watch::channel(sysctls.others(&undo));
        let mut keeper = Keeper {
            others,
            done,
            guard,
            reports,
            tunnels: Tunnels::new(wireguard, &setup.id),
            netlink,
            sysctls,
            file,
            rules: BTreeSet::new(),
            routes: BTreeSet::new(),
            adopted: BTreeSet::new(),
            adopted_addresses: undo.addresses.clone(),
            adopted_forwarding: !undo.sysctls.is_empty(),
            undo,
            grace: Some(Instant::now() + setup.grace),
            tun_mtu: setup.tun_mtu,
            refused: false,
            setup,
        };
        if let Err(error) = keeper.begin().await {
            keeper.remove().await;
            return Err(error);
        }
        let wants = Wants::new(wanted, reports_view);
        let task = tokio::spawn(keeper.run(changes));
        Ok(Self { wants, task, others: others_view, done: done_view, has_wireguard })
    }

    /// Whether there can be WireGuard interfaces.
    pub(crate) fn has_wireguard(&self) -> bool {
        self.has_wireguard
    }

    /// For [`Wanted::turn`]: completes when the kernel is as it was wanted then.
    pub(crate) fn done(&self, turn: u32) -> Done {
        Done::new(turn, self.done.clone())
    }

    /// Whether the machine forwards IPv4 and IPv6 for others than the mesh.
    pub(crate) fn forwards_for_others(&self) -> (bool, bool) {
        *self.others.borrow()
    }

    /// A handle for others who want something.
    pub(crate) fn wants(&self) -> Wants {
        self.wants.clone()
    }

    /// Changes what is wanted; the kernel follows.
    pub(crate) fn want(&self, change: impl FnOnce(&mut Wanted)) {
        self.wants.want(change);
    }

    /// Takes everything away and restores settings. The TUN's own addresses go with it.
    pub(crate) async fn remove(self) {
        self.wants.want(|wanted| wanted.stop = true);
        drop(self.wants);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "what Grange added to the kernel was not all removed; the next start will");
        }
    }
}

/// Whether nft takes what the kernel plane needs.
async fn guarded(guard: &mut Guard, setup: &Setup) -> bool {
    let result = guard.apply(Some(Fence::closed(setup.id, &setup.tun, setup.seals))).await;
    if let Err(error) = &result {
        tracing::info!(%error, "without nftables the kernel's WireGuard is not used; Grange moves all packets itself");
    }
    result.is_ok()
}

struct Keeper {
    others: watch::Sender<(bool, bool)>,
    /// The last decision that was followed.
    done: watch::Sender<u32>,
    guard: Guard,
    reports: watch::Sender<Reports>,
    tunnels: Tunnels,
    netlink: Netlink,
    sysctls: Sysctls,
    file: UndoFile,
    undo: Undo,
    setup: Setup,
    /// The rules with our protocol number.
    rules: BTreeSet<Rule>,
    /// The routes of ours that are in our tables.
    routes: BTreeSet<Route>,
    /// Those of an earlier run that nobody has asked for yet.
    adopted: BTreeSet<Route>,
    /// Addresses of an earlier run that nobody has asked for yet.
    adopted_addresses: BTreeSet<LanAddress>,
    /// Whether an earlier run left forwarding on, and nobody has asked for it yet.
    adopted_forwarding: bool,
    /// Until when those stay.
    grace: Option<Instant>,
    tun_mtu: u16,
    /// Whether the last request was refused, and said so.
    refused: bool,
}

impl Keeper {
    fn address_v6(&self) -> Ipv6Addr {
        grange_wire::node_address(&self.setup.id)
    }

    fn address_v4(&self) -> Ipv4Addr {
        grange_wire::node_address_v4(&self.setup.id)
    }

    /// The table of what came in from the mesh and of seals' own packets.
    fn passing_table(&self) -> u32 {
        self.setup.table.wrapping_add(1)
    }

    /// Our tables.
    fn tables(&self) -> impl Iterator<Item = u32> + use<> {
        std::iter::once(self.setup.table).chain(self.tunnels.enabled().then_some(self.passing_table()))
    }

    async fn begin(&mut self) -> Result<(), StartError> {
        let mut undo = self.undo.clone();
        undo.tables.extend(self.tables());
        undo.rules.extend(plan::rules(self.setup.mark, self.setup.table));
        if self.tunnels.enabled() {
            self.sysctls.record_redirects(&mut undo);
        }
        self.record(undo).map_err(|source| StartError::Undo { path: self.file.path().to_owned(), source })?;

        let refused = |action| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => StartError::NoRights { action },
                _ => StartError::Netlink { action, source },
            }
        };
        // A machine may have IPv6 off by default for new interfaces; ours needs it. It vanishes with the interface.
        let _ = self.sysctls.set(&format!("net/ipv6/conf/{}/disable_ipv6", self.setup.tun), "0");
        // Packets from the mesh come by the TUN whatever way the machine itself would answer.
        let _ = self.sysctls.set(&format!("net/ipv4/conf/{}/rp_filter", self.setup.tun), "2");
        // What an earlier run has left is fenced before anything of this one is there.
        if let Err(error) = self.apply_fence(&Wanted::new(self.tun_mtu)).await {
            tracing::debug!(%error, "no table of nftables yet");
        }
        self.set_up_tun().await.map_err(refused("set up the TUN device"))?;
        self.tunnels.adopt(&self.netlink).await.map_err(refused("list interfaces"))?;
        self.read().await.map_err(refused("list routes and rules"))?;
        self.adopted.clone_from(&self.routes);
        self.apply_rules(false).await.map_err(refused("add routing rules"))?;
        if !self.adopted.is_empty() {
            tracing::info!(routes = self.adopted.len(), "took over what an earlier run left");
        }
        Ok(())
    }

    async fn run(mut self, mut changes: watch::Receiver<Wanted>) {
        let mut resync = 0;
        let mut lost = false;
        let mut retry: Option<Instant> = None;
        loop {
            let wanted = changes.borrow_and_update().clone();
            if wanted.stop {
                break;
            }
            let result = match resync != wanted.resync || self.refused || std::mem::take(&mut lost) {
                true => self.resync().await,
                false => Ok(()),
            };
            resync = wanted.resync;
            let result = match result {
                Ok(()) => self.apply(&wanted).await,
                error => error,
            };
            retry = match result {
                Ok(()) => {
                    if std::mem::take(&mut self.refused) {
                        tracing::info!("the kernel has taken everything now");
                    }
                    None
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        tracing::warn!(%error, "the kernel refused a change; trying again every {} s", RETRY.as_secs());
                    }
                    Some(retry.filter(|due| *due > Instant::now()).unwrap_or(Instant::now() + RETRY))
                }
            };
            self.report();
            self.done.send_replace(wanted.turn);
            let due = [retry, self.grace].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(timer);
            // Handshakes are asked for again and again without a look at anything else.
            let changed = loop {
                let pause = self.tunnels.pause();
                let ask = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    changed = changes.changed() => break changed,
                    () = &mut timer => break Ok(()),
                    () = self.guard.lost() => break Ok(()),
                    () = ask => {
                        lost = self.tunnels.poll();
                        self.report();
                        if lost {
                            break Ok(());
                        }
                    }
                }
            };
            if changed.is_err() {
                break;
            }
            self.grace = self.grace.filter(|grace| *grace > Instant::now());
        }
        if tokio::time::timeout(REMOVAL, self.remove()).await.is_err() {
            tracing::warn!(
                "the kernel did not answer in time; what is left of Grange's routes, the next start removes"
            );
        }
    }

    /// Writes the record, then takes it as what is to be undone.
    fn record(&mut self, undo: Undo) -> io::Result<()> {
        self.file.write(&undo)?;
        self.undo = undo;
        Ok(())
    }

    async fn set_up_tun(&self) -> io::Result<()> {
        let index = self.setup.tun_index;
        self.netlink.set_up_tun(index, self.tun_mtu, TUN_QUEUE).await?;
        self.netlink.add_address(index, self.address_v6().into(), 128).await?;
        self.netlink.add_address(index, self.address_v4().into(), 32).await
    }

    /// Tells what became of the WireGuard interfaces.
    fn report(&self) {
        let reports = self.tunnels.reports(|spec, report| self.guard.knows(spec, report));
        self.reports.send_if_modified(|before| {
            let changed = *before != reports;
            *before = reports;
            changed
        });
    }

    /// Reads the rules and routes that are there.
    async fn read(&mut self) -> io::Result<()> {
        self.rules = self.netlink.rules().await?;
        self.routes.clear();
        for table in self.tables() {
            self.routes.extend(self.netlink.routes(table).await?);
        }
        Ok(())
    }

    /// Puts the rules in place and removes those of an earlier run with another mark or table.
    async fn apply_rules(&mut self, open: bool) -> io::Result<()> {
        let mut wanted = plan::rules(self.setup.mark, self.setup.table);
        if self.tunnels.enabled() {
            let names = self.tunnels.names();
            wanted.extend(plan::passing_rules(&names, open, self.passing_table()));
        }
        // Rules of ours by their mark, but of a table that we do not know: another Grange on this machine.
        let known = |rule: &Rule| self.undo.tables.contains(&rule.table);
        let difference = Difference::between(&self.rules, &wanted, |rule| !known(rule));
        for rule in difference.add {
            self.netlink.add_rule(&rule).await?;
            self.rules.insert(rule);
        }
        for rule in difference.remove {
            self.netlink.remove_rule(&rule).await?;
            self.rules.remove(&rule);
        }
        Ok(())
    }

    /// Reads anew what is there, and puts back what was taken away by others.
    async fn resync(&mut self) -> io::Result<()> {
        self.set_up_tun().await?;
        self.tunnels.refresh(&self.netlink).await?;
        self.read().await
    }

    async fn apply(&mut self, wanted: &Wanted) -> io::Result<()> {
        if self.tun_mtu != wanted.tun_mtu {
            self.netlink.set_mtu(self.setup.tun_index, wanted.tun_mtu).await?;
            self.tun_mtu = wanted.tun_mtu;
        }
        // Without its rules nothing is forwarded.
        let fence = self.apply_fence(wanted).await;
        let none = BTreeMap::new();
        let guarded = self.guard.stands() && wanted.forwarding.is_some();
        let specs = if guarded { &wanted.tunnels } else { &none };
        // What is refused in one must not keep packets from their way by another. Interfaces are made before routes lead
        // into them, and removed after.
        let tunnels = self.tunnels.make(&self.netlink, &self.sysctls, specs).await;
        let fence = fence.and(self.apply_fence(wanted).await);
        let rules = self.apply_rules(wanted.forwards_for_others()).await;
        let routes = self.apply_routes(wanted).await;
        let spare = self.grace.is_some();
        let swept = self.tunnels.sweep(&self.netlink, specs, spare).await;
        let addresses = self.apply_addresses(wanted).await;
        let forwarding = self.apply_forwarding(wanted);
        let fence = fence.and(self.apply_fence(wanted).await);
        let old = match self.grace {
            Some(_) => Ok(()),
            None => self.remove_other_tables().await,
        };
        fence.and(tunnels).and(rules).and(routes).and(swept).and(addresses).and(forwarding).and(old)
    }

    /// Brings the table in step with what there is; removes it where nothing is forwarded.
    async fn apply_fence(&mut self, wanted: &Wanted) -> io::Result<()> {
        let needed = self.tunnels.enabled() || wanted.forwarding.is_some();
        // What an earlier run left, and what the machine forwards anyway.
        let useful = !self.tunnels.names().is_empty() || Sysctls::forwards(&self.undo) || wanted.forwards_for_others();
        let fence = Fence {
            open: wanted.forwards_for_others(),
            exits: wanted.exits.clone(),
            lans: wanted.lans.clone(),
            near: self.tunnels.near(),
            sealed: self.tunnels.sealed(),
            ..Fence::closed(self.setup.id, &self.setup.tun, self.setup.seals)
        };
        match self.guard.apply((needed || useful).then_some(fence)).await {
            Err(error) if !needed => {
                tracing::debug!(%error, "no table of nftables");
                Ok(())
            }
            result => result,
        }
    }

    async fn apply_routes(&mut self, wanted: &Wanted) -> io::Result<()> {
        let own = grange_wire::lan_prefix(&self.setup.id);
        let tunnels = self.tunnels.indices();
        let interfaces = plan::Interfaces { tun: self.setup.tun_index, tunnels: &tunnels };
        let has_lan = wanted.lan.is_some();
        let mut routes = plan::routes(&wanted.paths, own, has_lan, &interfaces, self.setup.table);
        if self.tunnels.enabled() {
            let exits = wanted.forwards_for_others().then_some(&wanted.exits);
            let table = self.passing_table();
            routes.extend(plan::passing_routes(&wanted.paths, own, has_lan, exits, &interfaces, table));
        }
        self.adopted.retain(|route| !routes.contains(route));
        let adopted = &self.adopted;
        let spare = self.grace.is_some();
        let difference = Difference::between(&self.routes, &routes, |route| spare && adopted.contains(route));
        // New ones first: one that takes another's place does so without a moment in between.
        for route in difference.add {
            let source: IpAddr = if route.prefix.is_v4() { self.address_v4().into() } else { self.address_v6().into() };
            self.netlink.add_route(&route, Some(source)).await?;
            self.routes.retain(|old| !route.replaces(old));
            self.adopted.retain(|old| !route.replaces(old));
            self.routes.insert(route);
        }
        for route in difference.remove {
            if self.routes.remove(&route) {
                self.netlink.remove_route(&route).await?;
                self.adopted.remove(&route);
            }
        }
        Ok(())
    }

    async fn apply_addresses(&mut self, wanted: &Wanted) -> io::Result<()> {
        // The prefix is on-link for LAN hosts: they ask for the node's own address there too, and the kernel answers
        // for addresses of that interface only.
        let addresses = [(grange_wire::lan_gateway(&self.setup.id), 64), (self.address_v6(), 128)];
        let mut keep = Vec::new();
        if let Some((index, name)) = &wanted.lan {
            let present = self.netlink.addresses(*index).await?;
            for (address, len) in addresses {
                let lan = LanAddress { interface: name.clone(), address, len };
                // One that is there without being ours was set by the machine's own configuration and stays.
                if !present.contains(&(lan.address.into(), lan.len)) {
                    let mut undo = self.undo.clone();
                    undo.addresses.insert(lan.clone());
                    self.record(undo)?;
                    self.netlink.add_address(*index, lan.address.into(), lan.len).await?;
                    tracing::info!(interface = lan.interface, %address, "the LAN has this node's address");
                }
                keep.push(lan);
            }
        }
        self.adopted_addresses.retain(|lan| !keep.contains(lan) && self.grace.is_some());
        let spared = |lan: &&LanAddress| keep.contains(*lan) || self.adopted_addresses.contains(*lan);
        let old: Vec<LanAddress> = self.undo.addresses.iter().filter(|lan| !spared(lan)).cloned().collect();
        for lan in old {
            self.remove_address(&lan).await?;
            let mut undo = self.undo.clone();
            undo.addresses.remove(&lan);
            self.record(undo)?;
        }
        Ok(())
    }

    async fn remove_address(&self, lan: &LanAddress) -> io::Result<()> {
        match interface_index(&lan.interface) {
            Some(index) => self.netlink.remove_address(index, lan.address.into(), lan.len).await,
            None => Ok(()),
        }
    }

    fn apply_forwarding(&mut self, wanted: &Wanted) -> io::Result<()> {
        self.others.send_replace(self.sysctls.others(&self.undo));
        match &wanted.forwarding {
            Some(forwarding) if self.guard.stands() => {
                self.adopted_forwarding = false;
                let mut undo = self.undo.clone();
                self.sysctls.record(forwarding, &mut undo);
                self.record(undo)?;
                self.sysctls.apply(forwarding, &self.undo)
            }
            _ if !Sysctls::forwards(&self.undo) => Ok(()),
            // Nobody has said yet what is to be forwarded.
            None if wanted.turn == 0 && self.adopted_forwarding && self.grace.is_some() => Ok(()),
            _ => {
                let mut undo = self.undo.clone();
                let result = self.sysctls.restore(&mut undo);
                if self.tunnels.enabled() {
                    self.sysctls.record_redirects(&mut undo);
                }
                self.record(undo).and(result)
            }
        }
    }

    /// Empties tables that an earlier run with another configuration used.
    async fn remove_other_tables(&mut self) -> io::Result<()> {
        let ours: BTreeSet<u32> = self.tables().collect();
        let others: Vec<u32> = self.undo.tables.difference(&ours).copied().collect();
        let rules = plan::rules(self.setup.mark, self.setup.table);
        for table in others {
            for route in self.netlink.routes(table).await? {
                self.netlink.remove_route(&route).await?;
            }
            let mut undo = self.undo.clone();
            undo.tables.remove(&table);
            undo.rules.retain(|rule| rules.contains(rule));
            self.record(undo)?;
        }
        Ok(())
    }

    /// Takes everything away, going on whatever is refused.
    async fn remove(&mut self) {
        let mut failed: Option<io::Error> = None;
        let mut note = |result: io::Result<()>| {
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        };
        let mut rules = self.undo.rules.clone();
        match self.netlink.rules().await {
            Ok(present) => rules.extend(present.into_iter().filter(|rule| self.undo.tables.contains(&rule.table))),
            Err(error) => note(Err(error)),
        }
        for rule in &rules {
            note(self.netlink.remove_rule(rule).await);
        }
        for table in &self.undo.tables {
            match self.netlink.routes(*table).await {
                Ok(routes) => {
                    for route in routes {
                        note(self.netlink.remove_route(&route).await);
                    }
                }
                Err(error) => note(Err(error)),
            }
        }
        match self.netlink.wireguards().await {
            Ok(interfaces) => {
                for (index, _) in interfaces {
                    note(self.netlink.remove_interface(index).await);
                }
            }
            Err(error) => note(Err(error)),
        }
        for lan in &self.undo.addresses {
            note(self.remove_address(lan).await);
        }
        note(self.sysctls.restore(&mut self.undo));
        // Last: until now something may have been forwarded.
        note(self.guard.remove().await);
        match failed {
            None => {
                if let Err(error) = self.file.remove() {
                    let file = self.file.path().display();
                    tracing::warn!(%file, %error, "the record of changes could not be removed");
                }
            }
            Some(error) => {
                tracing::warn!(%error, "not everything could be taken back; the next start tries again");
            }
        }
    }
}

/// The kernel's index of an interface, if it is there.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: the pointer is to a string that ends with a zero and lives until the call returns.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}
