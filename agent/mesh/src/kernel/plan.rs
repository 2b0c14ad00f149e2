//! What of ours is in the kernel and what should be, as values; the difference is what there is to do.

use std::collections::{BTreeMap, BTreeSet};

use grange_core::LinkId;
use grange_wire::{MESH_V4, MESH_V6, Prefix};
use serde::{Deserialize, Serialize};

/// The routing protocol number that marks our routes and rules (`rtm_protocol`, `FRA_PROTOCOL`): assigned to nobody in
/// iproute2's `rt_protos`.
pub(crate) const PROTOCOL: u8 = 72;

/// Mark of the packets of seals, control and WireGuard's alike: they follow the links and are never sealed themselves.
pub(crate) const SEAL_MARK: u32 = 7265;

/// Interface group (`IFLA_GROUP`) of the TUN and of links' WireGuard interfaces, by which nftables knows all of them,
/// and we know those of an earlier run.
pub const GROUP: u32 = 7264;

/// Interface group of seals' WireGuard interfaces: what comes out of them has left its seal.
pub const SEAL_GROUP: u32 = 7265;

/// Priority of the rules for what came in from the mesh, and for seals' own packets.
pub(crate) const PRIORITY_PASSING: u32 = 7262;

/// Priority of the rule that takes the mesh's default routes for what came in from the mesh: behind what the machine's
/// owner has routed, before the default routes of `main`.
pub(crate) const PRIORITY_PASSING_DEFAULTS: u32 = 7265;

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

/// A rule of ours: some packets look into a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Whether it is an IPv6 rule.
    pub v6: bool,
    /// Where it stands among the rules.
    pub priority: u32,
    /// The mark of packets that it does not apply to; zero: to any.
    pub except_mark: u32,
    /// The mark of the only packets that it applies to; zero: to any.
    #[serde(default)]
    pub mark: u32,
    /// The interface by which the only packets came in that it applies to; empty: any.
    #[serde(default)]
    pub from: String,
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
    let rule = |v6, priority, table, suppress_default| Rule {
        v6,
        priority,
        except_mark: mark,
        table,
        suppress_default,
        ..Rule::default()
    };
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

/// The further rules of the kernel plane: what came in by one of the `tunnels`, and seals' own packets, look into
/// `table`, where the links' ways are.
///
/// Without anything to forward for (`open` is false) such packets go where the mesh goes and nowhere else. Else the
/// machine's own networks come before the mesh's default routes: there answers go whose translation the kernel undid.
/// What may pass there is nftables' matter.
pub(crate) fn passing_rules(tunnels: &BTreeSet<&str>, open: bool, table: u32) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    for v6 in [false, true] {
        let base = Rule { v6, table, priority: PRIORITY_PASSING, ..Rule::default() };
        rules.insert(Rule { mark: SEAL_MARK, ..base.clone() });
        for tunnel in tunnels {
            let from = Rule { from: (*tunnel).into(), suppress_default: open, ..base.clone() };
            if open {
                rules.insert(Rule { priority: PRIORITY_PASSING_DEFAULTS, suppress_default: false, ..from.clone() });
            }
            rules.insert(from);
        }
    }
    rules
}

/// Where a route of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Into the interface with this index.
    Interface(u32),
    /// Nowhere: the kernel answers that it is unreachable.
    Unreachable,
    /// To what the next rule says.
    Throw,
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
    /// The largest packet in bytes, where that is less than the interface's (`RTAX_MTU`); zero: the interface's.
    pub mtu: u16,
}

impl Route {
    /// A route without an MTU of its own.
    pub(crate) fn new(prefix: Prefix, table: u32, way: Way) -> Self {
        Self { prefix, table, way, mtu: 0 }
    }

    /// Its metric (`RTA_PRIORITY`).
    pub(crate) fn metric(&self) -> u32 {
        match self.way {
            Way::Interface(_) => METRIC_MESH,
            Way::Unreachable | Way::Throw => METRIC_UNREACHABLE,
        }
    }

    /// Whether adding one takes the other's place.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        (self.prefix, self.table, self.metric()) == (other.prefix, other.table, other.metric())
    }
}

/// How packets of this machine go to a prefix of the mesh, and how those do that only pass or are sealed already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// What enters the mesh here.
    pub enter: Hop,
    /// The rest.
    pub pass: Hop,
}

/// One or the other plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// The TUN.
    Userspace {
        /// The largest packet in bytes, where that is less than the TUN's; zero: the TUN's.
        mtu: u16,
    },
    /// The WireGuard interface of this link or seal.
    Kernel(LinkId),
}

