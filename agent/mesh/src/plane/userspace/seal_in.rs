//! Opening what came in a seal, and delivering it: a seal ends where it is opened.

use std::{net::IpAddr, ops::Range};

use super::{
    Shared, count,
    frame::{self, FIRST, PART_MASK, PARTIAL, SECOND},
    inbound::{Current, Forward, find},
    reassembly::MAX_PACKET,
    seal::{self, Outer},
    tables::{Entry, Hop, Link, Tables},
};
use crate::{
    packet::{IcmpError, IpHeader, MAX_ERROR, clamp_mss, hand_on_congestion, icmp_error},
    plane::PacketDevice,
};

/// What the outer packet said.
#[derive(Clone, Copy)]
pub(super) struct Envelope {
    /// Its source.
    pub(super) source: IpAddr,
    /// Its traffic class.
    pub(super) class: u8,
}

/// Where a packet came from: through which seal, in what.
#[derive(Clone, Copy)]
struct Origin<'a> {
    seal: &'a Link,
    outer: &'a Outer,
    class: u8,
    partial: bool,
}

impl<D: PacketDevice> Forward<D> {
    /// Opens the frame at `at` in `arena` and delivers its packet. `current` is the session of the seal that was opened
    /// last.
    #[inline]
    pub(super) fn open<'a>(
        &mut self,
        tables: &'a Tables,
        arena: &mut [u8],
        at: Range<usize>,
        envelope: Envelope,
        current: &mut Option<Current<'a>>,
    ) {
        let drops = &self.shared.drops;
        let Some((header, index, counter, sealed)) = frame::split(&mut arena[at.clone()]) else {
            return count(&drops.unauthenticated);
        };
        if current.as_ref().is_none_or(|current| current.index != index) {
            // The lock of the old one goes before the new one's is taken.
            *current = None;
            *current = find(tables, index, true);
        }
        let Some(session) = current else { return count(&drops.unauthenticated) };
        let Some(outer) = &session.link.outer else { return count(&drops.unauthenticated) };
        if envelope.source != outer.peer() {
            return count(&drops.invalid);
        }
        if !session.receiving.window.may_accept(counter) {
            return count(&drops.replayed);
        }
        let Ok(plain) = session.session.opener().open(counter, header, sealed) else {
            return count(&drops.unauthenticated);
        };
        if !session.receiving.window.accept(counter) {
            return count(&drops.replayed);
        }
        session.frames += 1;
        session.bytes += (plain.len() - 1) as u64;
        let flags = plain[0];
        if !frame::known(flags) {
            return count(&drops.invalid);
        }
        let partial = flags & PARTIAL != 0;
        let origin = Origin { seal: session.link, outer, class: envelope.class, partial };
        let part = flags & PART_MASK;
        if part == FIRST || part == SECOND {
            // Taken out and put back: `self` is borrowed on the way.
            let mut joined = std::mem::take(&mut self.joined);
            let whole = joined
                .split_last_chunk_mut::<MAX_PACKET>()
                .and_then(|(_, out)| session.receiving.parts.add(counter, part == SECOND, partial, &plain[1..], out));
            if let Some((len, partial)) = whole {
                let Shared { device, drops, .. } = &*self.shared;
                // It lies elsewhere, so what is being coalesced must go first.
                self.deliver.flush(device, drops, arena);
                self.opened(tables, &mut joined, 1..1 + len, Origin { partial, ..origin });
                let Shared { device, drops, .. } = &*self.shared;
                self.deliver.flush(device, drops, &mut joined);
            }
            self.joined = joined;
            return;
        }
        let start = at.start + frame::HEADER_LEN + 1;
        let packet = start..start + plain.len() - 1;
        self.opened(tables, arena, packet, origin);
    }

    /// Delivers the packet at `at` in `arena`.
    #[inline]
    fn opened(&mut self, tables: &Tables, arena: &mut [u8], at: Range<usize>, origin: Origin<'_>) {
        let Shared { device, drops, .. } = &*self.shared;
        let packet = &mut arena[at.clone()];
        let Some(header) = IpHeader::parse(packet) else { return count(&drops.invalid) };
        let forged = tables.is_own(header.source) || !origin.outer.may_speak_for(header.source);
        if !header.is_forwardable() || forged {
            return count(&drops.invalid);
        }
        let packet = &mut packet[..header.total];
        if !hand_on_congestion(origin.class, packet) {
            return count(&drops.congested);
        }
        if !matches!(tables.next_hop(header.destination), Hop::Local) {
            count(&drops.unroutable);
            return self.answer_sealed(tables, &arena[at], &header);
        }
        clamp_mss(packet, &header, origin.seal.mtu, origin.partial);
        self.deliver.push(device, drops, arena, at, &header, origin.partial);
    }

    /// Tells the sender of a packet that came in a seal that its destination is not here: in a seal, since what is quoted
    /// was in one.
    #[cold]
    fn answer_sealed(&mut self, tables: &Tables, packet: &[u8], header: &IpHeader) {
        let Some(own) = tables.own_address(header.source) else { return };
        if !self.errors.allow(self.egress.now()) {
            return;
        }
        let mut plain = [0; 1 + MAX_ERROR];
        let Some((_, out)) = plain.split_last_chunk_mut::<MAX_ERROR>() else { return };
        let Some(len) = icmp_error(IcmpError::NoRoute, packet, header, own, out) else { return };
        if let (Entry::Sealed(way), Some(error)) = (tables.entry(header.source), IpHeader::parse(&out[..len])) {
            let _ = self.egress.sealed_packet(way, &mut plain[..=len], &error, false);
        }
    }

    /// Reads what a router on the way says of the size of outer packets. `packet` is one for this node.
    #[cold]
    pub(super) fn note_too_big(tables: &Tables, header: &IpHeader, packet: &[u8]) {
        if let Some((peer, mtu)) = seal::too_big_for(header, packet, tables.address_v6) {
            let seals = tables.links.iter().flatten().filter_map(|link| link.outer.as_ref());
            seals.filter(|outer| outer.peer() == peer).for_each(|outer| outer.note_path_mtu(mtu));
        }
    }
}
