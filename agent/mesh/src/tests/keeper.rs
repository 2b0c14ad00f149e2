//! What the keeper adds, takes over and takes away.

use std::{fs, time::Duration};

use grange_wire::{NodeId, Prefix};

use super::namespace::{assert_same, ip, ip_works, nft, run, runtime, state, until, wire};
use crate::{
    kernel::{
        Kernel, Path, Setup,
        netlink::Netlink,
        plan::PROTOCOL,
        sysctl::{Forwarding, Sysctls},
    },
    plane::{MTU_OVER_ETHERNET, Tun, TunConfig},
};

const ID: NodeId = NodeId([0x5a; 32]);

/// A TUN that lives as long as it is held, and a keeper.
async fn start(runtime_dir: &std::path::Path, table: u32, grace: Duration) -> (Tun, Kernel) {
    let tun = Tun::open(&TunConfig::default()).expect("a TUN");
    let setup = Setup {
        id: ID,
        tun: tun.name().expect("its name"),
        tun_index: tun.index().expect("its index"),
        tun_mtu: MTU_OVER_ETHERNET,
        mark: 7264,
        table,
        runtime_dir: runtime_dir.to_owned(),
        seals: true,
        grace,
    };
    let kernel =
        Kernel::start(Netlink::open().expect("netlink"), None, Sysctls::default(), setup).await.expect("a start");
    (tun, kernel)
}

fn want_prefix(kernel: &Kernel, prefix: Prefix, wanted: bool) {
    kernel.wants().want_paths([(prefix, wanted.then(Path::default))]);
}

fn machine() {
    wire("lan0");
    ip("addr add 192.168.7.1/24 dev lan0");
    wire("wan0");
    ip("addr add 203.0.113.2/24 dev wan0");
    ip("route add default via 203.0.113.1");
    ip("addr add 2001:db8::2/64 dev wan0 nodad");
    ip("-6 route add default via 2001:db8::1");
    fs::write("/proc/sys/net/ipv6/conf/lan0/forwarding", "1").expect("an interface that forwards alone");
}

fn lan() -> Option<(u32, String)> {
    Some((crate::kernel::interface_index("lan0").expect("lan0"), "lan0".into()))
}

fn forwarding() -> Option<Forwarding> {
    let from = ["lan0".into(), "wan0".into(), "grange0".into()].into();
    Some(Forwarding { from, hear: ["wan0".into()].into() })
}

fn setting(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{path}")).expect(path).trim().into()
}

fn has_lan_address() -> bool {
    ip("-6 addr show dev lan0").contains(&format!("{}/64", grange_wire::lan_gateway(&ID)))
}

/// The prefixes of our routes in a table, as `ip` prints them.
fn routes(table: u32) -> Vec<String> {
    let v4 = ip(&format!("-4 route show table all proto {PROTOCOL}"));
    let v6 = ip(&format!("-6 route show table all proto {PROTOCOL}"));
    let in_table = format!(" table {table} ");
    v4.lines().chain(v6.lines()).filter(|line| line.contains(&in_table)).map(Into::into).collect()
}

#[test]
fn everything_is_taken_away_again() {
    run("everything_is_taken_away_again", || {
        machine();
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (tun, kernel) = start(dir.path(), 7264, Duration::ZERO).await;
            let far: [Prefix; 4] =
                ["fd99::/64", "100.64.9.9/32", "0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap());
            for prefix in far {
                want_prefix(&kernel, prefix, true);
            }
            kernel.want(|wanted| {
                wanted.lan = lan();
                wanted.forwarding = forwarding();
            });
            until("the routes", async || (routes(7264).len() == 6).then_some(())).await;
            until("forwarding", async || (setting("ipv6/conf/all/forwarding") == "1").then_some(())).await;
            assert!(has_lan_address());
            assert_eq!(setting("ipv6/conf/wan0/accept_ra"), "2");
            assert_eq!(setting("ipv4/conf/wan0/forwarding"), "1");
            assert_eq!(kernel.forwards_for_others(), (false, false));
            // The mesh's prefixes win over main, its default routes do not, and what has our mark sees neither.
            assert!(ip("route get 100.64.9.9").contains("dev grange0"), "{}", ip("route get 100.64.9.9"));
            // A known node's address is not the provider's while the interface that leads to it is gone.
            ip("route del 100.64.9.9 dev grange0 table 7264");
            assert!(!ip_works("route get 100.64.9.9"), "{}", ip("route get 100.64.9.9"));
            kernel.want(|wanted| wanted.resync += 1);
            until("the route again", async || ip_works("route get 100.64.9.9").then_some(())).await;
            assert!(ip("-6 route get fd99::1").contains("dev grange0"));
            assert!(ip("-6 route get fd99::1").contains(&grange_wire::node_address(&ID).to_string()));
            assert!(ip("route get 198.51.100.1").contains("dev wan0"));
            assert!(ip("-6 route get 2001:db8:5::1").contains("dev wan0"));
            assert!(ip("-6 route get fd99::1 mark 7264").contains("dev wan0"));
            // A node that is gone is not looked for at the provider's; a network of the owner's is left alone.
            assert!(routes(7264).iter().any(|route| route.starts_with("unreachable fd00::/8 ")));
            ip("-6 route add fd55::/64 dev wan0");
            assert!(ip("-6 route get fd55::1").contains("dev wan0"));
            ip("-6 route del fd55::/64 dev wan0");
            ip("route del default");
            assert!(
                ip("route get 198.51.100.1").contains("dev grange0"),
                "without another default the mesh's is taken"
            );
            ip("route add default via 203.0.113.1");
            want_prefix(&kernel, far[0], false);
            until("one route less", async || (routes(7264).len() == 5).then_some(())).await;
            kernel.remove().await;
            drop(tun);
        });
        assert_same(&before, &state());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the record is gone");
    });
}