impl Default for Hop {
    fn default() -> Self {
        Self::Userspace { mtu: 0 }
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

/// What routes lead into.
#[derive(Clone, Debug)]
pub(crate) struct Interfaces<'a> {
    /// Index of the TUN.
    pub tun: u32,
    /// Indices of the WireGuard interfaces that are there.
    pub tunnels: &'a BTreeMap<LinkId, u32>,
}

impl Interfaces<'_> {
    fn route(&self, prefix: Prefix, table: u32, hop: Hop) -> Route {
        let (index, mtu) = match hop {
            Hop::Userspace { mtu } => (self.tun, mtu),
            // One that is gone, or not there yet: the user-space plane has a way for all.
            Hop::Kernel(link) => (self.tunnels.get(&link).copied().unwrap_or(self.tun), 0),
        };
        Route { prefix, table, way: Way::Interface(index), mtu }
    }
}

/// The routes for what enters the mesh here: each prefix as it goes from here, and an answer for the own /64 where no
/// LAN has it.
///
/// Beneath them, the rest of `fd00::/8` is unreachable: packets for a node that is gone shall not leave by the machine's
/// default route (RFC 8966, section 2.8). Not so 100.64.0.0/10, where a provider's own servers may be; but the addresses
/// of known nodes are unreachable while the interface that leads to them is gone.
pub(crate) fn routes(
    paths: &BTreeMap<Prefix, Path>,
    own: Prefix,
    has_lan: bool,
    interfaces: &Interfaces<'_>,
    table: u32,
) -> BTreeSet<Route> {
    let mut routes: BTreeSet<Route> =
        paths.iter().map(|(prefix, path)| interfaces.route(*prefix, table, path.enter)).collect();
    routes.insert(Route::new(MESH_V6, table, Way::Unreachable));
    let known_v4 = paths
        .keys()
        .filter(|prefix| prefix.is_v4() && MESH_V4.contains(prefix.addr()) && prefix.len() >= MESH_V4.len());
    routes.extend(known_v4.map(|prefix| Route::new(*prefix, table, Way::Unreachable)));
    if !has_lan {
        routes.insert(Route::new(own, table, Way::Unreachable));
    }
    routes
}

