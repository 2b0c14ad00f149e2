//! The machine's interfaces as the kernel reports them: they appear and vanish, lose and regain their carrier, change
//! their MTU, get addresses and default routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload};
use tokio::sync::watch;

use super::netlink::{Netlink, dump_of, interface_of, io_error, is_our_wireguard, local_address, table_of};

/// Route messages come in bursts, and each makes us ask for all default routes again: not before the burst is over.
const SETTLE: Duration = Duration::from_millis(20);

/// Most addresses that are kept of one interface.
const MAX_ADDRESSES: usize = 64;

/// Most interfaces that are followed.
const MAX_INTERFACES: usize = 1024;

/// An interface as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Name.
    pub name: String,
    /// Administratively up.
    pub enabled: bool,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Loopback.
    pub loopback: bool,
    /// Can do multicast.
    pub multicast: bool,
    /// Port of a bridge or bond.
    pub enslaved: bool,
    /// WireGuard interface of the kernel plane.
    pub ours: bool,
    /// Link-local IPv6 addresses that may be used.
    pub link_local: BTreeSet<Ipv6Addr>,
    /// Its other addresses, with their prefix lengths.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// An IPv4 default route of the main table leaves by it.
    pub default_v4: bool,
    /// An IPv6 default route of the main table leaves by it.
    pub default_v6: bool,
}

impl Interface {
    /// Whether a datagram to a neighbour can be sent now.
    pub(crate) fn usable(&self) -> bool {
        self.up && !self.link_local.is_empty()
    }
}

/// All interfaces by their index.
pub(crate) type Interfaces = BTreeMap<u32, Interface>;

/// Follows the interfaces; gives a view that is complete from the start. The task ends when all views are dropped.
pub(crate) async fn watch(netlink: &Netlink) -> io::Result<watch::Receiver<Interfaces>> {
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ])?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(read_all(netlink).await?);
    let netlink = netlink.clone();
    tokio::spawn(async move {
        let mut routes_due: Option<tokio::time::Instant> = None;
        loop {
            let settle = async {
                match routes_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = sender.closed() => return,
                message = messages.next() => {
                    let Some((message, _)) = message else { return };
                    let mut reread = false;
                    sender.send_if_modified(|interfaces| match &message.payload {
                        NetlinkPayload::InnerMessage(message) => match take(interfaces, message) {
                            Taken::Nothing => false,
                            Taken::Changed => true,
                            Taken::Routes { changed } => {
                                routes_due.get_or_insert_with(|| tokio::time::Instant::now() + SETTLE);
                                changed
                            }
                        },
                        NetlinkPayload::Overrun(_) => {
                            reread = true;
                            false
                        }
                        _ => false,
                    });
                    if reread {
                        tracing::debug!("netlink messages were lost; reading all interfaces anew");
                        update(&sender, read_all(&netlink).await);
                    }
                }
                () = settle => {
                    routes_due = None;
                    let mut interfaces = sender.borrow().clone();
                    let result = read_default_routes(&netlink, &mut interfaces).await;
                    update(&sender, result.map(|()| interfaces));
                }
            }
        }
    });
    Ok(receiver)
}

fn update(sender: &watch::Sender<Interfaces>, result: io::Result<Interfaces>) {
    match result {
        Ok(new) => {
            sender.send_if_modified(|interfaces| {
                let changed = *interfaces != new;
                *interfaces = new;
                changed
            });
        }
        Err(error) => tracing::warn!(%error, "the kernel's interfaces could not be read"),
    }
}

async fn read_all(netlink: &Netlink) -> io::Result<Interfaces> {
    let mut interfaces = Interfaces::new();
    let mut links = std::pin::pin!(netlink.handle().link().get().execute());
    while let Some(message) = links.try_next().await.map_err(io_error)? {
        take_link(&mut interfaces, &message);
    }
    let mut addresses = std::pin::pin!(netlink.handle().address().get().execute());
    while let Some(message) = addresses.try_next().await.map_err(io_error)? {
        take_address(&mut interfaces, &message, true);
    }
    read_default_routes(netlink, &mut interfaces).await?;
    Ok(interfaces)
}

