//! The route table (RFC 8966, section 3.2.6).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use grange_wire::{
    Prefix,
    babel::{INFINITY, Seqno},
};

use super::{proof::Proof, source::SourceId};
use crate::{Instant, LinkId};

/// Prefixes at most.
pub(super) const MAX_PREFIXES: usize = 4096;
/// Routes to one prefix at most.
pub(super) const MAX_ROUTES_PER_PREFIX: usize = 32;
/// Half the difference between a route's metric and its smoothed metric is gone after this time (appendix A.3).
const HALF_LIFE: Duration = Duration::from_secs(2);
/// What a route that was just retracted counts for more, at first, when it comes back.
const FLAP_PENALTY: u32 = 256;

/// A route that a neighbour announced.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) link: LinkId,
    pub(super) source: SourceId,
    pub(super) seqno: Seqno,
    /// The neighbour's metric; infinite: retracted, kept for a moment.
    pub(super) refmetric: u16,
    pub(super) proof: Proof,
    pub(super) expires: Instant,
    /// When we asked the neighbour whether the route still stands.
    pub(super) refreshed: Option<Instant>,
    /// Counter of the packet that brought the last word on this route.
    pub(super) packet: Option<u32>,
    metric: u16,
    smoothed: u32,
    since: Instant,
}

impl Route {
    #[expect(clippy::too_many_arguments, reason = "the fields of an announcement")]
    pub(super) fn new(
        now: Instant,
        link: LinkId,
        source: SourceId,
        seqno: Seqno,
        refmetric: u16,
        cost: u16,
        proof: Proof,
        expires: Instant,
        packet: Option<u32>,
    ) -> Self {
        let metric = total(refmetric, cost);
        let smoothed = u32::from(metric);
        Self { link, source, seqno, refmetric, proof, expires, refreshed: None, packet, metric, smoothed, since: now }
    }

    /// Metric of the whole way, the link included.
    pub(super) fn metric(&self) -> u16 {
        self.metric
    }

    /// The metric as it was over the last seconds, which decides between two usable routes.
    pub(super) fn smoothed(&self, now: Instant) -> u32 {
        let (target, elapsed) = (u32::from(self.metric), now.since(self.since));
        let halves = elapsed.as_micros() / HALF_LIFE.as_micros();
        let Ok(halves) = u32::try_from(halves) else { return target };
        let part = elapsed.as_micros() % HALF_LIFE.as_micros();
        let difference = self.smoothed.abs_diff(target).checked_shr(halves).unwrap_or(0);
        // Between two halvings a straight line does.
        let gone = u32::try_from(u128::from(difference) * part / (HALF_LIFE.as_micros() * 2)).unwrap_or(0);
        let left = difference - gone;
        if self.smoothed < target { target - left } else { target + left }
    }

    /// The neighbour's metric or the cost of its link changed.
    pub(super) fn update_metric(&mut self, now: Instant, refmetric: u16, cost: u16) {
        self.refmetric = refmetric;
        let metric = total(refmetric, cost);
        if metric == self.metric {
            return;
        }
        self.smoothed = if self.metric == INFINITY { u32::from(metric) + FLAP_PENALTY } else { self.smoothed(now) };
        if metric == INFINITY {
            self.smoothed = u32::from(INFINITY);
        }
        (self.metric, self.since) = (metric, now);
    }
}

/// Cost of a way over a link (section 3.5.2).
pub(super) fn total(refmetric: u16, cost: u16) -> u16 {
    refmetric.saturating_add(cost)
}

/// What the neighbours were told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) source: SourceId,
    pub(super) seqno: Seqno,
    pub(super) metric: u16,
}

/// A retraction that goes out.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// Tells this retraction from earlier ones, whose acknowledgements may still come.
    pub(super) id: u64,
    /// The neighbours that did not acknowledge it yet.
    pub(super) waiting: BTreeSet<LinkId>,
}

/// All that is known of one prefix.
#[derive(Clone, Default)]
pub(super) struct Entry {
    pub(super) routes: Vec<Route>,
    /// The route that packets take.
    pub(super) selected: Option<LinkId>,
    /// What neighbours may believe that packets can take through us. Forgotten when all of them acknowledged the
    /// retraction.
    pub(super) announced: Option<Announced>,
    /// While a retraction goes out.
    pub(super) hold: Option<Hold>,
}

impl Entry {
    pub(super) fn route(&self, link: LinkId) -> Option<&Route> {
        self.routes.iter().find(|route| route.link == link)
    }

