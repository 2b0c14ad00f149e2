//! From the links to the device and to other links.

use std::{
    io::{self, IoSliceMut},
    ops::Range,
    sync::{Arc, MutexGuard, PoisonError},
};

use grange_core::Endpoint;
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc;

use super::{
    Shared, count,
    deliver::Deliver,
    egress::{Egress, TooBig},
    frame::{self, FIRST, PART_MASK, PARTIAL, SECOND},
    limit::ErrorLimit,
    reassembly::MAX_PACKET,
    seal::{self, ICMPV6},
    seal_in::Envelope,
    tables::{Hop, Link, Receiving, Session, Tables},
};
use crate::{
    packet::{IcmpError, IpHeader, MAX_ERROR, clamp_mss, decrement_hop_limit, icmp_error, traffic_class},
    plane::{PacketDevice, PlaneFailure},
    underlay::{self, Received},
};

/// Messages taken from the socket at once where receive offload makes batches of datagrams.
const BATCHES: usize = 4;

/// Messages taken from the socket at once where each is one datagram.
const SINGLES: usize = 32;

/// The longest message.
const MESSAGE: usize = 65_536;

/// From one message's place to the next. Not a power of two, or the beginnings of all would fall to the same few lines of
/// the processor's caches.
const PLACE: usize = MESSAGE + 1600;

/// The longest control datagram that is handed to the driver.
const MAX_CONTROL: usize = 9216;

/// The thread that reads the socket.
pub(super) struct Inbound<D> {
    shared: Arc<Shared<D>>,
    control: mpsc::Sender<Received>,
    state: UdpSocketState,
    /// Places of [`SINGLES`] messages; the system gives memory to those that are used.
    arena: Box<[u8]>,
    /// What came last had no batch in it.
    singles: bool,
    /// A packet that came in two parts, behind a byte for the flags of the frame that it may leave in.
    joined: Box<[u8; 1 + MAX_PACKET]>,
    forward: Forward<D>,
}

/// What happens to a packet that came out of a frame.
pub(super) struct Forward<D> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) egress: Egress<D>,
    pub(super) deliver: Deliver,
    pub(super) errors: ErrorLimit,
    /// A packet that came in two parts in a seal, as [`Inbound::joined`].
    pub(super) joined: Box<[u8]>,
}

/// The session of the last frame: the next one is mostly of the same.
pub(super) struct Current<'a> {
    pub(super) index: u32,
    pub(super) session: &'a Session,
    pub(super) link: &'a Link,
    pub(super) receiving: MutexGuard<'a, Receiving>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// The sessions of the last frame of a link, and of the last of a seal.
#[derive(Default)]
struct Opening<'a> {
    link: Option<Current<'a>>,
    seal: Option<Current<'a>>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        self.link.counters.received(self.frames, self.bytes);
    }
}

impl<D: PacketDevice> Inbound<D> {
    /// # Errors
    /// The socket's options cannot be set.
    pub(super) fn new(shared: Arc<Shared<D>>, control: mpsc::Sender<Received>) -> io::Result<Self> {
        let forward = Forward {
            egress: Egress::new(Arc::clone(&shared)),
            deliver: Deliver::new(shared.device.takes_udp_segments()),
            errors: ErrorLimit::new(),
            joined: vec![0; 1 + MAX_PACKET].into(),
            shared: Arc::clone(&shared),
        };
        Ok(Self {
            state: UdpSocketState::new(shared.underlay.socket().into())?,
            control,
            arena: vec![0; SINGLES * PLACE].into(),
            singles: false,
            joined: Box::new([0; 1 + MAX_PACKET]),
            forward,
            shared,
        })
    }

