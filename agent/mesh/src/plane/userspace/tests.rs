//! Planes joined by loopback sockets, with socket pairs for devices.

mod seals;

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use grange_core::{Cipher, IfaceId};
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair, sockopt},
};

use super::*;
use crate::{
    packet::{
        IpHeader, Offload, Segmenter, TCP, UDP, VNET_LEN, VnetHeader, complete_checksum,
        testing::{self, checksums_are_right},
    },
    plane::{
        aead::{FrameKey, TAG_LEN},
        userspace::frame,
    },
    underlay::UnderlayConfig,
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The plane's end of a socket pair.
struct FakeDevice(OwnedFd);

impl PacketDevice for FakeDevice {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        Ok(rustix::io::writev(&self.0, parts).map(|_| ())?)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn takes_udp_segments(&self) -> bool {
        true
    }
}

/// A plane, the host behind its device, and what it handed to the driver.
struct Node {
    plane: Userspace<FakeDevice>,
    host: OwnedFd,
    address: Endpoint,
    control: mpsc::Receiver<Received>,
    seals: mpsc::Receiver<NodeId>,
}

fn v6(node: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, node, 0, 0, 0, 1)
}

impl Node {
    /// Node `number` with the LAN `fd00:0:0:NUMBER::/64`.
    fn new(number: u16) -> Self {
        let (device, host) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::io::ioctl_fionbio(&device, true).unwrap();
        sockopt::set_socket_timeout(&host, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        let underlay = Arc::new(Underlay::bind(&UnderlayConfig { port: 0, mark: None }).unwrap());
        let address = Endpoint { iface: IfaceId(0), addr: (Ipv6Addr::LOCALHOST, underlay.port()).into() };
        let (sender, control) = mpsc::channel(4);
        let (wanted, seals) = mpsc::channel(4);
        let config = UserspaceConfig { device: FakeDevice(device), underlay, control: sender, seals: wanted };
        let mut plane = Userspace::start(config).unwrap();
        let prefix = Prefix::new_truncating(v6(number).into(), 64);
        plane.set_local(&Local { address_v6: Some(v6(number)), prefixes: vec![prefix], ..Local::default() }).unwrap();
        Self { plane, host, address, control, seals }
    }

    /// The same, which takes from afar what came in a seal.
    fn that_seals(number: u16) -> Self {
        let mut node = Self::new(number);
        let prefixes = vec![Prefix::new_truncating(v6(number).into(), 64)];
        let local = Local { address_v6: Some(v6(number)), prefixes, sealed: true, ..Local::default() };
        node.plane.set_local(&local).unwrap();
        node
    }

    fn send(&self, vnet: VnetHeader, packet: &[u8]) {
        let bytes = [&vnet.bytes(), packet].concat();
        assert_eq!(rustix::net::send(&self.host, &bytes, SendFlags::empty()).unwrap(), bytes.len());
    }

    fn receive(&self) -> (VnetHeader, Vec<u8>) {
        let mut bytes = vec![0; VNET_LEN + 65_535];
        let (len, _) = rustix::net::recv(&self.host, &mut bytes[..], RecvFlags::empty()).expect("nothing came");
        let (vnet, packet) = VnetHeader::split(&mut bytes[..len]).unwrap();
        (vnet, packet.to_vec())
    }

    /// Asks `done` until it says yes.
    fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.plane.drops());
            std::thread::yield_now();
        }
    }

    fn traffic(&mut self) -> LinkTraffic {
        let mut all = Vec::new();
        self.plane.counters(&mut all);
        all[0].1
    }
}

/// Keys of the two ends of a link.
fn keys(seed: u8) -> [DataKeys; 2] {
    let end = |ours: u8, theirs: u8| DataKeys {
        cipher: Cipher::ChaCha20Poly1305,
        local: LinkIndex(u32::from(ours) << 8),
        remote: LinkIndex(u32::from(theirs) << 8),
        seal: [ours; 32],
        open: [theirs; 32],
    };
    [end(seed, seed + 1), end(seed + 1, seed)]
}

