//! The speaker's edge and its timers.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use grange_wire::{NodeId, Prefix, RouterId, TownId, babel::INFINITY, lan_prefix, node_address_v4};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    info::{NeighbourInfo, RouteEvent, RouteInfo, RouterStats},
    neighbour::Neighbour,
    origin::Origins,
    outbox::Request,
    proof::{ProofCache, follows},
    request::RequestTable,
    route::RouteTable,
    send::RETRACT_ALL,
    source::SourceTable,
};
use crate::{GatewayPolicy, Identity, IfaceKind, Instant, LinkId};

/// Neighbours at most.
const MAX_NEIGHBOURS: usize = 256;
/// Packets that wait to be polled, at most.
const MAX_PACKETS: usize = 4096;
/// Between two full updates, at most; an eighth of it is jitter.
pub(super) const UPDATE_INTERVAL: Duration = Duration::from_secs(60);
/// A neighbour's request for everything is answered once in this time.
pub(super) const FULL_DUMP_INTERVAL: Duration = Duration::from_secs(2);
/// How often the tables are swept for what has expired.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is seen whether a better route has been better for long enough.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_millis(250);
/// A selected route that expires so soon is asked about.
const REFRESH_BEFORE: Duration = Duration::from_secs(75);
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// What a [`Router`] is made of.
pub struct RouterConfig {
    /// Signs this node's announcements.
    pub identity: Identity,
    /// The town in which they hold.
    pub town: TownId,
    /// Whose default routes are taken.
    pub gateways: GatewayPolicy,
}

/// What the shell was told of a prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) via: LinkId,
    pub(super) metric: u16,
    pub(super) owner: NodeId,
    pub(super) router_id: RouterId,
}

/// A Babel speaker over links that are up or down and have one neighbour each.
///
/// Order of calls: any `neighbour_*`, `handle_*` or `set_*`; then [`poll_event`](Self::poll_event) and
/// [`poll_packet`](Self::poll_packet) until both give `None`; then [`poll_timeout`](Self::poll_timeout), and
/// [`handle_timeout`](Self::handle_timeout) at that moment if nothing else comes before. `now` never goes backwards.
///
/// Packets may be lost, delayed, doubled and reordered on the way; the link authenticates them. The routes that
/// the events describe never form a loop with those of the other nodes (`docs/routing.md` says on what conditions).
pub struct Router {
    pub(super) identity: Identity,
    pub(super) id: NodeId,
    pub(super) town: TownId,
    pub(super) gateways: GatewayPolicy,
    pub(super) router_id: RouterId,
    pub(super) rng: ChaCha8Rng,
    pub(super) neighbours: BTreeMap<LinkId, Neighbour>,
    pub(super) origins: Origins,
    pub(super) table: RouteTable,
    pub(super) sources: SourceTable,
    pub(super) requests: RequestTable,
    pub(super) proofs: ProofCache,
    pub(super) packets: VecDeque<(LinkId, Vec<u8>)>,
    pub(super) shown: BTreeMap<Prefix, Shown>,
    pub(super) dirty: BTreeSet<Prefix>,
    pub(super) rtts: BTreeMap<LinkId, Duration>,
    /// Prefixes with a better route that has not been better for long enough.
    pub(super) recheck: BTreeSet<Prefix>,
    pub(super) recheck_at: Option<Instant>,
    /// Number of the next retraction that all neighbours must acknowledge.
    pub(super) next_hold: u64,
    sweep_at: Instant,
    pub(super) stats: RouterStats,
    closed: bool,
}

impl Router {
    /// A speaker without neighbours that announces the node's own /64 and IPv4 /32. `entropy` must be fresh for each
    /// start: the router-id is drawn from it (`docs/routing.md`).
    #[must_use]
    pub fn new(config: RouterConfig, now: Instant, entropy: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(entropy);
        let mut router_id = [0; 8];
        // All zeroes and all ones are no router-ids (RFC 8966, section 4.1.3).
        while router_id == [0; 8] || router_id == [0xff; 8] {
            rng.fill_bytes(&mut router_id);
        }
        let id = config.identity.id();
        let mut router = Self {
            identity: config.identity,
            id,
            town: config.town,
            gateways: config.gateways,
            router_id: RouterId(router_id),
            rng,
            neighbours: BTreeMap::new(),
            origins: Origins::default(),
            table: RouteTable::default(),
            sources: SourceTable::default(),
            requests: RequestTable::default(),
            proofs: ProofCache::default(),
            packets: VecDeque::new(),
            shown: BTreeMap::new(),
            dirty: BTreeSet::new(),
            rtts: BTreeMap::new(),
            recheck: BTreeSet::new(),
            recheck_at: None,
            next_hold: 0,
            sweep_at: now + SWEEP_INTERVAL,
            stats: RouterStats::default(),
            closed: false,
        };
        router.set_announced(now, &[]);
        router
    }

