//! Seals over planes that know no more than their links.

use grange_wire::SEAL_PORT;

use super::*;
use crate::plane::userspace::seal::SEAL_OVERHEAD;

const FAR: LinkId = LinkId(100);

/// The node whose address is `v6(number)`, and whose IPv4 address is 100.64.0.`number`.
fn id(number: u16) -> NodeId {
    let mut id = NodeId([0; 32]);
    id.0[..15].copy_from_slice(&v6(number).octets()[1..]);
    id.0[30..].copy_from_slice(&number.to_be_bytes());
    assert_eq!(grange_wire::node_address(&id), v6(number));
    id
}

/// What node `with` is told of a seal.
fn seal_spec(with: u16, keys: DataKeys, mtu: u16) -> LinkSpec {
    let endpoint = Endpoint { iface: IfaceId::MESH, addr: (v6(with), SEAL_PORT).into() };
    LinkSpec { peer: id(with), kernel: false, endpoint, keys, mtu }
}

fn route_sealed(node: &mut Node, to: u16, link: u32) {
    let prefix = Prefix::new_truncating(v6(to).into(), 64);
    node.plane.set_route(prefix, Way { link: LinkId(link), seal: Some(id(to)) }).unwrap();
}

/// Nodes 1, 2 and 3 in a row, whose routes to the farther one are sealed; there is no seal yet.
fn chain(mtu: [u16; 2]) -> [Node; 3] {
    let [mut a, mut b, mut c] = [Node::new(1), Node::new(2), Node::new(3)];
    join(&mut a, &mut b, 0, mtu[0]);
    join(&mut b, &mut c, 1, mtu[1]);
    route(&mut a, 2, 0);
    route_sealed(&mut a, 3, 0);
    route(&mut b, 1, 0);
    route(&mut b, 3, 1);
    route(&mut c, 2, 1);
    route_sealed(&mut c, 1, 1);
    [a, b, c]
}

/// Joins the ends of a row. What waits at `a` goes at once, so `c` comes first.
fn seal(a: &mut Node, c: &mut Node, mtu: u16) {
    let [of_a, of_c] = keys(201);
    c.plane.add_link(FAR, seal_spec(1, of_c, mtu)).unwrap();
    a.plane.add_link(FAR, seal_spec(3, of_a, mtu)).unwrap();
}

fn counted(node: &mut Node, id: LinkId) -> LinkTraffic {
    let mut all = Vec::new();
    node.plane.counters(&mut all);
    all.into_iter().find(|(link, _)| *link == id).unwrap().1
}

/// What a super-packet's segments are at the other end.
fn receive_segments(node: &Node, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while got.len() < count {
        let (vnet, bytes) = node.receive();
        got.extend(cut(&vnet, &bytes));
    }
    got
}

#[test]
fn packets_arrive_as_they_were_and_the_node_on_the_way_loses_no_hop_of_them() {
    let [mut a, mut b, mut c] = chain([1419, 1419]);
    seal(&mut a, &mut c, 1338);
    for len in [0, 1, 700, 1338 - 48] {
        let sent = packet(1, 3, UDP, &udp(len, 7));
        a.send(VnetHeader::default(), &sent);
        assert_eq!(c.receive(), (VnetHeader::default(), sent.clone()));
        let back = packet(3, 1, UDP, &udp(len, 8));
        c.send(VnetHeader::default(), &back);
        assert_eq!(a.receive().1, back);
    }
    let bytes = 3 * 48 + 1 + 700 + 1338;
    let traffic = counted(&mut a, FAR);
    assert_eq!((traffic.sent_packets, traffic.sent_bytes, traffic.received_packets), (4, bytes, 4));
    // The link counts what it carried.
    assert_eq!(counted(&mut a, LinkId(0)).sent_bytes, bytes + 4 * u64::from(SEAL_OVERHEAD));
    for (segments, segment) in [(46, 1278), (90, 700), (3, 1000)] {
        let (vnet, whole, want) = super_packet(1, 3, segments, segment);
        a.send(vnet, &whole);
        assert!(receive_segments(&c, want.len()) == want, "{segments} segments of {segment}");
    }
    assert_eq!(b.plane.drops(), PlaneDrops::default());
    assert_eq!(c.plane.drops(), PlaneDrops::default());
    assert!(b.traffic().received_packets > 100);
}

