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
        let traffic = LinkTraffic { sent_packets: 1, ..LinkTraffic::default() };
        into.extend(self.links.iter().map(|link| (*link, traffic)));
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
        let sealed_ports = Arc::clone(&still.sealed_ports);
        Self { planes: Planes::new(Box::new(still), wants.clone(), enabled, 7264), wants, reports, sealed_ports }
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
fn both_planes_packets_are_counted_and_never_fewer() {
    let mut session = Session {
        peer: NEAR,
        mtu: 1419,
        is_seal: false,
        tunnel: None,
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
