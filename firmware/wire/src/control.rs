//! CONTROL: frames between the cores of two neighbours (`docs/protocol.md`, Control frames).

use crate::{
    LinkIndex,
    datagram::{DatagramError, DatagramKind, array},
};

/// Bytes of a CONTROL or DATA datagram before the ciphertext.
pub const FRAME_HEAD: usize = 16;
/// Bytes of the tag behind the ciphertext.
pub const FRAME_TAG: usize = 16;
/// Bytes of a control frame's plaintext before a probe's padding: type and id.
pub const PROBE_HEAD: usize = 5;
/// The flag of PLANE that asks for an answer.
const PLANE_ASKS: u8 = 1;

/// The 16 bytes before the ciphertext of CONTROL and DATA: type, three zeros, receiver, counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// CONTROL or DATA.
    pub kind: DatagramKind,
    /// The receiver's index.
    pub receiver: LinkIndex,
    /// The frame's number in its direction and under its key; also the AEAD's nonce.
    pub counter: u64,
}

impl FrameHeader {
    /// Reads the header of a CONTROL or DATA datagram and gives the ciphertext with its tag beside it.
    ///
    /// # Errors
    /// Another type, a reserved byte set, or too short for one byte of plaintext.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), DatagramError> {
        let Some(kind @ (DatagramKind::Control | DatagramKind::Data)) = DatagramKind::of(datagram) else {
            return Err(DatagramError::Type);
        };
        if datagram.len() <= FRAME_HEAD + FRAME_TAG {
            return Err(DatagramError::Length);
        }
        if datagram[1..4] != [0; 3] {
            return Err(DatagramError::Reserved);
        }
        let receiver = LinkIndex(u32::from_be_bytes(array(datagram, 4)));
        let counter = u64::from_be_bytes(array(datagram, 8));
        Ok((Self { kind, receiver, counter }, &datagram[FRAME_HEAD..]))
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEAD] {
        let mut out = [0; FRAME_HEAD];
        out[0] = self.kind.byte();
        out[4..8].copy_from_slice(&self.receiver.0.to_be_bytes());
        out[8..].copy_from_slice(&self.counter.to_be_bytes());
        out
    }
}

/// The plaintext of a CONTROL datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFrame<'a> {
    /// Nothing: the frame itself is the message.
    Keepalive,
    /// A Babel packet.
    Babel(&'a [u8]),
    /// Answer with `ProbeAck` at once.
    Probe {
        /// Names the probe.
        id: u32,
        /// Zero bytes that make the datagram as long as it is.
        padding: usize,
    },
    /// A probe arrived.
    ProbeAck {
        /// The probe's.
        id: u32,
        /// Bytes of the probe's UDP payload as it arrived.
        size: u16,
    },
    /// The sender stops.
    Close,
    /// The sender heard nothing for too long and uses the link no more, until a fresh handshake.
    Lost {
        /// Counts up; for traces only.
        id: u32,
    },
    /// Where the sender's kernel plane listens for this link, at the address that its datagrams come from.
    Plane {
        /// The sender's UDP port; zero: it has no kernel plane for this link, or none any more.
        port: u16,
        /// The receiver's port, as the sender knows it; zero: it knows of none.
        heard: u16,
        /// The sender has not yet been told that its port is known: answer with the like.
        asks: bool,
    },
}

