//! Towns with real keys and certificates.

use grange_core::{
    Identity, Town,
    certificate::{Steward, by_invitation, by_steward},
};

use grange_wire::TownName;

use crate::Dice;

/// A node's seed and membership.
#[derive(Clone)]
pub struct Member {
    /// The 32-byte seed of the node's keys.
    pub seed: [u8; 32],
    /// The membership, with a certificate for those keys.
    pub town: Town,
}

/// A town of `members` nodes, made from the seed: every third came by an invitation, the others by the steward.
#[must_use]
pub fn town(members: usize, seed: u64) -> Vec<Member> {
    let mut dice = Dice::new(seed, 0x7077);
    let steward = Steward::from_seed(&dice.seed());
    let key = dice.seed();
    let name = TownName::new("simulated").expect("a plain name");
    let invitation = steward.invite(&key, name, 0, 0, &dice.seed());
    (0..members)
        .map(|number| {
            let seed = dice.seed();
            let identity = Identity::from_seed(&seed);
            let certificate = if number % 3 == 2 {
                by_invitation(&invitation, &identity, 0).expect("the invitation is the steward's")
            } else {
                by_steward(&steward, &identity, 0)
            };
            Member { seed, town: Town { id: steward.town(), name: "simulated".into(), key, certificate } }
        })
        .collect()
}
