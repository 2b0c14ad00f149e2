//! The search for the largest packet that a link carries, by padded probes (RFC 8899 in spirit).
//!
//! A probe is as long on the wire as a data frame with an inner packet of the candidate's size. Sizes are tried from
//! the interface's MTU downward, since most links carry it; a link starts with 1280 and grows when a probe is answered.
//!
//! The underlay of a seal is the mesh: its packets go in links' frames. Each link carries 1280 bytes, so a seal starts with
//! what fits there, and the sizes to try are those that usual links carry.

use core::{net::IpAddr, time::Duration};

use grange_wire::{DATA_OVERHEAD, FRAME_HEAD, FRAME_TAG, PROBE_HEAD, UNDERLAY_V4, UNDERLAY_V6};

use super::Liveness;
use crate::{Endpoint, IfaceId, Instant};

/// The inner MTU that a link starts with and that IPv6 asks of every link (RFC 8200, section 5).
pub(crate) const INNER_START: u16 = 1280;

/// Sizes of underlay packets that paths are known to carry: jumbo frames, Ethernet, PPPoE, tunnels, WireGuard, mobile
/// networks; the smallest is what IPv6 asks of every path.
const USUAL: [u16; 9] = [9000, 1500, 1492, 1480, 1460, 1436, 1420, 1400, 1380];
const SMALLEST: u16 = 1280;

/// Probes for one size before it is given up: on a link that loses a fifth each way, all of them with 0.6 %.
const TRIES: u8 = 5;

/// A size once proven is tried anew so often: paths change.
const AGAIN: Duration = Duration::from_secs(600);

/// After a search in which not even the smallest size was answered.
const AGAIN_AFTER_SILENCE: Duration = Duration::from_secs(30);

/// The same of a seal, whose path changes with the routes of others.
const AGAIN_OVER_MESH: Duration = Duration::from_secs(60);

/// Between two probes, at least.
const SPACING: Duration = Duration::from_millis(100);

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MtuProbe {
    /// Its id.
    pub(crate) id: u32,
    /// Zero bytes behind the id.
    pub(crate) padding: usize,
}

/// What carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underlay {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// The mesh, over IPv6.
    Mesh,
}

impl Underlay {
    /// What leads to an endpoint.
    pub(crate) fn to(at: &Endpoint) -> Self {
        match at.addr.ip() {
            _ if at.iface == IfaceId::MESH => Self::Mesh,
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of IP and UDP headers.
    const fn headers(self) -> u16 {
        // Both are below 2^16.
        match self {
            Self::V4 => UNDERLAY_V4 as u16,
            Self::V6 | Self::Mesh => UNDERLAY_V6 as u16,
        }
    }

    /// What the usual sizes lose before they come to us.
    const fn lost_below(self) -> u16 {
        match self {
            Self::V4 | Self::V6 => 0,
            Self::Mesh => (UNDERLAY_V6 + DATA_OVERHEAD) as u16,
        }
    }

    /// Largest outer packet that passes untried.
    const fn start(self) -> u16 {
        match self {
            Self::V4 | Self::V6 => INNER_START + self.headers() + DATA_OVERHEAD as u16,
            Self::Mesh => SMALLEST,
        }
    }
}

/// One link's search.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    underlay: Underlay,
    /// Largest IP packet of the interface.
    iface: u16,
    /// Inner MTU known to pass.
    proven: u16,
    /// Index of the candidate in the descending list, while a search runs.
    candidate: Option<usize>,
    tries: u8,
    next: Instant,
    sent: Option<(u32, u16)>,
}

impl MtuSearch {
    /// A search that begins at `start`, for a link over an interface of this MTU.
    pub(crate) fn new(start: Instant, underlay: Underlay, iface: u16) -> Self {
        let mut search =
            Self { underlay, iface: 0, proven: INNER_START, candidate: None, tries: 0, next: start, sent: None };
        search.restart(start, underlay, iface);
        search.proven = search.inner(underlay.start().min(search.iface));
        search
    }

    /// The path or the interface changed: search anew. What was proven stands until the search says otherwise.
    pub(crate) fn restart(&mut self, start: Instant, underlay: Underlay, iface: u16) {
        self.underlay = underlay;
        // An interface below IPv6's least MTU is taken for one of that.
        self.iface = iface.max(SMALLEST);
        self.search_anew(start);
    }

    /// The path may have changed: search anew.
    pub(crate) fn search_anew(&mut self, start: Instant) {
        (self.candidate, self.tries, self.next, self.sent) = (Some(0), 0, start, None);
    }

    /// The inner MTU known to pass.
    pub(crate) fn proven(&self) -> u16 {
        self.proven
    }

    fn inner(&self, outer: u16) -> u16 {
        outer - self.underlay.headers() - DATA_OVERHEAD as u16
    }

