//! A node that restarts, in any way, is back soon; one that stops leaves nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use grange_netns::{Snapshot, Town, measured, town_test, wait_until};

const BACK: Duration = Duration::from_secs(3);

/// A ring of four; `gate` has an uplink, so that its rules and tables are in the game too.
fn ring() -> Result<Town> {
    Town::builder()
        .nodes(&["gate", "oak", "pond", "kiln"])
        .links(&[("gate", "oak"), ("oak", "pond"), ("pond", "kiln"), ("kiln", "gate")])
        .uplink("gate")
        .laptop("lena", "gate")
        .laptop("tom", "pond")
        .build()
}

/// Starts a node and waits until it is in the routes of all others and reached by them.
fn back(town: &Town, name: &str) -> Result<Duration> {
    let node = town.node(name)?;
    let prefix = node.keys()?.prefix;
    let start = Instant::now();
    node.start()?;
    for other in town.nodes().iter().filter(|other| other.name() != name) {
        wait_until(&format!("a route from {} to {name}", other.name()), Duration::from_secs(10), || {
            Ok(other.routes()?.iter().any(|route| route.selected && route.prefix == prefix).then_some(()))
        })?;
    }
    town.wait_reachable(Duration::from_secs(10))?;
    Ok(start.elapsed())
}

fn restart(name: &str, kill: bool) {
    town_test(name, || {
        let town = ring()?;
        town.found()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        for name in ["oak", "gate"] {
            let node = town.node(name)?;
            if kill { node.kill() } else { node.stop() }?;
            let took = back(&town, name)?;
            measured(&format!("{name} is back {took:?} after its start"));
            ensure!(took <= BACK, "{name} was back after {took:?} only");
        }
        Ok(())
    });
}

#[test]
fn a_stopped_node_is_back_within_three_seconds() {
    restart("a_stopped_node_is_back_within_three_seconds", false);
}

#[test]
fn a_killed_node_is_back_within_three_seconds() {
    restart("a_killed_node_is_back_within_three_seconds", true);
}

#[test]
fn a_stopped_node_leaves_nothing_behind() {
    town_test("a_stopped_node_leaves_nothing_behind", || {
        let town = ring()?;
        town.found()?;
        let before = town.nodes().iter().map(|node| Snapshot::take(node.namespace())).collect::<Result<Vec<_>>>()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let running = Snapshot::take(town.node("gate")?.namespace())?;
        ensure!(before[0].expect_same(&running).is_err(), "a running node changes nothing?");
        town.stop()?;
        for (node, before) in town.nodes().iter().zip(&before) {
            before.expect_same(&Snapshot::take(node.namespace())?).with_context(|| node.name().to_owned())?;
            let left: Vec<_> = std::fs::read_dir(node.runtime_dir())?.flatten().map(|it| it.file_name()).collect();
            ensure!(left.is_empty(), "{} leaves {left:?} in its runtime directory", node.name());
        }
        Ok(())
    });
}

#[test]
fn the_start_after_a_kill_cleans_up_what_the_killed_one_left() {
    town_test("the_start_after_a_kill_cleans_up_what_the_killed_one_left", || {
        let town = ring()?;
        town.found()?;
        let before = town.nodes().iter().map(|node| Snapshot::take(node.namespace())).collect::<Result<Vec<_>>>()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        for node in town.nodes() {
            node.kill()?;
        }
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        town.stop()?;
        for (node, before) in town.nodes().iter().zip(&before) {
            before.expect_same(&Snapshot::take(node.namespace())?).with_context(|| node.name().to_owned())?;
        }
        Ok(())
    });
}
