//! The whole town, removed when dropped.

use std::{
    net::Ipv6Addr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Cut, Internet, Laptop, Namespace, Node, Prober, TownBuilder, Wire, wait_until};

/// Nodes, laptops, wires and the Internet. Everything ends and goes away when it is dropped.
// The order of the fields is the order of their end: processes before wires, wires before their namespaces' files.
#[derive(Debug)]
pub struct Town {
    pub(crate) nodes: Vec<Node>,
    pub(crate) laptops: Vec<Laptop>,
    pub(crate) internet: Option<Internet>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) hub: Arc<Namespace>,
    pub(crate) directory: TempDir,
}

impl Town {
    /// An empty plan of a town.
    #[must_use]
    pub fn builder() -> TownBuilder {
        TownBuilder::default()
    }

    /// The nodes in the order of the plan.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by name.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// The laptops in the order of the plan.
    #[must_use]
    pub fn laptops(&self) -> &[Laptop] {
        &self.laptops
    }

    /// A laptop by name.
    ///
    /// # Errors
    /// If there is none.
    pub fn laptop(&self, name: &str) -> Result<&Laptop> {
        self.laptops.iter().find(|laptop| laptop.name() == name).with_context(|| format!("no laptop {name}"))
    }

    /// The Internet, if a node has an uplink.
    #[must_use]
    pub fn internet(&self) -> Option<&Internet> {
        self.internet.as_ref()
    }

    /// The wires in the order of the plan, uplinks last.
    #[must_use]
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }

    /// The (first) wire between two hosts.
    ///
    /// # Errors
    /// If there is none.
    pub fn wire(&self, a: &str, b: &str) -> Result<&Wire> {
        self.wires.iter().find(|wire| wire.joins(a, b)).with_context(|| format!("no wire between {a} and {b}"))
    }

    /// Cuts the wire between two hosts.
    ///
    /// # Errors
    /// If there is none or `ip` or `nft` fails.
    pub fn cut(&self, a: &str, b: &str, how: Cut) -> Result<()> {
        self.wire(a, b)?.cut(how)
    }

    /// Mends the wire between two hosts.
    ///
    /// # Errors
    /// If there is none or `ip` or `nft` fails.
    pub fn mend(&self, a: &str, b: &str) -> Result<()> {
        self.wire(a, b)?.mend()
    }

    /// A directory for a test's own files, removed with the town.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The namespace that all wires run through.
    #[must_use]
    pub fn hub(&self) -> &Namespace {
        &self.hub
    }

    /// The name that [`Self::found`] gives the town.
    pub const NAME: &'static str = "Netns Village";

    /// Founds the town on the first node and lets the others join by invitation, all through the command line. Agents
    /// need not run.
    ///
    /// # Errors
    /// If `grange town` fails.
    pub fn found(&self) -> Result<()> {
        let (first, others) = self.nodes.split_first().context("a town without nodes")?;
        first.grange(&["town", "found", Self::NAME])?;
        for node in others {
            self.invite(first, node)?;
        }
        Ok(())
    }

    /// Lets `guest` join the town of `host` by an invitation.
    ///
    /// # Errors
    /// If `grange town` fails.
    pub fn invite(&self, host: &Node, guest: &Node) -> Result<()> {
        let text = host.grange(&["town", "invite"])?;
        let invitation = text
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .find(|word| word.starts_with("grange1"))
            .with_context(|| format!("no invitation in what `grange town invite` said: {text}"))?;
        guest.grange(&["town", "join", invitation])?;
        Ok(())
    }

    /// Starts all agents, waits until each answers, and gives the laptops their IPv6 addresses. The moment given is
    /// the one before the first start.
    ///
    /// # Errors
    /// If an agent does not start.
    pub fn start(&self) -> Result<Instant> {
        let start = Instant::now();
        for node in &self.nodes {
            node.spawn()?;
        }
        for node in &self.nodes {
            node.wait_ready(Duration::from_secs(5))?;
        }
        for laptop in &self.laptops {
            laptop.configure_v6(self.node(laptop.node())?)?;
        }
        Ok(start)
    }

    /// Stops all agents that run with SIGTERM.
    ///
    /// # Errors
    /// If one does not end well.
    pub fn stop(&self) -> Result<()> {
        self.nodes.iter().filter(|node| node.is_running()).try_for_each(Node::stop)
    }

    /// Waits until each node whose agent runs reaches the address of each other one, and gives the time that took.
    ///
    /// # Errors
    /// If a pair does not within `limit`: which ones.
    pub fn wait_reachable(&self, limit: Duration) -> Result<Duration> {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.is_running()).collect();
        let start = Instant::now();
        let mut probers = running.iter().map(|node| Prober::new(node.namespace())).collect::<Result<Vec<_>>>()?;
        let addresses = running.iter().map(|node| node.address()).collect::<Result<Vec<Ipv6Addr>>>()?;
        let mut missing = Vec::new();
        let outcome = wait_until("all pairs of nodes to reach each other", limit, || {
            missing.clear();
            for (node, prober) in running.iter().zip(&mut probers) {
                let answers = prober.probe(&addresses, Duration::from_millis(100));
                for (other, answer) in running.iter().zip(answers) {
                    if answer.is_none() {
                        missing.push(format!("{} -> {}", node.name(), other.name()));
                    }
                }
            }
            Ok(missing.is_empty().then_some(()))
        });
        match outcome {
            Ok(_) => Ok(start.elapsed()),
            Err(error) => bail!("{error:#}; missing: {}", missing.join(", ")),
        }
    }

    /// The names of the nodes on the way from `from` to the owner of the route to `prefix` (as `fd12:...::/64` or
    /// `::/0`), both included, by the nodes' routing tables.
    ///
    /// # Errors
    /// If a node on the way has no route or the way is a loop.
    pub fn way(&self, from: &str, prefix: &str) -> Result<Vec<String>> {
        let mut way = vec![from.to_owned()];
        loop {
            let last = way.last().map(String::as_str).unwrap_or_default();
            let node = self.node(last)?;
            let routes = node.routes()?;
            let Some(route) = routes.iter().find(|route| route.selected && route.prefix == prefix) else {
                let own = node.status()?;
                let gateway = prefix.ends_with("/0") && own.gateway.sharing;
                if own.prefix == prefix || gateway {
                    return Ok(way);
                }
                bail!("{last} has no route to {prefix}");
            };
            let next = route.via.name.clone();
            if way.contains(&next) {
                bail!("a loop on the way to {prefix}: {way:?}, then {next}");
            }
            way.push(next);
        }
    }
}
