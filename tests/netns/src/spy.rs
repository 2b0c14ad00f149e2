//! A router gone bad: a member of the town in good standing, with a node's own keys, that does its duty in links and
//! routing, reads all that it forwards, and changes or repeats what it likes.
//!
//! It is the protocol core over one UDP socket, with a plane of its own that forwards packet by packet. What it sees is what
//! any router on the way could: packets as they are between two links.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use grange_core::{
    DataKeys, Endpoint, Event, IfaceId, IfaceKind, IfaceState, LinkId, LinkTraffic, NodeConfig, Offer, Target, Town,
};
use grange_wire::{NodeId, PORT, Prefix, SEAL_PORT, TownId};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::{Namespace, Node, Random, packet::wait_readable};

/// Packets that it remembers.
const MAX_SEEN: usize = 200_000;

/// Bytes of a data frame before what is encrypted.
const HEADER: usize = 16;

/// Bytes of an IPv6 and a UDP header.
const OUTER: usize = 48;

/// What the spy does to the seals' data frames that it forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    #[default]
    None,
    /// Flips a bit, anywhere behind the outer headers, of one of so many.
    Alter(u64),
    /// Sends each twice, and one of sixteen once more after 200 others.
    Repeat,
    /// Sends each with another sender's address on the outer header, and after it as it was.
    Rename(Ipv6Addr),
    /// Drops them, and every other UDP packet: neither does any seal live nor is one made.
    Starve,
}