/// Joins two nodes; both know the link as `id`.
fn join(a: &mut Node, b: &mut Node, id: u32, mtu: u16) {
    let [of_a, of_b] = keys(u8::try_from(id * 2 + 1).unwrap());
    a.plane
        .add_link(LinkId(id), LinkSpec { peer: NodeId([0; 32]), kernel: false, endpoint: b.address, keys: of_a, mtu })
        .unwrap();
    b.plane
        .add_link(LinkId(id), LinkSpec { peer: NodeId([0; 32]), kernel: false, endpoint: a.address, keys: of_b, mtu })
        .unwrap();
}

fn route(node: &mut Node, to: u16, link: u32) {
    node.plane.set_route(Prefix::new_truncating(v6(to).into(), 64), Way { link: LinkId(link), seal: None }).unwrap();
}

/// Two nodes, 1 and 2, with a link and routes.
fn pair(mtu: u16) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    join(&mut a, &mut b, 0, mtu);
    route(&mut a, 2, 0);
    route(&mut b, 1, 0);
    (a, b)
}

/// An IPv6 packet with right checksums.
fn packet(from: u16, to: u16, protocol: u8, transport: &[u8]) -> Vec<u8> {
    addressed(v6(from), v6(to), protocol, transport)
}

fn addressed(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    bytes[4..6].copy_from_slice(&u16::try_from(transport.len()).unwrap().to_be_bytes());
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(transport);
    let field = match protocol {
        TCP => 40 + 16,
        UDP => 40 + 6,
        _ => return bytes,
    };
    let mut pseudo = bytes[8..40].to_vec();
    pseudo.extend(u32::try_from(transport.len()).unwrap().to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo.extend(&bytes[40..]);
    let start = pseudo.len() - transport.len();
    pseudo[start + field - 40..start + field - 38].fill(0);
    let vnet = VnetHeader {
        partial: true,
        checksum_start: 0,
        checksum_offset: u16::try_from(start + field - 40).unwrap(),
        ..VnetHeader::default()
    };
    assert!(complete_checksum(&vnet, &mut pseudo));
    bytes[40..].copy_from_slice(&pseudo[start..]);
    assert!(checksums_are_right(&bytes));
    bytes
}

fn udp(len: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x56, 0x78];
    bytes.extend(u16::try_from(len + 8).unwrap().to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(std::iter::repeat_n(fill, len));
    bytes
}

/// A TCP super-packet as a kernel hands it out, and what it is when cut.
fn super_packet(from: u16, to: u16, segments: usize, segment: u16) -> (VnetHeader, Vec<u8>, Vec<Vec<u8>>) {
    let mut tcp = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0, 0, 0, 0, 0];
    tcp.extend((0..segments * usize::from(segment) - 7).map(|at| u8::try_from(at % 251).unwrap()));
    let whole = packet(from, to, TCP, &tcp);
    let vnet = VnetHeader {
        partial: true,
        offload: Offload::Tcp6,
        header_len: 60,
        segment,
        checksum_start: 40,
        checksum_offset: 16,
    };
    let cut = cut(&vnet, &whole);
    assert_eq!(cut.len(), segments);
    (vnet, whole, cut)
}

/// What a kernel makes of a super-packet.
fn cut(vnet: &VnetHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
    let header = IpHeader::parse(bytes).unwrap();
    let Some(segmenter) = Segmenter::new(vnet, &header, bytes) else {
        let mut one = bytes.to_vec();
        assert!(!vnet.partial || complete_checksum(vnet, &mut one));
        return vec![one];
    };
    let mut whole = bytes.to_vec();
    (0..segmenter.count())
        .map(|index| {
            let place = segmenter.place(&mut whole, index);
            let mut one = whole[place].to_vec();
            assert!(complete_checksum(vnet, &mut one));
            one
        })
        .collect()
}

