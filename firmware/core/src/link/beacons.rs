//! Nonces: what a beacon shows, what an initiation must carry, what was answered already (`docs/protocol.md`, Beacon).

use alloc::collections::BTreeSet;
use core::{net::IpAddr, time::Duration};

use grange_wire::{Beacon, BeaconFlags};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Random, TokenBucket};
use crate::{Endpoint, Instant};

/// How long a nonce is shown; it is accepted for as long again, so that whoever hears it has at least this time.
pub(crate) const NONCE_LIFE: Duration = Duration::from_secs(5);

/// Initiations a second above which nonces must be bound to the asker's address: far more than a town forms links, and
/// about a tenth of what a slow router's Diffie-Hellman can do.
const FLOOD: u32 = 50;

/// How long a flood is remembered after the last second of it.
const FLOOD_MEMORY: Duration = Duration::from_secs(5);

/// Ephemeral keys remembered for each of two nonces, 16 bytes each: at [`HANDSHAKE_RATE`] fewer come within a
/// nonce's life.
const SEEN_MAX: usize = 512;

/// At most this many initiations a second are answered with Diffie-Hellman work.
const HANDSHAKE_RATE: u32 = 64;

/// Unicast beacons: answers to solicits and cookies. A fresh neighbour needs one or two.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_BURST: u32 = 64;

/// The same over the mesh, where a gateway that started anew is asked by a whole town.
const ANSWER_INTERVAL_OVER_MESH: Duration = Duration::from_millis(10);

/// What to do with an initiation whose nonce was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer it.
    Answer,
    /// Too many come: answer with this nonce in a COOKIE beacon, and remember nothing.
    Cookie([u8; 16]),
    /// The nonce is not or no more ours.
    Stale,
    /// Too many come, and the limit of answers is reached.
    Limited,
}

/// What a beacon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// Another town's, or an answer to what we did not ask lately.
    Foreign,
    /// Our own, come back.
    Own,
    /// A holder of the town key made it, at some time.
    Town,
    /// A holder of the town key made it in answer to our SOLICIT.
    Answer,
}

/// Of one period: the nonce that was shown, the secret of its cookies, and the ephemeral keys that came with them.
struct Period {
    nonce: [u8; 16],
    secret: Zeroizing<[u8; 32]>,
    seen: BTreeSet<[u8; 16]>,
}

impl Period {
    fn new(random: &mut Random) -> Self {
        Self { nonce: random.bytes(), secret: Zeroizing::new(random.bytes()), seen: BTreeSet::new() }
    }

    fn cookie(&self, at: &Endpoint) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&at.iface.0.to_be_bytes());
        match at.addr.ip() {
            IpAddr::V4(v4) => hasher.update(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => hasher.update(&v6.octets()),
        };
        hasher.update(&at.addr.port().to_be_bytes());
        first_16(&hasher.finalize())
    }
}

/// The beacons of a node in one town: of its links or, with a key, nonces and limits of their own, of its seals. So what
/// comes from afar, even in floods, keeps no neighbours apart.
pub(crate) struct Beacons {
    key: Zeroizing<[u8; 32]>,
    current: Period,
    previous: Period,
    rotate_at: Instant,
    second: Instant,
    in_second: u32,
    flood_until: Instant,
    answers: TokenBucket,
    handshakes: TokenBucket,
}

impl Beacons {
    pub(crate) fn new(town_key: &[u8; 32], now: Instant, random: &mut Random) -> Self {
        Self::with(blake3::derive_key("grange v1 beacon", town_key), ANSWER_INTERVAL, now, random)
    }

    /// The beacons of seals.
    pub(crate) fn of_seals(town_key: &[u8; 32], now: Instant, random: &mut Random) -> Self {
        let key = blake3::derive_key("grange v1 seal beacon", town_key);
        Self::with(key, ANSWER_INTERVAL_OVER_MESH, now, random)
    }

