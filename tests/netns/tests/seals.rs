//! What goes farther than a neighbour is sealed from end to end: a router on the way can neither read nor change nor repeat
//! it, and hosts notice nothing of it.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use grange_netns::{
    Download, EchoServer, EchoStream, Flow, FlowReport, FlowSpec, Laptop, Mischief, Namespace, Node, NodeSpec,
    PathMtuProbe, Prober, Spy, Town, TownBuilder, Transfer, WebServer, WireSpec, measured, town_test, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// `lena` at `mill - oak - pond` with `tom`.
fn chain(spec: WireSpec, config: &str) -> TownBuilder {
    ["mill", "oak", "pond"]
        .into_iter()
        .fold(Town::builder(), |town, name| town.node_with(NodeSpec::new(name).config(config)))
        .link_with("mill", "oak", spec)
        .link_with("oak", "pond", spec)
        .laptop("lena", "mill")
        .laptop("tom", "pond")
}

fn start(builder: TownBuilder) -> Result<Town> {
    let town = builder.build()?;
    town.found()?;
    town.start()?;
    town.wait_reachable(Duration::from_secs(10))?;
    Ok(town)
}

fn laptops(town: &Town) -> Result<[&Laptop; 2]> {
    Ok([town.laptop("lena")?, town.laptop("tom")?])
}

/// Nodes that `node` has a seal with.
fn sealed_with(node: &Node) -> Result<Vec<String>> {
    Ok(node.seals()?.into_iter().map(|seal| seal.peer.name).collect())
}

/// The number of the only seal of `node`, which is with `peer`.
fn seal(node: &Node, peer: &str) -> Result<u64> {
    let seals = node.seals()?;
    ensure!(seals.len() == 1 && seals[0].peer.name == peer, "the seals of {}: {seals:?}", node.name());
    Ok(seals[0].seal)
}

/// A town in which `oak` is a spy.
fn with_a_spy(config: &str) -> Result<(Town, Spy)> {
    let town = start(chain(WireSpec { offload: false, ..WireSpec::default() }, config))?;
    let oak = town.node("oak")?;
    oak.stop()?;
    let spy = Spy::start(oak, &["to-mill", "to-pond"])?;
    let ends = [town.node("mill")?.address()?, town.node("pond")?.address()?];
    wait_until("the spy to be believed", Duration::from_secs(15), || Ok(spy.reaches(ends).then_some(())))?;
    town.wait_reachable(Duration::from_secs(15))?;
    Ok((town, spy))
}

