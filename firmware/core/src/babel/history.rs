//! Which of a neighbour's Hellos came (RFC 8966, appendix A.1).

use core::time::Duration;

use grange_wire::babel::{INFINITY, Seqno};

use crate::Instant;

/// Hellos missed in a row after which a radio link counts as lost.
const WIRELESS_SILENCE: u32 = 8;

/// The last sixteen Hellos of a neighbour, the latest in the lowest bit.
///
/// A new history is full: the handshake just proved that packets pass both ways.
#[derive(Clone, Debug)]
pub(super) struct HelloHistory {
    bits: u16,
    expected: Option<Seqno>,
    interval: Duration,
    /// Zeros that the timer put in since the last Hello, which a late Hello takes back.
    timed_out: u16,
    deadline: Instant,
}

impl HelloHistory {
    /// A full history; the first Hello is due within `interval`.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { bits: 0xffff, expected: None, interval, timed_out: 0, deadline: now + interval * 3 / 2 }
    }

    /// A Hello came. `interval` is zero for an unscheduled one, which says nothing about the next.
    pub(super) fn received(&mut self, now: Instant, seqno: Seqno, interval: Duration) {
        let expected = self.expected.unwrap_or(seqno);
        let ahead = seqno.0.wrapping_sub(expected.0);
        let behind = expected.0.wrapping_sub(seqno.0);
        if ahead > 16 && behind > 16 {
            // The neighbour forgot its count. What came before says nothing any more.
            self.bits = 1;
            self.expected = Some(seqno.plus(1));
        } else if behind == 0 || ahead <= 16 {
            self.push(ahead, true);
            self.expected = Some(seqno.plus(1));
        } else if behind <= self.timed_out {
            self.bits = self.bits.checked_shr(u32::from(behind)).unwrap_or(0);
            self.push(0, true);
            self.expected = Some(seqno.plus(1));
        } else {
            // Overtaken by a later one.
            self.bits |= 1_u16.checked_shl(u32::from(behind - 1)).unwrap_or(0);
        }
        self.timed_out = 0;
        if !interval.is_zero() {
            self.interval = interval;
            self.deadline = now + interval * 3 / 2;
        }
    }

    /// Counts a Hello as missed if it should have come by now. Gives whether it did so.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        if now < self.deadline {
            return false;
        }
        self.push(1, false);
        self.expected = self.expected.map(|seqno| seqno.plus(1));
        self.timed_out = self.timed_out.saturating_add(1);
        self.deadline = now + self.interval;
        true
    }

    /// The neighbour answered a probe: the last Hello was lost, the neighbour was not.
    pub(super) fn confirm(&mut self) {
        self.bits |= 1;
    }

    /// When [`expire`](Self::expire) is to be called.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Receiving cost of a link that loses little (appendix A.2.1): `nominal` while two of the last three came.
    pub(super) fn two_out_of_three(&self, nominal: u16) -> u16 {
        if (self.bits & 0b111).count_ones() >= 2 { nominal } else { INFINITY }
    }

    /// Receiving cost of a radio link (appendix A.2.2): 256 divided by the share of Hellos that came.
    pub(super) fn etx(&self) -> u16 {
        if self.bits.trailing_zeros() >= WIRELESS_SILENCE {
            return INFINITY;
        }
        u16::try_from(256 * 16 / self.bits.count_ones()).unwrap_or(INFINITY)
    }

    fn push(&mut self, missed: u16, came: bool) {
        let shift = u32::from(missed) + u32::from(came);
        self.bits = self.bits.checked_shl(shift).unwrap_or(0) | u16::from(came);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(4);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_new_link_is_usable_and_two_misses_end_it() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        assert_eq!((history.two_out_of_three(96), history.etx()), (96, 256));
        history.received(at(0), Seqno(7), INTERVAL);
        assert!(!history.expire(at(5)));
        assert!(history.expire(at(6)));
        assert_eq!(history.two_out_of_three(96), 96);
        assert!(history.expire(at(10)));
        assert_eq!(history.two_out_of_three(96), INFINITY);
        history.confirm();
        assert_eq!(history.two_out_of_three(96), 96);
    }

    #[test]
    fn a_gap_in_the_numbers_counts_as_misses() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        history.received(at(0), Seqno(0xffff), INTERVAL);
        history.received(at(12), Seqno(2), INTERVAL);
        assert_eq!(history.bits, 0b1111_1111_1111_1001);
    }

    #[test]
    fn a_late_hello_takes_back_what_the_timer_counted() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        history.received(at(0), Seqno(1), INTERVAL);
        assert!(history.expire(at(6)) && history.expire(at(10)));
        history.received(at(11), Seqno(2), INTERVAL);
        // What the two zeros pushed out on the left is lost.
        assert_eq!(history.bits, 0x7fff);
        assert_eq!(history.expected, Some(Seqno(3)));
    }

    #[test]
    fn an_overtaken_hello_fills_its_own_place() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        history.received(at(0), Seqno(1), INTERVAL);
        history.received(at(8), Seqno(3), INTERVAL);
        history.received(at(8), Seqno(2), INTERVAL);
        assert_eq!(history.bits, 0xffff);
        assert_eq!(history.expected, Some(Seqno(4)));
    }

    #[test]
    fn a_neighbour_that_forgot_its_count_starts_anew() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        history.received(at(0), Seqno(100), INTERVAL);
        history.received(at(4), Seqno(5), INTERVAL);
        assert_eq!(history.bits, 1);
    }

    #[test]
    fn etx_is_the_expected_number_of_transmissions() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        for number in 0..16 {
            history.received(at(4), Seqno(number * 2), INTERVAL);
        }
        assert_eq!(history.etx(), 512);
        for _ in 0..8 {
            let deadline = history.deadline();
            assert!(history.expire(deadline));
        }
        assert_eq!(history.etx(), INFINITY);
    }

    #[test]
    fn an_unscheduled_hello_leaves_the_timer() {
        let mut history = HelloHistory::new(at(0), INTERVAL);
        history.received(at(0), Seqno(1), INTERVAL);
        let deadline = history.deadline();
        history.received(at(3), Seqno(2), Duration::ZERO);
        assert_eq!(history.deadline(), deadline);
    }
}
