//! A limit of rate.

use core::time::Duration;

use crate::Instant;

/// Lets `burst` through at once and one more every `interval`.
pub(crate) struct TokenBucket {
    interval: Duration,
    burst: u32,
    /// When the bucket will be full.
    full_at: Instant,
}

impl TokenBucket {
    pub(crate) const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, full_at: Instant::START }
    }

    /// Takes a token; `false`: there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let missing = self.full_at.since(now);
        if missing + self.interval > self.interval * self.burst {
            return false;
        }
        self.full_at = now + missing + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = TokenBucket::new(Duration::from_millis(100), 5);
        let start = Instant::from_micros(7);
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 5);
        let taken = (0..10_000_u64).filter(|ms| bucket.take(start + Duration::from_millis(*ms))).count();
        assert!((99..=100).contains(&taken), "{taken}");
        assert_eq!((0..20).filter(|_| bucket.take(start + Duration::from_secs(60))).count(), 5);
    }
}