/// The end of a link of node 1 that sees what passes.
struct Watcher {
    socket: UdpSocket,
    key: Box<FrameKey>,
}

impl Watcher {
    /// In the place of node 2 on link 0.
    fn of(node: &mut Node) -> Self {
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let endpoint = Endpoint { iface: IfaceId(0), addr: socket.local_addr().unwrap() };
        let [of_node, of_watcher] = keys(1);
        let key = FrameKey::new(Cipher::ChaCha20Poly1305, &of_watcher.open).unwrap();
        node.plane
            .add_link(LinkId(0), LinkSpec { peer: id(2), kernel: false, endpoint, keys: of_node, mtu: 1419 })
            .unwrap();
        Self { socket, key }
    }

    /// Flags and packet of the next frame.
    fn next(&self) -> Vec<u8> {
        let mut datagram = [0; 2000];
        let len = self.socket.recv(&mut datagram).expect("nothing came");
        let (header, _, counter, sealed) = frame::split(&mut datagram[..len]).unwrap();
        self.key.open(counter, header, sealed).unwrap().to_vec()
    }
}

#[test]
fn who_forwards_sees_an_outer_packet_and_can_open_nothing() {
    let mut a = Node::new(1);
    let watcher = Watcher::of(&mut a);
    route_sealed(&mut a, 3, 0);
    let [of_a, of_c] = keys(201);
    a.plane.add_link(FAR, seal_spec(3, of_a, 1338)).unwrap();
    let mut sent = packet(1, 3, UDP, &udp(100, 0x5a));
    // Expedited forwarding, able to hear of congestion, of some flow.
    sent[..4].copy_from_slice(&[0x6b, 0xa1, 0x23, 0x45]);
    a.send(VnetHeader::default(), &sent);
    let outer = watcher.next();
    assert_eq!(outer.len(), 1 + sent.len() + usize::from(SEAL_OVERHEAD));
    assert_eq!(outer[..9], [0, 0x6b, 0xa0, 0, 0, 0, 8 + 33 + 148, 17, 64]);
    assert_eq!((&outer[9..25], &outer[25..41]), (&v6(1).octets()[..], &v6(3).octets()[..]));
    assert_eq!(outer[41..49], [0x1c, 0x61, 0x1c, 0x61, 0, 8 + 33 + 148, 0, 0]);
    assert!(!outer.windows(8).any(|bytes| bytes == [0x5a; 8]));
    let mut inner = outer[49..].to_vec();
    let (header, index, counter, sealed) = frame::split(&mut inner).unwrap();
    assert_eq!((index, counter), (of_c.local.0, 0));
    let far = FrameKey::new(Cipher::ChaCha20Poly1305, &of_c.open).unwrap();
    let plain = far.open(counter, header, sealed).unwrap();
    assert_eq!((plain[0], &plain[1..]), (0, &sent[..]));

    // What must not be sealed is not: a trace's probe and the datagrams that make seals.
    let mut probe = packet(1, 3, 58, &[128, 0, 0, 0, 0, 1, 0, 1]);
    probe[7] = 3;
    let control = packet(1, 3, UDP, &[&[0x1c, 0x61, 0x1c, 0x61, 0, 12, 0, 0][..], &[5, 0, 0, 0]].concat());
    let other = addressed(v6(1), v6(3), UDP, &[&[0x1f, 0x90, 0, 80, 0, 12, 0, 0][..], &[1, 2, 3, 4]].concat());
    a.plane.set_sealed_ports(&[0x1f90]);
    for bare in [probe, control, other] {
        a.send(VnetHeader::default(), &bare);
        assert_eq!(watcher.next()[1..], bare);
    }
    // With a hop limit as hosts have it, it is a ping.
    a.send(VnetHeader::default(), &packet(1, 3, 58, &[128, 0, 0, 0, 0, 1, 0, 1]));
    assert_eq!(watcher.next()[7], 17);
}