async fn read_default_routes(netlink: &Netlink, interfaces: &mut Interfaces) -> io::Result<()> {
    let mut with: BTreeSet<(bool, u32)> = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let request = dump_of(family, u32::from(RouteHeader::RT_TABLE_MAIN));
        let mut routes = std::pin::pin!(netlink.handle().route().get(request).execute());
        loop {
            match routes.try_next().await.map_err(io_error) {
                Ok(Some(message)) if is_main_default(&message) => {
                    with.extend(interface_of(&message).map(|index| (family == AddressFamily::Inet6, index)));
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                // A family without any route.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
    }
    for (index, interface) in interfaces {
        interface.default_v4 = with.contains(&(false, *index));
        interface.default_v6 = with.contains(&(true, *index));
    }
    Ok(())
}

fn is_main_default(message: &RouteMessage) -> bool {
    message.header.destination_prefix_length == 0
        && message.header.kind == RouteType::Unicast
        && table_of(message) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

/// What a message changed.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// Nothing.
    Nothing,
    /// What is known of an interface.
    Changed,
    /// Perhaps a default route: read them anew. `changed`: something else did too.
    Routes { changed: bool },
}

fn take(interfaces: &mut Interfaces, message: &RouteNetlinkMessage) -> Taken {
    let changed = match message {
        RouteNetlinkMessage::NewLink(link) => {
            let before = interfaces.get(&link.header.index).map(|interface| interface.up);
            let changed = take_link(interfaces, link);
            // The kernel takes IPv4 routes from a dead interface without a word.
            if before != interfaces.get(&link.header.index).map(|interface| interface.up) {
                return Taken::Routes { changed };
            }
            changed
        }
        // Messages of the bridge about its ports look like this too: the interface itself is still there.
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            interfaces.remove(&link.header.index).is_some()
        }
        RouteNetlinkMessage::NewAddress(address) => take_address(interfaces, address, true),
        RouteNetlinkMessage::DelAddress(address) => take_address(interfaces, address, false),
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) if is_main_default(route) => {
            return Taken::Routes { changed: false };
        }
        _ => false,
    };
    if changed { Taken::Changed } else { Taken::Nothing }
}

fn take_link(interfaces: &mut Interfaces, message: &LinkMessage) -> bool {
    // Messages of bridges about their ports and of old wireless drivers about scans say only part of what an interface
    // is.
    if message.header.interface_family != AddressFamily::Unspec
        || message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Wireless(_)))
    {
        return false;
    }
    let index = message.header.index;
    let mut interface = match interfaces.get(&index) {
        Some(known) => known.clone(),
        None if interfaces.len() >= MAX_INTERFACES => return false,
        None => Interface::default(),
    };
    let flags = message.header.flags;
    interface.enabled = flags.contains(LinkFlags::Up);
    interface.up = flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    interface.loopback = flags.contains(LinkFlags::Loopback);
    interface.multicast = flags.contains(LinkFlags::Multicast);
    interface.enslaved = false;
    interface.ours = is_our_wireguard(message);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Controller(index) => interface.enslaved = *index != 0,
            _ => {}
        }
    }
    let changed = interfaces.get(&index) != Some(&interface);
    interfaces.insert(index, interface);
    changed
}

