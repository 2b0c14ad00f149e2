//! Repeatable bytes: what a receiver can check without having what was sent.

/// A small seeded generator (splitmix64, Steele, Lea and Flood 2014). For tests only: predictable.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next_u64() % bound as u64) as usize }
    }

    /// True with this probability (0 to 1).
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next_u64().to_be_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// An endless stream of bytes that follows from a seed, made or checked piece by piece.
#[derive(Clone, Debug)]
pub struct Pattern {
    random: Random,
    word: [u8; 8],
    used: usize,
    position: u64,
}

impl Pattern {
    /// The stream of this seed, from its beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), word: [0; 8], used: 8, position: 0 }
    }

    fn next_byte(&mut self) -> u8 {
        if self.used == 8 {
            self.word = self.random.next_u64().to_be_bytes();
            self.used = 0;
        }
        let byte = self.word[self.used];
        self.used += 1;
        self.position += 1;
        byte
    }

    /// The next bytes of the stream.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.next_byte();
        }
    }

    /// Whether `bytes` are the next ones of the stream.
    ///
    /// # Errors
    /// The position in the stream of the first byte that is not.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), u64> {
        for byte in bytes {
            let position = self.position;
            if self.next_byte() != *byte {
                return Err(position);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_at_its_place_however_the_stream_is_cut() {
        let mut sent = [0; 1000];
        Pattern::new(7).fill(&mut sent);
        let mut whole = Pattern::new(7);
        assert_eq!(whole.check(&sent[..13]), Ok(()));
        assert_eq!(whole.check(&sent[13..]), Ok(()));
        sent[500] ^= 1;
        let mut parts = Pattern::new(7);
        assert_eq!(parts.check(&sent[..400]), Ok(()));
        assert_eq!(parts.check(&sent[400..]), Err(500));
        assert!(Pattern::new(8).check(&sent[..8]).is_err());
    }
}
