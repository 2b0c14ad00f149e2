//! When a link's or seal's packets go by its WireGuard interface, and when not: plain state.
//!
//! An interface is made as soon as the session is there; the other end's port makes a handshake possible; one that
//! succeeds since proves that packets pass, which nothing else does: a firewall may let the session's datagrams through
//! and not these. Each end decides for what it sends itself.

use std::{
    net::{SocketAddr, SocketAddrV6},
    time::{Duration, Instant},
};

use grange_core::{DataKeys, Endpoint, IfaceId};
use grange_wire::NodeId;

use super::keys::{Secret, StaticKeys, preshared};
use crate::kernel::{SEAL_MARK, TunnelReport, TunnelSpec};

/// How long the end that does not begin waits for the other's first handshake. Two that cross each other both fail, and
/// WireGuard tries again only after 5 s.
const YIELD: Duration = Duration::from_secs(2);

/// How long a handshake is tried: four of WireGuard's own attempts (whitepaper, section 6.1, `Rekey-Timeout`).
const TRY: Duration = Duration::from_secs(22);

/// First and longest pause after attempts that failed.
const REST_MIN: Duration = Duration::from_secs(30);
const REST_MAX: Duration = Duration::from_secs(600);

/// Data was sent and nothing came back for so long: the interface is not trusted any more. WireGuard answers data within
/// 10 s if only by an empty packet, and begins a new handshake after 15 s without an answer.
const SILENCE: Duration = Duration::from_secs(25);

/// Seconds between empty packets while a handshake is wanted: what makes WireGuard begin one.
const PUSH: u16 = 1;

/// The same over the Internet, where translators forget flows that are silent.
const OVER_INTERNET: u16 = 25;

/// What the kernel counts for an empty packet: its tag.
const EMPTY: u64 = 16;

/// An interface's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For the interface or the other end's port.
    Waiting,
    /// For a handshake.
    Proving { since: Instant },
    /// Packets pass.
    Proven {
        /// Since when data was sent without anything coming back.
        unanswered: Option<Instant>,
    },
    /// For the next attempt.
    Resting { until: Instant },
}

/// The WireGuard interface of one link or seal.
#[derive(Debug)]
pub(crate) struct Tunnel {
    peer: NodeId,
    keys: StaticKeys,
    preshared: Secret,
    endpoint: Endpoint,
    mtu: u16,
    link_mark: u32,
    peer_port: u16,
    state: State,
    rest: Duration,
    /// Counts the times at which the interface is to forget its session.
    generation: u32,
    counts: Counts,
}

impl Tunnel {
    /// A tunnel for a session with `peer` that has these first keys. `link_mark` is the mark of the underlay's packets.
    pub(crate) fn new(peer: NodeId, keys: &DataKeys, endpoint: Endpoint, mtu: u16, link_mark: u32) -> Self {
        Self {
            peer,
            keys: StaticKeys::of(keys),
            preshared: preshared(keys),
            endpoint,
            mtu,
            link_mark,
            peer_port: 0,
            state: State::Waiting,
            rest: REST_MIN,
            generation: 0,
            counts: Counts::default(),
        }
    }

    /// The session has other keys.
    pub(crate) fn rekey(&mut self, keys: &DataKeys) {
        self.preshared = preshared(keys);
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
    }

    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// Where the other end listens; zero: nowhere.
    pub(crate) fn set_peer_port(&mut self, now: Instant, port: u16) {
        let before = std::mem::replace(&mut self.peer_port, port);
        if port == 0 {
            self.state = State::Waiting;
        } else if before != port && !matches!(self.state, State::Waiting) {
            self.begin(now);
        }
    }

    /// It has no interface any more.
    pub(crate) fn rest(&mut self) {
        self.state = State::Waiting;
    }

    /// Whether packets pass.
    pub(crate) fn is_proven(&self) -> bool {
        matches!(self.state, State::Proven { .. })
    }

    /// How the interface should be set at this moment.
    pub(crate) fn spec(&self, now: Instant) -> TunnelSpec {
        let push = match self.state {
            State::Proving { since } => self.keys.begins || now >= since + YIELD,
            _ => false,
        };
        let port = self.peer_port;
        TunnelSpec {
            private: self.keys.private.clone(),
            peer: self.keys.peer,
            preshared: self.preshared.clone(),
            endpoint: (port != 0).then(|| address(self.endpoint, port)),
            keepalive: match port {
                0 => 0,
                _ if push => PUSH,
                _ if over_internet(self.endpoint) => OVER_INTERNET,
                _ => 0,
            },
            proving: matches!(self.state, State::Proving { .. }),
            mtu: self.mtu,
            mark: if self.is_seal() { SEAL_MARK } else { self.link_mark },
            node: self.peer,
            seal: self.is_seal(),
            generation: self.generation,
        }
    }

    pub(crate) fn is_seal(&self) -> bool {
        self.endpoint.iface == IfaceId::MESH
    }