#[test]
fn a_packet_arrives_as_it_was() {
    let (mut a, mut b) = pair(1419);
    for len in [0, 1, 700, 1371] {
        let sent = packet(1, 2, UDP, &udp(len, 7));
        a.send(VnetHeader::default(), &sent);
        let (vnet, received) = b.receive();
        assert_eq!((vnet, received), (VnetHeader::default(), sent));
    }
    let bytes = 4 * 48 + 1 + 700 + 1371;
    assert_eq!((a.traffic().sent_packets, a.traffic().sent_bytes), (4, bytes));
    b.wait(|b| (b.traffic().received_packets, b.traffic().received_bytes) == (4, bytes));
}

#[test]
fn a_super_packet_arrives_segment_for_segment() {
    let (a, b) = pair(1419);
    // More than a batch of 64 frames and more than a datagram's 64 KiB in one; and one below both.
    for (segments, segment) in [(90, 700), (47, 1359), (5, 1000)] {
        let (vnet, whole, want) = super_packet(1, 2, segments, segment);
        a.send(vnet, &whole);
        let mut got = Vec::new();
        while got.len() < want.len() {
            let (vnet, bytes) = b.receive();
            got.extend(cut(&vnet, &bytes));
        }
        assert!(got == want, "{} of {} segments", got.len(), want.len());
    }
}

#[test]
fn a_partial_checksum_stays_partial() {
    let (a, b) = pair(1419);
    let full = packet(1, 2, UDP, &udp(100, 3));
    let vnet =
        VnetHeader { partial: true, header_len: 48, checksum_start: 40, checksum_offset: 6, ..VnetHeader::default() };
    let mut partial = full.clone();
    // The sum of the pseudo-header alone is what a kernel leaves there: source, destination, length 108, protocol 17.
    let sum: u32 =
        full[8..40].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>() + 108 + 17;
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    partial[46..48].copy_from_slice(&sum.to_be_bytes());
    a.send(vnet, &partial);
    let (got, mut bytes) = b.receive();
    assert_eq!((got, &bytes), (vnet, &partial));
    assert!(complete_checksum(&got, &mut bytes));
    assert_eq!(bytes, full);
}

#[test]
fn a_packet_passes_through_and_loses_a_hop() {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    join(&mut a, &mut b, 0, 1419);
    join(&mut b, &mut c, 1, 1419);
    route(&mut a, 3, 0);
    route(&mut a, 2, 0);
    route(&mut b, 3, 1);
    route(&mut b, 1, 0);
    route(&mut c, 1, 1);
    let (vnet, whole, mut want) = super_packet(1, 3, 30, 1300);
    a.send(vnet, &whole);
    let mut got = Vec::new();
    while got.len() < want.len() {
        let (vnet, bytes) = c.receive();
        got.extend(cut(&vnet, &bytes));
    }
    want.iter_mut().for_each(|packet| packet[7] -= 1);
    assert!(got == want);

    // The hop limit ends at the second node, which says so.
    let mut last = packet(1, 3, UDP, &udp(10, 1));
    last[7] = 1;
    a.send(VnetHeader::default(), &last);
    let (_, error) = a.receive();
    let header = IpHeader::parse(&error).unwrap();
    assert_eq!((header.source, error[40], &error[48..]), (IpAddr::V6(v6(2)), 3, &last[..]));

    // No way on from the second node.
    b.plane.remove_route(Prefix::new_truncating(v6(3).into(), 64));
    let lost = packet(1, 3, UDP, &udp(10, 2));
    a.send(VnetHeader::default(), &lost);
    let (_, error) = a.receive();
    assert_eq!((error[40], error[41]), (1, 0));
    assert_eq!((b.plane.drops().expired, b.plane.drops().unroutable), (1, 1));
}