fn take_address(interfaces: &mut Interfaces, message: &AddressMessage, added: bool) -> bool {
    let Some(address) = local_address(message) else { return false };
    let Some(interface) = interfaces.get_mut(&message.header.index) else { return false };
    let address = match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => address,
        other => {
            let entry = (other, message.header.prefix_len);
            return match added {
                true => interface.addresses.len() < MAX_ADDRESSES && interface.addresses.insert(entry),
                false => interface.addresses.remove(&entry),
            };
        }
    };
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let flags = flags.unwrap_or(AddressFlags::from_bits_retain(u32::from(message.header.flags.bits())));
    let unusable = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
        && !flags.contains(AddressFlags::Optimistic);
    if added && !unusable {
        interface.link_local.len() < MAX_ADDRESSES && interface.link_local.insert(address)
    } else {
        interface.link_local.remove(&address)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressHeaderFlags;

    use super::*;

    fn link(index: u32, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.attributes = vec![LinkAttribute::IfName(format!("eth{index}")), LinkAttribute::Mtu(1500)];
        message
    }

    fn address(index: u32, flags: AddressFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = AddressFamily::Inet6;
        message.header.flags = AddressHeaderFlags::Tentative;
        message.attributes =
            vec![AddressAttribute::Address("fe80::1".parse().unwrap()), AddressAttribute::Flags(flags)];
        message
    }

    #[test]
    fn an_interface_is_usable_with_carrier_and_an_address_that_is_proved_unique() {
        let mut interfaces = Interfaces::new();
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        assert!(matches!(
            take(&mut interfaces, &RouteNetlinkMessage::NewLink(link(4, up))),
            Taken::Routes { changed: true }
        ));
        assert!(!interfaces[&4].usable());
        let tentative = address(4, AddressFlags::Tentative);
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewAddress(tentative)), Taken::Nothing);
        let proved = address(4, AddressFlags::Permanent);
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewAddress(proved)), Taken::Changed);
        assert!(interfaces[&4].usable());
        assert!(matches!(
            take(&mut interfaces, &RouteNetlinkMessage::NewLink(link(4, LinkFlags::Up))),
            Taken::Routes { changed: true }
        ));
        assert!(!interfaces[&4].usable(), "carrier lost");
        let again = link(4, up);
        take(&mut interfaces, &RouteNetlinkMessage::NewLink(again.clone()));
        assert!(interfaces[&4].usable(), "the address is still known when the carrier is back");
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewLink(again.clone())), Taken::Nothing);
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::DelLink(again)), Taken::Changed);
        assert!(interfaces.is_empty());
    }

    #[test]
    fn other_addresses_come_and_go() {
        let mut interfaces = Interfaces::new();
        take(&mut interfaces, &RouteNetlinkMessage::NewLink(link(4, LinkFlags::Up)));
        let mut message = AddressMessage::default();
        message.header.index = 4;
        message.header.prefix_len = 24;
        message.attributes = vec![AddressAttribute::Local("192.168.7.1".parse().unwrap())];
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewAddress(message.clone())), Taken::Changed);
        assert_eq!(interfaces[&4].addresses, [("192.168.7.1".parse().unwrap(), 24)].into());
        assert!(interfaces[&4].link_local.is_empty());
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewAddress(message.clone())), Taken::Nothing);
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::DelAddress(message)), Taken::Changed);
        assert!(interfaces[&4].addresses.is_empty());
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        let mut interfaces = Interfaces::new();
        take(&mut interfaces, &RouteNetlinkMessage::NewLink(link(4, LinkFlags::Up)));
        let mut bridge = link(4, LinkFlags::Up);
        bridge.header.interface_family = AddressFamily::Bridge;
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::DelLink(bridge)), Taken::Nothing);
        assert!(interfaces.contains_key(&4));
    }

    #[test]
    fn only_default_routes_of_the_main_table_count() {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        let mut interfaces = Interfaces::new();
        assert_eq!(
            take(&mut interfaces, &RouteNetlinkMessage::NewRoute(route.clone())),
            Taken::Routes { changed: false }
        );
        route.header.destination_prefix_length = 24;
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewRoute(route.clone())), Taken::Nothing);
        route.header.destination_prefix_length = 0;
        route.header.table = 7;
        assert_eq!(take(&mut interfaces, &RouteNetlinkMessage::NewRoute(route)), Taken::Nothing);
    }
}