/// The spy; ends when dropped.
#[derive(Debug)]
pub struct Spy {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    mischief: Mutex<Mischief>,
    seen: Mutex<Vec<Vec<u8>>>,
    done: std::sync::atomic::AtomicU64,
    routes: Mutex<Vec<Prefix>>,
    /// Packets of its own that are to be sent.
    own: Mutex<Vec<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spy {
    /// Takes the place of a node whose agent does not run, with its keys, on these interfaces of its namespace.
    ///
    /// # Errors
    /// If the node has no keys or is in no town, or the socket cannot be made.
    pub fn start(node: &Node, interfaces: &[&str]) -> Result<Self> {
        let file = |name: &str, field: &str| -> Result<Vec<u8>> {
            let path = node.state_dir().join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.trim_start().strip_prefix('='));
            let value = value.with_context(|| format!("{} has no {field}", path.display()))?;
            let digits = value.trim().trim_matches('"');
            (0..digits.len() / 2)
                .map(|at| u8::from_str_radix(digits.get(at * 2..at * 2 + 2).unwrap_or("?"), 16).map_err(Into::into))
                .collect()
        };
        fn fixed<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N]> {
            <[u8; N]>::try_from(bytes).ok().with_context(|| format!("a file of the node holds no {N} bytes"))
        }
        let config = NodeConfig {
            seed: fixed(file("node.key", "seed")?)?,
            name: node.name().to_owned(),
            town: Some(Town {
                id: TownId(fixed(file("town.toml", "id")?)?),
                name: crate::Town::NAME.to_owned(),
                key: fixed(file("town.toml", "key")?)?,
                certificate: file("town.toml", "certificate")?,
            }),
            gateways: Default::default(),
            // No fast AES: one cipher is enough for a spy.
            offer: Offer::default(),
        };
        let (socket, indices) = open(node.namespace(), interfaces).context("opening the spy's socket")?;
        let (shared, stop) = (Arc::new(Shared::default()), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            move || Router::new(socket, config, &indices, shared).run(&stop)
        });
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Does this from now on.
    pub fn set(&self, mischief: Mischief) {
        *lock(&self.shared.mischief) = mischief;
        self.shared.done.store(0, Ordering::Relaxed);
    }

    /// How many frames it altered, repeated or renamed since the last [`Self::set`].
    #[must_use]
    pub fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Sends this IP packet to where its destination is, as if it had come from somewhere; in its turn.
    pub fn put_in(&self, packet: Vec<u8>) {
        lock(&self.shared.own).push(packet);
    }

    /// All that it forwarded since the last call, as IP packets in the form in which they were between two links.
    #[must_use]
    pub fn take_seen(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *lock(&self.shared.seen))
    }

    /// Whether it has routes to both addresses.
    #[must_use]
    pub fn reaches(&self, addresses: [Ipv6Addr; 2]) -> bool {
        let routes = lock(&self.shared.routes);
        addresses.iter().all(|address| routes.iter().any(|prefix| prefix.contains((*address).into())))
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The socket, in the beacons' group on each interface, and the interfaces' numbers.
fn open(namespace: &Namespace, interfaces: &[&str]) -> io::Result<(UdpSocket, Vec<u32>)> {
    namespace.inside(|| {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_loop_v6(false)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        let mut indices = Vec::new();
        for interface in interfaces {
            let name = std::ffi::CString::new(*interface).map_err(io::Error::other)?;
            // SAFETY: `name` is a string that ends in zero and lives through the call.
            let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
            if index == 0 {
                return Err(io::Error::last_os_error());
            }
            socket.join_multicast_v6(&GROUP, index)?;
            indices.push(index);
        }
        Ok((socket, indices))
    })
}

/// The beacons' group.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6772);

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of an int that lives through the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A link's session as the plane has it.
struct Session {
    endpoint: Endpoint,
    remote: u32,
    key: LessSafeKey,
    counter: u64,
    traffic: LinkTraffic,
}

/// The first part of a packet, with its place in the stream.
struct Part {
    counter: u64,
    plain: Vec<u8>,
}

struct Router {
    socket: UdpSocket,
    node: grange_core::Node,
    start: Instant,
    shared: Arc<Shared>,
    sessions: BTreeMap<LinkId, Session>,
    /// By the index in the frames that come in.
    openers: BTreeMap<u32, (LinkId, LessSafeKey)>,
    parts: BTreeMap<LinkId, Part>,
    routes: BTreeMap<Prefix, LinkId>,
    id: NodeId,
    random: Random,
    sealed: u64,
    later: Vec<(u64, LinkId, Vec<u8>)>,
}

impl Router {
    fn new(socket: UdpSocket, config: NodeConfig, indices: &[u32], shared: Arc<Shared>) -> Self {
        let start = Instant::now();
        let mut entropy = [0; 32];
        // Fresh for each start, and no secret of anybody worth one.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Random::new(now.as_nanos() as u64).fill(&mut entropy);
        let mut node = grange_core::Node::new(config, grange_core::Instant::START, entropy);
        for index in indices {
            let state = IfaceState { kind: IfaceKind::Wired, mtu: 1500, up: true, beacons: true };
            node.set_iface(grange_core::Instant::START, IfaceId(*index), Some(state));
        }
        let id = node.id();
        Self {
            socket,
            node,
            start,
            shared,
            sessions: BTreeMap::new(),
            openers: BTreeMap::new(),
            parts: BTreeMap::new(),
            routes: BTreeMap::new(),
            id,
            random: Random::new(7),
            sealed: 0,
            later: Vec::new(),
        }
    }

    fn now(&self) -> grange_core::Instant {
        grange_core::Instant::START + self.start.elapsed()
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65536];
        let mut told = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.pump();
            let due = self.node.poll_timeout().map_or(Duration::MAX, |due| due.since(self.now()));
            wait_readable(std::slice::from_ref(&self.socket), due.min(Duration::from_millis(20)));
            for _ in 0..256 {
                let Some((length, from)) = receive(&self.socket, &mut buffer) else { break };
                if buffer.first() == Some(&6) {
                    self.open(&buffer[..length]);
                } else {
                    let now = self.now();
                    self.node.handle_datagram(now, from, &buffer[..length]);
                    self.pump();
                }
            }
            let own = std::mem::take(&mut *lock(&self.shared.own));
            for packet in own {
                if let Some(via) = target(&packet).and_then(|to| self.via(to)) {
                    self.send(via, &[&[0], &packet[..]].concat());
                }
            }
            let now = self.now();
            self.node.handle_timeout(now);
            if told.elapsed() > Duration::from_millis(50) {
                told = Instant::now();
                for (link, session) in &self.sessions {
                    self.node.handle_traffic(now, *link, session.traffic);
                }
            }
        }
        let now = self.now();
        self.node.shutdown(now);
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(event) = self.node.poll_event() {
            self.take_event(event);
        }
        while let Some(transmit) = self.node.poll_transmit() {
            let to = match transmit.to {
                Target::Endpoint(endpoint) => destination(endpoint),
                Target::Beacon(iface) => SocketAddrV6::new(GROUP, PORT, 0, iface.0).into(),
            };
            // The mesh's own address leads nowhere here, and what is lost is sent again.
            let _ = self.socket.send_to(&transmit.payload, to);
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::LinkUp { link, endpoint, keys, .. } => self.take_keys(link, Some(endpoint), &keys),
            Event::LinkRekeyed { link, keys } => self.take_keys(link, None, &keys),
            Event::LinkKeysOffered { link, keys } => {
                self.openers.extend(key(&keys.open).map(|open| (keys.local.0, (link, open))));
            }
            Event::LinkMoved { link, endpoint } => {
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.endpoint = endpoint;
                }
            }
            Event::LinkDown { link, .. } => {
                self.sessions.remove(&link);
                self.parts.remove(&link);
                self.openers.retain(|_, (of, _)| *of != link);
            }
            Event::RouteChanged { prefix, via, .. } => {
                self.routes.insert(prefix, via);
                *lock(&self.shared.routes) = self.routes.keys().copied().collect();
            }
            Event::RouteRemoved { prefix } => {
                self.routes.remove(&prefix);
                *lock(&self.shared.routes) = self.routes.keys().copied().collect();
            }
            _ => {}
        }
    }

    fn take_keys(&mut self, link: LinkId, endpoint: Option<Endpoint>, keys: &DataKeys) {
        let (Some(seal), Some(open)) = (key(&keys.seal), key(&keys.open)) else { return };
        let known = self.sessions.get(&link).map(|session| (session.endpoint, session.traffic));
        let traffic = known.map(|known| known.1).unwrap_or_default();
        let Some(endpoint) = endpoint.or(known.map(|known| known.0)) else { return };
        self.openers.insert(keys.local.0, (link, open));
        self.sessions.insert(link, Session { endpoint, remote: keys.remote.0, key: seal, counter: 0, traffic });
    }

    /// A data frame: `06 0 0 0 | receiver | counter | encrypted flags and packet | tag`.
    fn open(&mut self, frame: &[u8]) {
        let Some((header, sealed)) = frame.split_first_chunk::<HEADER>() else { return };
        let [_, _, _, _, a, b, c, d, counter @ ..] = *header;
        let counter = u64::from_be_bytes(counter);
        let Some((link, opener)) = self.openers.get(&u32::from_be_bytes([a, b, c, d])) else { return };
        let (link, mut plain) = (*link, sealed.to_vec());
        let Ok(opened) = opener.open_in_place(nonce(counter), Aad::from(header), &mut plain) else { return };
        let length = opened.len();
        plain.truncate(length);
        if let Some(session) = self.sessions.get_mut(&link) {
            session.traffic.received_packets += 1;
            session.traffic.received_bytes += length as u64;
        }
        match plain.first().map(|flags| flags & 3) {
            Some(0) => self.forward(&plain),
            Some(1) => drop(self.parts.insert(link, Part { counter, plain })),
            Some(2) => {
                let Some(first) = self.parts.remove(&link).filter(|first| first.counter + 1 == counter) else { return };
                let mut whole = first.plain;
                whole[0] &= !3;
                whole.extend_from_slice(&plain[1..]);
                self.forward(&whole);
            }
            _ => {}
        }
    }

    /// Passes a packet on, and does what it does beside.
    fn forward(&mut self, plain: &[u8]) {
        let packet = &plain[1..];
        let Some(to) = target(packet) else { return };
        let own = IpAddr::from(grange_wire::node_address(&self.id));
        let Some(via) = self.via(to).filter(|_| to != own) else { return };
        {
            let mut seen = lock(&self.shared.seen);
            if seen.len() < MAX_SEEN {
                seen.push(packet.to_vec());
            }
        }
        let mischief = *lock(&self.shared.mischief);
        if mischief == Mischief::Starve && is_udp(packet) {
            return self.did();
        }
        if !is_sealed(packet) {
            return self.send(via, plain);
        }
        self.sealed += 1;
        match mischief {
            Mischief::Alter(one_of) if self.sealed.is_multiple_of(one_of) => {
                let mut changed = plain.to_vec();
                let at = 1 + OUTER + self.random.below(packet.len() - OUTER);
                changed[at] ^= 1 << self.random.below(8);
                self.did();
                self.send(via, &changed);
            }
            Mischief::None | Mischief::Alter(_) | Mischief::Starve => self.send(via, plain),
            Mischief::Repeat => {
                self.did();
                self.send(via, plain);
                self.send(via, plain);
                if self.sealed.is_multiple_of(16) {
                    self.later.push((self.sealed + 200, via, plain.to_vec()));
                }
                while self.later.first().is_some_and(|(due, ..)| *due <= self.sealed) {
                    let (_, via, plain) = self.later.remove(0);
                    self.send(via, &plain);
                }
            }
            Mischief::Rename(other) => {
                let mut changed = plain.to_vec();
                changed[1 + 8..1 + 24].copy_from_slice(&other.octets());
                self.did();
                self.send(via, &changed);
                self.send(via, plain);
            }
        }
    }

    /// The link that leads to an address.
    fn via(&self, to: IpAddr) -> Option<LinkId> {
        let ways = self.routes.iter().filter(|(prefix, _)| prefix.contains(to));
        ways.max_by_key(|(prefix, _)| prefix.len()).map(|(_, via)| *via)
    }

    fn did(&self) {
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Seals flags and packet for a link, in two frames if they do not fit a wire of 1500 bytes.
    fn send(&mut self, link: LinkId, plain: &[u8]) {
        const ROOM: usize = 1500 - OUTER - HEADER - 16;
        if plain.len() <= ROOM {
            return self.send_frame(link, plain);
        }
        let (first, second) = plain.split_at(ROOM / 2);
        let flags = plain[0] & !3;
        let mut part = first.to_vec();
        part[0] = flags | 1;
        self.send_frame(link, &part);
        part.truncate(1);
        part[0] = flags | 2;
        part.extend_from_slice(second);
        self.send_frame(link, &part);
    }

    fn send_frame(&mut self, link: LinkId, plain: &[u8]) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let mut frame = vec![6, 0, 0, 0];
        frame.extend_from_slice(&session.remote.to_be_bytes());
        frame.extend_from_slice(&session.counter.to_be_bytes());
        let mut sealed = plain.to_vec();
        let aad = Aad::from(frame.clone());
        if session.key.seal_in_place_append_tag(nonce(session.counter), aad, &mut sealed).is_err() {
            return;
        }
        session.counter += 1;
        session.traffic.sent_packets += 1;
        session.traffic.sent_bytes += plain.len() as u64;
        frame.extend_from_slice(&sealed);
        let to = destination(session.endpoint);
        // A full socket takes more in a moment.
        for _ in 0..100 {
            match self.socket.send_to(&frame, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                _ => return,
            }
        }
    }
}

