//! A town forms by itself: every node reaches every other one, soon after the start.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use grange_netns::{Download, NodeSpec, Prober, Town, WebServer, measured, town_test, wait_until};

const NAMES: [&str; 5] = ["mill", "oak", "barn", "pond", "kiln"];

/// A ring of five with one chord.
fn five() -> Result<Town> {
    Town::builder()
        .nodes(&NAMES)
        .links(&[
            ("mill", "oak"),
            ("oak", "barn"),
            ("barn", "pond"),
            ("pond", "kiln"),
            ("kiln", "mill"),
            ("oak", "kiln"),
        ])
        .laptop("lena", "mill")
        .laptop("tom", "pond")
        .build()
}

#[test]
fn all_pairs_reach_each_other_within_five_seconds_of_the_start() {
    town_test("all_pairs_reach_each_other_within_five_seconds_of_the_start", || {
        let town = five()?;
        town.found()?;
        let start = town.start()?;
        town.wait_reachable(Duration::from_secs(15))?;
        let took = start.elapsed();
        measured(&format!("all pairs after {took:?}"));
        ensure!(took <= Duration::from_secs(5), "it took {took:?}");
        Ok(())
    });
}

#[test]
fn hosts_behind_nodes_and_addresses_of_both_versions_are_reachable() {
    town_test("hosts_behind_nodes_and_addresses_of_both_versions_are_reachable", || {
        let town = five()?;
        town.found()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
        let mut prober = Prober::new(lena.namespace())?;
        let target = tom.v6()?;
        wait_until("lena to reach tom", Duration::from_secs(5), || {
            Ok(prober.probe(&[target], Duration::from_millis(300))[0])
        })?;
        let (mill, barn) = (town.node("mill")?, town.node("barn")?);
        // The router's own address lies in the prefix that is on-link for lena.
        let target = mill.address()?;
        wait_until("lena to reach her own router", Duration::from_secs(5), || {
            Ok(prober.probe(&[target], Duration::from_millis(300))[0])
        })?;
        let addresses: [IpAddr; 2] = [barn.address()?.into(), barn.address_v4()?.into()];
        let _web = WebServer::start(barn.namespace(), &addresses)?;
        for address in addresses {
            wait_until(&format!("a transfer from {address}"), Duration::from_secs(10), || {
                Download::start(mill.namespace(), address, 3, 3_000_000, 0)?.finish(Duration::from_secs(10)).map(Some)
            })?;
        }
        Ok(())
    });
}

#[test]
fn status_links_routes_and_trace_say_what_is() {
    town_test("status_links_routes_and_trace_say_what_is", || {
        let town = Town::builder().nodes(&["a", "b", "c", "d"]).links(&[("a", "b"), ("b", "c"), ("c", "d")]).build()?;
        town.found()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let (a, d) = (town.node("a")?, town.node("d")?);
        let status = a.status()?;
        ensure!(status.name == "a" && status.links == 1, "{status:?}");
        ensure!(status.town.as_ref().is_some_and(|it| it.name == Town::NAME), "{status:?}");
        ensure!(status.interfaces.iter().any(|it| it.name == "to-b" && it.role == "mesh" && it.up), "{status:?}");
        let links = town.node("b")?.links()?;
        let mut peers: Vec<_> = links.iter().map(|link| link.peer.name.as_str()).collect();
        peers.sort_unstable();
        ensure!(peers == ["a", "c"], "{links:?}");
        ensure!(links.iter().all(|link| link.mtu >= 1280 && link.cost > 0 && link.cost < 65535), "{links:?}");
        let prefix = d.keys()?.prefix;
        ensure!(town.way("a", &prefix)? == ["a", "b", "c", "d"]);
        let trace = a.trace(&d.address()?.to_string())?;
        let mut way = Vec::new();
        for name in ["b", "c", "d"] {
            way.push(Some(town.node(name)?.address()?.to_string()));
        }
        let hops: Vec<_> = trace.hops.iter().map(|hop| hop.address.clone()).collect();
        ensure!(trace.reached && hops == way, "{trace:?} is not {way:?}");
        ensure!(trace.hops[0].name.as_deref() == Some("b"), "a neighbour's name is known: {trace:?}");
        Ok(())
    });
}

#[test]
fn without_configuration_a_gateway_finds_its_uplink_and_its_lan() {
    town_test("without_configuration_a_gateway_finds_its_uplink_and_its_lan", || {
        let town = Town::builder()
            .node_with(NodeSpec::new("gate").config("[lan]\n[uplink]"))
            .node("mill")
            .link("gate", "mill")
            .uplink("gate")
            .laptop("lena", "gate")
            .build()?;
        town.found()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let status = town.node("gate")?.status()?;
        let role = |name: &str| status.interfaces.iter().find(|it| it.name == name).map(|it| it.role.clone());
        ensure!(role("wan").context("no wan")? == "uplink", "{status:?}");
        ensure!(role("lan").context("no lan")? == "lan", "{status:?}");
        ensure!(role("to-mill").context("no to-mill")? == "mesh", "{status:?}");
        ensure!(!status.gateway.sharing, "an uplink is shared that nobody offered");
        Ok(())
    });
}
