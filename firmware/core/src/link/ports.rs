//! Where the kernel planes of a session's two ends listen: each tells the other until it knows (`docs/protocol.md`, PLANE).

use core::time::Duration;

use grange_wire::ControlFrame;

use super::bucket::TokenBucket;
use crate::Instant;

/// First and longest pause before an end that was not heard says its port again.
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A change of the other end's port costs the kernel an interface's configuration: no more than one in this time is
/// passed on, and then the last.
const CHANGE_PAUSE: Duration = Duration::from_secs(1);

/// Answers: an end that keeps to its pauses is answered always.
const ANSWER_INTERVAL: Duration = AGAIN_MIN;
const ANSWER_BURST: u32 = 8;

/// What a PLANE of the other end leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The other end's port, if it is another than the one that was passed on last.
    pub(crate) changed: Option<u16>,
    /// Send [`PlanePorts::frame`] now.
    pub(crate) answer: bool,
    /// It asked too often for an answer.
    pub(crate) limited: bool,
}

/// One end's knowledge. Ports are zero where there is no kernel plane.
pub(crate) struct PlanePorts {
    ours: u16,
    theirs: u16,
    /// What was passed on of `theirs`.
    passed_on: u16,
    /// Before this nothing more is.
    passes: Instant,
    answers: TokenBucket,
    /// When a frame went out last that was no answer.
    said: Option<Instant>,
    /// Our port, as the other end said last that it knows it.
    known: u16,
    /// The counter of the newest PLANE under the present keys.
    newest: Option<u64>,
    next: Instant,
    pause: Duration,
}

impl Default for PlanePorts {
    fn default() -> Self {
        Self {
            ours: 0,
            theirs: 0,
            passed_on: 0,
            passes: Instant::START,
            answers: TokenBucket::new(ANSWER_INTERVAL, ANSWER_BURST),
            said: None,
            known: 0,
            newest: None,
            next: Instant::START,
            pause: Duration::ZERO,
        }
    }
}

impl PlanePorts {
    /// Our port is this from now on.
    pub(crate) fn set(&mut self, now: Instant, port: u16) {
        if self.ours != port {
            self.ours = port;
            (self.next, self.pause) = (now, AGAIN_MIN);
        }
    }

    /// New keys: counters begin anew. What is known stays.
    pub(crate) fn renew(&mut self) {
        self.newest = None;
    }

