//! Peers on the same cable by multicast DNS (RFC 6762, RFC 6763).
//!
//! Beacons find the same peers; mDNS helps where a switch passes only multicast that it knows. The instance has a
//! random name, so that it says that a mesh is there and not who. Errors are never fatal.

use std::{collections::BTreeSet, time::Duration};

use grange_core::{Endpoint, IfaceId};
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// The service (RFC 6763, section 7).
const SERVICE: &str = "_grange._udp.local.";

/// Most endpoints that are taken from one answer.
const MAX_ENDPOINTS: usize = 8;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// The announcement of this node, and the search for others.
pub(crate) struct Mdns {
    daemon: ServiceDaemon,
    full_name: String,
    interfaces: BTreeSet<String>,
}

impl Mdns {
    /// Starts on no interface. Endpoints that are found go to `found`; what does not fit is dropped and comes again.
    /// None, with a line in the log, if it cannot be started.
    pub(crate) fn start(port: u16, found: mpsc::Sender<Endpoint>) -> Option<Self> {
        match Self::try_start(port, found) {
            Ok(mdns) => Some(mdns),
            Err(error) => {
                tracing::info!(%error, "no search by mDNS; beacons find neighbours all the same");
                None
            }
        }
    }

    fn try_start(port: u16, found: mpsc::Sender<Endpoint>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("{:016x}", u64::from_be_bytes(random));
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        let mut service =
            ServiceInfo::new(SERVICE, &name, &format!("{name}.local."), (), port, None)?.enable_addr_auto();
        service.set_link_local_only(true);
        let full_name = service.get_fullname().to_owned();
        daemon.register(service)?;
        let events = daemon.browse(SERVICE)?;
        let own = full_name.clone();
        tokio::spawn(async move {
            while let Ok(event) = events.recv_async().await {
                let ServiceEvent::ServiceResolved(service) = event else { continue };
                if service.get_fullname() == own {
                    continue;
                }
                for endpoint in endpoints(&service) {
                    tracing::debug!(address = %endpoint.addr, interface = endpoint.iface.0, "a peer answered by mDNS");
                    if matches!(found.try_send(endpoint), Err(mpsc::error::TrySendError::Closed(_))) {
                        return;
                    }
                }
            }
        });
        Ok(Self { daemon, full_name, interfaces: BTreeSet::new() })
    }

    /// The interfaces to announce and search on, in place of those before.
    pub(crate) fn set_interfaces(&mut self, interfaces: BTreeSet<String>) {
        let set = |names: Vec<&String>, enable: bool| {
            for name in names {
                let kind = IfKind::Name(name.clone());
                let result =
                    if enable { self.daemon.enable_interface(kind) } else { self.daemon.disable_interface(kind) };
                if let Err(error) = result {
                    tracing::debug!(interface = name, %error, "mDNS did not follow an interface");
                }
            }
        };
        set(self.interfaces.difference(&interfaces).collect(), false);
        set(interfaces.difference(&self.interfaces).collect(), true);
        self.interfaces = interfaces;
    }

    /// Says goodbye.
    pub(crate) async fn stop(self) {
        let goodbye = async {
            if let Ok(done) = self.daemon.unregister(&self.full_name) {
                let _ = done.recv_async().await;
            }
            if let Ok(done) = self.daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// Where the announced node may be asked: its link-local addresses, which need the interface that they were heard on.
fn endpoints(service: &ResolvedService) -> Vec<Endpoint> {
    let port = service.get_port();
    let addresses = service.get_addresses().iter().filter_map(|address| match address {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() && v6.scope_id().index != 0 => {
            Some(Endpoint { iface: IfaceId(v6.scope_id().index), addr: SocketAddr::new((*v6.addr()).into(), port) })
        }
        _ => None,
    });
    if port == 0 { Vec::new() } else { addresses.take(MAX_ENDPOINTS).collect() }
}
