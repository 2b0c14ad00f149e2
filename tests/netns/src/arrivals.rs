//! How fast something arrived.

use std::time::{Duration, Instant};

/// Number of bytes that had arrived at each of many moments.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    marks: Vec<(Instant, u64)>,
}

/// What a disturbance did to a transfer; rates in bits a second over windows of [`Recovery::WINDOW`].
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// Median of the windows before.
    pub before: f64,
    /// Rate while it lasted; that before, if it was only a moment.
    pub during: f64,
    /// From the end of the disturbance to the end of the first window that has at least half of the median before.
    pub after: Option<Duration>,
    /// Median of the windows that follow a second after the end.
    pub later: f64,
}

impl Recovery {
    /// Length of a window.
    pub const WINDOW: Duration = Duration::from_millis(200);
}

impl Arrivals {
    /// Notes that by now `bytes` had arrived in all. Both only grow.
    pub(crate) fn note(&mut self, at: Instant, bytes: u64) {
        self.marks.push((at, bytes));
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.1)
    }

    /// The first and the last moment that were noted.
    #[must_use]
    pub fn span(&self) -> Option<(Instant, Instant)> {
        Some((self.marks.first()?.0, self.marks.last()?.0))
    }

    /// Bytes that had arrived at a moment, between two marks in proportion.
    fn at(&self, moment: Instant) -> f64 {
        let next = self.marks.partition_point(|(at, _)| *at <= moment);
        match (next.checked_sub(1).and_then(|last| self.marks.get(last)), self.marks.get(next)) {
            (Some((from, low)), Some((to, high))) => {
                let share = (moment - *from).as_secs_f64() / (*to - *from).as_secs_f64();
                *low as f64 + share * (high - low) as f64
            }
            (Some((_, all)), None) => *all as f64,
            (None, _) => 0.0,
        }
    }

    /// Bits a second between two moments.
    #[must_use]
    pub fn rate(&self, from: Instant, to: Instant) -> f64 {
        let time = to.saturating_duration_since(from).as_secs_f64();
        if time > 0.0 { (self.at(to) - self.at(from)) * 8.0 / time } else { 0.0 }
    }

    /// Median rate of the windows between two moments, one beginning each 20 ms; 0 if none fits in.
    #[must_use]
    pub fn median(&self, from: Instant, to: Instant) -> f64 {
        let mut rates: Vec<f64> = windows(from, to).map(|start| self.rate(start, start + Recovery::WINDOW)).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }

    /// What a disturbance from `began` to `ended` did, with the time since `steady` as measure and up to `to`.
    #[must_use]
    pub fn recovery(&self, steady: Instant, began: Instant, ended: Instant, to: Instant) -> Recovery {
        let before = self.median(steady, began);
        let back = windows(ended, to).find(|start| self.rate(*start, *start + Recovery::WINDOW) >= before / 2.0);
        Recovery {
            before,
            during: if ended > began { self.rate(began, ended) } else { before },
            after: back.map(|start| start + Recovery::WINDOW - ended),
            later: self.median(ended + Duration::from_secs(1), to),
        }
    }
}

/// The beginnings of the windows that lie between two moments.
fn windows(from: Instant, to: Instant) -> impl Iterator<Item = Instant> {
    (0..)
        .map(move |step| from + Duration::from_millis(20) * step)
        .take_while(move |start| *start + Recovery::WINDOW <= to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seen_where_it_was_and_recovery_counts_from_its_end() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut arrivals = Arrivals::default();
        // 1,000 bytes a millisecond, none from 1 s to 2.5 s.
        for ms in (0..5000).step_by(10) {
            let missed = if ms > 1000 { (ms - 1000).min(1500) } else { 0 };
            arrivals.note(at(ms), (ms - missed) * 1000);
        }
        let near = |a: f64, b: f64| (a - b).abs() < 1e3;
        assert!(near(arrivals.rate(at(100), at(105)), 8e6));
        assert!(near(arrivals.rate(at(1200), at(2400)), 0.0));
        assert!(near(arrivals.median(at(0), at(1000)), 8e6));
        let recovery = arrivals.recovery(at(0), at(1000), at(2000), at(4900));
        assert!(near(recovery.before, 8e6) && near(recovery.during, 0.0) && near(recovery.later, 8e6));
        // Half of a window is full 100 ms after the stream goes on, at 2.5 s.
        assert_eq!(recovery.after, Some(Duration::from_millis(600)));
        assert_eq!(arrivals.recovery(at(0), at(1000), at(2000), at(2400)).after, None);
    }
}
