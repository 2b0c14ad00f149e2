//! What a neighbour's packet means.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use grange_wire::{
    NodeId, Prefix,
    babel::{Hello, INFINITY, Ihu, Packet, SeqnoRequest, Tlv, Update},
};

use super::{
    neighbour::clock,
    outbox::{Queued, Request, Urgency},
    proof::{Claim, Proof, follows},
    route::{MAX_ROUTES_PER_PREFIX, Route},
    router::{FULL_DUMP_INTERVAL, Router},
    source::SourceId,
};
use crate::{Instant, LinkId};

/// Prefixes that one neighbour may announce: enough for a town of 1,500 nodes, and less than the table holds, so that
/// one neighbour alone cannot fill it.
const MAX_ROUTES_PER_NEIGHBOUR: usize = 3072;
/// A route without a new update for so long expires, whatever interval the neighbour names.
const MAX_EXPIRY: Duration = Duration::from_secs(600);
const MIN_EXPIRY: Duration = Duration::from_secs(2);
/// A retracted route is remembered so long, for packets that were overtaken and for routes that flap.
const RETRACTED: Duration = Duration::from_secs(10);
/// A packet that is so far behind was not overtaken; the neighbour counts anew.
const REORDER_WINDOW: u32 = 4096;

/// Why an Update was not taken.
enum Refusal {
    /// Wrong, or by somebody who may not announce this.
    Refused,
    /// No proof, and none known.
    Unproved,
    /// Our own announcement, come back.
    Own,
}

impl Router {
    /// Takes a packet apart and acts on it.
    pub(super) fn receive(&mut self, now: Instant, link: LinkId, bytes: &[u8]) {
        self.stats.received_packets += 1;
        let Ok(packet) = Packet::parse(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        let mut changed = BTreeSet::new();
        let mut counter = None;
        let (mut hello, mut ihu): (Option<Hello>, Option<Ihu>) = (None, None);
        for tlv in packet.tlvs() {
            match tlv {
                Err(_) => self.stats.malformed += 1,
                Ok(Tlv::AckRequest { opaque, .. }) => {
                    if let Some(neighbour) = self.neighbours.get_mut(&link)
                        && neighbour.outbox.queue_ack(opaque).is_err()
                    {
                        self.stats.overflows += 1;
                    }
                }
                Ok(Tlv::Ack { opaque }) => self.handle_ack(now, link, opaque, &mut changed),
                Ok(Tlv::Hello(tlv)) if tlv.unicast => hello = Some(tlv),
                Ok(Tlv::Hello(_)) => {}
                Ok(Tlv::Ihu(tlv)) => ihu = Some(tlv),
                Ok(Tlv::PacketCounter(number)) => counter = Some(number),
                Ok(Tlv::Update(update)) => self.handle_update(now, link, &update, counter, &mut changed),
                Ok(Tlv::RouteRequest(prefix)) => self.handle_route_request(now, link, prefix),
                Ok(Tlv::SeqnoRequest(request)) => self.handle_seqno_request(now, link, &request),
            }
        }
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            if let Some(hello) = hello {
                neighbour.handle_hello(now, &hello);
            }
            if let Some(ihu) = ihu {
                let transmit = hello.and_then(|hello| hello.timestamp);
                if let Some(rtt) = neighbour.handle_ihu(now, &ihu, transmit) {
                    self.rtts.insert(link, rtt);
                }
            }
            if neighbour.update_cost() {
                changed.append(&mut self.recost(now, link));
            }
        }
        self.reselect_all(now, changed);
    }

