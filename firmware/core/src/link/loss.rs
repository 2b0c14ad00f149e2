//! How much a link loses, and how many unanswered probes prove that it is dead.

/// Samples after which old ones count half.
const MEMORY: u32 = 256;

/// What an estimate starts with: two failures in four. A link is taken for a bad one until it shows better.
const PRIOR_FAILED: u32 = 2;
const PRIOR_TOTAL: u32 = 4;

/// Skipped counters that one frame may report: an outage that ended shall not count as everyday loss.
const SKIPPED_MAX: u64 = 4;

/// Even a link that loses nothing gets this many chances.
pub(crate) const PROBES_MIN: u32 = 4;

/// More are never sent: with a probe each 50 ms, silence is found within 1.3 s. Enough for a loss of a quarter each
/// way.
pub(crate) const PROBES_MAX: u32 = 18;

/// The share of round trips that fail, from probes and from gaps in the neighbour's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossEstimate {
    failed: u32,
    total: u32,
}

impl LossEstimate {
    /// A frame came, after `skipped` counters that did not (yet). What is lost one way is taken to be lost the other
    /// way too, so each counts for two failed round trips in one.
    pub(crate) fn received(&mut self, skipped: u64) {
        // At most SKIPPED_MAX.
        let skipped = skipped.min(SKIPPED_MAX) as u32;
        self.add(2 * skipped, 1 + skipped);
    }

    /// A frame came after later ones: what [`received`](Self::received) counted for its gap was no loss.
    pub(crate) fn overtaken(&mut self) {
        self.failed = self.failed.saturating_sub(2);
    }

    /// Of `total` probes, `failed` were not answered.
    pub(crate) fn probed(&mut self, failed: u32, total: u32) {
        self.add(failed, total);
    }

    fn add(&mut self, failed: u32, total: u32) {
        self.failed += failed;
        self.total += total;
        if self.total > MEMORY {
            self.failed /= 2;
            self.total /= 2;
        }
    }

    /// How many probes in a row must fail before a living link is less than a millionth as likely as a dead one.
    pub(crate) fn probes(&self) -> u32 {
        /// A probability of one, in the fixed point that is used here.
        const ONE: u64 = 1 << 40;
        let (failed, total) = (u64::from(self.failed + PRIOR_FAILED), u64::from(self.total + PRIOR_TOTAL));
        let failed = failed.min(total);
        let mut probability = ONE;
        for probes in 1..PROBES_MAX {
            probability = probability * failed / total;
            if probability < ONE / 1_000_000 && probes >= PROBES_MIN {
                return probes;
            }
        }
        PROBES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_follow_the_loss() {
        let fresh = LossEstimate::default();
        assert_eq!(fresh.probes(), PROBES_MAX);

        let mut clean = fresh;
        (0..300).for_each(|_| clean.received(0));
        assert_eq!(clean.probes(), 4);

        // 20 % each way: a round trip fails with 36 %, and 0.36^14 < 10^-6.
        let mut lossy = fresh;
        (0..2500).for_each(|n: u32| lossy.probed(u32::from(n % 25 < 9), 1));
        assert!((13..=15).contains(&lossy.probes()), "{}", lossy.probes());

        let mut gaps = fresh;
        (0..400).for_each(|n: u32| gaps.received(u64::from(n.is_multiple_of(4))));
        assert!((14..=17).contains(&gaps.probes()), "{}", gaps.probes());
    }

    #[test]
    fn reordering_is_no_loss() {
        let mut loss = LossEstimate::default();
        for _ in 0..20 {
            loss.received(1);
            loss.overtaken();
        }
        assert!(loss.probes() <= 6, "{}", loss.probes());
    }

    #[test]
    fn one_outage_does_not_spoil_the_estimate() {
        let mut loss = LossEstimate::default();
        (0..200).for_each(|_| loss.received(0));
        loss.received(u64::MAX);
        assert!(loss.probes() <= 6, "{}", loss.probes());
    }
}