    /// What there is to say.
    pub(crate) fn frame(&self) -> ControlFrame<'static> {
        ControlFrame::Plane { port: self.ours, heard: self.theirs, asks: self.ours != self.known }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`take_change`](Self::take_change) has something to do; `None`:
    /// both ends know all.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let waits = (self.theirs != self.passed_on).then_some(self.passes);
        [self.due(), waits].into_iter().flatten().min()
    }

    /// When our port is to be said; `None`: the other end knows it.
    fn due(&self) -> Option<Instant> {
        (self.ours != self.known).then_some(self.next)
    }

    /// The other end's port, if it is another than the one that was passed on last, and that is long enough ago.
    pub(crate) fn take_change(&mut self, now: Instant) -> Option<u16> {
        if self.theirs == self.passed_on || now < self.passes {
            return None;
        }
        (self.passed_on, self.passes) = (self.theirs, now + CHANGE_PAUSE);
        Some(self.theirs)
    }

    /// The frame that is due, if any. An answer takes `round_trip` at most.
    pub(crate) fn handle_timeout(&mut self, now: Instant, round_trip: Duration) -> Option<ControlFrame<'static>> {
        self.due().filter(|due| *due <= now)?;
        self.said = Some(now);
        self.next = now + self.pause.max(round_trip);
        self.pause = (self.pause * 2).clamp(AGAIN_MIN, AGAIN_MAX);
        Some(self.frame())
    }

    /// The other end's PLANE with this counter under the present keys.
    pub(crate) fn heard(&mut self, now: Instant, counter: u64, port: u16, heard: u16, asks: bool) -> Heard {
        // What a later one overtook is out of date.
        if self.newest.is_some_and(|newest| counter <= newest) {
            return Heard::default();
        }
        self.newest = Some(counter);
        if core::mem::replace(&mut self.known, heard) != heard && heard != self.ours {
            // It forgot us, or knows a port of ours that is out of date.
            let soonest = self.said.map_or(now, |said| said + AGAIN_MIN);
            (self.next, self.pause) = (now.max(soonest), AGAIN_MIN);
        }
        self.theirs = port;
        let changed = self.take_change(now);
        let answer = asks && self.answers.take(now);
        if answer && self.due().is_some_and(|due| due <= now) {
            // The answer says it.
            self.next = now + self.pause;
        }
        Heard { changed, answer, limited: asks && !answer }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(20);

    /// Two ends over a path that loses what `lost` says, by the number of the frame; each end's changes, the frames sent.
    struct Pair {
        ends: [PlanePorts; 2],
        counters: [u64; 2],
        changes: [Vec<u16>; 2],
        sent: u32,
        now: Instant,
    }

    impl Pair {
        fn new() -> Self {
            Self {
                ends: Default::default(),
                counters: [0; 2],
                changes: Default::default(),
                sent: 0,
                now: Instant::from_micros(1),
            }
        }

        fn run(&mut self, time: Duration, mut lost: impl FnMut(u32) -> bool) {
            let end = self.now + time;
            loop {
                let due = |end: usize| self.ends[end].timeout().map(|at| (at, end));
                let Some((at, from)) = [due(0), due(1)].into_iter().flatten().min().filter(|(at, _)| *at <= end) else {
                    break;
                };
                self.now = self.now.max(at);
                self.changes[from].extend(self.ends[from].take_change(self.now));
                let mut flying = self.ends[from].handle_timeout(self.now, ROUND_TRIP).map(|frame| (from, frame));
                while let Some((from, ControlFrame::Plane { port, heard, asks })) = flying.take() {
                    self.sent += 1;
                    self.counters[from] += 1;
                    if lost(self.sent) {
                        break;
                    }
                    let to = 1 - from;
                    let heard = self.ends[to].heard(self.now, self.counters[from], port, heard, asks);
                    self.changes[to].extend(heard.changed);
                    flying = heard.answer.then(|| (to, self.ends[to].frame()));
                }
            }
            self.now = end;
        }
    }

    #[test]
    fn both_ends_know_both_ports_and_then_are_silent() {
        let mut pair = Pair::new();
        pair.ends[0].set(pair.now, 1000);
        pair.ends[1].set(pair.now, 2000);
        pair.run(Duration::from_secs(1), |_| false);
        assert_eq!((&pair.changes[0][..], &pair.changes[1][..]), (&[2000][..], &[1000][..]));
        assert_eq!(pair.sent, 3, "one asks, the other answers and asks, the first answers");
        pair.run(Duration::from_secs(3600), |_| false);
        assert_eq!(pair.sent, 3);
        pair.ends[0].set(pair.now, 1000);
        pair.run(Duration::from_secs(1), |_| false);
        assert_eq!(pair.sent, 3, "nothing new");
        pair.ends[0].set(pair.now, 0);
        pair.run(Duration::from_secs(1), |_| false);
        assert_eq!((&pair.changes[1][..], pair.sent), (&[1000, 0][..], 5));
        assert_eq!(pair.changes[0], [2000]);
    }

    #[test]
    fn any_loss_is_made_good_and_nothing_is_told_twice() {
        // Each of the first eight frames is lost or not: all 256 ways.
        for mask in 0..256_u32 {
            let mut pair = Pair::new();
            let lost = |n: u32| n <= 8 && mask & (1 << (n - 1)) != 0;
            pair.ends[0].set(pair.now, 1000);
            pair.run(Duration::from_millis(300), lost);
            pair.ends[1].set(pair.now, 2000);
            pair.run(Duration::from_secs(120), lost);
            assert_eq!((&pair.changes[0][..], &pair.changes[1][..]), (&[2000][..], &[1000][..]), "{mask:b}");
            assert!(pair.sent <= 16, "{mask:b}: {}", pair.sent);
            let settled = pair.sent;
            pair.run(Duration::from_secs(3600), lost);
            assert_eq!(pair.sent, settled, "{mask:b}");
        }
    }

    #[test]
    fn an_end_that_is_not_heard_is_told_ever_less_often() {
        let mut pair = Pair::new();
        pair.ends[0].set(pair.now, 1000);
        pair.run(Duration::from_secs(3600), |_| true);
        assert!((120..=130).contains(&pair.sent), "{}", pair.sent);
    }

    #[test]
    fn of_many_changes_one_a_second_is_passed_on_and_the_last_in_any_case() {
        let mut pair = Pair::new();
        pair.ends[0].set(pair.now, 1000);
        pair.run(Duration::from_secs(10), |_| false);
        for port in 2000..2500 {
            pair.ends[0].set(pair.now, port);
            pair.run(Duration::from_millis(10), |_| false);
        }
        assert!((6..=7).contains(&pair.changes[1].len()), "{:?}", pair.changes[1]);
        pair.run(Duration::from_secs(1), |_| false);
        assert_eq!(pair.changes[1].last(), Some(&2499));
        let told = pair.changes[1].len();
        // What is back to what it was is no change.
        pair.ends[0].set(pair.now, 3000);
        pair.run(Duration::from_millis(10), |_| false);
        pair.ends[0].set(pair.now, 2499);
        pair.run(Duration::from_secs(10), |_| false);
        assert!(pair.changes[1].len() <= told + 2, "{:?}", pair.changes[1]);
        assert_eq!(pair.changes[1].last(), Some(&2499));
        assert_eq!((pair.ends[0].timeout(), pair.ends[1].timeout()), (None, None));
    }

    #[test]
    fn who_asks_without_end_is_answered_now_and_then() {
        let mut end = PlanePorts::default();
        let start = Instant::from_micros(1);
        end.set(start, 1000);
        let (mut answers, mut said, mut limited) = (0, 0, 0);
        for ms in 0..10_000_u64 {
            let now = start + Duration::from_millis(ms);
            // It says in turns that it knows two ports that are not ours.
            let heard = end.heard(now, ms, 7, 8 + (ms % 2) as u16, true);
            answers += u32::from(heard.answer);
            limited += u32::from(heard.limited);
            said += u32::from(end.handle_timeout(now, ROUND_TRIP).is_some());
        }
        assert!((40..=48).contains(&answers), "{answers}");
        assert_eq!(answers + limited, 10_000);
        assert!(said <= 41, "{said}");
        // Without asking for answers.
        said = 0;
        for ms in 10_000..20_000_u64 {
            let now = start + Duration::from_millis(ms);
            end.heard(now, ms, 7, 8 + (ms % 2) as u16, false);
            said += u32::from(end.handle_timeout(now, ROUND_TRIP).is_some());
        }
        assert!((30..=41).contains(&said), "{said}");
    }

    #[test]
    fn an_end_that_forgot_is_told_again_and_what_comes_late_counts_for_nothing() {
        let mut pair = Pair::new();
        pair.ends[0].set(pair.now, 1000);
        pair.ends[1].set(pair.now, 2000);
        pair.run(Duration::from_secs(1), |_| false);
        pair.ends[1] = PlanePorts::default();
        pair.ends[0].renew();
        pair.counters = [0; 2];
        pair.ends[1].set(pair.now, 2001);
        pair.run(Duration::from_secs(1), |_| false);
        assert_eq!((&pair.changes[0][..], &pair.changes[1][..]), (&[2000, 2001][..], &[1000, 1000][..]));
        let late = pair.ends[0].heard(pair.now, pair.counters[1] - 1, 2000, 0, true);
        assert_eq!((late, pair.ends[0].theirs), (Heard::default(), 2001));
    }
}