    fn handle_ack(&mut self, now: Instant, link: LinkId, opaque: u16, changed: &mut BTreeSet<Prefix>) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(packet) = neighbour.outbox.acknowledged(opaque) else { return };
        neighbour.rtt.acknowledged(clock(now).wrapping_sub(clock(packet.sent)));
        neighbour.handle_ack(now);
        for (prefix, hold) in packet.updates {
            if hold.is_some() && self.table.get_mut(&prefix).is_some_and(|entry| entry.release(link, hold)) {
                changed.insert(prefix);
            }
        }
    }

    /// RFC 8966, section 3.5.3.
    fn handle_update(
        &mut self,
        now: Instant,
        link: LinkId,
        update: &Update<'_>,
        counter: Option<u32>,
        changed: &mut BTreeSet<Prefix>,
    ) {
        let Some(prefix) = update.prefix else {
            for prefix in self.table.prefixes_via(link) {
                if !self.is_overtaken(link, &prefix, counter) {
                    self.retract(now, link, &prefix, counter, changed);
                }
            }
            if let (Some(neighbour), Some(counter)) = (self.neighbours.get_mut(&link), counter) {
                neighbour.cleared = Some(counter);
            }
            return;
        };
        if self.is_overtaken(link, &prefix, counter) {
            return;
        }
        if update.metric == INFINITY {
            self.retract(now, link, &prefix, counter, changed);
            return;
        }
        match self.prove(now, link, &prefix, update) {
            Ok((source, proof)) => self.install(now, link, &prefix, update, source, proof, counter, changed),
            // After a restart it may be one of the run before. It leads nowhere but here.
            Err(Refusal::Own) => self.retract(now, link, &prefix, counter, changed),
            Err(Refusal::Refused) => {
                self.stats.refused += 1;
                // The neighbour does not stand by its old word either.
                self.retract(now, link, &prefix, counter, changed);
            }
            Err(Refusal::Unproved) => {
                self.stats.unproved += 1;
                if let Some(neighbour) = self.neighbours.get_mut(&link)
                    && neighbour.outbox.queue_request(Request::Route(Some(prefix)), 0).is_err()
                {
                    self.stats.overflows += 1;
                }
            }
        }
    }

    /// Whether a later packet already said something about this route.
    fn is_overtaken(&self, link: LinkId, prefix: &Prefix, counter: Option<u32>) -> bool {
        let Some(counter) = counter else { return false };
        let overtaken = |last: u32| (1..=REORDER_WINDOW).contains(&last.wrapping_sub(counter));
        let last = self.table.get(prefix).and_then(|entry| entry.route(link)).and_then(|route| route.packet);
        let neighbour = self.neighbours.get(&link);
        let cleared = neighbour.and_then(|neighbour| neighbour.cleared);
        let withdrawn = neighbour.and_then(|neighbour| neighbour.withdrawn.counter(prefix));
        [last, cleared, withdrawn].into_iter().flatten().any(overtaken)
    }

    /// Who announced the prefix, by the proof in the Update or the one that came with an earlier Update for the same
    /// announcement over the same link.
    fn prove(
        &mut self,
        now: Instant,
        link: LinkId,
        prefix: &Prefix,
        update: &Update<'_>,
    ) -> Result<(SourceId, Proof), Refusal> {
        let router_id = update.router_id.ok_or(Refusal::Refused)?;
        let Some(view) = update.proof else {
            let known = self.table.get(prefix).and_then(|entry| entry.route(link)).filter(|route| {
                route.refmetric != INFINITY && route.source.router_id == router_id && route.seqno == update.seqno
            });
            return known.map(|route| (route.source, route.proof)).ok_or(Refusal::Unproved);
        };
        let owner = NodeId::of_key(view.owner);
        let allowed = if prefix.is_default() { self.gateways.allows(&owner) } else { follows(prefix, &owner) };
        if owner == self.id {
            return Err(Refusal::Own);
        }
        if !allowed || router_id == self.router_id {
            return Err(Refusal::Refused);
        }
        let claim = Claim { prefix: *prefix, router_id, seqno: update.seqno };
        let neighbour = self.neighbours.get_mut(&link).ok_or(Refusal::Refused)?;
        if !self.proofs.contains(&claim, &view) {
            if !neighbour.may_check(now) {
                return Err(Refusal::Refused);
            }
            self.stats.verified += 1;
        }
        match self.proofs.check(&self.town, &claim, &view) {
            Some(proof) => Ok((SourceId { router_id, owner }, proof)),
            None => {
                neighbour.strike();
                Err(Refusal::Refused)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of handle_update, with what the steps before found out")]
    fn install(
        &mut self,
        now: Instant,
        link: LinkId,
        prefix: &Prefix,
        update: &Update<'_>,
        source: SourceId,
        proof: Proof,
        counter: Option<u32>,
        changed: &mut BTreeSet<Prefix>,
    ) {
        if !self.yields_to(prefix, source.owner) {
            return;
        }
        changed.insert(*prefix);
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.withdrawn.forget(prefix);
        let interval = Duration::from_millis(u64::from(update.interval) * 10);
        let expires = now + (interval * 7 / 2).clamp(MIN_EXPIRY, MAX_EXPIRY);
        let known = self.table.get(prefix).is_some_and(|entry| entry.route(link).is_some());
        if !known && neighbour.routes >= MAX_ROUTES_PER_NEIGHBOUR {
            self.stats.overflows += 1;
            return;
        }
        let Ok(entry) = self.table.entry(*prefix) else {
            self.stats.overflows += 1;
            return;
        };
        if let Some(route) = entry.route_mut(link) {
            route.update_metric(now, update.metric, neighbour.cost);
            (route.source, route.seqno, route.proof) = (source, update.seqno, proof);
            (route.expires, route.refreshed) = (expires, None);
            route.packet = counter;
        } else {
            if entry.routes.len() >= MAX_ROUTES_PER_PREFIX {
                self.stats.overflows += 1;
                return;
            }
            neighbour.routes += 1;
            let cost = neighbour.cost;
            entry.routes.push(Route::new(
                now,
                link,
                source,
                update.seqno,
                update.metric,
                cost,
                proof,
                expires,
                counter,
            ));
        }
    }

    /// An IPv4 address that two nodes drew stays with the lower id. Whether `owner` may have this prefix; routes of an owner
    /// that it takes the place of are dropped.
    fn yields_to(&mut self, prefix: &Prefix, owner: NodeId) -> bool {
        if prefix.is_default() {
            return true;
        }
        if self.origins.wants(prefix) && self.id < owner {
            return false;
        }
        let Some(entry) = self.table.get_mut(prefix) else { return true };
        if entry.routes.iter().any(|route| route.refmetric != INFINITY && route.source.owner < owner) {
            return false;
        }
        for route in entry.routes.extract_if(.., |route| route.source.owner != owner) {
            if let Some(neighbour) = self.neighbours.get_mut(&route.link) {
                neighbour.routes = neighbour.routes.saturating_sub(1);
            }
        }
        true
    }

    /// Our own prefix is ours unless a node with a lower id is heard to have it.
    pub(super) fn settle_clash(&mut self, prefix: &Prefix) {
        if prefix.is_default() || !self.origins.wants(prefix) {
            return;
        }
        let lower = self.table.get(prefix).is_some_and(|entry| {
            entry.routes.iter().any(|route| route.refmetric != INFINITY && route.source.owner < self.id)
        });
        self.origins.set_ceded(prefix, lower);
    }

    fn retract(
        &mut self,
        now: Instant,
        link: LinkId,
        prefix: &Prefix,
        counter: Option<u32>,
        changed: &mut BTreeSet<Prefix>,
    ) {
        let Some(route) = self.table.get_mut(prefix).and_then(|entry| entry.route_mut(link)) else {
            if let (Some(neighbour), Some(counter)) = (self.neighbours.get_mut(&link), counter) {
                neighbour.withdrawn.remember(now, *prefix, counter);
            }
            return;
        };
        route.update_metric(now, INFINITY, INFINITY);
        route.expires = now + RETRACTED;
        route.packet = counter;
        changed.insert(*prefix);
    }

    /// RFC 8966, section 3.8.1.1.
    fn handle_route_request(&mut self, now: Instant, link: LinkId, prefix: Option<Prefix>) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        match prefix {
            Some(prefix) => self.queue_for(now, link, prefix, Urgency::Immediate, true),
            None => {
                let recent = neighbour.full_dump_started.is_some_and(|at| now.since(at) < FULL_DUMP_INTERVAL);
                if !recent {
                    neighbour.full_dump_started = Some(now);
                    neighbour.outbox.start_dump(true);
                }
            }
        }
    }

    /// RFC 8966, section 3.8.1.2.
    fn handle_seqno_request(&mut self, now: Instant, from: LinkId, request: &SeqnoRequest) {
        let SeqnoRequest { prefix, seqno, hop_count, router_id } = *request;
        if let Some(own) = self.origins.seqno(&prefix) {
            if router_id == self.router_id && own.is_before(seqno) && self.origins.raise(now, &prefix) {
                self.stats.seqno_increments += 1;
                self.reselect_all(now, [prefix].into());
            }
            self.queue_for(now, from, prefix, Urgency::Immediate, true);
            return;
        }
        let Some(entry) = self.table.get(&prefix) else { return };
        if let Some(route) = entry.selected_route()
            && (route.source.router_id != router_id || !route.seqno.is_before(seqno))
        {
            self.queue_for(now, from, prefix, Urgency::Immediate, true);
            return;
        }
        if hop_count < 2 {
            return;
        }
        // The next hop, or else the best of those from which the request did not come.
        let mut others: Vec<_> = entry
            .routes
            .iter()
            .filter(|route| route.link != from && route.metric() != INFINITY && route.source.router_id == router_id)
            .map(|route| (entry.selected != Some(route.link), route.metric(), route.link))
            .collect();
        others.sort_unstable();
        let Some((_, _, to)) = others.first().copied() else { return };
        match self.requests.forward(now, prefix, router_id, seqno, from) {
            Ok(true) => {
                let request = SeqnoRequest { hop_count: hop_count - 1, ..*request };
                self.queue_request(to, Request::Seqno(request));
            }
            Ok(false) => {}
            Err(_) => self.stats.overflows += 1,
        }
    }

    /// Queues a request to one neighbour.
    pub(super) fn queue_request(&mut self, to: LinkId, request: Request) {
        if let Some(neighbour) = self.neighbours.get_mut(&to)
            && neighbour.outbox.queue_request(request, 0).is_err()
        {
            self.stats.overflows += 1;
        }
    }

    /// Queues an update to one neighbour.
    pub(super) fn queue_for(&mut self, now: Instant, link: LinkId, prefix: Prefix, urgency: Urgency, proof: bool) {
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            let queued = Queued { due: now + urgency.delay(), proof, reliable: urgency > Urgency::Calm, tries: 0 };
            if neighbour.outbox.queue_update(prefix, queued).is_err() {
                self.stats.overflows += 1;
            }
        }
    }
}