    /// Runs until the plane stops.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let mut fds =
                vec![PollFd::new(shared.underlay.socket(), PollFlags::IN), PollFd::new(&shared.stop, PollFlags::IN)];
            fds.extend(self.forward.egress.interests());
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return shared.fail(PlaneFailure::Underlay(error.to_string())),
            }
            let [socket, stop] = std::array::from_fn(|at| fds[at].revents());
            let unblocked = fds[2..].iter().any(|fd| !fd.revents().is_empty());
            drop(fds);
            if !stop.is_empty() {
                return;
            }
            if unblocked {
                self.forward.egress.writable();
            }
            if socket.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP)
                && let Err(error) = self.receive(&shared)
            {
                return shared.fail(PlaneFailure::Underlay(error.to_string()));
            }
        }
    }

    /// Moves one round of messages.
    fn receive(&mut self, shared: &Shared<D>) -> io::Result<()> {
        if self.singles { self.receive_up_to::<SINGLES>(shared) } else { self.receive_up_to::<BATCHES>(shared) }
    }

    /// Moves at most `MOST` messages.
    fn receive_up_to<const MOST: usize>(&mut self, shared: &Shared<D>) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); MOST];
        let received = {
            let mut places = self.arena.chunks_exact_mut(PLACE);
            let mut buffers: [IoSliceMut<'_>; MOST] = std::array::from_fn(|_| {
                IoSliceMut::new(places.next().map_or(&mut [][..], |place| &mut place[..MESSAGE]))
            });
            match self.state.recv(shared.underlay.socket().into(), &mut buffers, &mut metas) {
                Ok(received) => received,
                // Whatever else it is concerns single datagrams, or memory that comes back.
                Err(error)
                    if !matches!(
                        error.raw_os_error(),
                        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL)
                    ) =>
                {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::trace!(%error, "receiving failed");
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        };
        let tables = shared.tables.load();
        let metas = &metas[..received];
        for (index, meta) in metas.iter().enumerate() {
            self.message(shared, &tables, index * PLACE, meta);
        }
        self.singles = metas.iter().all(|meta| meta.stride >= meta.len);
        self.forward.deliver.flush(&shared.device, &shared.drops, &mut self.arena);
        self.forward.egress.flush();
        Ok(())
    }

    /// Moves one message, which receive offload may have made of many datagrams.
    fn message(&mut self, shared: &Shared<D>, tables: &Tables, start: usize, meta: &RecvMeta) {
        let from = underlay::source(meta);
        let end = start + meta.len.min(MESSAGE);
        let stride = meta.stride.max(1);
        let mut opening = Opening::default();
        let mut at = start;
        while at < end {
            let datagram = at..(at + stride).min(end);
            at = datagram.end;
            if frame::is_data(&self.arena[datagram.clone()]) {
                self.data(shared, tables, from, datagram, &mut opening);
            } else {
                self.control(shared, from, datagram);
            }
        }
    }

    /// Hands a datagram to the driver.
    fn control(&self, shared: &Shared<D>, from: Endpoint, datagram: Range<usize>) {
        let payload = &self.arena[datagram];
        // Most of a flood is not copied: the room is looked for first.
        let taken = payload.len() <= MAX_CONTROL
            && self.control.try_reserve().map(|place| place.send(Received { from, payload: payload.to_vec() })).is_ok();
        if !taken {
            count(&shared.drops.control);
        }
    }

    /// Opens one data frame and moves its packet.
    #[inline]
    fn data<'a>(
        &mut self,
        shared: &Shared<D>,
        tables: &'a Tables,
        from: Endpoint,
        datagram: Range<usize>,
        Opening { link: current, seal: opened }: &mut Opening<'a>,
    ) {
        let Some((header, index, counter, sealed)) = frame::split(&mut self.arena[datagram.clone()]) else {
            return count(&shared.drops.unauthenticated);
        };
        if current.as_ref().is_none_or(|current| current.index != index) {
            // The lock of the old one goes before the new one's is taken.
            *current = None;
            *current = find(tables, index, false);
        }
        let Some(session) = current else { return count(&shared.drops.unauthenticated) };
        if !session.receiving.window.may_accept(counter) {
            return count(&shared.drops.replayed);
        }
        let Ok(plain) = session.session.opener().open(counter, header, sealed) else {
            return count(&shared.drops.unauthenticated);
        };
        if !session.receiving.window.accept(counter) {
            return count(&shared.drops.replayed);
        }
        session.frames += 1;
        session.bytes += (plain.len() - 1) as u64;
        if !session.link.is_at(from) && session.frames == 1 {
            shared.roamed.note(session.link.id, from);
        }
        let flags = plain[0];
        if !frame::known(flags) {
            return count(&shared.drops.invalid);
        }
        let partial = flags & PARTIAL != 0;
        let part = flags & PART_MASK;
        if part == FIRST || part == SECOND {
            let Some((_, out)) = self.joined.split_last_chunk_mut::<MAX_PACKET>() else { return };
            let whole = session.receiving.parts.add(counter, part == SECOND, partial, &plain[1..], out);
            if let Some((len, partial)) = whole {
                // It lies elsewhere, so what is being coalesced must go first.
                self.forward.deliver.flush(&shared.device, &shared.drops, &mut self.arena);
                self.forward.packet(tables, &mut self.joined[..], 1..1 + len, session.link, partial, opened);
                self.forward.deliver.flush(&shared.device, &shared.drops, &mut self.joined[..]);
            }
            return;
        }
        let start = datagram.start + frame::HEADER_LEN + 1;
        let packet = start..start + plain.len() - 1;
        self.forward.packet(tables, &mut self.arena, packet, session.link, partial, opened);
    }
}