/// The routes for what came in from the mesh, and for seals' own packets: the way over the links to each prefix, and an
/// answer for what the mesh has no way to. What is for this machine's LAN is left to the machine.
///
/// `exits`, if anything is forwarded for others than the mesh, are the default routes that leave the mesh here; those of
/// other gateways are not taken then. The machine decides about what has no route.
pub(crate) fn passing_routes(
    paths: &BTreeMap<Prefix, Path>,
    own: Prefix,
    has_lan: bool,
    exits: Option<&BTreeSet<Prefix>>,
    interfaces: &Interfaces<'_>,
    table: u32,
) -> BTreeSet<Route> {
    let mut routes: BTreeSet<Route> =
        [MESH_V4, MESH_V6].into_iter().map(|prefix| Route::new(prefix, table, Way::Unreachable)).collect();
    routes.insert(Route::new(own, table, if has_lan { Way::Throw } else { Way::Unreachable }));
    if exits.is_none() {
        // An unreachable default route is an answer even to a rule that passes over default routes.
        let defaults = [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6];
        routes.extend(defaults.map(|prefix| Route::new(prefix, table, Way::Unreachable)));
    }
    let leaves_here = |prefix: &Prefix| exits.is_some_and(|exits| exits.contains(prefix));
    let paths = paths.iter().filter(|(prefix, _)| !leaves_here(prefix));
    routes.extend(paths.map(|(prefix, path)| interfaces.route(*prefix, table, path.pass)));
    routes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &str = "fd01::/64";

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

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
        let own = prefix(OWN);
        let far = prefix("fd02::/64");
        let tunnels = BTreeMap::new();
        let interfaces = Interfaces { tun: 3, tunnels: &tunnels };
        let paths = [(far, Path::default())].into();
        let with = routes(&paths, own, true, &interfaces, 9);
        let rest = Route::new(MESH_V6, 9, Way::Unreachable);
        assert_eq!(with, [Route::new(far, 9, Way::Interface(3)), rest].into());
        let without = routes(&paths, own, false, &interfaces, 9);
        assert!(without.contains(&Route::new(own, 9, Way::Unreachable)));
        assert_eq!(without.len(), 3);
    }

    #[test]
    fn a_known_nodes_ipv4_never_leaves_by_the_providers_route() {
        let tunnels = BTreeMap::new();
        let paths =
            ["100.64.9.9/32", "0.0.0.0/0", "192.0.2.0/24", "fd02::/64"].map(|text| (prefix(text), Path::default()));
        let routes = routes(&paths.into(), prefix(OWN), true, &Interfaces { tun: 3, tunnels: &tunnels }, 9);
        let unreachable: Vec<_> = routes.iter().filter(|route| route.way == Way::Unreachable).collect();
        assert_eq!(
            unreachable.iter().map(|route| route.prefix).collect::<Vec<_>>(),
            [prefix("100.64.9.9/32"), MESH_V6]
        );
        let way = Route::new(prefix("100.64.9.9/32"), 9, Way::Interface(3));
        assert!(routes.contains(&way) && way.metric() < unreachable[0].metric(), "only where there is no other");
    }

    #[test]
    fn what_enters_and_what_passes_go_their_own_ways() {
        let tunnels: BTreeMap<LinkId, u32> = [(LinkId(1), 11), (LinkId(2), 12)].into();
        let interfaces = Interfaces { tun: 3, tunnels: &tunnels };
        let cases = [
            (Hop::Kernel(LinkId(2)), Hop::Kernel(LinkId(1)), (12, 0), 11),
            (Hop::Userspace { mtu: 1338 }, Hop::Kernel(LinkId(1)), (3, 1338), 11),
            (Hop::Kernel(LinkId(9)), Hop::Kernel(LinkId(9)), (3, 0), 3),
        ];
        for (enter, pass, (enters, mtu), passes) in cases {
            let far = prefix("fd02::/64");
            let paths = [(far, Path { enter, pass })].into();
            let entering = routes(&paths, prefix(OWN), true, &interfaces, 9);
            let passing = passing_routes(&paths, prefix(OWN), true, None, &interfaces, 10);
            assert!(entering.contains(&Route { prefix: far, table: 9, way: Way::Interface(enters), mtu }));
            assert!(passing.contains(&Route::new(far, 10, Way::Interface(passes))));
        }
    }

    #[test]
    fn what_came_from_the_mesh_leaves_it_only_where_it_may() {
        let tunnels = BTreeMap::new();
        let interfaces = Interfaces { tun: 3, tunnels: &tunnels };
        let paths = [(Prefix::DEFAULT_V4, Path::default())].into();
        let table = |has_lan, exits: Option<&BTreeSet<Prefix>>| {
            let routes = passing_routes(&paths, prefix(OWN), has_lan, exits, &interfaces, 1);
            move |text: &str| {
                let ways: Vec<Way> =
                    routes.iter().filter(|route| route.prefix == prefix(text)).map(|route| route.way).collect();
                ways
            }
        };
        // Nothing but the mesh: all the rest has an answer. Another gateway's route comes before it.
        let closed = table(false, None);
        assert_eq!(closed("::/0"), [Way::Unreachable]);
        assert_eq!(closed("0.0.0.0/0"), [Way::Interface(3), Way::Unreachable]);
        assert_eq!(closed(OWN), [Way::Unreachable]);
        // A LAN: what is for its hosts is left to the machine.
        let none = BTreeSet::new();
        let member = table(true, Some(&none));
        assert_eq!((member("::/0"), member("0.0.0.0/0")), (vec![], vec![Way::Interface(3)]));
        assert_eq!((member(OWN), member("fd00::/8")), (vec![Way::Throw], vec![Way::Unreachable]));
        // A gateway's own exit comes before others'.
        let exits = [Prefix::DEFAULT_V4].into();
        let gateway = table(false, Some(&exits));
        assert_eq!(gateway("0.0.0.0/0"), []);
        assert_eq!(gateway("100.64.0.0/10"), [Way::Unreachable]);
    }

    #[test]
    fn a_rule_for_each_tunnel_and_one_for_seals() {
        let closed = passing_rules(&["grange1", "grange2"].into(), false, 10);
        assert_eq!(closed.len(), 6);
        assert!(closed.iter().all(|rule| rule.priority < PRIORITY_MAIN && !rule.suppress_default));
        let open = passing_rules(&["grange1"].into(), true, 10);
        let of = |rule: &&Rule| rule.v6 && rule.from == "grange1";
        let tiers: Vec<_> = open.iter().filter(of).map(|rule| (rule.priority, rule.suppress_default)).collect();
        assert_eq!(tiers, [(PRIORITY_PASSING, true), (PRIORITY_PASSING_DEFAULTS, false)]);
    }

    #[test]
    fn rules_of_earlier_versions_are_still_read() {
        let old = r#"{"v6":true,"priority":7264,"except_mark":7264,"table":7264,"suppress_default":true}"#;
        let rule: Rule = serde_json::from_str(old).unwrap();
        assert!(rules(7264, 7264).contains(&rule));
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
