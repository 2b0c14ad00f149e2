//! Requests to the kernel: addresses, routes, rules and the TUN's settings.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use grange_wire::Prefix;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};
use rtnetlink::{AddressMessageBuilder, Handle, IpVersion, LinkUnspec, LinkWireguard, RouteMessageBuilder};

use super::plan::{GROUP, PROTOCOL, Route, Rule, SEAL_GROUP, Way};

/// A connection to the kernel. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

/// What the kernel said, as an I/O error.
pub(crate) fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Whether the kernel says that what was to be removed is not there, or what was to be added is.
fn ignore(result: Result<(), rtnetlink::Error>, fine: &[i32]) -> io::Result<()> {
    match result.map_err(io_error) {
        Err(error) if error.raw_os_error().is_some_and(|code| fine.contains(&code)) => Ok(()),
        other => other,
    }
}

/// `ESRCH`, `ENOENT`, `EADDRNOTAVAIL`, `ENODEV`: what the kernel says when something is not there.
const ABSENT: [i32; 4] = [libc::ESRCH, libc::ENOENT, libc::EADDRNOTAVAIL, libc::ENODEV];

impl Netlink {
    /// Opens a connection; its task ends when all clones are dropped.
    pub(crate) fn open() -> io::Result<Self> {
        // With strict checking the kernel filters dumps by table; without (before 4.20) we do.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection())?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives the TUN its queue length, in super-packets, MTU and group, and brings it up.
    pub(crate) async fn set_up_tun(&self, index: u32, mtu: u16, queue: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .append_extra_attribute(LinkAttribute::TxQueueLen(queue))
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .up()
            .build();
        self.handle.link().change(message).execute().await.map_err(io_error)
    }

    /// Sets an interface's MTU.
    pub(crate) async fn set_mtu(&self, index: u32, mtu: u16) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).build();
        self.handle.link().change(message).execute().await.map_err(io_error)
    }

    /// Makes a WireGuard interface of one of our groups, switched off.
    pub(crate) async fn add_wireguard(&self, name: &str, mtu: u16, group: u32) -> io::Result<()> {
        let message = LinkWireguard::new(name)
            .append_extra_attribute(LinkAttribute::Mtu(u32::from(mtu)))
            .append_extra_attribute(LinkAttribute::Group(group))
            .build();
        self.handle.link().add(message).execute().await.map_err(io_error)
    }

    /// Switches an interface on.
    pub(crate) async fn switch_on(&self, index: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(message).execute().await.map_err(io_error)
    }

    /// Removes an interface. Fine if it is not there.
    pub(crate) async fn remove_interface(&self, index: u32) -> io::Result<()> {
        ignore(self.handle.link().del(index).execute().await, &ABSENT)
    }

    /// The WireGuard interfaces of our groups: index and name.
    pub(crate) async fn wireguards(&self) -> io::Result<Vec<(u32, String)>> {
        let mut stream = std::pin::pin!(self.handle.link().get().execute());
        let mut found = Vec::new();
        while let Some(message) = stream.try_next().await.map_err(io_error)? {
            if is_our_wireguard(&message) {
                let name = message.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
                found.push((message.header.index, name.unwrap_or_default()));
            }
        }
        Ok(found)
    }

    /// The addresses of an interface, with their prefix lengths.
    pub(crate) async fn addresses(&self, index: u32) -> io::Result<BTreeSet<(IpAddr, u8)>> {
        let mut stream = std::pin::pin!(self.handle.address().get().set_link_index_filter(index).execute());
        let mut addresses = BTreeSet::new();
        while let Some(message) = stream.try_next().await.map_err(io_error)? {
            if let Some(address) = local_address(&message) {
                addresses.insert((address, message.header.prefix_len));
            }
        }
        Ok(addresses)
    }

    /// Adds an address. IPv6 without duplicate address detection: the address proves its key. Fine if it is there.
    pub(crate) async fn add_address(&self, index: u32, address: IpAddr, len: u8) -> io::Result<()> {
        let mut request = self.handle.address().add(index, address, len);
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        ignore(request.execute().await, &[libc::EEXIST])
    }

    /// Removes an address. Fine if it is not there.
    pub(crate) async fn remove_address(&self, index: u32, address: IpAddr, len: u8) -> io::Result<()> {
        let message = match address {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, len).build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, len).build(),
        };
        ignore(self.handle.address().del(message).execute().await, &ABSENT)
    }

    /// The routes with our protocol number in a table.
    pub(crate) async fn routes(&self, table: u32) -> io::Result<BTreeSet<Route>> {
        let mut routes = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut stream = std::pin::pin!(self.handle.route().get(dump_of(family, table)).execute());
            loop {
                match stream.try_next().await.map_err(io_error) {
                    Ok(Some(message)) => routes.extend(our_route(&message).filter(|route| route.table == table)),
                    Ok(None) => break,
                    // A table that nothing was ever put in.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(routes)
    }

    /// Adds a route, in place of one to the same prefix with the same metric. `source` is the address that packets of
    /// this machine get.
    pub(crate) async fn add_route(&self, route: &Route, source: Option<IpAddr>) -> io::Result<()> {
        let mut message = route_message(route);
        if let (Way::Interface(_), Some(source)) = (route.way, source) {
            message.attributes.push(RouteAttribute::PrefSource(source.into()));
        }
        self.handle.route().add(message).replace().execute().await.map_err(io_error)
    }

    /// Removes a route. Fine if it is not there.
    pub(crate) async fn remove_route(&self, route: &Route) -> io::Result<()> {
        ignore(self.handle.route().del(route_message(route)).execute().await, &ABSENT)
    }

    /// The rules with our protocol number.
    pub(crate) async fn rules(&self) -> io::Result<BTreeSet<Rule>> {
        let mut rules = BTreeSet::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let mut stream = std::pin::pin!(self.handle.rule().get(version).execute());
            while let Some(message) = stream.try_next().await.map_err(io_error)? {
                rules.extend(our_rule(&message));
            }
        }
        Ok(rules)
    }

    /// Adds a rule. Fine if it is there.
    pub(crate) async fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule_message(rule);
        ignore(request.execute().await, &[libc::EEXIST])
    }

    /// Removes a rule. Fine if it is not there.
    pub(crate) async fn remove_rule(&self, rule: &Rule) -> io::Result<()> {
        ignore(self.handle.rule().del(rule_message(rule)).execute().await, &ABSENT)
    }
}

