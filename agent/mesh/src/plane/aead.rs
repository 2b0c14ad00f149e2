//! The ciphers of data frames.

use std::mem::{self, ManuallyDrop};

use grange_core::Cipher;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the tag behind every ciphertext.
pub(crate) const TAG_LEN: usize = 16;

/// Whether the processor has instructions for AES and for GCM's multiplication: without both, ChaCha20 is faster.
pub fn has_fast_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// One direction's key.
///
/// Every cipher has a 32-byte key, a tag of 16 bytes, and for its nonce the counter of the frame, so a choice of cipher
/// is a choice of algorithm here and nothing anywhere else.
pub(crate) struct FrameKey(ManuallyDrop<LessSafeKey>);

/// The frame's tag was not made with this key for these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl FrameKey {
    /// The key for `cipher`.
    ///
    /// # Errors
    /// The cipher does not take such a key: a reason for the log.
    pub(crate) fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Box<Self>, &'static str> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| "key of the wrong length")?;
        Ok(Box::new(Self(ManuallyDrop::new(LessSafeKey::new(key)))))
    }

    /// Encrypts `bytes` and gives the tag. `counter` must not have been used with this key before.
    ///
    /// # Errors
    /// `bytes` is larger than any datagram.
    #[inline]
    pub(crate) fn seal(&self, counter: u64, header: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_LEN], NotAuthentic> {
        let tag =
            self.0.seal_in_place_separate_tag(nonce(counter), Aad::from(header), bytes).map_err(|_| NotAuthentic)?;
        tag.as_ref().try_into().map_err(|_| NotAuthentic)
    }

    /// Decrypts `bytes`, a ciphertext with its tag, and gives the plaintext at its start.
    ///
    /// # Errors
    /// [`NotAuthentic`]; `bytes` is not to be used then.
    #[inline]
    pub(crate) fn open<'a>(
        &self,
        counter: u64,
        header: &[u8],
        bytes: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        self.0.open_in_place(nonce(counter), Aad::from(header), bytes).map_err(|_| NotAuthentic)
    }
}

impl Drop for FrameKey {
    fn drop(&mut self) {
        const {
            assert!(!mem::needs_drop::<LessSafeKey>(), "the key's memory is overwritten in place of its destructor");
        }
        let key: *mut LessSafeKey = &raw mut *self.0;
        // SAFETY: the pointer is to the whole of a key that is ours alone and is not used again: it is behind
        // `ManuallyDrop`, has no destructor (asserted above), and `self` ends here. Zeros go in as raw bytes, which need
        // not make a valid key. Volatile, so that the compiler does not leave out writes that nobody reads.
        unsafe {
            let bytes = key.cast::<u8>();
            for at in 0..size_of::<LessSafeKey>() {
                bytes.add(at).write_volatile(0);
            }
        }
    }
}

/// The nonce of a frame as in Noise: 4 zero bytes and the counter, little-endian.
#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_opens_only_as_it_was_sealed() {
        let key = FrameKey::new(Cipher::ChaCha20Poly1305, &[0x42; 32]).unwrap();
        let mut bytes = *b"grange";
        let tag = key.seal(1, b"header", &mut bytes).unwrap();
        let mut frame = [bytes.as_slice(), &tag].concat();
        assert_eq!(key.open(1, b"header", &mut frame.clone()).unwrap(), b"grange");
        assert_eq!(key.open(2, b"header", &mut frame.clone()), Err(NotAuthentic));
        assert_eq!(key.open(1, b"headex", &mut frame.clone()), Err(NotAuthentic));
        frame[0] ^= 1;
        assert_eq!(key.open(1, b"header", &mut frame), Err(NotAuthentic));
    }
}
