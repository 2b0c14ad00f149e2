//! INITIATION, RESPONSE, FINISH: the three messages of the Noise handshake (`docs/protocol.md`, Handshake).

use crate::{
    LinkIndex,
    datagram::{DatagramError, DatagramKind, VERSION, array, check_head},
};

/// Length of an initiation: head, ephemeral key, encrypted nonce and index.
pub const INITIATION_LEN: usize = 72;
/// Bytes of an initiation before the Noise message.
pub const INITIATION_HEAD: usize = 4;
/// Bytes of a response or a finish before the Noise message.
pub const ANSWER_HEAD: usize = 8;
/// Longest handshake datagram: it fits every path (IPv6 carries 1280 bytes everywhere).
pub const HANDSHAKE_MAX: usize = 1200;

/// Noise message 2 with an index: ephemeral key, encrypted static key, payload and tag.
const RESPONSE_MIN: usize = ANSWER_HEAD + 32 + 48 + 4 + 16;
/// Noise message 3 without payload: encrypted static key, tag.
const FINISH_MIN: usize = ANSWER_HEAD + 48 + 16;

fn checked(datagram: &[u8], kind: DatagramKind, min: usize) -> Result<(), DatagramError> {
    check_head(datagram, kind)?;
    if (min..=HANDSHAKE_MAX).contains(&datagram.len()) { Ok(()) } else { Err(DatagramError::Length) }
}

fn answer_head(kind: DatagramKind, receiver: LinkIndex) -> [u8; ANSWER_HEAD] {
    let mut out = [kind.byte(), VERSION, 0, 0, 0, 0, 0, 0];
    out[4..].copy_from_slice(&receiver.0.to_be_bytes());
    out
}

/// A view of an initiation.
#[derive(Clone, Copy, Debug)]
pub struct Initiation<'a>(&'a [u8]);

impl<'a> Initiation<'a> {
    /// The bytes before the Noise message.
    pub const HEAD: [u8; INITIATION_HEAD] = [DatagramKind::Initiation.byte(), VERSION, 0, 0];

    /// Looks at a datagram as an initiation.
    ///
    /// # Errors
    /// Another type, version or length, or a reserved byte set.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        checked(datagram, DatagramKind::Initiation, INITIATION_LEN)?;
        if datagram.len() == INITIATION_LEN { Ok(Self(datagram)) } else { Err(DatagramError::Length) }
    }

    /// The Noise message.
    #[must_use]
    pub fn noise(&self) -> &'a [u8] {
        &self.0[INITIATION_HEAD..]
    }

    /// The ephemeral key that the Noise message begins with.
    #[must_use]
    pub fn ephemeral(&self) -> [u8; 32] {
        array(self.0, INITIATION_HEAD)
    }
}

/// The payload of Noise message 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiationPayload {
    /// The nonce that the responder's beacon showed.
    pub nonce: [u8; 16],
    /// The index that the initiator wants to see as receiver.
    pub sender: LinkIndex,
}

impl InitiationPayload {
    /// Reads the payload.
    ///
    /// # Errors
    /// Another length than 20 bytes.
    pub fn parse(payload: &[u8]) -> Result<Self, DatagramError> {
        let payload: &[u8; 20] = payload.try_into().map_err(|_| DatagramError::Length)?;
        Ok(Self { nonce: array(payload, 0), sender: LinkIndex(u32::from_be_bytes(array(payload, 16))) })
    }

    /// The payload's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..16].copy_from_slice(&self.nonce);
        out[16..].copy_from_slice(&self.sender.0.to_be_bytes());
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

    /// The initiator's index.
    #[must_use]
    pub fn receiver(&self) -> LinkIndex {
        LinkIndex(u32::from_be_bytes(array(self.0, 4)))
    }

    /// The Noise message.
    #[must_use]
    pub fn noise(&self) -> &'a [u8] {
        &self.0[ANSWER_HEAD..]
    }

    /// The bytes before the Noise message.
    #[must_use]
    pub fn head(receiver: LinkIndex) -> [u8; ANSWER_HEAD] {
        answer_head(DatagramKind::Response, receiver)
    }

    /// Parts the payload of Noise message 2: the index that the responder wants to see as receiver, and its hello.
    ///
    /// # Errors
    /// Too short for an index.
    pub fn split_payload(payload: &[u8]) -> Result<(LinkIndex, &[u8]), DatagramError> {
        let (index, hello) = payload.split_first_chunk::<4>().ok_or(DatagramError::Length)?;
        Ok((LinkIndex(u32::from_be_bytes(*index)), hello))
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
        &self.0[ANSWER_HEAD..]
    }

    /// The bytes before the Noise message.
    #[must_use]
    pub fn head(receiver: LinkIndex) -> [u8; ANSWER_HEAD] {
        answer_head(DatagramKind::Finish, receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    const A: LinkIndex = LinkIndex(0x0102_0304);

    #[test]
    fn golden_heads_and_payloads() {
        assert_eq!(Initiation::HEAD, [2, 1, 0, 0]);
        assert_eq!(Response::head(A), [3, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(Finish::head(A), [4, 1, 0, 0, 1, 2, 3, 4]);
        let payload = InitiationPayload { nonce: [0xaa; 16], sender: A };
        let mut golden = [0xaa; 20];
        golden[16..].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(payload.to_bytes(), golden);
        assert_eq!(InitiationPayload::parse(&golden), Ok(payload));
        assert_eq!(InitiationPayload::parse(&golden[1..]), Err(DatagramError::Length));
        assert_eq!(Response::split_payload(&[1, 2, 3, 4, 9]), Ok((A, &[9][..])));
        assert_eq!(Response::split_payload(&[1, 2, 3]), Err(DatagramError::Length));
    }

    #[test]
    fn fields_lie_where_the_document_says() {
        let mut bytes = vec![0x55; INITIATION_LEN];
        bytes[..4].copy_from_slice(&Initiation::HEAD);
        let initiation = Initiation::parse(&bytes).unwrap();
        assert_eq!((initiation.ephemeral(), initiation.noise().len()), ([0x55; 32], 68));

        let mut bytes = vec![0x55; 300];
        bytes[..8].copy_from_slice(&Response::head(A));
        let response = Response::parse(&bytes).unwrap();
        assert_eq!((response.receiver(), response.noise().len()), (A, 292));

        bytes[..8].copy_from_slice(&Finish::head(A));
        let finish = Finish::parse(&bytes).unwrap();
        assert_eq!((finish.receiver(), finish.noise().len()), (A, 292));
    }

    #[test]
    fn lengths_are_bounded() {
        let mut bytes = vec![0; 1300];
        bytes[..4].copy_from_slice(&Initiation::HEAD);
        assert_eq!(Initiation::parse(&bytes[..71]).err(), Some(DatagramError::Length));
        assert_eq!(Initiation::parse(&bytes[..73]).err(), Some(DatagramError::Length));
        bytes[..8].copy_from_slice(&Response::head(A));
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
            let _ = Initiation::parse(&bytes).map(|view| (view.ephemeral(), view.noise().len()));
            let _ = Response::parse(&bytes).map(|view| (view.receiver(), view.noise().len()));
            let _ = Finish::parse(&bytes).map(|view| (view.receiver(), view.noise().len()));
            let _ = InitiationPayload::parse(&bytes);
            let _ = Response::split_payload(&bytes);
        }
    }
}
