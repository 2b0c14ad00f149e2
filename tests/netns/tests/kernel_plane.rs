//! Links and seals whose packets never leave the kernel. Where the kernel has no WireGuard these tests are skipped: they
//! run in the virtual machine (`tests/vm`).

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use grange_netns::{
    BareWireguard, Cut, EchoServer, EchoStream, Flow, FlowSpec, Namespace, Node, NodeSpec, Snapshot, Town, Transfer,
    Unavailable, iperf3, measured, run, town_test, wait_until,
};

/// How long WireGuard may take to prove itself: a first handshake may cross another and be tried again after 5 s.
const PROOF: Duration = Duration::from_secs(12);

/// How long everything else may take.
const SOON: Duration = Duration::from_secs(10);

const USERSPACE: &str = "[mesh]\nplane = \"userspace\"";
const UNSEALED: &str = "[mesh]\nseals = false";

/// Skips the test where the kernel has no WireGuard.
fn ensure_wireguard(namespace: &Namespace) -> Result<()> {
    namespace.ip("link add probe0 type wireguard").map_err(|_| Unavailable("this kernel has no WireGuard".into()))?;
    namespace.ip("link del probe0")?;
    Ok(())
}

/// A row of nodes with their further configurations.
fn row(nodes: &[(&str, &str)]) -> Result<Town> {
    let mut builder = Town::builder();
    for (name, config) in nodes {
        builder = builder.node_with(NodeSpec::new(name).config(config));
    }
    let links: Vec<_> = nodes.windows(2).map(|pair| (pair[0].0, pair[1].0)).collect();
    let town = builder.links(&links).build()?;
    ensure_wireguard(town.nodes()[0].namespace())?;
    town.found()?;
    Ok(town)
}

fn start(town: &Town) -> Result<()> {
    town.start()?;
    town.wait_reachable(SOON)?;
    Ok(())
}

/// Both addresses of a node.
fn addresses(node: &Node) -> Result<[IpAddr; 2]> {
    Ok([node.address()?.into(), node.address_v4()?.into()])
}

