//! Who does not know the town key gets no answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grange_netns::{Frame, Town, WireSpec, town_test, wait_until};

const PORT: u16 = 7264;
const BEACON: u8 = 1;
const INITIATION: u8 = 2;

/// The datagrams of the mesh that one end of a wire sent.
fn datagrams(frames: &[Frame], from: usize) -> impl Iterator<Item = (&Frame, &[u8])> {
    frames.iter().filter(move |frame| frame.from == from).filter_map(|frame| {
        let (source, destination, payload) = frame.udp()?;
        (source == PORT || destination == PORT).then_some((frame, payload))
    })
}

/// Whether a frame goes to a multicast group.
fn is_multicast(frame: &Frame) -> bool {
    frame.bytes[0] & 1 == 1
}

#[test]
fn a_node_of_another_town_gets_no_answer() {
    town_test("a_node_of_another_town_gets_no_answer", || {
        let town = Town::builder()
            .nodes(&["mill", "oak", "stranger"])
            .link("mill", "oak")
            .link_with("mill", "stranger", WireSpec { offload: false, ..WireSpec::default() })
            .build()?;
        let (mill, oak, stranger) = (town.node("mill")?, town.node("oak")?, town.node("stranger")?);
        mill.grange(&["town", "found", "One Town"])?;
        town.invite(mill, oak)?;
        stranger.grange(&["town", "found", "Other Town"])?;
        let capture = town.wire("mill", "stranger")?.capture()?;
        let inside = town.wire("mill", "oak")?.capture()?;
        town.start()?;
        wait_until("mill and oak to have a link", Duration::from_secs(5), || {
            Ok((mill.links()?.len() == 1 && oak.links()?.len() == 1).then_some(()))
        })?;
        // A stranger who heard the neighbours' handshake and frames says them again, each as if it were his own.
        let (template, _) = wait_until("a beacon of the stranger", Duration::from_secs(10), || {
            let recording = capture.so_far();
            Ok(datagrams(&recording.frames, 1).next().map(|(frame, _)| frame.clone()))
        })?;
        let heard = inside.stop();
        let said: Vec<&[u8]> =
            datagrams(&heard.frames, 0).chain(datagrams(&heard.frames, 1)).map(|(_, payload)| payload).collect();
        ensure!(
            [2, 3, 4, 5].iter().all(|kind| said.iter().any(|payload| payload[0] == *kind)),
            "no handshake was heard"
        );
        let wire = town.wire("mill", "stranger")?.injector("mill")?;
        let say = |payload: &[u8]| -> Result<()> {
            wire.send(&template.with_udp_payload(payload).context("the template is no UDP over IPv6")?)?;
            Ok(())
        };
        said.iter().filter(|payload| payload[0] != BEACON).try_for_each(|payload| say(payload))?;
        // Long enough for both sides to have beaconed again.
        let beacons = |from: usize| datagrams(&capture.so_far().frames, from).filter(|(_, it)| it[0] == BEACON).count();
        let seen = [beacons(0), beacons(1)];
        wait_until("more beacons of both", Duration::from_secs(30), || {
            Ok((beacons(0) > seen[0] && beacons(1) > seen[1]).then_some(()))
        })?;
        let recording = capture.so_far();
        for (frame, payload) in datagrams(&recording.frames, 0) {
            ensure!(
                is_multicast(frame) && payload[0] == BEACON,
                "mill answered the stranger: type {} {:02x?}",
                payload[0],
                frame.bytes
            );
        }
        // A beacon said again is a good one: it may be greeted, but nothing more comes of it.
        said.iter().filter(|payload| payload[0] == BEACON).try_for_each(|payload| say(payload))?;
        let seen = [beacons(0), beacons(1)];
        wait_until("more beacons of both", Duration::from_secs(30), || {
            Ok((beacons(0) > seen[0] && beacons(1) > seen[1]).then_some(()))
        })?;
        let recording = capture.stop();
        for (frame, payload) in datagrams(&recording.frames, 0) {
            ensure!([BEACON, INITIATION].contains(&payload[0]), "mill said type {} {:02x?}", payload[0], frame.bytes);
        }
        let links: Vec<_> = mill.links()?.into_iter().map(|link| link.peer.name).collect();
        ensure!(links == ["oak"] && stranger.links()?.is_empty(), "mill has links with {links:?}");
        Ok(())
    });
}

#[test]
fn a_node_without_a_town_forms_no_link_until_it_joins() {
    town_test("a_node_without_a_town_forms_no_link_until_it_joins", || {
        let town = Town::builder().nodes(&["mill", "oak"]).link("mill", "oak").build()?;
        let (mill, oak) = (town.node("mill")?, town.node("oak")?);
        mill.grange(&["town", "found", "One Town"])?;
        town.start()?;
        ensure!(oak.status()?.town.is_none(), "{:?}", oak.status()?);
        // A running agent learns of its town at once.
        town.invite(mill, oak)?;
        wait_until("a link", Duration::from_secs(5), || Ok((oak.links()?.len() == 1).then_some(())))?;
        Ok(())
    });
}