/// Whether an interface is of the kernel plane.
pub(crate) fn is_our_wireguard(message: &LinkMessage) -> bool {
    let [mut kind, mut group] = [false; 2];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Group(GROUP | SEAL_GROUP) => group = true,
            LinkAttribute::LinkInfo(infos) => kind |= infos.contains(&LinkInfo::Kind(InfoKind::Wireguard)),
            _ => {}
        }
    }
    kind && group
}

/// The address that an interface itself has (`IFA_LOCAL`, which on point-to-point links differs from `IFA_ADDRESS`).
pub(crate) fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}

/// The request for all routes of a table.
pub(crate) fn dump_of(family: AddressFamily, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(table));
    message
}

/// The table that a route is in.
pub(crate) fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(u32::from(message.header.table))
}

/// The interface that a route leaves by, of the first next hop if there are several.
pub(crate) fn interface_of(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}

fn our_route(message: &RouteMessage) -> Option<Route> {
    if message.header.protocol != RouteProtocol::from(PROTOCOL) {
        return None;
    }
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    let prefix = match destination {
        Some(address) => Prefix::new_truncating(address, message.header.destination_prefix_length),
        None if message.header.address_family == AddressFamily::Inet => Prefix::DEFAULT_V4,
        None => Prefix::DEFAULT_V6,
    };
    let way = match message.header.kind {
        RouteType::Unreachable => Way::Unreachable,
        RouteType::Throw => Way::Throw,
        _ => Way::Interface(interface_of(message)?),
    };
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
            _ => None,
        }),
        _ => None,
    });
    Some(Route { prefix, table: table_of(message), way, mtu: mtu.unwrap_or(0) })
}

