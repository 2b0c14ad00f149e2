//! Hosts joined by cables: network namespaces and veth pairs, nothing between them.

use std::{
    collections::VecDeque,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use grange_netns::{Namespace, scratch};
use tempfile::TempDir;

/// Most hosts of a lab: each cable and each host has a number in an address's byte.
const MAX_HOSTS: usize = 200;

/// What is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How hosts are joined.
    pub(crate) shape: Shape,
    /// What the cables' ends can do.
    pub(crate) card: Card,
}

/// What an end of a cable can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Card {
    /// It takes segments that are not cut yet, as veth pairs do and some network cards.
    Offload,
    /// It takes single packets, and the kernel puts what it receives together (GRO), as it does for any network card.
    Plain,
    /// It takes single packets and gives single packets: a veth pair without its offloads, which has no GRO by default.
    Bare,
}

/// How hosts are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One behind the other: 0 - 1 - 2 ...
    Chain(usize),
    /// This many around host 0.
    Star(usize),
}

impl Plan {
    /// A chain of hosts with offloads.
    pub(crate) const fn chain(hosts: usize) -> Self {
        Self { shape: Shape::Chain(hosts), card: Card::Offload }
    }

    /// A host with neighbours around it, with offloads.
    pub(crate) const fn star(neighbours: usize) -> Self {
        Self { shape: Shape::Star(neighbours), card: Card::Offload }
    }

    /// The same with other cards.
    pub(crate) const fn with(self, card: Card) -> Self {
        Self { card, ..self }
    }

    /// Number of hosts.
    pub(crate) fn hosts(self) -> usize {
        match self.shape {
            Shape::Chain(hosts) => hosts,
            Shape::Star(neighbours) => neighbours + 1,
        }
    }

    /// The two ends of each cable.
    fn wires(self) -> Vec<(usize, usize)> {
        match self.shape {
            Shape::Chain(hosts) => (1..hosts).map(|host| (host - 1, host)).collect(),
            Shape::Star(neighbours) => (1..=neighbours).map(|host| (0, host)).collect(),
        }
    }
}

/// A host's end of a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// The interface.
    pub(crate) name: String,
    /// The host at the other end.
    pub(crate) far: usize,
    /// The own address on the cable.
    pub(crate) address: Ipv4Addr,
    /// The other end's.
    pub(crate) far_address: Ipv4Addr,
    /// The cable's number.
    pub(crate) wire: usize,
    /// Whether this is the end that calls, where one end has to.
    pub(crate) calls: bool,
}

/// A network namespace with its files and cables.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
    directory: PathBuf,
    number: usize,
    ports: Vec<Port>,
}

impl Host {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A directory for its files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its number in the lab.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Its ends of cables.
    pub(crate) fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The address for overlays that do not choose one themselves.
    pub(crate) fn overlay(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, byte(self.number + 1))
    }

    /// Writes a file of the host and gives its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// Hosts and cables; removed when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    hosts: Vec<Host>,
    plan: Plan,
    // Behind the hosts: their processes write here.
    directory: TempDir,
}

impl Lab {
    /// Lays it out. Nothing runs in it yet.
    ///
    /// # Errors
    /// If `ip` or `ethtool` fails.
    pub(crate) fn build(plan: Plan) -> Result<Self> {
        anyhow::ensure!(plan.hosts() <= MAX_HOSTS, "a lab has at most {MAX_HOSTS} hosts");
        let directory = scratch()?;
        let mut lab = Self { hosts: Vec::new(), plan, directory };
        for number in 0..plan.hosts() {
            let namespace = Namespace::new(&format!("b{number}"))?;
            for (key, value) in [
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
                // Link-local addresses are usable at once.
                ("net.ipv6.conf.default.accept_dad", "0"),
            ] {
                namespace.sysctl(key, value)?;
            }
            let directory = lab.directory.path().join(number.to_string());
            fs::create_dir(&directory).context("making a host's directory")?;
            lab.hosts.push(Host { namespace, directory, number, ports: Vec::new() });
        }
        for (wire, (a, b)) in plan.wires().into_iter().enumerate() {
            lab.lay(wire, a, b)?;
        }
        Ok(lab)
    }