    fn with(key: [u8; 32], answer_interval: Duration, now: Instant, random: &mut Random) -> Self {
        Self {
            key: Zeroizing::new(key),
            current: Period::new(random),
            previous: Period::new(random),
            rotate_at: now + NONCE_LIFE,
            second: now,
            in_second: 0,
            flood_until: Instant::START,
            answers: TokenBucket::new(answer_interval, ANSWER_BURST),
            handshakes: TokenBucket::new(Duration::from_micros(1_000_000 / u64::from(HANDSHAKE_RATE)), HANDSHAKE_RATE),
        }
    }

    /// When [`rotate`](Self::rotate) has something to do.
    pub(crate) fn timeout(&self) -> Instant {
        self.rotate_at
    }

    /// Draws a new nonce when the present one's time is over.
    pub(crate) fn rotate(&mut self, now: Instant, random: &mut Random) {
        if now < self.rotate_at {
            return;
        }
        let current = core::mem::replace(&mut self.current, Period::new(random));
        // After a long sleep the present nonce is as old as the previous one.
        self.previous = if now.since(self.rotate_at) < NONCE_LIFE { current } else { Period::new(random) };
        self.rotate_at = now + NONCE_LIFE;
    }

    /// The tag over a beacon's first bytes and, in an answer, over the nonce of what it answers.
    fn tag(&self, tagged: &[u8], answered: Option<&[u8; 16]>) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(tagged);
        if let Some(nonce) = answered {
            hasher.update(nonce);
        }
        first_16(&hasher.finalize())
    }

    /// A beacon with the present nonce.
    pub(crate) fn beacon(&self, solicit: bool) -> [u8; grange_wire::BEACON_LEN] {
        let flags = BeaconFlags { solicit, ..BeaconFlags::default() };
        Beacon::write(flags, &self.current.nonce, |tagged| self.tag(tagged, None))
    }

    /// A beacon with a nonce for one address.
    pub(crate) fn cookie_beacon(&self, cookie: &[u8; 16]) -> [u8; grange_wire::BEACON_LEN] {
        let flags = BeaconFlags { cookie: true, ..BeaconFlags::default() };
        Beacon::write(flags, cookie, |tagged| self.tag(tagged, None))
    }

    /// The answer to the SOLICIT with this nonce from `at`; `None` if too many were asked for.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        at: &Endpoint,
        asked: &[u8; 16],
    ) -> Option<[u8; grange_wire::BEACON_LEN]> {
        if !self.answers.take(now) {
            return None;
        }
        let cookie = self.flooded(now);
        let nonce = if cookie { self.current.cookie(at) } else { self.current.nonce };
        let flags = BeaconFlags { solicit: false, cookie, answer: true };
        Some(Beacon::write(flags, &nonce, |tagged| self.tag(tagged, Some(asked))))
    }

    /// What a beacon is to us.
    pub(crate) fn recognise(&self, beacon: &Beacon<'_>) -> Recognised {
        let tagged = |answered| bool::from(self.tag(beacon.tagged(), answered).ct_eq(&beacon.tag()));
        if self.is_own(&beacon.nonce()) {
            Recognised::Own
        } else if !beacon.flags().answer {
            if tagged(None) { Recognised::Town } else { Recognised::Foreign }
        } else if tagged(Some(&self.current.nonce)) || tagged(Some(&self.previous.nonce)) {
            Recognised::Answer
        } else {
            Recognised::Foreign
        }
    }

    /// Whether the nonce is our own.
    fn is_own(&self, nonce: &[u8; 16]) -> bool {
        *nonce == self.current.nonce || *nonce == self.previous.nonce
    }

    /// Whether the nonce that we show is lower than another.
    pub(crate) fn is_lower(&self, than: &[u8; 16]) -> bool {
        self.current.nonce < *than
    }

    /// Counts an initiation, before anything is done about it.
    pub(crate) fn count_initiation(&mut self, now: Instant) {
        if now.since(self.second) >= Duration::from_secs(1) {
            (self.second, self.in_second) = (now, 0);
        }
        self.in_second = self.in_second.saturating_add(1);
        if self.in_second > FLOOD {
            self.flood_until = now + FLOOD_MEMORY;
        }
    }

    /// Whether so many initiations come that nonces must be bound to an address.
    pub(crate) fn flooded(&self, now: Instant) -> bool {
        now < self.flood_until
    }

    /// Whether an initiation with this ephemeral key was answered.
    pub(crate) fn was_seen(&self, ephemeral: &[u8; 32]) -> bool {
        let short = short(ephemeral);
        self.current.seen.contains(&short) || self.previous.seen.contains(&short)
    }

    /// Judges an initiation by the nonce that it carries, and remembers its ephemeral key if it shall be answered.
    pub(crate) fn judge(&mut self, now: Instant, nonce: &[u8; 16], ephemeral: &[u8; 32], at: &Endpoint) -> Verdict {
        let equal = |ours: &[u8; 16]| bool::from(ours.ct_eq(nonce));
        let flooded = self.flooded(now);
        let bound = [&self.current, &self.previous].map(|period| equal(&period.cookie(at)));
        let shown = [&self.current, &self.previous].map(|period| equal(&period.nonce));
        let period = if bound[0] || (shown[0] && !flooded) {
            &mut self.current
        } else if bound[1] || (shown[1] && !flooded) {
            &mut self.previous
        } else if shown[0] || shown[1] {
            let cookie = self.current.cookie(at);
            return if self.answers.take(now) { Verdict::Cookie(cookie) } else { Verdict::Limited };
        } else {
            return Verdict::Stale;
        };
        if period.seen.len() >= SEEN_MAX || !self.handshakes.take(now) {
            return Verdict::Limited;
        }
        period.seen.insert(short(ephemeral));
        Verdict::Answer
    }
}

