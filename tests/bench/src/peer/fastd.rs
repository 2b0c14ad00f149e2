//! fastd: one daemon and TUN device for each end of a cable; the kernel forwards between hops.

use std::time::Duration;

use anyhow::{Context, Result};
use grange_netns::{run, wait_until};

use super::Overlay;
use crate::{daemon::Daemon, debian::Packages, lab::Lab};

/// Its fastest method on x86 by its own documentation.
const METHOD: &str = "salsa2012+umac";

/// Daemons, addresses and routes.
///
/// # Errors
/// If the package is missing or a program fails.
pub(super) fn start(lab: &Lab, packages: &Packages) -> Result<Overlay> {
    let program = packages.program("bookworm", "usr/bin/fastd")?;
    let libraries = packages.libraries();
    let ask = |arguments: &[&str], input: Option<&str>| {
        let mut command = std::process::Command::new(&program);
        run(command.args(arguments).env("LD_LIBRARY_PATH", &libraries), input)
    };
    let mut keys = Vec::new();
    for _ in lab.hosts() {
        let said = ask(&["--generate-key", "--machine-readable"], None)?;
        let secret = said.split_whitespace().next().context("fastd made no key")?.to_owned();
        let public =
            ask(&["--config", "-", "--show-key", "--machine-readable"], Some(&format!("secret \"{secret}\";")))?;
        keys.push((secret, public.trim().to_owned()));
    }
    let device = |near: usize, far: usize| format!("fd{near}to{far}");
    let mut daemons = Vec::new();
    for host in lab.hosts() {
        let mut own = Vec::new();
        for port in host.ports() {
            let (device, udp) = (device(host.number(), port.far), 10000 + port.wire);
            let config = format!(
                "mode tun; interface \"{device}\"; method \"{METHOD}\"; mtu 1406; bind {}:{udp}; secret \"{}\";\n\
                 peer \"p{}\" {{ key \"{}\"; remote {}:{udp}; }}\n",
                port.address,
                keys[host.number()].0,
                port.far,
                keys[port.far].1,
                port.far_address,
            );
            let file = host.write(&format!("{device}.conf"), &config)?;
            let daemon = Daemon::start(host, &program, ["--config".as_ref(), file.as_os_str()], Some(&libraries))?;
            wait_until("fastd's device", Duration::from_secs(10), || {
                host.namespace().ip(&format!("link show {device}")).map(Some)
            })
            .with_context(|| daemon.last_words())?;
            host.namespace().ip(&format!("addr add {}/32 dev {device}", host.overlay()))?;
            host.namespace().ip(&format!("link set {device} up"))?;
            own.push(daemon);
        }
        daemons.push(own);
    }
    super::route_hop_by_hop(lab, device)?;
    Ok(Overlay { daemons, addresses: super::given(lab), check: None })
}
