//! The text of the nftables table `inet grange`: a pure function of what is to be let through and translated.

use std::{
    fmt::{self, Write},
    net::Ipv4Addr,
};

use grange_mesh::quoted;
use grange_wire::Prefix;

/// The table's family and name. Nothing else of nftables is ever touched.
pub const TABLE: &str = "inet grange";

/// What the table is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Interfaces of the LAN.
    pub lan: Vec<String>,
    /// The interface that the town's IPv4 leaves by, if it is shared.
    pub uplink_v4: Option<String>,
    /// The interface that the town's IPv6 leaves by, if it is shared.
    pub uplink_v6: Option<String>,
    /// The node's IPv4 address.
    pub address_v4: Ipv4Addr,
    /// The node's IPv6 address.
    pub address_v6: std::net::Ipv6Addr,
    /// The node's /64.
    pub prefix: Prefix,
    /// Whether this machine forwards IPv4 for others than the mesh. If not, what the mesh does not need stays blocked
    /// as it was.
    pub forwards_v4: bool,
    /// Whether this machine forwards IPv6 for others than the mesh.
    pub forwards_v6: bool,
}

fn set<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| quoted(name)).collect();
    names.sort_unstable();
    names.dedup();
    format!("{{ {} }}", names.join(", "))
}

impl fmt::Display for Ruleset {
    /// The table alone, as [`grange_mesh::NftTable::apply`] takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {TABLE} {{")?;
        f.write_str("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n")?;
        f.write_str(&indented(&self.forward()))?;
        if self.is_open() {
            let hook = "type nat hook postrouting priority srcnat; policy accept;";
            writeln!(f, "\t}}\n\n\tchain postrouting {{\n\t\t{hook}")?;
            f.write_str(&indented(&self.postrouting()))?;
        }
        f.write_str("\t}\n}\n")
    }
}

fn indented(rules: &[String]) -> String {
    rules.iter().fold(String::new(), |mut text, rule| {
        let _ = writeln!(text, "\t\t{rule}");
        text
    })
}

/// Interfaces that packets come from the mesh by, and leave into it by: the TUN and, in the kernel plane, WireGuard's of
/// links and of seals.
const FROM_MESH: &str = "iifgroup { 7264, 7265 }";
const INTO_MESH: &str = "oifgroup { 7264, 7265 }";

/// Ports that UDP of LAN hosts leaves by: neither that of seals nor those that the kernel chooses for WireGuard, whose
/// packets go without a seal (by default Linux takes them from 32768 on, `net.ipv4.ip_local_port_range`).
const PORTS: &str = "10240-32767";

const NOTHING_ELSE: [&str; 2] = [
    "iifgroup { 7264, 7265 } reject with icmpx admin-prohibited",
    "oifgroup { 7264, 7265 } reject with icmpx admin-prohibited",
];

impl Ruleset {
    /// Interfaces that packets may be forwarded from once the table is in place, beside the mesh's.
    pub(crate) fn interfaces(&self) -> std::collections::BTreeSet<String> {
        self.lan.iter().chain(&self.uplink_v4).chain(&self.uplink_v6).cloned().collect()
    }

    /// Whether anything of the mesh's is forwarded but from neighbour to neighbour.
    fn is_open(&self) -> bool {
        !self.lan.is_empty() || self.uplink_v4.is_some() || self.uplink_v6.is_some()
    }

    /// Who may forward to whom. Only the mesh's own traffic is decided on: everything else passes to the machine's
    /// other tables, unless forwarding is on for our sake alone.
    fn forward(&self) -> Vec<String> {
        // The user-space plane does the same to what passes it.
        let clamp = format!("{INTO_MESH} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu");
        // What left a seal goes nowhere without one.
        let sealed = "iifgroup 7265 oifgroup { 7264, 7265 } reject with icmpx admin-prohibited".into();
        let mut rules = vec![clamp, sealed, format!("{FROM_MESH} {INTO_MESH} accept")];
        if self.is_open() {
            self.forward_others(&mut rules);
        } else {
            rules.extend(NOTHING_ELSE.map(Into::into));
        }
        if !self.forwards_v6 {
            rules.push("meta nfproto ipv6 drop".into());
        }
        rules
    }

    fn forward_others(&self, rules: &mut Vec<String>) {
        // What is not tracked is not translated either.
        rules.push(format!("{INTO_MESH} ct state invalid drop"));
        rules.push("ct state established,related accept".to_owned());
        if !self.lan.is_empty() {
            let (lan, prefix) = (set(&self.lan), self.prefix);
            // The LAN's IPv4, and its other IPv6, are known to nobody in the mesh: only answers go there.
            rules.push(format!("{FROM_MESH} oifname {lan} ip6 daddr {prefix} accept"));
            rules.push(format!("iifname {lan} {INTO_MESH} accept"));
        }
        for (uplink, family) in [(&self.uplink_v4, "ipv4"), (&self.uplink_v6, "ipv6")] {
            let Some(uplink) = uplink else { continue };
            let uplink = quoted(uplink);
            if family == "ipv6" {
                // A mesh prefix that nobody announces is no business of the provider's.
                rules.push(format!("{FROM_MESH} oifname {uplink} ip6 daddr fd00::/8 reject with icmpv6 no-route"));
            }
            rules.push(format!("{FROM_MESH} oifname {uplink} meta nfproto {family} accept"));
            if !self.lan.is_empty() {
                rules.push(format!("iifname {} oifname {uplink} meta nfproto {family} accept", set(&self.lan)));
            }
        }
        rules.extend(NOTHING_ELSE.map(Into::into));
        if !self.forwards_v4 {
            // IPv4 is forwarded by the interface that a packet came in by: these are the ones that were switched on.
            let ours = set(self.lan.iter().chain(&self.uplink_v4));
            if !self.lan.is_empty() || self.uplink_v4.is_some() {
                rules.push(format!("iifname {ours} meta nfproto ipv4 drop"));
            }
        }
    }

