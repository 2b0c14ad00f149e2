//! What follows from the machine's interfaces: what to announce, and which table it needs. Plain functions.

use std::net::{Ipv4Addr, Ipv6Addr};

use grange_mesh::{InterfaceStatus, Interfaces, Role};
use grange_wire::Prefix;

use crate::{
    gateway::{GatewayConfig, GatewayStatus},
    ruleset::Ruleset,
};

/// The node's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub prefix: Prefix,
}

/// What is to be announced and in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub status: GatewayStatus,
    pub announced: Vec<Prefix>,
    /// None: nothing is to be translated, and there is no table.
    pub ruleset: Option<Ruleset>,
}

impl Plan {
    pub(crate) fn new(config: &GatewayConfig, interfaces: &Interfaces, own: Addresses) -> Self {
        let usable = |name: &Option<String>| match name {
            Some(name) => interfaces.all.iter().filter(|one| one.name == *name).collect::<Vec<_>>(),
            None => interfaces.all.iter().collect(),
        };
        let candidates = usable(&config.interface);
        let uplink = |leads: fn(&InterfaceStatus) -> bool| {
            let leading = candidates.iter().filter(|one| one.up && leads(one));
            // Where both versions leave by one interface, that one; then the one that is known as the uplink.
            let best = leading.max_by_key(|one| {
                (one.default_v4 && one.default_v6, one.role == Role::Uplink, std::cmp::Reverse(&one.name))
            });
            best.map(|one| one.name.clone())
        };
        let (v4, v6) = (uplink(|one| one.default_v4), uplink(|one| one.default_v6));
        let status = GatewayStatus {
            sharing: config.share,
            interface: v4.clone().or_else(|| v6.clone()),
            v4: config.share && v4.is_some(),
            v6: config.share && v6.is_some(),
        };
        let shared = |uplink: Option<String>| uplink.filter(|_| config.share);
        let announced = [(status.v4, Prefix::DEFAULT_V4), (status.v6, Prefix::DEFAULT_V6)];
        let lan: Vec<String> =
            interfaces.all.iter().filter(|one| one.role == Role::Lan).map(|one| one.name.clone()).collect();
        let needed = !lan.is_empty() || status.v4 || status.v6 || interfaces.passing;
        let ruleset = needed.then(|| Ruleset {
            lan,
            uplink_v4: shared(v4),
            uplink_v6: shared(v6),
            address_v4: own.v4,
            address_v6: own.v6,
            prefix: own.prefix,
            forwards_v4: interfaces.forwards_v4,
            forwards_v6: interfaces.forwards_v6,
        });
        Self {
            status,
            announced: announced.into_iter().filter(|(shared, _)| *shared).map(|(_, prefix)| prefix).collect(),
            ruleset,
        }
    }
}

#[cfg(test)]
mod tests {
    use grange_core::IfaceKind;

    use super::*;

    fn interface(name: &str, role: Role, default_v4: bool, default_v6: bool) -> InterfaceStatus {
        InterfaceStatus {
            name: name.into(),
            index: 1,
            kind: IfaceKind::Wired,
            up: true,
            mtu: 1500,
            default_v4,
            default_v6,
            role,
            links: false,
            why: String::new(),
        }
    }

    fn plan(config: &GatewayConfig, all: Vec<InterfaceStatus>) -> Plan {
        let own = Addresses {
            v4: "100.70.1.2".parse().unwrap(),
            v6: "fd01::2".parse().unwrap(),
            prefix: "fd01::/64".parse().unwrap(),
        };
        Plan::new(config, &Interfaces { all, forwards_v4: true, forwards_v6: true, passing: false }, own)
    }

    fn sharing() -> GatewayConfig {
        GatewayConfig { share: true, interface: None }
    }

    #[test]
    fn only_families_with_a_default_route_are_announced() {
        let both = plan(&sharing(), vec![interface("eth0", Role::Uplink, true, true)]);
        assert_eq!(both.announced, [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6]);
        let one = plan(&sharing(), vec![interface("eth0", Role::Uplink, true, false)]);
        assert_eq!(one.announced, [Prefix::DEFAULT_V4]);
        assert_eq!(one.ruleset.unwrap().uplink_v6, None);
        let none = plan(&sharing(), vec![interface("eth0", Role::Uplink, false, false)]);
        assert!(none.announced.is_empty() && none.ruleset.is_none());
    }

    #[test]
    fn a_dead_interface_shares_nothing() {
        let mut dead = interface("eth0", Role::Uplink, true, true);
        dead.up = false;
        let plan = plan(&sharing(), vec![dead]);
        assert!(plan.announced.is_empty());
        assert_eq!(plan.status.interface, None);
    }

    #[test]
    fn without_sharing_the_uplink_is_known_and_kept() {
        let config = GatewayConfig { share: false, ..sharing() };
        let lan = interface("br-lan", Role::Lan, false, false);
        let plan = plan(&config, vec![lan, interface("eth0", Role::Uplink, true, true)]);
        assert!(plan.announced.is_empty());
        assert_eq!(plan.status.interface.as_deref(), Some("eth0"));
        assert!(!plan.status.v4 && !plan.status.v6);
        let ruleset = plan.ruleset.unwrap();
        assert_eq!((ruleset.uplink_v4, ruleset.uplink_v6), (None, None));
        assert_eq!(ruleset.lan, ["br-lan"]);
    }

    #[test]
    fn the_named_interface_or_the_one_for_both_versions_is_taken() {
        let all = vec![
            interface("lte0", Role::Uplink, true, false),
            interface("tun6", Role::Unused, false, true),
            interface("wan", Role::Uplink, true, true),
        ];
        let auto = plan(&sharing(), all.clone()).ruleset.unwrap();
        assert_eq!((auto.uplink_v4.as_deref(), auto.uplink_v6.as_deref()), (Some("wan"), Some("wan")));
        let named = plan(&GatewayConfig { interface: Some("lte0".into()), ..sharing() }, all.clone());
        assert_eq!(named.announced, [Prefix::DEFAULT_V4]);
        assert_eq!(named.ruleset.unwrap().uplink_v4.as_deref(), Some("lte0"));
        let split = plan(&sharing(), all[..2].to_vec()).ruleset.unwrap();
        assert_eq!((split.uplink_v4.as_deref(), split.uplink_v6.as_deref()), (Some("lte0"), Some("tun6")));
    }
}