fn route_message(route: &Route) -> RouteMessage {
    let address = route.prefix.addr();
    let len = route.prefix.len();
    let mut message = match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, len).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, len).build(),
    };
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Priority(route.metric()));
    match route.way {
        Way::Interface(index) => {
            message.header.kind = RouteType::Unicast;
            // No next hop: the kernel wants IPv4 routes of that sort to say that the destination is on the link.
            message.header.scope = if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Way::Unreachable => message.header.kind = RouteType::Unreachable,
        Way::Throw => message.header.kind = RouteType::Throw,
    }
    if route.mtu != 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(route.mtu))]));
    }
    message
}

fn our_rule(message: &RuleMessage) -> Option<Rule> {
    let mut rule = Rule {
        v6: message.header.family == AddressFamily::Inet6,
        table: u32::from(message.header.table),
        ..Rule::default()
    };
    let except = message.header.flags.contains(RuleFlags::Invert);
    let mut ours = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => ours = *protocol == RouteProtocol::from(PROTOCOL),
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::FwMark(mark) if except => rule.except_mark = *mark,
            RuleAttribute::FwMark(mark) => rule.mark = *mark,
            RuleAttribute::Iifname(name) => rule.from.clone_from(name),
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::SuppressPrefixLen(0) => rule.suppress_default = true,
            _ => {}
        }
    }
    ours.then_some(rule)
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = u8::try_from(rule.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    if rule.except_mark != 0 {
        message.header.flags = RuleFlags::Invert;
        message.attributes.push(RuleAttribute::FwMark(rule.except_mark));
    } else if rule.mark != 0 {
        message.attributes.push(RuleAttribute::FwMark(rule.mark));
    }
    if !rule.from.is_empty() {
        message.attributes.push(RuleAttribute::Iifname(rule.from.clone()));
    }
    message.attributes.push(RuleAttribute::Table(rule.table));
    if rule.suppress_default {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::plan;

    #[test]
    fn routes_and_rules_survive_the_way_through_messages() {
        for (prefix, way, mtu) in [
            ("fd12::/64", Way::Interface(7), 0),
            ("fd12::/64", Way::Interface(7), 1338),
            ("100.64.1.2/32", Way::Interface(7), 0),
            ("0.0.0.0/0", Way::Interface(7), 0),
            ("::/0", Way::Interface(7), 0),
            ("fd34::/64", Way::Unreachable, 0),
            ("fd34::/64", Way::Throw, 0),
        ] {
            for table in [100, 7264] {
                let route = Route { prefix: prefix.parse().unwrap(), table, way, mtu };
                assert_eq!(our_route(&route_message(&route)), Some(route));
            }
        }
        let rules = [7264, 99].into_iter().flat_map(|table| {
            let passing = plan::passing_rules(&["grange1"].into(), true, table);
            plan::rules(7, table).into_iter().chain(passing)
        });
        for rule in rules {
            assert_eq!(our_rule(&rule_message(&rule)), Some(rule));
        }
    }

    #[test]
    fn what_others_put_there_is_not_ours() {
        let mut message = route_message(&Route::new(Prefix::DEFAULT_V6, 7264, Way::Unreachable));
        message.header.protocol = RouteProtocol::Static;
        assert_eq!(our_route(&message), None);
        let mut message = rule_message(&Rule { v6: true, priority: 1, except_mark: 2, table: 3, ..Rule::default() });
        message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert_eq!(our_rule(&message), None);
        let mut message = LinkWireguard::new("wg0").build();
        assert!(!is_our_wireguard(&message), "somebody's own");
        for group in [GROUP, SEAL_GROUP] {
            let mut ours = message.clone();
            ours.attributes.push(LinkAttribute::Group(group));
            assert!(is_our_wireguard(&ours));
        }
        message.attributes.push(LinkAttribute::Group(1));
        assert!(!is_our_wireguard(&message));
    }
}
