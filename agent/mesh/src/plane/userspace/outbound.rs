//! From the device to the links.

use std::{io, sync::Arc};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Shared, count, deliver,
    egress::{Egress, TooBig},
    limit::ErrorLimit,
    tables::{Hop, Tables},
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
}

impl<D: PacketDevice> Outbound<D> {
    /// # Errors
    /// The socket's options cannot be set.
    pub(super) fn new(shared: Arc<Shared<D>>) -> io::Result<Self> {
        let egress = Egress::new(Arc::clone(&shared))?;
        Ok(Self { shared, egress, errors: ErrorLimit::new(), buffer: vec![0; VNET_LEN + MAX_PACKET].into() })
    }

    /// Runs until the plane stops.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let writable = if self.egress.wants_writable() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = [
                PollFd::from_borrowed_fd(shared.device.fd(), PollFlags::IN),
                PollFd::new(&shared.stop, PollFlags::IN),
                PollFd::from_borrowed_fd(shared.underlay.wake_fd(), PollFlags::IN),
                PollFd::new(shared.underlay.socket(), writable),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return shared.fail(PlaneFailure::Device(error.to_string())),
            }
            let [device, stop, wake, socket] = fds.map(|fd| fd.revents());
            if !stop.is_empty() {
                return;
            }
            if !wake.is_empty() {
                shared.underlay.take_wake();
            }
            if socket.contains(PollFlags::OUT) {
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
            // Taken out and put back: `self` is borrowed on the way.
            let mut buffer = std::mem::take(&mut self.buffer);
            self.packet(shared, &tables, &mut buffer[..len]);
            self.buffer = buffer;
        }
        self.egress.flush();
        Ok(())
    }

    fn packet(&mut self, shared: &Shared<D>, tables: &Tables, bytes: &mut [u8]) {
        let Some((vnet, packet)) = VnetHeader::split(bytes) else { return count(&shared.drops.invalid) };
        let Some(header) = IpHeader::parse(packet) else { return count(&shared.drops.invalid) };
        // Hosts talk to their link all the time (neighbour discovery, multicast): that is no error.
        if !header.is_forwardable() {
            return count(&shared.drops.invalid);
        }
        let packet = &mut packet[..header.total];
        let link = match tables.next_hop(header.destination) {
            Hop::Link(link) => link,
            // The kernel gave us what is its own: its routes contradict ours for a moment.
            Hop::Local => return count(&shared.drops.unroutable),
            Hop::None => {
                count(&shared.drops.unroutable);
                return self.answer(shared, tables, IcmpError::NoRoute, packet, &header);
            }
        };
        let sent = if vnet.offload == Offload::None {
            let partial = vnet.partial && is_own_checksum(&vnet, &header);
            if vnet.partial && !partial && !complete_checksum(&vnet, packet) {
                return count(&shared.drops.invalid);
            }
            clamp_mss(packet, &header, link.mtu, partial);
            self.egress.packet(link, packet, &header, partial)
        } else {
            match Segmenter::new(&vnet, &header, packet) {
                Some(segmenter) => {
                    clamp_mss(packet, &header, link.mtu, true);
                    self.egress.segments(link, &segmenter, packet)
                }
                None => return count(&shared.drops.invalid),
            }
        };
        if let Err(TooBig { mtu }) = sent {
            count(&shared.drops.too_big);
            self.answer(shared, tables, IcmpError::TooBig { mtu }, packet, &header);
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
