//! Which way packets take: echo requests with a rising hop limit.

mod icmp;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Semaphore, mpsc},
    time::Instant,
};

use self::icmp::{Answer, Verdict};
use crate::{error::TraceError, snapshot::Hop};

/// Most hops that are tried.
const MAX_HOPS: u8 = 32;

/// Probes of a hop.
const PROBES: u8 = 3;

/// Time between the probes of a hop.
const SPACING: Duration = Duration::from_millis(20);

/// How long answers are waited for after the last probe of a hop.
const PATIENCE: Duration = Duration::from_secs(1);

/// After how many silent hops in a row nobody is expected to answer any more.
const MAX_SILENT: u8 = 5;

/// Most traces at once.
const MAX_TRACES: usize = 8;

static TRACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_TRACES)));

/// A trace that runs: hops come as they answer. Dropping it ends it.
#[derive(Debug)]
pub struct Trace {
    hops: mpsc::Receiver<Hop>,
}

impl Trace {
    /// The next hop; `None` when the destination answered, the way ended, five hops in a row were silent, or 32 were
    /// tried.
    pub async fn next(&mut self) -> Option<Hop> {
        self.hops.recv().await
    }
}

/// Starts a trace. `names` are the names that are known.
pub(crate) fn start(destination: IpAddr, names: BTreeMap<IpAddr, String>) -> Result<Trace, TraceError> {
    let permit = TRACES.clone().try_acquire_owned().map_err(|_| TraceError::Busy { limit: MAX_TRACES })?;
    let prober = Prober::open(destination)?;
    prober.send(1, 0).map_err(|error| match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EACCES | libc::EINVAL) => {
            TraceError::Unreachable
        }
        _ => TraceError::Io(error),
    })?;
    let first = Instant::now();
    let (sender, hops) = mpsc::channel(usize::from(MAX_HOPS));
    tokio::spawn(async move {
        let _permit = permit;
        let run = async {
            let mut silent = 0;
            for number in 1..=MAX_HOPS {
                let mut hop = prober.probe(number, (number == 1).then_some(first)).await;
                silent = if hop.rtt.is_empty() { silent + 1 } else { 0 };
                hop.name = hop.address.and_then(|address| names.get(&address).cloned());
                let last = hop.reached || hop.unreachable || silent >= MAX_SILENT;
                if sender.send(hop).await.is_err() || last {
                    return;
                }
            }
        };
        tokio::select! {
            () = sender.closed() => {}
            () = run => {}
        }
    });
    Ok(Trace { hops })
}

struct Prober {
    socket: AsyncFd<Socket>,
    destination: IpAddr,
    id: u16,
}

impl Prober {
    fn open(destination: IpAddr) -> Result<Self, TraceError> {
        let (domain, protocol) = match destination {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket =
            Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol)).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => TraceError::NoRights,
                    _ => TraceError::Io(error),
                }
            })?;
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| TraceError::Io(io::Error::other(error)))?;
        // SAFETY: a `Socket` owns its descriptor and gives the same one as long as it lives, which is as long as the
        // `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self { socket, destination, id: u16::from_ne_bytes(id) })
    }

    fn send(&self, hop: u8, probe: u8) -> io::Result<()> {
        let socket = self.socket.get_ref();
        match self.destination {
            IpAddr::V4(_) => socket.set_ttl_v4(u32::from(hop))?,
            IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(hop))?,
        }
        let packet = icmp::request(self.destination, self.id, sequence(hop, probe));
        socket.send_to(&packet, &SocketAddr::new(self.destination, 0).into()).map(drop)
    }

    async fn receive(&self) -> io::Result<(IpAddr, Answer)> {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = self.socket.async_io(Interest::READABLE, |socket| read(socket, &mut buffer)).await?;
            if let Some(answer) = icmp::answer(self.destination, self.id, &buffer[..length]) {
                return Ok((from, answer));
            }
        }
    }

    /// Probes one hop. `sent`: when its first probe was sent, if it was.
    async fn probe(&self, hop: u8, sent: Option<Instant>) -> Hop {
        let mut found = Hop { hop, address: None, name: None, rtt: Vec::new(), reached: false, unreachable: false };
        let mut times = [sent, None, None];
        let mut next: u8 = u8::from(sent.is_some());
        let mut wake = if sent.is_some() { Instant::now() + SPACING } else { Instant::now() };
        while found.rtt.len() < usize::from(PROBES) {
            tokio::select! {
                biased;
                received = self.receive() => match received {
                    Ok((from, answer)) => {
                        let now = Instant::now();
                        let probe = (0..PROBES).find(|probe| answer.sequence == sequence(hop, *probe));
                        let Some(at) = probe.and_then(|probe| times[usize::from(probe)].take()) else { continue };
                        found.rtt.push(now - at);
                        found.address = Some(from);
                        found.reached |= answer.verdict == Verdict::Reply;
                        found.unreachable |= answer.verdict == Verdict::Unreachable;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a trace's socket cannot be read");
                        break;
                    }
                },
                () = tokio::time::sleep_until(wake) => {
                    if next == PROBES {
                        break;
                    }
                    // The answer may be here before the call returns.
                    times[usize::from(next)] = Some(Instant::now());
                    if let Err(error) = self.send(hop, next) {
                        tracing::debug!(%error, "a probe was not sent");
                        times[usize::from(next)] = None;
                    }
                    next += 1;
                    wake = Instant::now() + if next == PROBES { PATIENCE } else { SPACING };
                }
            }
        }
        found
    }
}

fn sequence(hop: u8, probe: u8) -> u16 {
    u16::from(hop) * u16::from(PROBES) + u16::from(probe)
}

fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, IpAddr)> {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and `recv_from` only ever writes initialised bytes.
    let uninit = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [std::mem::MaybeUninit<u8>]) };
    let (length, from) = socket.recv_from(uninit)?;
    let from = match from.as_socket() {
        Some(SocketAddr::V4(v4)) => IpAddr::V4(*v4.ip()),
        Some(SocketAddr::V6(v6)) => IpAddr::V6(*v6.ip()),
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Ok((length, from))
}

/// The names of a node's two addresses.
pub(crate) fn names_of(id: &grange_wire::NodeId, name: &str) -> [(IpAddr, String); 2] {
    let v6: Ipv6Addr = grange_wire::node_address(id);
    let v4: Ipv4Addr = grange_wire::node_address_v4(id);
    [(v6.into(), name.into()), (v4.into(), name.into())]
}
