//! How fast the user-space plane is on this machine.
//!
//! `plane_speed [NODES] [SECONDS] [RATE|plain|-] [aes|chacha|aes-sealed|chacha-sealed] [iperf3 arguments]`, as root: makes
//! a chain of network namespaces joined by veth pairs, runs a plane with fixed keys in each, and sends TCP from the first to
//! the last by `iperf3`. Prints Mbit/s, and CPU seconds of each plane per gigabyte, its memory, and round-trip times idle
//! and under load. With a RATE (`100mbit`) the first hop is that slow (`tc tbf`, a queue of 50 ms); `plain`: the veths'
//! offloads are off (`ethtool`). Sealed: the two ends, which are no neighbours, have a seal. Nothing is left behind.

#![allow(clippy::print_stdout, reason = "a tool for the terminal")]
#![allow(clippy::unwrap_used, reason = "a tool for developers: it may end with a backtrace")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, Ipv6Addr},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use grange_core::{Cipher, DataKeys, Endpoint, IfaceId, LinkId};
use grange_mesh::{
    plane::{LinkSpec, Local, MTU_OVER_ETHERNET, Plane, Tun, TunConfig, Userspace, UserspaceConfig, Way},
    underlay::{Underlay, UnderlayConfig},
};
use grange_wire::{LinkIndex, NodeId, Prefix, SEAL_PORT};
use tokio::sync::mpsc;

const PORT: u16 = 7264;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    if arguments.first().is_some_and(|first| first == "node") {
        return node(number(1, 0), number(2, 2), Sealing::of(arguments.get(3)));
    }
    let nodes = number(0, 2).clamp(2, 9);
    let town = Town::build(nodes, arguments.get(3).map_or("chacha", String::as_str));
    let rate = arguments.get(2).map(String::as_str).filter(|rate| *rate != "-");
    match rate {
        Some("plain") => town.without_offloads(),
        Some(rate) => town.slow_down(rate),
        None => {}
    }
    town.measure(number(1, 5), arguments.get(4..).unwrap_or_default());
}

/// What encrypts, and whether from end to end too.
#[derive(Clone, Copy)]
struct Sealing {
    cipher: Cipher,
    seals: bool,
}

impl Sealing {
    fn of(name: Option<&String>) -> Self {
        let name = name.map_or("chacha", String::as_str);
        let cipher = match name.trim_end_matches("-sealed") {
            "chacha" => Cipher::ChaCha20Poly1305,
            "aes" => Cipher::Aes256Gcm,
            other => panic!("no cipher {other}: aes or chacha"),
        };
        Self { cipher, seals: name.ends_with("-sealed") }
    }
}

fn v6(node: usize) -> Ipv6Addr {
    format!("fd00:0:0:{node}::1").parse().unwrap()
}

fn v4(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, u8::try_from(node + 1).unwrap())
}

/// The id that a node's addresses follow from.
fn id(node: usize) -> NodeId {
    let mut id = NodeId([0; 32]);
    id.0[..15].copy_from_slice(&v6(node).octets()[1..]);
    id.0[31] = v4(node).octets()[3];
    id
}

fn keys(cipher: Cipher, ours: u8, theirs: u8) -> DataKeys {
    let index = |number: u8| LinkIndex(0x1000 + u32::from(number));
    DataKeys { cipher, local: index(ours), remote: index(theirs), seal: [ours; 32], open: [theirs; 32] }
}

