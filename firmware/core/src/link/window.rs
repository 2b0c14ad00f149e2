//! The sliding window against replayed frames (RFC 6479).

use alloc::{boxed::Box, vec};

/// Which of the last `BITS` counters of one direction under one key were seen.
///
/// A ring of 64-bit words, one more than `BITS` needs, so that sliding clears whole words. A counter that lies `BITS`
/// or more behind the highest one is refused.
///
/// Order of calls for a frame: [`may_accept`](Self::may_accept) to save the decryption of an old one, authenticate,
/// then [`accept`](Self::accept), whose answer alone counts.
#[derive(Clone, Debug)]
pub struct ReplayWindow<const BITS: usize> {
    words: Box<[u64]>,
    /// One more than the highest counter seen; zero: none yet.
    next: u64,
}

impl<const BITS: usize> ReplayWindow<BITS> {
    const WORDS: usize = BITS.div_ceil(64) + 1;

    /// A window that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { words: vec![0; Self::WORDS].into_boxed_slice(), next: 0 }
    }

    /// The highest counter accepted so far.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Whether [`accept`](Self::accept) would accept the counter now.
    #[must_use]
    pub fn may_accept(&self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false; // Noise reserves the last nonce.
        }
        if counter >= self.next {
            return true;
        }
        let behind = self.next - 1 - counter;
        behind < BITS as u64 && self.words[Self::word(counter)] & Self::bit(counter) == 0
    }

    /// Marks the counter of a frame that authenticated. `false`: it is too old or was accepted before.
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.may_accept(counter) {
            return false;
        }
        if counter >= self.next {
            // The word that the highest counter lies in is in use; those behind it up to the new one's start empty.
            let from = self.next.saturating_sub(1) / 64;
            let steps = (counter / 64 - from).min(Self::WORDS as u64);
            for step in 0..steps {
                self.words[Self::word((counter / 64 - step) * 64)] = 0;
            }
            self.next = counter + 1;
        }
        self.words[Self::word(counter)] |= Self::bit(counter);
        true
    }

    fn word(counter: u64) -> usize {
        // The remainder is below WORDS, which is a usize.
        ((counter / 64) % Self::WORDS as u64) as usize
    }

    fn bit(counter: u64) -> u64 {
        1 << (counter % 64)
    }
}

impl<const BITS: usize> Default for ReplayWindow<BITS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// What the window must do, with all the memory in the world.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64, bits: u64) -> bool {
            let too_old = self.seen.last().is_some_and(|highest| highest.saturating_sub(counter) >= bits);
            !too_old && counter != u64::MAX && self.seen.insert(counter)
        }
    }

    /// Counters as links see them: mostly the next, some late, some repeated, a leap now and then.
    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            6 => 1..3_i64,
            3 => -80..0_i64,
            2 => -400..400_i64,
            1 => -10_000..10_000_i64,
            1 => Just(0_i64),
        ];
        (prop_oneof![0..3_u64, Just(1 << 40), Just(u64::MAX - 2000)], proptest::collection::vec(step, 1..400)).prop_map(
            |(start, steps)| {
                let mut at = start;
                steps
                    .into_iter()
                    .map(|step| {
                        at = at.saturating_add_signed(step);
                        at
                    })
                    .collect()
            },
        )
    }

    fn same_as_model<const BITS: usize>(counters: &[u64]) -> Result<(), TestCaseError> {
        let (mut window, mut model) = (ReplayWindow::<BITS>::new(), Model::default());
        for &counter in counters {
            let may = window.may_accept(counter);
            let accepted = window.accept(counter);
            prop_assert_eq!(may, accepted);
            prop_assert_eq!(accepted, model.accept(counter, BITS as u64), "counter {}", counter);
        }
        prop_assert_eq!(window.highest(), model.seen.last().copied());
        Ok(())
    }

    proptest! {
        #[test]
        fn small_windows_do_as_the_model(counters in counters()) {
            same_as_model::<64>(&counters)?;
            same_as_model::<100>(&counters)?;
            same_as_model::<256>(&counters)?;
        }

        #[test]
        fn the_links_windows_do_as_the_model(counters in counters()) {
            same_as_model::<2048>(&counters)?;
            same_as_model::<8192>(&counters)?;
        }
    }

    #[test]
    fn the_last_counter_in_the_window_is_taken_and_the_next_is_not() {
        let mut window = ReplayWindow::<2048>::new();
        assert!(window.accept(5000));
        assert!(window.accept(5000 - 2047));
        assert!(!window.accept(5000 - 2048));
    }
}