#[test]
fn packets_wait_for_the_seal_and_come_in_their_order() {
    let [mut a, mut b, mut c] = chain([1419, 1419]);
    let (vnet, whole, want) = super_packet(1, 3, 20, 1278);
    a.send(vnet, &whole);
    let singles: Vec<_> = (0..5).map(|fill| packet(1, 3, UDP, &udp(20, fill))).collect();
    singles.iter().for_each(|single| a.send(VnetHeader::default(), single));
    assert_eq!(a.seals.blocking_recv(), Some(id(3)));
    // Those in the device's queue have been read when this one is out.
    let direct = packet(1, 2, UDP, &udp(1, 1));
    a.send(VnetHeader::default(), &direct);
    assert_eq!(b.receive().1, direct);
    assert_eq!(b.traffic().received_packets, 1, "nothing went without a seal");
    seal(&mut a, &mut c, 1338);
    assert!(receive_segments(&c, want.len()) == want);
    assert_eq!(receive_segments(&c, singles.len()), singles);
    // The seal goes, and another comes.
    a.plane.remove_link(FAR).unwrap();
    let again = packet(1, 3, UDP, &udp(20, 9));
    a.send(VnetHeader::default(), &again);
    let [of_a, of_c] = keys(211);
    c.plane.rekey(FAR, of_c).unwrap();
    a.plane.add_link(LinkId(101), seal_spec(3, of_a, 1338)).unwrap();
    assert_eq!(c.receive().1, again);
}

#[test]
fn who_waits_in_vain_is_told() {
    let [a, ..] = chain([1419, 1419]);
    let sent = packet(1, 3, UDP, &udp(20, 1));
    a.send(VnetHeader::default(), &sent);
    let (_, error) = a.receive();
    assert_eq!((error[40], error[41], &error[48..]), (1, 0, &sent[..]));
}

#[test]
fn what_waits_for_a_node_that_becomes_a_neighbour_goes_there() {
    let [mut a, _b, mut c] = chain([1419, 1419]);
    let sent = packet(1, 3, UDP, &udp(20, 1));
    a.send(VnetHeader::default(), &sent);
    assert_eq!(a.seals.blocking_recv(), Some(id(3)));
    join(&mut a, &mut c, 2, 1419);
    route(&mut a, 3, 2);
    assert_eq!(c.receive().1, sent);
}

#[test]
fn small_ways_take_1280_bytes_and_say_what_fits() {
    // What a seal begins with, over a link that needs two parts for outer packets of 1280 bytes.
    let [mut a, _b, mut c] = chain([1419, 1219]);
    seal(&mut a, &mut c, 1199);
    for len in [1199, 1200, 1280] {
        let sent = packet(1, 3, UDP, &udp(len - 48, 5));
        a.send(VnetHeader::default(), &sent);
        assert_eq!(c.receive().1, sent);
    }
    assert_eq!(counted(&mut a, FAR).sent_packets, 5);
    // What a kernel that was told of 1280 makes, or one that was told nothing.
    let (vnet, whole, want) = super_packet(1, 3, 9, 1220);
    a.send(vnet, &whole);
    assert!(receive_segments(&c, want.len()) == want);
    let too_big = |bytes: &[u8]| {
        assert_eq!((bytes[40], bytes[41]), (2, 0));
        u32::from_be_bytes(*bytes[44..].first_chunk().unwrap())
    };
    a.send(VnetHeader::default(), &packet(1, 3, UDP, &udp(1281 - 48, 5)));
    assert_eq!(too_big(&a.receive().1), 1280);
    let mut tcp = vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0, 0, 0, 0, 0, 2, 4];
    tcp.extend(1440u16.to_be_bytes());
    a.send(VnetHeader::default(), &packet(1, 3, TCP, &tcp));
    let (_, syn) = c.receive();
    assert_eq!(u16::from_be_bytes([syn[62], syn[63]]), 1199 - 60);
    assert!(checksums_are_right(&syn));

    // The link here carries less than when the seal was measured.
    a.plane.set_mtu(FAR, 1338).unwrap();
    a.plane.set_mtu(LinkId(0), 1400).unwrap();
    a.send(VnetHeader::default(), &packet(1, 3, UDP, &udp(1338 - 48, 5)));
    assert_eq!(too_big(&a.receive().1), 1319);
}

