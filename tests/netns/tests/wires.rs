//! The library itself, without an agent: a town that does not do what it says would prove nothing.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use grange_netns::{
    Binary, Cut, Download, EchoServer, EchoStream, Flow, FlowSpec, Impairment, Namespace, PathMtuProbe, Prober,
    Snapshot, Town, WebServer, WireSpec, fetch, town_test, wait_until,
};

const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Two hosts on one wire, no agents.
fn pair(spec: WireSpec) -> Result<Town> {
    let town = Town::builder().nodes(&["a", "b"]).link_with("a", "b", spec).binary(Binary::at("/bin/false")).build()?;
    for (name, address, interface) in [("a", A, "to-b"), ("b", B, "to-a")] {
        town.node(name)?.namespace().ip(&format!("addr add {address}/64 dev {interface} nodad"))?;
    }
    Ok(town)
}

fn reaches(namespace: &Namespace, target: Ipv6Addr) -> Result<bool> {
    let mut prober = Prober::new(namespace)?;
    // The first packet may wait for neighbour discovery.
    Ok((0..5).any(|_| prober.probe(&[target], Duration::from_millis(400))[0].is_some()))
}

fn carrier(namespace: &Namespace, interface: &str) -> Result<bool> {
    Ok(namespace.ip(&format!("-o link show dev {interface}"))?.contains("LOWER_UP"))
}

#[test]
fn a_carrier_cut_takes_the_carrier_of_both_ends_and_leaves_them_up() {
    town_test("a_carrier_cut_takes_the_carrier_of_both_ends_and_leaves_them_up", || {
        let town = pair(WireSpec::default())?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        ensure!(reaches(a, B)?, "the wire carries nothing");
        town.cut("a", "b", Cut::Carrier)?;
        ensure!(!carrier(a, "to-b")? && !carrier(b, "to-a")?, "a carrier is left");
        ensure!(a.ip("-o link show dev to-b")?.contains(",UP"), "the end went down");
        ensure!(!reaches(a, B)?, "a cut wire carries packets");
        town.mend("a", "b")?;
        ensure!(carrier(a, "to-b")? && carrier(b, "to-a")?, "the carrier did not come back");
        ensure!(reaches(a, B)?, "the mended wire carries nothing");
        Ok(())
    });
}

#[test]
fn a_silent_cut_leaves_the_carrier_and_tells_no_sender() {
    town_test("a_silent_cut_leaves_the_carrier_and_tells_no_sender", || {
        let town = pair(WireSpec::default())?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let _server = EchoServer::start(b, B.into())?;
        let stream = EchoStream::start(a, B.into(), Duration::from_millis(5), 100)?;
        stream.wait_flowing(Duration::from_secs(3))?;
        let at = Instant::now();
        town.cut("a", "b", Cut::Silent)?;
        ensure!(carrier(a, "to-b")? && carrier(b, "to-a")?, "a carrier is gone");
        let socket = a.inside(|| std::net::UdpSocket::bind("[::]:0"))?;
        for _ in 0..50 {
            socket.send_to(b"lost", (B, 9)).context("the cut tells the sender")?;
        }
        wait_until("a gap", Duration::from_secs(2), || Ok((at.elapsed() > Duration::from_millis(300)).then_some(())))?;
        town.mend("a", "b")?;
        stream.wait_flowing(Duration::from_secs(3))?;
        let gap = stream.report().gap(at, Instant::now());
        ensure!(gap >= Duration::from_millis(290), "packets passed a cut wire: the gap was {gap:?}");
        Ok(())
    });
}

