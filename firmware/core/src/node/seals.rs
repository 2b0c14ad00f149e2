//! Seals: sessions from end to end with nodes that are not neighbours (design, section 6). They are links in all but
//! these: their underlay is the mesh, routing knows nothing of them, they are made when somebody wants one and end when
//! nobody uses them.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{cmp::Reverse, net::SocketAddr, time::Duration};

use grange_wire::{ControlFrame, NodeId, Prefix, SEAL_PORT, node_address};

use super::{host::Host, links::Link, membership::Membership};
use crate::{DownReason, Endpoint, IfaceId, Instant, LinkId, link::TokenBucket};

/// Seals of one node: a gateway has one with each member of a town, and each costs about five kilobytes.
pub(super) const SEALS_MAX: usize = 512;

/// Places of them that are there for what this node wants itself, however much others keep in use.
const OWN_PLACES: usize = 256;

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

/// The public key of an invitation, by which a node came into the town.
pub(super) type InvitationKey = [u8; 32];

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

/// Which of all the places' holders gives its own up for a newcomer, if any does. An invitation may be used by any number
/// of identities, so nodes that came by the same one share what there is:
///
/// 1. What this node wants itself takes others' places until it has [`OWN_PLACES`], and never loses so many to others.
/// 2. Whoever came by an invitation that holds fewer places takes one of that which holds the most. So nobody crowds out
///    those who came otherwise. The steward vouches for each node that he signed for himself: such a one is alone.
/// 3. Else a place is free that was unused for [`IN_USE`], of an invitation that holds no fewer.
///
/// Of several, one of the invitation that holds the most, and of these the one that was unused the longest. For what this
/// node wants, what others send is no use.
fn who_makes_room(
    seals: &[(LinkId, &Link)],
    now: Instant,
    wanted: bool,
    invitation: Option<&InvitationKey>,
) -> Option<LinkId> {
    let mut crowds: BTreeMap<&InvitationKey, usize> = BTreeMap::new();
    for key in seals.iter().filter_map(|(_, link)| link.invitation.as_ref()) {
        *crowds.entry(key).or_default() += 1;
    }
    let crowd = |link: &Link| link.invitation.as_ref().and_then(|key| crowds.get(key)).map_or(1, |count| *count);
    let largest = crowds.values().copied().max().unwrap_or(1);
    let newcomers = invitation.and_then(|key| crowds.get(key)).copied().unwrap_or(0);
    let own = seals.iter().filter(|(_, link)| link.wanted).count();
    let last = |link: &Link| if wanted { link.usage.ours } else { link.usage.either };
    let oldest = |may: &dyn Fn(&Link) -> bool| {
        let these = seals.iter().filter(|(_, link)| may(link));
        these.min_by_key(|(_, link)| (Reverse(crowd(link)), last(link))).map(|(id, _)| *id)
    };
    let open = |link: &Link| wanted || !link.wanted || own > OWN_PLACES;
    let reserved = (wanted && own < OWN_PLACES).then(|| oldest(&|link| !link.wanted)).flatten();
    let crowded = || if newcomers + 1 < largest { oldest(&|link| open(link) && crowd(link) == largest) } else { None };
    let idle = |link: &Link| open(link) && crowd(link) >= newcomers && now.since(last(link)) >= IN_USE;
    reserved.or_else(crowded).or_else(|| oldest(&idle))
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

    /// Makes room for a seal with whoever came; `false`: all are in use. `wanted`: by this node; `invitation`: the key of
    /// the one that the other end is in the town by.
    pub(super) fn room_for_seal(
        &mut self,
        host: &mut Host,
        now: Instant,
        wanted: bool,
        invitation: Option<&InvitationKey>,
    ) -> bool {
        let seals: Vec<(LinkId, &Link)> =
            self.links.iter().filter(|(_, link)| link.is_seal()).map(|(id, link)| (*id, link)).collect();
        if seals.len() < SEALS_MAX {
            return true;
        }
        let Some(victim) = who_makes_room(&seals, now, wanted, invitation) else { return false };
        self.end_seal(host, now, victim);
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
