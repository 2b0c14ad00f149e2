//! The same seed gives the same run, to the byte: without that no failure could be run again.

use std::time::Duration;

use grange_sim::{Dice, Quality, Script, Setup, Topology};

fn hash(seed: u64) -> [u8; 32] {
    let topology = Topology::random(8, &mut Dice::new(seed, 9));
    let script = Script::random(&topology, 12, &mut Dice::new(seed, 10));
    let mut sim = Setup::new(seed, topology).quality(Quality::BAD_RADIO).build();
    sim.flow(0, 2, Duration::from_millis(50), 200);
    sim.sealed_flow(1, 2, Duration::from_millis(50), 1300);
    sim.run_for(Duration::from_secs(10));
    for (wait, step) in &script.0 {
        sim.run_for(*wait);
        sim.apply(step);
    }
    sim.run_for(Duration::from_secs(10));
    sim.trace_hash()
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..4 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(0), hash(1));
}
