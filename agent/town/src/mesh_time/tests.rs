use grange_core::Identity;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;

/// 2027-01-15.
const TRUTH: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

fn peer(number: u8) -> Author {
    Author([number; 32])
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn says(time: &mut MeshTime, now: u64, number: u8, says: u64) -> bool {
    time.handle_reading(at(now), peer(number), Reading { time: says, error: 50 }, at(20))
}

#[test]
fn two_peers_are_not_enough_and_three_are() {
    let mut time = MeshTime::new(0);
    assert_eq!(time.time(at(0)), None);
    says(&mut time, 0, 1, TRUTH);
    says(&mut time, 0, 2, TRUTH);
    assert_eq!((time.time(at(0)), time.reading(at(0))), (None, None));
    says(&mut time, 0, 3, TRUTH);
    assert_eq!(time.time(at(9_999)), None, "others may still be heard");
    let known = time.time(at(10_000)).unwrap();
    assert!(known.abs_diff(TRUTH + 10_000) <= 65, "{known}");
}

#[test]
fn a_board_in_1970_says_nothing_and_changes_nothing() {
    let mut time = MeshTime::new(TRUTH - HOUR);
    for number in 1..=3 {
        says(&mut time, 0, number, TRUTH);
    }
    let before = time.time(at(10_000)).unwrap();
    assert!(!says(&mut time, 10_000, 4, 12_345), "earlier than the floor it cannot be");
    for number in 5..=7 {
        says(&mut time, 10_000, number, 12_345);
    }
    assert_eq!(time.time(at(10_000)), Some(before));
    // The own clock of a board without battery.
    time.handle_clock(at(10_010), 5_000, ClockQuality::Free);
    time.handle_clock(at(10_010), 5_000, ClockQuality::Synchronised { error: 10 });
    assert_eq!(time.time(at(10_010)), Some(before + 10));
}

#[test]
fn boards_in_1970_without_a_floor_are_outvoted() {
    let mut time = MeshTime::new(0);
    for number in 1..=4 {
        says(&mut time, 0, number, if number == 1 { 40_000 } else { TRUTH });
    }
    assert!(time.time(at(10_000)).unwrap().abs_diff(TRUTH + 10_000) <= 65);
}

#[test]
fn no_majority_says_nothing() {
    for says_what in [&[0, 0, HOUR, HOUR][..], &[0, HOUR, 2 * HOUR]] {
        let mut time = MeshTime::new(0);
        for (number, off) in (1..).zip(says_what) {
            says(&mut time, 0, number, TRUTH + off);
        }
        assert_eq!(time.time(at(10_000)), None, "{says_what:?}");
    }
}

#[test]
fn a_synchronised_clock_is_enough_alone_and_is_outvoted_if_it_lies() {
    let mut time = MeshTime::new(0);
    time.handle_clock(at(0), TRUTH, ClockQuality::Free);
    assert_eq!(time.time(at(0)), None);
    time.handle_clock(at(0), TRUTH, ClockQuality::Synchronised { error: 10 });
    assert_eq!(time.time(at(500)), Some(TRUTH + 500));
    let mut lied_to = MeshTime::new(0);
    lied_to.handle_clock(at(0), TRUTH + HOUR, ClockQuality::Synchronised { error: 10 });
    for number in 1..=3 {
        says(&mut lied_to, 0, number, TRUTH);
    }
    assert!(lied_to.time(at(0)).is_some());
    says(&mut lied_to, 10_000, 4, TRUTH + 10_000);
    let agreed = lied_to.agreed.unwrap().time(10_000);
    assert!(agreed.abs_diff(TRUTH + 10_000) <= 65, "{agreed}");
    // A clock that was seen to be ahead goes on at half speed, and never back.
    let mut ahead = MeshTime::new(0);
    ahead.handle_clock(at(0), TRUTH + 10_000, ClockQuality::Synchronised { error: 10 });
    assert_eq!(ahead.time(at(0)), Some(TRUTH + 10_000));
    let mut last = 0;
    for now in (0..60_000).step_by(100) {
        if now <= 10_000 {
            for number in 1..=3 {
                says(&mut ahead, now, number, TRUTH + now);
            }
        }
        let time = ahead.time(at(now)).unwrap();
        assert!(time > last, "{now}");
        last = time;
    }
    assert!(last.abs_diff(TRUTH + 59_900) <= 80, "{last}");
}

#[test]
fn the_floor_holds_over_a_restart_and_is_saved_once_a_day() {
    let mut time = MeshTime::new(0);
    time.handle_clock(at(0), TRUTH, ClockQuality::Synchronised { error: 10 });
    let mut saved = Vec::new();
    for minute in 0..3 * 24 * 60 {
        saved.extend(time.poll_save(at(minute * 60_000)));
    }
    assert_eq!(saved, [TRUTH, TRUTH + SAVE_STEP, TRUTH + 2 * SAVE_STEP]);
    let mut restarted = MeshTime::new(saved[2]);
    assert_eq!((restarted.time(at(0)), restarted.floor()), (None, saved[2]));
    for number in 1..=3 {
        says(&mut restarted, 0, number, TRUTH);
    }
    assert_eq!(restarted.time(at(10_000)), None, "all of them are older than the floor");
}

#[test]
fn a_signed_reading_answers_one_question_in_one_town() {
    let signer = Identity::from_seed(&[1; 32]);
    let (town, nonce) = (TownId([2; 16]), [3; 16]);
    let reading = Reading { time: TRUTH, error: 77 };
    let signed = SignedReading::sign(&signer, &town, &nonce, reading);
    let read = SignedReading::from_bytes(&signed.to_bytes()).unwrap();
    assert_eq!(read, signed);
    let author = Author(signer.public());
    assert_eq!(read.verify(&author, &town, &nonce), Some(reading));
    assert_eq!(read.verify(&author, &town, &[4; 16]), None);
    assert_eq!(read.verify(&author, &TownId([9; 16]), &nonce), None);
    assert_eq!(read.verify(&peer(1), &town, &nonce), None);
    for bit in 0..SignedReading::SIZE * 8 {
        let mut bytes = signed.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = SignedReading::from_bytes(&bytes);
        assert_eq!(read.and_then(|read| read.verify(&author, &town, &nonce)), None, "bit {bit}");
    }
    assert_eq!(SignedReading::from_bytes(&signed.to_bytes()[1..]), None);
}

/// A board: its crystal is wrong by some parts per million, and it booted at some moment.
struct Board {
    time: MeshTime,
    boot: u64,
    ppm: i64,
    last: u64,
}

impl Board {
    /// What the board's own counter says at true time `truth` (milliseconds since the run began).
    fn now(&self, truth: u64) -> Duration {
        let elapsed = truth.saturating_sub(self.boot);
        let wrong = i64::try_from(elapsed).unwrap() * self.ppm / 1_000_000;
        at(elapsed.saturating_add_signed(wrong))
    }
}

/// Boards that boot in 1970, one with GPS for the first hours, a partition, some liars: everybody who knows the time knows it
/// well, and nobody's goes back.
fn run(seed: u64, boards: usize, liars: usize, hours: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |below: u64| random.next_u64() % below;
    let mut town: Vec<Board> = (0..boards)
        .map(|_| Board {
            time: MeshTime::new(0),
            boot: pick(60_000),
            ppm: i64::try_from(pick(181)).unwrap() - 90,
            last: 0,
        })
        .collect();
    // Without three peers that know it, time spreads to nobody: so many have NTP at first.
    let clocks = liars..liars + 4;
    let (split_from, split_to) = (hours * HOUR / 3, hours * HOUR / 2);
    for truth in (60_000..hours * HOUR).step_by(60_000) {
        for board in &mut town[clocks.clone()] {
            if truth < HOUR {
                let now = board.now(truth);
                board.time.handle_clock(now, TRUTH + truth, ClockQuality::Synchronised { error: 20 });
            } else {
                let now = board.now(truth);
                board.time.handle_clock(now, pick(u64::from(u32::MAX)), ClockQuality::Free);
            }
        }
        for from in 0..boards {
            let reading = if from < liars {
                // All liars say the same thing, or one of them booted in 1970.
                Some(Reading { time: if seed.is_multiple_of(2) { TRUTH + truth + HOUR } else { truth }, error: 1 })
            } else {
                let now = town[from].now(truth);
                town[from].time.reading(now)
            };
            let Some(reading) = reading else { continue };
            for (to, board) in town.iter_mut().enumerate().skip(liars) {
                // In the partition, only neighbours by number hear each other.
                let split = (split_from..split_to).contains(&truth) && from / 3 != to / 3;
                // At first all are heard: liars that are more than those one hears are believed.
                let lost = truth > HOUR && pick(4) == 0;
                if from != to && !split && !lost {
                    let now = board.now(truth);
                    let trip = pick(40);
                    let peer = peer(u8::try_from(from).unwrap());
                    // The reading is from half a round trip ago.
                    let aged = Reading { time: reading.time.saturating_sub(trip / 2), ..reading };
                    board.time.handle_reading(now, peer, aged, at(trip));
                }
            }
        }
        for (number, board) in town.iter_mut().enumerate().skip(liars) {
            let now = board.now(truth);
            if let Some(time) = board.time.time(now) {
                assert!(time >= board.last, "seed {seed}: board {number} went back at {truth}");
                board.last = time;
                let wrong = time.abs_diff(TRUTH + truth);
                // 200 ppm of a whole run is the most that all together may drift.
                let allowed = 500 + truth * 2 * DRIFT_PPM / 1_000_000;
                assert!(wrong <= allowed, "seed {seed}: board {number} is wrong by {wrong} ms at {truth}");
            }
        }
    }
    for (number, board) in town.iter().enumerate().skip(liars) {
        assert!(board.last > 0, "seed {seed}: board {number} never knew the time");
    }
}

#[test]
fn a_town_of_boards_agrees() {
    for seed in 0..20 {
        run(seed, 9, 0, 24);
    }
}

#[test]
fn two_liars_of_nine_change_nothing() {
    for seed in 0..20 {
        run(seed, 9, 2, 24);
    }
}

proptest! {
    /// Two of seven peers say anything whatever, at any time: the time is what the others say.
    #[test]
    fn two_liars_of_seven_change_nothing(
        lies in proptest::collection::vec((0..2_u8, any::<u64>(), any::<u32>(), 0..2000_u64), 0..40),
        honest in proptest::collection::vec(0..60_u64, 5),
    ) {
        let mut time = MeshTime::new(0);
        for (number, off) in honest.iter().enumerate() {
            let reading = Reading { time: TRUTH + off, error: 100 };
            time.handle_reading(at(0), peer(10 + u8::try_from(number).unwrap()), reading, at(10));
        }
        let mut last = time.time(at(10_000)).unwrap();
        let mut now = 10_000;
        for (liar, says, error, wait) in lies {
            now += wait;
            time.handle_reading(at(now), peer(liar), Reading { time: says, error }, at(10));
            let known = time.time(at(now)).unwrap();
            prop_assert!(known >= last);
            prop_assert!(known.abs_diff(TRUTH + now) <= 220, "{} at {}", known, now);
            last = known;
        }
    }

    /// Marzullo's interval against a count at every edge.
    #[test]
    fn the_interval_of_most_is_right(intervals in proptest::collection::vec((0..50_u64, 0..20_u64), 0..9)) {
        let intervals: Vec<(u64, u64)> = intervals.into_iter().map(|(low, width)| (low, low + width)).collect();
        let over = |at: u64| intervals.iter().filter(|(low, high)| (*low..=*high).contains(&at)).count();
        let best = (0..80).map(over).max().unwrap();
        let expected = (best * 2 > intervals.len()).then(|| {
            ((0..80).find(|at| over(*at) == best).unwrap(), (0..80).rfind(|at| over(*at) == best).unwrap())
        });
        prop_assert_eq!(most(&intervals), expected);
    }
}
