//! Control frames in, and Babel's packets out.

use alloc::vec::Vec;

use grange_wire::{ControlFrame, FrameHeader};

use super::{
    host::Host,
    links::same_place,
    membership::{Membership, Owner},
};
use crate::{DownReason, Endpoint, Event, IfaceId, Instant, LinkId, link::OpenError};

impl Membership {
    pub(super) fn handle_control(&mut self, host: &mut Host, now: Instant, from: Endpoint, datagram: &[u8]) {
        let Ok((header, ciphertext)) = FrameHeader::parse(datagram) else {
            host.stats.malformed += 1;
            return;
        };
        let link = match self.indexes.get(&header.receiver.0) {
            Some(Owner::Link(link)) => *link,
            Some(&Owner::Attempt(to)) => {
                // It brings the link up, and is then opened as the first of the link's frames.
                if !same_place(&from, &to) {
                    host.stats.impostor += 1;
                    return;
                }
                let Some(link) = self.first_frame(host, now, to, &header, ciphertext) else { return };
                link
            }
            _ => {
                host.stats.unknown_index += 1;
                return;
            }
        };
        let Some(plaintext) = self.open(host, now, link, from, &header, ciphertext) else { return };
        match ControlFrame::parse(&plaintext) {
            Ok(ControlFrame::Plane { port, heard, asks }) => {
                self.handle_plane(host, now, link, &header, (port, heard, asks));
            }
            Ok(frame) => self.handle_frame(host, now, link, &frame, datagram.len()),
            Err(_) => host.stats.malformed += 1,
        }
    }

    /// A frame for a session that waits for its first one. If it is genuine, the link comes up.
    fn first_frame(
        &mut self,
        host: &mut Host,
        now: Instant,
        to: Endpoint,
        header: &FrameHeader,
        ciphertext: &[u8],
    ) -> Option<LinkId> {
        let Some(session) = self.attempts.get_mut(&to).and_then(|attempt| attempt.session()) else {
            host.stats.unknown_index += 1;
            return None;
        };
        if !session.authenticates(header.counter, ciphertext) {
            host.stats.forged += 1;
            return None;
        }
        self.confirm(host, now, to);
        match self.indexes.get(&header.receiver.0) {
            Some(Owner::Link(link)) => Some(*link),
            _ => None,
        }
    }

    /// Opens a frame under the link's present or former keys, and draws the conclusions from its having come.
    fn open(
        &mut self,
        host: &mut Host,
        now: Instant,
        id: LinkId,
        from: Endpoint,
        header: &FrameHeader,
        ciphertext: &[u8],
    ) -> Option<Vec<u8>> {
        let link = self.links.get_mut(&id)?;
        if (link.is_seal() || from.iface == IfaceId::MESH) && !same_place(&from, &link.endpoint) {
            host.stats.impostor += 1;
            return None;
        }
        let present = link.session.local == header.receiver;
        let session = match &mut link.previous {
            Some((previous, _)) if !present && previous.local == header.receiver => previous,
            _ if present => &mut link.session,
            _ => return None,
        };
        let opened = match session.open(header.counter, ciphertext) {
            Ok(opened) => opened,
            Err(OpenError::Replayed) => {
                host.stats.replayed += 1;
                return None;
            }
            Err(OpenError::Forged) => {
                host.stats.forged += 1;
                return None;
            }
        };
        if link.is_live() {
            link.liveness.heard(now, opened.skipped, opened.newest);
            if present && opened.newest {
                self.move_link(host, now, id, from);
            }
        }
        Some(opened.plaintext)
    }

    fn handle_frame(&mut self, host: &mut Host, now: Instant, id: LinkId, frame: &ControlFrame<'_>, size: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let endpoint = link.endpoint;
        if *frame == ControlFrame::Close {
            self.remove(host, now, id, DownReason::Closed);
            return;
        }
        if !link.is_live() {
            // The neighbour is back. Both ends' counters and routes start from a fresh handshake.
            self.seek(host, now, endpoint);
            return;
        }
        match *frame {
            ControlFrame::Keepalive | ControlFrame::Close | ControlFrame::Plane { .. } => {}
            // Routes go from neighbour to neighbour only.
            ControlFrame::Babel(_) if link.is_seal() => {}
            ControlFrame::Babel(packet) => {
                self.router.handle_packet(now, id, packet);
                self.pump(host, now);
            }
            ControlFrame::Probe { id: probe, .. } => {
                let size = u16::try_from(size).unwrap_or(u16::MAX);
                self.send_frame(host, now, id, &ControlFrame::ProbeAck { id: probe, size });
            }
            ControlFrame::ProbeAck { id: probe, size } => {
                link.liveness.answered(now, probe);
                if let Some(mtu) = link.mtu.answered(now, probe, size) {
                    host.tell(Event::LinkMtu { link: id, mtu });
                }
            }
            ControlFrame::Lost { .. } if link.is_seal() => self.remove(host, now, id, DownReason::Silent),
            ControlFrame::Lost { .. } => {
                self.silence(host, now, id);
                self.seek(host, now, endpoint);
            }
        }
    }

    /// Where the other end's kernel plane listens.
    fn handle_plane(
        &mut self,
        host: &mut Host,
        now: Instant,
        id: LinkId,
        header: &FrameHeader,
        (port, heard, asks): (u16, u16, bool),
    ) {
        let Some(link) = self.links.get_mut(&id) else { return };
        // What comes under the former keys is out of date, or will be said again.
        if !link.is_live() || !link.kernel || link.session.local != header.receiver {
            return;
        }
        let heard = link.ports.heard(now, header.counter, port, heard, asks);
        let answer = heard.answer.then(|| link.ports.frame());
        host.stats.limited += u64::from(heard.limited);
        if let Some(port) = heard.changed {
            host.tell(Event::LinkPlanePort { link: id, port });
        }
        if let Some(answer) = answer {
            self.send_frame(host, now, id, &answer);
        }
    }

    /// A packet of the router's for one neighbour.
    pub(super) fn send_babel(&mut self, host: &mut Host, now: Instant, link: LinkId, packet: &[u8]) {
        if self.links.get(&link).is_some_and(|link| link.is_live()) {
            self.send_frame(host, now, link, &ControlFrame::Babel(packet));
        }
    }
}
