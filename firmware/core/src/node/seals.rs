//! Seals: sessions from end to end with nodes that are not neighbours (design, section 6). They are links in all but
//! these: their underlay is the mesh, routing knows nothing of them, they are made when somebody wants one and end when
//! nobody uses them.

use alloc::collections::BTreeMap;
use core::{net::SocketAddr, time::Duration};

use grange_wire::{ControlFrame, NodeId, Prefix, SEAL_PORT, node_address};

use super::{host::Host, links::Link, membership::Membership};
use crate::{DownReason, Endpoint, IfaceId, Instant, LinkId, link::TokenBucket};

/// Seals of one node: a gateway has one with each member of a town, and each costs about five kilobytes.
pub(super) const SEALS_MAX: usize = 512;

/// A seal without data frames in either direction for so long ends.
const IDLE: Duration = Duration::from_secs(180);

/// Where there is no room, a seal that was used within this time is not given up for another.
const IN_USE: Duration = Duration::from_secs(10);

/// Who is wanted is looked for until so long after the last who wanted.
pub(super) const WANTED: Duration = Duration::from_secs(8);

/// A destination is looked for anew at most so often, however short its seals live.
const AGAIN: Duration = Duration::from_secs(1);

/// All destinations together. Also bounds what [`Wants`] remembers.
const WANT_INTERVAL: Duration = Duration::from_millis(8);
const WANT_BURST: u32 = 128;

/// About so long after a change of routes or links the search for what passes begins: within a tenth of it, not at once.
pub(super) const REROUTE_PAUSE: Duration = Duration::from_secs(1);

/// The destinations that were looked for within the last moment.
pub(super) struct Wants {
    begun: BTreeMap<Endpoint, Instant>,
    bucket: TokenBucket,
}

impl Wants {
    pub(super) const fn new() -> Self {
        Self { begun: BTreeMap::new(), bucket: TokenBucket::new(WANT_INTERVAL, WANT_BURST) }
    }

    /// When to begin to look for this one; `None`: too many others are looked for.
    fn begin(&mut self, now: Instant, at: Endpoint) -> Option<Instant> {
        if !self.bucket.take(now) {
            return None;
        }
        self.begun.retain(|_, begun| now < *begun + AGAIN);
        let start = self.begun.get(&at).map_or(now, |begun| *begun + AGAIN);
        self.begun.insert(at, start);
        Some(start)
    }
}

/// How a seal is used, by its data frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// In either direction.
    either: Instant,
    /// By us: what the other end sends shows no need of ours.
    ours: Instant,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self { either: now, ours: now }
    }

    /// Data frames were sent or received.
    pub(super) fn used(&mut self, now: Instant, sent: bool, received: bool) {
        if sent {
            self.ours = now;
        }
        if sent || received {
            self.either = now;
        }
    }

    /// When data went last.
    pub(super) fn last(&self) -> Instant {
        self.either
    }

    /// When it is idle for too long.
    pub(super) fn timeout(&self) -> Instant {
        self.either + IDLE
    }
}

/// Where a node is reached over the mesh.
pub(super) fn place_of(id: &NodeId) -> Endpoint {
    Endpoint { iface: IfaceId::MESH, addr: SocketAddr::new(node_address(id).into(), SEAL_PORT) }
}

impl Membership {
    /// A packet for `peer` waits.
    pub(super) fn want_seal(&mut self, host: &mut Host, now: Instant, peer: NodeId) {
        let at = place_of(&peer);
        if peer == host.identity.id() || !host.is_up(IfaceId::MESH) || self.live_link_at(&at).is_some() {
            return;
        }
        if self.want_attempt(now, at) {
            return;
        }
        match self.wants.begin(now, at) {
            Some(start) => self.seek_at(host, now, at, start),
            None => host.stats.limited += 1,
        }
    }

    /// Makes room for a seal with whoever came; `false`: all are in use. What this node wants itself goes before what
    /// others keep alive.
    pub(super) fn room_for_seal(&mut self, host: &mut Host, now: Instant, wanted: bool) -> bool {
        let seals = self.links.iter().filter(|(_, link)| link.is_seal());
        if seals.clone().count() < SEALS_MAX {
            return true;
        }
        let last = |link: &Link| if wanted { link.usage.ours } else { link.usage.either };
        let oldest = seals.min_by_key(|(_, link)| last(link)).filter(|(_, link)| now.since(last(link)) >= IN_USE);
        let Some(oldest) = oldest.map(|(id, _)| *id) else { return false };
        self.end_seal(host, now, oldest);
        true
    }

    /// Nobody uses it.
    pub(super) fn end_seal(&mut self, host: &mut Host, now: Instant, id: LinkId) {
        self.send_frame(host, now, id, &ControlFrame::Close);
        self.remove(host, now, id, DownReason::Idle);
    }

    /// The way to `prefix` begins with another link: what passes on it is to be found out.
    pub(super) fn reroute_seals(&mut self, host: &mut Host, now: Instant, prefix: &Prefix, via: LinkId) {
        for link in self.links.values_mut().filter(|link| link.is_seal() && prefix.contains(link.endpoint.addr.ip())) {
            if link.via.replace(via) != Some(via) {
                link.mtu.search_anew(now + host.random.jitter(REROUTE_PAUSE));
            }
        }
    }
}
