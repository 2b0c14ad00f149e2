//! Three meshes in a row, with real sockets and devices.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use grange_core::{
    DownReason, Identity, Town,
    certificate::{Steward, by_steward},
};
use tokio::sync::watch;

use super::{
    mesh::config,
    namespace::{Meeting, enter, here, ip, runtime, until},
};
use crate::{Mesh, MeshEvent};

const NODES: usize = 3;

fn town(seed: u8) -> Town {
    let steward = Steward::from_seed(&[77; 32]);
    Town {
        id: steward.town(),
        name: "Testville".into(),
        key: [9; 32],
        certificate: by_steward(&steward, &Identity::from_seed(&[seed; 32]), 0),
    }
}

/// Runs `first` on the first of three nodes in a row: `eth0` of each leads to `eth1` of the one before.
fn run_line(name: &'static str, first: impl AsyncFnOnce(Mesh) + Send) {
    let places: Mutex<[PathBuf; NODES]> = Mutex::default();
    let meeting = Meeting::of(NODES);
    let (done, _) = watch::channel(false);
    let done = Arc::new(done);
    let first = Mutex::new(Some(first));
    let node = |number: usize| {
        let entered = enter();
        places.lock().unwrap()[number] = here();
        meeting.wait();
        if let Err(reason) = entered {
            // For all the same reason: the others are not waited for.
            if number == 0 {
                println!("SKIPPED {name}: {reason}");
            }
            return;
        }
        if number + 1 < NODES {
            let next = places.lock().unwrap()[number + 1].display().to_string();
            ip(&format!("link add eth1 type veth peer name eth0 netns {next}"));
        }
        meeting.wait();
        if number > 0 {
            ip("link set eth0 up");
        }
        if number + 1 < NODES {
            ip("link set eth1 up");
        }
        meeting.wait();
        let seed = u8::try_from(number).unwrap() + 1;
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(seed, dir.path());
        config.town = Some(town(seed));
        runtime().block_on(async {
            let mesh = Mesh::start(config).await.expect("a start");
            let mut ended = done.subscribe();
            // Whatever the first one's end is, the others are to stop.
            let _end = (number == 0).then(|| End(Arc::clone(&done)));
            if number == 0 {
                let test = first.lock().unwrap().take().expect("one first node");
                test(mesh.clone()).await;
            } else {
                let _ = ended.wait_for(|ended| *ended).await;
            }
            mesh.shutdown().await;
        });
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..NODES).map(|number| scope.spawn(move || node(number))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

struct End(Arc<watch::Sender<bool>>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[test]
fn packets_pass_a_node_and_a_cut_cable_is_seen() {
    run_line("packets_pass_a_node_and_a_cut_cable_is_seen", async |mesh| {
        let [second, third] = [2, 3].map(|seed| Identity::from_seed(&[seed; 32]).id());
        let far = grange_wire::lan_prefix(&third);
        let route = async || {
            let snapshot = mesh.snapshot().await.unwrap();
            snapshot.routes.into_iter().find(|route| route.prefix == far && route.selected)
        };
        let found = until("a route to the third", route).await;
        assert_eq!((found.owner, found.neighbour.id), (third, second));
        assert_eq!(found.neighbour.name, "node2");
        let snapshot = mesh.snapshot().await.unwrap();
        assert_eq!(snapshot.links.len(), 1);
        assert_eq!(snapshot.links[0].interface.as_deref(), Some("eth1"));
        assert!(snapshot.links[0].cost < u16::MAX);
        assert_eq!(snapshot.town.unwrap().1, "Testville");

        let ends: [(std::net::IpAddr, std::net::IpAddr); 2] = [
            (grange_wire::node_address(&second).into(), grange_wire::node_address(&third).into()),
            (grange_wire::node_address_v4(&second).into(), grange_wire::node_address_v4(&third).into()),
        ];
        for (middle, end) in ends {
            let way = until("a whole trace", async || {
                let mut trace = mesh.trace(end).await.ok()?;
                let mut hops = Vec::new();
                while let Some(hop) = trace.next().await {
                    hops.push(hop);
                }
                hops.last().is_some_and(|hop| hop.reached).then_some(hops)
            })
            .await;
            let addresses: Vec<_> = way.iter().map(|hop| hop.address).collect();
            assert_eq!(addresses, [Some(middle), Some(end)]);
            assert_eq!(way[0].name.as_deref(), Some("node2"));
        }
        let traffic = async || {
            let links = mesh.snapshot().await.unwrap().links;
            links.first().is_some_and(|link| link.traffic.received_packets > 0).then_some(())
        };
        until("counters", traffic).await;

        let mut events = mesh.subscribe();
        ip("link set eth1 down");
        let down = async {
            loop {
                if let MeshEvent::LinkDown { reason, .. } = events.recv().await.expect("events") {
                    return reason;
                }
            }
        };
        let reason = tokio::time::timeout(std::time::Duration::from_secs(5), down).await.expect("the link goes down");
        assert_eq!(reason, DownReason::Interface);
        assert!(route().await.is_none());
        until("no kernel route", async || (!ip("-6 route show table 7264").contains(&far.to_string())).then_some(()))
            .await;
        ip("link set eth1 up");
        until("the route again", route).await;
    });
}
