//! Mesh time: what time it is, for a town of boards that boot in 1970 (`docs/town.md`, Mesh time).
//!
//! Plain state: the caller reads clocks and speaks to peers. `now` is the time since the machine's boot, which never goes back; mesh
//! time is in milliseconds of Unix time. A node knows the time if its own clock is synchronised, or if more than half of at least
//! three peers agree on it; from then on it counts by itself, ever less sure.

use std::{collections::BTreeMap, time::Duration};

use grange_core::identity;
use grange_wire::TownId;

use crate::entry::{Author, Signer};

/// Peers whose readings are kept, at most; of more, the oldest readings go.
pub const PEERS_MAX: usize = 32;
/// Peers whose readings make an agreement, at least.
pub const PEERS_MIN: usize = 3;
/// The first peers are heard out for so long before they are believed: of all that are there, liars may be the first.
const HEAR_OUT: Duration = Duration::from_secs(10);
/// A reading is of no use any more after that.
const READING_LIFE: Duration = Duration::from_secs(3600);
/// How far two clocks drift apart at most, in parts per million: a bad crystal in the cold, and its opposite.
const DRIFT_PPM: u64 = 200;
/// A reading is never taken for better than this, in milliseconds.
const ERROR_MIN: u32 = 5;
/// Readings that are less sure than this say nothing.
const ERROR_MAX: u32 = 3_600_000;
/// The floor is saved at most this often, and when it is that far ahead of what is saved.
const SAVE_STEP: u64 = 24 * 3_600_000;
/// Later than this (the year 9999) nobody is right.
const LATEST: u64 = 253_402_300_799_000;
/// What a reading's signature is for.
const CONTEXT: &str = "grange v1 mesh time";
const VERSION: u8 = 1;

/// What a node says the time is, when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds of Unix time.
    pub time: u64,
    /// By how many milliseconds that may be wrong, either way.
    pub error: u32,
}

/// A [`Reading`] with the signature of who says it, in answer to one question.
///
/// As bytes: `| ver u8 = 1 | time u64 | error u32 | signature [64] |`. The signature covers town id, nonce and what stands before
/// it, under the context `grange v1 mesh time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedReading {
    reading: Reading,
    signature: [u8; 64],
}

impl SignedReading {
    /// Its size in bytes.
    pub const SIZE: usize = 77;

    /// Signs a reading. `nonce`: what the peer who asked sent along, fresh and random.
    #[must_use]
    pub fn sign(signer: &dyn Signer, town: &TownId, nonce: &[u8; 16], reading: Reading) -> Self {
        let signature = signer.sign(CONTEXT, &[&town.0, nonce, &covered(reading)]);
        Self { reading, signature }
    }

    /// The reading, if `author` signed it in answer to `nonce`.
    #[must_use]
    pub fn verify(&self, author: &Author, town: &TownId, nonce: &[u8; 16]) -> Option<Reading> {
        let parts: [&[u8]; 3] = [&town.0, nonce, &covered(self.reading)];
        identity::verify(&author.0, CONTEXT, &parts, &self.signature).then_some(self.reading)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..13].copy_from_slice(&covered(self.reading));
        bytes[13..].copy_from_slice(&self.signature);
        bytes
    }

    /// Reads what [`SignedReading::to_bytes`] wrote; `None` if it is of another version or size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (error, rest) = rest.split_first_chunk()?;
        let signature: &[u8; 64] = rest.try_into().ok()?;
        let reading = Reading { time: u64::from_be_bytes(*time), error: u32::from_be_bytes(*error) };
        (version == VERSION).then_some(Self { reading, signature: *signature })
    }
}

fn covered(reading: Reading) -> [u8; 13] {
    let mut bytes = [VERSION; 13];
    bytes[1..9].copy_from_slice(&reading.time.to_be_bytes());
    bytes[9..].copy_from_slice(&reading.error.to_be_bytes());
    bytes
}