    fn lay(&mut self, wire: usize, a: usize, b: usize) -> Result<()> {
        let port = |near: usize, far: usize, side: u8| Port {
            name: format!("l{near}to{far}"),
            far,
            address: Ipv4Addr::new(10, 99, byte(wire), side),
            far_address: Ipv4Addr::new(10, 99, byte(wire), 3 - side),
            wire,
            calls: side == 1,
        };
        let (left, right) = (port(a, b, 1), port(b, a, 2));
        self.hosts[a].namespace.ip(&format!(
            "link add name {} mtu 1500 type veth peer name {} mtu 1500 netns {}",
            left.name,
            right.name,
            self.hosts[b].namespace.name()
        ))?;
        for (host, port) in [(a, left), (b, right)] {
            let host = &mut self.hosts[host];
            host.namespace.ip(&format!("addr add {}/24 dev {}", port.address, port.name))?;
            if self.plan.card != Card::Offload {
                let gro = if self.plan.card == Card::Plain { "on" } else { "off" };
                let settings = format!("tso off gso off tx-udp-segmentation off gro {gro}");
                host.namespace.sh(&format!("ethtool -K {} {settings}", port.name))?;
            }
            host.namespace.ip(&format!("link set {} up", port.name))?;
            host.ports.push(port);
        }
        Ok(())
    }

    /// The hosts, in order.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The end of a cable by which the shortest way from a host to another begins.
    ///
    /// # Errors
    /// If there is no way.
    pub(crate) fn next(&self, from: usize, to: usize) -> Result<&Port> {
        let next =
            next_hop(&self.plan.wires(), self.plan.hosts(), from, to).context("hosts without a way between them")?;
        self.hosts[from].ports.iter().find(|port| port.far == next).context("a cable that was not laid")
    }

    /// Limits every cable, both ways, to 100 Mbit/s with a queue of 50 ms.
    ///
    /// # Errors
    /// If `tc` fails.
    pub(crate) fn slow_down(&self) -> Result<()> {
        for host in &self.hosts {
            for port in &host.ports {
                host.namespace
                    .sh(&format!("tc qdisc add dev {} root tbf rate 100mbit burst 16kb latency 50ms", port.name))?;
            }
        }
        Ok(())
    }
}

/// The neighbour of `from` that is nearest to `to`; of several the first.
fn next_hop(wires: &[(usize, usize)], hosts: usize, from: usize, to: usize) -> Option<usize> {
    let mut towards = vec![None; hosts];
    let mut queue = VecDeque::from([to]);
    towards[to] = Some(to);
    while let Some(host) = queue.pop_front() {
        if host == from {
            return towards[host];
        }
        for &(a, b) in wires {
            for (near, far) in [(a, b), (b, a)] {
                if near == host && towards[far].is_none() {
                    towards[far] = Some(host);
                    queue.push_back(far);
                }
            }
        }
    }
    None
}

/// A number below [`MAX_HOSTS`] as a byte of an address.
fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_the_shortest() {
        let chain = Plan::chain(4);
        assert_eq!(chain.wires(), [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(next_hop(&chain.wires(), 4, 0, 3), Some(1));
        assert_eq!(next_hop(&chain.wires(), 4, 2, 0), Some(1));
        assert_eq!(next_hop(&chain.wires(), 4, 2, 3), Some(3));
        let star = Plan::star(50);
        assert_eq!((star.hosts(), star.wires().len()), (51, 50));
        assert_eq!(next_hop(&star.wires(), 51, 17, 40), Some(0));
        assert_eq!(next_hop(&star.wires(), 51, 0, 40), Some(40));
        assert_eq!(next_hop(&[(0, 1), (2, 3)], 4, 0, 3), None);
    }
}
