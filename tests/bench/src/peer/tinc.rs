//! tinc 1.0 in router mode with `IndirectData`, so that each host on the way opens and encrypts anew.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Context, Result};
use grange_netns::run;

use super::Overlay;
use crate::{daemon::Daemon, debian::Packages, lab::Lab};

/// Keys, host files and daemons.
///
/// # Errors
/// If the package is missing or a program fails.
pub(super) fn start(lab: &Lab, packages: &Packages) -> Result<Overlay> {
    let program = packages.program("bookworm", "usr/sbin/tincd")?;
    let libraries = packages.libraries();
    let mut own = Vec::new();
    for host in lab.hosts() {
        let number = host.number();
        let mut config = format!("Name=n{number}\nMode=router\nDeviceType=tun\nInterface=tinc0\nAddressFamily=ipv4\n");
        for port in host.ports().iter().filter(|port| port.calls) {
            writeln!(config, "ConnectTo=n{}", port.far)?;
        }
        host.write("tinc/tinc.conf", &config)?;
        let up = format!("#!/bin/sh\nip addr add {}/24 dev $INTERFACE\nip link set $INTERFACE up\n", host.overlay());
        let up = host.write("tinc/tinc-up", &up)?;
        fs::set_permissions(up, fs::Permissions::from_mode(0o755)).context("making tinc-up a program")?;
        let file =
            host.write(&format!("tinc/hosts/n{number}"), &format!("Subnet={}/32\nIndirectData=yes\n", host.overlay()))?;
        // Twice "as proposed" to where the keys go. 2048 bits: tinc's default.
        let mut keygen = Command::new(&program);
        keygen.arg("--config").arg(host.directory().join("tinc")).arg("--generate-keys=2048");
        run(keygen.env("LD_LIBRARY_PATH", &libraries), Some("\n\n"))?;
        own.push(fs::read_to_string(file).context("reading tinc's host file")?);
    }
    let mut daemons = Vec::new();
    for host in lab.hosts() {
        for (number, text) in own.iter().enumerate().filter(|(number, _)| *number != host.number()) {
            let neighbour = host.ports().iter().find(|port| port.far == number);
            let address = neighbour.map(|port| format!("Address={}\n", port.far_address)).unwrap_or_default();
            host.write(&format!("tinc/hosts/n{number}"), &(address + text))?;
        }
        let (folder, pid) = (host.directory().join("tinc"), host.directory().join("tinc.pid"));
        let arguments =
            ["--no-detach".into(), format!("--config={}", folder.display()), format!("--pidfile={}", pid.display())];
        daemons.push(Daemon::start(host, &program, arguments, Some(&libraries))?);
    }
    Ok(Overlay::one_each(daemons, super::given(lab)))
}