/// One node of the chain: runs until its standard input ends.
fn node(me: usize, nodes: usize, Sealing { cipher, seals }: Sealing) {
    let tun = Tun::open(&TunConfig::default()).unwrap();
    let underlay = Arc::new(Underlay::bind(&UnderlayConfig { port: PORT, mark: None }).unwrap());
    let (control, _received) = mpsc::channel(16);
    let mut plane =
        Userspace::start(UserspaceConfig { device: tun, underlay, control, seals: mpsc::channel(1).0 }).unwrap();
    plane.set_local(&Local { address_v6: Some(v6(me)), address_v4: Some(v4(me)), ..Local::default() }).unwrap();
    let mut link = |left: usize, other: usize, last: u8| {
        let id = LinkId(u32::try_from(left).unwrap());
        let seed = u8::try_from(left * 2).unwrap();
        let (ours, theirs) = if last == 2 { (seed, seed + 1) } else { (seed + 1, seed) };
        let keys = keys(cipher, ours, theirs);
        let addr = (Ipv4Addr::new(10, 9, u8::try_from(left).unwrap(), last), PORT).into();
        let endpoint = Endpoint { iface: IfaceId(0), addr };
        plane
            .add_link(id, LinkSpec { peer: crate::id(other), kernel: false, endpoint, keys, mtu: MTU_OVER_ETHERNET })
            .unwrap();
        let beyond = if other > me { other..nodes } else { 0..other + 1 };
        for node in beyond {
            let ends = me.min(node) == 0 && me.max(node) == nodes - 1;
            let way = Way { link: id, seal: (seals && ends && node != other).then(|| crate::id(node)) };
            plane.set_route(Prefix::new_truncating(v6(node).into(), 64), way).unwrap();
            plane.set_route(Prefix::host(v4(node).into()), way).unwrap();
        }
    };
    if me > 0 {
        link(me - 1, me - 1, 1);
    }
    if me + 1 < nodes {
        link(me, me + 1, 2);
    }
    let end = if me == 0 { Some((nodes - 1, 200, 201)) } else { (me == nodes - 1).then_some((0, 201, 200)) };
    if let Some((far, ours, theirs)) = end.filter(|_| seals && nodes > 2) {
        let endpoint = Endpoint { iface: IfaceId::MESH, addr: (v6(far), SEAL_PORT).into() };
        let mtu = MTU_OVER_ETHERNET - 81;
        let spec = LinkSpec { peer: id(far), kernel: false, endpoint, keys: keys(cipher, ours, theirs), mtu };
        plane.add_link(LinkId(100), spec).unwrap();
    }
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    println!("{:?}", plane.drops());
    let mut counters = Vec::new();
    plane.counters(&mut counters);
    println!("{counters:?}");
}

/// The namespaces and the planes in them.
struct Town {
    names: Vec<String>,
    planes: Vec<Child>,
}

