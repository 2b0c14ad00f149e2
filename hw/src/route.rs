//! Which interfaces lead to the Internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::root::Root;

/// Bytes read of a routing table: some 25,000 routes. A default route stands near the start of either file.
const MAX_TABLE: u64 = 4 << 20;
/// Default routes kept for each family.
const MAX_DEFAULTS: usize = 64;

const RTF_UP: u32 = 0x0001;
const RTF_REJECT: u32 = 0x0200;

/// A default route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Name of the interface.
    pub interface: String,
    /// Next hop, unless the route names only an interface.
    pub gateway: Option<IpAddr>,
    /// The kernel's priority: the lowest is used.
    pub metric: u32,
}

/// The default routes of both families, the best first. Unreachable and blackhole routes are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Those of the main table (`/proc/net/route`).
    pub v4: Vec<DefaultRoute>,
    /// Those of all tables (`/proc/net/ipv6_route` does not tell them apart), source-specific ones included.
    pub v6: Vec<DefaultRoute>,
}

impl DefaultRoutes {
    pub(crate) fn read(root: &Root<'_>) -> Self {
        let table = |path| root.read(path, MAX_TABLE).unwrap_or_default();
        Self { v4: defaults(&table("proc/net/route"), parse_v4), v6: defaults(&table("proc/net/ipv6_route"), parse_v6) }
    }

    /// Names of the interfaces, each once, IPv4 before IPv6, the best route first.
    pub fn interfaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for route in self.v4.iter().chain(&self.v6) {
            if !names.contains(&route.interface.as_str()) {
                names.push(&route.interface);
            }
        }
        names
    }
}

fn defaults(table: &str, parse: fn(&str) -> Option<DefaultRoute>) -> Vec<DefaultRoute> {
    let mut routes: Vec<DefaultRoute> = table.lines().filter_map(parse).take(MAX_DEFAULTS).collect();
    routes.sort_by_key(|route| route.metric);
    routes
}

/// A line of `/proc/net/route`: interface, destination, gateway, flags, two counters, metric, mask, ... Addresses are
/// the hexadecimal of a network-order word read in the machine's own order.
fn parse_v4(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[interface, destination, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let usable = hex(flags)? & (RTF_UP | RTF_REJECT) == RTF_UP;
    if hex(destination)? != 0 || hex(mask)? != 0 || !usable || interface == "*" {
        return None;
    }
    let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
    Some(DefaultRoute {
        interface: interface.to_owned(),
        gateway: (!gateway.is_unspecified()).then_some(gateway.into()),
        metric: metric.parse().ok()?,
    })
}

/// A line of `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, metric, two counters, flags,
/// interface; all numbers hexadecimal.
fn parse_v6(line: &str) -> Option<DefaultRoute> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[destination, length, _, _, gateway, metric, _, _, flags, interface] = fields.as_slice() else { return None };
    let address = |text: &str| (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let usable = hex(flags)? & (RTF_UP | RTF_REJECT) == RTF_UP;
    if address(destination)? != 0 || hex(length)? != 0 || !usable || interface == "lo" {
        return None;
    }
    let gateway = Ipv6Addr::from(address(gateway)?);
    Some(DefaultRoute {
        interface: interface.to_owned(),
        gateway: (!gateway.is_unspecified()).then_some(gateway.into()),
        metric: hex(metric)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_v4_default_comes_first() {
        let gateway = |last: u8| format!("{:08X}", u32::from_ne_bytes([192, 168, 1, last]));
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             wwan0\t00000000\t{}\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
             *\t00000000\t00000000\t0201\t0\t0\t9\t00000000\t0\t0\t0\n",
            gateway(2),
            gateway(1)
        );
        let routes = defaults(&table, parse_v4);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].interface, "eth0");
        assert_eq!(routes[0].gateway, Some("192.168.1.1".parse().unwrap()));
        assert_eq!(routes[1].metric, 700);
    }

    #[test]
    fn the_kernels_unreachable_v6_default_is_none() {
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             {zero} 00 20010db8000000000000000000000000 38 {zero} 00000200 00000001 00000000 00000001 pppoe-wan\n"
        );
        let routes = defaults(&table, parse_v6);
        let names: Vec<&str> = routes.iter().map(|route| route.interface.as_str()).collect();
        assert_eq!(names, ["pppoe-wan", "eth1"]);
        assert_eq!(routes[1].gateway, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn garbage_is_no_route() {
        for line in ["", "eth0", "eth0 0 0 0 0 0 0", "eth0 zz 00000000 0003 0 0 0 00000000", "\u{fffd} \u{fffd}"] {
            assert_eq!(parse_v4(line), None, "{line}");
            assert_eq!(parse_v6(line), None, "{line}");
        }
    }
}