    pub(super) fn route_mut(&mut self, link: LinkId) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.link == link)
    }

    pub(super) fn selected_route(&self) -> Option<&Route> {
        self.route(self.selected?)
    }

    /// `link` acknowledged the retraction `id`, or never will; `None`: whichever. Gives whether nobody is left to wait for.
    pub(super) fn release(&mut self, link: LinkId, id: Option<u64>) -> bool {
        self.hold.as_mut().is_some_and(|hold| {
            id.is_none_or(|id| id == hold.id) && hold.waiting.remove(&link) && hold.waiting.is_empty()
        })
    }

    /// Whether the entry says nothing any more.
    pub(super) fn is_idle(&self) -> bool {
        self.routes.is_empty() && self.announced.is_none() && self.hold.is_none()
    }
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoutesFull;

/// Entries by prefix.
#[derive(Default)]
pub(super) struct RouteTable {
    pub(super) entries: BTreeMap<Prefix, Entry>,
}

impl RouteTable {
    pub(super) fn get(&self, prefix: &Prefix) -> Option<&Entry> {
        self.entries.get(prefix)
    }

    pub(super) fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut Entry> {
        self.entries.get_mut(prefix)
    }

    /// The entry for a prefix, made if there is room.
    ///
    /// # Errors
    ///
    /// [`RoutesFull`].
    pub(super) fn entry(&mut self, prefix: Prefix) -> Result<&mut Entry, RoutesFull> {
        if !self.entries.contains_key(&prefix) && self.entries.len() >= MAX_PREFIXES {
            return Err(RoutesFull);
        }
        Ok(self.entries.entry(prefix).or_default())
    }

    /// The entry for a prefix of our own. There are few, and they come before others'.
    pub(super) fn own_entry(&mut self, prefix: Prefix) -> &mut Entry {
        self.entries.entry(prefix).or_default()
    }

    /// The prefixes to which `link` announced something.
    pub(super) fn prefixes_via(&self, link: LinkId) -> Vec<Prefix> {
        self.entries.iter().filter(|(_, entry)| entry.route(link).is_some()).map(|(prefix, _)| *prefix).collect()
    }
}

#[cfg(test)]
mod tests {
    use grange_wire::{NodeId, RouterId, TownId};

    use super::*;
    use crate::{Identity, babel::proof::Claim};

    fn route(metric: u16) -> Route {
        let claim = Claim { prefix: Prefix::DEFAULT_V6, router_id: RouterId([1; 8]), seqno: Seqno(0) };
        let proof = claim.sign(&TownId([0; 16]), &Identity::from_seed(&[0; 32]));
        let source = SourceId { router_id: RouterId([1; 8]), owner: NodeId([0; 32]) };
        let now = Instant::START;
        Route::new(now, LinkId(1), source, Seqno(0), metric, 96, proof, now, None)
    }

    #[test]
    fn metrics_add_up_to_infinity_at_most() {
        assert_eq!(total(0, 96), 96);
        assert_eq!(total(65_500, 96), INFINITY);
        assert_eq!(total(INFINITY, 1), INFINITY);
    }

    #[test]
    fn the_smoothed_metric_follows_by_halves() {
        let mut route = route(4);
        assert_eq!(route.smoothed(Instant::START), 100);
        route.update_metric(Instant::START, 404, 96);
        assert_eq!(route.metric(), 500);
        assert_eq!(route.smoothed(Instant::START), 100);
        assert_eq!(route.smoothed(Instant::START + HALF_LIFE / 2), 200);
        assert_eq!(route.smoothed(Instant::START + HALF_LIFE), 300);
        assert_eq!(route.smoothed(Instant::START + HALF_LIFE * 2), 400);
        assert_eq!(route.smoothed(Instant::START + HALF_LIFE * 40), 500);
    }

    #[test]
    fn a_route_that_comes_back_must_prove_itself() {
        let mut route = route(4);
        route.update_metric(Instant::START, INFINITY, 96);
        assert_eq!(route.metric(), INFINITY);
        route.update_metric(Instant::START, 4, 96);
        assert_eq!((route.metric(), route.smoothed(Instant::START)), (100, 356));
    }

    #[test]
    fn the_last_acknowledgement_ends_the_hold() {
        let hold = Hold { id: 7, waiting: [LinkId(1), LinkId(2)].into() };
        let mut entry = Entry { hold: Some(hold), ..Entry::default() };
        assert!(!entry.release(LinkId(1), Some(7)));
        assert!(!entry.release(LinkId(1), None));
        assert!(!entry.release(LinkId(2), Some(6)), "of an earlier retraction");
        assert!(entry.release(LinkId(2), Some(7)));
    }

    #[test]
    fn the_number_of_prefixes_is_bounded() {
        let mut table = RouteTable::default();
        for number in 0..MAX_PREFIXES as u32 {
            table.entry(Prefix::host(core::net::Ipv4Addr::from(number).into())).unwrap();
        }
        assert!(table.entry(Prefix::DEFAULT_V6).is_err());
        assert!(table.entry(Prefix::host(core::net::Ipv4Addr::from(7).into())).is_ok());
    }
}
