//! Forwarding loops: none may be, at any moment.

use grange_wire::Prefix;

use super::Sim;

impl Sim {
    /// The forwarding tables for one prefix must be a forest: walks it from every node.
    pub(super) fn check_loops(&self, prefix: Prefix) {
        const NEW: u32 = 0;
        let mut seen = vec![NEW; self.hosts.len()];
        for first in 0..self.hosts.len() {
            let mark = first as u32 + 1;
            let mut here = first;
            while seen[here] == NEW {
                seen[here] = mark;
                match self.next_hop(here, &prefix) {
                    Some(next) => here = next,
                    None => break,
                }
                if seen[here] == mark {
                    let mut path = vec![here];
                    while let Some(next) = self.next_hop(path[path.len() - 1], &prefix) {
                        path.push(next);
                        if next == here {
                            break;
                        }
                    }
                    panic!("{}: packets to {prefix} go round: {path:?}", self.context());
                }
            }
        }
    }

    /// The node that `host` hands packets to this prefix to; `None` if it keeps or drops them, or if the neighbour has
    /// started anew since the link was made and so has no key for them.
    pub(super) fn next_hop(&self, host: usize, prefix: &Prefix) -> Option<usize> {
        let it = &self.hosts[host];
        if it.node.is_none() || it.owns(prefix) {
            return None;
        }
        let link = it.links.get(&it.fib.get(prefix)?.via)?;
        let peer = &self.hosts[link.peer];
        (peer.node.is_some() && link.peer_run == Some(peer.run)).then_some(link.peer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use grange_core::{Cipher, DataKeys, Endpoint, IfaceId, LinkId};
    use grange_wire::{LinkIndex, RouterId};

    use super::*;
    use crate::{
        Setup, Topology, Walk,
        host::{PlaneLink, Route},
    };

    /// Four nodes on a ring, each with a link to the next whose keys fit, made by hand.
    fn by_hand() -> Sim {
        let mut sim = Setup::new(1, Topology::ring(4)).build();
        sim.run_for(Duration::from_micros(1));
        for host in 0..4 {
            sim.start(host);
            sim.hosts[host].links.clear();
        }
        for host in 0..4 {
            let next = (host + 1) % 4;
            let endpoint = Endpoint { iface: IfaceId(host as u32 + 2), addr: sim.address(next, host) };
            let (cipher, there, back) = (Cipher::ChaCha20Poly1305, LinkIndex(host as u32), LinkIndex(host as u32 + 10));
            let (seal, open) = ([1; 32], [2; 32]);
            let keys = DataKeys { cipher, local: back, remote: there, seal, open };
            sim.hosts[host].links.insert(LinkId(100), PlaneLink::new(next, Some(1), endpoint, keys, 1280));
            let endpoint = Endpoint { addr: sim.address(host, host), ..endpoint };
            let keys = DataKeys { cipher, local: there, remote: back, seal: open, open: seal };
            sim.hosts[next].links.insert(LinkId(101), PlaneLink::new(host, Some(1), endpoint, keys, 1280));
        }
        sim
    }

    fn route(sim: &mut Sim, host: usize, to: usize) {
        let [prefix, _] = sim.prefixes(to);
        let owner = sim.id(to);
        let route = Route { via: LinkId(100), metric: 1, owner, router_id: RouterId([0; 8]) };
        sim.hosts[host].fib.insert(prefix, route);
        sim.check_loops(prefix);
    }

    #[test]
    fn a_walk_follows_tables_and_keys() {
        let mut sim = by_hand();
        let [prefix, _] = sim.prefixes(3);
        route(&mut sim, 0, 3);
        assert_eq!(sim.walk(0, &prefix), Walk::NoRoute(1));
        route(&mut sim, 1, 3);
        route(&mut sim, 2, 3);
        assert_eq!(sim.walk(0, &prefix), Walk::Delivered(vec![0, 1, 2, 3]));
        sim.hosts[2].links.remove(&LinkId(101));
        assert_eq!(sim.walk(0, &prefix), Walk::Lost(1), "node 2 has no key for it");
    }

    #[test]
    #[should_panic(expected = "go round: [0, 1, 2, 3, 0]")]
    fn a_loop_is_found() {
        let mut sim = by_hand();
        // A destination that nobody has.
        let prefix = Prefix::DEFAULT_V4;
        for host in [1, 2, 3, 0] {
            let route = Route { via: LinkId(100), metric: 1, owner: sim.id(0), router_id: RouterId([0; 8]) };
            sim.hosts[host].fib.insert(prefix, route);
            sim.check_loops(prefix);
        }
    }

    #[test]
    fn the_last_hop_before_a_restarted_node_ends_a_loop() {
        let mut sim = by_hand();
        sim.kill(0);
        sim.start(0);
        for host in [1, 2, 3] {
            let route = Route { via: LinkId(100), metric: 1, owner: sim.id(0), router_id: RouterId([0; 8]) };
            sim.hosts[host].fib.insert(Prefix::DEFAULT_V4, route);
        }
        assert_eq!(sim.next_hop(3, &Prefix::DEFAULT_V4), None);
        assert_eq!(sim.next_hop(2, &Prefix::DEFAULT_V4), Some(3));
    }
}
