//! HELLO: what each end tells of itself inside the handshake (`docs/protocol.md`, Handshake).

use core::str;

use crate::datagram::{VERSION, array};

/// Longest name of a node, in bytes.
pub const NAME_MAX: usize = 32;
/// Longest certificate that a hello carries, in bytes; leaves room for later versions.
pub const CERTIFICATE_MAX: usize = 768;
/// Bytes before the name.
const HEAD: usize = 12;

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The version is not ours.
    #[error("the hello is of another version")]
    Version,
    /// Too short, or name or certificate too long.
    #[error("the hello is too short or too long")]
    Length,
    /// The name is no text or holds control characters.
    #[error("the name is not printable")]
    Name,
}

/// What a node says of itself in Noise messages 2 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Bit 0: userspace plane, bit 1: kernel plane, bit 7: [`ANEW`](Self::ANEW). Later versions may set more.
    pub planes: u8,
    /// Bit 0: ChaCha20-Poly1305, bit 1: AES-256-GCM. Later versions may set more.
    pub ciphers: u8,
    /// Random, drawn at each start: another one than before means that the node started anew.
    pub run: [u8; 8],
    /// The name that the node gives itself: at most 32 bytes without control characters.
    pub name: &'a str,
    /// The node's certificate.
    pub certificate: &'a [u8],
}

impl<'a> Hello<'a> {
    /// The userspace plane in [`planes`](Self::planes).
    pub const USERSPACE: u8 = 1;
    /// The kernel plane in [`planes`](Self::planes).
    pub const KERNEL: u8 = 2;
    /// In [`planes`](Self::planes) of message 3: its sender has no session with the receiver that this one renews, so
    /// the receiver shall not take it for a renewal either.
    pub const ANEW: u8 = 0x80;
    /// ChaCha20-Poly1305 in [`ciphers`](Self::ciphers).
    pub const CHACHA20_POLY1305: u8 = 1;
    /// AES-256-GCM in [`ciphers`](Self::ciphers).
    pub const AES_256_GCM: u8 = 2;

    /// Reads a hello.
    ///
    /// # Errors
    /// Another version, lengths that do not fit, or a name that is not printable.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HelloError> {
        let (&version, _) = bytes.split_first().ok_or(HelloError::Length)?;
        if version != VERSION {
            return Err(HelloError::Version);
        }
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or(HelloError::Length)?;
        let name_len = usize::from(head[3]);
        if name_len > NAME_MAX {
            return Err(HelloError::Length);
        }
        let (name, certificate) = rest.split_at_checked(name_len).ok_or(HelloError::Length)?;
        if certificate.len() > CERTIFICATE_MAX {
            return Err(HelloError::Length);
        }
        let name = str::from_utf8(name).map_err(|_| HelloError::Name)?;
        if name.chars().any(char::is_control) {
            return Err(HelloError::Name);
        }
        Ok(Self { planes: head[1], ciphers: head[2], run: array(head, 4), name, certificate })
    }

    /// Bytes of the hello.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEAD + self.name.len() + self.certificate.len()
    }

    /// Writes the hello into the first [`encoded_len`](Self::encoded_len) bytes of `out` and gives their number.
    ///
    /// # Errors
    /// The name or the certificate is too long, or `out` too short.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, HelloError> {
        if self.name.len() > NAME_MAX || self.certificate.len() > CERTIFICATE_MAX {
            return Err(HelloError::Length);
        }
        let name_len = u8::try_from(self.name.len()).map_err(|_| HelloError::Length)?;
        let len = self.encoded_len();
        let out = out.get_mut(..len).ok_or(HelloError::Length)?;
        out[..4].copy_from_slice(&[VERSION, self.planes, self.ciphers, name_len]);
        out[4..HEAD].copy_from_slice(&self.run);
        out[HEAD..HEAD + self.name.len()].copy_from_slice(self.name.as_bytes());
        out[HEAD + self.name.len()..].copy_from_slice(self.certificate);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let hello =
            Hello { planes: 1, ciphers: 3, run: [1, 2, 3, 4, 5, 6, 7, 8], name: "mühle", certificate: &[9, 8] };
        let golden = [1, 1, 3, 6, 1, 2, 3, 4, 5, 6, 7, 8, b'm', 0xc3, 0xbc, b'h', b'l', b'e', 9, 8];
        let mut out = [0; 64];
        assert_eq!(hello.write(&mut out), Ok(20));
        assert_eq!(out[..20], golden);
        assert_eq!(Hello::parse(&golden), Ok(hello));
        assert_eq!(hello.write(&mut out[..19]), Err(HelloError::Length));
    }

    #[test]
    fn wrong_hellos_say_why() {
        let mut bytes = vec![0; 12 + 4];
        bytes[0] = 2;
        assert_eq!(Hello::parse(&bytes), Err(HelloError::Version));
        bytes[0] = 1;
        bytes[3] = 5;
        assert_eq!(Hello::parse(&bytes), Err(HelloError::Length));
        bytes[3] = 4;
        assert_eq!(Hello::parse(&bytes), Err(HelloError::Name));
        bytes[12..].copy_from_slice(&[0xff; 4]);
        assert_eq!(Hello::parse(&bytes), Err(HelloError::Name));
        bytes[3] = 33;
        assert_eq!(Hello::parse(&bytes), Err(HelloError::Length));
        assert_eq!(Hello::parse(&[]), Err(HelloError::Length));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(first) = bytes.first_mut() {
                *first = 1;
            }
            if let Ok(hello) = Hello::parse(&bytes) {
                let mut out = vec![0; hello.encoded_len()];
                prop_assert_eq!(hello.write(&mut out), Ok(bytes.len()));
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