#[test]
fn what_is_not_wanted_any_more_is_restored_while_running() {
    run("what_is_not_wanted_any_more_is_restored_while_running", || {
        machine();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (_tun, kernel) = start(dir.path(), 7264, Duration::from_secs(3600)).await;
            let own = grange_wire::lan_prefix(&ID).to_string();
            let unreachable = || routes(7264).iter().any(|route| route.contains("unreachable") && route.contains(&own));
            until("an answer for the own prefix", async || unreachable().then_some(())).await;
            kernel.want(|wanted| {
                wanted.lan = lan();
                wanted.forwarding = forwarding();
            });
            until("the LAN", async || (has_lan_address() && !unreachable()).then_some(())).await;
            until("forwarding", async || (setting("ipv6/conf/all/forwarding") == "1").then_some(())).await;
            kernel.want(|wanted| {
                wanted.lan = None;
                wanted.forwarding = None;
            });
            until("no LAN", async || (!has_lan_address() && unreachable()).then_some(())).await;
            until("no forwarding", async || (setting("ipv6/conf/all/forwarding") == "0").then_some(())).await;
            assert_eq!(setting("ipv6/conf/wan0/accept_ra"), "1");
            assert_eq!(setting("ipv6/conf/lan0/forwarding"), "1", "as it was");
            kernel.remove().await;
        });
    });
}

#[test]
fn a_killed_run_is_taken_over() {
    run("a_killed_run_is_taken_over", || {
        machine();
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        let first = runtime();
        first.block_on(async {
            let (_tun, kernel) = start(dir.path(), 7264, Duration::ZERO).await;
            kernel.want(|wanted| {
                wanted.lan = lan();
                wanted.forwarding = forwarding();
            });
            until("forwarding", async || (setting("ipv6/conf/all/forwarding") == "1").then_some(())).await;
            std::mem::forget(kernel);
        });
        drop(first);
        assert!(has_lan_address(), "nobody was there to remove it");
        assert!(ip("rule").contains("lookup 7264"));

        // The next run has another table, no LAN yet, and a route that stands.
        let standing = format!("-6 route add fd77::/64 dev lan0 table 7264 proto {PROTOCOL} metric 1024");
        ip(&standing);
        let second = runtime();
        second.block_on(async {
            let (_tun, kernel) = start(dir.path(), 7264, Duration::from_secs(3600)).await;
            want_prefix(&kernel, "fd98::/64".parse().unwrap(), true);
            until("a new route", async || routes(7264).iter().any(|route| route.starts_with("fd98::")).then_some(()))
                .await;
            assert!(has_lan_address(), "it may be wanted soon");
            assert!(routes(7264).iter().any(|route| route.starts_with("fd77::")), "it still stands");
            assert_eq!(setting("ipv6/conf/all/forwarding"), "1");
            assert_eq!(kernel.forwards_for_others(), (false, false), "the record says that it was us");
            std::mem::forget(kernel);
        });
        drop(second);

        // The third has another table and no patience.
        runtime().block_on(async {
            let (tun, kernel) = start(dir.path(), 99, Duration::ZERO).await;
            until("no LAN address", async || (!has_lan_address()).then_some(())).await;
            until("no forwarding", async || (setting("ipv6/conf/all/forwarding") == "0").then_some(())).await;
            until("the old table is empty", async || routes(7264).is_empty().then_some(())).await;
            assert!(!ip("rule").contains("lookup 7264") && !ip("-6 rule").contains("lookup 7264"));
            assert!(ip("rule").contains("lookup 99"));
            kernel.remove().await;
            drop(tun);
        });
        assert_same(&before, &state());
    });
}

