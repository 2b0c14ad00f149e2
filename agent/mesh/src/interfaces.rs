//! What each interface is used for, and what the node is to know of it.

use std::collections::{BTreeMap, BTreeSet};

use grange_core::IfaceState;
use grange_wire::{MESH_V4, MESH_V6, Prefix};

use crate::{
    config::{InterfaceChoice, InterfaceFacts, Role, Selector},
    kernel::{
        monitor::{Interface, Interfaces},
        sysctl::Forwarding,
    },
    snapshot::InterfaceStatus,
};

/// What is to be told to the node and the socket about one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The kernel's index.
    pub index: u32,
    /// For the node; none: it is gone or not used for links any more.
    pub state: Option<IfaceState>,
    /// It has become usable: the beacon group is to be joined (anew: the kernel forgets memberships of interfaces that
    /// lose IPv6).
    pub join: bool,
}

/// An interface that the selector was asked about.
struct Known {
    facts: InterfaceFacts,
    choice: InterfaceChoice,
    told: Option<IfaceState>,
}

/// Most networks of LANs that are told.
const MAX_NETWORKS: usize = 64;

/// All interfaces but loopback and the TUN. Plain state: what the kernel reports comes in, changes come out.
pub(crate) struct Table {
    selector: Selector,
    tun: u32,
    known: BTreeMap<u32, Known>,
    reports: Interfaces,
}

impl Table {
    /// An empty table; `tun` is the index of the TUN, which is never chosen.
    pub(crate) fn new(selector: Selector, tun: u32) -> Self {
        Self { selector, tun, known: BTreeMap::new(), reports: Interfaces::new() }
    }

