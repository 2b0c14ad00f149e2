//! The first byte of a datagram, and what is wrong with those that are dropped unread (`docs/protocol.md`, Datagrams).

/// The version in the second byte of types 1 to 4.
pub(crate) const VERSION: u8 = 1;

/// What a datagram is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// Shows holders of the town key that a node is here.
    Beacon,
    /// Noise message 1.
    Initiation,
    /// Noise message 2.
    Response,
    /// Noise message 3.
    Finish,
    /// A frame of the core: Babel, probes, goodbyes.
    Control,
    /// A frame of the plane: an IP packet.
    Data,
}

impl DatagramKind {
    /// The kind of a datagram, or `None` if it is empty or of no known type. Looks at the first byte only.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        Some(match datagram.first()? {
            1 => Self::Beacon,
            2 => Self::Initiation,
            3 => Self::Response,
            4 => Self::Finish,
            5 => Self::Control,
            6 => Self::Data,
            _ => return None,
        })
    }

    /// The first byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Beacon => 1,
            Self::Initiation => 2,
            Self::Response => 3,
            Self::Finish => 4,
            Self::Control => 5,
            Self::Data => 6,
        }
    }
}

/// Why bytes are not the datagram or frame that they were taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The first byte is another type's.
    #[error("it is of another type")]
    Type,
    /// The version is not ours.
    #[error("it is of another version")]
    Version,
    /// A byte that must be zero is not.
    #[error("a reserved byte is not zero")]
    Reserved,
    /// Too short or too long.
    #[error("it is too short or too long")]
    Length,
}

/// Checks the first four bytes of a handshake datagram: type, version, two zeros.
pub(crate) fn check_head(datagram: &[u8], kind: DatagramKind) -> Result<(), DatagramError> {
    match datagram {
        [first, ..] if *first != kind.byte() => Err(DatagramError::Type),
        [_, version, ..] if *version != VERSION => Err(DatagramError::Version),
        [_, _, 0, 0, ..] => Ok(()),
        [_, _, _, _, ..] => Err(DatagramError::Reserved),
        _ => Err(DatagramError::Length),
    }
}

/// The `N` bytes at `at`, which the caller has checked to be there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