#[test]
fn what_is_too_big_is_said_by_the_node_that_knows() {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    join(&mut a, &mut b, 0, 1419);
    join(&mut b, &mut c, 1, 1300);
    route(&mut a, 3, 0);
    route(&mut b, 3, 1);
    route(&mut b, 1, 0);
    let big = packet(1, 3, UDP, &udp(1301 - 48, 1));
    a.send(VnetHeader::default(), &big);
    let (_, error) = a.receive();
    assert_eq!((error[40], u32::from_be_bytes(*error[44..].first_chunk().unwrap())), (2, 1300));
    assert_eq!(IpHeader::parse(&error).unwrap().source, IpAddr::V6(v6(2)));
    let (vnet, whole, _) = super_packet(1, 3, 3, 1359);
    a.send(vnet, &whole);
    assert_eq!(a.receive().1[40], 2);
    let fits = packet(1, 3, UDP, &udp(1300 - 48, 2));
    a.send(VnetHeader::default(), &fits);
    assert_eq!(c.receive().1[40..], fits[40..]);
}

#[test]
fn a_small_link_takes_1280_bytes_in_two_parts() {
    let (mut a, b) = pair(900);
    for len in [900, 901, 1280] {
        let sent = packet(1, 2, UDP, &udp(len - 48, 5));
        a.send(VnetHeader::default(), &sent);
        assert_eq!(b.receive().1, sent);
    }
    assert_eq!(a.traffic().sent_packets, 5);
    let sent = packet(1, 2, UDP, &udp(1281 - 48, 5));
    a.send(VnetHeader::default(), &sent);
    let (_, error) = a.receive();
    assert_eq!((error[40], u32::from_be_bytes(*error[44..].first_chunk().unwrap())), (2, 1280));
}

#[test]
fn ipv4_without_dont_fragment_goes_in_two_parts() {
    let (mut a, mut b) = pair(1300);
    let v4 = |last: u8| Ipv4Addr::new(100, 64, 0, last);
    for (node, own, other) in [(&mut a, 1, 2), (&mut b, 2, 1)] {
        let local = Local { address_v4: Some(v4(own)), ..Local::default() };
        node.plane.set_local(&local).unwrap();
        node.plane.set_route(Prefix::host(v4(other).into()), Way { link: LinkId(0), seal: None }).unwrap();
    }
    // From 100.64.0.1 to 100.64.0.2, "don't fragment" set.
    let mut sent = testing::packet(true, UDP, &udp(1400 - 28, 9));
    a.send(VnetHeader::default(), &sent);
    let (_, error) = a.receive();
    let header = IpHeader::parse(&error).unwrap();
    assert_eq!(
        (header.source, &error[20..22], &error[26..28]),
        (v4(1).into(), &[3, 4][..], &1300u16.to_be_bytes()[..])
    );
    // Cleared: the header's checksum is higher by it.
    sent[6] = 0;
    sent[10] += 0x40;
    assert!(checksums_are_right(&sent));
    a.send(VnetHeader::default(), &sent);
    assert_eq!(b.receive().1, sent);
}

#[test]
fn a_packet_does_not_go_back_where_it_came_from() {
    let (mut a, mut b) = pair(1419);
    route(&mut a, 3, 0);
    route(&mut b, 3, 0);
    a.send(VnetHeader::default(), &packet(1, 3, UDP, &udp(5, 1)));
    let (_, error) = a.receive();
    assert_eq!((IpHeader::parse(&error).unwrap().source, error[40]), (IpAddr::V6(v6(2)), 1));
    assert_eq!(b.plane.drops().unroutable, 1);
}

#[test]
fn a_syn_is_clamped() {
    let (a, b) = pair(1300);
    let mut tcp = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0, 0, 0, 0, 0, 2, 4];
    tcp.extend(1440u16.to_be_bytes());
    a.send(VnetHeader::default(), &packet(1, 2, TCP, &tcp));
    let (_, syn) = b.receive();
    assert_eq!(u16::from_be_bytes([syn[62], syn[63]]), 1240);
    assert!(checksums_are_right(&syn));
}