    /// Takes the kernel's report and gives what follows for links from it.
    pub(crate) fn update(&mut self, mut reports: Interfaces) -> Vec<Change> {
        reports.retain(|index, report| *index != self.tun && !report.loopback && !report.ours);
        let mut changes = Vec::new();
        self.known.retain(|index, known| {
            if !reports.contains_key(index) && known.told.is_some() {
                changes.push(Change { index: *index, state: None, join: false });
            }
            reports.contains_key(index)
        });
        for (index, report) in &reports {
            let facts = InterfaceFacts {
                name: report.name.clone(),
                index: *index,
                default_route: report.default_v4 || report.default_v6,
                enslaved: report.enslaved,
            };
            let known = self.known.entry(*index);
            let known = match known {
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let known = entry.into_mut();
                    if known.facts != facts {
                        known.choice = (self.selector)(&facts);
                        known.facts = facts;
                    }
                    known
                }
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let choice = (self.selector)(&facts);
                    entry.insert(Known { facts, choice, told: None })
                }
            };
            let state = state(&known.choice, report);
            if state != known.told {
                let was_up = known.told.is_some_and(|told| told.up);
                let join = state.is_some_and(|state| state.up) && !was_up;
                known.told = state;
                changes.push(Change { index: *index, state, join });
            }
        }
        self.reports = reports;
        changes
    }

    /// The name of an interface.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.reports.get(&index).map(|report| report.name.as_str())
    }

    /// The interface that gets this node's /64: a node has one, so it is the first LAN interface that is switched on.
    pub(crate) fn lan(&self) -> Option<(u32, String)> {
        let mut lans = self.of_role(Role::Lan).filter(|(_, report)| report.enabled);
        lans.next().map(|(index, report)| (index, report.name.clone()))
    }

    /// The networks of all LANs, but those that lie in the mesh's own ranges or are all there is.
    pub(crate) fn lan_networks(&self) -> BTreeSet<Prefix> {
        let addresses = self.of_role(Role::Lan).flat_map(|(_, report)| &report.addresses);
        let networks = addresses.map(|(address, len)| Prefix::new_truncating(*address, *len));
        let outside = |network: &Prefix| ![MESH_V4, MESH_V6].iter().any(|mesh| overlap(mesh, network));
        networks.filter(outside).take(MAX_NETWORKS).collect()
    }

    /// What has to be forwarded for hosts of the LAN, for the town if `shared`, and from neighbour to neighbour if the
    /// kernel does that (`passing`); none if it is for nobody.
    pub(crate) fn forwarding(&self, tun: &str, shared: bool, passing: bool) -> Option<Forwarding> {
        let mut from: BTreeSet<String> = self.of_role(Role::Lan).map(|(_, report)| report.name.clone()).collect();
        if from.is_empty() && !shared && !passing {
            return None;
        }
        // The configuration may give an interface with a default route another role; it leads to a provider all the same.
        let routed = self.reports.values().filter(|report| report.default_v4 || report.default_v6);
        let uplinks = self.of_role(Role::Uplink).map(|(_, report)| report).chain(routed);
        let hear: BTreeSet<String> = uplinks.map(|report| report.name.clone()).collect();
        from.insert(tun.into());
        if shared {
            from.extend(hear.iter().cloned());
        }
        Some(Forwarding { from, hear })
    }

    /// Interfaces with a cable on which links may form and neighbours may be looked for by mDNS.
    pub(crate) fn wired(&self) -> impl Iterator<Item = &str> {
        let chosen = self.known.iter().filter(|(_, known)| {
            matches!(known.choice.role, Role::Mesh | Role::Lan)
                && known.choice.links
                && known.choice.kind == grange_core::IfaceKind::Wired
        });
        chosen
            .filter_map(|(index, _)| self.reports.get(index))
            .filter(|report| report.up)
            .map(|report| report.name.as_str())
    }

    /// For display, by name.
    pub(crate) fn status(&self) -> Vec<InterfaceStatus> {
        let mut all: Vec<InterfaceStatus> = self
            .known
            .iter()
            .filter_map(|(index, known)| self.reports.get(index).map(|report| (*index, known, report)))
            .map(|(index, known, report)| InterfaceStatus {
                name: report.name.clone(),
                index,
                kind: known.choice.kind,
                up: report.up,
                mtu: report.mtu,
                default_v4: report.default_v4,
                default_v6: report.default_v6,
                role: known.choice.role,
                links: known.choice.links,
                why: known.choice.why.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (u32, &Interface)> {
        let chosen = self.known.iter().filter(move |(_, known)| known.choice.role == role);
        chosen.filter_map(|(index, _)| self.reports.get(index).map(|report| (*index, report)))
    }
}

fn overlap(a: &Prefix, b: &Prefix) -> bool {
    a.contains(b.addr()) || b.contains(a.addr())
}

fn state(choice: &InterfaceChoice, report: &Interface) -> Option<IfaceState> {
    let state = || IfaceState {
        kind: choice.kind,
        mtu: u16::try_from(report.mtu).unwrap_or(u16::MAX),
        up: report.usable(),
        beacons: report.multicast,
    };
    (choice.links && choice.role != Role::Unused).then(state)
}

#[cfg(test)]
mod tests {
    use grange_core::IfaceKind;

    use super::*;

    fn report(name: &str, up: bool) -> Interface {
        Interface {
            name: name.into(),
            enabled: true,
            up,
            mtu: 1500,
            multicast: true,
            link_local: ["fe80::1".parse().unwrap()].into(),
            ..Interface::default()
        }
    }

    /// The uplink is what has a default route; `lan*` are LANs; the rest carries links.
    fn table() -> Table {
        let selector: Selector = Box::new(|facts| {
            let role = match facts {
                facts if facts.default_route => Role::Uplink,
                facts if facts.name.starts_with("lan") => Role::Lan,
                _ => Role::Mesh,
            };
            InterfaceChoice { role, links: role == Role::Mesh, kind: IfaceKind::Wired, why: String::new() }
        });
        Table::new(selector, 99)
    }

    #[test]
    fn carrier_changes_reach_the_node_and_joins_follow_them() {
        let mut table = table();
        let up = table.update([(4, report("eth0", true))].into());
        assert_eq!(up.len(), 1);
        assert!(up[0].join && up[0].state.unwrap().up);
        assert!(table.update([(4, report("eth0", true))].into()).is_empty(), "nothing new");
        let down = table.update([(4, report("eth0", false))].into());
        assert!(!down[0].join && !down[0].state.unwrap().up);
        let again = table.update([(4, report("eth0", true))].into());
        assert!(again[0].join);
        let mut jumbo = report("eth0", true);
        jumbo.mtu = 70_000;
        let change = table.update([(4, jumbo)].into());
        assert_eq!(change[0].state.unwrap().mtu, u16::MAX);
        assert!(!change[0].join, "it was up all the time");
        assert_eq!(table.update(Interfaces::new()), [Change { index: 4, state: None, join: false }]);
        assert!(table.status().is_empty());
    }

    #[test]
    fn loopback_and_what_is_ours_are_nobodys_choice() {
        let mut table = table();
        let mut lo = report("lo", true);
        lo.loopback = true;
        let mut ours = report("grange1", true);
        ours.ours = true;
        assert!(table.update([(1, lo), (99, report("grange0", true)), (5, ours)].into()).is_empty());
        assert!(table.status().is_empty());
    }

    #[test]
    fn an_interface_that_gets_a_default_route_becomes_the_uplink() {
        let mut table = table();
        table.update([(4, report("eth0", true)), (5, report("lan0", true))].into());
        assert_eq!(table.lan(), Some((5, "lan0".into())));
        assert_eq!(table.forwarding("grange0", true, false).unwrap().from, ["grange0".into(), "lan0".into()].into());
        let mut with_route = report("eth0", true);
        with_route.default_v6 = true;
        let changes = table.update([(4, with_route), (5, report("lan0", true))].into());
        assert_eq!(changes, [Change { index: 4, state: None, join: false }]);
        let forwarding = table.forwarding("grange0", true, false).unwrap();
        assert_eq!(forwarding.from, ["eth0".into(), "grange0".into(), "lan0".into()].into());
        assert_eq!(forwarding.hear, ["eth0".into()].into());
        let mut off = report("lan0", false);
        off.enabled = false;
        table.update([(5, off)].into());
        assert_eq!(table.lan(), None);
    }

    #[test]
    fn networks_of_lans_are_known_but_the_meshs_own() {
        let mut table = table();
        let mut lan = report("lan0", true);
        let addresses =
            [("192.168.7.1", 24), ("2001:db8::1", 64), ("fd12::1", 64), ("100.64.3.4", 10), ("10.1.2.3", 0)];
        lan.addresses = addresses.map(|(address, len)| (address.parse().unwrap(), len)).into();
        let mut other = report("eth0", true);
        other.addresses = [("203.0.113.2".parse().unwrap(), 24)].into();
        table.update([(4, other), (5, lan)].into());
        let networks: Vec<String> = table.lan_networks().iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["192.168.7.0/24", "2001:db8::/64"]);
    }

    #[test]
    fn nothing_is_forwarded_without_a_lan_or_a_shared_uplink() {
        let mut table = table();
        table.update([(4, report("eth0", true))].into());
        assert_eq!(table.forwarding("grange0", false, false), None);
        assert!(table.forwarding("grange0", true, false).is_some());
        assert_eq!(table.forwarding("grange0", false, true).unwrap().from, ["grange0".into()].into());
    }
}
