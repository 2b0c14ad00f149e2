//! What a neighbour retracted before it was heard to announce it: packets overtake each other, and the retraction was
//! acknowledged and will not come again. Without this, the announcement that comes late would stand until it expires.

use alloc::collections::BTreeMap;
use core::time::Duration;

use grange_wire::Prefix;

use crate::Instant;

/// Prefixes remembered for one neighbour; the oldest goes first.
const MAX: usize = 256;

/// No packet is under way for longer.
const MEMORY: Duration = Duration::from_secs(10);

/// The packets that retracted, by their counters.
#[derive(Debug, Default)]
pub(super) struct Withdrawn(BTreeMap<Prefix, (u32, Instant)>);

impl Withdrawn {
    /// The packet with this counter retracted a prefix that the neighbour has no route for.
    pub(super) fn remember(&mut self, now: Instant, prefix: Prefix, counter: u32) {
        if self.0.len() >= MAX && !self.0.contains_key(&prefix) {
            self.0.retain(|_, (_, since)| now.since(*since) < MEMORY);
            if self.0.len() >= MAX
                && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(prefix, _)| *prefix)
            {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(prefix, (counter, now));
    }

    /// The counter of the packet that retracted the prefix.
    pub(super) fn counter(&self, prefix: &Prefix) -> Option<u32> {
        self.0.get(prefix).map(|(counter, _)| *counter)
    }

    /// A later packet announced it.
    pub(super) fn forget(&mut self, prefix: &Prefix) {
        self.0.remove(prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_goes() {
        let mut withdrawn = Withdrawn::default();
        let prefix = |n: u32| Prefix::host(std::net::Ipv4Addr::from(n).into());
        let at = |n: u32| Instant::from_micros(u64::from(n));
        for n in 0..300 {
            withdrawn.remember(at(n), prefix(n), n);
        }
        assert_eq!(withdrawn.0.len(), MAX);
        assert_eq!((withdrawn.counter(&prefix(43)), withdrawn.counter(&prefix(44))), (None, Some(44)));
        withdrawn.remember(at(300) + MEMORY, prefix(300), 300);
        assert_eq!(withdrawn.0.len(), 1);
        withdrawn.forget(&prefix(300));
        assert_eq!(withdrawn.counter(&prefix(300)), None);
    }
}