/// The interface by which the kernel sends to an address what it is asked for with these further words of `ip route
/// get`.
fn way(node: &Node, to: IpAddr, more: &str) -> Result<String> {
    let family = if to.is_ipv6() { "-6" } else { "-4" };
    let text = node.namespace().sh(&format!("ip {family} route get {to} {more}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    Ok(words.nth(1).with_context(|| format!("no interface in {text}"))?.to_owned())
}

fn is_wireguard(node: &Node, interface: &str) -> Result<bool> {
    Ok(node.namespace().sh(&format!("ip -d link show {interface}"))?.contains("wireguard"))
}

/// Waits until the kernel sends from `from` to both addresses of `to` by WireGuard, or by the TUN.
fn wait_plane(from: &Node, to: &Node, wireguard: bool) -> Result<Duration> {
    let addresses = addresses(to)?;
    let what = format!(
        "packets from {} to {} by {}",
        from.name(),
        to.name(),
        ["the TUN", "WireGuard"][usize::from(wireguard)]
    );
    let outcome = wait_until(&what, PROOF, || {
        for address in addresses {
            if is_wireguard(from, &way(from, address, "")?)? != wireguard {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    let (_, took) = outcome.with_context(|| {
        let state = shell(from, "wg; ip rule; ip -6 rule; ip -6 route show table all; ip route show table all");
        format!("{}\n{}", state.unwrap_or_default(), from.log_tail(40))
    })?;
    Ok(took)
}

/// Sees that both addresses answer.
fn answers(from: &Node, to: &Node) -> Result<()> {
    for address in addresses(to)? {
        if let Err(error) = from.namespace().sh(&format!("ping -c 5 -i 0.2 -W 5 {address}")) {
            let state = "wg; ip rule; ip -6 rule; ip -6 route show table all; ip route show table all; ip -s link";
            let state = [from, to].map(|node| {
                let state = shell(node, state).unwrap_or_default();
                format!("--- {}\n{state}\n{}", node.name(), node.log_tail(30))
            });
            return Err(error.context(format!("{} to {}\n{}", from.name(), to.name(), state.concat())));
        }
    }
    Ok(())
}

/// A checked transfer to each of the other node's addresses, and that it went by the interface that the kernel names.
fn transfers(from: &Node, to: &Node, bytes: u64) -> Result<()> {
    for address in addresses(to)? {
        let interface = way(from, address, "")?;
        let before = sent(from, &interface)?;
        Transfer::start(from.namespace(), to.namespace(), address, 7)?.finish(bytes, Duration::from_secs(120))?;
        let carried = sent(from, &interface)? - before;
        ensure!(carried >= bytes, "{carried} bytes of {bytes} went by {interface}");
    }
    Ok(())
}

/// Bytes that an interface has sent.
fn sent(node: &Node, interface: &str) -> Result<u64> {
    counter(node, interface, "tx_bytes")
}

/// A counter of an interface.
fn counter(node: &Node, interface: &str, which: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/{which}");
    Ok(node.namespace().sh(&format!("cat {path}"))?.trim().parse()?)
}

/// Runs a script inside a node's namespace.
fn shell(node: &Node, script: &str) -> Result<String> {
    run(node.namespace().command("sh").args(["-c", script]), None)
}

/// Lines of the log that hold this.
fn said(node: &Node, what: &str) -> Result<usize> {
    Ok(fs::read_to_string(node.log_file())?.lines().filter(|line| line.contains(what)).count())
}

#[test]
fn two_nodes_hand_their_link_to_the_kernel() {
    town_test("two_nodes_hand_their_link_to_the_kernel", || {
        let town = row(&[("mill", ""), ("oak", "")])?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        start(&town)?;
        measured(&format!("mill sends by WireGuard after {:?}", wait_plane(mill, oak, true)?));
        wait_plane(oak, mill, true)?;
        answers(mill, oak)?;
        transfers(mill, oak, 4_000_000)?;
        transfers(oak, mill, 4_000_000)?;
        let links = mill.links()?;
        ensure!(links.len() == 1 && links[0].plane == "kernel", "{links:?}");
        // oak may not send in the name of mill's LAN: WireGuard itself refuses that.
        let refused = |node: &Node| counter(node, &way(node, oak.address()?.into(), "")?, "rx_frame_errors");
        let stolen = mill.keys()?.prefix.replace("/64", "dead");
        let before = refused(mill)?;
        oak.namespace().ip(&format!("addr add {stolen}/128 dev lo nodad"))?;
        let answered = oak.namespace().sh(&format!("ping -c 2 -W 2 -I {stolen} {}", mill.address()?));
        ensure!(answered.is_err(), "mill answers {stolen}: {answered:?}");
        ensure!(refused(mill)? >= before + 2, "not refused by WireGuard");
        oak.namespace().ip(&format!("addr del {stolen}/128 dev lo"))?;
        Ok(())
    });
}

#[test]
fn a_chain_forwards_in_the_kernel() {
    town_test("a_chain_forwards_in_the_kernel", || {
        let town = row(&[("mill", UNSEALED), ("oak", UNSEALED), ("pond", UNSEALED)])?;
        let (mill, oak, pond) = (town.node("mill")?, town.node("oak")?, town.node("pond")?);
        start(&town)?;
        for (from, to) in [(mill, pond), (pond, mill), (oak, mill), (oak, pond)] {
            wait_plane(from, to, true)?;
        }
        // What passes oak goes from one WireGuard interface to the other and never to the TUN.
        let [inward, outward] = [way(oak, mill.address()?.into(), "")?, way(oak, pond.address()?.into(), "")?];
        ensure!(inward != outward);
        for address in addresses(pond)? {
            let from = if address.is_ipv6() { mill.address()?.into() } else { IpAddr::from(mill.address_v4()?) };
            let passing = way(oak, address, &format!("from {from} iif {inward}"))?;
            ensure!(passing == outward, "{address} passes oak by {passing}");
        }
        let before = sent(oak, "grange0")?;
        answers(mill, pond)?;
        transfers(mill, pond, 2_000_000)?;
        let leaked = sent(oak, "grange0")? - before;
        ensure!(leaked < 10_000, "{leaked} bytes went through oak's TUN");
        // A neighbour's packets lead into the mesh and nowhere else.
        let text = oak.namespace().sh(&format!("ip route get 192.0.2.1 from {} iif {inward}", mill.address_v4()?));
        ensure!(text.is_err(), "oak forwards to the Internet: {text:?}");
        let trace = mill.trace(&pond.address()?.to_string())?;
        ensure!(trace.hops.len() == 2, "{trace:?}");
        Ok(())
    });
}

#[test]
fn a_mixed_town_works() {
    town_test("a_mixed_town_works", || {
        let town = row(&[("mill", ""), ("oak", ""), ("pond", USERSPACE), ("kiln", "")])?;
        let (mill, oak, pond) = (town.node("mill")?, town.node("oak")?, town.node("pond")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        wait_plane(oak, mill, true)?;
        ensure!(!is_wireguard(oak, &way(oak, pond.address()?.into(), "")?)?, "pond has no kernel plane");
        for from in town.nodes() {
            for to in town.nodes().iter().filter(|to| to.name() != from.name()) {
                answers(from, to)?;
            }
        }
        for (from, to) in [(mill, pond), (pond, mill), (mill, town.node("kiln")?)] {
            for address in addresses(to)? {
                let transfer = Transfer::start(from.namespace(), to.namespace(), address, 7)?;
                transfer.finish(2_000_000, Duration::from_secs(120))?;
            }
        }
        ensure!(said(pond, "WireGuard cannot be used")? == 0, "it was not looked for");
        Ok(())
    });
}

#[test]
fn seals_in_the_kernel_hide_traffic_from_the_nodes_on_the_way() {
    town_test("seals_in_the_kernel_hide_traffic_from_the_nodes_on_the_way", || {
        let town = row(&[("mill", ""), ("oak", ""), ("pond", "")])?;
        let (mill, oak, pond) = (town.node("mill")?, town.node("oak")?, town.node("pond")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        wait_plane(oak, pond, true)?;
        // Traffic makes the seal.
        let server: IpAddr = pond.address()?.into();
        let _echo = EchoServer::start(pond.namespace(), server)?;
        let stream = EchoStream::start(mill.namespace(), server, Duration::from_millis(50), 600)?;
        stream.wait_flowing(SOON)?;
        measured(&format!("the seal goes by WireGuard after {:?}", wait_plane(mill, pond, true)?));
        wait_plane(pond, mill, true)?;
        let link = way(mill, oak.address()?.into(), "")?;
        let seal = way(mill, server, "")?;
        ensure!(link != seal, "the seal has an interface of its own");
        let seals = mill.seals()?;
        ensure!(seals.len() == 1 && seals[0].plane == "kernel", "{seals:?}");
        // Its own packets follow the links, as do those that make it.
        ensure!(way(mill, server, "mark 7265")? == link, "the seal's packets go by the link");
        // What mill reads on its own interface, oak reads on none.
        let listen = "timeout 10 tcpdump -i any -x -c 2000 -nn 'udp or tcp or ip6' 2>/dev/null";
        let [own, between] = thread::scope(|scope| {
            let listeners = [mill, oak].map(|node| scope.spawn(|| shell(node, &format!("{listen} | tail -n 20000"))));
            listeners.map(|listener| listener.join().unwrap_or_else(|_| Ok(String::new())))
        });
        let (own, between) = (own?, between?);
        ensure!(own.contains("7878 7878 7878 7878"), "mill does not even read its own packets:\n{own}");
        ensure!(between.lines().count() > 100, "oak hears nothing:\n{between}");
        ensure!(!between.contains("7878 7878 7878 7878"), "oak reads what mill and pond say");
        transfers(mill, pond, 1_000_000)?;
        answers(mill, pond)?;
        Ok(())
    });
}

/// Whether datagrams from an address of `from`'s reach one of `to`'s.
fn arrives(from: &Node, source: IpAddr, to: &Node, destination: IpAddr) -> Result<bool> {
    let receiver = to.namespace().inside(|| UdpSocket::bind((destination, 0)))?;
    receiver.set_read_timeout(Some(Duration::from_secs(3)))?;
    let sender = from.namespace().inside(|| UdpSocket::bind((source, 0)))?;
    for _ in 0..3 {
        sender.send_to(b"hello", receiver.local_addr()?)?;
    }
    match receiver.recv_from(&mut [0; 16]) {
        Ok((_, seen)) => {
            ensure!(seen.ip() == source, "{seen} instead of {source}");
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn what_has_no_seal_is_taken_from_neighbours_and_for_the_node_alone() {
    town_test("what_has_no_seal_is_taken_from_neighbours_and_for_the_node_alone", || {
        let town = row(&[("mill", ""), ("oak", ""), ("pond", "")])?;
        let (mill, oak, pond) = (town.node("mill")?, town.node("oak")?, town.node("pond")?);
        start(&town)?;
        wait_plane(oak, mill, true)?;
        wait_plane(mill, oak, true)?;
        for ((own, far), to) in addresses(oak)?.into_iter().zip(addresses(pond)?).zip(addresses(mill)?) {
            ensure!(arrives(oak, own, mill, to)?, "mill takes nothing from {own}");
            // oak speaks in pond's name, by its own link.
            let link = way(oak, to, "")?;
            ensure!(is_wireguard(oak, &link)?);
            oak.namespace().ip(&format!("addr add {far} dev lo"))?;
            let before = counter(mill, &way(mill, own, "")?, "rx_packets")?;
            let forged = arrives(oak, far, mill, to)?;
            oak.namespace().ip(&format!("addr del {far} dev lo"))?;
            ensure!(!forged, "mill takes {far} from oak without a seal");
            ensure!(counter(mill, &way(mill, own, "")?, "rx_packets")? >= before + 3, "it did not even come");
        }
        // Its household's other addresses are no neighbour's business; nor may anybody come in their name.
        let link = way(oak, mill.address_v4()?.into(), "")?;
        let [ours, theirs]: [IpAddr; 2] = [mill.address_v4()?.into(), oak.address_v4()?.into()];
        let hidden: IpAddr = "192.0.2.77".parse()?;
        mill.namespace().ip(&format!("addr add {hidden}/32 dev lo"))?;
        oak.namespace().ip(&format!("route add {hidden} dev {link}"))?;
        let exposed = arrives(oak, theirs, mill, hidden)?;
        ensure!(!exposed, "oak reaches an address of mill's that is not the mesh's");
        ensure!(arrives(oak, theirs, mill, ours)?);
        // A firewall that is started anew takes nothing of it away for long.
        mill.namespace().sh("nft flush ruleset")?;
        wait_until("both tables again", SOON, || {
            let tables = mill.namespace().sh("nft list tables")?;
            Ok((tables.contains("inet grange\n") && tables.contains("inet grange_mesh")).then_some(()))
        })?;
        ensure!(!arrives(oak, theirs, mill, hidden)?);
        answers(mill, pond)
    });
}

#[test]
fn what_left_a_seal_never_goes_on_without_one() {
    town_test("what_left_a_seal_never_goes_on_without_one", || {
        let town = row(&[("mill", ""), ("oak", ""), ("gate", ""), ("pond", "")])?;
        start(&town)?;
        let (mill, gate, pond) = (town.node("mill")?, town.node("gate")?, town.node("pond")?);
        wait_plane(gate, pond, true)?;
        let server: IpAddr = gate.address()?.into();
        let _echo = EchoServer::start(gate.namespace(), server)?;
        let stream = EchoStream::start(mill.namespace(), server, Duration::from_millis(50), 600)?;
        stream.wait_flowing(SOON)?;
        wait_plane(mill, gate, true)?;
        wait_plane(gate, mill, true)?;
        // As if gate had shared an uplink a moment ago: mill seals to gate what gate has only its link to pond for.
        let (there, back) = (way(mill, server, "")?, way(gate, mill.address()?.into(), "")?);
        let link = way(gate, pond.address()?.into(), "")?;
        let address = "2001:db8:9::7";
        mill.namespace().ip(&format!("-6 route add {address} dev {there}"))?;
        gate.namespace().ip(&format!("-6 route add {address} dev {link} table 99"))?;
        gate.namespace().ip(&format!("-6 rule add pref 100 iif {back} lookup 99"))?;
        let said = shell(mill, &format!("ping -c 3 -i 0.3 -W 3 {address} || true"))?;
        ensure!(said.contains("iltered") || said.contains("rohibited"), "it was not gate that refused: {said}");
        answers(mill, pond)
    });
}

#[test]
fn rekeying_under_load_loses_no_packet() {
    town_test("rekeying_under_load_loses_no_packet", || {
        let town = row(&[("mill", ""), ("oak", "")])?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        wait_plane(oak, mill, true)?;
        let keys = |node: &Node, what: &str| -> Result<Vec<String>> {
            let text = node.namespace().sh(&format!("wg show all {what}"))?;
            Ok(text
                .split_whitespace()
                .map(Into::into)
                .filter(|word: &String| word != "(none)" && word != "0")
                .collect())
        };
        let [preshared, handshakes] = [keys(mill, "preshared-keys")?, keys(mill, "latest-handshakes")?];
        let spec = FlowSpec { sizes: vec![100, 1200], rate: 100, seed: 1 };
        let there = Flow::start(mill.namespace(), oak.namespace(), oak.address()?.into(), spec.clone())?;
        let back = Flow::start(oak.namespace(), mill.namespace(), mill.address_v4()?.into(), spec)?;
        let start = Instant::now();
        // Both rekey after two minutes: the agent its session, WireGuard its own.
        wait_until("new keys of both", Duration::from_secs(180), || {
            let (psk, shaken) = (keys(mill, "preshared-keys")?, keys(mill, "latest-handshakes")?);
            Ok((psk != preshared && shaken != handshakes).then_some(()))
        })?;
        // And until both ends surely send with them.
        thread::sleep(Duration::from_secs(12).saturating_sub(start.elapsed().saturating_sub(Duration::from_secs(130))));
        for flow in [there, back] {
            let report = flow.finish()?;
            measured(&format!(
                "{} datagrams in {:?} over two rekeyings, {} arrived",
                report.sent,
                start.elapsed(),
                report.arrived
            ));
            ensure!(report.arrived == report.sent && report.changed == 0 && report.repeated == 0, "{report:?}");
        }
        ensure!(is_wireguard(mill, &way(mill, oak.address()?.into(), "")?)?, "still by WireGuard");
        Ok(())
    });
}

#[test]
fn a_silent_cut_heals_as_without_the_kernel() {
    town_test("a_silent_cut_heals_as_without_the_kernel", || {
        let without = heal(&format!("{USERSPACE}\nseals = false"))?;
        let with = heal(UNSEALED)?;
        measured(&format!("standing still after a silent cut: {with:?}, without the kernel {without:?}"));
        // The same evidence, the same time; a little for the machine.
        ensure!(with < without * 2 + Duration::from_secs(1), "{with:?}, without the kernel {without:?}");
        Ok(())
    });
}

/// How long traffic over a diamond stands still when the link that it uses is cut.
fn heal(config: &str) -> Result<Duration> {
    let mut builder = Town::builder();
    for name in ["mill", "oak", "pond", "kiln"] {
        builder = builder.node_with(NodeSpec::new(name).config(config));
    }
    let links = [("mill", "oak"), ("oak", "kiln"), ("mill", "pond"), ("pond", "kiln")];
    let town = builder.links(&links).build()?;
    ensure_wireguard(town.nodes()[0].namespace())?;
    town.found()?;
    start(&town)?;
    let (mill, kiln) = (town.node("mill")?, town.node("kiln")?);
    for (from, to) in links {
        wait_plane(town.node(from)?, town.node(to)?, config == UNSEALED)?;
        wait_plane(town.node(to)?, town.node(from)?, config == UNSEALED)?;
    }
    let server: IpAddr = kiln.address()?.into();
    let _echo = EchoServer::start(kiln.namespace(), server)?;
    let stream = EchoStream::start(mill.namespace(), server, Duration::from_millis(20), 100)?;
    stream.wait_flowing(SOON)?;
    let used = town.way("mill", &kiln.keys()?.prefix)?;
    let cut = Instant::now();
    town.cut("mill", &used[1], Cut::Silent)?;
    stream.wait_flowing(SOON)?;
    let detour = town.way("mill", &kiln.keys()?.prefix)?;
    ensure!(detour[1] != used[1], "{used:?}, then {detour:?}");
    Ok(stream.report().gap(cut, Instant::now()))
}

#[test]
fn a_stopped_node_leaves_no_interface_and_a_killed_ones_are_removed() {
    town_test("a_stopped_node_leaves_no_interface_and_a_killed_ones_are_removed", || {
        let town = row(&[("mill", ""), ("oak", ""), ("pond", "")])?;
        let take = || town.nodes().iter().map(|node| Snapshot::take(node.namespace())).collect::<Result<Vec<_>>>();
        let before = take()?;
        let same = || -> Result<()> {
            for ((node, before), after) in town.nodes().iter().zip(&before).zip(&take()?) {
                before.expect_same(after).with_context(|| node.name().to_owned())?;
                ensure!(fs::read_dir(node.runtime_dir())?.count() == 0, "{} leaves files", node.name());
            }
            Ok(())
        };
        let (mill, oak, pond) = (town.node("mill")?, town.node("oak")?, town.node("pond")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        town.stop()?;
        same()?;
        // Twice, so that a start finds what a killed run left and makes its own beside it.
        for _ in 0..2 {
            start(&town)?;
            wait_plane(oak, pond, true)?;
            for node in town.nodes() {
                node.kill()?;
            }
            ensure!(oak.namespace().sh("ip link show type wireguard")?.contains("grange"), "nobody removed them");
        }
        start(&town)?;
        wait_plane(oak, pond, true)?;
        wait_until("no interface of earlier runs", Duration::from_secs(20), || {
            Ok((oak.namespace().sh("ip -o link show type wireguard")?.lines().count() == 2).then_some(()))
        })?;
        answers(mill, pond)?;
        town.stop()?;
        same()
    });
}

#[test]
fn what_others_remove_is_made_again() {
    town_test("what_others_remove_is_made_again", || {
        let town = row(&[("mill", ""), ("oak", "")])?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        wait_plane(oak, mill, true)?;
        let interface = way(mill, oak.address()?.into(), "")?;
        mill.namespace().ip(&format!("link del {interface}"))?;
        wait_until("the user-space plane", SOON, || answers(mill, oak).map(Some))?;
        wait_plane(mill, oak, true)?;
        // oak learns the other port, proves it, and trusts it again.
        wait_plane(oak, mill, true)?;
        wait_until("answers", SOON, || answers(oak, mill).map(Some))?;
        let interface = way(mill, oak.address()?.into(), "")?;
        mill.namespace().ip(&format!("link set {interface} down"))?;
        wait_until("answers again", SOON, || answers(mill, oak).map(Some))?;
        Ok(())
    });
}

/// Runs where the others do not.
#[test]
fn without_wireguard_one_line_says_so_and_packets_pass() {
    town_test("without_wireguard_one_line_says_so_and_packets_pass", || {
        let town = Town::builder().nodes(&["mill", "oak"]).link("mill", "oak").build()?;
        if ensure_wireguard(town.nodes()[0].namespace()).is_ok() {
            return Err(Unavailable("this kernel has WireGuard".into()).into());
        }
        town.found()?;
        start(&town)?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        answers(mill, oak)?;
        for node in [mill, oak] {
            let lines = said(node, "WireGuard")?;
            ensure!(lines == 1, "{lines} lines about it in the log of {}:\n{}", node.name(), node.log_tail(40));
            ensure!(node.links()?.iter().all(|link| link.plane == "userspace"));
        }
        Ok(())
    });
}

/// Not asserted: what it says about a machine depends on what else that does.
#[test]
fn throughput_against_wireguard_by_hand() {
    town_test("throughput_against_wireguard_by_hand", || {
        let town = row(&[("mill", ""), ("oak", "")])?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        start(&town)?;
        wait_plane(mill, oak, true)?;
        wait_plane(oak, mill, true)?;
        let (a, b) = (mill.namespace(), oak.namespace());
        let bare = BareWireguard::between([(a, "to-oak"), (b, "to-mill")], 1500)?;
        let far = IpAddr::V6(BareWireguard::ADDRESSES[1]);
        wait_until("WireGuard by hand", PROOF, || Ok(a.sh(&format!("ping -c 1 -W 1 {far}")).is_ok().then_some(())))?;
        let span = Duration::from_secs(5);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..5 {
            rates[0].push(iperf3(a, b, oak.address()?.into(), span)?);
            rates[1].push(iperf3(a, b, far, span)?);
        }
        drop(bare);
        let [ours, hands] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[2]
        });
        let ratio = 100.0 * ours / hands;
        measured(&format!("kernel plane {ours:.1} Mbit/s, WireGuard by hand {hands:.1} Mbit/s: {ratio:.1} %"));
        Ok(())
    });
}
