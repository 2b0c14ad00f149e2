//! The table of nftables against real packets. Cables stand for WireGuard's interfaces: they differ in nothing that the
//! table looks at.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};

use grange_wire::NodeId;
use socket2::{Domain, Socket, Type};

use super::namespace::{enter, here, ip, run, runtime, wire};
use crate::{
    kernel::fence::{self, Fence},
    nft::NftTable,
};

type Job = Box<dyn FnOnce() + Send>;

/// Everybody else, in a namespace of its own.
struct Others {
    jobs: mpsc::Sender<Job>,
    place: PathBuf,
}

impl Others {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, place) = mpsc::channel();
        thread::spawn(move || {
            enter().expect("a namespace");
            tell.send(here()).expect("somebody waits");
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs, place: place.recv().expect("it says where it is") }
    }

    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, answer) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(tell.send(work())))).expect("it runs");
        answer.recv().expect("it did not fail")
    }

    /// A cable between both, on which nobody asks for addresses, as on a tunnel.
    fn cable(&self, name: &'static str, group: u32) {
        ip(&format!("link add {name} type veth peer name far-{name} netns {}", self.place.display()));
        let number = name.bytes().map(u32::from).sum::<u32>();
        let set = move |end: &str| {
            format!("link set {end} address 02:00:00:00:{:02x}:{:02x} arp off", number >> 8, number & 255)
        };
        ip(&set(name));
        ip(&format!("link set {name} group {group} up"));
        self.inside(move || {
            ip(&set(&format!("far-{name}")));
            ip(&format!("link set far-{name} up"));
            let metric = number;
            ip(&format!("route add default dev far-{name} metric {metric}"));
            ip(&format!("-6 route add default dev far-{name} metric {metric}"));
        });
    }

    /// Sends from here by one cable.
    fn send(&self, by: &'static str, from: SocketAddr, to: SocketAddr) {
        self.inside(move || {
            let socket = Socket::new(Domain::for_address(from), Type::DGRAM, None).expect("a socket");
            socket.bind_device(Some(format!("far-{by}").as_bytes())).expect("its interface");
            socket.set_reuse_address(true).expect("its address may be in use");
            socket.bind(&from.into()).expect("its address");
            socket.send_to(b"hello", &to.into()).expect("sent");
        });
    }
}

fn free_of_filters() {
    for setting in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
        fs::write(format!("/proc/sys/net/{setting}"), "0").expect(setting);
    }
    for setting in ["ipv4/conf/all/accept_local", "ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{setting}"), "1").expect(setting);
    }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// A node's addresses.
fn of(number: u8) -> [IpAddr; 2] {
    [grange_wire::node_address(&node(number)).into(), grange_wire::node_address_v4(&node(number)).into()]
}

const OWN: u8 = 1;
const NEAR: u8 = 2;
const SEALED: u8 = 4;
const FAR: u8 = 9;
const SEAL_PORT: u16 = 40_001;

/// A node with links, a seal and LANs: those who send to it, and those whom it sends on to.
fn machine() -> [Others; 2] {
    let [others, beyond] = [Others::new(), Others::new()];
    free_of_filters();
    others.inside(free_of_filters);
    beyond.inside(free_of_filters);
    wire("grange0");
    ip("link set grange0 group 7264 up");
    for address in of(OWN) {
        ip(&format!("addr add {address} dev grange0"));
    }
    others.cable("grange1", 7264);
    others.cable("grange2", 7264);
    others.cable("grange3", 7265);
    others.cable("lan0", 0);
    beyond.cable("grange4", 7264);
    beyond.cable("lan1", 0);
    ip("addr add 192.168.7.1/24 dev lan0");
    ip(&format!("route add {} dev lan1", grange_wire::lan_prefix(&node(OWN))));
    for network in ["198.51.100.0/24", "2001:db8:9::/64"] {
        ip(&format!("route add {network} dev grange4"));
    }
    others.inside(|| {
        let nodes = [NEAR, SEALED, FAR].into_iter().flat_map(of);
        let rest = ["198.51.100.9", "2001:db8:7::9", "192.168.7.9"].map(|text| text.parse().expect("an address"));
        for address in nodes.chain(rest).chain([laptop(7)]) {
            ip(&format!("addr add {address} dev lo"));
        }
    });
    beyond.inside(|| {
        for address in mesh().into_iter().chain([laptop(8)]) {
            ip(&format!("addr add {address} dev lo"));
        }
    });
    let fence = Fence {
        open: true,
        lans: ["192.168.7.0/24".parse().expect("a prefix")].into(),
        near: [("grange1".into(), node(NEAR)), ("grange2".into(), node(3))].into(),
        sealed: [(SEAL_PORT, node(SEALED))].into(),
        ..Fence::closed(node(OWN), "grange0", true)
    };
    runtime().block_on(async {
        let mut table = NftTable::find(fence::TABLE).expect("nft");
        table.apply(&fence.to_string()).await.expect("nft takes it");
    });
    [others, beyond]
}

