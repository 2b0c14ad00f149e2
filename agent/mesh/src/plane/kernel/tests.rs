//! Which way packets are sent as interfaces come, prove themselves and go.

use std::sync::{Arc, Mutex};

use grange_core::{Cipher, IfaceId};
use grange_wire::LinkIndex;
use tokio::sync::watch;

use super::*;
use crate::kernel::{Reports, SEAL_MARK, TunnelReport};

/// A plane that takes everything and moves nothing.
#[derive(Default)]
struct Still {
    links: Vec<LinkId>,
    /// What it says it has sent on every link.
    sent_bytes: Arc<Mutex<BTreeMap<LinkId, u64>>>,
    sealed_ports: Arc<Mutex<Vec<u16>>>,
}

impl Plane for Still {
    fn name(&self) -> &'static str {
        "userspace"
    }
    fn add_link(&mut self, link: LinkId, _spec: LinkSpec) -> Result<(), AddLinkError> {
        self.links.push(link);
        Ok(())
    }
    fn offer_keys(&mut self, _link: LinkId, _keys: DataKeys) -> Result<(), RekeyError> {
        Ok(())
    }
    fn rekey(&mut self, _link: LinkId, _keys: DataKeys) -> Result<(), RekeyError> {
        Ok(())
    }
    fn set_endpoint(&mut self, _link: LinkId, _endpoint: Endpoint) -> Result<(), UnknownLink> {
        Ok(())
    }
    fn set_mtu(&mut self, _link: LinkId, _mtu: u16) -> Result<(), UnknownLink> {
        Ok(())
    }
    fn remove_link(&mut self, link: LinkId) -> Result<(), UnknownLink> {
        self.links.retain(|known| *known != link);
        Ok(())
    }
    fn set_route(&mut self, _prefix: Prefix, way: Way) -> Result<(), SetRouteError> {
        self.links.contains(&way.link).then_some(()).ok_or(SetRouteError::UnknownLink(way.link))
    }
    fn remove_route(&mut self, _prefix: Prefix) {}
    fn set_local(&mut self, _local: &Local) -> Result<(), SetLocalError> {
        Ok(())
    }
    fn counters(&mut self, into: &mut Vec<(LinkId, LinkTraffic)>) {
        let sent = self.sent_bytes.lock().unwrap();
        let traffic = |link| LinkTraffic {
            sent_packets: 1,
            sent_bytes: sent.get(link).copied().unwrap_or_default(),
            ..LinkTraffic::default()
        };
        into.extend(self.links.iter().map(|link| (*link, traffic(link))));
    }
    fn take_roamed(&mut self, _into: &mut Vec<(LinkId, Endpoint)>) {}
    fn drops(&self) -> PlaneDrops {
        PlaneDrops::default()
    }
    fn health(&self) -> Result<(), PlaneFailure> {
        Ok(())
    }
    fn set_sealed_ports(&mut self, ports: &[u16]) {
        *self.sealed_ports.lock().unwrap() = ports.to_vec();
    }
}

struct Bench {
    planes: Planes,
    wants: Wants,
    reports: watch::Sender<Reports>,
    sealed_ports: Arc<Mutex<Vec<u16>>>,
    sent_bytes: Arc<Mutex<BTreeMap<LinkId, u64>>>,
}

const NEAR: NodeId = NodeId([1; 32]);
const FAR: NodeId = NodeId([2; 32]);
const LINK: LinkId = LinkId(1);
const SEAL: LinkId = LinkId(2);
const IN_USERSPACE: Hop = Hop::Userspace { mtu: 0 };

impl Bench {
    fn new(enabled: bool) -> Self {
        let (wants, reports) = Wants::alone();
        let still = Still::default();
        let (sealed_ports, sent_bytes) = (Arc::clone(&still.sealed_ports), Arc::clone(&still.sent_bytes));
        let planes = Planes::new(Box::new(still), wants.clone(), enabled, 7264);
        Self { planes, wants, reports, sealed_ports, sent_bytes }
    }

    /// A seal of this number and with a peer of its own.
    fn add_seal(&mut self, number: u32) {
        let spec = LinkSpec {
            peer: NodeId([u8::try_from(number % 251).unwrap(); 32]),
            endpoint: Endpoint { iface: IfaceId::MESH, addr: "[fd00::2]:7265".parse().unwrap() },
            keys: keys(1),
            mtu: 1338,
            kernel: true,
        };
        self.planes.add_link(LinkId(number), spec).unwrap();
    }

    /// The other plane has carried so much more on this.
    fn carries(&mut self, link: LinkId, bytes: u64) {
        *self.sent_bytes.lock().unwrap().entry(link).or_default() += bytes;
    }

    /// Which have interfaces of so many that are there.
    fn placed(&self, seals: bool) -> Vec<LinkId> {
        self.wants.wanted().tunnels.iter().filter(|(_, spec)| spec.seal == seals).map(|(link, _)| *link).collect()
    }

