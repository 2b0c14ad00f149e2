//! The text of the nftables table `inet grange_mesh`: what may come out of the mesh and go into it, whatever else this
//! machine's firewall says. A pure function of what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use grange_wire::{MESH_V4, MESH_V6, NodeId, Prefix, SEAL_PORT};

use super::plan::{GROUP, SEAL_GROUP, SEAL_MARK};
use crate::nft::quoted;

/// The table's family and name.
pub(crate) const TABLE: &str = "inet grange_mesh";

const REJECT: &str = "reject with icmpx admin-prohibited";

/// What the table is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// This node.
    pub own: NodeId,
    /// Name of the TUN.
    pub tun: String,
    /// Whether what comes from nodes that are no neighbours has to come by a seal.
    pub seals: bool,
    /// Whether packets leave the mesh here for other machines, and enter it from them.
    pub open: bool,
    /// Default routes that leave the mesh here.
    pub exits: BTreeSet<Prefix>,
    /// Networks of this machine's LANs.
    pub lans: BTreeSet<Prefix>,
    /// Who is at the other end of which link's WireGuard interface.
    pub near: BTreeMap<String, NodeId>,
    /// Who is at the other end of the seal whose WireGuard interface listens on which port.
    pub sealed: BTreeMap<u16, NodeId>,
}

/// Lines of a chain.
struct Chain {
    text: String,
}

impl Chain {
    fn new(name: &str) -> Self {
        Self { text: format!("\tchain {name} {{\n") }
    }

    fn hook(name: &str, hook: &str, priority: &str) -> Self {
        let mut chain = Self::new(name);
        chain.rule(format_args!("type filter hook {hook} priority {priority}; policy accept;"));
        chain
    }

    fn rule(&mut self, rule: impl fmt::Display) {
        let _ = writeln!(self.text, "\t\t{rule}");
    }

    fn rules<const N: usize>(&mut self, rules: [String; N]) {
        rules.into_iter().for_each(|rule| self.rule(rule));
    }

    fn end(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\t}}", self.text)
    }
}

fn set<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

/// The interfaces of the mesh, links' and seals'.
fn mesh() -> String {
    set([GROUP, SEAL_GROUP])
}

impl fmt::Display for Fence {
    /// The table alone, as [`crate::nft::NftTable::apply`] takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {TABLE} {{")?;
        self.prerouting().end(f)?;
        for (name, node) in self.near.iter().filter(|_| self.seals) {
            let mut near = Chain::new(&format!("near_{name}"));
            let [v6, v4] = addresses(node);
            near.rules([format!("ip6 saddr {v6} accept"), format!("ip saddr {v4} accept")]);
            near.end(f)?;
        }
        self.leaves().end(f)?;
        if !self.sealed.is_empty() {
            self.outer().end(f)?;
        }
        self.input().end(f)?;
        self.forward().end(f)?;
        if self.open {
            self.postrouting().end(f)?;
        }
        f.write_str("}\n")
    }
}

/// The /64 and the IPv4 address of a node.
fn addresses(node: &NodeId) -> [String; 2] {
    [grange_wire::lan_prefix(node).to_string(), grange_wire::node_address_v4(node).to_string()]
}

impl Fence {
    /// Without any interface but the TUN, and nothing that leaves the mesh.
    pub(crate) fn closed(own: NodeId, tun: &str, seals: bool) -> Self {
        Self {
            own,
            tun: tun.into(),
            seals,
            open: false,
            exits: BTreeSet::new(),
            lans: BTreeSet::new(),
            near: BTreeMap::new(),
            sealed: BTreeMap::new(),
        }
    }

