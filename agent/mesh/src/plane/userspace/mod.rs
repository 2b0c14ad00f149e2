//! The plane of this process: two threads, one a direction.
//!
//! `out` reads the TUN and seals to links; `in` reads the socket, opens, and delivers to the TUN or seals to another link.
//! They block in `poll` and share nothing that one would wait for: tables are snapshots, counters atomic.

mod backlog;
mod batch;
mod codel;
mod deliver;
mod egress;
mod frame;
mod inbound;
mod lane;
mod limit;
mod outbound;
mod reassembly;
mod seal;
mod seal_hold;
mod seal_in;
mod seal_out;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{Ordering, fence},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use grange_core::{DataKeys, Endpoint, IfaceId, LinkId, LinkTraffic};
use grange_wire::{LinkIndex, NodeId, Prefix};
use portable_atomic::{AtomicBool, AtomicU64};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
};
use tokio::sync::mpsc;

use self::{
    seal::Outer,
    tables::{Counters, Link, LocalKind, Roamed, Session, Slot, Tables},
};
use super::{
    AddLinkError, LinkSpec, Local, MAX_LINKS, MAX_LOCAL, MAX_ROUTES, PacketDevice, Plane, PlaneDrops, PlaneFailure,
    RekeyError, SetLocalError, SetRouteError, UnknownLink, Way,
};
use crate::underlay::{Outlet, Received, Underlay};

/// How long the keys before the last rekey still open frames (`docs/protocol.md`, "Handshake").
const OLD_KEYS: Duration = Duration::from_secs(60);

/// How long a router on the way is believed that it carries less than a seal has proven. The core's search for what
/// passes comes as often.
const NARROW: Duration = Duration::from_secs(60);

/// What the plane is given.
pub struct UserspaceConfig<D> {
    /// Where packets enter and leave the machine's network stack.
    pub device: D,
    /// The socket. The plane is the only one that receives on it.
    pub underlay: Arc<Underlay>,
    /// Where datagrams that are not data go. When it is full they are dropped and counted.
    pub control: mpsc::Sender<Received>,
    /// Where the peers go that packets wait for a seal to. When it is full the packets' sender asks again.
    pub seals: mpsc::Sender<NodeId>,
}

