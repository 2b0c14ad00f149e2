//! WireGuard set up by hand, as its manual says: what the kernel plane is measured against.

use std::{net::Ipv6Addr, process::Command};

use anyhow::{Context, Result};

use crate::{Namespace, Unavailable, privileges::find_tool, run};

/// The interface's name at both ends.
const INTERFACE: &str = "bare";

/// UDP port at both ends.
const PORT: u16 = 51820;

/// Outer IPv6 and UDP headers, WireGuard's header and tag.
const OVERHEAD: u32 = 40 + 8 + 16 + 16;

/// A tunnel between two hosts that one cable joins, over its link-local addresses. Its interfaces are removed when
/// dropped.
#[derive(Debug)]
pub struct BareWireguard<'a> {
    ends: [&'a Namespace; 2],
}

impl<'a> BareWireguard<'a> {
    /// Inner addresses, in the order of the ends.
    pub const ADDRESSES: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfd62, 0x6172, 0x65, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd62, 0x6172, 0x65, 0, 0, 0, 0, 2)];

    /// Makes and keys an interface at each end. Each end is a host and its interface on the cable, of which `mtu` bytes
    /// are the largest IP packet.
    ///
    /// # Errors
    /// [`Unavailable`] where the kernel has no WireGuard or `wg` is not installed; if `ip` or `wg` fails.
    pub fn between(ends: [(&'a Namespace, &str); 2], mtu: u32) -> Result<Self> {
        if find_tool("wg").is_none() {
            return Err(Unavailable("`wg` is missing; as root: apt-get install wireguard-tools".into()).into());
        }
        let tunnel = Self { ends: ends.map(|(namespace, _)| namespace) };
        let private = [key(&["genkey"], None)?, key(&["genkey"], None)?];
        for (namespace, _) in ends {
            namespace.ip(&format!("link add {INTERFACE} mtu {} type wireguard", mtu - OVERHEAD)).map_err(|error| {
                let text = format!("{error:#}");
                let absent = text.contains("Unknown device type") || text.contains("not supported");
                if absent { Unavailable("this kernel has no WireGuard".into()).into() } else { error }
            })?;
        }
        for (side, (namespace, cable)) in ends.into_iter().enumerate() {
            let (other, far_cable) = ends[1 - side];
            let public = key(&["pubkey"], Some(&private[1 - side]))?;
            let (far, inner) = (other.link_local(far_cable)?, Self::ADDRESSES[1 - side]);
            let mut command = namespace.command("wg");
            command.args(["set", INTERFACE, "listen-port", &PORT.to_string(), "private-key", "/dev/stdin"]);
            command.args(["peer", &public, "endpoint", &format!("[{far}%{cable}]:{PORT}")]);
            run(command.args(["allowed-ips", &format!("{inner}/128")]), Some(&private[side]))?;
            namespace.ip(&format!("addr add {}/128 dev {INTERFACE} nodad", Self::ADDRESSES[side]))?;
            namespace.ip(&format!("link set {INTERFACE} up"))?;
            namespace.ip(&format!("route add {inner}/128 dev {INTERFACE}"))?;
        }
        Ok(tunnel)
    }

    /// Bytes that each end has sent through the tunnel, as the kernel counts them.
    ///
    /// # Errors
    /// If `wg` fails or says something else.
    pub fn sent(&self) -> Result<[u64; 2]> {
        let [a, b] = self.ends.map(|namespace| {
            let text = namespace.sh(&format!("wg show {INTERFACE} transfer"))?;
            text.split_whitespace().nth(2).and_then(|word| word.parse().ok()).with_context(|| format!("`{text}`"))
        });
        Ok([a?, b?])
    }
}

impl Drop for BareWireguard<'_> {
    fn drop(&mut self) {
        for namespace in self.ends {
            let _ = namespace.ip(&format!("link del {INTERFACE}"));
        }
    }
}

/// Runs `wg` for a key.
fn key(arguments: &[&str], input: Option<&str>) -> Result<String> {
    Ok(run(Command::new("wg").args(arguments), input)?.trim().to_owned())
}