    fn add(&mut self, link: LinkId, peer: NodeId, kernel: bool) {
        let (iface, addr) = match link {
            SEAL => (IfaceId::MESH, "[fd00::2]:7265"),
            _ => (IfaceId(3), "[fe80::1]:7264"),
        };
        let spec = LinkSpec {
            peer,
            endpoint: Endpoint { iface, addr: addr.parse().unwrap() },
            keys: keys(u8::try_from(link.0).unwrap()),
            mtu: 1338,
            kernel,
        };
        self.planes.add_link(link, spec).unwrap();
    }

    /// The kernel has made what is wanted, and reports so many handshakes of each.
    fn kernel(&mut self, handshakes: u32) {
        let made = self.wants.wanted().tunnels.into_iter().map(|(link, spec)| {
            let number = link.0;
            let report = TunnelReport {
                name: format!("nowhere{number}"),
                index: number,
                port: 4000 + u16::try_from(number).unwrap(),
                handshakes,
                generation: spec.generation,
            };
            (link, report)
        });
        self.reports.send_replace(made.collect());
        self.planes.counters(&mut Vec::new());
    }

    fn prove(&mut self, link: LinkId) {
        self.kernel(0);
        self.planes.set_peer_port(link, 5000);
        self.kernel(0);
        self.kernel(1);
        assert_eq!(self.planes.plane_of(link), "kernel");
    }

    fn path(&self, prefix: &str) -> Path {
        self.wants.wanted().paths[&prefix.parse().unwrap()]
    }

    fn ports(&mut self) -> Vec<(LinkId, u16)> {
        let mut ports = Vec::new();
        self.planes.take_ports(&mut ports);
        ports
    }
}

fn keys(first: u8) -> DataKeys {
    DataKeys {
        cipher: Cipher::ChaCha20Poly1305,
        local: LinkIndex(u32::from(first)),
        remote: LinkIndex(9),
        seal: [first; 32],
        open: [first + 100; 32],
    }
}

fn way(seal: Option<NodeId>) -> Way {
    Way { link: LINK, seal }
}

#[test]
fn packets_take_an_interface_once_it_is_proven() {
    let mut bench = Bench::new(true);
    bench.add(LINK, NEAR, true);
    let near: Prefix = "fd01::/64".parse().unwrap();
    bench.planes.set_route(near, way(None)).unwrap();
    assert_eq!(bench.path("fd01::/64"), Path::default());
    bench.kernel(0);
    assert_eq!(bench.ports(), [(LINK, 4001)]);
    bench.kernel(0);
    assert_eq!(bench.ports(), [], "said once");
    bench.prove(LINK);
    assert_eq!(bench.path("fd01::/64"), Path { enter: Hop::Kernel(LINK), pass: Hop::Kernel(LINK) });
    // The other end stops using it; and the link ends.
    bench.planes.set_peer_port(LINK, 0);
    assert_eq!(bench.path("fd01::/64"), Path::default());
    assert_eq!(bench.planes.plane_of(LINK), "userspace");
    bench.planes.remove_route(near);
    bench.planes.remove_link(LINK).unwrap();
    let wanted = bench.wants.wanted();
    assert!(wanted.paths.is_empty() && wanted.tunnels.is_empty());
}

#[test]
fn what_enters_is_sealed_and_what_passes_is_not() {
    let mut bench = Bench::new(true);
    bench.add(LINK, NEAR, true);
    bench.planes.set_route("fd02::/64".parse().unwrap(), way(Some(FAR))).unwrap();
    bench.prove(LINK);
    // Without a seal the other plane holds packets back, or seals them itself; what passes needs none.
    let pass = Hop::Kernel(LINK);
    assert_eq!(bench.path("fd02::/64"), Path { enter: IN_USERSPACE, pass });
    bench.add(SEAL, FAR, true);
    assert_eq!(bench.path("fd02::/64"), Path { enter: Hop::Userspace { mtu: 1338 }, pass });
    bench.kernel(1);
    assert!(bench.placed(true).is_empty(), "no interface for a seal that carries nothing");
    bench.carries(SEAL, 100);
    bench.kernel(1);
    assert_eq!(bench.wants.wanted().tunnels[&SEAL].mark, SEAL_MARK);
    bench.prove(SEAL);
    assert_eq!(bench.path("fd02::/64"), Path { enter: Hop::Kernel(SEAL), pass });
    assert_eq!(*bench.sealed_ports.lock().unwrap(), [4002]);
    bench.planes.set_mtu(SEAL, 1300).unwrap();
    assert_eq!(bench.wants.wanted().tunnels[&SEAL].mtu, 1300);
    bench.planes.remove_link(SEAL).unwrap();
    assert_eq!(bench.path("fd02::/64"), Path { enter: IN_USERSPACE, pass });
    bench.kernel(1);
    assert!(bench.sealed_ports.lock().unwrap().is_empty());
}

