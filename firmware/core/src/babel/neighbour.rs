//! The neighbour at the other end of a link (RFC 8966, sections 3.2.4 and 3.4).

use core::time::Duration;

use grange_wire::{
    NodeId,
    babel::{Hello, INFINITY, Ihu, Seqno},
};

use super::{history::HelloHistory, outbox::Outbox, rtt::Rtt, withdrawn::Withdrawn};
use crate::{IfaceKind, Instant};

/// Between two Hellos, at most.
pub(super) const HELLO_INTERVAL: Duration = Duration::from_secs(4);
/// Between two IHUs, at most: one goes with each third Hello.
pub(super) const IHU_INTERVAL: Duration = Duration::from_secs(12);
/// Cost of a link that loses nothing (appendix A.2.1).
const NOMINAL_COST: u16 = 96;
/// Cost of a radio link that loses nothing (appendix A.2.2).
const RADIO_COST: u16 = 256;
/// Hellos are not expected faster than this, whatever the neighbour says.
const MIN_HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// Proofs that may be wrong before a neighbour's proofs are not even checked; one more is allowed each
/// [`STRIKE_INTERVAL`].
const MAX_STRIKES: u32 = 32;
const STRIKE_INTERVAL: Duration = Duration::from_secs(1);
/// Number of Hellos between two IHUs.
const HELLOS_PER_IHU: u8 = 3;

/// A neighbour.
pub(super) struct Neighbour {
    pub(super) peer: NodeId,
    kind: IfaceKind,
    history: HelloHistory,
    pub(super) rtt: Rtt,
    txcost: u16,
    ihu_expires: Instant,
    /// When to ask whether it hears us, if no IHU comes.
    ihu_probe: Instant,
    /// Timestamp of its last Hello and our clock when it came, microseconds.
    heard: Option<(u32, Instant)>,
    /// The receiving cost that it was told last.
    told: u16,
    pub(super) cost: u16,
    pub(super) hello_at: Instant,
    hello_seqno: Seqno,
    hellos_to_ihu: u8,
    answered: bool,
    pub(super) dump_at: Instant,
    pub(super) full_dump_started: Option<Instant>,
    pub(super) outbox: Outbox,
    /// Counter of the next packet with updates.
    pub(super) packet: u32,
    /// Everything before this packet of the neighbour's was retracted.
    pub(super) cleared: Option<u32>,
    /// What it retracted before we heard of it.
    pub(super) withdrawn: Withdrawn,
    /// Routes that it announced.
    pub(super) routes: usize,
    strikes: (u32, Instant),
}

impl Neighbour {
    /// A neighbour whose link just came up. It is usable at once.
    pub(super) fn new(now: Instant, peer: NodeId, kind: IfaceKind, random: u64) -> Self {
        let nominal = if kind == IfaceKind::Wireless { RADIO_COST } else { NOMINAL_COST };
        let [a, b, c, d, e, f, g, h] = random.to_be_bytes();
        let mut neighbour = Self {
            peer,
            kind,
            history: HelloHistory::new(now, HELLO_INTERVAL),
            rtt: Rtt::default(),
            txcost: nominal,
            ihu_expires: now + IHU_INTERVAL * 7 / 2,
            ihu_probe: now + IHU_INTERVAL * 2,
            heard: None,
            told: nominal,
            cost: INFINITY,
            hello_at: now,
            hello_seqno: Seqno(u16::from_be_bytes([a, b])),
            hellos_to_ihu: 0,
            answered: false,
            dump_at: now,
            full_dump_started: None,
            outbox: Outbox::new(u16::from_be_bytes([c, d])),
            packet: u32::from_be_bytes([e, f, g, h]),
            cleared: None,
            withdrawn: Withdrawn::default(),
            routes: 0,
            strikes: (0, now),
        };
        neighbour.update_cost();
        neighbour
    }

    /// Cost of receiving from it (appendix A.2).
    pub(super) fn rxcost(&self) -> u16 {
        match self.kind {
            IfaceKind::Wireless => self.history.etx(),
            IfaceKind::Wired | IfaceKind::Tunnel => self.history.two_out_of_three(NOMINAL_COST),
        }
    }

    /// Cost of sending to it, as it says.
    pub(super) fn txcost(&self) -> u16 {
        self.txcost
    }