/// How far the machine's own clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockQuality {
    /// It runs free, or nobody knows. It says nothing.
    Free,
    /// NTP or GPS sets it, and it may be wrong by so many milliseconds.
    Synchronised {
        /// As the kernel says (`adjtimex`, `maxerror`) or the receiver.
        error: u32,
    },
}

/// A value at a moment, as milliseconds since boot: from it on it counts by itself.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    time: u64,
    error: u64,
}

impl Mark {
    fn time(&self, now: u64) -> u64 {
        self.time.saturating_add(now.saturating_sub(self.at))
    }

    /// What it may be wrong by: more the older it is.
    fn error(&self, now: u64) -> u64 {
        self.error.saturating_add(now.saturating_sub(self.at).saturating_mul(DRIFT_PPM) / 1_000_000)
    }

    fn interval(&self, now: u64) -> (u64, u64) {
        let (time, error) = (self.time(now), self.error(now));
        (time.saturating_sub(error), time.saturating_add(error))
    }
}

/// What a node knows of the time.
///
/// Call [`MeshTime::handle_clock`] now and then, [`MeshTime::handle_reading`] with every peer's answer, ask
/// [`MeshTime::time`], and write down what [`MeshTime::poll_save`] gives.
#[derive(Debug)]
pub struct MeshTime {
    /// The time is at least this.
    floor: u64,
    /// The floor at the start. Clocks that are behind it are wrong; that this node was ahead since then may be its own mistake.
    first: u64,
    /// What is saved of it.
    saved: u64,
    readings: BTreeMap<Author, Mark>,
    own: Option<Mark>,
    /// When there were enough peers for the first time.
    enough: Option<u64>,
    /// What was last agreed on.
    agreed: Option<Mark>,
    /// What was last shown, so that it never goes back.
    shown: Option<(u64, u64)>,
}

impl MeshTime {
    /// Begins with the floor that was saved, 0 if there is none.
    #[must_use]
    pub fn new(saved: u64) -> Self {
        let saved = saved.min(LATEST);
        Self {
            floor: saved,
            first: saved,
            saved,
            readings: BTreeMap::new(),
            own: None,
            enough: None,
            agreed: None,
            shown: None,
        }
    }

    /// The machine's own clock, in milliseconds of Unix time.
    pub fn handle_clock(&mut self, now: Duration, clock: u64, quality: ClockQuality) {
        let now = millis(now);
        self.own = match quality {
            ClockQuality::Synchronised { error } if error <= ERROR_MAX && (self.first..=LATEST).contains(&clock) => {
                Some(Mark { at: now, time: clock, error: u64::from(error.max(ERROR_MIN)) })
            }
            ClockQuality::Synchronised { .. } | ClockQuality::Free => None,
        };
        self.agree(now);
    }

    /// A peer's reading, whose signature is good and who is a member. `round_trip`: from the question to the answer.
    /// Whether it says anything.
    pub fn handle_reading(&mut self, now: Duration, peer: Author, reading: Reading, round_trip: Duration) -> bool {
        let now = millis(now);
        let trip = millis(round_trip);
        let error = u64::from(reading.error.max(ERROR_MIN)).saturating_add(trip / 2 + 1);
        // Earlier than the floor it cannot be: the peer has just booted, or lies.
        let highest = reading.time.saturating_add(error);
        if reading.error > ERROR_MAX || trip > u64::from(ERROR_MAX) || highest < self.first || reading.time > LATEST {
            self.readings.remove(&peer);
            return false;
        }
        if !self.readings.contains_key(&peer) && self.readings.len() >= PEERS_MAX {
            let oldest = self.readings.iter().min_by_key(|(_, mark)| mark.at).map(|(author, _)| *author);
            oldest.and_then(|oldest| self.readings.remove(&oldest));
        }
        self.readings.insert(peer, Mark { at: now, time: reading.time + trip / 2, error });
        self.agree(now);
        true
    }

    /// Forgets a peer that is no member any more.
    pub fn forget(&mut self, peer: &Author) {
        self.readings.remove(peer);
    }

