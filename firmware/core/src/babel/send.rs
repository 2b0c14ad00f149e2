//! What goes into packets, and when.

use core::{
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use grange_wire::{
    Prefix,
    babel::{Full, INFINITY, PacketWriter, Seqno, Update},
};

use super::{
    neighbour::Neighbour,
    outbox::{Outbox, Queued, Request, Unacked},
    proof::Proof,
    router::{Router, UPDATE_INTERVAL},
    source::SourceId,
};
use crate::{Instant, LinkId};

/// Bytes of a packet at most: with the link's and UDP's headers it fits an underlay of 1280.
const MAX_PACKET: usize = 1200;
/// Packets to one neighbour at a time.
const BURST: usize = 8;
/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// Nothing that was announced before holds any more (RFC 8966, section 4.6.9).
pub(super) const RETRACT_ALL: Update<'static> =
    Update { prefix: None, interval: 0, seqno: Seqno(0), metric: INFINITY, router_id: None, proof: None };

/// What a neighbour may be told about a prefix.
struct Announcement {
    source: SourceId,
    seqno: Seqno,
    metric: u16,
    proof: Proof,
}

impl Router {
    /// Writes what is due into packets.
    pub(super) fn flush(&mut self, now: Instant) {
        let due = |neighbour: &Neighbour| neighbour.outbox.next().is_some_and(|at| at <= now);
        let links: alloc::vec::Vec<_> =
            self.neighbours.iter().filter(|(_, neighbour)| due(neighbour)).map(|(link, _)| *link).collect();
        for link in links {
            let Some(neighbour) = self.neighbours.get_mut(&link) else { continue };
            let mut outbox = core::mem::take(&mut neighbour.outbox);
            let mut more = true;
            for _ in 0..BURST {
                more = self.write_packet(now, link, &mut outbox);
                if !more {
                    break;
                }
            }
            if more {
                outbox.pause(now + PAUSE);
            }
            if let Some(neighbour) = self.neighbours.get_mut(&link) {
                neighbour.outbox = outbox;
            }
        }
    }

    /// Writes one packet; gives whether there may be more to write.
    fn write_packet(&mut self, now: Instant, link: LinkId, outbox: &mut Outbox) -> bool {
        let mut buf = [0; MAX_PACKET];
        let Ok(mut writer) = PacketWriter::new(&mut buf) else { return false };
        let mut record = Unacked::default();
        let full = self.write_all(now, link, outbox, &mut writer, &mut record).is_err();
        if writer.is_empty() {
            return false;
        }
        let packet = writer.finish();
        self.push_packet(link, packet);
        full
    }

    /// Writes what fits.
    ///
    /// # Errors
    ///
    /// [`Full`] if something is left.
    fn write_all(
        &mut self,
        now: Instant,
        link: LinkId,
        outbox: &mut Outbox,
        writer: &mut PacketWriter<'_>,
        record: &mut Unacked,
    ) -> Result<(), Full> {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return Ok(()) };
        while let Some(opaque) = outbox.acks.front() {
            writer.ack(*opaque)?;
            outbox.acks.pop_front();
        }
        if outbox.hello {
            writer.hello(&neighbour.hello(now))?;
            outbox.hello = false;
        }
        if outbox.ihu {
            writer.ihu(&neighbour.ihu())?;
            outbox.ihu = false;
        }
        if !outbox.may_send(now) {
            return Ok(());
        }
        let due = outbox.due_updates(now);
        let reliable = !outbox.requests.is_empty()
            || outbox.probe.is_some()
            || outbox.dump.is_some_and(|dump| dump.full)
            || due.iter().any(|(_, queued)| queued.reliable);
        let nonce = if reliable {
            let nonce = outbox.next_nonce();
            writer.ack_request(nonce, 10)?;
            Some(nonce)
        } else {
            None
        };
        if outbox.dump.is_some() || !due.is_empty() {
            writer.packet_counter(neighbour.packet)?;
            neighbour.packet = neighbour.packet.wrapping_add(1);
        }
        record.sent = now;
        if let Some(tries) = outbox.probe.take() {
            record.tries = tries;
            record.probe = due.is_empty() && outbox.requests.is_empty() && outbox.dump.is_none();
        }
        let written = self.write_content(now, link, outbox, writer, record, &due);
        if let Some(nonce) = nonce {
            let wait = self.neighbours.get(&link).map_or(PAUSE, |n| n.rtt.retransmit_after(record.tries));
            record.retry = now + wait;
            outbox.sent(nonce, core::mem::take(record));
        }
        written
    }

    fn write_content(
        &mut self,
        now: Instant,
        link: LinkId,
        outbox: &mut Outbox,
        writer: &mut PacketWriter<'_>,
        record: &mut Unacked,
        due: &[(Prefix, Queued)],
    ) -> Result<(), Full> {
        if let Some(tries) = outbox.clear {
            writer.update(&RETRACT_ALL)?;
            outbox.clear = None;
            record.clear = true;
            record.tries = record.tries.max(tries);
        }
        while let Some((request, tries)) = outbox.requests.front().copied() {
            match &request {
                Request::Route(prefix) => writer.route_request(prefix.as_ref())?,
                Request::Seqno(request) => writer.seqno_request(request)?,
            }
            outbox.requests.pop_front();
            record.requests.push(request);
            record.tries = record.tries.max(tries);
        }
        for (prefix, queued) in due {
            self.write_update(now, link, prefix, queued.proof, true, writer)?;
            outbox.written(prefix);
            if queued.reliable {
                let hold = self.table.get(prefix).and_then(|entry| entry.hold.as_ref()).map(|hold| hold.id);
                record.updates.push((*prefix, hold));
                record.tries = record.tries.max(queued.tries);
            }
        }
        while let Some(dump) = outbox.dump {
            let range = (dump.after.map_or(Unbounded, Excluded), Unbounded);
            let Some(prefix) = self.table.entries.range(range).next().map(|(prefix, _)| *prefix) else {
                outbox.dump = None;
                break;
            };
            let announced = self.write_update(now, link, &prefix, dump.full, false, writer)?;
            if announced && dump.full {
                record.updates.push((prefix, None));
            }
            outbox.dump = Some(super::outbox::Dump { after: Some(prefix), ..dump });
        }
        Ok(())
    }

    /// Writes what the neighbour may know of a prefix now; where that is nothing, a retraction if `retract`. Gives whether
    /// it was announced. The source table knows it before the packet leaves (RFC 8966, section 3.7.3).
    fn write_update(
        &mut self,
        now: Instant,
        link: LinkId,
        prefix: &Prefix,
        with_proof: bool,
        retract: bool,
        writer: &mut PacketWriter<'_>,
    ) -> Result<bool, Full> {
        let interval = u16::try_from(UPDATE_INTERVAL.as_millis() / 10).unwrap_or(u16::MAX);
        let announcement = self.announcement(link, prefix).filter(|new| {
            let recorded = self.sources.record(now, prefix, &new.source, new.seqno, new.metric).is_ok();
            self.stats.overflows += u64::from(!recorded);
            recorded
        });
        let Some(new) = announcement else {
            if !retract {
                return Ok(false);
            }
            writer.update(&Update {
                prefix: Some(*prefix),
                interval,
                seqno: Seqno(0),
                metric: INFINITY,
                router_id: None,
                proof: None,
            })?;
            return Ok(false);
        };
        writer.update(&Update {
            prefix: Some(*prefix),
            interval,
            seqno: new.seqno,
            metric: new.metric,
            router_id: Some(new.source.router_id),
            proof: with_proof.then(|| new.proof.view()),
        })?;
        Ok(true)
    }

    /// What the neighbour may know of a prefix. Nothing, where it is itself the next hop (split horizon, section 3.7.4).
    fn announcement(&mut self, link: LinkId, prefix: &Prefix) -> Option<Announcement> {
        if let Some(seqno) = self.origins.seqno(prefix) {
            let source = SourceId { router_id: self.router_id, owner: self.id };
            let proof = self.origins.proof(prefix, self.router_id, &self.town, &self.identity)?;
            return Some(Announcement { source, seqno, metric: 0, proof });
        }
        let route = self.table.get(prefix)?.selected_route().filter(|route| route.link != link)?;
        Some(Announcement { source: route.source, seqno: route.seqno, metric: route.metric(), proof: route.proof })
    }

    /// Hands out a packet with one TLV.
    pub(super) fn write_alone(&mut self, link: LinkId, write: impl FnOnce(&mut PacketWriter<'_>) -> Result<(), Full>) {
        let mut buf = [0; MAX_PACKET];
        let Ok(mut writer) = PacketWriter::new(&mut buf) else { return };
        if write(&mut writer).is_ok() {
            let packet = writer.finish();
            self.push_packet(link, packet);
        }
    }
}