#[test]
fn a_router_on_the_way_that_carries_less_is_heard() {
    let [mut a, _b, mut c] = chain([1419, 1300]);
    seal(&mut a, &mut c, 1338);
    let big = packet(1, 3, UDP, &udp(1338 - 48, 5));
    a.send(VnetHeader::default(), &big);
    // The node itself is told of its outer packet, as any router tells: that is how the plane knows.
    let (_, error) = a.receive();
    assert_eq!((error[40], u32::from_be_bytes(*error[44..].first_chunk().unwrap())), (2, 1300));
    assert_eq!(error[48 + 40..48 + 44], [0x1c, 0x61, 0x1c, 0x61]);
    a.send(VnetHeader::default(), &big);
    let (_, error) = a.receive();
    assert_eq!(IpHeader::parse(&error).unwrap().source, IpAddr::V6(v6(1)));
    assert_eq!(u32::from_be_bytes(*error[44..].first_chunk().unwrap()), 1280);
    assert_eq!(error[48..], big[..error.len() - 48]);
    let fits = packet(1, 3, UDP, &udp(1280 - 48, 6));
    a.send(VnetHeader::default(), &fits);
    assert_eq!(c.receive().1, fits);
    // Believed for a while.
    let narrow = |node: &Node| node.plane.links.iter().find(|state| state.id == FAR).unwrap().narrow;
    counted(&mut a, FAR);
    assert!(narrow(&a).is_some());
    a.plane.links.iter_mut().find(|state| state.id == FAR).unwrap().narrow = Some(Instant::now() - NARROW);
    counted(&mut a, FAR);
    counted(&mut a, FAR);
    assert!(narrow(&a).is_none());
}

/// Node 2 of a row, made of a socket and the keys of everything: it can try what it likes with node 1.
struct Attacker {
    link: Neighbour,
    seal: Neighbour,
    counter: u64,
}

impl Attacker {
    fn of(node: &mut Node) -> Self {
        let link = Neighbour::of(node, 0);
        let [of_node, of_far] = keys(201);
        node.plane.add_link(FAR, seal_spec(3, of_node, 1338)).unwrap();
        let key = FrameKey::new(Cipher::ChaCha20Poly1305, &of_far.seal).unwrap();
        let seal = Neighbour { socket: link.socket.try_clone().unwrap(), key, index: of_far.remote };
        Self { link, seal, counter: 0 }
    }

    fn outer(&self, from: u16, frame: &[u8]) -> Vec<u8> {
        let len = u16::try_from(frame.len() + 8).unwrap().to_be_bytes();
        packet(from, 1, 0, &[&[0x1c, 0x61, 0x1c, 0x61, len[0], len[1], 0, 0], frame].concat())
            .into_iter()
            .enumerate()
            .map(|(at, byte)| if at == 6 { UDP } else { byte })
            .collect()
    }

    /// Over the link.
    fn send(&mut self, node: &Node, bytes: &[u8]) {
        self.link.send(node, &self.link.frame(self.counter, 0, bytes));
        self.counter += 1;
    }
}

