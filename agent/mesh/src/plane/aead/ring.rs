//! Ciphers by `ring`: portable C, and assembly on ARM.

use std::mem::{self, ManuallyDrop};

use grange_core::Cipher;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{NotAuthentic, TAG_LEN};

/// A key as `ring` keeps it: in place, so that its memory can be overwritten.
pub(super) struct Key(ManuallyDrop<LessSafeKey>);

impl Key {
    /// # Errors
    /// The cipher does not take such a key.
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Self, &'static str> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| "key of the wrong length")?;
        Ok(Self(ManuallyDrop::new(LessSafeKey::new(key))))
    }

    /// Encrypts `plain` into `sealed`, which is as long.
    ///
    /// # Errors
    /// `plain` is larger than any datagram.
    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; 12],
        header: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        sealed.copy_from_slice(plain);
        self.seal_in_place(nonce, header, sealed, tag)
    }

    /// # Errors
    /// `bytes` is larger than any datagram.
    #[inline]
    pub(super) fn seal_in_place(
        &self,
        nonce: [u8; 12],
        header: &[u8],
        bytes: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let made = self.0.seal_in_place_separate_tag(nonce, Aad::from(header), bytes).map_err(|_| NotAuthentic)?;
        *tag = made.as_ref().try_into().map_err(|_| NotAuthentic)?;
        Ok(())
    }

    /// # Errors
    /// [`NotAuthentic`].
    #[inline]
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        header: &[u8],
        bytes: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), bytes).map_err(|_| NotAuthentic)
    }
}

impl Drop for Key {
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