/// What must not be seen on the way, with what it is.
fn secrets(town: &Town) -> Result<[(&'static str, Vec<u8>); 3]> {
    let [lena, tom] = laptops(town)?;
    Ok([
        // The echo stream's filling.
        ("a payload", vec![b'x'; 24]),
        ("the sender's address", lena.v6()?.octets().to_vec()),
        ("the receiver's address", tom.v6()?.octets().to_vec()),
    ])
}

/// Sends from `lena` to `tom` and back, and gives which secrets the spy saw, of how many packets.
fn watch(town: &Town, spy: &Spy) -> Result<(Vec<&'static str>, usize)> {
    let [lena, tom] = laptops(town)?;
    let server: IpAddr = tom.v6()?.into();
    let _echo = EchoServer::start(tom.namespace(), server)?;
    let _ = spy.take_seen();
    let stream = EchoStream::start(lena.namespace(), server, Duration::from_millis(5), 600)?;
    stream.wait_flowing(Duration::from_secs(5))?;
    sleep(Duration::from_secs(1));
    stream.wait_flowing(Duration::from_secs(5))?;
    drop(stream);
    let seen = spy.take_seen();
    let large = seen.iter().filter(|packet| packet.len() > 600).count();
    ensure!(large > 200, "the spy saw {large} packets only: the traffic went another way");
    let holds = |needle: &[u8]| seen.iter().any(|packet| packet.windows(needle.len()).any(|window| window == needle));
    let secrets = secrets(town)?;
    Ok((secrets.into_iter().filter(|(_, bytes)| holds(bytes)).map(|(what, _)| what).collect(), seen.len()))
}

#[test]
fn a_router_on_the_way_reads_neither_payload_nor_hosts_addresses() {
    town_test("a_router_on_the_way_reads_neither_payload_nor_hosts_addresses", || {
        let (town, spy) = with_a_spy("")?;
        let (read, count) = watch(&town, &spy)?;
        ensure!(read.is_empty(), "the router on the way read {read:?} in {count} packets");
        measured(&format!("{count} packets passed the router on the way, none readable"));
        // By their keys: mill's with pond, and none of the neighbours among themselves.
        ensure!(sealed_with(town.node("mill")?)? == ["pond"], "{:?}", town.node("mill")?.seals()?);
        Ok(())
    });
}

#[test]
fn without_seals_a_router_on_the_way_would_read_them() {
    town_test("without_seals_a_router_on_the_way_would_read_them", || {
        let (town, spy) = with_a_spy("[mesh]\nseals = false\n")?;
        let (read, _) = watch(&town, &spy)?;
        ensure!(read.len() == 3, "the spy read {read:?} only: it is no proof of anything");
        ensure!(town.node("mill")?.seals()?.is_empty() && town.node("pond")?.seals()?.is_empty(), "there are seals");
        Ok(())
    });
}

/// Numbered datagrams both ways while the spy does something; gives what became of those from `lena` and of those to her.
fn under(town: &Town, spy: &Spy, mischief: Mischief) -> Result<([FlowReport; 2], u64)> {
    let [lena, tom] = laptops(town)?;
    let spec = |seed| FlowSpec { sizes: vec![80, 700, 1200], rate: 500, seed };
    spy.set(Mischief::None);
    sleep(Duration::from_millis(200));
    spy.set(mischief);
    let flows = [
        Flow::start(lena.namespace(), tom.namespace(), tom.v6()?.into(), spec(1))?,
        Flow::start(tom.namespace(), lena.namespace(), lena.v6()?.into(), spec(2))?,
    ];
    sleep(Duration::from_secs(2));
    let [there, back] = flows.map(Flow::finish);
    let done = spy.done();
    spy.set(Mischief::None);
    let reports = [there?, back?];
    measured(&format!("{mischief:?} of {done} frames: {reports:?}"));
    for report in &reports {
        ensure!(report.changed == 0, "changed on the way and delivered all the same: {report:?}");
        ensure!(report.repeated == 0, "repeated on the way and delivered twice: {report:?}");
    }
    Ok((reports, done))
}

#[test]
fn what_a_router_on_the_way_changes_or_repeats_is_refused() {
    town_test("what_a_router_on_the_way_changes_or_repeats_is_refused", || {
        let (town, spy) = with_a_spy("")?;
        let [lena, tom] = laptops(&town)?;
        let server: IpAddr = tom.v6()?.into();
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let stream = EchoStream::start(lena.namespace(), server, Duration::from_millis(20), 100)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        drop(stream);
        let seals = [seal(town.node("mill")?, "pond")?, seal(town.node("pond")?, "mill")?];

        let (reports, altered) = under(&town, &spy, Mischief::Alter(5))?;
        let [sent, arrived] =
            [reports.iter().map(|it| it.sent).sum::<u64>(), reports.iter().map(|it| it.arrived).sum::<u64>()];
        ensure!(altered > 100, "only {altered} were altered");
        ensure!(arrived <= sent - altered, "{altered} of {sent} were altered, and {arrived} arrived");
        ensure!(arrived * 2 > sent, "{arrived} of {sent} arrived: those that were not altered are refused too");

        let (reports, repeated) = under(&town, &spy, Mischief::Repeat)?;
        ensure!(repeated > 500, "only {repeated} were repeated");
        ensure!(
            reports.iter().all(|it| it.arrived * 10 >= it.sent * 8),
            "the first of each is refused too: {reports:?}"
        );

        let other = town.node("oak")?.address()?;
        let (reports, renamed) = under(&town, &spy, Mischief::Rename(other))?;
        ensure!(renamed > 500, "only {renamed} were renamed");
        ensure!(
            reports.iter().all(|it| it.arrived * 10 >= it.sent * 8),
            "who they came from was not looked at: {reports:?}"
        );

        let after = [seal(town.node("mill")?, "pond")?, seal(town.node("pond")?, "mill")?];
        ensure!(seals == after, "the seals {seals:?} became {after:?}");
        Ok(())
    });
}

/// The first datagram of all, on a way with nothing on it yet.
#[test]
fn the_first_packet_waits_for_its_seal() {
    town_test("the_first_packet_waits_for_its_seal", || {
        let town = chain(WireSpec::default(), "").build()?;
        town.found()?;
        town.start()?;
        let (mill, pond, [lena, tom]) = (town.node("mill")?, town.node("pond")?, laptops(&town)?);
        let (there, back) = (pond.keys()?.prefix, mill.keys()?.prefix);
        wait_until("routes", Duration::from_secs(10), || {
            let both = town.way("mill", &there)?.len() == 3 && town.way("pond", &back)?.len() == 3;
            Ok(both.then_some(()))
        })?;
        // Between each laptop and its own node all is ready, and nothing has gone farther.
        for (laptop, node) in [(lena, mill), (tom, pond)] {
            let mut prober = Prober::new(laptop.namespace())?;
            let address = node.address()?;
            wait_until("a laptop's own node", Duration::from_secs(10), || {
                Ok(prober.probe(&[address], Duration::from_millis(200))[0].map(drop))
            })?;
        }
        ensure!(mill.seals()?.is_empty() && pond.seals()?.is_empty(), "there is a seal before anybody wants one");
        let sink = tom.namespace().inside(|| UdpSocket::bind((tom.v6().unwrap_or(Ipv6Addr::LOCALHOST), 0)))?;
        sink.set_read_timeout(Some(Duration::from_secs(3)))?;
        let socket = lena.namespace().inside(|| UdpSocket::bind("[::]:0"))?;
        let at = Instant::now();
        for number in 0..8u8 {
            socket.send_to(&[number; 1000], sink.local_addr()?)?;
        }
        let mut buffer = [0; 2048];
        for number in 0..8u8 {
            let (length, _) = sink.recv_from(&mut buffer).with_context(|| format!("packet {number} did not arrive"))?;
            ensure!(buffer[..length] == [number; 1000], "another packet than {number}");
            if number == 0 {
                measured(&format!("the first packet took {:?} with the making of its seal", at.elapsed()));
                ensure!(at.elapsed() < Duration::from_secs(1), "the first packet took {:?}", at.elapsed());
            }
        }
        ensure!(sealed_with(mill)? == ["pond"] && sealed_with(pond)? == ["mill"], "{:?}", mill.seals()?);
        ensure!(town.node("oak")?.seals()?.is_empty(), "the router on the way has a seal of its own");
        wait_until("the seal's counters", Duration::from_secs(2), || {
            Ok(mill.seals()?.iter().any(|seal| seal.sent_bytes >= 8000).then_some(()))
        })?;
        Ok(())
    });
}

/// Packets of 1280 bytes pass whole, larger ones up to what is said to fit, and hosts are told the size.
fn sizes(name: &str, mtu: u32, largest: u32) {
    town_test(name, || {
        let town = start(chain(WireSpec { mtu, ..WireSpec::default() }, ""))?;
        let [lena, tom] = laptops(&town)?;
        let server: IpAddr = tom.v6()?.into();
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let probe = PathMtuProbe::new(lena.namespace(), server)?;
        ensure!(probe.passes(1280, 5)?, "1280 bytes do not pass");
        ensure!(!sealed_with(town.node("mill")?)?.is_empty(), "no seal");
        // What is known of the way grows while it is looked for.
        let (found, took) = wait_until("the largest packet", Duration::from_secs(20), || {
            let probe = PathMtuProbe::new(lena.namespace(), server)?;
            // Asks for the most, and learns what fits from who refuses it.
            let _ = probe.passes(1500, 2)?;
            // The kernel that forwards names what the TUN carries, the plane what the seal does.
            let _ = probe.passes(probe.path_mtu()? as usize, 2)?;
            let now = probe.path_mtu()?;
            lena.namespace().sh("ip -6 route flush cache")?;
            Ok((now == largest).then_some(now))
        })?;
        ensure!(probe.passes(found as usize, 5)?, "{found} bytes were said to pass and do not");
        measured(&format!("over {mtu}: {found} bytes pass, known after {took:?}"));
        let _web = WebServer::start(tom.namespace(), &[server])?;
        Download::start(lena.namespace(), server, 5, 20_000_000, 0)?.finish(Duration::from_secs(30))?;
        Ok(())
    });
}

#[test]
fn sealed_packets_of_1338_pass_over_wires_of_1500() {
    sizes("sealed_packets_of_1338_pass_over_wires_of_1500", 1500, 1338);
}

#[test]
fn sealed_packets_of_1280_pass_over_wires_of_1280() {
    sizes("sealed_packets_of_1280_pass_over_wires_of_1280", 1280, 1280);
}

/// Whether datagrams get from one host to another's address.
fn arrives(from: &Namespace, to: &Namespace, at: IpAddr) -> Result<bool> {
    let sink = to.inside(|| UdpSocket::bind((at, 0)))?;
    sink.set_read_timeout(Some(Duration::from_millis(100)))?;
    let socket = from.inside(|| UdpSocket::bind(if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }))?;
    let mut buffer = [0; 8];
    Ok((0..15).any(|_| {
        let _ = socket.send_to(b"anybody?", sink.local_addr().unwrap_or_else(|_| (at, 0).into()));
        sink.recv(&mut buffer).is_ok()
    }))
}