    /// A link came up. Both directions were just proved by its handshake, so routes over it are used at once.
    pub fn neighbour_up(&mut self, now: Instant, link: LinkId, peer: NodeId, kind: IfaceKind) {
        if self.closed || self.neighbours.contains_key(&link) {
            return;
        }
        if self.neighbours.len() >= MAX_NEIGHBOURS {
            self.stats.overflows += 1;
            return;
        }
        let mut neighbour = Neighbour::new(now, peer, kind, self.rng.next_u64());
        neighbour.handle_timeout(now, Duration::ZERO);
        neighbour.full_dump_started = Some(now);
        neighbour.dump_at = now + UPDATE_INTERVAL - self.jitter(UPDATE_INTERVAL / 8);
        neighbour.outbox.start_over(0);
        // An empty queue takes one request.
        let _ = neighbour.outbox.queue_request(Request::Route(None), 0);
        self.neighbours.insert(link, neighbour);
        self.flush(now);
    }

    /// A link went down: its routes are gone at once.
    pub fn neighbour_down(&mut self, now: Instant, link: LinkId) {
        if self.neighbours.remove(&link).is_none() {
            return;
        }
        self.rtts.remove(&link);
        self.requests.forget(link);
        let mut changed = BTreeSet::new();
        for (prefix, entry) in &mut self.table.entries {
            let before = entry.routes.len();
            entry.routes.retain(|route| route.link != link);
            let released = entry.release(link, None);
            if entry.routes.len() != before || released {
                changed.insert(*prefix);
            }
        }
        self.reselect_all(now, changed);
        self.flush(now);
    }

    /// A Babel packet came over a link.
    pub fn handle_packet(&mut self, now: Instant, link: LinkId, packet: &[u8]) {
        if self.closed || !self.neighbours.contains_key(&link) {
            return;
        }
        self.receive(now, link, packet);
        self.flush(now);
    }

    /// The prefixes to announce beside the node's own /64 and IPv4 /32: default routes of a gateway. Others than those
    /// that neighbours would take are ignored.
    pub fn set_announced(&mut self, now: Instant, prefixes: &[Prefix]) {
        let mut wanted = alloc::vec![lan_prefix(&self.id), Prefix::host(node_address_v4(&self.id).into())];
        wanted.extend(prefixes.iter().filter(|prefix| prefix.is_default() || follows(prefix, &self.id)));
        wanted.sort_unstable();
        wanted.dedup();
        let changed: BTreeSet<_> = self.origins.set(&wanted).into_iter().collect();
        for prefix in &changed {
            self.table.own_entry(*prefix);
        }
        self.reselect_all(now, changed);
        self.flush(now);
    }