/// A neighbour made of a plain socket.
struct Neighbour {
    socket: UdpSocket,
    key: Box<FrameKey>,
    index: LinkIndex,
}

impl Neighbour {
    fn of(node: &mut Node, id: u32) -> Self {
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let endpoint = Endpoint { iface: IfaceId(0), addr: socket.local_addr().unwrap() };
        let [of_node, of_neighbour] = keys(u8::try_from(id * 2 + 1).unwrap());
        node.plane
            .add_link(LinkId(id), LinkSpec { peer: NodeId([0; 32]), kernel: false, endpoint, keys: of_node, mtu: 1419 })
            .unwrap();
        let key = FrameKey::new(Cipher::ChaCha20Poly1305, &of_neighbour.seal).unwrap();
        Self { socket, key, index: of_neighbour.remote }
    }

    fn frame(&self, counter: u64, flags: u8, packet: &[u8]) -> Vec<u8> {
        let header = frame::header(self.index, counter);
        let plain = [&[flags], packet].concat();
        let mut sealed = vec![0; plain.len() + TAG_LEN];
        self.key.seal(counter, &header, &plain, &mut sealed).unwrap();
        [&header[..], &sealed].concat()
    }

    fn send(&self, node: &Node, datagram: &[u8]) {
        self.socket.send_to(datagram, node.address.addr).unwrap();
    }
}

#[test]
fn hostile_datagrams_change_nothing() {
    let mut node = Node::new(1);
    let neighbour = Neighbour::of(&mut node, 0);
    let good = |counter: u64, fill: u8| neighbour.frame(counter, 0, &packet(9, 1, UDP, &udp(20, fill)));
    neighbour.send(&node, &good(5, 0));
    assert_eq!(node.receive().1[48], 0);

    // Replayed; far too old is replayed too, once the window has moved.
    neighbour.send(&node, &good(5, 1));
    neighbour.send(&node, &good(20_000, 2));
    assert_eq!(node.receive().1[48], 2);
    neighbour.send(&node, &good(6, 3));
    // Changed in each byte; cut short; an index that nobody has; another version of the type.
    let frame = good(20_001, 4);
    for at in 0..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 0x80;
        // Another type is the driver's.
        if at > 0 {
            neighbour.send(&node, &changed);
        }
    }
    for len in 1..frame.len() {
        neighbour.send(&node, &frame[..len]);
    }
    // Authentic but wrong: unknown flags, no IP, lengths that lie, sources that are ours, scopes of one link.
    let own = packet(1, 1, UDP, &udp(20, 5));
    let local = addressed("fe80::1".parse().unwrap(), v6(1), UDP, &udp(20, 5));
    let group = addressed(v6(9), "ff02::1".parse().unwrap(), UDP, &udp(20, 5));
    for (counter, flags, bytes) in [
        (20_002, 8, &packet(9, 1, UDP, &udp(20, 5))[..]),
        (20_003, 3, &packet(9, 1, UDP, &udp(20, 5))),
        (20_004, 0, &[0x50; 60]),
        (20_005, 0, &packet(9, 1, UDP, &udp(20, 5))[..50]),
        (20_006, 0, &own),
        (20_007, 0, &local),
        (20_008, 0, &group),
        (20_009, 0, &[]),
    ] {
        neighbour.send(&node, &neighbour.frame(counter, flags, bytes));
    }
    // Only this one comes.
    neighbour.send(&node, &good(20_010, 6));
    assert_eq!(node.receive().1[48], 6);
    let drops = node.plane.drops();
    assert_eq!(drops.replayed, 2);
    // Every changed byte but the first, every shorter frame, and the one without a packet.
    assert_eq!(drops.unauthenticated, (frame.len() - 1) as u64 * 2 + 1);
    assert_eq!(drops.invalid, 7);
    assert!(node.plane.health().is_ok());
}