impl Town {
    fn build(nodes: usize, sealing: &str) -> Self {
        let names: Vec<_> = (0..nodes).map(|node| format!("speed{}n{node}", std::process::id())).collect();
        let mut town = Self { names, planes: Vec::new() };
        for name in &town.names {
            run(&["ip", "netns", "add", name]);
            run(&["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        for left in 0..nodes - 1 {
            let (a, b) = (&town.names[left], &town.names[left + 1]);
            run(&["ip", "-n", a, "link", "add", "right", "type", "veth", "peer", "name", "left", "netns", b]);
            for (name, interface, last) in [(a, "right", 1), (b, "left", 2)] {
                run(&["ip", "-n", name, "addr", "add", &format!("10.9.{left}.{last}/24"), "dev", interface]);
                run(&["ip", "-n", name, "link", "set", interface, "up"]);
            }
        }
        for (index, name) in town.names.iter().enumerate() {
            let mut plane = Command::new("ip")
                .args(["netns", "exec", name])
                .arg(env::current_exe().unwrap())
                .args(["node", &index.to_string(), &nodes.to_string(), sealing])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = String::new();
            BufReader::new(plane.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
            assert_eq!(ready, "ready\n");
            town.planes.push(plane);
            for address in [format!("fd00:0:0:{index}::1/128"), format!("100.64.0.{}/32", index + 1)] {
                run(&["ip", "-n", name, "addr", "add", &address, "dev", "grange0"]);
            }
            run(&["ip", "-n", name, "route", "add", "fd00::/8", "dev", "grange0"]);
            run(&["ip", "-n", name, "route", "add", "100.64.0.0/10", "dev", "grange0"]);
        }
        town
    }

    /// As with a plain network card: what is sent is cut before it reaches the interface.
    fn without_offloads(&self) {
        for (index, name) in self.names.iter().enumerate() {
            for (exists, interface) in [(index > 0, "left"), (index + 1 < self.names.len(), "right")] {
                if exists {
                    let off = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off"];
                    run(&[&["ip", "netns", "exec", name, "ethtool", "-K", interface], &off[..]].concat());
                }
            }
        }
    }

    fn slow_down(&self, rate: &str) {
        let name = &self.names[0];
        let tbf = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms"];
        run(&[&["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "right"], &tbf[..]].concat());
    }

    fn measure(&self, seconds: usize, more: &[String]) {
        let (first, last) = (&self.names[0], &self.names[self.names.len() - 1]);
        let ping = |address: &str, length: &str| {
            let output = Command::new("ip")
                .args(["netns", "exec", first, "ping", "-q", "-i", "0.01", "-c", "100", "-s", length, address])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("ping {address}: {}", text.lines().rev().take(2).collect::<Vec<_>>().join("; "));
        };
        let end_v6 = format!("fd00:0:0:{}::1", self.names.len() - 1);
        let end_v4 = format!("100.64.0.{}", self.names.len());
        ping(&end_v6, "56");
        ping(&end_v4, "1300");
        for address in [&end_v6, &end_v4] {
            // One each: a server that still ends its last test refuses the next.
            let mut server =
                Command::new("ip").args(["netns", "exec", last, "iperf3", "-s"]).stdout(Stdio::null()).spawn().unwrap();
            sleep(Duration::from_millis(500));
            let before = self.cpu();
            let pings = Command::new("ip")
                .args(["netns", "exec", first, "ping", "-q", "-i", "0.02", "-w", &seconds.to_string(), address])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let output = Command::new("ip")
                .args(["netns", "exec", first, "iperf3", "-J", "-t", &seconds.to_string(), "-c", address])
                .args(more)
                .output()
                .unwrap();
            let after = self.cpu();
            let pings = pings.wait_with_output().unwrap();
            println!("  under load: {}", String::from_utf8_lossy(&pings.stdout).lines().last().unwrap_or_default());
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            let sum = report.split("\"sum_received\"").nth(1).or_else(|| report.split("\"sum\":").last()).unwrap_or("");
            let field = |text: &str, name: &str| -> f64 {
                let rest = text.split(&format!("\"{name}\":")).nth(1).unwrap_or("0");
                rest.trim_start().split([',', '\n', '}']).next().unwrap().trim().parse().unwrap_or(0.0)
            };
            if let Some(error) = report.split("\"error\":").nth(1) {
                println!("iperf3: {}", error.trim());
            }
            let retransmits = field(report.split("\"sum_sent\"").nth(1).unwrap_or(""), "retransmits");
            let gigabytes = field(sum, "bytes") / 1e9;
            let each: Vec<_> = before.iter().zip(&after).map(|(b, a)| format!("{:.2}", (a - b) / gigabytes)).collect();
            let all: f64 = before.iter().zip(&after).map(|(b, a)| a - b).sum();
            println!(
                "{address}: {:.0} Mbit/s, {:.2} CPU s/GB (each: {}), {retransmits} retransmits",
                field(sum, "bits_per_second") / 1e6,
                all / gigabytes,
                each.join(" "),
            );
            let _ = server.kill();
            let _ = server.wait();
        }
        let memory: Vec<_> = self.planes.iter().map(|plane| status(plane.id(), "VmHWM:")).collect();
        println!("most memory of each: {}", memory.join(", "));
    }

    /// CPU seconds that each plane used so far.
    fn cpu(&self) -> Vec<f64> {
        self.planes
            .iter()
            .map(|plane| {
                let stat = fs::read_to_string(format!("/proc/{}/stat", plane.id())).unwrap();
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
                // Fields 14 and 15 of the whole, in hundredths of a second.
                (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
            })
            .collect()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for (index, mut plane) in self.planes.drain(..).enumerate() {
            drop(plane.stdin.take());
            let mut rest = String::new();
            let _ = plane.stdout.take().unwrap().read_to_string(&mut rest);
            let _ = plane.wait();
            println!("node {index}: {}", rest.trim().replace('\n', "\n        "));
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned()
}

fn run(command: &[&str]) {
    let status = Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(status.success(), "{command:?}");
}
