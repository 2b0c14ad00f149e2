//! What routing should find, computed the simple way: shortest paths over the whole graph.

use std::{cmp::Reverse, collections::BinaryHeap};

/// One direction of a link: what it costs `from` to send to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// Cost as `from` sees it.
    pub cost: u32,
}

/// The cost of the cheapest way from each node to `destination` (Dijkstra); `None` where there is no way.
#[must_use]
pub fn distances(nodes: usize, edges: &[Edge], destination: usize) -> Vec<Option<u32>> {
    let mut known = vec![None; nodes];
    let mut open = BinaryHeap::from([Reverse((0, destination))]);
    while let Some(Reverse((cost, here))) = open.pop() {
        if known[here].is_some() {
            continue;
        }
        known[here] = Some(cost);
        for edge in edges.iter().filter(|edge| edge.to == here && known[edge.from].is_none()) {
            open.push(Reverse((cost + edge.cost, edge.from)));
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_way_round_and_none_to_an_island() {
        let edge = |from, to, cost| Edge { from, to, cost };
        let edges = [edge(0, 1, 10), edge(1, 2, 10), edge(0, 2, 25), edge(2, 0, 1)];
        assert_eq!(distances(4, &edges, 2), [Some(20), Some(10), Some(0), None]);
        assert_eq!(distances(4, &edges, 0), [Some(0), Some(11), Some(1), None]);
    }
}
