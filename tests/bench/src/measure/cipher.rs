//! What the ciphers cost alone: the AEAD that the user-space plane uses, one core, packets in the cache.

use std::{hint::black_box, io, time::Duration};

use anyhow::{Context, Result, anyhow};
// Both have the same names for the same things.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::Sample;

/// Bytes of a packet, about those of a full one.
const PACKET: usize = 1400;

/// Packets that are sealed and then opened: as many as in a super-packet.
const BATCH: usize = 43;

/// How long each direction is measured.
const TIME: Duration = Duration::from_millis(400);

/// A cipher by name.
#[derive(Clone, Copy)]
pub(crate) struct Cipher {
    /// For the command line and the JSON.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    algorithm: &'static Algorithm,
}

/// Those that a link can agree on.
pub(crate) const CIPHERS: [Cipher; 2] = [
    Cipher { name: "aes-256-gcm", title: "AES-256-GCM", algorithm: &AES_256_GCM },
    Cipher { name: "chacha20-poly1305", title: "ChaCha20-Poly1305", algorithm: &CHACHA20_POLY1305 },
];

/// Seals and opens for a while.
///
/// # Errors
/// If the library refuses.
pub(crate) fn round(cipher: &Cipher) -> Result<Sample> {
    let refused = |_| anyhow!("the library refuses {}", cipher.title);
    let key = LessSafeKey::new(UnboundKey::new(cipher.algorithm, &[7; 32]).map_err(refused)?);
    let nonce = |counter: u64| {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(bytes)
    };
    let mut packets = vec![vec![0; PACKET + cipher.algorithm.tag_len()]; BATCH];
    let (mut sealing, mut opening, mut count, mut counter) = (Duration::ZERO, Duration::ZERO, 0_u32, 0);
    while sealing.min(opening) < TIME {
        let first = counter;
        let start = thread_time()?;
        for packet in &mut packets {
            let (body, tag) = packet.split_at_mut(PACKET);
            let made = key.seal_in_place_separate_tag(nonce(counter), Aad::from([0; 16]), body).map_err(refused)?;
            tag.copy_from_slice(made.as_ref());
            counter += 1;
        }
        sealing += thread_time()? - start;
        let start = thread_time()?;
        for (number, packet) in (first..).zip(&mut packets) {
            black_box(key.open_in_place(nonce(number), Aad::from([0; 16]), packet).map_err(refused)?);
        }
        opening += thread_time()? - start;
        count += 1;
    }
    let gigabytes = f64::from(count) * (BATCH * PACKET) as f64 / 1e9;
    Ok(Sample::from([
        ("seal_gb_s", gigabytes / sealing.as_secs_f64()),
        ("open_gb_s", gigabytes / opening.as_secs_f64()),
        ("hop_s_per_gb", (sealing + opening).as_secs_f64() / gigabytes),
    ]))
}

/// Processor time of this thread so far: what others do meanwhile does not count.
fn thread_time() -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if outcome < 0 {
        return Err(io::Error::last_os_error()).context("asking for this thread's processor time");
    }
    Ok(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
}