#[test]
fn a_node_on_the_way_can_put_in_nothing() {
    let mut node = Node::that_seals(1);
    let mut attacker = Attacker::of(&mut node);
    let plain = |from: u16, fill: u8| packet(from, 1, UDP, &udp(20, fill));
    // Before anything came through the seal.
    attacker.send(&node, &plain(3, 1));
    let frame = attacker.seal.frame(7, 0, &plain(3, 2));
    let good = attacker.outer(3, &frame);
    attacker.send(&node, &good);
    assert_eq!(node.receive().1[48], 2);

    // Again; with a byte changed; from another node's address; as if it were a link's; with a key that is no seal's.
    attacker.send(&node, &good);
    let mut changed = attacker.seal.frame(8, 0, &plain(3, 3));
    changed[30] ^= 1;
    let changed = attacker.outer(3, &changed);
    attacker.send(&node, &changed);
    let elsewhere = attacker.outer(9, &attacker.seal.frame(9, 0, &plain(3, 3)));
    attacker.send(&node, &elsewhere);
    attacker.link.send(&node, &attacker.seal.frame(10, 0, &plain(3, 3)));
    let link_key = attacker.outer(3, &attacker.link.frame(5000, 0, &plain(3, 3)));
    attacker.send(&node, &link_key);
    // Without a seal, in the name of one who has one and of one who has none.
    attacker.send(&node, &plain(3, 3));
    attacker.send(&node, &plain(5, 3));
    // Cut short.
    for len in 1..33 {
        let short = attacker.outer(3, &frame[..len]);
        attacker.send(&node, &short);
    }
    // By the far end, if that is the one that lies: in another's name, in ours, for somebody else, and no packet at all.
    for (counter, bytes) in [(20, plain(4, 3)), (21, plain(1, 3)), (22, vec![0x60; 60])] {
        let wrong = attacker.outer(3, &attacker.seal.frame(counter, 0, &bytes));
        attacker.send(&node, &wrong);
    }
    let onward = attacker.outer(3, &attacker.seal.frame(23, 0, &packet(3, 9, UDP, &udp(20, 3))));
    attacker.send(&node, &onward);
    // Only these come: the seal goes on, ICMP needs none, nor what the neighbour says itself or what is from beyond the
    // mesh, and what makes seals comes as it is.
    let more = attacker.outer(3, &attacker.seal.frame(24, 0, &plain(3, 4)));
    attacker.send(&node, &more);
    attacker.send(&node, &packet(3, 1, 58, &[129, 0, 0, 0, 0, 1, 0, 1]));
    attacker.send(&node, &plain(0, 6));
    let beyond = addressed("2001:db8::1".parse().unwrap(), v6(1), UDP, &udp(20, 7));
    attacker.send(&node, &beyond);
    let control = packet(3, 1, UDP, &[0x1c, 0x61, 0x1c, 0x61, 0, 12, 0, 0, 5, 0, 0, 0]);
    attacker.send(&node, &control);
    let other = packet(3, 1, UDP, &[0x12, 0x34, 0x1f, 0x90, 0, 12, 0, 0, 4, 0, 0, 0]);
    attacker.send(&node, &other);
    node.wait(|node| node.plane.drops().unsealed == 1 + 2 + 1);
    node.plane.set_sealed_ports(&[0x1f90]);
    attacker.send(&node, &other);
    assert_eq!(node.receive().1[48], 4);
    assert_eq!(node.receive().1[40], 129);
    assert_eq!(node.receive().1[48], 6);
    assert_eq!(node.receive().1, beyond);
    assert_eq!(node.receive().1, control);
    assert_eq!(node.receive().1, other);
    let drops = node.plane.drops();
    assert_eq!((drops.replayed, drops.unauthenticated, drops.unroutable), (1, 1 + 1 + 1 + 32, 1));
    assert_eq!((drops.invalid, drops.unsealed), (1 + 3, 1 + 2 + 1));
}

#[test]
fn who_has_a_seal_forced_down_can_put_in_nothing() {
    let mut node = Node::that_seals(1);
    let mut attacker = Attacker::of(&mut node);
    let plain = packet(3, 1, UDP, &udp(20, 1));
    let sealed = attacker.outer(3, &attacker.seal.frame(0, 0, &packet(3, 1, UDP, &udp(20, 2))));
    attacker.send(&node, &sealed);
    assert_eq!(node.receive().1[48], 2);
    // Down, not there, and there again without anything having come through it.
    node.plane.remove_link(FAR).unwrap();
    attacker.send(&node, &plain);
    node.wait(|node| node.plane.drops().unsealed == 1);
    let [of_node, of_far] = keys(211);
    node.plane.add_link(LinkId(101), seal_spec(3, of_node, 1338)).unwrap();
    attacker.send(&node, &plain);
    node.wait(|node| node.plane.drops().unsealed == 2);
    attacker.seal.key = FrameKey::new(Cipher::ChaCha20Poly1305, &of_far.seal).unwrap();
    attacker.seal.index = of_far.remote;
    let again = attacker.outer(3, &attacker.seal.frame(0, 0, &packet(3, 1, UDP, &udp(20, 3))));
    attacker.send(&node, &again);
    assert_eq!(node.receive().1[48], 3);
}

