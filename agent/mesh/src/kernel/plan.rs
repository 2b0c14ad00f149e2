//! What of ours is in the kernel and what should be, as values; the difference is what there is to do.

use std::collections::BTreeSet;

use grange_wire::{MESH_V6, Prefix};
use serde::{Deserialize, Serialize};

/// The routing protocol number that marks our routes and rules (`rtm_protocol`, `FRA_PROTOCOL`): assigned to nobody in
/// iproute2's `rt_protos`.
pub(crate) const PROTOCOL: u8 = 72;

/// Priority of the rule that lets what the machine's owner has routed, except by default, come first.
pub(crate) const PRIORITY_MAIN: u32 = 7263;

/// Priority of the rule that looks for mesh prefixes.
pub(crate) const PRIORITY_PREFIXES: u32 = 7264;

/// The kernel's main table (`RT_TABLE_MAIN`).
const TABLE_MAIN: u32 = 254;

/// Priority of the rule that takes the mesh's default routes: behind the main table (32766) and `default` (32767).
pub(crate) const PRIORITY_DEFAULTS: u32 = 37264;

/// Metric of the routes that answer for what is not there: behind any other.
pub(crate) const METRIC_UNREACHABLE: u32 = 4_278_198_272;

/// Metric of routes over the TUN.
pub(crate) const METRIC_MESH: u32 = 1024;

/// A rule of ours: packets without our mark look into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Whether it is an IPv6 rule.
    pub v6: bool,
    /// Where it stands among the rules.
    pub priority: u32,
    /// The mark of packets that it does not apply to.
    pub except_mark: u32,
    /// The table.
    pub table: u32,
    /// Whether the table's default routes are passed over.
    pub suppress_default: bool,
}

/// The rules for a mark and a table.
///
/// The first leaves the machine's own networks alone; the second puts mesh prefixes, and that the rest of the mesh is
/// unreachable, before main's default routes; the third takes the mesh's default routes where main has none. Marked
/// packets, which are the underlay's own, see none of them: else links would run through the mesh they make.
pub(crate) fn rules(mark: u32, table: u32) -> BTreeSet<Rule> {
    let rule =
        |v6, priority, table, suppress_default| Rule { v6, priority, except_mark: mark, table, suppress_default };
    [false, true]
        .into_iter()
        .flat_map(|v6| {
            [
                rule(v6, PRIORITY_MAIN, TABLE_MAIN, true),
                rule(v6, PRIORITY_PREFIXES, table, true),
                rule(v6, PRIORITY_DEFAULTS, table, false),
            ]
        })
        .collect()
}

/// Where a route of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Into the interface with this index.
    Interface(u32),
    /// Nowhere: the kernel answers that it is unreachable.
    Unreachable,
}

/// A route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    /// Destination.
    pub prefix: Prefix,
    /// The table that it is in.
    pub table: u32,
    /// Where it leads.
    pub way: Way,
}

impl Route {
    /// Its metric (`RTA_PRIORITY`).
    pub(crate) fn metric(&self) -> u32 {
        match self.way {
            Way::Interface(_) => METRIC_MESH,
            Way::Unreachable => METRIC_UNREACHABLE,
        }
    }
}

/// An address of ours on an interface that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LanAddress {
    /// The interface's name: it outlives the index when a bridge is made anew.
    pub interface: String,
    /// The address.
    pub address: std::net::Ipv6Addr,
    /// Prefix length.
    pub len: u8,
}

/// What is to be taken away and what to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference<T> {
    /// There but not wanted.
    pub remove: Vec<T>,
    /// Wanted but not there.
    pub add: Vec<T>,
}

impl<T: Ord + Clone> Difference<T> {
    /// What leads from `present` to `wanted`. `keep` spares what is there and not wanted, yet may be soon.
    pub(crate) fn between(present: &BTreeSet<T>, wanted: &BTreeSet<T>, keep: impl Fn(&T) -> bool) -> Self {
        Self {
            remove: present.difference(wanted).filter(|item| !keep(item)).cloned().collect(),
            add: wanted.difference(present).cloned().collect(),
        }
    }
}

/// The routes that the mesh wants: each prefix into the TUN, and an answer for the own /64 where no LAN has it.
///
/// Beneath them, the rest of `fd00::/8` is unreachable: packets for a node that is gone shall not leave by the machine's
/// default route (RFC 8966, section 2.8). Not so 100.64.0.0/10, where a provider's own servers may be.
pub(crate) fn routes(prefixes: &BTreeSet<Prefix>, own: Prefix, has_lan: bool, tun: u32, table: u32) -> BTreeSet<Route> {
    let mut routes: BTreeSet<Route> =
        prefixes.iter().map(|prefix| Route { prefix: *prefix, table, way: Way::Interface(tun) }).collect();
    routes.insert(Route { prefix: MESH_V6, table, way: Way::Unreachable });
    if !has_lan {
        routes.insert(Route { prefix: own, table, way: Way::Unreachable });
    }
    routes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_families_have_rules_before_and_behind_main() {
        let rules = rules(5, 6);
        for v6 in [false, true] {
            let of: Vec<_> = rules.iter().filter(|rule| rule.v6 == v6).collect();
            assert_eq!(of.len(), 3);
            assert!(of.iter().all(|rule| rule.except_mark == 5));
            assert!(of.iter().all(|rule| rule.table == if rule.priority == PRIORITY_MAIN { TABLE_MAIN } else { 6 }));
            assert!(of.iter().all(|rule| rule.suppress_default == (rule.priority < 32_766)));
        }
    }

    #[test]
    fn the_own_prefix_is_answered_for_only_without_a_lan() {
        let own: Prefix = "fd01::/64".parse().unwrap();
        let far: Prefix = "fd02::/64".parse().unwrap();
        let with = routes(&[far].into(), own, true, 3, 9);
        let rest = Route { prefix: MESH_V6, table: 9, way: Way::Unreachable };
        assert_eq!(with, [Route { prefix: far, table: 9, way: Way::Interface(3) }, rest].into());
        let without = routes(&[far].into(), own, false, 3, 9);
        assert!(without.contains(&Route { prefix: own, table: 9, way: Way::Unreachable }));
        assert_eq!(without.len(), 3);
    }

    proptest! {
        #[test]
        fn applying_a_difference_gives_what_is_wanted(
            present: BTreeSet<u8>,
            wanted: BTreeSet<u8>,
            spare: BTreeSet<u8>,
        ) {
            let difference = Difference::between(&present, &wanted, |item| spare.contains(item));
            let mut after = present.clone();
            for item in &difference.remove {
                prop_assert!(after.remove(item), "removes only what is there");
            }
            for item in &difference.add {
                prop_assert!(after.insert(*item), "adds only what is missing");
            }
            let spared: BTreeSet<u8> = present.intersection(&spare).copied().collect();
            let expected: BTreeSet<u8> = wanted.union(&spared).copied().collect();
            prop_assert_eq!(after, expected);
        }
    }
}
