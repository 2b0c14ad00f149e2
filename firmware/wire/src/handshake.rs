//! INITIATION, RESPONSE, FINISH: the three messages of the Noise handshake (`docs/protocol.md`, Handshake).

use crate::{
    LinkIndex,
    datagram::{DatagramError, DatagramKind, VERSION, array, check_head},
};

/// Length of an initiation: header, ephemeral key, encrypted nonce.
pub const INITIATION_LEN: usize = 72;
/// Bytes of a response before the Noise message.
pub const RESPONSE_HEAD: usize = 12;
/// Bytes of a finish before the Noise message.
pub const FINISH_HEAD: usize = 8;
/// Longest handshake datagram: it fits every path (IPv6 carries 1280 bytes everywhere).
pub const HANDSHAKE_MAX: usize = 1200;

/// Noise message 2 without payload: ephemeral key, encrypted static key, tag.
const RESPONSE_MIN: usize = RESPONSE_HEAD + 32 + 48 + 16;
/// Noise message 3 without payload: encrypted static key, tag.
const FINISH_MIN: usize = FINISH_HEAD + 48 + 16;

fn checked(datagram: &[u8], kind: DatagramKind, min: usize) -> Result<(), DatagramError> {
    check_head(datagram, kind)?;
    if (min..=HANDSHAKE_MAX).contains(&datagram.len()) { Ok(()) } else { Err(DatagramError::Length) }
}

fn head<const N: usize>(kind: DatagramKind, words: [u32; N], out: &mut [u8]) {
    out[..4].copy_from_slice(&[kind.byte(), VERSION, 0, 0]);
    for (slot, word) in out[4..].chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
}

/// A view of an initiation.
#[derive(Clone, Copy, Debug)]
pub struct Initiation<'a>(&'a [u8]);

impl<'a> Initiation<'a> {
    /// Looks at a datagram as an initiation.
    ///
    /// # Errors
    /// Another type, version or length, or a reserved byte set.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        checked(datagram, DatagramKind::Initiation, INITIATION_LEN)?;
        if datagram.len() == INITIATION_LEN { Ok(Self(datagram)) } else { Err(DatagramError::Length) }
    }

    /// The index that the initiator wants to see as receiver.
    #[must_use]
    pub fn sender(&self) -> LinkIndex {
        LinkIndex(u32::from_be_bytes(array(self.0, 4)))
    }

    /// The Noise message.
    #[must_use]
    pub fn noise(&self) -> &'a [u8] {
        &self.0[8..]
    }

    /// The ephemeral key that the Noise message begins with.
    #[must_use]
    pub fn ephemeral(&self) -> [u8; 32] {
        array(self.0, 8)
    }

    /// The eight bytes before the Noise message.
    #[must_use]
    pub fn head(sender: LinkIndex) -> [u8; 8] {
        let mut out = [0; 8];
        head(DatagramKind::Initiation, [sender.0], &mut out);
        out
    }
}

/// A view of a response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a>(&'a [u8]);

impl<'a> Response<'a> {
    /// Looks at a datagram as a response.
    ///
    /// # Errors
    /// Another type, version or length, or a reserved byte set.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        checked(datagram, DatagramKind::Response, RESPONSE_MIN)?;
        Ok(Self(datagram))
    }

    /// The index that the responder wants to see as receiver.
    #[must_use]
    pub fn sender(&self) -> LinkIndex {
        LinkIndex(u32::from_be_bytes(array(self.0, 4)))
    }

    /// The initiator's index.
    #[must_use]
    pub fn receiver(&self) -> LinkIndex {
        LinkIndex(u32::from_be_bytes(array(self.0, 8)))
    }

    /// The Noise message.
    #[must_use]
    pub fn noise(&self) -> &'a [u8] {
        &self.0[RESPONSE_HEAD..]
    }

    /// The twelve bytes before the Noise message.
    #[must_use]
    pub fn head(sender: LinkIndex, receiver: LinkIndex) -> [u8; RESPONSE_HEAD] {
        let mut out = [0; RESPONSE_HEAD];
        head(DatagramKind::Response, [sender.0, receiver.0], &mut out);
        out
    }
}