#[test]
fn loss_and_rate_are_what_was_asked_for() {
    town_test("loss_and_rate_are_what_was_asked_for", || {
        let town = pair(WireSpec { loss: 0.2, rate: Some(20_000_000), ..WireSpec::default() })?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let _server = EchoServer::start(b, B.into())?;
        let start = Instant::now();
        let stream = EchoStream::start(a, B.into(), Duration::from_millis(1), 64)?;
        wait_until("1500 datagrams", Duration::from_secs(10), || {
            Ok((stream.report().sent.len() >= 1500).then_some(()))
        })?;
        let report = stream.report();
        let share = report.lost(start, Instant::now() - Duration::from_millis(100)) as f64 / report.sent.len() as f64;
        // Twice 0.2 on the way there and back: 0.36.
        ensure!((0.28..0.44).contains(&share), "lost {share}");
        town.wire("a", "b")?.set_loss(0.0)?;
        let _web = WebServer::start(b, &[B.into()])?;
        let done = Download::start(a, B.into(), 1, 5_000_000, 0)?.finish(Duration::from_secs(20))?;
        let rate = done.bytes as f64 * 8.0 / done.elapsed.as_secs_f64();
        ensure!((10e6..22e6).contains(&rate), "{rate} bit/s over a wire of 20 Mbit/s");
        Ok(())
    });
}

#[test]
fn a_detour_lets_frames_be_overtaken_until_it_is_closed() {
    town_test("a_detour_lets_frames_be_overtaken_until_it_is_closed", || {
        let town = pair(WireSpec { offload: false, ..WireSpec::default() })?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let flow = || Flow::start(a, b, B.into(), FlowSpec { sizes: vec![64, 1400], rate: 5000, seed: 1 });
        ensure!(reaches(a, B)?, "the wire carries nothing");
        let wire = town.wire("a", "b")?;
        for how in [None, Some((20, Duration::from_millis(2))), None] {
            wire.reorder(how)?;
            let flow = flow()?;
            std::thread::sleep(Duration::from_secs(1));
            let report = flow.finish()?;
            // A frame that waits 2 ms at 5,000 a second is overtaken by several, if no pause of the machine is in between.
            let expected = if how.is_some() { report.sent / 100..=report.sent / 20 + 1 } else { 0..=0 };
            ensure!(report.arrived == report.sent && expected.contains(&report.overtaken), "{how:?}: {report:?}");
            ensure!(report.changed + report.repeated == 0, "{how:?}: {report:?}");
        }
        Ok(())
    });
}

#[test]
fn the_relay_delays_and_reorders_and_tcp_survives_it() {
    town_test("the_relay_delays_and_reorders_and_tcp_survives_it", || {
        let delay = Duration::from_millis(10);
        let impairment =
            Impairment { delay, reorder: 0.1, hold: Duration::from_millis(5), loss: 0.01, duplicate: 0.01, seed: 7 };
        let town = pair(WireSpec { impairment: Some(impairment), ..WireSpec::default() })?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let _server = EchoServer::start(b, B.into())?;
        let stream = EchoStream::start(a, B.into(), Duration::from_millis(1), 64)?;
        stream.wait_flowing(Duration::from_secs(3))?;
        wait_until("1000 datagrams", Duration::from_secs(10), || {
            Ok((stream.report().sent.len() >= 1000).then_some(()))
        })?;
        let report = stream.report();
        let overtaken = report.arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        ensure!(overtaken > 20, "only {overtaken} datagrams were overtaken");
        let fastest = report.arrived.iter().map(|(number, at)| *at - report.sent[*number]).min().context("nothing")?;
        ensure!(fastest >= 2 * delay, "a round trip took {fastest:?}");
        drop(stream);
        let _web = WebServer::start(b, &[B.into()])?;
        Download::start(a, B.into(), 2, 1_000_000, 0)?.finish(Duration::from_secs(30))?;
        town.cut("a", "b", Cut::Silent)?;
        ensure!(!reaches(a, B)?, "a cut relay carries packets");
        town.mend("a", "b")?;
        ensure!(reaches(a, B)?, "the mended relay carries nothing");
        Ok(())
    });
}