#[test]
fn what_is_not_data_goes_to_the_driver() {
    let mut node = Node::new(1);
    let neighbour = Neighbour::of(&mut node, 0);
    let from = neighbour.socket.local_addr().unwrap();
    neighbour.send(&node, &[5, 0, 0, 0, 9]);
    let received = node.control.blocking_recv().unwrap();
    assert_eq!((received.payload, received.from.addr), (vec![5, 0, 0, 0, 9], from));
    // The loopback interface's index.
    assert_eq!(received.from.iface, IfaceId(1));
    // Nobody takes them: four wait, the others are counted.
    for _ in 0..10 {
        neighbour.send(&node, &[1; 36]);
    }
    node.wait(|node| node.plane.drops().control == 6);
    assert!((0..4).all(|_| node.control.blocking_recv().unwrap().payload == [1; 36]));
}

#[test]
fn new_keys_seal_and_old_ones_still_open() {
    let (mut a, mut b) = pair(1419);
    let [of_a, of_b] = keys(101);
    // Only `b` has the new ones: it opens what `a` seals with the old ones.
    b.plane.rekey(LinkId(0), of_b).unwrap();
    let sent = packet(1, 2, UDP, &udp(5, 1));
    a.send(VnetHeader::default(), &sent);
    assert_eq!(b.receive().1, sent);
    a.plane.rekey(LinkId(0), of_a.clone()).unwrap();
    a.send(VnetHeader::default(), &sent);
    assert_eq!(b.receive().1, sent);
    assert_eq!(a.plane.rekey(LinkId(0), of_a.clone()), Err(RekeyError::IndexInUse(of_a.local)));
    // Counters go on.
    assert_eq!(a.traffic().sent_packets, 2);
    // Another rekey: the first keys are gone.
    let sessions = |node: &Node| node.plane.shared.tables.load().sessions.len();
    assert_eq!(sessions(&b), 2);
    b.plane.rekey(LinkId(0), keys(111)[1].clone()).unwrap();
    assert_eq!(sessions(&b), 2);
    b.plane.links[0].old.as_mut().unwrap().since -= OLD_KEYS;
    b.traffic();
    assert_eq!(sessions(&b), 1);
}

#[test]
fn offered_keys_open_before_they_seal() {
    let (mut a, mut b) = pair(1419);
    let [of_a, of_b] = keys(101);
    let sessions = |node: &Node| node.plane.shared.tables.load().sessions.len();
    // `a` began: what it was offered opens, but `b` does not know yet what it would seal with.
    a.plane.offer_keys(LinkId(0), of_a.clone()).unwrap();
    assert_eq!(a.plane.offer_keys(LinkId(0), of_a.clone()), Err(RekeyError::IndexInUse(of_a.local)));
    let there = packet(1, 2, UDP, &udp(5, 1));
    a.send(VnetHeader::default(), &there);
    assert_eq!(b.receive().1, there);
    b.plane.rekey(LinkId(0), of_b).unwrap();
    let back = packet(2, 1, UDP, &udp(5, 2));
    b.send(VnetHeader::default(), &back);
    assert_eq!(a.receive().1, back);
    a.plane.rekey(LinkId(0), of_a).unwrap();
    assert_eq!((sessions(&a), sessions(&b)), (2, 2));
    for number in 3..5 {
        let there = packet(1, 2, UDP, &udp(5, number));
        a.send(VnetHeader::default(), &there);
        assert_eq!(b.receive().1, there);
    }
    // An offer that comes to nothing lapses at the next, and at a rekey with other keys.
    a.plane.offer_keys(LinkId(0), keys(111)[0].clone()).unwrap();
    a.plane.offer_keys(LinkId(0), keys(121)[0].clone()).unwrap();
    assert_eq!(sessions(&a), 3);
    a.plane.rekey(LinkId(0), keys(131)[0].clone()).unwrap();
    assert_eq!(sessions(&a), 2);
}

