//! Round-trip time of a link: a cost (RFC 9616) and a time to wait for an acknowledgement.

use core::time::Duration;

/// Round trips up to here cost nothing (RFC 9616, section 6).
const RTT_MIN: Duration = Duration::from_millis(10);
/// Round trips from here on cost [`MAX_PENALTY`].
const RTT_MAX: Duration = Duration::from_millis(120);
/// What a round trip adds to a link's cost at most.
const MAX_PENALTY: u16 = 150;
/// Samples beyond this are the work of a broken clock.
const SANE: u32 = 10_000_000;

/// Before anything was measured.
const RTO_INITIAL: Duration = Duration::from_millis(250);
const RTO_MIN: Duration = Duration::from_millis(30);
const RTO_MAX: Duration = Duration::from_secs(1);

/// Estimates from measured round trips.
#[derive(Clone, Debug, Default)]
pub(super) struct Rtt {
    /// RFC 9616, section 4: microseconds, smoothed with alpha 0.836.
    smoothed: Option<u32>,
    /// RFC 6298: smoothed round trip and its variation, microseconds.
    estimate: Option<(u32, u32)>,
}

impl Rtt {
    /// Takes the four timestamps of an exchange (RFC 9616, section 4): when we sent a Hello, when it came, when the answer
    /// left, and now; the middle two by the neighbour's clock. Gives the smoothed time if the sample was sane.
    pub(super) fn exchange(&mut self, origin: u32, receive: u32, transmit: u32, now: u32) -> Option<Duration> {
        let total = now.wrapping_sub(origin);
        let remote = transmit.wrapping_sub(receive);
        // A total of minutes is a Hello of long ago: clocks drift apart by more than a round trip meanwhile.
        if total > 60 * 1_000_000 || remote > total || total - remote > SANE {
            return None;
        }
        let sample = total - remote;
        let smoothed = self.smoothed.map_or(sample, |old| {
            u32::try_from((u64::from(old) * 836 + u64::from(sample) * 164) / 1000).unwrap_or(SANE)
        });
        self.smoothed = Some(smoothed);
        self.acknowledged(sample);
        self.smoothed()
    }

    /// Takes the time, in microseconds, between a packet and its acknowledgement.
    pub(super) fn acknowledged(&mut self, sample: u32) {
        let sample = sample.min(SANE);
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((mean, variation)) => ((mean * 7 + sample) / 8, (variation * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    /// The smoothed round-trip time.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|micros| Duration::from_micros(u64::from(micros)))
    }

    /// What the round trip adds to the cost of a tunnel: nothing up to 10 ms, 150 from 120 ms on, linear between.
    pub(super) fn penalty(&self) -> u16 {
        let Some(rtt) = self.smoothed() else { return 0 };
        let over = rtt.saturating_sub(RTT_MIN).min(RTT_MAX - RTT_MIN);
        let share = over.as_micros() * u128::from(MAX_PENALTY) / (RTT_MAX - RTT_MIN).as_micros();
        u16::try_from(share).unwrap_or(MAX_PENALTY)
    }

    /// How long to wait for an acknowledgement that was asked for `tries` times before without success.
    pub(super) fn retransmit_after(&self, tries: u8) -> Duration {
        let base = self.estimate.map_or(RTO_INITIAL, |(mean, variation)| {
            Duration::from_micros(u64::from(mean) + u64::from(variation) * 4) + Duration::from_millis(5)
        });
        (base.max(RTO_MIN) * (1 << tries.min(6))).min(RTO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbours_clock_cancels_out() {
        let mut rtt = Rtt::default();
        let neighbour = 0xffff_fff0_u32;
        let answer = rtt.exchange(1_000, neighbour, neighbour.wrapping_add(500_000), 521_000);
        assert_eq!(answer, Some(Duration::from_millis(20)));
        assert_eq!(rtt.penalty(), 13);
    }

    #[test]
    fn insane_samples_are_ignored() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.exchange(0, 0, 600_000, 500_000), None);
        assert_eq!(rtt.exchange(500, 0, 0, 0), None);
        assert_eq!(rtt.exchange(0, 0, 0, 20_000_000), None);
        assert_eq!(rtt.smoothed(), None);
    }

    #[test]
    fn the_penalty_is_bounded_and_moves_slowly() {
        let mut rtt = Rtt::default();
        rtt.exchange(0, 0, 0, 5_000);
        assert_eq!(rtt.penalty(), 0);
        rtt.exchange(0, 0, 0, 1_000_000);
        assert_eq!(rtt.smoothed(), Some(Duration::from_micros(168_180)));
        assert_eq!(rtt.penalty(), 150);
    }

    #[test]
    fn waiting_doubles_up_to_a_second() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.retransmit_after(0), Duration::from_millis(250));
        assert_eq!(rtt.retransmit_after(1), Duration::from_millis(500));
        rtt.acknowledged(1_000);
        assert_eq!(rtt.retransmit_after(0), Duration::from_millis(30));
        assert_eq!(rtt.retransmit_after(200), Duration::from_secs(1));
    }
}
