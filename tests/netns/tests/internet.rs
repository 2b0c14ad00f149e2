//! A laptop's traffic goes to the Internet through three hops and a gateway, over IPv4 and IPv6.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use grange_netns::{Cut, Download, INTERNET_V4, INTERNET_V6, Response, Town, fetch, measured, town_test, wait_until};

const SERVERS: [IpAddr; 2] = [IpAddr::V4(INTERNET_V4), IpAddr::V6(INTERNET_V6)];

fn chain() -> Result<Town> {
    let town = Town::builder()
        .nodes(&["mill", "oak", "pond", "gate"])
        .links(&[("mill", "oak"), ("oak", "pond"), ("pond", "gate")])
        .uplink("gate")
        .laptop("lena", "mill")
        .laptop("guest", "gate")
        .build()?;
    town.found()?;
    town.start()?;
    town.wait_reachable(Duration::from_secs(10))?;
    Ok(town)
}

fn page(town: &Town, laptop: &str, server: IpAddr) -> Result<Response> {
    let space = town.laptop(laptop)?.namespace();
    let (page, _) = wait_until(&format!("{laptop} to get the page of {server}"), Duration::from_secs(8), || {
        fetch(space, server, "/", Duration::from_secs(2)).map(Some)
    })?;
    ensure!(page.status == 200, "{page:?}");
    Ok(page)
}

#[test]
fn a_laptop_fetches_a_page_through_three_hops_and_the_gateway_translates() {
    town_test("a_laptop_fetches_a_page_through_three_hops_and_the_gateway_translates", || {
        let town = chain()?;
        for laptop in ["lena", "guest"] {
            for (server, seen) in SERVERS.into_iter().zip(["203.0.113.2", "2001:db8:1::2"]) {
                let page = page(&town, laptop, server)?;
                ensure!(page.body.contains(&format!("You are {seen}.")), "{laptop} was seen as {}", page.body);
            }
        }
        for prefix in ["0.0.0.0/0", "::/0"] {
            let (way, _) =
                wait_until("a default route", Duration::from_secs(5), || town.way("mill", prefix).map(Some))?;
            ensure!(way == ["mill", "oak", "pond", "gate"], "{way:?}");
        }
        Ok(())
    });
}

#[test]
fn large_transfers_arrive_whole_over_both_versions() {
    town_test("large_transfers_arrive_whole_over_both_versions", || {
        let town = chain()?;
        for server in SERVERS {
            page(&town, "lena", server)?;
            let done = Download::start(town.laptop("lena")?.namespace(), server, 11, 60_000_000, 0)?
                .finish(Duration::from_secs(60))?;
            measured(&format!("{server}: {} bytes in {:?}", done.bytes, done.elapsed));
        }
        Ok(())
    });
}

#[test]
fn a_pulled_uplink_is_withdrawn_and_comes_back() {
    town_test("a_pulled_uplink_is_withdrawn_and_comes_back", || {
        let town = chain()?;
        page(&town, "lena", SERVERS[0])?;
        town.cut("gate", "internet", Cut::Carrier)?;
        wait_until("mill to lose its default routes", Duration::from_secs(10), || {
            let routes = town.node("mill")?.routes()?;
            Ok((!routes.iter().any(|it| it.selected && it.prefix.ends_with("/0"))).then_some(()))
        })?;
        // The town goes on without the Internet.
        town.wait_reachable(Duration::from_secs(2))?;
        town.mend("gate", "internet")?;
        for server in SERVERS {
            page(&town, "lena", server)?;
        }
        Ok(())
    });
}
