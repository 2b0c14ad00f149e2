//! A gateway against the real kernel and the real `nft`, in a network namespace of its own.

#![expect(clippy::print_stdout, reason = "a test that cannot run says so")]

use std::{fs, io, path::Path, process::Command, thread, time::Duration};

use grange_core::IfaceKind;
use grange_mesh::{InterfaceChoice, Mesh, MeshConfig, Role};
use grange_uplink::{Gateway, GatewayConfig, GatewayStatus};
use grange_wire::Prefix;
use tokio::runtime::{Builder, Runtime};

/// Runs a test on a thread of its own in a fresh network namespace, which vanishes with the thread.
fn run(name: &'static str, test: impl FnOnce() + Send + 'static) {
    let body = move || match enter() {
        Ok(()) => test(),
        Err(reason) => println!("SKIPPED {name}: {reason}"),
    };
    let thread = thread::Builder::new().name(name.into()).spawn(body).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter() -> Result<(), String> {
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing; as root: modprobe tun".into());
    }
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if Command::new(program).arg("-V").output().is_err() {
            return Err(format!("the program {program} is missing; as root: apt install {package}"));
        }
    }
    // SAFETY: only this thread changes its namespace; nothing else of the process is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("no network namespace of its own ({}); run as root", io::Error::last_os_error()));
    }
    if !Command::new("nft").args(["add", "table", "inet", "probe"]).status().is_ok_and(|status| status.success()) {
        return Err("the kernel has no nftables; as root: modprobe nf_tables".into());
    }
    for line in
        ["link set lo up", "link add wan0 type veth peer name far-wan0", "link set wan0 up", "link set far-wan0 up"]
    {
        ip(line);
    }
    for line in ["addr add 203.0.113.2/24 dev wan0", "addr add 2001:db8::2/64 dev wan0 nodad"] {
        ip(line);
    }
    Ok(())
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn nft(words: &str) {
    let output = Command::new("nft").args(words.split(' ')).output().expect("nft runs");
    assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tables() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft runs");
    String::from_utf8(output.stdout).expect("text")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn mesh(dir: &Path) -> Mesh {
    let selector = |facts: &grange_mesh::InterfaceFacts| {
        let role = match facts.name.get(..3) {
            Some("wan") => Role::Uplink,
            Some("lan") => Role::Lan,
            _ => Role::Unused,
        };
        InterfaceChoice { role, links: false, kind: IfaceKind::Wired, why: String::new() }
    };
    let mut config = MeshConfig::new([1; 32], "gateway".into(), Box::new(selector));
    config.runtime_dir = dir.to_owned();
    Mesh::start(config).await.expect("a mesh")
}

fn sharing() -> GatewayConfig {
    GatewayConfig { share: true, interface: None }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("not within 10 s: {what}"));
}

#[test]
fn default_routes_are_shared_while_they_are_there() {
    run("default_routes_are_shared_while_they_are_there", || {
        let before = tables();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = mesh(dir.path()).await;
            let gateway = Gateway::start(sharing(), mesh.clone()).await.expect("a gateway");
            assert_eq!(gateway.status(), GatewayStatus { sharing: true, ..GatewayStatus::default() });
            assert_eq!(tables(), before, "nothing is to be translated yet");
            let announced = async || mesh.snapshot().await.unwrap().announced;

            ip("route add default via 203.0.113.1");
            until("IPv4 is announced", async || announced().await == [Prefix::DEFAULT_V4]).await;
            assert!(tables().contains("nfproto ipv4 masquerade"));
            ip("-6 route add default via 2001:db8::1");
            until("IPv6 too", async || announced().await == [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6]).await;
            let status = gateway.status();
            assert_eq!((status.interface.as_deref(), status.v4, status.v6), (Some("wan0"), true, true));
            assert!(tables().contains("ip6 saddr fd00::/8 masquerade"));
            assert!(tables().contains("table inet probe"), "others' tables stay");
            // Forwarding was off on this machine: what is not the mesh's stays blocked.
            assert!(tables().contains("meta nfproto ipv6 drop"));
            until("forwarding", async || setting("ipv6/conf/all/forwarding") == "1").await;

            ip("link set far-wan0 down");
            until("nothing is announced", async || announced().await.is_empty()).await;
            until("no table", async || tables() == before).await;
            until("no forwarding", async || setting("ipv6/conf/all/forwarding") == "0").await;
            ip("link set far-wan0 up");
            until("IPv4 again", async || announced().await.contains(&Prefix::DEFAULT_V4)).await;

            gateway.shutdown().await;
            assert!(announced().await.is_empty());
            assert_eq!(tables(), before);
            assert_eq!(setting("ipv6/conf/all/forwarding"), "0");
            mesh.shutdown().await;
        });
    });
}

fn setting(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{path}")).expect(path).trim().into()
}

#[test]
fn the_next_start_removes_a_killed_runs_table() {
    run("the_next_start_removes_a_killed_runs_table", || {
        ip("route add default via 203.0.113.1");
        let before = tables();
        let dir = tempfile::tempdir().unwrap();
        let killed = runtime();
        killed.block_on(async {
            let mesh = mesh(dir.path()).await;
            std::mem::forget(Gateway::start(sharing(), mesh).await.expect("a gateway"));
        });
        drop(killed);
        assert_ne!(tables(), before, "nobody was there to remove it");
        runtime().block_on(async {
            let mesh = mesh(dir.path()).await;
            let config = GatewayConfig { share: false, ..sharing() };
            let gateway = Gateway::start(config, mesh.clone()).await.expect("a member");
            assert_eq!(tables(), before);
            assert_eq!(gateway.status().interface.as_deref(), Some("wan0"));
            gateway.shutdown().await;
            mesh.shutdown().await;
        });
    });
}

#[test]
fn a_members_lan_is_translated_into_the_mesh() {
    run("a_members_lan_is_translated_into_the_mesh", || {
        let before = tables();
        let dir = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mesh = mesh(dir.path()).await;
            let config = GatewayConfig { share: false, ..sharing() };
            let gateway = Gateway::start(config, mesh.clone()).await.expect("a member");
            assert_eq!(tables(), before);
            ip("link add lan0 type veth peer name far-lan0");
            ip("link set lan0 up");
            let rule = format!("snat ip to {}", mesh.address_v4());
            until("a table for the LAN", async || tables().contains(&rule)).await;
            assert!(!tables().contains("masquerade"));
            // A restarted firewall flushes everything: both tables are there again long before they are looked for.
            let whole = tables();
            nft("flush ruleset");
            nft("add table inet probe");
            until("the tables again", async || tables().contains(&rule) && tables().contains("inet grange_mesh")).await;
            assert_eq!(tables().len(), whole.len());
            ip("link del lan0");
            until("none without it", async || tables() == before).await;
            gateway.shutdown().await;
            mesh.shutdown().await;
        });
    });
}
