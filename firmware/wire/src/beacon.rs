//! BEACON: shows the holders of the town key that a node is here (`docs/protocol.md`, Beacon).

use crate::datagram::{DatagramError, DatagramKind, VERSION, array};

/// Length of a beacon in bytes.
pub const BEACON_LEN: usize = 36;

/// What a beacon asks for or says about its nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeaconFlags {
    /// Whoever hears this shall answer with a beacon of its own, by unicast.
    pub solicit: bool,
    /// The nonce holds for the address only that this beacon was sent to.
    pub cookie: bool,
    /// It answers a SOLICIT: the tag covers that one's nonce too, which shows that the answer is no replayed one.
    pub answer: bool,
}

impl BeaconFlags {
    const SOLICIT: u16 = 1;
    const COOKIE: u16 = 2;
    const ANSWER: u16 = 4;

    /// Unknown bits are left out: later versions may set them.
    fn from_bits(bits: u16) -> Self {
        Self { solicit: bits & Self::SOLICIT != 0, cookie: bits & Self::COOKIE != 0, answer: bits & Self::ANSWER != 0 }
    }

    fn bits(self) -> u16 {
        u16::from(self.solicit) * Self::SOLICIT
            + u16::from(self.cookie) * Self::COOKIE
            + u16::from(self.answer) * Self::ANSWER
    }
}

/// A view of a beacon's bytes. The tag is not checked here: that takes the town key.
#[derive(Clone, Copy, Debug)]
pub struct Beacon<'a>(&'a [u8; BEACON_LEN]);

impl<'a> Beacon<'a> {
    /// Looks at a datagram as a beacon.
    ///
    /// # Errors
    /// Another type, version or length.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DatagramError> {
        if DatagramKind::of(datagram) != Some(DatagramKind::Beacon) {
            return Err(DatagramError::Type);
        }
        let bytes: &[u8; BEACON_LEN] = datagram.try_into().map_err(|_| DatagramError::Length)?;
        if bytes[1] == VERSION { Ok(Self(bytes)) } else { Err(DatagramError::Version) }
    }

    /// The flags.
    #[must_use]
    pub fn flags(&self) -> BeaconFlags {
        BeaconFlags::from_bits(u16::from_be_bytes(array(self.0, 2)))
    }

    /// The nonce that an initiation to this node shall carry.
    #[must_use]
    pub fn nonce(&self) -> [u8; 16] {
        array(self.0, 4)
    }

    /// What the tag covers of these bytes: the first 20.
    #[must_use]
    pub fn tagged(&self) -> &'a [u8] {
        &self.0[..20]
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> [u8; 16] {
        array(self.0, 20)
    }

    /// A beacon's bytes; `tag` computes the tag over the first 20.
    #[must_use]
    pub fn write(flags: BeaconFlags, nonce: &[u8; 16], tag: impl FnOnce(&[u8]) -> [u8; 16]) -> [u8; BEACON_LEN] {
        let mut bytes = [0; BEACON_LEN];
        bytes[0] = DatagramKind::Beacon.byte();
        bytes[1] = VERSION;
        bytes[2..4].copy_from_slice(&flags.bits().to_be_bytes());
        bytes[4..20].copy_from_slice(nonce);
        let tag = tag(&bytes[..20]);
        bytes[20..].copy_from_slice(&tag);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let flags = BeaconFlags { solicit: true, cookie: true, answer: true };
        let bytes = Beacon::write(flags, &[0xaa; 16], |head| {
            assert_eq!(head.len(), 20);
            [0xbb; 16]
        });
        let mut golden = [0; 36];
        golden[..4].copy_from_slice(&[1, 1, 0, 7]);
        golden[4..20].fill(0xaa);
        golden[20..].fill(0xbb);
        assert_eq!(bytes, golden);
        let beacon = Beacon::parse(&golden).unwrap();
        assert_eq!((beacon.flags(), beacon.nonce(), beacon.tag()), (flags, [0xaa; 16], [0xbb; 16]));
        assert_eq!(beacon.tagged(), &golden[..20]);
    }

    #[test]
    fn others_are_refused() {
        let bytes = Beacon::write(BeaconFlags::default(), &[0; 16], |_| [0; 16]);
        assert_eq!(Beacon::parse(&bytes[..35]).err(), Some(DatagramError::Length));
        assert_eq!(Beacon::parse(&[]).err(), Some(DatagramError::Type));
        let mut other = bytes;
        other[1] = 2;
        assert_eq!(Beacon::parse(&other).err(), Some(DatagramError::Version));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(beacon) = Beacon::parse(&bytes) {
                let again = Beacon::write(beacon.flags(), &beacon.nonce(), |_| beacon.tag());
                prop_assert_eq!(&again[4..], &bytes[4..]);
            }
        }
    }
}
