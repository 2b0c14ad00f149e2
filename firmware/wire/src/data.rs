//! DATA: an IP packet between the planes of two neighbours (`docs/protocol.md`, Data frames).
//!
//! The 16 bytes before the ciphertext are a [`FrameHeader`](crate::FrameHeader); this is the first byte of the
//! plaintext behind it.

/// Bytes that a data frame adds to an IP packet: header, flags, tag.
pub const DATA_OVERHEAD: usize = 33;

/// Bytes of IPv6 and UDP headers around a datagram.
pub const UNDERLAY_V6: usize = 48;

/// Bytes of IPv4 and UDP headers around a datagram.
pub const UNDERLAY_V4: usize = 28;

/// Which part of a packet a data frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first part.
    First,
    /// The second part; its counter is the first part's plus one.
    Second,
}

/// The first byte of a data frame's plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFlags {
    /// What the frame holds.
    pub part: Part,
    /// The TCP or UDP checksum is partial: the sender's kernel left it out.
    pub partial_checksum: bool,
}

impl DataFlags {
    /// Flags of a whole packet with a complete checksum.
    pub const PLAIN: Self = Self { part: Part::Whole, partial_checksum: false };

    const PARTIAL: u8 = 4;

    /// Reads the byte; `None` if the part is the reserved fourth value. Unknown upper bits are left out.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let part = match byte & 3 {
            0 => Part::Whole,
            1 => Part::First,
            2 => Part::Second,
            _ => return None,
        };
        Some(Self { part, partial_checksum: byte & Self::PARTIAL != 0 })
    }

    /// The byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        let part = match self.part {
            Part::Whole => 0,
            Part::First => 1,
            Part::Second => 2,
        };
        part | if self.partial_checksum { Self::PARTIAL } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        assert_eq!(DataFlags::PLAIN.byte(), 0);
        for byte in [0, 1, 2, 4, 5, 6] {
            assert_eq!(DataFlags::from_byte(byte).unwrap().byte(), byte);
        }
        assert_eq!(DataFlags::from_byte(6), Some(DataFlags { part: Part::Second, partial_checksum: true }));
        assert_eq!(DataFlags::from_byte(3), None);
        assert_eq!(DataFlags::from_byte(0xf8), Some(DataFlags::PLAIN));
    }
}