fn key(bytes: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new)
}

/// 4 zero bytes and the counter, little-endian.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Where an IP packet goes.
fn target(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into()),
        6 => Some(Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn is_udp(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9) == Some(&17),
        Some(6) => packet.get(6) == Some(&17),
        _ => false,
    }
}

/// Whether a packet is a seal's data frame.
fn is_sealed(packet: &[u8]) -> bool {
    let port = SEAL_PORT.to_be_bytes();
    packet.len() > OUTER + HEADER
        && packet[0] >> 4 == 6
        && packet[6] == 17
        && packet[40..42] == port
        && packet[42..44] == port
        && packet[48] == 6
}

fn destination(endpoint: Endpoint) -> SocketAddr {
    match endpoint.addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, endpoint.iface.0).into()
        }
        other => other,
    }
}

/// The next datagram that waits, and from where it came, with the interface (RFC 3542, section 6.2).
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, Endpoint)> {
    // SAFETY: all-zero bytes are a valid sockaddr_in6 and a valid msghdr.
    let (mut name, mut header): (libc::sockaddr_in6, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all that the header points to lives through the call and is writable with the lengths given.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(length).ok()?;
    let mut iface = 0;
    // SAFETY: the kernel filled the control buffer in, which is aligned for its headers.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: `message` is a whole header inside the control buffer, as the macros make sure.
        unsafe {
            if ((*message).cmsg_level, (*message).cmsg_type) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
                iface = std::ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>()).ipi6_ifindex;
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
    let addr = SocketAddr::new(IpAddr::from(ip).to_canonical(), u16::from_be(name.sin6_port));
    Some((length, Endpoint { iface: IfaceId(iface), addr }))
}