    /// What the neighbours may not send here at all, and what is nobody's to track: it only passes.
    fn prerouting(&self) -> Chain {
        let mut chain = Chain::hook("prerouting", "prerouting", "raw");
        chain.rule(format_args!("iifgroup != {} accept", mesh()));
        for (family, v4) in [("ip", true), ("ip6", false)] {
            let lans: Vec<_> = self.lans.iter().filter(|lan| lan.is_v4() == v4).collect();
            if !lans.is_empty() {
                chain.rule(format_args!("{family} saddr {} drop", set(lans)));
            }
        }
        let [own6, own4] = addresses(&self.own);
        chain.rules([
            // What comes from these ends here, or never goes back into the mesh.
            format!("iifgroup {SEAL_GROUP} accept"),
            format!("iifname {} accept", quoted(&self.tun)),
            format!("ip6 daddr {own6} accept"),
            format!("ip daddr {own4} accept"),
        ]);
        for (exit, family, mesh) in [(Prefix::DEFAULT_V6, "ip6", MESH_V6), (Prefix::DEFAULT_V4, "ip", MESH_V4)] {
            if self.exits.contains(&exit) {
                chain.rule(format_args!("{family} daddr != {mesh} accept"));
            }
        }
        chain.rule("notrack");
        chain
    }

    /// For what came from the mesh and leaves it here: whether it came from whom it says.
    fn leaves(&self) -> Chain {
        let mut chain = Chain::new("leaves");
        if !self.seals {
            return chain;
        }
        // WireGuard binds what a seal carries to its peer; the user-space plane has checked what comes out of the TUN.
        chain.rules([
            format!("iifgroup {SEAL_GROUP} accept"),
            format!("iifname {} accept", quoted(&self.tun)),
            format!("ip6 saddr != {MESH_V6} accept"),
            format!("ip saddr != {MESH_V4} accept"),
            // Nodes on the way speak by it, and those that are traced.
            "meta l4proto { icmp, ipv6-icmp } accept".into(),
        ]);
        if !self.near.is_empty() {
            let jumps = self.near.keys().map(|name| format!("{} : jump near_{name}", quoted(name)));
            chain.rule(format_args!("iifname vmap {}", set(jumps)));
        }
        let own = grange_wire::node_address(&self.own);
        chain.rule(format_args!("ip6 daddr {own} udp sport {SEAL_PORT} udp dport {SEAL_PORT} accept"));
        if !self.sealed.is_empty() {
            chain.rule(format_args!("ip6 daddr {own} udp dport {} accept", set(self.sealed.keys())));
        }
        // The rest of what began with one of these: without its first fragment it is nothing.
        chain.rules(["frag frag-off != 0 accept".into(), "drop".into()]);
        chain
    }

    /// Outer packets of seals' WireGuard interfaces come from the peer's address, so that no seal ever leaves the mesh.
    fn outer(&self) -> Chain {
        let mut chain = Chain::new("outer");
        let own = grange_wire::node_address(&self.own);
        let who = self.sealed.iter().map(|(port, node)| format!("{port} . {}", grange_wire::node_address(node)));
        chain.rules([
            format!("iifgroup {GROUP} ip6 daddr {own} udp dport . ip6 saddr {} return", set(who)),
            "drop".into(),
        ]);
        chain
    }

    /// Only the node's own addresses are reached from the mesh, whatever others this machine has.
    fn input(&self) -> Chain {
        let mut chain = Chain::hook("input", "input", "filter - 10");
        if !self.sealed.is_empty() {
            chain.rule(format_args!("udp dport {} jump outer", set(self.sealed.keys())));
        }
        chain.rule(format_args!("iifgroup != {} accept", mesh()));
        let [own6, own4] = addresses(&self.own);
        chain.rules([format!("ip6 daddr {own6} goto leaves"), format!("ip daddr {own4} goto leaves")]);
        if self.open {
            // Answers to this machine's other addresses, which were translated on the way into the mesh.
            let own = grange_wire::node_address(&self.own);
            chain.rules([
                format!("ct direction reply ct reply ip6 daddr {own} goto leaves"),
                format!("ct direction reply ct reply ip daddr {own4} goto leaves"),
            ]);
        }
        chain.rule("drop");
        chain
    }

