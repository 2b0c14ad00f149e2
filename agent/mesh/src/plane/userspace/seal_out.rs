//! Sealing for nodes that are not neighbours, twice in one pass: for the far end, and for the link.

use std::sync::Arc;

use super::{
    egress::{Egress, TooBig, may_be_cut},
    frame::{FIRST, PARTIAL, SECOND, WHOLE},
    seal::SEAL_OVERHEAD,
    tables::{Link, Sealed},
};
use crate::{
    packet::{IpHeader, Segmenter, traffic_class},
    plane::MIN_MTU,
};

const SMALLEST: usize = MIN_MTU as usize;

/// How a packet leaves.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// As it is.
    Link(&'a Arc<Link>),
    /// In a seal.
    Sealed(Sealed<'a>),
}

impl Way<'_> {
    /// The largest packet that passes in one frame.
    #[inline]
    pub(super) fn mtu(&self) -> u16 {
        match self {
            Self::Link(link) => link.mtu,
            Self::Sealed(sealed) => sealed.mtu(),
        }
    }
}

impl Sealed<'_> {
    /// The largest packet that passes in one frame: what the seal has proven, less if a router on the way or the link
    /// here carries less at this moment.
    #[inline]
    pub(super) fn mtu(&self) -> u16 {
        let here = self.link.mtu.max(MIN_MTU) - SEAL_OVERHEAD;
        self.seal.mtu.min(self.outer.path_mtu()).min(here)
    }

    fn too_big(&self) -> TooBig {
        TooBig { mtu: self.mtu().max(MIN_MTU) }
    }
}

impl<D> Egress<D> {
    /// Seals one packet, in two parts if it must. `plain`: a byte for the frame's flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]; the packet is as it was.
    #[inline]
    pub(super) fn send(
        &mut self,
        way: Way<'_>,
        plain: &mut [u8],
        header: &IpHeader,
        partial: bool,
    ) -> Result<(), TooBig> {
        match way {
            Way::Link(link) => self.packet(link, plain, header, partial),
            Way::Sealed(sealed) => self.sealed_packet(sealed, plain, header, partial),
        }
    }

    /// Cuts a super-packet and seals its segments. `plain`: a byte for the frame's flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]: the segments do not fit; the packet is as it was.
    #[inline]
    pub(super) fn send_segments(
        &mut self,
        way: Way<'_>,
        segmenter: &Segmenter,
        plain: &mut [u8],
    ) -> Result<(), TooBig> {
        match way {
            Way::Link(link) => self.segments(link, segmenter, plain),
            Way::Sealed(sealed) => self.sealed_segments(sealed, segmenter, plain),
        }
    }

    /// Seals one packet, in two parts if it must. `plain`: a byte for the frame's flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]; the packet is as it was.
    #[inline]
    pub(super) fn sealed_packet(
        &mut self,
        way: Sealed<'_>,
        plain: &mut [u8],
        header: &IpHeader,
        partial: bool,
    ) -> Result<(), TooBig> {
        let partial = if partial { PARTIAL } else { 0 };
        let class = traffic_class(&plain[1..]);
        let len = plain.len() - 1;
        if len > usize::from(way.mtu()) {
            if !may_be_cut(header, len) {
                return Err(way.too_big());
            }
            self.sealed_parts(way, class, plain, partial);
            return Ok(());
        }
        let Some(counter) = way.seal.session.reserve(1) else { return Ok(()) };
        plain[0] = partial | WHOLE;
        self.sealed_frame(way, counter, class, plain);
        way.seal.counters.sent(1, len as u64);
        Ok(())
    }

    /// Cuts a super-packet and seals its segments. `plain`: a byte for the frame's flags, then the packet.
    ///
    /// # Errors
    /// [`TooBig`]: the segments do not fit; the packet is as it was.
    pub(super) fn sealed_segments(
        &mut self,
        way: Sealed<'_>,
        segmenter: &Segmenter,
        plain: &mut [u8],
    ) -> Result<(), TooBig> {
        let (frames, class) = (segmenter.count(), traffic_class(&plain[1..]));
        let in_parts = segmenter.len(0) > usize::from(way.mtu());
        if in_parts && segmenter.len(0) > SMALLEST {
            return Err(way.too_big());
        }
        if in_parts {
            // Nobody is told of less than what always passes: these do so in two parts.
            for index in 0..frames {
                let segment = segmenter.place(&mut plain[1..], index);
                self.sealed_parts(way, class, &mut plain[segment.start..=segment.end], PARTIAL);
            }
            return Ok(());
        }
        let Some(first) = way.seal.session.reserve(frames as u64) else { return Ok(()) };
        let mut bytes = 0;
        for index in 0..frames {
            // The flags' byte of a segment is the last but its headers of the one before, which is sealed already.
            let segment = segmenter.place(&mut plain[1..], index);
            bytes += segment.len() as u64;
            plain[segment.start] = PARTIAL | WHOLE;
            self.sealed_frame(way, first + index as u64, class, &plain[segment.start..=segment.end]);
        }
        way.seal.counters.sent(frames as u64, bytes);
        Ok(())
    }

    #[cold]
    fn sealed_parts(&mut self, way: Sealed<'_>, class: u8, plain: &mut [u8], partial: u8) {
        let Some(counter) = way.seal.session.reserve(2) else { return };
        let len = plain.len() - 1;
        let cut = len.div_ceil(2);
        plain[0] = partial | FIRST;
        self.sealed_frame(way, counter, class, &plain[..=cut]);
        // The last byte of what is sealed already has room for the flags of what follows.
        let last = std::mem::replace(&mut plain[cut], partial | SECOND);
        self.sealed_frame(way, counter + 1, class, &plain[cut..]);
        plain[cut] = last;
        way.seal.counters.sent(2, len as u64);
    }

    /// Seals one frame of a seal, flags and packet, into the outer packet and that into one of the link.
    #[inline]
    fn sealed_frame(&mut self, way: Sealed<'_>, counter: u64, class: u8, plain: &[u8]) {
        let Sealed { seal, outer, link } = way;
        let len = plain.len() - 1 + usize::from(SEAL_OVERHEAD);
        if len <= usize::from(link.mtu) {
            let Some(of_link) = link.session.reserve(1) else { return };
            self.push_with(link, of_link, WHOLE, len, |out| outer.write(&seal.session, counter, class, plain, out));
            link.counters.sent(1, len as u64);
            return;
        }
        // A link that carries less in one frame than what always passes.
        let mut whole = [0; 1 + SMALLEST];
        let Some(whole) = whole.get_mut(..=len) else { return };
        outer.write(&seal.session, counter, class, plain, &mut whole[1..]);
        if let Some(header) = IpHeader::parse(&whole[1..]) {
            let _ = self.packet(link, whole, &header, false);
        }
    }
}
