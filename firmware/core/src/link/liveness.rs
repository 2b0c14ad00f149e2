//! Whether a link lives, by evidence: what was sent without anything coming back, and probes.
//!
//! Hellos in idle air are slow on purpose. A link that carries traffic shows within a fraction of a second that nothing
//! comes back any more; then probes decide, as many as the link's measured loss asks for.

use core::time::Duration;

use super::loss::LossEstimate;
use crate::{Instant, LinkTraffic};

/// Data was sent and nothing came back for so long: ask. Longer than most answers take on a mesh.
const SUSPECT_AFTER: Duration = Duration::from_millis(250);

/// A link whose traffic stopped is asked at most this often, so that a flow with pauses costs little.
const HUSH_PAUSE: Duration = Duration::from_secs(2);

/// An idle link is asked when two hellos are missing...
const IDLE_ASK: Duration = Duration::from_millis(8500);

/// ...and dead when three are.
const IDLE_DEAD: Duration = Duration::from_secs(12);

/// Probes come at least this far apart, and two round trips.
const SPACING_MIN: Duration = Duration::from_millis(50);

/// The same on an idle link, where nobody waits.
const IDLE_SPACING: Duration = Duration::from_millis(175);

/// Probes come at most this far apart, however slow the link says it is.
const SPACING_MAX: Duration = Duration::from_secs(1);

/// First and longest pause between the probes of a dead link.
const DEAD_PROBE_MIN: Duration = Duration::from_millis(250);
const DEAD_PROBE_MAX: Duration = Duration::from_secs(2);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a probe with this id.
    Probe(u32),
    /// The link is dead from now on. Send LOST.
    Died,
    /// The link is still dead: send LOST again.
    StillDead,
}

/// A row of probes that nothing has come back for.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    sent: u32,
    enough: u32,
    next: Instant,
    idle: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Calm,
    Doubt(Doubt),
    Dead { next: Instant, pause: Duration },
}

/// The evidence for one link.
#[derive(Debug)]
pub(crate) struct Liveness {
    loss: LossEstimate,
    state: State,
    /// Whether silence means something where nothing was sent: there are hellos.
    hellos: bool,
    heard: Instant,
    /// Since when data was sent without anything coming back.
    unanswered: Option<Instant>,
    /// When data came last, if nothing came after it. The neighbour's own detour around a dead link begins with a
    /// silence here; without asking, this end would notice only when it next sends.
    hushed: Option<Instant>,
    hush_asked: Option<Instant>,
    traffic: LinkTraffic,
    next_id: u32,
    last_probe: Option<(u32, Instant)>,
    srtt: Option<Duration>,
    /// The round trip is the handshake's, of which a message may have been sent more than once.
    rough: bool,
}

impl Liveness {
    /// Evidence for a link that came up now; probe ids count from `first_id`. Without `hellos` nothing is asked and nothing
    /// concluded while no data is sent.
    pub(crate) fn new(now: Instant, first_id: u32, rtt: Option<Duration>, hellos: bool) -> Self {
        Self {
            hellos,
            loss: LossEstimate::default(),
            state: State::Calm,
            heard: now,
            unanswered: None,
            hushed: None,
            hush_asked: None,
            traffic: LinkTraffic::default(),
            next_id: first_id,
            last_probe: None,
            srtt: rtt,
            rough: true,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead { .. })
    }

    /// A probe id that was not used yet, for probes of other kinds.
    pub(crate) fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// How long to wait for the answer to a probe.
    pub(crate) fn spacing(&self) -> Duration {
        (self.srtt.unwrap_or(Duration::ZERO) * 2).clamp(SPACING_MIN, SPACING_MAX)
    }

    /// A control frame of the neighbour authenticated, after `skipped` counters that did not come, or (not `newest`)
    /// after later ones.
    pub(crate) fn heard(&mut self, now: Instant, skipped: u64, newest: bool) {
        if newest {
            self.loss.received(skipped);
        } else {
            self.loss.overtaken();
        }
        self.alive(now);
    }

    fn alive(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
        self.hushed = None;
        if let State::Doubt(doubt) = self.state {
            // The last probe may still be answered; those before it failed.
            self.loss.probed(doubt.sent.saturating_sub(1), doubt.sent);
            self.state = State::Calm;
        }
    }

    /// The neighbour answered the probe.
    pub(crate) fn answered(&mut self, now: Instant, id: u32) {
        if let Some((last, sent)) = self.last_probe
            && last == id
        {
            self.last_probe = None;
            self.measured(now.since(sent));
        }
    }

    /// A round trip was measured (RFC 6298, section 2: a gain of 1/8).
    pub(crate) fn measured(&mut self, rtt: Duration) {
        let rough = core::mem::replace(&mut self.rough, false);
        self.srtt = Some(match self.srtt {
            Some(srtt) if rough => srtt.min(rtt),
            Some(srtt) => (srtt * 7 + rtt) / 8,
            None => rtt,
        });
    }