#[test]
fn a_neighbour_that_moved_is_noticed() {
    let mut node = Node::new(1);
    let mut neighbour = Neighbour::of(&mut node, 0);
    let packet = packet(9, 1, UDP, &udp(5, 1));
    neighbour.send(&node, &neighbour.frame(0, 0, &packet));
    node.receive();
    let mut roamed = Vec::new();
    node.plane.take_roamed(&mut roamed);
    assert!(roamed.is_empty());
    neighbour.socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    neighbour.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // A replay from elsewhere moves nothing.
    neighbour.send(&node, &neighbour.frame(0, 0, &packet));
    neighbour.send(&node, &neighbour.frame(1, 0, &packet));
    node.receive();
    node.plane.take_roamed(&mut roamed);
    let addr = neighbour.socket.local_addr().unwrap();
    assert!(matches!(roamed[..], [(LinkId(0), Endpoint { addr: now, .. })] if now == addr));
    node.plane.set_endpoint(LinkId(0), roamed[0].1).unwrap();
    route(&mut node, 9, 0);
    node.send(VnetHeader::default(), &addressed(v6(1), v6(9), UDP, &udp(5, 1)));
    let mut datagram = [0; 2000];
    assert_eq!(neighbour.socket.recv(&mut datagram).unwrap(), 53 + frame::OVERHEAD);
}

#[test]
fn links_and_routes_come_and_go() {
    let (mut a, mut b) = pair(1419);
    assert_eq!(
        a.plane.add_link(
            LinkId(0),
            LinkSpec {
                peer: NodeId([0; 32]),
                kernel: false,
                endpoint: b.address,
                keys: keys(51)[0].clone(),
                mtu: 1280
            }
        ),
        Err(AddLinkError::Exists(LinkId(0)))
    );
    assert_eq!(
        a.plane.add_link(
            LinkId(7),
            LinkSpec { peer: NodeId([0; 32]), kernel: false, endpoint: b.address, keys: keys(1)[0].clone(), mtu: 1280 }
        ),
        Err(AddLinkError::IndexInUse(LinkIndex(1 << 8)))
    );
    assert_eq!(
        a.plane.set_route(Prefix::DEFAULT_V6, Way { link: LinkId(7), seal: None }),
        Err(SetRouteError::UnknownLink(LinkId(7)))
    );
    assert_eq!(a.plane.set_mtu(LinkId(7), 1280), Err(UnknownLink(LinkId(7))));
    a.plane.remove_link(LinkId(0)).unwrap();
    let lost = packet(1, 2, UDP, &udp(5, 1));
    a.send(VnetHeader::default(), &lost);
    let (_, error) = a.receive();
    assert_eq!((error[40], error[41], &error[48..]), (1, 0, &lost[..]));
    // Another link takes the place; the old routes do not come back with it.
    let [of_a, of_b] = keys(61);
    a.plane
        .add_link(
            LinkId(1),
            LinkSpec { peer: NodeId([0; 32]), kernel: false, endpoint: b.address, keys: of_a, mtu: 1419 },
        )
        .unwrap();
    b.plane.rekey(LinkId(0), of_b).unwrap();
    a.send(VnetHeader::default(), &lost);
    assert_eq!(a.receive().1[40], 1);
    route(&mut a, 2, 1);
    a.send(VnetHeader::default(), &lost);
    assert_eq!(b.receive().1, lost);
}

#[test]
fn a_device_that_is_gone_is_a_failure() {
    let mut node = Node::new(1);
    let (_, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    drop(std::mem::replace(&mut node.host, other));
    node.wait(|node| matches!(node.plane.health(), Err(PlaneFailure::Device(_))));
}
