//! Random sequences of faults.

use std::{collections::BTreeSet, time::Duration};

use crate::{Dice, Quality, Topology};

/// One fault, or its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A wire's carrier goes; its ends see it.
    CarrierLost(usize),
    /// Nothing passes a wire any more; nobody is told.
    Silence(usize),
    /// Nothing passes in one direction.
    Deafen {
        /// On which wire.
        wire: usize,
        /// Who is not heard.
        from: usize,
        /// Who does not hear.
        to: usize,
    },
    /// The end of all cuts of a wire.
    Mend(usize),
    /// A wire gets better or worse.
    Quality(usize, Quality),
    /// Nothing passes between these nodes and the others.
    Partition(BTreeSet<usize>),
    /// The end of all cuts.
    MendAll,
    /// A process dies.
    Kill(usize),
    /// A node stops in order.
    Stop(usize),
    /// A node starts again.
    Start(usize),
    /// A node's address changes.
    Roam {
        /// Whose.
        host: usize,
        /// On which wire.
        wire: usize,
    },
}

/// Faults, each with the time to wait before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Script(pub Vec<(Duration, Step)>);

impl Script {
    /// A script of `steps` faults, 20 ms to 4 s apart: so many strike while the town still heals from the one before.
    #[must_use]
    pub fn random(topology: &Topology, steps: usize, dice: &mut Dice) -> Self {
        let mut script = Vec::new();
        for _ in 0..steps {
            let longest = Duration::from_millis(if dice.chance(0.5) { 300 } else { 4000 });
            let wait = dice.time(Duration::from_millis(20), longest);
            let host = dice.below(topology.nodes);
            let wire = dice.below(topology.wires.len());
            let members = &topology.wires[wire];
            let (from, to) = (dice.below(members.len()), dice.below(members.len()));
            let step = match dice.below(20) {
                0..4 => Step::CarrierLost(wire),
                4..7 => Step::Silence(wire),
                7 if from != to => Step::Deafen { wire, from: members[from], to: members[to] },
                7..12 => Step::Mend(wire),
                12 => Step::Quality(wire, Quality::BAD_RADIO.with_loss(dice.unit() * 0.5)),
                13 => Step::Partition((0..topology.nodes).filter(|_| dice.chance(0.5)).collect()),
                14 => Step::MendAll,
                15 => Step::Kill(host),
                16 => Step::Stop(host),
                17 | 18 => Step::Start(host),
                _ => Step::Roam { host: members[from], wire },
            };
            script.push((wait, step));
        }
        Self(script)
    }

    /// The script without the steps that it fails without: none of what is left can be left out alone.
    #[must_use]
    pub fn minimise(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut at = self.0.len();
        while at > 0 {
            at -= 1;
            let mut shorter = self.clone();
            let (wait, _) = shorter.0.remove(at);
            if let Some(next) = shorter.0.get_mut(at) {
                next.0 += wait;
            }
            if fails(&shorter) {
                self = shorter;
                at = at.min(self.0.len());
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_script_keeps_what_matters_and_when() {
        let script = Script::random(&Topology::ring(6), 30, &mut Dice::new(1, 1));
        let end = |script: &Script| script.0.iter().map(|(wait, _)| *wait).sum::<Duration>();
        let third = script.0[3].1.clone();
        let least = script.clone().minimise(|script| script.0.iter().any(|(_, step)| *step == third));
        assert_eq!(least.0.len(), 1);
        let before = script.0.iter().rposition(|(_, step)| *step == third).expect("it is there");
        let first = script.0.iter().position(|(_, step)| *step == third).expect("it is there");
        let moments = [first, before].map(|at| end(&Script(script.0[..=at].to_vec())));
        assert!(moments.contains(&end(&least)));
    }
}
