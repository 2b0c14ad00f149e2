//! Route selection (RFC 8966, section 3.6) and what follows from it: who is told, and what is asked for.

use alloc::{collections::BTreeSet, vec::Vec};

use grange_wire::{
    Prefix, RouterId,
    babel::{INFINITY, Seqno, SeqnoRequest},
};

use super::{
    outbox::{Request, Urgency},
    route::{Announced, Entry, Hold, Route},
    router::{RECHECK_INTERVAL, Router},
    source::{SourceId, SourceTable},
};
use crate::{Instant, LinkId};

/// Routers that a seqno request of ours may pass.
const HOP_COUNT: u8 = 64;
/// Neighbours that are asked for a later seqno at a time.
const MAX_ASKED: usize = 8;
/// A metric that changed by less is not worth an update before the next regular one.
const SMALL_CHANGE: u16 = 32;

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Nowhere,
    Here,
    Via(LinkId),
}

impl Router {
    /// Selects anew for each of these prefixes.
    pub(super) fn reselect_all(&mut self, now: Instant, prefixes: BTreeSet<Prefix>) {
        for prefix in prefixes {
            self.reselect(now, &prefix);
        }
    }

    fn reselect(&mut self, now: Instant, prefix: &Prefix) {
        self.settle_clash(prefix);
        // A second round is needed where a retraction has nobody to wait for.
        for _ in 0..2 {
            let (choice, target) = self.choose(now, prefix);
            let Some(entry) = self.table.get_mut(prefix) else { return };
            let must_hold = match (entry.announced, target) {
                (Some(_), None) => true,
                (Some(old), Some(new)) => old.source != new.source && choice != Choice::Here,
                (None, _) => false,
            };
            if !must_hold {
                self.take(now, prefix, choice, target);
                break;
            }
            if !self.hold(now, prefix) {
                break;
            }
        }
        self.dirty.insert(*prefix);
        self.ask_for_better(now, prefix);
        if self.table.get(prefix).is_some_and(Entry::is_idle) {
            self.table.entries.remove(prefix);
        }
    }

    /// The best way to a prefix, and what would be announced for it.
    fn choose(&mut self, now: Instant, prefix: &Prefix) -> (Choice, Option<Announced>) {
        if let Some(seqno) = self.origins.seqno(prefix) {
            let source = SourceId { router_id: self.router_id, owner: self.id };
            return (Choice::Here, Some(Announced { source, seqno, metric: 0 }));
        }
        let Some(entry) = self.table.get(prefix) else { return (Choice::Nowhere, None) };
        let usable = |route: &&Route| is_usable(&self.sources, prefix, route);
        let key = |route: &&Route| (route.metric(), route.link);
        let current = entry.selected_route().filter(usable);
        let best = match current {
            None => entry.routes.iter().filter(usable).min_by_key(key),
            Some(current) => {
                let better: Vec<_> =
                    entry.routes.iter().filter(usable).filter(|route| is_better(route, current)).collect();
                let lasting = better.iter().filter(|route| route.smoothed(now) < current.smoothed(now));
                let best = lasting.min_by_key(|route| key(route)).copied();
                if best.is_none() && !better.is_empty() {
                    self.recheck.insert(*prefix);
                    self.recheck_at.get_or_insert(now + RECHECK_INTERVAL);
                }
                Some(best.unwrap_or(current))
            }
        };
        match best {
            None => (Choice::Nowhere, None),
            Some(route) => (
                Choice::Via(route.link),
                Some(Announced { source: route.source, seqno: route.seqno, metric: route.metric() }),
            ),
        }
    }

    /// The route of an originator that neighbours were told of is gone. Before packets take one of another originator, of
    /// whose seqnos the feasibility condition knows nothing, no neighbour may send packets here any more: all must acknowledge
    /// the retraction. Gives whether nobody is left to wait for.
    fn hold(&mut self, now: Instant, prefix: &Prefix) -> bool {
        let Some(entry) = self.table.get_mut(prefix) else { return false };
        entry.selected = None;
        let links: BTreeSet<_> = self.neighbours.keys().copied().collect();
        let begins = entry.hold.is_none();
        let hold = entry.hold.get_or_insert_with(|| {
            self.next_hold += 1;
            Hold { id: self.next_hold, waiting: links.clone() }
        });
        if hold.waiting.is_empty() {
            (entry.hold, entry.announced) = (None, None);
            return true;
        }
        if begins {
            for link in links {
                self.queue_for(now, link, *prefix, Urgency::Urgent, false);
            }
        }
        false
    }

