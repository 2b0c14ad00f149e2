//! The owner's proof: who announced a prefix.

/// The owner-proof sub-TLV of an Update (`docs/protocol.md`): a signature over prefix, router-id and seqno.
///
/// ```text
///  | type = 240 | length = 96 | owner's Ed25519 public key [32] | signature [64] |
/// ```
///
/// Type 240 is the first of the experimental range whose mandatory bit is set (RFC 8966, section 7): a Babel speaker
/// that does not know it ignores the whole Update rather than take an unproved route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofView<'a> {
    /// The Ed25519 public key of the node that announced the prefix.
    pub owner: &'a [u8; 32],
    /// Its signature.
    pub signature: &'a [u8; 64],
}

impl<'a> ProofView<'a> {
    /// Bytes of the sub-TLV's body.
    pub const SIZE: usize = 96;

    /// The parts of the sub-TLV's body; `None` if it is not of [`SIZE`](Self::SIZE) bytes.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let (owner, rest) = body.split_first_chunk()?;
        Some(Self { owner, signature: rest.try_into().ok()? })
    }
}
