//! Yggdrasil: links over TCP, packets encrypted end to end only, its own MTU of 65535.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use grange_netns::wait_until;
use serde_json::{Value, json};

use super::Overlay;
use crate::{daemon::Daemon, debian::Packages, lab::Lab};

/// The interface's name.
const INTERFACE: &str = "ygg0";

/// Configurations and daemons.
///
/// # Errors
/// If the package is missing or a program fails.
pub(super) fn start(lab: &Lab, packages: &Packages) -> Result<Overlay> {
    let program = packages.program("bookworm-backports", "usr/sbin/yggdrasil")?;
    let (mut daemons, mut addresses) = (Vec::new(), Vec::new());
    // Those that are called first: a call in vain is repeated only after a while.
    for host in lab.hosts().iter().rev() {
        let text = super::made(&program, &["-genconf", "-json"], host.directory(), None)?;
        let mut config: Value = serde_json::from_str(&text).context("reading Yggdrasil's own configuration")?;
        let called = host.ports().iter().filter(|port| !port.calls);
        let calls = host.ports().iter().filter(|port| port.calls);
        config["Listen"] = called.map(|port| format!("tcp://{}:9001", port.address)).collect();
        config["Peers"] = calls.map(|port| format!("tcp://{}:9001", port.far_address)).collect();
        config["AdminListen"] = json!("none");
        config["MulticastInterfaces"] = json!([]);
        config["IfName"] = json!(INTERFACE);
        let file = host.write("yggdrasil.conf", &config.to_string())?;
        let daemon = Daemon::start(host, &program, ["-useconffile".as_ref(), file.as_os_str()], None)?;
        let (address, _) = wait_until("Yggdrasil's address", Duration::from_secs(10), || {
            let text = host.namespace().ip(&format!("-6 -oneline addr show dev {INTERFACE} scope global"))?;
            let mut words = text.split_whitespace().skip_while(|word| *word != "inet6");
            Ok(words.nth(1).and_then(|word| word.split('/').next()?.parse::<IpAddr>().ok()))
        })
        .with_context(|| daemon.last_words())?;
        // The address is there before it listens.
        wait_until("Yggdrasil to listen", Duration::from_secs(10), || {
            let count = host.namespace().sh("ss --no-header --tcp --listening --numeric")?.matches(":9001 ").count();
            Ok((count >= host.ports().iter().filter(|port| !port.calls).count()).then_some(()))
        })
        .with_context(|| daemon.last_words())?;
        daemons.push(daemon);
        addresses.push(address);
    }
    daemons.reverse();
    addresses.reverse();
    Ok(Overlay::one_each(daemons, addresses))
}
