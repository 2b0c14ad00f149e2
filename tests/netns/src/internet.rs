//! The Internet: a namespace with documentation addresses, a web server and an echo server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Result;

use crate::{EchoServer, Namespace, WebServer};

/// IPv4 address of the web and echo servers (RFC 5737).
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// IPv6 address of the web and echo servers (RFC 3849).
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);

/// The Internet. It has no route to the town's addresses: only translated packets come back.
#[derive(Debug)]
pub struct Internet {
    namespace: Arc<Namespace>,
    _web: WebServer,
    _echo: [EchoServer; 2],
}

impl Internet {
    /// The host's name in the town.
    pub const NAME: &'static str = "internet";

    pub(crate) fn new(namespace: &Arc<Namespace>) -> Result<Self> {
        namespace.ip(&format!("addr add {INTERNET_V4}/32 dev lo"))?;
        namespace.ip(&format!("addr add {INTERNET_V6}/128 dev lo nodad"))?;
        let addresses: [IpAddr; 2] = [INTERNET_V4.into(), INTERNET_V6.into()];
        Ok(Self {
            namespace: Arc::clone(namespace),
            _web: WebServer::start(namespace, &addresses)?,
            _echo: [EchoServer::start(namespace, addresses[0])?, EchoServer::start(namespace, addresses[1])?],
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The provider's end and the customer's end of uplink `number` get addresses, the customer a default route, as
    /// DHCP and router advertisements would have given.
    pub(crate) fn connect(
        &self,
        number: u8,
        provider_interface: &str,
        customer: &Namespace,
        customer_interface: &str,
    ) -> Result<()> {
        let first = 4 * number;
        let (provider_v4, customer_v4) = (Ipv4Addr::new(203, 0, 113, first + 1), Ipv4Addr::new(203, 0, 113, first + 2));
        let subnet = u16::from(number) + 1;
        let (provider_v6, customer_v6) =
            (Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, 2));
        self.namespace.ip(&format!("addr add {provider_v4}/30 dev {provider_interface}"))?;
        self.namespace.ip(&format!("addr add {provider_v6}/64 dev {provider_interface} nodad"))?;
        customer.ip(&format!("addr add {customer_v4}/30 dev {customer_interface}"))?;
        customer.ip(&format!("addr add {customer_v6}/64 dev {customer_interface} nodad"))?;
        customer.ip(&format!("route add default via {provider_v4} dev {customer_interface}"))?;
        customer.ip(&format!("-6 route add default via {provider_v6} dev {customer_interface}"))?;
        Ok(())
    }
}
