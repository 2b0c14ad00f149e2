//! How much a seal carries, which decides whether it gets a WireGuard interface.

use std::time::{Duration, Instant};

/// A seal that carried nothing for so long gives its interface up.
const IDLE: Duration = Duration::from_secs(120);

/// After so long what was carried counts half.
const HALF: Duration = Duration::from_secs(10);

/// What a session carried lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    /// Bytes of packets that it has carried in all, as they were seen last.
    bytes: u64,
    /// Those of late, older ones counted less.
    recent: u64,
    halved: Instant,
    used: Option<Instant>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: 0, recent: 0, halved: now, used: None }
    }

    /// Takes what was carried in all until now.
    pub(super) fn carried(&mut self, now: Instant, bytes: u64) {
        let halves = now.duration_since(self.halved).as_secs() / HALF.as_secs();
        self.recent = self.recent.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0);
        self.halved += HALF.saturating_mul(u32::try_from(halves).unwrap_or(u32::MAX));
        let more = bytes.saturating_sub(self.bytes);
        self.bytes = self.bytes.max(bytes);
        if more > 0 {
            self.recent = self.recent.saturating_add(more);
            self.used = Some(now);
        }
    }

    /// Whether it was used lately.
    pub(super) fn in_use(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now < used + IDLE)
    }

    /// Bytes carried lately.
    pub(super) fn recent(&self) -> u64 {
        self.recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_long_ago_counts_less_and_less() {
        let start = Instant::now();
        let mut activity = Activity::new(start);
        assert!(!activity.in_use(start));
        activity.carried(start, 1000);
        assert!(activity.in_use(start) && activity.recent() == 1000);
        activity.carried(start + HALF, 1000);
        assert_eq!(activity.recent(), 500);
        activity.carried(start + 3 * HALF, 1100);
        assert_eq!(activity.recent(), 125 + 100);
        assert!(activity.in_use(start + 3 * HALF + IDLE - Duration::from_secs(1)));
        activity.carried(start + IDLE + 3 * HALF, 1100);
        assert!(!activity.in_use(start + IDLE + 3 * HALF));
        activity.carried(start + Duration::from_secs(1 << 31), 1100);
        assert_eq!(activity.recent(), 0);
    }
}