    /// Takes what the kernel says of the interface; call it every few hundred milliseconds. What follows is in
    /// [`Self::is_proven`] and [`Self::spec`].
    pub(crate) fn poll(&mut self, now: Instant, report: Option<&TunnelReport>, counts: Option<Counts>) {
        let before = std::mem::replace(&mut self.counts, counts.unwrap_or_default());
        let there = report.filter(|report| report.port != 0 && self.peer_port != 0);
        let Some(report) = there else {
            self.state = State::Waiting;
            return;
        };
        let shaken = report.generation == self.generation && report.handshakes > 0;
        match &mut self.state {
            State::Waiting => self.begin(now),
            State::Proving { .. } | State::Resting { .. } if shaken => {
                self.rest = REST_MIN;
                self.state = State::Proven { unanswered: None };
            }
            State::Proving { since } if now >= *since + TRY => {
                self.state = State::Resting { until: now + self.rest };
                self.rest = (self.rest * 2).min(REST_MAX);
            }
            State::Proving { .. } => {}
            State::Resting { until } => {
                if now >= *until {
                    self.begin(now);
                }
            }
            State::Proven { unanswered } => {
                let sent = self.counts.sent_packets.saturating_sub(before.sent_packets);
                let sent_bytes = self.counts.sent_bytes.saturating_sub(before.sent_bytes);
                if self.counts.received_packets != before.received_packets {
                    *unanswered = None;
                } else if sent_bytes > sent * EMPTY {
                    unanswered.get_or_insert(now);
                }
                if unanswered.is_some_and(|since| now >= since + SILENCE) {
                    self.begin(now);
                }
            }
        }
    }

    /// A new attempt: the interface forgets its session, so that a handshake tells of this attempt.
    fn begin(&mut self, now: Instant) {
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Proving { since: now };
    }
}

/// Whether an address may be behind a translator.
fn over_internet(endpoint: Endpoint) -> bool {
    endpoint.iface != IfaceId::MESH && !is_link_local(endpoint.addr)
}

fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