    /// Packets go this way from now on.
    fn take(&mut self, now: Instant, prefix: &Prefix, choice: Choice, target: Option<Announced>) {
        let Some(entry) = self.table.get_mut(prefix) else { return };
        let before = entry.selected;
        let held = entry.hold.take().is_some();
        entry.selected = if let Choice::Via(link) = choice { Some(link) } else { None };
        let Some(new) = target else { return };
        let news = match entry.announced {
            Some(old) if !held && old.source == new.source => news(&old, &new),
            _ => Some((Urgency::Urgent, true)),
        };
        let first = entry.announced.is_none();
        if news.is_some() {
            entry.announced = Some(new);
        }
        let selected = entry.selected;
        for waiting in self.requests.satisfied(prefix, new.source.router_id, new.seqno) {
            self.queue_for(now, waiting, *prefix, Urgency::Immediate, true);
        }
        let moved = selected != before && !first;
        if news.is_none() && !moved {
            return;
        }
        let links: Vec<_> = self.neighbours.keys().copied().collect();
        for link in links {
            if Some(link) == selected {
                // It sends nothing through us, unless it heard of us before it became our next hop.
                if moved {
                    self.queue_for(now, link, *prefix, Urgency::Urgent, false);
                }
            } else if Some(link) == before && moved {
                // It was told nothing as long as it was our next hop.
                self.queue_for(now, link, *prefix, Urgency::Urgent, true);
            } else if let Some((urgency, proof)) = news {
                self.queue_for(now, link, *prefix, urgency, proof);
            }
        }
    }

    /// Asks for a later seqno where only that makes a route usable: when there is none (section 3.8.2.1), and when one
    /// is better than what is used (section 3.8.2.2).
    fn ask_for_better(&mut self, now: Instant, prefix: &Prefix) {
        if self.origins.announces(prefix) {
            return;
        }
        let Some(entry) = self.table.get(prefix) else { return };
        let limit = entry.selected_route().map_or(INFINITY, Route::metric);
        let mut wanted: Vec<(RouterId, Seqno)> = entry
            .routes
            .iter()
            .filter(|route| route.metric() < limit && !is_usable(&self.sources, prefix, route))
            .filter_map(|route| Some((route.source.router_id, self.sources.wanted_seqno(prefix, &route.source)?)))
            .collect();
        wanted.sort_unstable_by_key(|(router_id, seqno)| (*router_id, seqno.0));
        wanted.dedup();
        for (router_id, seqno) in wanted {
            let links = self.who_could_answer(prefix, router_id);
            match self.requests.ask(now, *prefix, router_id, seqno, &links) {
                Ok(true) => self.send_seqno_request(*prefix, router_id, seqno, links),
                Ok(false) => {}
                Err(_) => self.stats.overflows += 1,
            }
        }
    }

    /// Repeats the seqno requests of our own that are due, as long as somebody could answer them and, after a while,
    /// only for prefixes without any usable route.
    pub(super) fn repeat_requests(&mut self, now: Instant) {
        for (prefix, router_id, seqno, often) in self.requests.due(now) {
            let links = self.who_could_answer(&prefix, router_id);
            let has_route = self.table.get(&prefix).is_some_and(|entry| entry.selected.is_some());
            if links.is_empty() || (often && has_route) {
                self.requests.give_up(prefix, router_id);
            } else {
                self.send_seqno_request(prefix, router_id, seqno, links);
            }
        }
    }

    /// The neighbours whose routes a later seqno would make usable, the best first.
    fn who_could_answer(&self, prefix: &Prefix, router_id: RouterId) -> Vec<LinkId> {
        let Some(entry) = self.table.get(prefix) else { return Vec::new() };
        let mut links: Vec<_> = entry
            .routes
            .iter()
            .filter(|route| {
                route.metric() != INFINITY
                    && route.source.router_id == router_id
                    && !is_usable(&self.sources, prefix, route)
            })
            .map(|route| (route.metric(), route.link))
            .collect();
        links.sort_unstable();
        links.into_iter().take(MAX_ASKED).map(|(_, link)| link).collect()
    }

    fn send_seqno_request(&mut self, prefix: Prefix, router_id: RouterId, seqno: Seqno, links: Vec<LinkId>) {
        let request = Request::Seqno(SeqnoRequest { prefix, seqno, hop_count: HOP_COUNT, router_id });
        for link in links {
            self.queue_request(link, request);
        }
    }
}

/// Whether packets may take a route: it leads somewhere and meets the feasibility condition now, not only when it came.
fn is_usable(sources: &SourceTable, prefix: &Prefix, route: &Route) -> bool {
    route.metric() != INFINITY && sources.is_feasible(prefix, &route.source, route.seqno, route.refmetric)
}

/// Whether it is worth leaving `current`. Going over to another originator costs a short silence (see [`Router::hold`]) and
/// breaks the flows that a gateway translates, so it must be better by a quarter.
fn is_better(route: &Route, current: &Route) -> bool {
    if route.source == current.source {
        route.metric() < current.metric()
    } else {
        u32::from(route.metric()) * 4 < u32::from(current.metric()) * 3
    }
}

/// How a change of a known route is told: how soon, and with a proof or without.
fn news(old: &Announced, new: &Announced) -> Option<(Urgency, bool)> {
    let change = old.metric.abs_diff(new.metric);
    if u32::from(change) * 4 >= u32::from(old.metric) && change >= SMALL_CHANGE {
        Some((Urgency::Urgent, old.seqno != new.seqno))
    } else if old.seqno != new.seqno {
        Some((Urgency::Calm, true))
    } else if change >= SMALL_CHANGE {
        Some((Urgency::Calm, false))
    } else {
        None
    }
}