#[test]
fn who_seals_nothing_reaches_neighbours_and_those_who_seal_nothing_either() {
    town_test("who_seals_nothing_reaches_neighbours_and_those_who_seal_nothing_either", || {
        let open = |name: &str| NodeSpec::new(name).config("[mesh]\nseals = false\n");
        let builder = Town::builder()
            .node_with(open("mill"))
            .node_with(NodeSpec::new("oak"))
            .node_with(open("elm"))
            .node_with(NodeSpec::new("pond"))
            .links(&[("mill", "oak"), ("oak", "elm"), ("elm", "pond")])
            .laptop("lena", "mill")
            .laptop("tom", "pond");
        // Pings need no seal: all nodes reach each other by them.
        let town = start(builder)?;
        let [lena, tom] = laptops(&town)?;
        let node = |name: &str| town.node(name);
        for (from, to, expected) in [
            ("mill", "oak", true),
            ("oak", "mill", true),
            ("elm", "pond", true),
            ("mill", "elm", true),
            ("elm", "mill", true),
            ("oak", "pond", true),
            ("pond", "oak", true),
            ("mill", "pond", false),
            // What is sealed is taken by everybody.
            ("pond", "mill", true),
        ] {
            for at in [IpAddr::from(node(to)?.address()?), node(to)?.address_v4()?.into()] {
                let came = arrives(node(from)?.namespace(), node(to)?.namespace(), at)?;
                ensure!(came == expected, "from {from} to {to} at {at}: it arrived: {came}");
            }
        }
        ensure!(!arrives(lena.namespace(), tom.namespace(), tom.v6()?.into())?, "of a laptop behind mill");
        let drops = node("pond")?.status()?.drops;
        ensure!(drops.get("unsealed").is_some_and(|count| *count >= 45), "pond says that it dropped {drops:?}");
        ensure!(node("pond")?.grange(&["status"])?.contains("without a seal"), "the status does not say so");
        let to = |name: &str| Ok::<_, anyhow::Error>((node(name)?.namespace(), IpAddr::from(node(name)?.address()?)));
        for (seed, (from, to)) in (1..).zip([(to("mill")?, to("elm")?), (to("pond")?, to("oak")?)]) {
            Transfer::start(from.0, to.0, to.1, seed)?.finish(8 << 20, LIMIT)?;
        }
        Ok(())
    });
}

