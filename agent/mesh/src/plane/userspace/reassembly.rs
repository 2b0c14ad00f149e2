//! Packets that came in two parts.

/// Packets of which one part is there, for each session.
const SLOTS: usize = 8;

/// Largest part: the plaintext of a frame on an underlay of 1500 bytes.
const MAX_PART: usize = 1500;

/// Largest packet made of two parts.
pub(super) const MAX_PACKET: usize = 2 * MAX_PART;

/// The parts of a session that wait for their other half. A new one takes the place of the oldest.
#[derive(Default)]
pub(super) struct Reassembly {
    /// Empty until the first part comes: most links need none.
    slots: Vec<Part>,
    next: usize,
}

#[derive(Clone)]
struct Part {
    /// Counter of the packet's first part, whichever this is.
    first: u64,
    second: bool,
    partial: bool,
    len: usize,
    bytes: [u8; MAX_PART],
}

impl Reassembly {
    /// Takes the part with this counter. Gives the length of the packet in `out`, and whether its checksum is partial,
    /// if it is whole now.
    pub(super) fn add(
        &mut self,
        counter: u64,
        second: bool,
        partial: bool,
        bytes: &[u8],
        out: &mut [u8; MAX_PACKET],
    ) -> Option<(usize, bool)> {
        let first = if second { counter.checked_sub(1)? } else { counter };
        if bytes.len() > MAX_PART {
            return None;
        }
        if let Some(at) =
            self.slots.iter().position(|part| part.len > 0 && part.first == first && part.second != second)
        {
            let other = &mut self.slots[at];
            let kept = &other.bytes[..other.len];
            let (a, b) = if second { (kept, bytes) } else { (bytes, kept) };
            let total = a.len() + b.len();
            out[..a.len()].copy_from_slice(a);
            out[a.len()..total].copy_from_slice(b);
            let partial = partial || other.partial;
            other.len = 0;
            return Some((total, partial));
        }
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Part { first: 0, second: false, partial: false, len: 0, bytes: [0; MAX_PART] });
        }
        let at = self.slots.iter().position(|part| part.len == 0).unwrap_or(self.next);
        self.next = (at + 1) % SLOTS;
        let slot = &mut self.slots[at];
        (slot.first, slot.second, slot.partial, slot.len) = (first, second, partial, bytes.len());
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_parts_in_any_order(packet in prop::collection::vec(any::<u8>(), 2..1280), at: usize, counter: u32, swap: bool) {
            let (a, b) = packet.split_at(1 + at % (packet.len() - 1));
            let counter = u64::from(counter);
            let mut parts = [(counter, false, a), (counter + 1, true, b)];
            if swap {
                parts.reverse();
            }
            let mut reassembly = Reassembly::default();
            let mut out = [0; MAX_PACKET];
            // Another packet's part in between.
            prop_assert_eq!(reassembly.add(counter + 7, false, false, &[9], &mut out), None);
            prop_assert_eq!(reassembly.add(parts[0].0, parts[0].1, true, parts[0].2, &mut out), None);
            prop_assert_eq!(reassembly.add(counter + 3, true, false, &[9], &mut out), None);
            let whole = reassembly.add(parts[1].0, parts[1].1, true, parts[1].2, &mut out);
            prop_assert_eq!(whole, Some((packet.len(), true)));
            prop_assert_eq!(&out[..packet.len()], &packet[..]);
        }
    }

    #[test]
    fn lost_halves_make_room() {
        let mut reassembly = Reassembly::default();
        let mut out = [0; MAX_PACKET];
        for counter in 0..1000 {
            assert_eq!(reassembly.add(counter * 2, false, false, &[1], &mut out), None);
            assert!(reassembly.slots.len() <= SLOTS);
        }
        assert_eq!(reassembly.add(1, true, false, &[1], &mut out), None);
        assert_eq!(reassembly.add(1999, true, false, &[2], &mut out), Some((2, false)));
        assert_eq!(reassembly.add(0, true, false, &[2], &mut out), None);
        assert_eq!(reassembly.add(4, false, false, &[0; MAX_PART + 1], &mut out), None);
    }
}
