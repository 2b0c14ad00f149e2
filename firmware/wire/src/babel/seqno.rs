//! Sequence numbers modulo 2^16.

use core::fmt;

/// A sequence number (RFC 8966, section 3.2.1). It has no order that could be derived: 65,535 comes before 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seqno(pub u16);

impl Seqno {
    /// Whether `self` is less than `other` modulo 2^16 (section 3.2.1).
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        (1..0x8000).contains(&other.0.wrapping_sub(self.0))
    }

    /// The number `by` steps later.
    #[must_use]
    pub fn plus(self, by: u16) -> Self {
        Self(self.0.wrapping_add(by))
    }
}

impl fmt::Debug for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_wraps() {
        assert!(Seqno(1).is_before(Seqno(2)));
        assert!(Seqno(0xffff).is_before(Seqno(0)));
        assert!(Seqno(0xffff).is_before(Seqno(0x7ffe)));
        assert!(!Seqno(0).is_before(Seqno(0xffff)));
        assert!(!Seqno(7).is_before(Seqno(7)));
        // Exactly half way round, neither is before the other.
        assert!(!Seqno(0).is_before(Seqno(0x8000)) && !Seqno(0x8000).is_before(Seqno(0)));
        assert_eq!(Seqno(0xffff).plus(2), Seqno(1));
    }
}
