//! Packets of every size pass or are answered, and large transfers survive a bad way.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use grange_netns::{
    Download, EchoServer, Impairment, PathMtuProbe, Town, WebServer, WireSpec, measured, town_test, wait_until,
};

fn chain(spec: WireSpec) -> Result<Town> {
    let town = Town::builder()
        .nodes(&["a", "b", "c", "d"])
        .link_with("a", "b", spec)
        .link_with("b", "c", spec)
        .link_with("c", "d", spec)
        .laptop("lena", "a")
        .laptop("tom", "d")
        .build()?;
    town.found()?;
    town.start()?;
    town.wait_reachable(Duration::from_secs(15))?;
    Ok(town)
}

#[test]
fn packets_of_1280_pass_over_wires_of_1300_and_larger_ones_are_answered() {
    town_test("packets_of_1280_pass_over_wires_of_1300_and_larger_ones_are_answered", || {
        let town = chain(WireSpec { mtu: 1300, ..WireSpec::default() })?;
        let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
        let server: IpAddr = tom.v6()?.into();
        let _echo = EchoServer::start(tom.namespace(), server)?;
        let probe = PathMtuProbe::new(lena.namespace(), server)?;
        ensure!(probe.passes(1280, 5)?, "1280 bytes do not pass");
        let deadline = Instant::now() + Duration::from_secs(5);
        ensure!(!probe.passes(1500, 5)?, "1500 bytes pass over wires of 1300");
        let (found, _) = wait_until("packet-too-big", deadline - Instant::now(), || {
            let now = probe.path_mtu()?;
            Ok((now < 1500).then_some(now))
        })?;
        ensure!((1280..1300).contains(&found), "the way was said to carry {found}");
        ensure!(probe.passes(found as usize, 5)?, "{found} bytes were said to pass and do not");
        let _web = WebServer::start(tom.namespace(), &[server])?;
        Download::start(lena.namespace(), server, 5, 5_000_000, 0)?.finish(Duration::from_secs(30))?;
        Ok(())
    });
}

#[test]
fn a_large_transfer_survives_loss_reordering_and_repetition() {
    town_test("a_large_transfer_survives_loss_reordering_and_repetition", || {
        let impairment = Impairment {
            delay: Duration::from_millis(2),
            reorder: 0.03,
            hold: Duration::from_millis(3),
            loss: 0.003,
            duplicate: 0.01,
            seed: 20,
        };
        let town = chain(WireSpec { impairment: Some(impairment), ..WireSpec::default() })?;
        let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
        let server: IpAddr = tom.v6()?.into();
        let _web = WebServer::start(tom.namespace(), &[server])?;
        let done = Download::start(lena.namespace(), server, 6, 8_000_000, 0)?.finish(Duration::from_secs(90))?;
        measured(&format!("{} bytes in {:?}", done.bytes, done.elapsed));
        Ok(())
    });
}

#[test]
fn a_slow_wire_carries_what_it_can() {
    town_test("a_slow_wire_carries_what_it_can", || {
        let town = chain(WireSpec { rate: Some(20_000_000), loss: 0.001, ..WireSpec::default() })?;
        let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
        let server: IpAddr = tom.v6()?.into();
        let _web = WebServer::start(tom.namespace(), &[server])?;
        Download::start(lena.namespace(), server, 7, 6_000_000, 0)?.finish(Duration::from_secs(60))?;
        Ok(())
    });
}
