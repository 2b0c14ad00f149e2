//! A host on a node's LAN that knows nothing of the town.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};

use crate::{Namespace, Node, wait_until};

/// The bridge of a node's LAN.
pub(crate) const LAN_BRIDGE: &str = "lan";

/// A laptop: static addresses and default routes, such as a router's DHCP and advertisements would have given.
#[derive(Debug)]
pub struct Laptop {
    name: String,
    node: String,
    namespace: Arc<Namespace>,
    number: u8,
    v4: Ipv4Addr,
    v6: Mutex<Option<Ipv6Addr>>,
}

impl Laptop {
    /// `lan` is the number of the node's LAN, `number` the host's in it.
    pub(crate) fn new(name: &str, node: &Node, namespace: &Arc<Namespace>, lan: u8, number: u8) -> Result<Self> {
        let v4 = Ipv4Addr::new(192, 168, lan, number);
        namespace.ip(&format!("addr add {v4}/24 dev eth0"))?;
        namespace.ip(&format!("route add default via 192.168.{lan}.1 dev eth0"))?;
        Ok(Self {
            name: name.to_owned(),
            node: node.name().to_owned(),
            namespace: Arc::clone(namespace),
            number,
            v4,
            v6: Mutex::new(None),
        })
    }

    /// The laptop's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the node whose LAN it is on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its private IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address in the node's /64, once [`Town::start`](crate::Town::start) set it.
    ///
    /// # Errors
    /// Before that.
    pub fn v6(&self) -> Result<Ipv6Addr> {
        self.v6
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .with_context(|| format!("{} has no IPv6 address before its node started", self.name))
    }

    /// Gives the laptop an address in the node's /64 and a default route to the node's link-local address, as a router
    /// advertisement would.
    pub(crate) fn configure_v6(&self, node: &Node) -> Result<()> {
        let mut octets = node.address()?.octets();
        octets[8..].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0x10, self.number]);
        let v6 = Ipv6Addr::from(octets);
        let (router, _) = wait_until(
            &format!("the link-local address of {}'s LAN", self.node),
            std::time::Duration::from_secs(5),
            || node.namespace().link_local(LAN_BRIDGE).map(Some),
        )?;
        self.namespace.ip(&format!("addr replace {v6}/64 dev eth0 nodad"))?;
        self.namespace.ip(&format!("-6 route replace default via {router} dev eth0"))?;
        *self.v6.lock().unwrap_or_else(PoisonError::into_inner) = Some(v6);
        Ok(())
    }
}
