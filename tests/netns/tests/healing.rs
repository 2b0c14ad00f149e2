//! A cut link heals by another way. Each cut is one that the return traffic uses too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use grange_netns::{Cut, EchoServer, EchoStream, Town, measured, town_test, wait_until};

/// How long traffic may stand still.
const LIMIT: Duration = Duration::from_secs(3);

/// Two ways of three hops from `a` to `z`.
fn two_ways() -> Result<Town> {
    let town = Town::builder()
        .nodes(&["a", "up1", "up2", "down1", "down2", "z"])
        .links(&[("a", "up1"), ("up1", "up2"), ("up2", "z"), ("a", "down1"), ("down1", "down2"), ("down2", "z")])
        .build()?;
    town.found()?;
    town.start()?;
    town.wait_reachable(Duration::from_secs(10))?;
    Ok(town)
}

/// Cuts the link at `place` of the way in use and measures.
fn heal(name: &str, how: Cut, place: usize) {
    town_test(name, || {
        let town = two_ways()?;
        let (a, z) = (town.node("a")?, town.node("z")?);
        let _server = EchoServer::start(z.namespace(), z.address()?.into())?;
        let stream = EchoStream::start(a.namespace(), z.address()?.into(), Duration::from_millis(10), 200)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        let (there, back) = (z.keys()?.prefix, a.keys()?.prefix);
        // Equal ways: make sure that one wire carries both directions.
        let (way, _) = wait_until("a way that is the way back too", Duration::from_secs(20), || {
            let (way, mut way_back) = (town.way("a", &there)?, town.way("z", &back)?);
            way_back.reverse();
            if way != way_back {
                // Take the way back's first link away for a moment; the route then moves to the other side.
                town.cut(&way_back[2], "z", Cut::Carrier)?;
                stream.wait_flowing(Duration::from_secs(5))?;
                town.mend(&way_back[2], "z")?;
                town.wait_reachable(Duration::from_secs(5))?;
            }
            Ok((way == way_back).then_some(way))
        })?;
        stream.wait_flowing(Duration::from_secs(5))?;
        let at = Instant::now();
        town.cut(&way[place], &way[place + 1], how)?;
        stream.wait_flowing(LIMIT * 5)?;
        let gap = stream.report().gap(at, Instant::now());
        measured(&format!("{how:?} cut of {}-{}: traffic stood still for {gap:?}", way[place], way[place + 1]));
        ensure!(gap <= LIMIT, "traffic stood still for {gap:?}");

        // And mended again: the link comes back and nothing stops for long.
        let at = Instant::now();
        town.mend(&way[place], &way[place + 1])?;
        wait_until("the link to come back", Duration::from_secs(15), || {
            let links = town.node(&way[place])?.links()?;
            Ok(links.iter().any(|link| link.peer.name == way[place + 1]).then_some(()))
        })?;
        stream.wait_flowing(Duration::from_secs(5)).context("after the mend")?;
        let gap = stream.report().gap(at, Instant::now());
        ensure!(gap <= LIMIT, "after the mend, traffic stood still for {gap:?}");
        Ok(())
    });
}

#[test]
fn a_pulled_first_link_heals() {
    heal("a_pulled_first_link_heals", Cut::Carrier, 0);
}

#[test]
fn a_pulled_middle_link_heals() {
    heal("a_pulled_middle_link_heals", Cut::Carrier, 1);
}

#[test]
fn a_silently_cut_first_link_heals() {
    heal("a_silently_cut_first_link_heals", Cut::Silent, 0);
}

#[test]
fn a_silently_cut_middle_link_heals() {
    heal("a_silently_cut_middle_link_heals", Cut::Silent, 1);
}

#[test]
fn a_silently_cut_last_link_heals() {
    heal("a_silently_cut_last_link_heals", Cut::Silent, 2);
}