    /// The plane's counters. They only grow; if one shrank, the plane began anew.
    pub(crate) fn traffic(&mut self, now: Instant, traffic: LinkTraffic) {
        let before = core::mem::replace(&mut self.traffic, traffic);
        if self.is_dead() {
            return;
        }
        if traffic.received_packets > before.received_packets {
            self.alive(now);
            self.hushed = Some(now);
        } else if traffic.sent_packets > before.sent_packets && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
    }

    /// The plane's counters, as it said last.
    pub(crate) fn counters(&self) -> LinkTraffic {
        self.traffic
    }

    /// The smoothed round-trip time.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// The neighbour says that it hears nothing of us, or we know better than by evidence: the link is dead.
    pub(crate) fn kill(&mut self, now: Instant) {
        self.state = State::Dead { next: now + DEAD_PROBE_MIN, pause: DEAD_PROBE_MIN };
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None`: not before something else happens.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Calm => {
                let idle = self.hellos.then_some(self.heard + IDLE_ASK);
                let unanswered = self.unanswered.map(|since| since + SUSPECT_AFTER);
                [idle, unanswered, self.hush_due()].into_iter().flatten().min()
            }
            State::Doubt(doubt) => Some(doubt.next),
            State::Dead { next, .. } => Some(next),
        }
    }

    /// When to ask why no more data comes.
    fn hush_due(&self) -> Option<Instant> {
        let due = self.hushed? + SUSPECT_AFTER;
        Some(self.hush_asked.map_or(due, |asked| due.max(asked + HUSH_PAUSE)))
    }

    /// What is due now, if anything.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Step> {
        if self.timeout().is_none_or(|due| now < due) {
            return None;
        }
        match self.state {
            State::Calm => {
                let hush = self.hush_due().is_some_and(|due| now >= due);
                if hush {
                    self.hushed = None;
                    self.hush_asked = Some(now);
                }
                let busy = hush || self.unanswered.is_some_and(|since| now >= since + SUSPECT_AFTER);
                let doubt = Doubt { sent: 0, enough: self.loss.probes(), next: now, idle: !busy };
                Some(self.probe(now, doubt))
            }
            State::Doubt(mut doubt) => {
                // Traffic that began to go unanswered makes an idle doubt urgent.
                if self.unanswered.is_some_and(|since| now >= since + SUSPECT_AFTER) {
                    doubt.idle = false;
                }
                if doubt.sent >= doubt.enough && (!doubt.idle || now >= self.heard + IDLE_DEAD) {
                    self.kill(now);
                    return Some(Step::Died);
                }
                Some(self.probe(now, doubt))
            }
            State::Dead { pause, .. } => {
                let pause = (pause * 2).min(DEAD_PROBE_MAX);
                self.state = State::Dead { next: now + pause, pause };
                Some(Step::StillDead)
            }
        }
    }

    fn probe(&mut self, now: Instant, mut doubt: Doubt) -> Step {
        let id = self.take_id();
        let spacing = if doubt.idle { self.spacing().max(IDLE_SPACING) } else { self.spacing() };
        doubt.sent += 1;
        doubt.next = now + spacing;
        self.state = State::Doubt(doubt);
        self.last_probe = Some((id, now));
        Step::Probe(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(packets: u64) -> LinkTraffic {
        LinkTraffic { received_packets: packets, ..LinkTraffic::default() }
    }

    #[test]
    fn traffic_that_stops_is_asked_after_but_not_at_every_pause() {
        let mut liveness = Liveness::new(Instant::START, 0, None, true);
        let mut now = Instant::START;
        let mut asked = 0;
        for packets in 1..=10 {
            liveness.traffic(now, received(packets));
            assert_eq!(liveness.handle_timeout(now), None);
            now += SUSPECT_AFTER;
            if let Some(Step::Probe(id)) = liveness.handle_timeout(now) {
                asked += 1;
                liveness.answered(now, id);
                liveness.heard(now, 0, true);
            }
            now += SUSPECT_AFTER;
        }
        // Five seconds with a pause each half second: at the start, and every two seconds.
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_link_whose_traffic_stopped_for_good_dies() {
        let mut liveness = Liveness::new(Instant::START, 0, None, true);
        (0..40).for_each(|_| liveness.heard(Instant::START, 0, true));
        liveness.traffic(Instant::START, received(1));
        while !liveness.is_dead() {
            let due = liveness.timeout().unwrap();
            liveness.handle_timeout(due);
            assert!(due <= Instant::START + Duration::from_secs(1));
        }
    }

    #[test]
    fn without_hellos_only_traffic_raises_doubts() {
        let mut liveness = Liveness::new(Instant::START, 0, None, false);
        assert_eq!(liveness.timeout(), None);
        let later = Instant::START + Duration::from_secs(170);
        assert_eq!(liveness.handle_timeout(later), None);
        liveness.traffic(later, LinkTraffic { sent_packets: 1, ..LinkTraffic::default() });
        assert_eq!(liveness.timeout(), Some(later + SUSPECT_AFTER));
        while !liveness.is_dead() {
            let due = liveness.timeout().unwrap();
            liveness.handle_timeout(due);
            assert!(due <= later + Duration::from_millis(1500));
        }
    }
}
