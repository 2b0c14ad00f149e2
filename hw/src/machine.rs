//! The machine as a whole.

use std::path::Path;

use crate::{Board, DefaultRoutes, Interface, Os, interface, root::Root, uci};

/// What this machine is, at the moment of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The board.
    pub board: Board,
    /// The kernel's architecture as `uname -m` says it, such as `mips`, `aarch64`, `x86_64`.
    pub arch: String,
    /// Processors that are on line; 0 if unknown.
    pub cpus: u32,
    /// Memory that the kernel manages, in bytes; 0 if unknown.
    pub memory_bytes: u64,
    /// The operating system.
    pub os: Os,
    /// Network interfaces, by index.
    pub interfaces: Vec<Interface>,
    /// Ways to the Internet.
    pub default_routes: DefaultRoutes,
    /// Interfaces that carry PPPoE sessions (`/proc/net/pppoe`), as a DSL or fibre modem's port does.
    pub pppoe_carriers: Vec<String>,
    /// What OpenWrt's network configuration calls `wan` or `wan6`, connected or not.
    pub wan_devices: Vec<String>,
}

impl Machine {
    /// Reads the machine whose `/sys`, `/proc`, `/etc` and `/tmp` lie under `root`; `/` is this one.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let root = Root(root);
        Self {
            board: Board::read(&root),
            arch: root.line("proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: cpus(&root),
            memory_bytes: memory_bytes(&root),
            os: Os::read(&root),
            interfaces: interface::read_all(&root),
            default_routes: DefaultRoutes::read(&root),
            pppoe_carriers: pppoe_carriers(&root),
            wan_devices: wan_devices(&root),
        }
    }

    /// The interface of this name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|iface| iface.name == name)
    }
}

/// Counts the processors in a list such as `0-3,8`.
fn cpus(root: &Root<'_>) -> u32 {
    let list = root.line("sys/devices/system/cpu/online").unwrap_or_default();
    let count = list.split(',').try_fold(0u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    });
    count.unwrap_or_else(|| {
        let text = root.read("proc/cpuinfo", 1 << 20).unwrap_or_default();
        let processors = text.lines().filter(|line| line.starts_with("processor") && line.contains(':')).count();
        u32::try_from(processors).unwrap_or(0)
    })
}

fn memory_bytes(root: &Root<'_>) -> u64 {
    let text = root.read("proc/meminfo", 16384).unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.and_then(|kib| kib.checked_mul(1024)).unwrap_or(0)
}

/// The last column of `/proc/net/pppoe`: session, Ethernet address, device.
fn pppoe_carriers(root: &Root<'_>) -> Vec<String> {
    let text = root.read("proc/net/pppoe", 1 << 16).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

/// The `device` (`ifname` before OpenWrt 21.02) of the interfaces `wan` and `wan6` in `/etc/config/network`.
fn wan_devices(root: &Root<'_>) -> Vec<String> {
    let text = root.read("etc/config/network", uci::MAX_FILE).unwrap_or_default();
    let mut devices: Vec<String> = uci::sections(&text)
        .filter(|section| section.kind == "interface" && matches!(section.name, "wan" | "wan6"))
        .filter_map(|section| section.get("device").or_else(|| section.get("ifname")))
        .filter(|device| !device.starts_with('@'))
        .map(str::to_owned)
        .collect();
    devices.sort();
    devices.dedup();
    devices
}
