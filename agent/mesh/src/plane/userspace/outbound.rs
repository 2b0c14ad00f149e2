//! From the device to the links.

use std::{
    io,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use grange_wire::NodeId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::{
    Shared, count, deliver,
    egress::{Egress, TooBig},
    limit::ErrorLimit,
    seal_hold::Hold,
    seal_out::Way,
    tables::{Entry, Sealed, Tables},
};
use crate::{
    packet::{
        IcmpError, IpHeader, MAX_ERROR, Offload, Segmenter, TCP, UDP, VNET_LEN, VnetHeader, clamp_mss,
        complete_checksum, icmp_error,
    },
    plane::{PacketDevice, PlaneFailure},
};

/// The longest packet of a device.
const MAX_PACKET: usize = 65_535;

/// Packets read before the socket and the stop signal are looked at again.
const READS: usize = 64;

/// The thread that reads the device.
pub(super) struct Outbound<D> {
    shared: Arc<Shared<D>>,
    egress: Egress<D>,
    errors: ErrorLimit,
    buffer: Box<[u8]>,
    /// What waits for seals, and where those are asked for.
    hold: Hold,
    seals: mpsc::Sender<NodeId>,
    /// The snapshot that packets were last released by.
    released: u64,
}

impl<D: PacketDevice> Outbound<D> {
    /// # Errors
    /// The socket's options cannot be set.
    pub(super) fn new(shared: Arc<Shared<D>>, seals: mpsc::Sender<NodeId>) -> io::Result<Self> {
        Ok(Self {
            egress: Egress::new(Arc::clone(&shared)),
            errors: ErrorLimit::new(),
            buffer: vec![0; VNET_LEN + MAX_PACKET].into(),
            hold: Hold::default(),
            seals,
            released: 0,
            shared,
        })
    }

    /// Runs until the plane stops.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let writable = if shared.underlay.has_waiting() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = vec![
                PollFd::from_borrowed_fd(shared.device.fd(), PollFlags::IN),
                PollFd::new(&shared.stop, PollFlags::IN),
                PollFd::from_borrowed_fd(shared.underlay.wake_fd(), PollFlags::IN),
                PollFd::new(shared.underlay.socket(), writable),
            ];
            fds.extend(self.egress.interests());
            match poll(&mut fds, self.timeout().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return shared.fail(PlaneFailure::Device(error.to_string())),
            }
            let [device, stop, wake, socket] = std::array::from_fn(|at| fds[at].revents());
            let unblocked = fds[4..].iter().any(|fd| !fd.revents().is_empty());
            drop(fds);
            if !stop.is_empty() {
                return;
            }
            if !wake.is_empty() {
                shared.underlay.take_wake();
            }
            if unblocked || socket.contains(PollFlags::OUT) {
                self.egress.writable();
            }
            if socket.contains(PollFlags::ERR) {
                // Taken, or it would wake this thread for ever.
                let _ = shared.underlay.socket().take_error();
            }
            if !device.is_empty()
                && let Err(error) = self.read(&shared)
            {
                return shared.fail(PlaneFailure::Device(error.to_string()));
            }
            if !self.hold.is_empty() {
                // Here, before it blocks: tables that changed before `holding` was set wake nobody.
                let tables = shared.tables.load();
                self.release(&shared, &tables);
                self.expire(&shared, &tables);
                self.egress.flush();
            }
        }
    }

    /// Moves what the device has.
    fn read(&mut self, shared: &Shared<D>) -> io::Result<()> {
        for _ in 0..READS {
            let len = match shared.device.read(&mut self.buffer) {
                // A device never says that; what stands in for one in tests does when it is closed.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The kernel lost this packet on its way to us; the next one may do.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::ENOMEM)) => {
                    count(&shared.drops.device);
                    continue;
                }
                Err(error) => return Err(error),
            };
            // After the packet was read: who changed the tables before sending it finds them changed.
            let tables = shared.tables.load();
            if !self.hold.is_empty() {
                self.release(shared, &tables);
            }
            // Taken out and put back: `self` is borrowed on the way.
            let mut buffer = std::mem::take(&mut self.buffer);
            self.packet(shared, &tables, &mut buffer[..len]);
            self.buffer = buffer;
        }
        self.egress.flush();
        Ok(())
    }

    fn packet(&mut self, shared: &Shared<D>, tables: &Tables, bytes: &mut [u8]) {
        let Some((vnet, _)) = VnetHeader::split(bytes) else { return count(&shared.drops.invalid) };
        // The offload header is read: its last byte has room for a frame's flags.
        let bytes = &mut bytes[VNET_LEN - 1..];
        let packet = &mut bytes[1..];
        let Some(header) = IpHeader::parse(packet) else { return count(&shared.drops.invalid) };
        // Hosts talk to their link all the time (neighbour discovery, multicast): that is no error.
        if !header.is_forwardable() {
            return count(&shared.drops.invalid);
        }
        let packet = &mut packet[..header.total];
        let way = match tables.entry(header.destination) {
            Entry::Link(link) => Way::Link(link),
            Entry::Sealed(Sealed { link, .. }) | Entry::Waits { link, .. } if tables.goes_bare(&header, packet) => {
                Way::Link(link)
            }
            Entry::Sealed(sealed) => Way::Sealed(sealed),
            Entry::Waits { peer, .. } => return self.wait(shared, *peer, &vnet, packet),
            // The kernel gave us what is its own: its routes contradict ours for a moment.
            Entry::Local => return count(&shared.drops.unroutable),
            Entry::None => {
                count(&shared.drops.unroutable);
                return self.answer(shared, tables, IcmpError::NoRoute, packet, &header);
            }
        };
        let sent = if vnet.offload == Offload::None {
            let partial = vnet.partial && is_own_checksum(&vnet, &header);
            if vnet.partial && !partial && !complete_checksum(&vnet, packet) {
                return count(&shared.drops.invalid);
            }
            clamp_mss(packet, &header, way.mtu(), partial);
            self.egress.send(way, &mut bytes[..=header.total], &header, partial)
        } else {
            match Segmenter::new(&vnet, &header, packet) {
                Some(segmenter) => {
                    clamp_mss(packet, &header, way.mtu(), true);
                    self.egress.send_segments(way, &segmenter, &mut bytes[..=header.total])
                }
                None => return count(&shared.drops.invalid),
            }
        };
        if let Err(TooBig { mtu }) = sent {
            count(&shared.drops.too_big);
            self.answer(shared, tables, IcmpError::TooBig { mtu }, &bytes[1..=header.total], &header);
        }
    }

    /// When something that waits has waited too long.
    fn timeout(&self) -> Option<Timespec> {
        let left = self.hold.expires()?.since(self.egress.now());
        // A millisecond more than is left, so that it is over then.
        Timespec::try_from(left + std::time::Duration::from_millis(1)).ok()
    }

    /// Lets a packet wait for the seal to `peer`, and asks for that.
    #[cold]
    fn wait(&mut self, shared: &Shared<D>, peer: NodeId, vnet: &VnetHeader, packet: &[u8]) {
        let now = self.egress.now();
        let dropped = self.hold.push(now, peer, vnet, packet);
        shared.drops.congested.fetch_add(dropped, Ordering::Relaxed);
        shared.holding.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.hold.asks(now, peer) && self.seals.try_send(peer).is_err() {
            tracing::debug!(%peer, "too many seals are asked for at once");
        }
    }

    /// Moves what needs to wait no longer.
    #[cold]
    fn release(&mut self, shared: &Shared<D>, tables: &Tables) {
        if std::mem::replace(&mut self.released, tables.version) == tables.version {
            return;
        }
        while let Some(mut bytes) = self.hold.take(|peer| !tables.waits_for(peer)) {
            self.packet(shared, tables, &mut bytes);
        }
        shared.holding.store(!self.hold.is_empty(), Ordering::SeqCst);
    }

    /// Tells the hosts of those that waited in vain.
    #[cold]
    fn expire(&mut self, shared: &Shared<D>, tables: &Tables) {
        let now = self.egress.now();
        while let Some(bytes) = self.hold.expired(now) {
            count(&shared.drops.unroutable);
            let packet = &bytes[VNET_LEN..];
            if let Some(header) = IpHeader::parse(packet) {
                self.answer(shared, tables, IcmpError::NoRoute, packet, &header);
            }
        }
    }

    /// Tells the host behind the device what became of its packet.
    #[cold]
    fn answer(&mut self, shared: &Shared<D>, tables: &Tables, error: IcmpError, packet: &[u8], header: &IpHeader) {
        let Some(own) = tables.own_address(header.source) else { return };
        if !self.errors.allow(self.egress.now()) {
            return;
        }
        let mut out = [0; MAX_ERROR];
        if let Some(len) = icmp_error(error, packet, header, own, &mut out) {
            deliver::write_single(&shared.device, &shared.drops, &out[..len]);
        }
    }
}

/// Whether the partial checksum is the one of the packet's own TCP or UDP header, which the frame's flag stands for.
fn is_own_checksum(vnet: &VnetHeader, header: &IpHeader) -> bool {
    let offset = match header.protocol {
        TCP => 16,
        UDP => 6,
        _ => return false,
    };
    !header.fragment && usize::from(vnet.checksum_start) == header.transport && vnet.checksum_offset == offset
}
