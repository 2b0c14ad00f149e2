//! Shapes of towns.

use crate::Dice;

/// Who is on which wire: a wire of two is a cable or a radio link, one of more a shared segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of nodes; they are called 0 to `nodes - 1`.
    pub nodes: usize,
    /// The nodes on each wire.
    pub wires: Vec<Vec<usize>>,
}

impl Topology {
    /// A town with these cables.
    #[must_use]
    pub fn cables(nodes: usize, cables: &[(usize, usize)]) -> Self {
        Self { nodes, wires: cables.iter().map(|&(a, b)| vec![a, b]).collect() }
    }

    /// One after the other.
    #[must_use]
    pub fn chain(nodes: usize) -> Self {
        Self { nodes, wires: (1..nodes).map(|b| vec![b - 1, b]).collect() }
    }

    /// A chain whose ends meet.
    #[must_use]
    pub fn ring(nodes: usize) -> Self {
        Self { nodes, wires: (0..nodes).map(|a| vec![a, (a + 1) % nodes]).collect() }
    }

    /// Rows and columns.
    #[must_use]
    pub fn grid(width: usize, height: usize) -> Self {
        let mut wires = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let here = y * width + x;
                if x + 1 < width {
                    wires.push(vec![here, here + 1]);
                }
                if y + 1 < height {
                    wires.push(vec![here, here + width]);
                }
            }
        }
        Self { nodes: width * height, wires }
    }

    /// Everybody has a cable to everybody.
    #[must_use]
    pub fn clique(nodes: usize) -> Self {
        let wires = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| vec![a, b])).collect();
        Self { nodes, wires }
    }

    /// Everybody on one shared segment.
    #[must_use]
    pub fn segment(nodes: usize) -> Self {
        Self { nodes, wires: vec![(0..nodes).collect()] }
    }

    /// Two ways from 0 to 3: wires 0 and 1 over node 1, wires 2 and 3 over node 2.
    #[must_use]
    pub fn diamond() -> Self {
        Self::cables(4, &[(0, 1), (1, 3), (0, 2), (2, 3)])
    }

    /// The demonstration's five routers: a ring of four with a tail. Node 0 has the laptop, node 4 the uplink; three hops
    /// lie between them whichever way round.
    #[must_use]
    pub fn demo() -> Self {
        Self::cables(5, &[(0, 1), (1, 3), (0, 2), (2, 3), (3, 4)])
    }

    /// Nodes at random places of a square, with a cable between those near each other. Always connected: the reach grows
    /// until it is.
    #[must_use]
    pub fn geometric(nodes: usize, dice: &mut Dice) -> Self {
        let places: Vec<(f64, f64)> = (0..nodes).map(|_| (dice.unit(), dice.unit())).collect();
        let mut reach = 1.2 / (nodes.max(1) as f64).sqrt();
        loop {
            let near = |a: usize, b: usize| {
                let (dx, dy) = (places[a].0 - places[b].0, places[a].1 - places[b].1);
                dx * dx + dy * dy <= reach * reach
            };
            let mut town = Self::clique(nodes);
            town.wires.retain(|wire| near(wire[0], wire[1]));
            if town.is_connected() {
                return town;
            }
            reach *= 1.1;
        }
    }

    /// A random town of 3 to `most` nodes: one of the shapes above, or a random connected graph with some shared
    /// segments in it.
    #[must_use]
    pub fn random(most: usize, dice: &mut Dice) -> Self {
        let nodes = 3 + dice.below(most.max(3) - 2);
        match dice.below(6) {
            0 => Self::ring(nodes),
            1 => Self::grid(2 + dice.below(3), (nodes / 3).max(2)),
            2 => Self::geometric(nodes, dice),
            3 => Self::clique(nodes.min(7)),
            _ => {
                // A random tree, then extra cables and a segment or two.
                let mut town = Self::cables(nodes, &[]);
                for b in 1..nodes {
                    town.wires.push(vec![dice.below(b), b]);
                }
                for _ in 0..dice.below(nodes + 1) {
                    let (a, b) = (dice.below(nodes), dice.below(nodes));
                    if a != b {
                        town.wires.push(vec![a, b]);
                    }
                }
                for _ in 0..dice.below(3) {
                    let mut members: Vec<usize> = (0..nodes).filter(|_| dice.chance(0.4)).collect();
                    members.truncate(6);
                    if members.len() >= 2 {
                        town.wires.push(members);
                    }
                }
                town
            }
        }
    }

    /// Whether everybody can reach everybody.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let mut seen = vec![false; self.nodes];
        let mut open = vec![0];
        while let Some(here) = open.pop() {
            if self.nodes > 0 && !std::mem::replace(&mut seen[here], true) {
                open.extend(self.wires.iter().filter(|wire| wire.contains(&here)).flatten());
            }
        }
        seen.into_iter().all(|seen| seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_wires_that_their_names_say() {
        assert_eq!(Topology::chain(10).wires.len(), 9);
        assert_eq!(Topology::ring(6).wires.len(), 6);
        assert_eq!(Topology::grid(10, 5).wires.len(), 9 * 5 + 10 * 4);
        assert_eq!(Topology::clique(7).wires.len(), 21);
        assert_eq!(Topology::segment(5).wires, [[0, 1, 2, 3, 4]]);
    }

    #[test]
    fn random_towns_are_connected() {
        for seed in 0..200 {
            let town = Topology::random(20, &mut Dice::new(seed, 0));
            assert!(town.is_connected(), "seed {seed}: {town:?}");
        }
    }
}