    /// Whose source address becomes which. Into the mesh: what is not the node's own becomes the node's, since nobody
    /// there knows a way back to it; what only passes stays as it is. Out of the uplink: the provider knows no mesh
    /// address.
    fn postrouting(&self) -> Vec<String> {
        let mut rules = Vec::new();
        let (v4, v6, prefix) = (self.address_v4, self.address_v6, self.prefix);
        rules.push(format!("{FROM_MESH} {INTO_MESH} accept"));
        let udp = "meta l4proto udp";
        rules.push(format!("{INTO_MESH} {udp} ip saddr != {{ 0.0.0.0, {v4} }} snat ip to {v4}:{PORTS}"));
        rules.push(format!("{INTO_MESH} {udp} ip6 saddr != {{ ::, fe80::/10, {prefix} }} snat ip6 to [{v6}]:{PORTS}"));
        rules.push(format!("{INTO_MESH} ip saddr != {{ 0.0.0.0, {v4} }} snat ip to {v4}"));
        rules.push(format!("{INTO_MESH} ip6 saddr != {{ ::, fe80::/10, {prefix} }} snat ip6 to {v6}"));
        for (uplink, what) in [(&self.uplink_v4, "meta nfproto ipv4"), (&self.uplink_v6, "ip6 saddr fd00::/8")] {
            // Hosts of the LAN with an IPv6 address of the provider's need no translation.
            let Some(uplink) = uplink else { continue };
            let uplink = quoted(uplink);
            rules.push(format!("{FROM_MESH} oifname {uplink} {what} masquerade"));
            if !self.lan.is_empty() {
                rules.push(format!("iifname {} oifname {uplink} {what} masquerade", set(&self.lan)));
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Ruleset {
        Ruleset {
            lan: vec!["br-lan".into()],
            uplink_v4: None,
            uplink_v6: None,
            address_v4: "100.70.1.2".parse().unwrap(),
            address_v6: "fd12:3456:789a:bcde:f012:3456:789a:bcde".parse().unwrap(),
            prefix: "fd12:3456:789a:bcde::/64".parse().unwrap(),
            forwards_v4: true,
            forwards_v6: true,
        }
    }

    fn gateway() -> Ruleset {
        Ruleset {
            uplink_v4: Some("eth0".into()),
            uplink_v6: Some("eth0".into()),
            forwards_v4: false,
            forwards_v6: false,
            ..member()
        }
    }

    #[test]
    fn a_members_table() {
        let golden = include_str!("../tests/golden/member.nft");
        assert_eq!(member().to_string(), golden);
    }

    #[test]
    fn a_gateways_table() {
        let golden = include_str!("../tests/golden/gateway.nft");
        assert_eq!(gateway().to_string(), golden);
    }

    #[test]
    fn one_family_alone_opens_only_that_family() {
        let text = Ruleset { uplink_v6: None, lan: Vec::new(), ..gateway() }.to_string();
        assert!(text.contains("meta nfproto ipv4 masquerade"));
        assert!(!text.contains("fd00::/8 masquerade"));
        assert!(!text.contains("nfproto ipv6 accept"));
        assert!(!text.contains("{ }") && !text.contains("{  }"), "no empty set");
    }

    #[test]
    fn what_only_passes_is_neither_tracked_nor_translated() {
        let passing = |forwards_v6| Ruleset { lan: Vec::new(), forwards_v6, ..member() }.to_string();
        for text in [passing(true), passing(false)] {
            let accepts: Vec<_> = text.lines().filter(|line| line.ends_with(" accept")).collect();
            assert_eq!(accepts, ["\t\tiifgroup { 7264, 7265 } oifgroup { 7264, 7265 } accept"]);
            assert!(!text.contains("ct state") && !text.contains("nat"), "{text}");
            assert!(
                text.contains("\tiifgroup { 7264, 7265 } reject") && text.contains("\toifgroup { 7264, 7265 } reject")
            );
        }
        assert!(passing(false).contains("ipv6 drop") && !passing(true).contains("drop"));
        let groups = format!("iifgroup {{ {}, {} }}", grange_mesh::GROUP, grange_mesh::SEAL_GROUP);
        assert!(passing(true).contains(&groups));
    }

    #[test]
    fn a_hostile_name_does_not_break_out_of_its_quotes() {
        for name in ["a\"; accept #", "a\\", "*", "", "x$y", "ab\ncd", "0123456789abcdef"] {
            let text = Ruleset { lan: vec![name.into()], ..member() }.to_string();
            assert_eq!(text, Ruleset { lan: vec!["-".into()], ..member() }.to_string(), "{name:?}");
        }
    }
}
