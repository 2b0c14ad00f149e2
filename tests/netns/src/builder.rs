//! What a town is made of.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    Binary, Internet, Laptop, Namespace, Node, Town, Wire, WireSpec, ensure_tools, janitor, laptop::LAN_BRIDGE,
    wait_until, wire::End,
};

/// The interface of a gateway's uplink.
const UPLINK: &str = "wan";

/// A node before it is built.
#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    name: String,
    config: String,
}

impl NodeSpec {
    /// A node of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), config: String::new() }
    }

    /// Lines of TOML that come after the node's name. Tables that the builder writes too (`[lan]`, `[uplink]`) are left
    /// out of what it writes.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }
}

/// Collects nodes, wires, laptops and uplinks, and builds the town.
#[derive(Debug, Default)]
pub struct TownBuilder {
    nodes: Vec<NodeSpec>,
    wires: Vec<(String, String, WireSpec)>,
    uplinks: Vec<(String, WireSpec)>,
    laptops: Vec<(String, String)>,
    binary: Option<Binary>,
}

impl TownBuilder {
    /// Adds a node with the default configuration.
    #[must_use]
    pub fn node(self, name: &str) -> Self {
        self.node_with(NodeSpec::new(name))
    }

    /// Adds several nodes with the default configuration.
    #[must_use]
    pub fn nodes(self, names: &[&str]) -> Self {
        names.iter().fold(self, |builder, name| builder.node(name))
    }

    /// Adds a node.
    #[must_use]
    pub fn node_with(mut self, spec: NodeSpec) -> Self {
        self.nodes.push(spec);
        self
    }

    /// Joins two nodes by a plain wire.
    #[must_use]
    pub fn link(self, a: &str, b: &str) -> Self {
        self.link_with(a, b, WireSpec::default())
    }

    /// Joins several pairs of nodes by plain wires.
    #[must_use]
    pub fn links(self, pairs: &[(&str, &str)]) -> Self {
        pairs.iter().fold(self, |builder, (a, b)| builder.link(a, b))
    }

    /// Joins two nodes.
    #[must_use]
    pub fn link_with(mut self, a: &str, b: &str, spec: WireSpec) -> Self {
        self.wires.push((a.to_owned(), b.to_owned(), spec));
        self
    }

    /// Makes a node a gateway: an uplink to the Internet, which it shares. The wire's name is `NODE-internet`.
    #[must_use]
    pub fn uplink(mut self, node: &str) -> Self {
        self.uplinks.push((node.to_owned(), WireSpec::default()));
        self
    }

    /// Puts a laptop on the LAN of a node.
    #[must_use]
    pub fn laptop(mut self, name: &str, node: &str) -> Self {
        self.laptops.push((name.to_owned(), node.to_owned()));
        self
    }

    /// Tests this program instead of the one that [`Binary::find`] finds.
    #[must_use]
    pub fn binary(mut self, binary: Binary) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Builds namespaces, wires, LANs and the Internet. No agent is started. Gives the town when every interface is
    /// usable.
    ///
    /// # Errors
    /// [`Unavailable`](crate::Unavailable) where this machine lacks tools or rights; names that do not fit; a program
    /// that fails. What was built so far is removed.
    pub fn build(self) -> Result<Town> {
        ensure_tools()?;
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => Binary::find()?,
        };
        janitor::start()?;
        let directory = tempfile::Builder::new()
            .prefix(&janitor::directory_prefix())
            .tempdir()
            .context("making the town's directory")?;

        let hub = Arc::new(Namespace::new("hub")?);
        // Nobody lives in the hub: it shall send nothing of its own.
        hub.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        hub.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;

        let mut spaces: BTreeMap<String, Arc<Namespace>> = BTreeMap::new();
        let mut nodes = Vec::new();
        for spec in &self.nodes {
            let space = Arc::new(Namespace::new(&spec.name)?);
            as_debian(&space)?;
            let path = directory.path().join(&spec.name);
            fs::create_dir(&path).with_context(|| format!("two nodes are named {}", spec.name))?;
            nodes.push(Node::new(&spec.name, &space, path, binary.clone(), &self.config(spec))?);
            spaces.insert(spec.name.clone(), space);
        }

        let mut wires = Vec::new();
        for (a, b, spec) in &self.wires {
            let ends = [(a, b), (b, a)].map(|(host, other)| {
                let twins = wires.iter().filter(|wire: &&Wire| wire.joins(a, b)).count();
                End { host: host.clone(), interface: interface_name(other, twins) }
            });
            let wire = lay(&hub, &spaces, wires.len(), ends, spec)?;
            wires.push(wire);
        }

