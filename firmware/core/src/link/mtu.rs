//! The search for the largest packet that a link carries, by padded probes (RFC 8899 in spirit).
//!
//! A probe is as long on the wire as a data frame with an inner packet of the candidate's size. Sizes are tried from
//! the interface's MTU downward, since most links carry it; a link starts with 1280 and grows when a probe is answered.

use core::{net::IpAddr, time::Duration};

use grange_wire::{DATA_OVERHEAD, FRAME_HEAD, FRAME_TAG, PROBE_HEAD, UNDERLAY_V4, UNDERLAY_V6};

use super::Liveness;
use crate::Instant;

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

/// One link's search.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    underlay: u16,
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
    /// A search that begins at `start`, for a link to `ip` over an interface of this MTU.
    pub(crate) fn new(start: Instant, ip: IpAddr, iface: u16) -> Self {
        let mut search =
            Self { underlay: 0, iface: 0, proven: INNER_START, candidate: None, tries: 0, next: start, sent: None };
        search.restart(start, ip, iface);
        search.proven = INNER_START.min(search.inner(search.iface));
        search
    }

    /// The path or the interface changed: search anew. What was proven stands until the search says otherwise.
    pub(crate) fn restart(&mut self, start: Instant, ip: IpAddr, iface: u16) {
        // Both are below 2^16; an interface below IPv6's least MTU is taken for one of that.
        self.underlay = if ip.is_ipv4() { UNDERLAY_V4 as u16 } else { UNDERLAY_V6 as u16 };
        self.iface = iface.max(SMALLEST);
        (self.candidate, self.tries, self.next, self.sent) = (Some(0), 0, start, None);
    }

    /// The inner MTU known to pass.
    pub(crate) fn proven(&self) -> u16 {
        self.proven
    }

    fn inner(&self, outer: u16) -> u16 {
        outer - self.underlay - DATA_OVERHEAD as u16
    }

    /// The `n`th size of an underlay packet to try, largest first.
    fn outer(&self, n: usize) -> Option<u16> {
        let start = INNER_START + self.underlay + DATA_OVERHEAD as u16;
        core::iter::once(self.iface)
            .chain(USUAL.into_iter().chain([start, SMALLEST]).filter(|outer| *outer < self.iface))
            .nth(n)
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
        let payload = outer - self.underlay;
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
        if sent != id || size != outer - self.underlay {
            return None;
        }
        (self.candidate, self.tries, self.next, self.sent) = (None, 0, now + AGAIN, None);
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
        let mut liveness = Liveness::new(start, 1, None);
        let (mut now, mut events) = (start, Vec::new());
        while now.since(start) < Duration::from_secs(20) {
            now = search.timeout();
            if let Some(probe) = search.handle_timeout(now, &mut liveness) {
                let payload = (FRAME_HEAD + FRAME_TAG + PROBE_HEAD + probe.padding) as u16;
                if payload + search.underlay <= path {
                    events.extend(search.answered(now, probe.id, payload));
                    break;
                }
            }
        }
        (events, now.since(start))
    }

    #[test]
    fn finds_what_the_path_carries() {
        let v6: IpAddr = std::net::Ipv6Addr::LOCALHOST.into();
        for (iface, path, inner) in [(1500, 1500, 1419), (1500, 1492, 1411), (1500, 1425, 1339), (1500, 1361, 1280)] {
            let mut mtu = MtuSearch::new(Instant::START, v6, iface);
            assert_eq!(mtu.proven(), 1280);
            let (events, took) = search(&mut mtu, Instant::START, path);
            assert_eq!(mtu.proven(), inner, "path {path}");
            assert_eq!(events, if inner == 1280 { Vec::new() } else { [inner].to_vec() });
            assert!(took < Duration::from_secs(6), "{took:?}");
        }
        let mut mtu = MtuSearch::new(Instant::START, v6, 1500);
        assert_eq!(search(&mut mtu, Instant::START, 1300).0, [1199]);
        assert_eq!(MtuSearch::new(Instant::START, v6, 1280).proven(), 1199);
        let v4: IpAddr = std::net::Ipv4Addr::LOCALHOST.into();
        let mut mtu = MtuSearch::new(Instant::START, v4, 1500);
        assert_eq!(search(&mut mtu, Instant::START, 1500).0, [1439]);
    }

    #[test]
    fn shrinks_when_the_path_does_and_keeps_on_silence() {
        let v6: IpAddr = std::net::Ipv6Addr::LOCALHOST.into();
        let mut mtu = MtuSearch::new(Instant::START, v6, 1500);
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
        let mut mtu = MtuSearch::new(Instant::START, std::net::Ipv6Addr::LOCALHOST.into(), 1500);
        let mut liveness = Liveness::new(Instant::START, 1, None);
        let probe = mtu.handle_timeout(Instant::START, &mut liveness).unwrap();
        assert_eq!(mtu.answered(Instant::START, probe.id, 1400), None);
        assert_eq!(mtu.answered(Instant::START, probe.id + 1, 1452), None);
        assert_eq!(mtu.answered(Instant::START, probe.id, 1452), Some(1419));
    }
}