    /// The time in milliseconds of Unix time; `None`: nobody here knows. Never less than it was before.
    pub fn time(&mut self, now: Duration) -> Option<u64> {
        let now = millis(now);
        if self.agreed.is_none() {
            self.agree(now);
        }
        let agreed = self.agreed?.time(now).max(self.floor);
        let time = match self.shown {
            // Ahead of what is right now: at half speed until that has caught up.
            Some((at, shown)) => agreed.max(shown.saturating_add(now.saturating_sub(at) / 2)),
            None => agreed,
        };
        let time = time.min(LATEST);
        self.shown = Some((now, time));
        self.floor = self.floor.max(time);
        Some(time)
    }

    /// What is known even if the time is not: it is not earlier than this, in milliseconds of Unix time.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What this node says when a peer asks; `None`: it does not know.
    pub fn reading(&mut self, now: Duration) -> Option<Reading> {
        let time = self.time(now)?;
        let error = self.agreed?.error(millis(now));
        let error = u32::try_from(error).ok().filter(|error| *error <= ERROR_MAX)?;
        Some(Reading { time, error })
    }

    /// The floor, when it should be saved: at most once in 24 hours of mesh time. From the call on it counts as saved.
    pub fn poll_save(&mut self, now: Duration) -> Option<u64> {
        self.time(now)?;
        let ahead = self.floor.saturating_sub(self.saved);
        (ahead >= SAVE_STEP).then(|| {
            self.saved = self.floor;
            self.saved
        })
    }

    /// Looks for what most agree on, the own clock among them if it is synchronised.
    fn agree(&mut self, now: u64) {
        let life = millis(READING_LIFE);
        self.readings.retain(|_, reading| now.saturating_sub(reading.at) <= life);
        let own = self.own.filter(|own| now.saturating_sub(own.at) <= life);
        let readings = self.readings.values().chain(&own);
        let intervals: Vec<(u64, u64)> = readings.map(|reading| reading.interval(now)).collect();
        let enough = self.readings.len() >= PEERS_MIN;
        if !enough || now.saturating_sub(*self.enough.get_or_insert(now)) < millis(HEAR_OUT) {
            if let Some(own) = own {
                self.accept(own, now);
            }
        } else if let Some((low, high)) = most(&intervals) {
            // The own clock is better than a midpoint, where it lies in what the others say.
            let own = own.filter(|own| (low..=high).contains(&own.time(now)));
            let midpoint = Mark { at: now, time: low + (high - low) / 2, error: (high - low) / 2 + 1 };
            self.accept(own.unwrap_or(midpoint), now);
        }
    }

    fn accept(&mut self, mark: Mark, now: u64) {
        // What counts by itself and is surer than what is new stays, if the two do not contradict each other.
        let (low, high) = mark.interval(now);
        let keeps = self
            .agreed
            .is_some_and(|agreed| agreed.error(now) <= mark.error(now) && (low..=high).contains(&agreed.time(now)));
        if !keeps {
            self.agreed = Some(mark);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The interval that most of these lie over, if they are more than half (K. Marzullo, "Maintaining the Time in a Distributed
/// System", 1984). Of several with as many, from the beginning of the first to the end of the last.
fn most(intervals: &[(u64, u64)]) -> Option<(u64, u64)> {
    // Beginnings before ends, so that intervals that only touch overlap.
    let mut edges: Vec<(u64, bool)> = intervals.iter().flat_map(|(low, high)| [(*low, false), (*high, true)]).collect();
    edges.sort_unstable();
    let (mut over, mut best, mut from, mut to) = (0_usize, 0, 0, 0);
    for (at, end) in &edges {
        if *end {
            if over == best {
                to = *at;
            }
            over -= 1;
        } else {
            over += 1;
            if over > best {
                (best, from) = (over, *at);
            }
        }
    }
    (best * 2 > intervals.len()).then_some((from, to))
}

#[cfg(test)]
mod tests;