/// A view of a finish.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a>(&'a [u8]);

impl<'a> Finish<'a> {
    /// Looks at a datagram as a finish.
    ///
    /// # Errors
    /// Another type, version or length, or a reserved byte set.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        checked(datagram, DatagramKind::Finish, FINISH_MIN)?;
        Ok(Self(datagram))
    }

    /// The responder's index.
    #[must_use]
    pub fn receiver(&self) -> LinkIndex {
        LinkIndex(u32::from_be_bytes(array(self.0, 4)))
    }

    /// The Noise message.
    #[must_use]
    pub fn noise(&self) -> &'a [u8] {
        &self.0[FINISH_HEAD..]
    }

    /// The eight bytes before the Noise message.
    #[must_use]
    pub fn head(receiver: LinkIndex) -> [u8; FINISH_HEAD] {
        let mut out = [0; FINISH_HEAD];
        head(DatagramKind::Finish, [receiver.0], &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    const A: LinkIndex = LinkIndex(0x0102_0304);
    const B: LinkIndex = LinkIndex(0xa0b0_c0d0);

    #[test]
    fn golden_heads() {
        assert_eq!(Initiation::head(A), [2, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(Response::head(A, B), [3, 1, 0, 0, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0]);
        assert_eq!(Finish::head(B), [4, 1, 0, 0, 0xa0, 0xb0, 0xc0, 0xd0]);
    }

    #[test]
    fn fields_lie_where_the_document_says() {
        let mut bytes = vec![0x55; INITIATION_LEN];
        bytes[..8].copy_from_slice(&Initiation::head(A));
        let initiation = Initiation::parse(&bytes).unwrap();
        assert_eq!((initiation.sender(), initiation.ephemeral(), initiation.noise().len()), (A, [0x55; 32], 64));

        let mut bytes = vec![0x55; 300];
        bytes[..12].copy_from_slice(&Response::head(A, B));
        let response = Response::parse(&bytes).unwrap();
        assert_eq!((response.sender(), response.receiver(), response.noise().len()), (A, B, 288));

        bytes[..8].copy_from_slice(&Finish::head(B));
        let finish = Finish::parse(&bytes).unwrap();
        assert_eq!((finish.receiver(), finish.noise().len()), (B, 292));
    }

    #[test]
    fn lengths_are_bounded() {
        let mut bytes = vec![0; 1300];
        bytes[..8].copy_from_slice(&Initiation::head(A));
        assert_eq!(Initiation::parse(&bytes[..71]).err(), Some(DatagramError::Length));
        assert_eq!(Initiation::parse(&bytes[..73]).err(), Some(DatagramError::Length));
        bytes[..12].copy_from_slice(&Response::head(A, B));
        assert_eq!(Response::parse(&bytes[..RESPONSE_MIN - 1]).err(), Some(DatagramError::Length));
        assert_eq!(Response::parse(&bytes).err(), Some(DatagramError::Length));
        bytes[2] = 1;
        assert_eq!(Response::parse(&bytes[..200]).err(), Some(DatagramError::Reserved));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1300), kind in 1..7_u8) {
            if let [a, b, c, d, ..] = bytes.as_mut_slice() {
                (*a, *b, *c, *d) = (kind, 1, 0, 0);
            }
            let _ = Initiation::parse(&bytes).map(|view| (view.sender(), view.ephemeral(), view.noise().len()));
            let _ = Response::parse(&bytes).map(|view| (view.sender(), view.receiver(), view.noise().len()));
            let _ = Finish::parse(&bytes).map(|view| (view.receiver(), view.noise().len()));
        }
    }
}
