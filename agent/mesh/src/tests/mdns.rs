//! Two announcements on one cable.

use std::{collections::BTreeSet, path::PathBuf, sync::Mutex, thread};

use tokio::sync::mpsc;

use super::namespace::{Meeting, enter, here, ip, runtime};
use crate::mdns::Mdns;

#[test]
fn announcements_are_found_on_chosen_interfaces() {
    let places: Mutex<[PathBuf; 2]> = Mutex::default();
    let meeting = Meeting::of(2);
    let node = |number: usize| {
        let entered = enter();
        places.lock().unwrap()[number] = here();
        meeting.wait();
        if let Err(reason) = entered {
            if number == 0 {
                println!("SKIPPED announcements_are_found_on_chosen_interfaces: {reason}");
            }
            return;
        }
        if number == 0 {
            let other = places.lock().unwrap()[1].display().to_string();
            ip(&format!("link add eth0 type veth peer name eth0 netns {other}"));
        }
        meeting.wait();
        ip("link set eth0 up");
        meeting.wait();
        runtime().block_on(async {
            let (found, mut suggestions) = mpsc::channel(4);
            let port = 7264 + u16::try_from(number).unwrap();
            let mut mdns = Mdns::start(port, found).expect("mDNS");
            mdns.set_interfaces(BTreeSet::from(["eth0".into()]));
            let wait = tokio::time::timeout(std::time::Duration::from_secs(20), suggestions.recv());
            let endpoint = wait.await.expect("within 20 s").expect("an endpoint");
            assert_eq!(endpoint.addr.port(), 7265 - u16::try_from(number).unwrap());
            assert_eq!(Some(endpoint.iface.0), crate::kernel::interface_index("eth0"));
            assert!(endpoint.addr.is_ipv6());
            // The other one is still to find this one.
            meeting.wait();
            mdns.stop().await;
        });
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|number| scope.spawn(move || node(number))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