    /// The `n`th size of an underlay packet to try, largest first.
    fn outer(&self, n: usize) -> Option<u16> {
        let least = [INNER_START + self.underlay.headers() + DATA_OVERHEAD as u16, SMALLEST];
        let usual = USUAL.into_iter().map(|outer| outer - self.underlay.lost_below()).filter(|outer| *outer > least[0]);
        core::iter::once(self.iface).chain(usual.chain(least).filter(|outer| *outer < self.iface)).nth(n)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn timeout(&self) -> Instant {
        self.next
    }

    /// The probe that is due, if any; ids and the time to wait come from the link's `liveness`.
    pub(crate) fn handle_timeout(&mut self, now: Instant, liveness: &mut Liveness) -> Option<MtuProbe> {
        if now < self.next {
            return None;
        }
        let mut candidate = self.candidate.unwrap_or(0);
        if self.tries >= TRIES {
            (candidate, self.tries) = (candidate + 1, 0);
        }
        let Some(outer) = self.outer(candidate) else {
            (self.candidate, self.tries, self.next, self.sent) = (None, 0, now + AGAIN_AFTER_SILENCE, None);
            return None;
        };
        let payload = outer - self.underlay.headers();
        let id = liveness.take_id();
        self.candidate = Some(candidate);
        self.tries += 1;
        self.next = now + SPACING.max(liveness.spacing());
        self.sent = Some((id, outer));
        Some(MtuProbe { id, padding: usize::from(payload) - FRAME_HEAD - FRAME_TAG - PROBE_HEAD })
    }

    /// A probe was answered; gives the inner MTU if it changed.
    pub(crate) fn answered(&mut self, now: Instant, id: u32, size: u16) -> Option<u16> {
        let (sent, outer) = self.sent?;
        if sent != id || size != outer - self.underlay.headers() {
            return None;
        }
        let again = if self.underlay == Underlay::Mesh { AGAIN_OVER_MESH } else { AGAIN };
        (self.candidate, self.tries, self.next, self.sent) = (None, 0, now + again, None);
        let inner = self.inner(outer);
        (core::mem::replace(&mut self.proven, inner) != inner).then_some(inner)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Runs a search over a path that carries underlay packets up to `path`; gives the events and the time that passed.
    fn search(search: &mut MtuSearch, start: Instant, path: u16) -> (Vec<u16>, Duration) {
        let mut liveness = Liveness::new(start, 1, None, true);
        let (mut now, mut events) = (start, Vec::new());
        while now.since(start) < Duration::from_secs(20) {
            now = search.timeout();
            if let Some(probe) = search.handle_timeout(now, &mut liveness) {
                let payload = (FRAME_HEAD + FRAME_TAG + PROBE_HEAD + probe.padding) as u16;
                if payload + search.underlay.headers() <= path {
                    events.extend(search.answered(now, probe.id, payload));
                    break;
                }
            }
        }
        (events, now.since(start))
    }

    #[test]
    fn finds_what_the_path_carries() {
        for (iface, path, inner) in [(1500, 1500, 1419), (1500, 1492, 1411), (1500, 1425, 1339), (1500, 1361, 1280)] {
            let mut mtu = MtuSearch::new(Instant::START, Underlay::V6, iface);
            assert_eq!(mtu.proven(), 1280);
            let (events, took) = search(&mut mtu, Instant::START, path);
            assert_eq!(mtu.proven(), inner, "path {path}");
            assert_eq!(events, if inner == 1280 { Vec::new() } else { [inner].to_vec() });
            assert!(took < Duration::from_secs(6), "{took:?}");
        }
        let mut mtu = MtuSearch::new(Instant::START, Underlay::V6, 1500);
        assert_eq!(search(&mut mtu, Instant::START, 1300).0, [1199]);
        assert_eq!(MtuSearch::new(Instant::START, Underlay::V6, 1280).proven(), 1199);
        let mut mtu = MtuSearch::new(Instant::START, Underlay::V4, 1500);
        assert_eq!(search(&mut mtu, Instant::START, 1500).0, [1439]);
    }

    #[test]
    fn over_the_mesh_it_starts_with_what_each_link_carries() {
        for (largest, path, inner) in [(1419, 1419, 1338), (1419, 1411, 1330), (1439, 1419, 1338), (1419, 1300, 1199)] {
            let mut mtu = MtuSearch::new(Instant::START, Underlay::Mesh, largest);
            assert_eq!(mtu.proven(), 1199);
            let (events, took) = search(&mut mtu, Instant::START, path);
            assert_eq!(mtu.proven(), inner, "path {path}");
            assert_eq!(events, if inner == 1199 { Vec::new() } else { [inner].to_vec() });
            assert!(took < Duration::from_secs(6), "{took:?}");
            assert_eq!(mtu.timeout().since(Instant::START), took + AGAIN_OVER_MESH);
        }
        assert_eq!(MtuSearch::new(Instant::START, Underlay::Mesh, 1280).proven(), 1199);
    }

    #[test]
    fn shrinks_when_the_path_does_and_keeps_on_silence() {
        let mut mtu = MtuSearch::new(Instant::START, Underlay::V6, 1500);
        search(&mut mtu, Instant::START, 1500);
        let later = mtu.timeout();
        assert_eq!(later, Instant::START + AGAIN);
        assert_eq!(search(&mut mtu, later, 1420).0, [1339]);
        let later = mtu.timeout();
        assert_eq!(search(&mut mtu, later, 0).0, []);
        assert_eq!(mtu.proven(), 1339);
    }

    #[test]
    fn an_answer_of_another_size_proves_nothing() {
        let mut mtu = MtuSearch::new(Instant::START, Underlay::V6, 1500);
        let mut liveness = Liveness::new(Instant::START, 1, None, true);
        let probe = mtu.handle_timeout(Instant::START, &mut liveness).unwrap();
        assert_eq!(mtu.answered(Instant::START, probe.id, 1400), None);
        assert_eq!(mtu.answered(Instant::START, probe.id + 1, 1452), None);
        assert_eq!(mtu.answered(Instant::START, probe.id, 1452), Some(1419));
    }
}