    /// Works out the cost anew; gives whether it changed. It is never 0: each hop must count (section 3.5.2).
    pub(super) fn update_cost(&mut self) -> bool {
        let (rx, tx) = (self.rxcost(), self.txcost);
        let cost = if rx == INFINITY || tx == INFINITY {
            INFINITY
        } else {
            match self.kind {
                IfaceKind::Wired => tx.max(NOMINAL_COST),
                IfaceKind::Tunnel => tx.max(NOMINAL_COST).saturating_add(self.rtt.penalty()),
                IfaceKind::Wireless => {
                    let product = u32::from(tx.max(RADIO_COST)) * u32::from(rx) / u32::from(RADIO_COST);
                    u16::try_from(product).unwrap_or(INFINITY)
                }
            }
        };
        core::mem::replace(&mut self.cost, cost) != cost
    }

    /// A Hello came. The first one is answered at once, which gives the neighbour its first round-trip time.
    pub(super) fn handle_hello(&mut self, now: Instant, hello: &Hello) {
        let interval = match hello.interval {
            0 => Duration::ZERO,
            centis => Duration::from_millis(u64::from(centis) * 10).max(MIN_HELLO_INTERVAL),
        };
        self.history.received(now, hello.seqno, interval);
        if let Some(timestamp) = hello.timestamp {
            self.heard = Some((timestamp, now));
            if !self.answered {
                self.answered = true;
                (self.outbox.hello, self.outbox.ihu) = (true, true);
            }
        }
        self.tell_rxcost();
    }

    /// An IHU came; `transmit` is the timestamp of the Hello in the same packet. Gives a new round-trip time.
    pub(super) fn handle_ihu(&mut self, now: Instant, ihu: &Ihu, transmit: Option<u32>) -> Option<Duration> {
        self.txcost = ihu.rxcost;
        let interval = Duration::from_millis(u64::from(ihu.interval) * 10).max(HELLO_INTERVAL);
        (self.ihu_expires, self.ihu_probe) = (now + interval * 7 / 2, now + interval * 2);
        let ((origin, receive), transmit) = (ihu.timestamps?, transmit?);
        self.rtt.exchange(origin, receive, transmit, clock(now))
    }

    /// An acknowledgement came: it is there, and hears us.
    pub(super) fn handle_ack(&mut self, now: Instant) {
        if self.txcost != INFINITY {
            self.ihu_expires = self.ihu_expires.max(now + IHU_INTERVAL * 7 / 2);
        }
        // On a radio a lost Hello is a measurement. Elsewhere it only asks whether the neighbour is there.
        if self.kind != IfaceKind::Wireless {
            self.history.confirm();
        }
    }