/// A UDP packet over IPv6 with the right checksum (RFC 8200, section 8.1).
fn datagram(from: Ipv6Addr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let IpAddr::V6(target) = to.ip() else { anyhow::bail!("{to} is no IPv6 address") };
    let length = u16::try_from(8 + payload.len())?.to_be_bytes();
    let ports = [4000u16.to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut summed = [&from.octets()[..], &target.octets(), &[0, 0], &length, &[0, 0, 0, 17], &ports, &length].concat();
    summed.extend_from_slice(payload);
    summed.resize(summed.len().next_multiple_of(2), 0);
    let words = summed.chunks_exact(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u64 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 17, 60];
    packet.extend(from.octets().into_iter().chain(target.octets()));
    packet.extend(ports.into_iter().chain(length).chain(checksum.to_be_bytes()));
    packet.extend_from_slice(payload);
    Ok(packet)
}

/// The spy says something in its own name, 20 times in pond's and 20 times in tom's to `mill` and `lena` each, and in its own again;
/// gives what arrived of what was not its own.
fn speak_for_others(town: &Town, spy: &Spy) -> Result<usize> {
    let [lena, tom] = laptops(town)?;
    let (mill, pond, oak) = (town.node("mill")?, town.node("pond")?, town.node("oak")?);
    let mut false_ones = 0;
    for (listener, at) in [(mill.namespace(), mill.address()?), (lena.namespace(), lena.v6()?)] {
        let sink = listener.inside(|| UdpSocket::bind((at, 0)))?;
        sink.set_read_timeout(Some(Duration::from_secs(5)))?;
        let to = sink.local_addr()?;
        spy.put_in(datagram(oak.address()?, to, b"first")?);
        for _ in 0..20 {
            for from in [pond.address()?, tom.v6()?] {
                spy.put_in(datagram(from, to, b"false")?);
            }
        }
        spy.put_in(datagram(oak.address()?, to, b"last!")?);
        let mut buffer = [0; 64];
        let mut own = 0;
        while own < 2 {
            let length = sink.recv(&mut buffer).context("what the spy says in its own name does not arrive")?;
            if buffer[..length] == *b"false" {
                false_ones += 1;
            } else {
                own += 1;
            }
        }
    }
    Ok(false_ones)
}

#[test]
fn a_router_on_the_way_that_forces_a_seal_down_cannot_speak_for_its_end() {
    town_test("a_router_on_the_way_that_forces_a_seal_down_cannot_speak_for_its_end", || {
        let (town, spy) = with_a_spy("")?;
        let [lena, tom] = laptops(&town)?;
        let (mill, server) = (town.node("mill")?, IpAddr::from(tom.v6()?));
        ensure!(speak_for_others(&town, &spy)? == 0, "before there is a seal");
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let stream = EchoStream::start(lena.namespace(), server, Duration::from_millis(10), 100)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        seal(mill, "pond")?;
        ensure!(speak_for_others(&town, &spy)? == 0, "while the seal is there");
        spy.set(Mischief::Starve);
        let ((), took) =
            wait_until("the seal to go down", Duration::from_secs(20), || Ok(mill.seals()?.is_empty().then_some(())))?;
        measured(&format!("the seal was down {took:?} after its packets began to be dropped"));
        ensure!(speak_for_others(&town, &spy)? == 0, "when the seal is forced down");
        spy.set(Mischief::None);
        // Its first moment, before anything came through it.
        wait_until("another seal", Duration::from_secs(20), || Ok((!mill.seals()?.is_empty()).then_some(())))?;
        ensure!(speak_for_others(&town, &spy)? == 0, "when the seal is back");
        stream.wait_flowing(Duration::from_secs(10))?;
        let drops = mill.status()?.drops;
        ensure!(drops.get("unsealed") == Some(&(4 * 80)), "mill says that it dropped {drops:?}");
        Ok(())
    });
}

#[test]
fn without_seals_a_router_on_the_way_could_speak_for_anybody() {
    town_test("without_seals_a_router_on_the_way_could_speak_for_anybody", || {
        let (town, spy) = with_a_spy("[mesh]\nseals = false\n")?;
        let came = speak_for_others(&town, &spy)?;
        ensure!(came == 80, "{came} of 80 came: the tests with seals are no proof of anything");
        Ok(())
    });
}

#[test]
fn a_seal_survives_routers_on_the_way_that_come_and_go() {
    town_test("a_seal_survives_routers_on_the_way_that_come_and_go", || {
        let town = start(
            Town::builder()
                .nodes(&["mill", "oak", "elm", "pond"])
                .links(&[("mill", "oak"), ("oak", "pond"), ("mill", "elm"), ("elm", "pond")])
                .laptop("lena", "mill")
                .laptop("tom", "pond"),
        )?;
        let (mill, pond, [lena, tom]) = (town.node("mill")?, town.node("pond")?, laptops(&town)?);
        let server: IpAddr = tom.v6()?.into();
        let stream = Transfer::start(lena.namespace(), tom.namespace(), server, 3)?;
        stream.wait_bytes(8 << 20, LIMIT)?;
        let mut before = seal(mill, "pond")?;
        let to = pond.keys()?.prefix;
        for how in ["stopped", "killed"] {
            let way = town.way("mill", &to)?;
            let middle = town.node(&way[1])?;
            if how == "killed" {
                middle.kill()?;
            } else {
                middle.stop()?;
            }
            let arrived = stream.arrivals().bytes();
            let at = Instant::now();
            stream.wait_bytes(arrived + (8 << 20), Duration::from_secs(10))?;
            measured(&format!("{} {how}: 8 MiB more after {:?}", way[1], at.elapsed()));
            ensure!(town.way("mill", &to)?[1] != way[1], "no other way");
            // A router that says goodbye costs no seal. One that is gone without a word may: whether the links' silence or
            // the seal's is noticed first, depends on the moment.
            let after = seal(mill, "pond")?;
            ensure!(after == before || how == "killed", "the seal was made anew");
            before = after;
            middle.start()?;
            wait_until("the router on the way to come back", Duration::from_secs(15), || {
                Ok((mill.links()?.len() == 2 && pond.links()?.len() == 2).then_some(()))
            })?;
        }
        stream.finish(64 << 20, LIMIT)?;
        Ok(())
    });
}

#[test]
fn a_seal_is_made_anew_when_its_other_end_restarts() {
    town_test("a_seal_is_made_anew_when_its_other_end_restarts", || {
        let town = start(chain(WireSpec::default(), ""))?;
        let (mill, pond, [lena, tom]) = (town.node("mill")?, town.node("pond")?, laptops(&town)?);
        let server: IpAddr = tom.v6()?.into();
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let stream = EchoStream::start(lena.namespace(), server, Duration::from_millis(10), 300)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        let mut before = seal(mill, "pond")?;
        for how in ["stopped", "killed"] {
            if how == "killed" {
                pond.kill()?;
            } else {
                pond.stop()?;
            }
            pond.start()?;
            let took = stream.wait_flowing(Duration::from_secs(10)).with_context(|| format!("after it was {how}"))?;
            let after = seal(mill, "pond")?;
            ensure!(after != before, "the old seal cannot have worked");
            measured(&format!("{how} and started: traffic flows {took:?} after the start"));
            before = after;
        }
        Ok(())
    });
}
