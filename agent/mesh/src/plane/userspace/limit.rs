//! How often a router tells hosts of their errors (RFC 4443, section 2.4 f).

use std::time::Duration;

use grange_core::Instant;

/// A token bucket: `RATE` a second on average, `BURST` at once.
#[derive(Debug)]
pub(super) struct ErrorLimit {
    /// When the bucket would be full if nothing more were taken.
    full_at: Instant,
}

const RATE: u32 = 100;
const BURST: u32 = 50;
const TOKEN: Duration = Duration::from_micros(1_000_000 / RATE as u64);

impl ErrorLimit {
    /// A full bucket.
    pub(super) fn new() -> Self {
        Self { full_at: Instant::START }
    }

    /// Takes a token, if there is one.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + TOKEN;
        let allowed = full_at.since(now) <= TOKEN * BURST;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut limit = ErrorLimit::new();
        let mut now = Instant::from_micros(5);
        assert_eq!((0..1000).filter(|_| limit.allow(now)).count(), 50);
        let mut allowed = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            allowed += usize::from(limit.allow(now));
        }
        assert_eq!(allowed, 1000);
    }
}