#[test]
fn an_address_that_was_there_stays() {
    run("an_address_that_was_there_stays", || {
        machine();
        ip(&format!("addr add {}/64 dev lan0 nodad", grange_wire::lan_gateway(&ID)));
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (tun, kernel) = start(dir.path(), 7264, Duration::ZERO).await;
            kernel.want(|wanted| wanted.lan = lan());
            want_prefix(&kernel, "fd98::/64".parse().unwrap(), true);
            until("the keeper's pass", async || (routes(7264).len() == 2).then_some(())).await;
            kernel.remove().await;
            drop(tun);
        });
        assert!(has_lan_address());
        assert_same(&before, &state());
    });
}

#[test]
fn what_others_take_away_is_put_back() {
    run("what_others_take_away_is_put_back", || {
        machine();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (_tun, kernel) = start(dir.path(), 7264, Duration::ZERO).await;
            want_prefix(&kernel, "fd98::/64".parse().unwrap(), true);
            until("the routes", async || (routes(7264).len() == 3).then_some(())).await;
            // The kernel forgets routes and IPv6 addresses of an interface that goes down.
            ip("link set grange0 down");
            ip("rule del pref 7264");
            ip("link set grange0 up");
            assert!(!routes(7264).iter().any(|route| route.starts_with("fd98::")));
            kernel.want(|wanted| wanted.resync += 1);
            until("the route", async || routes(7264).iter().any(|route| route.starts_with("fd98::")).then_some(()))
                .await;
            until("the address", async || ip("addr show dev grange0").contains("/128").then_some(())).await;
            assert!(ip("rule").contains("7264:"));
            kernel.remove().await;
        });
    });
}

#[test]
fn a_record_that_cannot_be_written_changes_nothing() {
    run("a_record_that_cannot_be_written_changes_nothing", || {
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        runtime().block_on(async {
            let tun = Tun::open(&TunConfig::default()).expect("a TUN");
            let setup = Setup {
                id: ID,
                tun: "grange0".into(),
                tun_index: tun.index().expect("its index"),
                tun_mtu: MTU_OVER_ETHERNET,
                mark: 7264,
                table: 7264,
                runtime_dir: dir.path().join("file"),
                seals: true,
                grace: Duration::ZERO,
            };
            let netlink = Netlink::open().expect("netlink");
            let error = Kernel::start(netlink, None, Sysctls::default(), setup).await.expect_err("no directory");
            assert!(matches!(error, crate::StartError::Undo { .. }), "{error}");
        });
        assert_same(&before, &state());
    });
}

#[test]
fn nothing_is_forwarded_without_the_fence_and_it_is_put_back_at_once() {
    run("nothing_is_forwarded_without_the_fence_and_it_is_put_back_at_once", || {
        machine();
        nft("add table inet others");
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let (tun, kernel) = start(dir.path(), 7264, Duration::ZERO).await;
            let fenced = || nft("list ruleset").contains("table inet grange_mesh");
            assert!(!fenced(), "nothing is forwarded yet");
            kernel.want(|wanted| {
                wanted.lan = lan();
                wanted.lans = ["192.168.7.0/24".parse().unwrap()].into();
                wanted.forwarding = forwarding();
            });
            until("forwarding", async || (setting("ipv6/conf/all/forwarding") == "1").then_some(())).await;
            let table = nft("list table inet grange_mesh");
            assert!(table.contains("ip saddr 192.168.7.0/24 drop"), "{table}");
            // Whatever somebody else does to it: long before it would be looked for anyway.
            for change in
                ["insert rule inet grange_mesh input accept", "delete table inet grange_mesh", "flush ruleset"]
            {
                nft(change);
                let same = || nft("list ruleset").replace("table inet others {\n}\n", "") == table;
                until(change, async || same().then_some(())).await;
            }
            nft("add table inet others");
            kernel.want(|wanted| {
                wanted.lan = None;
                wanted.forwarding = None;
                wanted.turn += 1;
            });
            kernel.done(1).wait().await;
            assert!(!fenced() && setting("ipv6/conf/all/forwarding") == "0");
            kernel.remove().await;
            drop(tun);
        });
        assert_same(&before, &state());
    });
}
