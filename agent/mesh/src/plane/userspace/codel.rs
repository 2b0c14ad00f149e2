//! Controlled delay queue management (RFC 8289).

use std::time::Duration;

use grange_core::Instant;

/// A standing queue of this age is too much (RFC 8289, section 4.2).
const TARGET: Duration = Duration::from_millis(5);

/// How long it must stand before anything is dropped: the longest round trip that is common (section 4.3).
const INTERVAL: Duration = Duration::from_millis(100);

/// Decides at the head of a queue whether what waits there is sent or dropped.
#[derive(Debug, Default)]
pub(super) struct Codel {
    /// When the sojourn time will have been above the target for an interval.
    first_above: Option<Instant>,
    dropping: bool,
    next_drop: Instant,
    count: u64,
    last_count: u64,
}

impl Codel {
    /// Whether to drop what has waited for `sojourn`. `last`: no more than one packet is left behind it, and the queue
    /// does not stand. After a drop, ask again for the next.
    pub(super) fn drops(&mut self, now: Instant, sojourn: Duration, last: bool) -> bool {
        let above = self.stands(now, sojourn, last);
        if !above {
            self.dropping = false;
            return false;
        }
        if self.dropping {
            if now < self.next_drop {
                return false;
            }
            self.count += 1;
            self.next_drop += spacing(self.count);
            return true;
        }
        self.dropping = true;
        // A queue that was controlled a moment ago goes on near the rate that controlled it (section 5.5).
        let delta = self.count - self.last_count;
        let recent = now.since(self.next_drop) < INTERVAL * 16;
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.last_count = self.count;
        self.next_drop = now + spacing(self.count);
        true
    }

    fn stands(&mut self, now: Instant, sojourn: Duration, last: bool) -> bool {
        if sojourn < TARGET || last {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + INTERVAL);
                false
            }
            Some(moment) => now >= moment,
        }
    }
}

/// The time between drops: the interval over the square root of their number (section 4.1).
fn spacing(count: u64) -> Duration {
    let interval = u64::try_from(INTERVAL.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros((interval * interval / count.max(1)).isqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// A queue whose head has waited for `sojourn`, asked every millisecond; gives the moments of the drops.
    fn run(codel: &mut Codel, from: u64, to: u64, sojourn: u64) -> Vec<u64> {
        (from..to).filter(|now| codel.drops(at(*now), Duration::from_millis(sojourn), false)).collect()
    }

    #[test]
    fn a_short_or_passing_queue_loses_nothing() {
        let mut codel = Codel::default();
        assert!(run(&mut codel, 0, 1000, 4).is_empty());
        assert!(run(&mut codel, 1000, 1099, 50).is_empty());
        assert!(run(&mut codel, 1099, 1100, 4).is_empty());
        assert!(run(&mut codel, 1100, 1199, 50).is_empty());
        let mut last = Codel::default();
        assert!((0..1000).all(|now| !last.drops(at(now), Duration::from_secs(1), true)));
    }

    #[test]
    fn a_standing_queue_loses_ever_more_often() {
        let mut codel = Codel::default();
        let drops = run(&mut codel, 0, 600, 20);
        // 100, then 100/sqrt(1), 100/sqrt(2), 100/sqrt(3), ... later.
        assert_eq!(drops[..5], [100, 200, 271, 329, 379]);
        assert!(drops.windows(2).map(|pair| pair[1] - pair[0]).is_sorted_by(|a, b| a + 1 >= *b));
    }

    #[test]
    fn it_remembers_the_rate_for_a_while() {
        let mut codel = Codel::default();
        let first = run(&mut codel, 0, 1000, 20).len();
        run(&mut codel, 1000, 1010, 1);
        let again = run(&mut codel, 1010, 2010, 20).len();
        assert!(again > first);
        run(&mut codel, 2010, 9000, 1);
        assert_eq!(run(&mut codel, 9000, 10_000, 20).len(), first);
    }
}