    /// Whose default routes are taken from now on.
    pub fn set_gateways(&mut self, now: Instant, policy: GatewayPolicy) {
        if self.gateways == policy {
            return;
        }
        self.gateways = policy;
        for prefix in [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6] {
            if let Some(entry) = self.table.get_mut(&prefix) {
                let gateways = &self.gateways;
                for route in entry.routes.extract_if(.., |route| !gateways.allows(&route.source.owner)) {
                    if let Some(neighbour) = self.neighbours.get_mut(&route.link) {
                        neighbour.routes = neighbour.routes.saturating_sub(1);
                    }
                }
            }
            for neighbour in self.neighbours.values_mut() {
                if neighbour.outbox.queue_request(Request::Route(Some(prefix)), 0).is_err() {
                    self.stats.overflows += 1;
                }
            }
            self.reselect_all(now, [prefix].into());
        }
        self.flush(now);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.neighbour_timers(now);
        self.repeat_requests(now);
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck_at = None;
            let prefixes = core::mem::take(&mut self.recheck);
            self.reselect_all(now, prefixes);
        }
        if self.sweep_at <= now {
            self.sweep(now);
        }
        self.flush(now);
    }

    /// Retracts everything that this node announced, on all links at once. Nothing happens after it but polling.
    pub fn shutdown(&mut self, _now: Instant) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        for link in self.neighbours.keys().copied().collect::<Vec<_>>() {
            let Some(counter) = self.neighbours.get(&link).map(|neighbour| neighbour.packet) else { continue };
            self.write_alone(link, |writer| {
                writer.packet_counter(counter)?;
                writer.update(&RETRACT_ALL)
            });
        }
    }

    /// The next packet to send, and over which link: at most 1200 bytes.
    pub fn poll_packet(&mut self) -> Option<(LinkId, Vec<u8>)> {
        self.packets.pop_front()
    }

    /// The next thing that changed. Of several changes to one prefix between two polls only the last is told.
    pub fn poll_event(&mut self) -> Option<RouteEvent> {
        while let Some(prefix) = self.dirty.pop_first() {
            let current = self.table.get(&prefix).and_then(|entry| entry.selected_route()).map(|route| Shown {
                via: route.link,
                metric: route.metric(),
                owner: route.source.owner,
                router_id: route.source.router_id,
            });
            match current {
                Some(current) => {
                    if self.shown.insert(prefix, current) != Some(current) {
                        let Shown { via, metric, owner, router_id } = current;
                        return Some(RouteEvent::Changed { prefix, via, metric, owner, router_id });
                    }
                }
                None => {
                    if self.shown.remove(&prefix).is_some() {
                        return Some(RouteEvent::Removed { prefix });
                    }
                }
            }
        }
        self.rtts.pop_first().map(|(link, rtt)| RouteEvent::Rtt { link, rtt })
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let neighbours =
            self.neighbours.values().flat_map(|neighbour| [Some(neighbour.next()), neighbour.outbox.next()]);
        neighbours.chain([self.requests.next(), self.recheck_at, Some(self.sweep_at)]).flatten().min()
    }

    /// The neighbours, for display.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourInfo> + '_ {
        self.neighbours.iter().map(|(link, neighbour)| NeighbourInfo {
            link: *link,
            peer: neighbour.peer,
            cost: neighbour.cost,
            rxcost: neighbour.rxcost(),
            txcost: neighbour.txcost(),
            rtt: neighbour.rtt.smoothed(),
        })
    }

    /// All routes that neighbours announce, for display, by prefix.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> + '_ {
        self.table.entries.iter().flat_map(move |(prefix, entry)| {
            entry.routes.iter().filter(|route| route.refmetric != INFINITY).map(move |route| RouteInfo {
                prefix: *prefix,
                via: route.link,
                metric: route.metric(),
                refmetric: route.refmetric,
                owner: route.source.owner,
                router_id: route.source.router_id,
                seqno: route.seqno,
                selected: entry.selected == Some(route.link),
                feasible: self.sources.is_feasible(prefix, &route.source, route.seqno, route.refmetric),
            })
        })
    }

    /// The router-id of this run.
    #[must_use]
    pub fn router_id(&self) -> RouterId {
        self.router_id
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        self.stats
    }

    /// A random part of a duration.
    pub(super) fn jitter(&mut self, of: Duration) -> Duration {
        of * (self.rng.next_u32() >> 16) / 0x1_0000
    }

    /// Hands a packet out.
    pub(super) fn push_packet(&mut self, link: LinkId, packet: &[u8]) {
        if self.packets.len() >= MAX_PACKETS {
            self.stats.overflows += 1;
            return;
        }
        self.stats.sent_packets += 1;
        self.stats.sent_bytes += packet.len() as u64;
        self.packets.push_back((link, packet.to_vec()));
    }

    fn neighbour_timers(&mut self, now: Instant) {
        let mut changed = BTreeSet::new();
        let mut released = Vec::new();
        for link in self.neighbours.keys().copied().collect::<Vec<_>>() {
            let jitter = self.jitter(super::neighbour::HELLO_INTERVAL / 8);
            let dump_jitter = self.jitter(UPDATE_INTERVAL / 8);
            let Some(neighbour) = self.neighbours.get_mut(&link) else { continue };
            neighbour.handle_timeout(now, jitter);
            if neighbour.dump_at <= now {
                neighbour.dump_at = now + UPDATE_INTERVAL - dump_jitter;
                neighbour.outbox.start_dump(false);
            }
            let (late, given_up) = neighbour.outbox.expire(now);
            self.stats.retransmitted += late as u64;
            released.extend(given_up.into_iter().map(|(prefix, hold)| (prefix, hold, link)));
            if neighbour.update_cost() {
                changed.append(&mut self.recost(now, link));
            }
        }
        for (prefix, hold, link) in released {
            if self.table.get_mut(&prefix).is_some_and(|entry| entry.release(link, Some(hold))) {
                changed.insert(prefix);
            }
        }
        self.reselect_all(now, changed);
    }

    /// A link's cost changed: all routes over it are another metric. Gives their prefixes.
    pub(super) fn recost(&mut self, now: Instant, link: LinkId) -> BTreeSet<Prefix> {
        let Some(cost) = self.neighbours.get(&link).map(|neighbour| neighbour.cost) else { return BTreeSet::new() };
        let mut changed = BTreeSet::new();
        for (prefix, entry) in &mut self.table.entries {
            if let Some(route) = entry.route_mut(link) {
                route.update_metric(now, route.refmetric, cost);
                changed.insert(*prefix);
            }
        }
        changed
    }

    /// Drops what has expired, and asks about selected routes that are about to.
    fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + SWEEP_INTERVAL;
        self.sources.collect(now);
        let mut changed = BTreeSet::new();
        for (prefix, entry) in &mut self.table.entries {
            for route in entry.routes.extract_if(.., |route| route.expires <= now) {
                if let Some(neighbour) = self.neighbours.get_mut(&route.link) {
                    neighbour.routes = neighbour.routes.saturating_sub(1);
                }
                changed.insert(*prefix);
            }
            let Some(selected) = entry.selected else { continue };
            let Some(route) = entry.route_mut(selected) else { continue };
            if route.expires - REFRESH_BEFORE <= now
                && route.refreshed.is_none_or(|asked| now.since(asked) >= REFRESH_INTERVAL)
                && let Some(neighbour) = self.neighbours.get_mut(&selected)
            {
                route.refreshed = Some(now);
                // No room: asked again at the next sweep after the interval.
                let _ = neighbour.outbox.queue_request(Request::Route(Some(*prefix)), 0);
            }
        }
        self.reselect_all(now, changed);
    }
}