/// Why the plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The socket lacks what the plane needs.
    #[error("cannot set up the UDP socket: {0}")]
    Underlay(#[source] io::Error),
    /// No event descriptor: the process has too many open files.
    #[error("cannot make an event descriptor: {0}")]
    Event(#[source] io::Error),
}

/// What both threads and the control half share.
struct Shared<D> {
    device: D,
    underlay: Arc<Underlay>,
    tables: ArcSwap<Tables>,
    roamed: Roamed,
    drops: Drops,
    /// Packets wait for seals: the thread that keeps them wants to know of new tables.
    holding: AtomicBool,
    stop: OwnedFd,
    failure: Mutex<Option<PlaneFailure>>,
}

impl<D> Shared<D> {
    fn fail(&self, failure: PlaneFailure) {
        tracing::warn!(%failure, "the plane stopped");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// [`PlaneDrops`] while they are counted.
#[derive(Default)]
struct Drops {
    unauthenticated: AtomicU64,
    replayed: AtomicU64,
    invalid: AtomicU64,
    unsealed: AtomicU64,
    unroutable: AtomicU64,
    too_big: AtomicU64,
    expired: AtomicU64,
    congested: AtomicU64,
    refused: AtomicU64,
    control: AtomicU64,
    device: AtomicU64,
}

impl Drops {
    fn read(&self) -> PlaneDrops {
        PlaneDrops {
            unauthenticated: self.unauthenticated.load(Ordering::Relaxed),
            replayed: self.replayed.load(Ordering::Relaxed),
            invalid: self.invalid.load(Ordering::Relaxed),
            unsealed: self.unsealed.load(Ordering::Relaxed),
            unroutable: self.unroutable.load(Ordering::Relaxed),
            too_big: self.too_big.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            congested: self.congested.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            control: self.control.load(Ordering::Relaxed),
            device: self.device.load(Ordering::Relaxed),
        }
    }
}

/// Counts one more.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Keys that a rekey replaced.
struct OldKeys {
    index: LinkIndex,
    since: Instant,
}

/// What the control half remembers of a link beside what the threads know.
struct LinkState {
    id: LinkId,
    slot: Slot,
    index: LinkIndex,
    old: Option<OldKeys>,
    /// Keys that the neighbour may seal with already and we do not yet.
    offered: Option<(LinkIndex, Arc<Session>)>,
    /// Since when a router on a seal's way is known to carry less.
    narrow: Option<Instant>,
}

/// The user-space plane. Dropping it ends its threads.
pub struct Userspace<D: PacketDevice> {
    shared: Arc<Shared<D>>,
    links: Vec<LinkState>,
    threads: Vec<JoinHandle<()>>,
}

impl<D: PacketDevice> Userspace<D> {
    /// Starts the threads; there are no links and no routes yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: UserspaceConfig<D>) -> Result<Self, StartError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| StartError::Event(error.into()))?;
        let shared = Arc::new(Shared {
            device: config.device,
            underlay: config.underlay,
            tables: ArcSwap::default(),
            roamed: Roamed::default(),
            drops: Drops::default(),
            holding: AtomicBool::new(false),
            stop,
            failure: Mutex::new(None),
        });
        let outbound = outbound::Outbound::new(Arc::clone(&shared), config.seals).map_err(StartError::Underlay)?;
        let inbound = inbound::Inbound::new(Arc::clone(&shared), config.control).map_err(StartError::Underlay)?;
        let mut plane = Self { shared, links: Vec::new(), threads: Vec::with_capacity(2) };
        // Dropping a half-started plane ends the thread that runs.
        plane.spawn("grange-out", move || outbound.run())?;
        plane.spawn("grange-in", move || inbound.run())?;
        Ok(plane)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body).map_err(StartError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Replaces the snapshot by one that `change` was done to. There is one control half, so no other change is lost.
    fn update(&self, change: impl FnOnce(&mut Tables)) {
        let mut tables = Tables::clone(&self.shared.tables.load());
        change(&mut tables);
        tables.version += 1;
        self.shared.tables.store(Arc::new(tables));
        // Who sets `holding` looks at the tables afterwards: one of the two sees what the other did.
        fence(Ordering::SeqCst);
        if self.shared.holding.load(Ordering::SeqCst) {
            self.shared.underlay.wake();
        }
    }

    fn update_link(&self, slot: Slot, change: impl FnOnce(&mut Link)) {
        self.update(|tables| {
            if let Some(Some(link)) = tables.links.get_mut(slot as usize) {
                change(Arc::make_mut(link));
            }
        });
    }

    fn state(&self, link: LinkId) -> Option<usize> {
        self.links.iter().position(|state| state.id == link)
    }

    fn slot(&self, link: LinkId) -> Result<Slot, UnknownLink> {
        self.state(link).map(|at| self.links[at].slot).ok_or(UnknownLink(link))
    }

    fn forget_old_keys(&mut self) {
        let expired: Vec<u32> = self
            .links
            .iter_mut()
            .filter_map(|link| link.old.take_if(|old| old.since.elapsed() >= OLD_KEYS))
            .map(|old| old.index.0)
            .collect();
        if !expired.is_empty() {
            self.update(|tables| tables.sessions.retain(|index, _| !expired.contains(index)));
        }
    }

    fn forget_narrow_paths(&mut self) {
        let tables = self.shared.tables.load();
        for state in &mut self.links {
            let Some(outer) = tables.link(state.slot).and_then(|link| link.outer.as_ref()) else { continue };
            if !outer.is_narrow() {
                state.narrow = None;
            } else if state.narrow.get_or_insert_with(Instant::now).elapsed() >= NARROW {
                outer.forget_path_mtu();
            }
        }
    }
}

impl<D: PacketDevice> Plane for Userspace<D> {
    fn name(&self) -> &'static str {
        "userspace"
    }

    fn add_link(&mut self, link: LinkId, spec: LinkSpec) -> Result<(), AddLinkError> {
        if self.state(link).is_some() {
            return Err(AddLinkError::Exists(link));
        }
        if self.links.len() >= MAX_LINKS {
            return Err(AddLinkError::Full);
        }
        let tables = self.shared.tables.load();
        let index = spec.keys.local;
        if tables.sessions.contains_key(&index.0) {
            return Err(AddLinkError::IndexInUse(index));
        }
        let free = tables.links.iter().position(Option::is_none).unwrap_or(tables.links.len());
        let slot = Slot::try_from(free).map_err(|_| AddLinkError::Full)?;
        let session = Arc::new(Session::new(slot, &spec.keys).map_err(AddLinkError::Unsupported)?);
        let outer = match tables.address_v6 {
            _ if spec.endpoint.iface != IfaceId::MESH => None,
            Some(own) => Some(Arc::new(Outer::new(own, &spec.peer))),
            None => return Err(AddLinkError::Unsupported("a seal needs the node's own address")),
        };
        let outlet = if outer.is_some() { Outlet::default() } else { self.shared.underlay.outlet() };
        let new = Arc::new(Link {
            id: link,
            peer: spec.peer,
            outer,
            endpoint: spec.endpoint,
            destination: crate::underlay::destination(spec.endpoint),
            outlet: Arc::new(outlet),
            mtu: spec.mtu.min(batch::MAX_PACKET),
            session: Arc::clone(&session),
            counters: Arc::new(Counters::default()),
        });
        self.update(|tables| {
            tables.add_link(slot, new);
            tables.sessions.insert(index.0, session);
        });
        self.links.push(LinkState { id: link, slot, index, old: None, offered: None, narrow: None });
        Ok(())
    }

    fn offer_keys(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError> {
        let at = self.state(link).ok_or(RekeyError::UnknownLink(link))?;
        let index = keys.local;
        if self.shared.tables.load().sessions.contains_key(&index.0) {
            return Err(RekeyError::IndexInUse(index));
        }
        let session = Arc::new(Session::new(self.links[at].slot, &keys).map_err(RekeyError::Unsupported)?);
        let lapsed = self.links[at].offered.replace((index, Arc::clone(&session)));
        self.update(|tables| {
            if let Some((lapsed, _)) = lapsed {
                tables.sessions.remove(&lapsed.0);
            }
            tables.sessions.insert(index.0, session);
        });
        Ok(())
    }

    fn rekey(&mut self, link: LinkId, keys: DataKeys) -> Result<(), RekeyError> {
        let at = self.state(link).ok_or(RekeyError::UnknownLink(link))?;
        let index = keys.local;
        let slot = self.links[at].slot;
        // What was offered has opened frames already: its replay window goes on.
        let offered = self.links[at].offered.take_if(|(offered, _)| *offered == index);
        let session = match offered {
            Some((_, session)) => session,
            None if self.shared.tables.load().sessions.contains_key(&index.0) => {
                return Err(RekeyError::IndexInUse(index));
            }
            None => Arc::new(Session::new(slot, &keys).map_err(RekeyError::Unsupported)?),
        };
        let state = &mut self.links[at];
        let lapsed = state.offered.take();
        let replaced = std::mem::replace(&mut state.index, index);
        let forgotten = state.old.replace(OldKeys { index: replaced, since: Instant::now() });
        self.update(|tables| {
            if let Some(old) = forgotten {
                tables.sessions.remove(&old.index.0);
            }
            if let Some((lapsed, _)) = lapsed {
                tables.sessions.remove(&lapsed.0);
            }
            tables.sessions.insert(index.0, Arc::clone(&session));
            if let Some(Some(link)) = tables.links.get_mut(slot as usize) {
                Arc::make_mut(link).session = session;
            }
        });
        Ok(())
    }

    fn set_endpoint(&mut self, link: LinkId, endpoint: Endpoint) -> Result<(), UnknownLink> {
        let slot = self.slot(link)?;
        self.update_link(slot, |link| link.move_to(endpoint));
        Ok(())
    }

    fn set_mtu(&mut self, link: LinkId, mtu: u16) -> Result<(), UnknownLink> {
        let slot = self.slot(link)?;
        self.update_link(slot, |link| link.mtu = mtu.min(batch::MAX_PACKET));
        Ok(())
    }

    fn remove_link(&mut self, link: LinkId) -> Result<(), UnknownLink> {
        let at = self.state(link).ok_or(UnknownLink(link))?;
        let state = self.links.swap_remove(at);
        self.update(|tables| tables.remove_link(state.slot));
        self.shared.roamed.forget(link);
        Ok(())
    }

    fn set_route(&mut self, prefix: Prefix, way: Way) -> Result<(), SetRouteError> {
        let slot = self.slot(way.link).map_err(|UnknownLink(link)| SetRouteError::UnknownLink(link))?;
        let tables = self.shared.tables.load();
        if tables.goes(prefix, slot, way.seal) {
            return Ok(());
        }
        if !tables.has_route(prefix) && tables.size() >= MAX_ROUTES {
            return Err(SetRouteError::Full);
        }
        self.update(|tables| tables.set_route(prefix, slot, way.seal));
        Ok(())
    }

    fn remove_route(&mut self, prefix: Prefix) {
        if self.shared.tables.load().has_route(prefix) {
            self.update(|tables| tables.remove_route(prefix));
        }
    }

    fn set_local(&mut self, local: &Local) -> Result<(), SetLocalError> {
        if local.prefixes.len() + local.exits.len() > MAX_LOCAL {
            return Err(SetLocalError::Full);
        }
        self.update(|tables| {
            tables.local = super::fib::Fib::default();
            for prefix in &local.exits {
                tables.local.insert(*prefix, LocalKind::Exit);
            }
            let v6 = local.address_v6.map(|address| Prefix::host(address.into()));
            let v4 = local.address_v4.map(|address| Prefix::host(address.into()));
            for prefix in local.prefixes.iter().copied().chain(v6).chain(v4) {
                tables.local.insert(prefix, LocalKind::Own);
            }
            tables.address_v6 = local.address_v6;
            tables.address_v4 = local.address_v4;
            tables.wants_seals = local.sealed;
        });
        Ok(())
    }

    fn set_sealed_ports(&mut self, ports: &[u16]) {
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        if self.shared.tables.load().sealed_ports != ports {
            self.update(|tables| tables.sealed_ports = ports);
        }
    }

    fn counters(&mut self, into: &mut Vec<(LinkId, LinkTraffic)>) {
        self.forget_old_keys();
        self.forget_narrow_paths();
        let tables = self.shared.tables.load();
        into.extend(tables.links.iter().flatten().map(|link| (link.id, link.counters.read())));
    }

    fn take_roamed(&mut self, into: &mut Vec<(LinkId, Endpoint)>) {
        let from = into.len();
        self.shared.roamed.take(into);
        // A thread with an older snapshot may have noted a link that is gone, or an address that is known by now.
        let tables = self.shared.tables.load();
        let mut at = 0;
        into.retain(|(id, endpoint)| {
            at += 1;
            at <= from || tables.links.iter().flatten().any(|link| link.id == *id && !link.is_at(*endpoint))
        });
    }

    fn drops(&self) -> PlaneDrops {
        self.shared.drops.read()
    }

    fn health(&self) -> Result<(), PlaneFailure> {
        if let Some(failure) = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(failure);
        }
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(PlaneFailure::Thread);
        }
        Ok(())
    }
}

impl<D: PacketDevice> Drop for Userspace<D> {
    fn drop(&mut self) {
        // Nobody reads the counter, so it stays readable for both threads.
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::warn!("a thread of the plane had ended unexpectedly");
            }
        }
    }
}