#[test]
fn captures_see_both_ways_and_injected_frames_arrive() {
    town_test("captures_see_both_ways_and_injected_frames_arrive", || {
        let town = pair(WireSpec { offload: false, ..WireSpec::default() })?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let _web = WebServer::start(b, &[B.into()])?;
        let wire = town.wire("a", "b")?;
        let capture = wire.capture()?;
        let page = fetch(a, B.into(), "/", Duration::from_secs(5))?;
        ensure!(page.status == 200 && page.body.contains(&A.to_string()), "{page:?}");
        let recording = capture.stop();
        let request = recording.find(b"GET / HTTP").context("the request was not seen")?;
        let answer = recording.find(b"You are fd00::1").context("the answer was not seen")?;
        ensure!(recording.frames[request].from == 0 && recording.frames[answer].from == 1, "wrong directions");
        ensure!(recording.dropped == 0 && recording.frames.iter().all(|frame| frame.bytes.len() <= 1514));
        recording.write_pcap(&town.directory().join("wire.pcap"))?;

        // The same datagram once more, from the wire: its receiver cannot tell.
        let receiver = b.inside(|| std::net::UdpSocket::bind((B, 5000)))?;
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        let capture = wire.capture()?;
        a.inside(|| std::net::UdpSocket::bind("[::]:0"))?.send_to(b"once", (B, 5000))?;
        let mut buffer = [0; 64];
        ensure!(receiver.recv(&mut buffer)? == 4);
        let recording = capture.stop();
        let frame = &recording.frames[recording.find(b"once").context("the datagram was not seen")?];
        ensure!(frame.udp().is_some_and(|(_, to, payload)| to == 5000 && payload == b"once"), "{frame:?}");
        wire.injector("b")?.send(&frame.bytes)?;
        ensure!(receiver.recv(&mut buffer).context("the injected datagram did not arrive")? == 4);
        Ok(())
    });
}

#[test]
fn a_path_mtu_is_found_and_a_snapshot_sees_every_change() {
    town_test("a_path_mtu_is_found_and_a_snapshot_sees_every_change", || {
        let town = pair(WireSpec { mtu: 1300, ..WireSpec::default() })?;
        let (a, b) = (town.node("a")?.namespace(), town.node("b")?.namespace());
        let server: IpAddr = B.into();
        let _server = EchoServer::start(b, server)?;
        let probe = PathMtuProbe::new(a, server)?;
        ensure!(probe.passes(1300, 3)? && !probe.passes(1301, 1)? && probe.path_mtu()? == 1300);

        let before = Snapshot::take(a)?;
        before.expect_same(&Snapshot::take(a)?)?;
        for (change, undo) in [
            ("ip addr add fd00::77/64 dev to-b nodad", "ip addr del fd00::77/64 dev to-b"),
            ("ip route add blackhole 192.0.2.0/24 table 77", "ip route del blackhole 192.0.2.0/24 table 77"),
            ("ip -6 rule add pref 77 table 77", "ip -6 rule del pref 77"),
            ("nft add table inet left", "nft delete table inet left"),
            ("sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv4.ip_forward=0"),
        ] {
            a.sh(change)?;
            ensure!(before.expect_same(&Snapshot::take(a)?).is_err(), "not seen: {change}");
            a.sh(undo)?;
        }
        Ok(())
    });
}

#[test]
fn a_town_with_the_internet_and_laptops_leaves_nothing() {
    town_test("a_town_with_the_internet_and_laptops_leaves_nothing", || {
        let town = Town::builder()
            .nodes(&["gate", "mill"])
            .link("gate", "mill")
            .uplink("gate")
            .laptop("lena", "gate")
            .binary(Binary::at("/bin/false"))
            .build()?;
        let gate = town.node("gate")?.namespace();
        for server in [grange_netns::INTERNET_V4.into(), grange_netns::INTERNET_V6.into()] {
            let page = fetch(gate, server, "/", Duration::from_secs(5))?;
            ensure!(page.body.contains("the Internet"), "{page:?}");
        }
        let lena = town.laptop("lena")?;
        lena.namespace().sh("true")?;
        let process = lena.namespace().command("sleep").arg("1000").spawn()?;
        let (directory, name) = (town.directory().to_owned(), lena.namespace().name().to_owned());
        drop(town);
        let mut process = process;
        let ended = process.wait()?;
        ensure!(!ended.success(), "a process outlived its town");
        ensure!(!directory.exists(), "the town's directory is left");
        ensure!(!std::path::Path::new("/run/netns").join(name).exists(), "a namespace is left");
        Ok(())
    });
}
