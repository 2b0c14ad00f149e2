//! Sub-TLVs (RFC 8966, section 4.4).

use super::TlvError;

const PAD1: u8 = 0;
/// Timestamps in Hello and IHU (RFC 9616, section 5).
pub(super) const TIMESTAMP: u8 = 3;
/// The owner's proof in an Update.
pub(super) const PROOF: u8 = 240;
/// Set in the type of a sub-TLV without which the TLV must not be used.
const MANDATORY: u8 = 0x80;

/// Calls `take` with type and body of each sub-TLV; it says whether it understands that type.
///
/// # Errors
///
/// What `take` reports; [`TlvError::Short`] for a sub-TLV that overruns the TLV; [`TlvError::Mandatory`] for a mandatory
/// one that is not understood.
pub(super) fn for_each<'a>(
    mut rest: &'a [u8],
    mut take: impl FnMut(u8, &'a [u8]) -> Result<bool, TlvError>,
) -> Result<(), TlvError> {
    while let Some((&kind, after)) = rest.split_first() {
        if kind == PAD1 {
            rest = after;
            continue;
        }
        let (&length, after) = after.split_first().ok_or(TlvError::Short)?;
        let (body, after) = after.split_at_checked(usize::from(length)).ok_or(TlvError::Short)?;
        rest = after;
        if !take(kind, body)? && kind & MANDATORY != 0 {
            return Err(TlvError::Mandatory);
        }
    }
    Ok(())
}