fn first_16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// Half of an ephemeral key is enough to tell it from all others that are not made to look like it, and who makes two
/// alike only loses the answer to one.
fn short(ephemeral: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&ephemeral[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IfaceId;

    fn at(port: u16) -> Endpoint {
        Endpoint { iface: IfaceId(1), addr: (std::net::Ipv6Addr::LOCALHOST, port).into() }
    }

    fn nonce_of(bytes: &[u8]) -> [u8; 16] {
        Beacon::parse(bytes).unwrap().nonce()
    }

    const GOLDEN_TAG: [u8; 16] = [153, 144, 79, 153, 69, 69, 195, 131, 249, 41, 105, 148, 76, 62, 107, 191];
    const GOLDEN_ANSWER_TAG: [u8; 16] = [51, 163, 101, 105, 51, 74, 14, 117, 237, 197, 80, 126, 136, 103, 155, 202];

    #[test]
    fn golden_beacon() {
        let mut beacons = Beacons::new(&[7; 32], Instant::START, &mut Random::new([0; 32]));
        beacons.current.nonce = [0x11; 16];
        let bytes = beacons.beacon(true);
        assert_eq!(bytes[..20], [&[1, 1, 0, 1][..], &[0x11; 16]].concat());
        assert_eq!(bytes[20..], GOLDEN_TAG);
        let answer = beacons.answer(Instant::START, &at(1), &[0x22; 16]).unwrap();
        assert_eq!(answer[..20], [&[1, 1, 0, 4][..], &[0x11; 16]].concat());
        assert_eq!(answer[20..], GOLDEN_ANSWER_TAG);
        let beacon = Beacon::parse(&bytes).unwrap();
        assert_eq!(beacons.recognise(&beacon), Recognised::Own);
        let neighbour = Beacons::new(&[7; 32], Instant::START, &mut Random::new([1; 32]));
        assert_eq!(neighbour.recognise(&beacon), Recognised::Town);
        let stranger = Beacons::new(&[8; 32], Instant::START, &mut Random::new([2; 32]));
        assert_eq!(stranger.recognise(&beacon), Recognised::Foreign);
    }

    #[test]
    fn beacons_of_links_and_of_seals_are_foreign_to_each_other() {
        let mut random = Random::new([1; 32]);
        let [link, other] = [(); 2].map(|()| Beacons::new(&[7; 32], Instant::START, &mut random));
        let [seal, far] = [(); 2].map(|()| Beacons::of_seals(&[7; 32], Instant::START, &mut random));
        let (near, distant) = (link.beacon(true), seal.beacon(true));
        let (near, distant) = (Beacon::parse(&near).unwrap(), Beacon::parse(&distant).unwrap());
        assert_eq!((other.recognise(&near), far.recognise(&near)), (Recognised::Town, Recognised::Foreign));
        assert_eq!((other.recognise(&distant), far.recognise(&distant)), (Recognised::Foreign, Recognised::Town));
    }

    #[test]
    fn an_answer_is_good_for_who_asked_and_for_a_while() {
        let mut now = Instant::START;
        let mut random = Random::new([1; 32]);
        let mut asker = Beacons::new(&[7; 32], now, &mut random);
        let mut other = Beacons::new(&[7; 32], now, &mut random);
        let asked = nonce_of(&asker.beacon(true));
        let answer = other.answer(now, &at(1), &asked).unwrap();
        let answer = Beacon::parse(&answer).unwrap();
        assert_eq!(asker.recognise(&answer), Recognised::Answer);
        assert_eq!(Beacons::new(&[7; 32], now, &mut random).recognise(&answer), Recognised::Foreign);
        for _ in 0..2 {
            assert_eq!(asker.recognise(&answer), Recognised::Answer);
            now += NONCE_LIFE;
            asker.rotate(now, &mut random);
        }
        assert_eq!(asker.recognise(&answer), Recognised::Foreign);
    }

    #[test]
    fn a_nonce_lives_for_two_periods_and_a_key_is_answered_once() {
        let mut random = Random::new([1; 32]);
        let mut now = Instant::START;
        let mut beacons = Beacons::new(&[7; 32], now, &mut random);
        let nonce = nonce_of(&beacons.beacon(false));
        assert_eq!(beacons.judge(now, &nonce, &[1; 32], &at(1)), Verdict::Answer);
        assert!(beacons.was_seen(&[1; 32]));
        now += NONCE_LIFE;
        beacons.rotate(now, &mut random);
        assert!(beacons.is_own(&nonce));
        assert!(beacons.was_seen(&[1; 32]));
        assert_eq!(beacons.judge(now, &nonce, &[2; 32], &at(1)), Verdict::Answer);
        now += NONCE_LIFE;
        beacons.rotate(now, &mut random);
        assert_eq!(beacons.judge(now, &nonce, &[3; 32], &at(1)), Verdict::Stale);
        assert!(!beacons.is_own(&nonce));
    }

    #[test]
    fn under_a_flood_only_bound_nonces_count_and_memory_stays_bounded() {
        let mut random = Random::new([1; 32]);
        let now = Instant::from_micros(10_000_000);
        let mut beacons = Beacons::new(&[7; 32], now, &mut random);
        let shown = nonce_of(&beacons.beacon(false));
        for _ in 0..=FLOOD {
            beacons.count_initiation(now);
        }
        assert!(beacons.flooded(now));
        let mut ephemeral = [0; 32];
        let mut cookies = 0;
        for n in 0..10_000_u32 {
            ephemeral[..4].copy_from_slice(&n.to_be_bytes());
            match beacons.judge(now, &shown, &ephemeral, &at(9)) {
                Verdict::Cookie(_) => cookies += 1,
                verdict => assert_eq!(verdict, Verdict::Limited),
            }
        }
        assert_eq!(cookies, ANSWER_BURST);
        assert!(beacons.current.seen.is_empty());

        let later = now + Duration::from_secs(1);
        let cookie = nonce_of(&beacons.answer(later, &at(9), &[0; 16]).unwrap());
        assert_eq!(beacons.judge(later, &cookie, &[9; 32], &at(8)), Verdict::Stale, "bound to another port");
        for n in 0..10_000_u32 {
            ephemeral[..4].copy_from_slice(&n.to_be_bytes());
            beacons.judge(later, &cookie, &ephemeral, &at(9));
        }
        assert_eq!(beacons.current.seen.len(), HANDSHAKE_RATE as usize);
        assert!(!beacons.flooded(now + FLOOD_MEMORY));
    }
}
