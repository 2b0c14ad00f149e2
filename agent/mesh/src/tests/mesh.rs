//! Whole meshes in namespaces.

use std::{net::Ipv6Addr, path::Path, time::Duration};

use grange_core::IfaceKind;

use super::namespace::{assert_same, ip, run, runtime, state, until, wire};
use crate::{InterfaceChoice, Mesh, MeshConfig, MeshEvent, Role, Selector, StartError};

/// `wan*` are uplinks, `lan*` LANs, `far*` the other ends of cables, and links form on the rest.
fn selector() -> Selector {
    Box::new(|facts| {
        let role = match facts.name.get(..3) {
            Some("wan") => Role::Uplink,
            Some("lan") => Role::Lan,
            Some("far") => Role::Unused,
            _ => Role::Mesh,
        };
        InterfaceChoice { role, links: role == Role::Mesh, kind: IfaceKind::Wired, why: "the test says so".into() }
    })
}

pub(super) fn config(seed: u8, dir: &Path) -> MeshConfig {
    let mut config = MeshConfig::new([seed; 32], format!("node{seed}"), selector());
    config.runtime_dir = dir.to_owned();
    config
}

async fn interface_is(mesh: &Mesh, name: &str, up: bool) -> Option<()> {
    let interfaces = mesh.interfaces().await.expect("a running mesh").all;
    interfaces.iter().any(|one| one.name == name && one.up == up).then_some(())
}

#[test]
fn a_mesh_leaves_nothing_behind() {
    run("a_mesh_leaves_nothing_behind", || {
        wire("eth0");
        wire("lan0");
        let before = state();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = Mesh::start(config(1, dir.path())).await.expect("a start");
            let address = mesh.address().to_string();
            let snapshot = mesh.snapshot().await.unwrap();
            assert_eq!((snapshot.address, snapshot.plane), (mesh.address(), "userspace"));
            let roles: Vec<_> = snapshot.interfaces.iter().map(|one| (one.name.as_str(), one.role)).collect();
            assert_eq!(
                roles,
                [("eth0", Role::Mesh), ("far-eth0", Role::Unused), ("far-lan0", Role::Unused), ("lan0", Role::Lan)]
            );
            let gateway = grange_wire::lan_gateway(&mesh.id()).to_string();
            until("the LAN's address", async || ip("addr show dev lan0").contains(&gateway).then_some(())).await;
            mesh.set_announced(vec![grange_wire::Prefix::DEFAULT_V4]).await.unwrap();
            assert!(ip("addr show dev grange0").contains(&address));
            let other = mesh.clone();
            mesh.shutdown().await;
            other.stopped().await;
            assert!(other.snapshot().await.is_err());
        });
        assert_same(&before, &state());
    });
}

#[test]
fn carrier_loss_is_seen_at_once() {
    run("carrier_loss_is_seen_at_once", || {
        wire("eth0");
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = Mesh::start(config(1, dir.path())).await.expect("a start");
            until("carrier", async || interface_is(&mesh, "eth0", true).await).await;
            let mut events = mesh.subscribe();
            ip("link set far-eth0 down");
            // No polling in between: the event itself must come.
            let lost = async {
                loop {
                    let event = events.recv().await.expect("events");
                    if matches!(event, MeshEvent::Interfaces) && interface_is(&mesh, "eth0", false).await.is_some() {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(5), lost).await.expect("carrier loss");
            ip("link set far-eth0 up");
            until("carrier again", async || interface_is(&mesh, "eth0", true).await).await;
            ip("link del eth0");
            until("it is gone", async || mesh.interfaces().await.unwrap().all.is_empty().then_some(())).await;
            mesh.shutdown().await;
        });
    });
}

#[test]
fn a_default_route_that_comes_and_goes_is_seen() {
    run("a_default_route_that_comes_and_goes_is_seen", || {
        wire("wan0");
        ip("addr add 203.0.113.2/24 dev wan0");
        ip("addr add 2001:db8::2/64 dev wan0 nodad");
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = Mesh::start(config(1, dir.path())).await.expect("a start");
            let leads = async |v4: bool, v6: bool| {
                let all = mesh.interfaces().await.unwrap().all;
                all.iter().any(|one| one.name == "wan0" && (one.default_v4, one.default_v6) == (v4, v6)).then_some(())
            };
            until("none", async || leads(false, false).await).await;
            ip("route add default via 203.0.113.1");
            until("IPv4", async || leads(true, false).await).await;
            ip("-6 route add default via 2001:db8::1");
            until("both", async || leads(true, true).await).await;
            ip("route del default");
            until("IPv6", async || leads(false, true).await).await;
            ip("route add default via 203.0.113.1");
            until("both again", async || leads(true, true).await).await;
            ip("link set wan0 down");
            until("none", async || leads(false, false).await).await;
            mesh.shutdown().await;
        });
    });
}

#[test]
fn what_is_occupied_is_named_and_nothing_is_left() {
    run("what_is_occupied_is_named_and_nothing_is_left", || {
        let dir = tempfile::tempdir().unwrap();
        let before = state();
        let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 7264)).unwrap();
        runtime().block_on(async {
            let error = Mesh::start(config(1, dir.path())).await.expect_err("the port is occupied");
            assert!(matches!(error, StartError::PortOccupied { port: 7264 }), "{error}");
        });
        drop(socket);
        assert_same(&before, &state());

        ip("link add grange0 type veth peer name far0");
        let before = state();
        runtime().block_on(async {
            let error = Mesh::start(config(1, dir.path())).await.expect_err("the name is taken");
            assert!(matches!(&error, StartError::TunTaken { name } if name == "grange0"), "{error}");
            let mut other = config(1, dir.path());
            other.tun = "a name/with a slash".into();
            let error = Mesh::start(other).await.expect_err("no name for an interface");
            assert!(matches!(error, StartError::TunName { .. }), "{error}");
        });
        assert_same(&before, &state());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    });
}

#[test]
fn an_own_address_is_one_hop_away_and_the_unknown_is_unreachable() {
    run("an_own_address_is_one_hop_away_and_the_unknown_is_unreachable", || {
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = Mesh::start(config(1, dir.path())).await.expect("a start");
            for address in [mesh.address().into(), mesh.address_v4().into()] {
                // A probe may meet the moment in which the keeper moves addresses.
                let hop = until("three answers", async || {
                    let mut trace = mesh.trace(address).await.expect("a trace");
                    let hop = trace.next().await.expect("a hop");
                    assert!(trace.next().await.is_none());
                    (hop.rtt.len() == 3).then_some(hop)
                })
                .await;
                assert_eq!((hop.hop, hop.address, hop.name.as_deref()), (1, Some(address), Some("node1")));
                assert!(hop.reached, "{hop:?}");
            }
            let error = mesh.trace("2001:db8::1".parse().unwrap()).await.expect_err("no route");
            assert!(matches!(error, crate::TraceError::Unreachable), "{error}");
            mesh.shutdown().await;
        });
    });
}