        let mut internet = None;
        if !self.uplinks.is_empty() {
            let space = Arc::new(Namespace::new(Internet::NAME)?);
            spaces.insert(Internet::NAME.to_owned(), Arc::clone(&space));
            let built = Internet::new(&space)?;
            for (number, (node, spec)) in self.uplinks.iter().enumerate() {
                let provider = format!("customer{number}");
                let ends = [
                    End { host: node.clone(), interface: UPLINK.to_owned() },
                    End { host: Internet::NAME.to_owned(), interface: provider.clone() },
                ];
                wires.push(lay(&hub, &spaces, wires.len(), ends, spec)?);
                let number = u8::try_from(number).ok().filter(|n| *n < 16).context("at most 16 uplinks")?;
                built.connect(number, &provider, find(&spaces, node)?, UPLINK)?;
            }
            internet = Some(built);
        }

        let laptops = self.build_lans(&nodes)?;

        for node in &nodes {
            let guests: Vec<&Laptop> = laptops.iter().filter(|laptop| laptop.node() == node.name()).collect();
            let mut interfaces: Vec<String> = guests.iter().map(|guest| interface_name(guest.name(), 0)).collect();
            interfaces.extend((!guests.is_empty()).then(|| LAN_BRIDGE.to_owned()));
            interfaces.extend(wires.iter().filter_map(|wire| wire.interface(node.name()).map(str::to_owned)));
            for interface in interfaces {
                wait_until("duplicate address detection", Duration::from_secs(10), || {
                    node.namespace().link_local(&interface).map(Some)
                })?;
            }
        }
        Ok(Town { nodes, laptops, internet, wires, hub, directory })
    }

    fn build_lans(&self, nodes: &[Node]) -> Result<Vec<Laptop>> {
        let mut laptops = Vec::new();
        let mut hosts: BTreeMap<&str, u8> = BTreeMap::new();
        for (name, node_name) in &self.laptops {
            let position = nodes.iter().position(|node| node.name() == node_name);
            let position = position.with_context(|| format!("{name} is a laptop of the unknown node {node_name}"))?;
            let (node, lan) = (&nodes[position], u8::try_from(position + 1).context("too many nodes with a LAN")?);
            let router = node.namespace();
            let count = hosts.entry(node_name).or_insert(0);
            if *count == 0 {
                router.ip(&format!("link add name {LAN_BRIDGE} type bridge"))?;
                router.ip(&format!("link set {LAN_BRIDGE} up"))?;
                router.ip(&format!("addr add 192.168.{lan}.1/24 dev {LAN_BRIDGE}"))?;
            }
            *count += 1;
            let space = Arc::new(Namespace::new(name)?);
            space.sysctl("net.ipv6.conf.default.accept_ra", "0")?;
            let port = interface_name(name, 0);
            router.ip(&format!("link add {port} type veth peer name eth0 netns {}", space.name()))?;
            router.ip(&format!("link set {port} master {LAN_BRIDGE} up"))?;
            space.ip("link set eth0 up")?;
            laptops.push(Laptop::new(name, node, &space, lan, 1 + *count)?);
        }
        Ok(laptops)
    }

    /// A node's configuration file.
    fn config(&self, spec: &NodeSpec) -> String {
        let mut text = format!("name = \"{}\"\n{}", spec.name, spec.config);
        if self.laptops.iter().any(|(_, node)| *node == spec.name) && !text.contains("[lan]") {
            text += &format!("\n[lan]\ninterfaces = [\"{LAN_BRIDGE}\"]\n");
        }
        if self.uplinks.iter().any(|(node, _)| *node == spec.name) && !text.contains("[uplink]") {
            text += &format!("\n[uplink]\nshare = true\ninterface = \"{UPLINK}\"\n");
        }
        text
    }
}

/// Sets what a Debian machine sets and what a new namespace would otherwise copy from the machine under test.
fn as_debian(space: &Namespace) -> Result<()> {
    for (key, value) in [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv6.conf.all.forwarding", "0"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net.ipv4.conf.default.rp_filter", "2"),
    ] {
        space.sysctl(key, value)?;
    }
    Ok(())
}

/// `to-OTHER`, within the kernel's 15 bytes.
fn interface_name(other: &str, twins: usize) -> String {
    let suffix = if twins == 0 { String::new() } else { twins.to_string() };
    let room = 15 - "to-".len() - suffix.len();
    format!("to-{}{suffix}", other.chars().take(room).collect::<String>())
}

fn find<'a>(spaces: &'a BTreeMap<String, Arc<Namespace>>, name: &str) -> Result<&'a Namespace> {
    spaces.get(name).map(|space| &**space).with_context(|| format!("a wire ends at the unknown host {name}"))
}

fn lay(
    hub: &Arc<Namespace>,
    spaces: &BTreeMap<String, Arc<Namespace>>,
    number: usize,
    ends: [End; 2],
    spec: &WireSpec,
) -> Result<Wire> {
    if ends[0].host == ends[1].host {
        bail!("a wire from {} to itself", ends[0].host);
    }
    let [a, b] = ends;
    let (a_space, b_space) = (find(spaces, &a.host)?, find(spaces, &b.host)?);
    Wire::lay(hub, number, &[(a, a_space), (b, b_space)], spec)
}
