//! System packages: installed where that is possible, else named with the command to type.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::command;

/// A program and the Debian package that has it.
type Need = (&'static str, &'static str);

/// What a town of network namespaces is built with.
pub(crate) const NETWORK: &[Need] = &[
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("sysctl", "procps"),
];

/// What makes and runs the virtual machine, and what its guest runs of this machine's programs.
pub(crate) const MACHINE: &[Need] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("wg", "wireguard-tools"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("ping", "iputils-ping"),
];

/// What measures. The peers' own packages are not installed: see `grange-bench`.
pub(crate) const BENCH: &[Need] = &[
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("timeout", "coreutils"),
];

/// What the Debian way to the standard library's sources needs.
pub(crate) const UNPACK: &[Need] = &[("dpkg-deb", "dpkg"), ("tar", "tar")];

/// Makes sure that programs are there.
///
/// # Errors
/// If some are missing and cannot be installed, with the command to type.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_root() || command::find_program("apt-get").is_none() {
        bail!("programs are missing; type: sudo apt-get install {packages}");
    }
    println!("   installing {packages}");
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--quiet"]);
        apt
    };
    // The lists of a fresh machine are empty, those of an old one name packages that are gone.
    command::output(apt().arg("update"))?;
    command::output(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    let still = self::missing(needs);
    if !still.is_empty() {
        bail!("apt-get installed {packages}, yet programs of {} are still missing", still.join(" "));
    }
    Ok(())
}

/// Loads the kernel's TUN driver if it is a module that nobody asked for yet. What fails here fails again, with a better
/// message, where the device is opened.
pub(crate) fn load_tun() {
    if !Path::new("/dev/net/tun").exists() && is_root() {
        let _ = command::output(Command::new("modprobe").arg("tun"));
    }
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter(|(program, _)| command::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether this is the machine's root, and not merely the root of a user namespace.
pub(crate) fn is_root() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    root && map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"]
}
