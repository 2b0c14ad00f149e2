//! What a network card leaves to the kernel or to us changes speed, and nothing else.

use std::{net::IpAddr, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use grange_netns::{Feature, Flow, FlowSpec, Namespace, Node, Town, Transfer, measured, town_test};

const LIMIT: Duration = Duration::from_secs(60);

/// What a router's plain card cannot do.
const PLAIN: [Feature; 4] =
    [Feature::TcpSegmentation, Feature::UdpSegmentation, Feature::GenericSegmentation, Feature::Receive];

/// `mill - oak - pond`, with all that a veth can do.
fn chain() -> Result<Town> {
    let town = Town::builder().nodes(&["mill", "oak", "pond"]).links(&[("mill", "oak"), ("oak", "pond")]).build()?;
    town.found()?;
    town.start()?;
    town.wait_reachable(Duration::from_secs(10))?;
    Ok(town)
}

/// Interfaces of wires: those of `mill` and `pond`, and both of `oak`.
const ENDS: [(&str, &str); 4] = [("mill", "to-oak"), ("oak", "to-mill"), ("oak", "to-pond"), ("pond", "to-oak")];

fn set(town: &Town, ends: &[(&str, &str)], features: &[Feature], on: bool) -> Result<()> {
    ends.iter().try_for_each(|(node, interface)| town.node(node)?.namespace().set_features(interface, features, on))
}

/// Both ways between the first and the last node: from, to, and the latter's address.
fn ways(town: &Town, v4: bool) -> Result<[(&Namespace, &Namespace, IpAddr); 2]> {
    let (mill, pond) = (town.node("mill")?, town.node("pond")?);
    let address =
        |node: &Node| -> Result<IpAddr> { Ok(if v4 { node.address_v4()?.into() } else { node.address()?.into() }) };
    Ok([(mill.namespace(), pond.namespace(), address(pond)?), (pond.namespace(), mill.namespace(), address(mill)?)])
}

/// Carries this much both ways at once over IPv6 and then over IPv4, with datagrams beside.
fn carries(town: &Town, what: &str, bytes: u64) -> Result<()> {
    for v4 in [false, true] {
        let [there, back] = ways(town, v4)?;
        let spec = FlowSpec { sizes: vec![63, 1300, 9, 700], rate: 1000, seed: 3 };
        let flow = Flow::start(there.0, there.1, there.2, spec)?;
        let streams = [Transfer::start(there.0, there.1, there.2, 1)?, Transfer::start(back.0, back.1, back.2, 2)?];
        let mut rates = Vec::new();
        for stream in streams {
            let done = stream.finish(bytes, LIMIT).with_context(|| format!("{what}, IPv4: {v4}"))?;
            rates.push(format!("{:.0}", done.rate() / 1e6));
        }
        let report = flow.finish()?;
        let clean = report.overtaken == 0 && report.repeated == 0 && report.changed == 0;
        ensure!(clean && report.arrived > 0, "{what}, IPv4: {v4}: {report:?}");
        measured(&format!("{what}, {}: {} Mbit/s", if v4 { "IPv4" } else { "IPv6" }, rates.join(" and ")));
    }
    Ok(())
}

#[test]
fn plain_cards_at_all_ends_or_one_carry_the_same() {
    town_test("plain_cards_at_all_ends_or_one_carry_the_same", || {
        let town = chain()?;
        for (what, ends) in [
            ("plain at all ends", &ENDS[..]),
            ("plain at the first end", &ENDS[..1]),
            ("plain on one side of the forwarder", &ENDS[1..2]),
            ("plain at the last end", &ENDS[3..]),
        ] {
            set(&town, ends, &PLAIN, false)?;
            carries(&town, what, 64 << 20)?;
            set(&town, ends, &PLAIN, true)?;
        }
        Ok(())
    });
}

#[test]
fn each_feature_may_be_missing() {
    town_test("each_feature_may_be_missing", || {
        let town = chain()?;
        for feature in Feature::ALL {
            set(&town, &ENDS, &[feature], false)?;
            carries(&town, &format!("without {feature:?}"), 16 << 20)?;
            set(&town, &ENDS, &Feature::ALL, true)?;
        }
        Ok(())
    });
}

/// Kernels before 6.11 refuse UDP_SEGMENT (EIO) where the interface fills no checksums in: there, the plane falls back and
/// comes back in the middle of a stream.
#[test]
fn features_come_and_go_under_load() {
    town_test("features_come_and_go_under_load", || {
        let town = chain()?;
        let pids: Vec<_> = town.nodes().iter().map(Node::pid).collect();
        let [there, back] = ways(&town, false)?;
        let streams = [Transfer::start(there.0, there.1, there.2, 1)?, Transfer::start(back.0, back.1, back.2, 2)?];
        for features in [&PLAIN[..], &[Feature::Checksums], &[Feature::UdpSegmentation], &Feature::ALL] {
            for ends in [&ENDS[..1], &ENDS[1..3], &ENDS[..]] {
                set(&town, ends, features, false)?;
                sleep(Duration::from_millis(150));
                set(&town, ends, &Feature::ALL, true)?;
                sleep(Duration::from_millis(50));
            }
        }
        for stream in streams {
            let done = stream.finish(256 << 20, LIMIT)?;
            measured(&format!("{} bytes at {:.0} Mbit/s", done.bytes, done.rate() / 1e6));
        }
        let after: Vec<_> = town.nodes().iter().map(Node::pid).collect();
        ensure!(pids == after && town.nodes().iter().all(Node::is_running), "an agent ended");
        Ok(())
    });
}

/// A cable run whose equipment carries less all of a sudden: what was proven to pass does not, and the kernel refuses
/// whole bursts (EMSGSIZE).
#[test]
fn a_smaller_interface_under_load_is_coped_with() {
    town_test("a_smaller_interface_under_load_is_coped_with", || {
        let town = chain()?;
        let [there, _] = ways(&town, false)?;
        let stream = Transfer::start(there.0, there.1, there.2, 1)?;
        stream.wait_bytes(16 << 20, LIMIT)?;
        for (node, interface) in &ENDS[2..] {
            town.node(node)?.namespace().ip(&format!("link set {interface} mtu 1400"))?;
        }
        let done = stream.finish(256 << 20, LIMIT)?;
        measured(&format!("{} bytes at {:.0} Mbit/s", done.bytes, done.rate() / 1e6));
        Ok(())
    });
}

#[test]
fn a_kernel_that_refuses_super_packets_carries_the_same() {
    town_test("a_kernel_that_refuses_super_packets_carries_the_same", || {
        let town = chain()?;
        let nodes = [town.node("mill")?, town.node("oak")?];
        let refusals = nodes.map(|node| {
            node.stop()?;
            node.start_refusable()
        });
        let [mill, oak] = refusals;
        let (mill, oak) = (mill?, oak?);
        // The sender, from its first packet on.
        mill.set(true);
        town.wait_reachable(Duration::from_secs(10))?;
        carries(&town, "refused at the first end", 8 << 20)?;
        ensure!(mill.refused() > 0, "nothing was refused");
        // The forwarder, in the middle of a stream.
        let [there, back] = ways(&town, false)?;
        let streams = [Transfer::start(there.0, there.1, there.2, 1)?, Transfer::start(back.0, back.1, back.2, 2)?];
        streams[0].wait_bytes(8 << 20, LIMIT)?;
        oak.set(true);
        for stream in streams {
            let done = stream.finish(32 << 20, LIMIT)?;
            measured(&format!("refused at the forwarder: {} bytes at {:.0} Mbit/s", done.bytes, done.rate() / 1e6));
        }
        ensure!(oak.passed() > 0 && oak.refused() > 0, "{} passed, {} refused", oak.passed(), oak.refused());
        measured(&format!("refused {} and {}", mill.refused(), oak.refused()));
        ensure!(town.nodes().iter().all(Node::is_running), "an agent ended");
        Ok(())
    });
}