/// A host of a LAN, in the node's /64.
fn laptop(number: u8) -> IpAddr {
    let mut octets = grange_wire::node_address(&node(OWN)).octets();
    octets[8..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, number]);
    octets.into()
}

/// Where the mesh leads to.
fn mesh() -> [IpAddr; 2] {
    ["2001:db8:9::1", "198.51.100.1"].map(|text| text.parse().expect("an address"))
}

fn listen(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    socket
}

fn came(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 16]).is_ok()
}

/// Whether a datagram that comes by a cable is taken here.
fn taken(others: &Others, by: &'static str, from: (IpAddr, u16), to: (IpAddr, u16)) -> bool {
    let (socket, after) = (listen(to.1), listen(9999));
    others.send(by, from.into(), to.into());
    // What is taken in any case, sent after it.
    others.send("grange1", (of(NEAR)[0], 5).into(), (of(OWN)[0], 9999).into());
    while !came(&after) {}
    came(&socket)
}

/// Whether a datagram that comes by a cable goes on to where its destination is.
fn passes([others, beyond]: &[Others; 2], by: &'static str, from: IpAddr, to: IpAddr) -> bool {
    let socket = beyond.inside(|| listen(9));
    others.send(by, (from, 5).into(), (to, 9).into());
    came(&socket)
}

#[test]
fn only_sealed_and_near_nodes_and_only_the_nodes_own_addresses() {
    run("only_sealed_and_near_nodes_and_only_the_nodes_own_addresses", || {
        let [others, _beyond] = machine();
        for (((near, far), sealed), own) in of(NEAR).into_iter().zip(of(FAR)).zip(of(SEALED)).zip(of(OWN)) {
            let from = |by, source| taken(&others, by, (source, 5), (own, 9));
            assert!(from("grange1", near), "{near} is at the other end");
            assert!(!from("grange2", near), "{near} is at the other end of another");
            assert!(!from("grange1", far) && !from("grange1", sealed));
            assert!(from("grange3", sealed), "by its seal");
        }
        let internet = "198.51.100.9".parse().unwrap();
        assert!(taken(&others, "grange1", (internet, 5), (of(OWN)[1], 9)));
        // What makes seals, and what is one, and that from its other end alone.
        let [own, own_v4] = of(OWN);
        assert!(taken(&others, "grange1", (of(FAR)[0], 7265), (own, 7265)));
        assert!(!taken(&others, "grange1", (of(FAR)[0], 7266), (own, 7265)));
        assert!(!taken(&others, "grange1", (of(FAR)[1], 7265), (own_v4, 7265)));
        for (from, fine) in [(SEALED, true), (FAR, false), (NEAR, false)] {
            assert_eq!(taken(&others, "grange1", (of(from)[0], 7), (own, SEAL_PORT)), fine, "{from}");
        }
        assert!(!taken(&others, "lan0", (of(SEALED)[0], 7), (own, SEAL_PORT)), "not over the mesh");
        // The household's own.
        for by in ["grange1", "grange3"] {
            assert!(!taken(&others, by, (of(NEAR)[1], 5), ("192.168.7.1".parse().unwrap(), 9)), "{by}");
            assert!(!taken(&others, by, ("192.168.7.9".parse().unwrap(), 5), (own_v4, 9)), "{by}");
        }
        assert!(taken(&others, "lan0", ("192.168.7.9".parse().unwrap(), 5), ("192.168.7.1".parse().unwrap(), 9)));
    });
}

#[test]
fn what_passes_the_mesh_never_was_in_a_seal_and_what_enters_is_this_nodes() {
    run("what_passes_the_mesh_never_was_in_a_seal_and_what_enters_is_this_nodes", || {
        let all = machine();
        for ((to, far), sealed) in mesh().into_iter().zip(of(FAR)).zip(of(SEALED)) {
            assert!(passes(&all, "grange1", far, to), "from link to link, to {to}");
            assert!(!passes(&all, "grange3", sealed, to), "out of a seal");
        }
        let to_lan = |by, from: u8| passes(&all, by, of(from)[0], laptop(8));
        assert!(to_lan("grange1", NEAR) && to_lan("grange3", SEALED));
        assert!(!to_lan("grange1", FAR));
        let [mesh_v6, mesh_v4] = mesh();
        assert!(passes(&all, "lan0", laptop(7), mesh_v6));
        // What nobody has translated.
        assert!(!passes(&all, "lan0", "192.168.7.9".parse().unwrap(), mesh_v4));
        assert!(!passes(&all, "lan0", "2001:db8:7::9".parse().unwrap(), mesh_v6));
    });
}