impl<'a> ControlFrame<'a> {
    /// Reads a frame. Bytes behind a frame of fixed length are left alone, so that later versions may add to it.
    ///
    /// # Errors
    /// An unknown type, or too short.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, DatagramError> {
        let (kind, rest) = plaintext.split_first().ok_or(DatagramError::Length)?;
        let id = |len: usize| {
            if rest.len() < len { Err(DatagramError::Length) } else { Ok(u32::from_be_bytes(array(rest, 0))) }
        };
        Ok(match kind {
            0 => Self::Keepalive,
            1 => Self::Babel(rest),
            2 => Self::Probe { id: id(4)?, padding: rest.len() - 4 },
            3 => Self::ProbeAck { id: id(6)?, size: u16::from_be_bytes(array(rest, 4)) },
            4 => Self::Close,
            5 => Self::Lost { id: id(4)? },
            6 if rest.len() >= 5 => Self::Plane {
                port: u16::from_be_bytes(array(rest, 0)),
                heard: u16::from_be_bytes(array(rest, 2)),
                asks: rest[4] & PLANE_ASKS != 0,
            },
            6 => return Err(DatagramError::Length),
            _ => return Err(DatagramError::Type),
        })
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Keepalive | Self::Close => 1,
            Self::Babel(packet) => 1 + packet.len(),
            Self::Probe { padding, .. } => PROBE_HEAD + padding,
            Self::ProbeAck { .. } => 7,
            Self::Lost { .. } => 5,
            Self::Plane { .. } => 6,
        }
    }

    /// Writes the frame into the first [`encoded_len`](Self::encoded_len) bytes of `out`.
    ///
    /// # Errors
    /// `out` is too short; nothing was written.
    pub fn write(&self, out: &mut [u8]) -> Result<(), DatagramError> {
        let out = out.get_mut(..self.encoded_len()).ok_or(DatagramError::Length)?;
        match *self {
            Self::Keepalive => out[0] = 0,
            Self::Babel(packet) => {
                out[0] = 1;
                out[1..].copy_from_slice(packet);
            }
            Self::Probe { id, .. } => {
                out[0] = 2;
                out[1..5].copy_from_slice(&id.to_be_bytes());
                out[5..].fill(0);
            }
            Self::ProbeAck { id, size } => {
                out[0] = 3;
                out[1..5].copy_from_slice(&id.to_be_bytes());
                out[5..].copy_from_slice(&size.to_be_bytes());
            }
            Self::Close => out[0] = 4,
            Self::Lost { id } => {
                out[0] = 5;
                out[1..].copy_from_slice(&id.to_be_bytes());
            }
            Self::Plane { port, heard, asks } => {
                out[0] = 6;
                out[1..3].copy_from_slice(&port.to_be_bytes());
                out[3..5].copy_from_slice(&heard.to_be_bytes());
                out[5] = u8::from(asks) * PLANE_ASKS;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_header() {
        let header = FrameHeader {
            kind: DatagramKind::Control,
            receiver: LinkIndex(0x0102_0304),
            counter: 0x1122_3344_5566_7788,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [5, 0, 0, 0, 1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        let mut datagram = vec![0; 33];
        datagram[..16].copy_from_slice(&bytes);
        let (again, ciphertext) = FrameHeader::parse(&datagram).unwrap();
        assert_eq!((again, ciphertext.len()), (header, 17));
        assert_eq!(FrameHeader::parse(&datagram[..32]).err(), Some(DatagramError::Length));
        datagram[3] = 1;
        assert_eq!(FrameHeader::parse(&datagram).err(), Some(DatagramError::Reserved));
    }

    #[test]
    fn golden_frames() {
        let goldens: [(ControlFrame<'_>, &[u8]); 8] = [
            (ControlFrame::Keepalive, &[0]),
            (ControlFrame::Babel(&[42, 2, 0, 0]), &[1, 42, 2, 0, 0]),
            (ControlFrame::Probe { id: 0x0a0b_0c0d, padding: 3 }, &[2, 10, 11, 12, 13, 0, 0, 0]),
            (ControlFrame::ProbeAck { id: 0x0a0b_0c0d, size: 1452 }, &[3, 10, 11, 12, 13, 5, 172]),
            (ControlFrame::Close, &[4]),
            (ControlFrame::Lost { id: 1 }, &[5, 0, 0, 0, 1]),
            (ControlFrame::Plane { port: 0x0102, heard: 0x0304, asks: true }, &[6, 1, 2, 3, 4, 1]),
            (ControlFrame::Plane { port: 0x0102, heard: 0, asks: false }, &[6, 1, 2, 0, 0, 0]),
        ];
        for (frame, golden) in goldens {
            let mut out = vec![0xff; frame.encoded_len()];
            frame.write(&mut out).unwrap();
            assert_eq!(out, golden);
            assert_eq!(ControlFrame::parse(golden).unwrap(), frame);
            assert_eq!(frame.write(&mut out[1..]), Err(DatagramError::Length));
        }
        assert_eq!(ControlFrame::parse(&[]), Err(DatagramError::Length));
        assert_eq!(ControlFrame::parse(&[3, 0, 0, 0, 0, 1]), Err(DatagramError::Length));
        assert_eq!(ControlFrame::parse(&[6, 0, 0, 0, 0]), Err(DatagramError::Length));
        let later = ControlFrame::Plane { port: 1, heard: 2, asks: false };
        assert_eq!(ControlFrame::parse(&[6, 0, 1, 0, 2, 0xfe, 9]), Ok(later), "bits and bytes of later versions");
        assert_eq!(ControlFrame::parse(&[99]), Err(DatagramError::Type));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = FrameHeader::parse(&bytes);
            if let Ok(frame) = ControlFrame::parse(&bytes) {
                prop_assert!(frame.encoded_len() <= bytes.len());
                let mut out = vec![0; frame.encoded_len()];
                frame.write(&mut out).unwrap();
                prop_assert_eq!(ControlFrame::parse(&out).unwrap(), frame);
            }
        }
    }
}
