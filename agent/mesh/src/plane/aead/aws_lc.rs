//! Ciphers by AWS-LC: assembly for x86-64 and 64-bit ARM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use grange_core::Cipher;

use super::{NotAuthentic, TAG_LEN};

/// A key in AWS-LC's own memory, which it overwrites before it gives it back (`OPENSSL_free`).
pub(super) struct Key(LessSafeKey);

impl Key {
    /// # Errors
    /// The cipher does not take such a key.
    pub(super) fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Self, &'static str> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        UnboundKey::new(algorithm, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| "key of the wrong length")
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
        self.0
            .seal_out_of_place_scatter(Nonce::assume_unique_for_key(nonce), Aad::from(header), plain, sealed, &[], tag)
            .map_err(|_| NotAuthentic)
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
        self.0
            .seal_in_place_scatter(Nonce::assume_unique_for_key(nonce), Aad::from(header), bytes, &[], tag)
            .map_err(|_| NotAuthentic)
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