#[test]
fn what_leaves_the_mesh_here_must_have_come_in_a_seal_too() {
    let mut node = Node::that_seals(1);
    let exits = vec![Prefix::DEFAULT_V6, Prefix::DEFAULT_V4];
    node.plane.set_local(&Local { address_v6: Some(v6(1)), exits, sealed: true, ..Local::default() }).unwrap();
    let mut attacker = Attacker::of(&mut node);
    let out = |from: Ipv6Addr, fill: u8| addressed(from, "2001:db8::1".parse().unwrap(), UDP, &udp(20, fill));
    attacker.send(&node, &out(v6(3), 1));
    let sealed = attacker.outer(3, &attacker.seal.frame(0, 0, &out(v6(3), 2)));
    attacker.send(&node, &sealed);
    // The neighbour's own.
    attacker.send(&node, &out(v6(0), 3));
    assert_eq!(node.receive().1[48], 2);
    assert_eq!(node.receive().1[48], 3);
    assert_eq!((node.plane.drops().unsealed, node.plane.drops().invalid), (1, 0));
}

#[test]
fn who_seals_nothing_asks_nobody_for_seals() {
    let mut node = Node::new(1);
    let mut attacker = Attacker::of(&mut node);
    let sealed = attacker.outer(3, &attacker.seal.frame(0, 0, &packet(3, 1, UDP, &udp(20, 1))));
    attacker.send(&node, &sealed);
    assert_eq!(node.receive().1[48], 1);
    attacker.send(&node, &packet(3, 1, UDP, &udp(20, 2)));
    assert_eq!(node.receive().1[48], 2);
}

#[test]
fn the_other_end_may_be_a_gateway() {
    let mut node = Node::new(1);
    node.plane
        .set_local(&Local {
            address_v6: Some(v6(1)),
            address_v4: Some(Ipv4Addr::new(100, 64, 0, 1)),
            ..Local::default()
        })
        .unwrap();
    let mut attacker = Attacker::of(&mut node);
    let beyond = addressed("2001:db8::1".parse().unwrap(), v6(1), UDP, &udp(20, 1));
    let answer = attacker.outer(3, &attacker.seal.frame(0, 0, &beyond));
    attacker.send(&node, &answer);
    assert_eq!(node.receive().1, beyond);
    // From 100.64.0.1, which is ours, as from nobody else's, and from the peer's own.
    let v4 = |last: u8| {
        let mut bytes = testing::packet(true, UDP, &[0, 1, 0, 2, 0, 9, 0, 0, last]);
        (bytes[15], bytes[19]) = (last, 1);
        bytes[10..12].fill(0);
        let sum: u32 = bytes[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    };
    for (counter, last) in [(1, 2), (2, 3)] {
        let one = attacker.outer(3, &attacker.seal.frame(counter, 0, &v4(last)));
        attacker.send(&node, &one);
    }
    assert_eq!(node.receive().1, v4(3));
    assert_eq!(node.plane.drops().invalid, 1);
}

#[test]
fn congestion_on_the_way_reaches_the_packet_inside() {
    let mut node = Node::new(1);
    let mut attacker = Attacker::of(&mut node);
    let mut inner = packet(3, 1, UDP, &udp(20, 1));
    inner[1] = 2 << 4;
    let mut outer = attacker.outer(3, &attacker.seal.frame(0, 0, &inner));
    outer[1] = 3 << 4;
    attacker.send(&node, &outer);
    inner[1] = 3 << 4;
    assert_eq!(node.receive().1, inner);
}

#[test]
fn peers_are_forgotten_with_their_routes() {
    let [mut a, ..] = chain([1419, 1419]);
    let peers = |node: &Node| node.plane.shared.tables.load().waits_for(&id(3));
    assert!(peers(&a));
    a.plane.set_route(Prefix::DEFAULT_V6, Way { link: LinkId(0), seal: Some(id(3)) }).unwrap();
    a.plane.remove_route(Prefix::new_truncating(v6(3).into(), 64));
    assert!(peers(&a));
    a.plane.remove_route(Prefix::DEFAULT_V6);
    assert!(!peers(&a));
    // With the link go its routes; a seal that is there is found by the routes that come after it.
    route_sealed(&mut a, 3, 0);
    a.plane.remove_link(LinkId(0)).unwrap();
    assert!(!peers(&a));
    a.plane.add_link(FAR, seal_spec(3, keys(201)[0].clone(), 1338)).unwrap();
    let mut b = Node::new(2);
    join(&mut a, &mut b, 3, 1419);
    route_sealed(&mut a, 3, 3);
    assert!(!peers(&a));
    a.plane.remove_link(FAR).unwrap();
    assert!(peers(&a));
}