    /// From link to link, and nothing else within the mesh: what left a seal, or the user-space plane, never goes on
    /// without one.
    fn forward(&self) -> Chain {
        let mut chain = Chain::hook("forward", "forward", "filter - 10");
        chain.rules([
            format!("iifgroup {} oifgroup {SEAL_GROUP} {REJECT}", mesh()),
            format!("iifgroup {SEAL_GROUP} oifgroup {GROUP} {REJECT}"),
            format!("iifname {} oifgroup {GROUP} {REJECT}", quoted(&self.tun)),
            format!("iifgroup {GROUP} oifgroup {GROUP} accept"),
        ]);
        if self.open {
            chain.rules([
                format!("oifgroup {} ct state invalid drop", mesh()),
                // Nodes speak to each other there.
                format!("oifgroup {} ip6 daddr {MESH_V6} udp dport {SEAL_PORT} drop", mesh()),
                format!("iifgroup {} goto leaves", mesh()),
            ]);
        } else {
            chain.rules([format!("iifgroup {} {REJECT}", mesh()), format!("oifgroup {} {REJECT}", mesh())]);
        }
        chain
    }

    /// What other machines send into the mesh has this node's addresses by now, unless it answers.
    fn postrouting(&self) -> Chain {
        let mut chain = Chain::hook("postrouting", "postrouting", "srcnat + 10");
        let [own6, own4] = addresses(&self.own);
        let own = grange_wire::node_address(&self.own);
        let ports = set(std::iter::once(&SEAL_PORT).chain(self.sealed.keys()));
        let others = format!("iifgroup != {}", mesh());
        chain.rules([
            format!("oifgroup != {} accept", mesh()),
            // These ports' packets go without a seal, since they make one.
            format!("ip6 saddr {own} udp sport {ports} meta mark != {SEAL_MARK} drop"),
            format!("{others} ct state established,related ct direction reply accept"),
            format!("{others} ip6 saddr != {own6} drop"),
            format!("{others} ip saddr != {own4} drop"),
        ]);
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn gateway() -> Fence {
        Fence {
            own: node(1),
            tun: "grange0".into(),
            seals: true,
            open: true,
            exits: [Prefix::DEFAULT_V4].into(),
            lans: ["192.168.7.0/24", "2001:db8::/64"].map(|text| text.parse().unwrap()).into(),
            near: [("grange1".into(), node(2)), ("grange3".into(), node(3))].into(),
            sealed: [(40_001, node(4)), (40_002, node(5))].into(),
        }
    }

    /// Neither a LAN nor an uplink, and one neighbour.
    fn passing() -> Fence {
        Fence {
            open: false,
            exits: BTreeSet::new(),
            lans: BTreeSet::new(),
            near: [("grange1".into(), node(2))].into(),
            sealed: BTreeMap::new(),
            ..gateway()
        }
    }

    #[test]
    fn a_gateways_fence() {
        assert_eq!(gateway().to_string(), include_str!("../../tests/golden/fence_gateway.nft"));
    }

    #[test]
    fn the_fence_of_a_node_that_only_forwards() {
        assert_eq!(passing().to_string(), include_str!("../../tests/golden/fence_passing.nft"));
    }

    #[test]
    fn without_seals_every_source_is_taken_and_the_rest_stays_fenced() {
        let text = Fence { seals: false, ..gateway() }.to_string();
        assert!(!text.contains("near_") && text.contains("chain leaves {\n\t}"), "{text}");
        for rule in ["ip saddr { 192.168.7.0/24 } drop", "iifgroup 7265 oifgroup 7264 reject", "jump outer"] {
            assert!(text.contains(rule), "{rule}");
        }
    }

    #[test]
    fn no_set_is_empty() {
        for fence in [gateway(), passing(), Fence { near: BTreeMap::new(), ..passing() }] {
            assert!(!fence.to_string().contains("{  }"));
        }
    }

    #[test]
    fn only_where_packets_leave_anything_is_tracked() {
        assert!(!passing().to_string().contains("\tct ") && !passing().to_string().contains(" ct "));
        let text = gateway().to_string();
        // Of IPv6 there is no exit: all that is not for this node only passes.
        assert!(text.contains("ip daddr != 100.64.0.0/10 accept") && !text.contains("ip6 daddr != fd00::/8 accept"));
    }
}
