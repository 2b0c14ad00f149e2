//! What an end of a session can do, and what both ends make of it (`docs/protocol.md`, Handshake).

use grange_wire::Hello;

use crate::Cipher;

/// What a machine offers for its data frames. Everybody has the user-space plane and ChaCha20-Poly1305.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// AES is fast here: the processor has instructions for it.
    pub fast_aes: bool,
    /// The kernel has WireGuard.
    pub kernel_plane: bool,
}

impl Offer {
    /// The planes, as HELLO lists them.
    pub(crate) fn planes(self) -> u8 {
        Hello::USERSPACE | if self.kernel_plane { Hello::KERNEL } else { 0 }
    }

    /// The ciphers, as HELLO lists them.
    pub(crate) fn ciphers(self) -> u8 {
        Hello::CHACHA20_POLY1305 | if self.fast_aes { Hello::AES_256_GCM } else { 0 }
    }

    /// What follows from ours and the other end's hello; `None`: it lacks what everybody must have.
    pub(crate) fn agree(self, theirs: &Hello<'_>) -> Option<Agreement> {
        let both = |ours: u8, theirs: u8, bit: u8| ours & theirs & bit != 0;
        let common = theirs.planes & Hello::USERSPACE != 0 && theirs.ciphers & Hello::CHACHA20_POLY1305 != 0;
        let aes = both(self.ciphers(), theirs.ciphers, Hello::AES_256_GCM);
        common.then_some(Agreement {
            cipher: if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 },
            kernel: both(self.planes(), theirs.planes, Hello::KERNEL),
        })
    }
}

/// What both ends of a session agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Of the user-space plane's frames.
    pub(crate) cipher: Cipher,
    /// Both ends have the kernel plane.
    pub(crate) kernel: bool,
}

impl Agreement {
    /// The byte that the data keys' derivation takes in: ends that understand different things have different keys.
    pub(crate) fn byte(self) -> u8 {
        let cipher = match self.cipher {
            Cipher::ChaCha20Poly1305 => 0,
            Cipher::Aes256Gcm => 1,
        };
        cipher | if self.kernel { 2 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(offer: Offer) -> Hello<'static> {
        Hello { planes: offer.planes(), ciphers: offer.ciphers(), run: [0; 8], name: "", certificate: &[] }
    }

    #[test]
    fn only_what_both_have_is_agreed_on_and_both_ends_see_the_same() {
        let offers = [(false, false), (false, true), (true, false), (true, true)];
        let offers = offers.map(|(fast_aes, kernel_plane)| Offer { fast_aes, kernel_plane });
        for ours in offers {
            for theirs in offers {
                let agreed = ours.agree(&hello(theirs)).unwrap();
                assert_eq!(Some(agreed), theirs.agree(&hello(ours)));
                assert_eq!(agreed.cipher == Cipher::Aes256Gcm, ours.fast_aes && theirs.fast_aes);
                assert_eq!(agreed.kernel, ours.kernel_plane && theirs.kernel_plane);
            }
        }
    }

    #[test]
    fn bits_of_later_versions_are_left_alone_and_what_everybody_has_is_asked_for() {
        let full = Offer { fast_aes: true, kernel_plane: true };
        let later = Hello { planes: 0xff, ciphers: 0xff, ..hello(full) };
        assert_eq!(full.agree(&later), full.agree(&hello(full)));
        assert_eq!(full.agree(&Hello { planes: Hello::KERNEL, ..later }), None);
        assert_eq!(full.agree(&Hello { ciphers: Hello::AES_256_GCM, ..later }), None);
    }
}
