//! The ciphers of data frames.
//!
//! Where AWS-LC has assembly for the processor it is used: on x86-64 it takes 0.16 s of a core for a gigabyte of 1,400-byte
//! packets by AES-256-GCM where `ring` takes 0.24 and a copy, since it seals from one buffer into another and knows wider
//! vectors. It builds with a C compiler alone on those two architectures and makes the binary 0.7 MiB larger; elsewhere
//! `ring`, whose portable code is smaller and builds everywhere. With ChaCha20-Poly1305 both are as fast.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[path = "aead/aws_lc.rs"]
mod backend;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "aead/ring.rs"]
mod backend;

use grange_core::Cipher;

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

/// One direction's key. Dropping it overwrites its memory.
///
/// Every cipher has a 32-byte key, a tag of 16 bytes, and for its nonce the counter of the frame, so a choice of cipher
/// is a choice of algorithm here and nothing anywhere else.
pub(crate) struct FrameKey(backend::Key);

/// The frame's tag was not made with this key for these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl FrameKey {
    /// The key for `cipher`.
    ///
    /// # Errors
    /// The cipher does not take such a key: a reason for the log.
    pub(crate) fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Box<Self>, &'static str> {
        Ok(Box::new(Self(backend::Key::new(cipher, key)?)))
    }

    /// Encrypts `plain` into `sealed`, which is [`TAG_LEN`] bytes longer and ends with the tag. `counter` must not have
    /// been used with this key before.
    ///
    /// # Errors
    /// The lengths do not fit each other, or `plain` is larger than any datagram.
    #[inline]
    pub(crate) fn seal(
        &self,
        counter: u64,
        header: &[u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        match sealed.split_last_chunk_mut::<TAG_LEN>() {
            Some((encrypted, tag)) if encrypted.len() == plain.len() => {
                self.0.seal(nonce(counter), header, plain, encrypted, tag)
            }
            _ => Err(NotAuthentic),
        }
    }

    /// Encrypts `bytes` where they are but for the last [`TAG_LEN`], which take the tag. `counter` must not have been
    /// used with this key before.
    ///
    /// # Errors
    /// `bytes` has no room for a tag, or is larger than any datagram.
    #[inline]
    pub(crate) fn seal_in_place(&self, counter: u64, header: &[u8], bytes: &mut [u8]) -> Result<(), NotAuthentic> {
        let (bytes, tag) = bytes.split_last_chunk_mut::<TAG_LEN>().ok_or(NotAuthentic)?;
        self.0.seal_in_place(nonce(counter), header, bytes, tag)
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
        self.0.open(nonce(counter), header, bytes)
    }
}

/// The nonce of a frame as in Noise: 4 zero bytes and the counter, little-endian.
#[inline]
fn nonce(counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn published_vectors() {
        let sunscreen = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it.";
        let vectors = [
            // RFC 8439, section 2.8.2.
            (
                Cipher::ChaCha20Poly1305,
                "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
                "070000004041424344454647",
                "50515253c0c1c2c3c4c5c6c7",
                sunscreen.to_vec(),
                "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e06\
                 0b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d265\
                 86cec64b6116",
                "1ae10b594f09e26a7e902ecbd0600691",
            ),
            // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
            (
                Cipher::Aes256Gcm,
                "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
                "cafebabefacedbaddecaf888",
                "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                hex(
                    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de6\
                     57ba637b39",
                ),
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba\
                 7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ];
        for (cipher, key, nonce, header, plain, encrypted, tag) in vectors {
            let key = FrameKey::new(cipher, hex(key).as_slice().try_into().unwrap()).unwrap();
            let (nonce, header) = (hex(nonce).try_into().unwrap(), hex(header));
            let (mut sealed, mut made) = (vec![0; plain.len()], [0; TAG_LEN]);
            key.0.seal(nonce, &header, &plain, &mut sealed, &mut made).unwrap();
            assert_eq!((&sealed, made.to_vec()), (&hex(encrypted), hex(tag)), "{cipher:?}");
            sealed.extend(made);
            assert_eq!(key.0.open(nonce, &header, &mut sealed).unwrap(), plain);
        }
    }

    #[test]
    fn the_nonce_is_noises() {
        assert_eq!(nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    }

    proptest! {
        #[test]
        fn in_place_and_from_elsewhere_are_the_same(
            plain in prop::collection::vec(any::<u8>(), 0..3000),
            key: [u8; 32],
            counter: u64,
        ) {
            for cipher in BOTH {
                let key = FrameKey::new(cipher, &key).unwrap();
                let mut from_elsewhere = vec![0xaa; plain.len() + TAG_LEN];
                key.seal(counter, b"header", &plain, &mut from_elsewhere).unwrap();
                let mut in_place = plain.clone();
                in_place.resize(plain.len() + TAG_LEN, 0x55);
                key.seal_in_place(counter, b"header", &mut in_place).unwrap();
                prop_assert_eq!(&from_elsewhere, &in_place);
                prop_assert_eq!(key.open(counter, b"header", &mut in_place).unwrap(), plain.as_slice());
            }
        }
    }

    #[test]
    fn a_frame_opens_only_as_it_was_sealed() {
        for cipher in BOTH {
            let key = FrameKey::new(cipher, &[0x42; 32]).unwrap();
            let mut frame = [0; 6 + TAG_LEN];
            key.seal(1, b"header", b"grange", &mut frame).unwrap();
            assert_eq!(key.open(1, b"header", &mut frame.clone()).unwrap(), b"grange");
            assert_eq!(key.open(2, b"header", &mut frame.clone()), Err(NotAuthentic));
            assert_eq!(key.open(1, b"headex", &mut frame.clone()), Err(NotAuthentic));
            assert_eq!(key.open(1, b"header", &mut frame[..TAG_LEN - 1].to_vec()), Err(NotAuthentic));
            frame[0] ^= 1;
            assert_eq!(key.open(1, b"header", &mut frame), Err(NotAuthentic));
            assert_eq!(key.seal(1, b"header", b"grange", &mut frame[1..]), Err(NotAuthentic));
            assert_eq!(key.seal_in_place(1, b"header", &mut frame[..TAG_LEN - 1]), Err(NotAuthentic));
        }
    }
}
