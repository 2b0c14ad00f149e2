//! A packet and the walk over its TLVs (RFC 8966, sections 4.2 and 4.3).

use super::{HEADER, MAGIC, Tlv, TlvError, VERSION, kind, tlv::ParserState};

/// A Babel packet whose header is right.
///
/// ```text
///  | 42 | 2 | body length u16 | TLVs | trailer |
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    body: &'a [u8],
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its header or than the length in it.
    #[error("the packet is shorter than its length field says")]
    Short,
    /// The first byte is not 42.
    #[error("not a Babel packet")]
    Magic,
    /// A version other than 2.
    #[error("Babel version {0} is not spoken here")]
    Version(u8),
}

impl<'a> Packet<'a> {
    /// Checks the header. A trailer behind the body is ignored.
    ///
    /// # Errors
    ///
    /// [`PacketError`] if the header is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (&[magic, version, high, low], rest) = bytes.split_first_chunk::<HEADER>().ok_or(PacketError::Short)?;
        if magic != MAGIC {
            return Err(PacketError::Magic);
        }
        if version != VERSION {
            return Err(PacketError::Version(version));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        Ok(Self { body: rest.get(..length).ok_or(PacketError::Short)? })
    }

    /// The TLVs in order. Paddings, unknown types and those that only set state for others are not shown.
    #[must_use]
    pub fn tlvs(&self) -> Tlvs<'a> {
        Tlvs { rest: self.body, state: ParserState::default() }
    }
}

/// Iterator over a packet's TLVs.
///
/// An error concerns one TLV, which is to be ignored; the walk goes on behind it. Only a TLV that overruns the packet
/// ends the walk.
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
    state: ParserState,
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, TlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((&kind, after)) = self.rest.split_first() {
            if kind == kind::PAD1 {
                self.rest = after;
                continue;
            }
            let Some((body, after)) =
                after.split_first().and_then(|(&length, after)| after.split_at_checked(usize::from(length)))
            else {
                self.rest = &[];
                return Some(Err(TlvError::Short));
            };
            self.rest = after;
            if let Some(item) = Tlv::parse(&mut self.state, kind, body).transpose() {
                return Some(item);
            }
        }
        None
    }
}
