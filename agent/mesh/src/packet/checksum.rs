//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A sum of 16-bit words in the machine's byte order, carries not yet added. The checksum does not depend on the byte
/// order as long as it is stored in the one it was summed in (RFC 1071, section 2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even distance from the start of what is summed.
    #[inline]
    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        // Thirty-two-bit words into 64-bit sums: no carry is lost below 2^32 words, and the compiler makes vectors of it.
        let (words, rest) = bytes.as_chunks::<4>();
        self.0 += words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_ne_bytes(last));
        self
    }

    /// Adds a number as a 16-bit word of the packet.
    #[inline]
    pub(super) fn add_word(mut self, word: u16) -> Self {
        self.0 += u64::from(word.to_be());
        self
    }

    /// The sum itself, as it stands in a partial checksum.
    #[inline]
    pub(super) fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(0).to_ne_bytes()
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub(super) fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }

    /// Whether the summed bytes, among them their checksum, are as they were sent.
    #[inline]
    pub(super) fn verifies(self) -> bool {
        self.folded() == [0xff, 0xff]
    }
}

/// The pseudo-header's sum but for the length of the transport part (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline]
pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8) -> Sum {
    let sum = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::default().add(&source.octets()).add(&destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Sum::default().add(&source.octets()).add(&destination.octets())
        }
        // No packet has both.
        _ => Sum::default(),
    };
    sum.add_word(u16::from(protocol))
}

/// Corrects a checksum for one word that changed (RFC 1624, equation 3).
#[inline]
pub(super) fn replace_word(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = u32::from(!u16::from_be_bytes(checksum))
        + u32::from(!u16::from_be_bytes(old))
        + u32::from(u16::from_be_bytes(new));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 4.1, word by word.
    pub(in crate::packet) fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(u16::from_be_bytes(Sum::default().add(&bytes).checksum()), reference(&bytes));
        }

        #[test]
        fn a_replaced_word_keeps_it_right(mut bytes in prop::collection::vec(any::<u8>(), 4..100), new: [u8; 2], at: usize) {
            let at = at % (bytes.len() / 2) * 2;
            let before = Sum::default().add(&bytes).checksum();
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&new);
            // The check, not equality: one's complement has two zeros.
            let after = replace_word(before, old, new);
            let mut all = bytes.clone();
            if all.len() % 2 == 1 {
                all.push(0);
            }
            all.extend(after);
            prop_assert!(Sum::default().add(&all).verifies() || bytes.iter().all(|b| *b == 0));
        }
    }
}