/// The session of a frame with this index. What came in no seal is opened by no seal's key, and the other way round.
pub(super) fn find(tables: &Tables, index: u32, in_seal: bool) -> Option<Current<'_>> {
    let session = &**tables.sessions.get(&index)?;
    let link = tables.link(session.slot).filter(|link| link.outer.is_some() == in_seal)?;
    let receiving = session.receiving.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Current { index, session, link, receiving, frames: 0, bytes: 0 })
}

impl<D: PacketDevice> Forward<D> {
    /// Moves the packet at `at` in `arena`, which came over `from`. The byte before it is free for a frame's flags.
    #[inline]
    fn packet<'a>(
        &mut self,
        tables: &'a Tables,
        arena: &mut [u8],
        at: Range<usize>,
        from: &Link,
        partial: bool,
        opened: &mut Option<Current<'a>>,
    ) {
        let Shared { device, drops, .. } = &*self.shared;
        let packet = &mut arena[at.clone()];
        let Some(header) = IpHeader::parse(packet) else { return count(&drops.invalid) };
        if !header.is_forwardable() || tables.is_own(header.source) {
            return count(&drops.invalid);
        }
        let packet = &mut packet[..header.total];
        if let Some(frame) = seal::frame_in(&header, packet, tables.address_v6) {
            let envelope = Envelope { source: header.source, class: traffic_class(packet) };
            return self.open(tables, arena, at.start + frame..at.start + header.total, envelope, opened);
        }
        match tables.next_hop(header.destination) {
            Hop::Local => {
                if tables.misses_seal(from, &header, packet) {
                    return count(&drops.unsealed);
                }
                if header.protocol == ICMPV6 {
                    Self::note_too_big(tables, &header, packet);
                }
                clamp_mss(packet, &header, from.mtu, partial);
                self.deliver.push(device, drops, arena, at, &header, partial);
            }
            // The neighbour thinks that the way is over us, and we that it is over the neighbour: routes are about to
            // change, and until then the packet would go to and fro.
            Hop::Link(link) if link.id == from.id => {
                count(&drops.unroutable);
                self.answer(tables, IcmpError::NoRoute, &arena[at], &header);
            }
            Hop::Link(link) => {
                if header.hop_limit <= 1 {
                    count(&drops.expired);
                    return self.answer(tables, IcmpError::TimeExceeded, &arena[at], &header);
                }
                decrement_hop_limit(packet);
                clamp_mss(packet, &header, link.mtu, partial);
                if let Err(TooBig { mtu }) =
                    self.egress.packet(link, &mut arena[at.start - 1..at.start + header.total], &header, partial)
                {
                    count(&drops.too_big);
                    self.answer(tables, IcmpError::TooBig { mtu }, &arena[at], &header);
                }
            }
            Hop::None => {
                count(&drops.unroutable);
                self.answer(tables, IcmpError::NoRoute, &arena[at], &header);
            }
        }
    }

    /// Tells a packet's sender what became of it, by whatever way leads there.
    #[cold]
    fn answer(&mut self, tables: &Tables, error: IcmpError, packet: &[u8], header: &IpHeader) {
        let Some(own) = tables.own_address(header.source) else { return };
        if !self.errors.allow(self.egress.now()) {
            return;
        }
        let mut plain = [0; 1 + MAX_ERROR];
        let Some((_, out)) = plain.split_last_chunk_mut::<MAX_ERROR>() else { return };
        let Some(len) = icmp_error(error, packet, header, own, out) else { return };
        // At most 1280 bytes: they fit every link.
        if let (Hop::Link(link), Some(header)) = (tables.next_hop(header.source), IpHeader::parse(&out[..len])) {
            let _ = self.egress.packet(link, &mut plain[..=len], &header, false);
        }
    }
}
