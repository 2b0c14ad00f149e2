//! An IP prefix, always with its host bits zero.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An IPv4 or IPv6 prefix whose host bits are zero. Ordered by family, address, length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// `0.0.0.0/0`.
    pub const DEFAULT_V4: Self = Self::v4_const(Ipv4Addr::UNSPECIFIED, 0);
    /// `::/0`.
    pub const DEFAULT_V6: Self = Self::v6_const(Ipv6Addr::UNSPECIFIED, 0);

    pub(crate) const fn v4_const(addr: Ipv4Addr, len: u8) -> Self {
        Self { addr: IpAddr::V4(addr), len }
    }

    pub(crate) const fn v6_const(addr: Ipv6Addr, len: u8) -> Self {
        Self { addr: IpAddr::V6(addr), len }
    }

    /// The prefix of `len` bits that `addr` lies in; lengths beyond the family's are cut to it.
    #[must_use]
    pub fn new_truncating(addr: IpAddr, len: u8) -> Self {
        match addr {
            IpAddr::V4(v4) => {
                let len = len.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self { addr: Ipv4Addr::from(u32::from(v4) & mask).into(), len }
            }
            IpAddr::V6(v6) => {
                let len = len.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self { addr: Ipv6Addr::from(u128::from(v6) & mask).into(), len }
            }
        }
    }

    /// The prefix, or `None` if the length is beyond the family's or a host bit is set.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let cut = Self::new_truncating(addr, len);
        (cut.len == len && cut.addr == addr).then_some(cut)
    }

    /// The prefix of one host.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self::new_truncating(addr, 128)
    }

    /// The first address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits: 0 to 32 or 128.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix length, not a container's")]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether this is an IPv4 prefix.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Whether this is `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.len == 0
    }

    /// Whether `addr` is of the same family and lies in the prefix.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.is_v4() && Self::new_truncating(addr, self.len) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// No `ADDRESS/LENGTH`.
    #[error("expected ADDRESS/LENGTH, as in fd12:3456:789a:bcde::/64")]
    Form,
    /// The length is beyond 32 or 128.
    #[error("the length is beyond the address's bits (32 for IPv4, 128 for IPv6)")]
    Length,
    /// Bits behind the length are set.
    #[error("bits behind the prefix length are set")]
    HostBits,
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (addr, len) = text.split_once('/').ok_or(ParsePrefixError::Form)?;
        let addr: IpAddr = addr.parse().map_err(|_| ParsePrefixError::Form)?;
        let len: u8 = len.parse().map_err(|_| ParsePrefixError::Form)?;
        if len > if addr.is_ipv4() { 32 } else { 128 } {
            return Err(ParsePrefixError::Length);
        }
        Self::new(addr, len).ok_or(ParsePrefixError::HostBits)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn text_round_trip() {
        for text in ["0.0.0.0/0", "::/0", "100.64.0.0/10", "fd00::/8", "fd12:3456:789a:bcde::/64", "10.1.2.3/32"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_texts_say_why() {
        assert_eq!("fd00::".parse::<Prefix>(), Err(ParsePrefixError::Form));
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(ParsePrefixError::Length));
        assert_eq!("10.0.0.1/24".parse::<Prefix>(), Err(ParsePrefixError::HostBits));
    }

    #[test]
    fn a_v4_default_does_not_contain_v6() {
        assert!(!Prefix::DEFAULT_V4.contains("fd00::1".parse().unwrap()));
        assert!(Prefix::DEFAULT_V6.contains("fd00::1".parse().unwrap()));
    }
}