/// Where the kernel sends to: as `endpoint` says, at another port.
fn address(endpoint: Endpoint, port: u16) -> SocketAddr {
    let mut address = endpoint.addr;
    if let SocketAddr::V6(v6) = address {
        match v6.ip().to_ipv4_mapped() {
            Some(v4) => address = (v4, port).into(),
            None if v6.ip().is_unicast_link_local() => {
                address = SocketAddrV6::new(*v6.ip(), port, 0, endpoint.iface.0).into();
            }
            None => {}
        }
    }
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use grange_core::Cipher;
    use grange_wire::LinkIndex;

    use super::*;

    struct Clock {
        now: Instant,
    }

    impl Clock {
        fn after(&mut self, duration: Duration) -> Instant {
            self.now += duration;
            self.now
        }
    }

    fn endpoint(text: &str, iface: u32) -> Endpoint {
        Endpoint { iface: IfaceId(iface), addr: text.parse().unwrap() }
    }

    /// Tunnels of both ends; the first is the one that begins.
    fn pair() -> [Tunnel; 2] {
        let end = |seal, open| {
            let keys = DataKeys {
                cipher: Cipher::ChaCha20Poly1305,
                local: LinkIndex(1),
                remote: LinkIndex(2),
                seal: [seal; 32],
                open: [open; 32],
            };
            Tunnel::new(NodeId([9; 32]), &keys, endpoint("[fe80::1]:7264", 3), 1419, 7264)
        };
        let mut both = [end(1, 2), end(2, 1)];
        both.sort_by_key(|tunnel| !tunnel.keys.begins);
        both
    }

    fn report(tunnel: &Tunnel, handshakes: u32) -> TunnelReport {
        TunnelReport { name: "grange1".into(), index: 9, port: 4000, handshakes, generation: tunnel.generation }
    }

    fn poll(tunnel: &mut Tunnel, now: Instant, handshakes: u32) {
        let report = report(tunnel, handshakes);
        tunnel.poll(now, Some(&report), None);
    }

    fn proven(clock: &mut Clock) -> Tunnel {
        let [mut tunnel, _] = pair();
        tunnel.set_peer_port(clock.now, 5000);
        poll(&mut tunnel, clock.now, 0);
        poll(&mut tunnel, clock.after(Duration::from_millis(300)), 1);
        assert!(tunnel.is_proven());
        tunnel
    }

    const TICK: Duration = Duration::from_millis(300);

    #[test]
    fn one_end_begins_and_the_other_yields_for_a_while() {
        let mut clock = Clock { now: Instant::now() };
        let [mut first, mut second] = pair();
        for tunnel in [&mut first, &mut second] {
            assert_eq!((tunnel.spec(clock.now).endpoint, tunnel.spec(clock.now).keepalive), (None, 0));
            poll(tunnel, clock.now, 0);
            assert_eq!(tunnel.state, State::Waiting, "not without the other's port");
            tunnel.set_peer_port(clock.now, 5000);
            poll(tunnel, clock.now, 0);
        }
        let to: SocketAddr = "[fe80::1%3]:5000".parse().unwrap();
        assert_eq!(first.spec(clock.now).endpoint, Some(to));
        assert_eq!((first.spec(clock.now).keepalive, second.spec(clock.now).keepalive), (PUSH, 0));
        let later = clock.after(YIELD);
        assert_eq!(second.spec(later).keepalive, PUSH, "the first one's packets may be blocked");
        poll(&mut second, later, 1);
        assert!(second.is_proven());
        assert_eq!(second.spec(later).keepalive, 0);
    }

    #[test]
    fn without_a_handshake_it_rests_ever_longer() {
        let mut clock = Clock { now: Instant::now() };
        let [mut tunnel, _] = pair();
        tunnel.set_peer_port(clock.now, 5000);
        let mut pushes = 0;
        let mut pauses = Vec::new();
        let mut since: Option<Instant> = None;
        while pauses.len() < 7 {
            poll(&mut tunnel, clock.after(TICK), 0);
            match (tunnel.state, since) {
                (State::Resting { .. }, None) => since = Some(clock.now),
                (State::Proving { .. }, Some(start)) => {
                    pauses.push((clock.now - start).as_secs());
                    since = None;
                }
                _ => {}
            }
            pushes += u32::from(tunnel.spec(clock.now).keepalive == PUSH);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        assert!(pushes < 7 * 75 + 75, "{pushes}");
        // The other end's attempt is as good as ours.
        while matches!(tunnel.state, State::Proving { .. }) {
            poll(&mut tunnel, clock.after(TICK), 0);
        }
        poll(&mut tunnel, clock.after(TICK), 1);
        assert!(tunnel.is_proven());
    }

    #[test]
    fn an_old_sessions_handshake_proves_nothing() {
        let mut clock = Clock { now: Instant::now() };
        let mut tunnel = proven(&mut clock);
        let old = report(&tunnel, 1);
        tunnel.set_peer_port(clock.now, 5001);
        assert!(!tunnel.is_proven());
        tunnel.poll(clock.after(TICK), Some(&old), None);
        assert!(!tunnel.is_proven(), "the other end is another one");
        poll(&mut tunnel, clock.after(TICK), 1);
        assert!(tunnel.is_proven());
    }

    #[test]
    fn data_without_an_answer_ends_trust_and_empty_packets_do_not() {
        let mut clock = Clock { now: Instant::now() };
        let mut tunnel = proven(&mut clock);
        let mut counts = Counts::default();
        let told = report(&tunnel, 1);
        // Sixteen minutes of empty packets to an idle neighbour.
        for _ in 0..100 {
            counts.sent_packets += 1;
            counts.sent_bytes += EMPTY;
            tunnel.poll(clock.after(Duration::from_secs(10)), Some(&told), Some(counts));
            assert!(tunnel.is_proven());
        }
        // A one-way flow that is answered every 10 s.
        for second in 0..100 {
            counts.sent_packets += 1;
            counts.sent_bytes += 1000;
            counts.received_packets += u64::from(second % 10 == 0);
            tunnel.poll(clock.after(Duration::from_secs(1)), Some(&told), Some(counts));
            assert!(tunnel.is_proven());
        }
        let mut lasted = 0;
        while tunnel.is_proven() {
            counts.sent_packets += 1;
            counts.sent_bytes += 1000;
            lasted += 1;
            tunnel.poll(clock.after(Duration::from_secs(1)), Some(&told), Some(counts));
        }
        assert!((15..=26).contains(&lasted), "{lasted}");
        assert_ne!(tunnel.spec(clock.now).generation, told.generation, "a handshake of this attempt is wanted");
    }

    #[test]
    fn a_lost_interface_or_port_ends_it_at_once() {
        let mut clock = Clock { now: Instant::now() };
        let mut tunnel = proven(&mut clock);
        tunnel.poll(clock.now, None, None);
        assert_eq!(tunnel.state, State::Waiting);
        let mut tunnel = proven(&mut clock);
        tunnel.set_peer_port(clock.now, 0);
        assert_eq!((tunnel.state, tunnel.spec(clock.now).endpoint), (State::Waiting, None));
    }

    #[test]
    fn addresses_as_the_kernel_wants_them() {
        let cases = [
            ("[fe80::1]:7264", 3, "[fe80::1%3]:9", 0, 7264),
            ("[::ffff:192.0.2.1]:7264", 0, "192.0.2.1:9", OVER_INTERNET, 7264),
            ("192.0.2.1:7264", 0, "192.0.2.1:9", OVER_INTERNET, 7264),
            ("[2001:db8::1]:7264", 3, "[2001:db8::1]:9", OVER_INTERNET, 7264),
            ("[fd00::1]:7265", IfaceId::MESH.0, "[fd00::1]:9", 0, SEAL_MARK),
        ];
        for (addr, iface, expected, keepalive, mark) in cases {
            let now = Instant::now();
            let [mut tunnel, _] = pair();
            tunnel.set_endpoint(endpoint(addr, iface));
            tunnel.set_peer_port(now, 9);
            let spec = tunnel.spec(now);
            assert_eq!(spec.endpoint, Some(expected.parse().unwrap()));
            assert_eq!((spec.keepalive, spec.mark), (keepalive, mark), "{addr}");
        }
    }
}