    /// Does what is due by time: Hellos and IHUs, and counts those that did not come.
    pub(super) fn handle_timeout(&mut self, now: Instant, jitter: Duration) {
        if self.hello_at <= now {
            self.outbox.hello = true;
            self.hello_at = now + HELLO_INTERVAL - jitter;
            if self.hellos_to_ihu == 0 {
                self.outbox.ihu = true;
            } else {
                self.hellos_to_ihu -= 1;
            }
        }
        if self.history.expire(now) {
            if self.kind != IfaceKind::Wireless {
                self.outbox.probe = Some(0);
            }
            self.tell_rxcost();
        }
        if self.ihu_probe <= now {
            self.ihu_probe = now + IHU_INTERVAL;
            self.outbox.probe = Some(0);
        }
        if self.ihu_expires <= now {
            self.txcost = INFINITY;
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn next(&self) -> Instant {
        let next = self.hello_at.min(self.history.deadline()).min(self.dump_at).min(self.ihu_probe);
        if self.txcost == INFINITY { next } else { next.min(self.ihu_expires) }
    }

    /// The Hello to send now.
    pub(super) fn hello(&mut self, now: Instant) -> Hello {
        let seqno = self.hello_seqno;
        self.hello_seqno = seqno.plus(1);
        let interval = u16::try_from(HELLO_INTERVAL.as_millis() / 10).unwrap_or(u16::MAX);
        Hello { unicast: true, seqno, interval, timestamp: Some(clock(now)) }
    }

    /// The IHU to send now.
    pub(super) fn ihu(&mut self) -> Ihu {
        self.hellos_to_ihu = HELLOS_PER_IHU - 1;
        self.told = self.rxcost();
        let interval = u16::try_from(IHU_INTERVAL.as_millis() / 10).unwrap_or(u16::MAX);
        let timestamps = self.heard.map(|(timestamp, at)| (timestamp, clock(at)));
        Ihu { rxcost: self.told, interval, timestamps }
    }

    /// Whether one more signature of this neighbour's may be checked.
    pub(super) fn may_check(&mut self, now: Instant) -> bool {
        let steps = now.since(self.strikes.1).as_micros() / STRIKE_INTERVAL.as_micros();
        if steps > 0 {
            let forgiven = u32::try_from(steps).unwrap_or(u32::MAX);
            self.strikes = (self.strikes.0.saturating_sub(forgiven), now);
        }
        self.strikes.0 < MAX_STRIKES
    }

    /// A proof was wrong.
    pub(super) fn strike(&mut self) {
        self.strikes.0 += 1;
    }

    /// Tells the neighbour at once when what it costs to hear it changed by more than a quarter.
    fn tell_rxcost(&mut self) {
        let rx = self.rxcost();
        if rx.abs_diff(self.told) > self.told / 4 {
            (self.outbox.hello, self.outbox.ihu) = (true, true);
        }
    }
}

/// The clock of timestamps: microseconds modulo 2^32.
pub(super) fn clock(now: Instant) -> u32 {
    (now.as_micros() & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(kind: IfaceKind) -> Neighbour {
        Neighbour::new(Instant::START, NodeId([1; 32]), kind, 7)
    }

    fn ihu(rxcost: u16) -> Ihu {
        Ihu { rxcost, interval: 1200, timestamps: None }
    }

    #[test]
    fn a_new_neighbour_has_its_nominal_cost() {
        assert_eq!(neighbour(IfaceKind::Wired).cost, 96);
        assert_eq!(neighbour(IfaceKind::Tunnel).cost, 96);
        assert_eq!(neighbour(IfaceKind::Wireless).cost, 256);
    }

    #[test]
    fn the_neighbours_word_counts_but_never_makes_a_link_free() {
        let mut wired = neighbour(IfaceKind::Wired);
        wired.handle_ihu(Instant::START, &ihu(0), None);
        assert!(!wired.update_cost());
        wired.handle_ihu(Instant::START, &ihu(INFINITY), None);
        assert!(wired.update_cost());
        assert_eq!(wired.cost, INFINITY);
        let mut radio = neighbour(IfaceKind::Wireless);
        radio.handle_ihu(Instant::START, &ihu(512), None);
        radio.update_cost();
        assert_eq!(radio.cost, 512);
    }

    #[test]
    fn round_trips_cost_on_tunnels_only() {
        for (kind, cost) in [(IfaceKind::Tunnel, 246), (IfaceKind::Wired, 96)] {
            let mut n = neighbour(kind);
            let now = Instant::from_micros(200_000);
            let stamped = Ihu { timestamps: Some((0, 50)), ..ihu(96) };
            assert_eq!(n.handle_ihu(now, &stamped, Some(50)), Some(Duration::from_millis(200)));
            n.update_cost();
            assert_eq!(n.cost, cost);
        }
    }

    #[test]
    fn silence_of_ihus_makes_a_link_unusable() {
        let mut n = neighbour(IfaceKind::Wireless);
        n.handle_timeout(Instant::START + IHU_INTERVAL * 7 / 2, Duration::ZERO);
        assert!(n.update_cost());
        assert_eq!((n.cost, n.txcost()), (INFINITY, INFINITY));
    }

    #[test]
    fn a_missed_hello_is_asked_about_and_an_answer_counts() {
        let mut n = neighbour(IfaceKind::Wired);
        for seconds in [6, 10] {
            n.handle_timeout(Instant::from_micros(seconds * 1_000_000), Duration::ZERO);
            assert_eq!(n.outbox.probe.take(), Some(0));
        }
        assert_eq!(n.rxcost(), INFINITY);
        n.handle_ack(Instant::from_micros(10_000_000));
        assert_eq!(n.rxcost(), 96);
    }

    #[test]
    fn wrong_proofs_are_forgiven_slowly() {
        let mut n = neighbour(IfaceKind::Wired);
        for _ in 0..MAX_STRIKES {
            assert!(n.may_check(Instant::START));
            n.strike();
        }
        assert!(!n.may_check(Instant::START));
        assert!(n.may_check(Instant::START + STRIKE_INTERVAL));
        n.strike();
        assert!(!n.may_check(Instant::START + STRIKE_INTERVAL));
    }
}