#[test]
fn a_rekey_changes_the_preshared_key_alone() {
    let mut bench = Bench::new(true);
    bench.add(LINK, NEAR, true);
    bench.prove(LINK);
    let before = bench.wants.wanted().tunnels[&LINK].clone();
    bench.planes.offer_keys(LINK, keys(50)).unwrap();
    assert_eq!(bench.wants.wanted().tunnels[&LINK], before, "the other end may not have them yet");
    bench.planes.rekey(LINK, keys(50)).unwrap();
    let after = bench.wants.wanted().tunnels[&LINK].clone();
    assert_ne!(after.preshared, before.preshared);
    assert_eq!(crate::kernel::TunnelSpec { preshared: before.preshared.clone(), ..after }, before);
    assert_eq!(bench.planes.plane_of(LINK), "kernel", "its session goes on");
}

#[test]
fn without_wireguard_at_both_ends_there_is_no_interface() {
    for (enabled, kernel) in [(false, true), (true, false)] {
        let mut bench = Bench::new(enabled);
        bench.add(LINK, NEAR, kernel);
        bench.planes.set_peer_port(LINK, 5000);
        bench.kernel(1);
        assert!(bench.wants.wanted().tunnels.is_empty());
        assert_eq!(bench.planes.plane_of(LINK), "userspace");
        assert_eq!(bench.ports(), []);
    }
}

#[test]
fn there_is_a_bound() {
    let mut bench = Bench::new(true);
    for number in 0..MAX_TUNNELS + 10 {
        let spec = LinkSpec {
            peer: NEAR,
            endpoint: Endpoint { iface: IfaceId(3), addr: "[fe80::1]:7264".parse().unwrap() },
            keys: keys(1),
            mtu: 1419,
            kernel: true,
        };
        bench.planes.add_link(LinkId(u32::try_from(number).unwrap() + 10), spec).unwrap();
    }
    assert_eq!(bench.wants.wanted().tunnels.len(), MAX_TUNNELS);
}

#[test]
fn links_never_wait_for_an_interface_that_a_seal_has() {
    let mut bench = Bench::new(true);
    for number in 1000..1200 {
        bench.add_seal(number);
        bench.carries(LinkId(number), u64::from(number));
    }
    bench.kernel(0);
    assert_eq!(bench.placed(true), (1136..1200).map(LinkId).collect::<Vec<_>>(), "the busiest");
    for number in 10..110 {
        let spec = LinkSpec {
            peer: NEAR,
            endpoint: Endpoint { iface: IfaceId(3), addr: "[fe80::1]:7264".parse().unwrap() },
            keys: keys(1),
            mtu: 1419,
            kernel: true,
        };
        bench.planes.add_link(LinkId(number), spec).unwrap();
    }
    assert_eq!((bench.placed(false).len(), bench.placed(true).len()), (100, MAX_TUNNELS - 100));
    assert_eq!(bench.placed(true)[0], LinkId(1172), "the quietest have made room");
    for number in 10..110 {
        bench.planes.remove_link(LinkId(number)).unwrap();
    }
    bench.kernel(0);
    assert_eq!((bench.placed(false).len(), bench.placed(true).len()), (0, MAX_SEALS));
}

#[test]
fn a_seal_gives_its_interface_up_when_it_is_idle_or_others_are_busier() {
    let mut bench = Bench::new(true);
    for number in 1000..1000 + u32::try_from(MAX_SEALS).unwrap() {
        bench.add_seal(number);
        bench.carries(LinkId(number), 1000);
    }
    bench.kernel(0);
    bench.add_seal(2000);
    bench.carries(LinkId(2000), 2500);
    bench.kernel(0);
    bench.ports();
    assert!(!bench.placed(true).contains(&LinkId(2000)), "not so soon");
    bench.planes.distribute(Instant::now() + TENURE);
    assert!(bench.placed(true).contains(&LinkId(2000)));
    assert_eq!(bench.ports(), [(LinkId(1000), 0)], "the other end is told");
    bench.planes.distribute(Instant::now() + Duration::from_secs(600));
    assert!(bench.placed(true).is_empty());
}

#[test]
fn both_planes_packets_are_counted_and_never_fewer() {
    let mut session = Session {
        peer: NEAR,
        mtu: 1419,
        is_seal: false,
        tunnel: None,
        placed: None,
        activity: Activity::new(Instant::now()),
        told: 0,
        counts: Counts::default(),
        before: Counts::default(),
    };
    session.count(Counts { sent_packets: 10, sent_bytes: 10_160, received_packets: 5, received_bytes: 5_160 });
    let expected = LinkTraffic { sent_packets: 10, sent_bytes: 10_000, received_packets: 5, received_bytes: 5_000 };
    assert_eq!(session.traffic(), expected);
    // Another interface counts from zero.
    session.count(Counts { sent_packets: 1, sent_bytes: 1_016, received_packets: 0, received_bytes: 0 });
    let expected = LinkTraffic { sent_packets: 11, sent_bytes: 11_000, ..expected };
    assert_eq!(session.traffic(), expected);
}
