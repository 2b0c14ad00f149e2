//! Small packets: how many a second pass without loss, and how many of a flood.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Options, Sample, Setup};
use crate::lab::Host;

/// Share of packets that may be lost for a rate to count as passed without loss.
const LOSS: f64 = 0.001;

/// How long each rate is tried.
const TRIAL: Duration = Duration::from_millis(500);

/// Rates that are tried after the flood.
const STEPS: u32 = 8;

/// Most packets a call: no more than small queues hold.
const BURST: usize = 16;

/// Longest pause of the sender.
const PAUSE: Duration = Duration::from_micros(20);

/// Receive buffer in bytes: what the receiver of the measurement itself must not lose.
const BUFFER: libc::c_int = 16 << 20;

/// What became of the packets of one trial.
#[derive(Clone, Copy, Debug)]
struct Trial {
    sent: u64,
    received: u64,
    seconds: f64,
}

impl Trial {
    fn passed(self) -> bool {
        self.received as f64 >= self.sent as f64 * (1.0 - LOSS)
    }

    fn rate(self) -> f64 {
        self.received as f64 / self.seconds
    }
}

/// Both sizes of packets: a flood, then ever finer trials.
///
/// # Errors
/// If the sockets cannot be made or no packet at all arrives.
pub(super) fn round(setup: &Setup, _: Options) -> Result<Sample> {
    let line = Line::open(&setup.lab.hosts()[0], &setup.lab.hosts()[setup.last()], setup.addresses()[setup.last()])?;
    let mut sample = Sample::new();
    for (size, passed, flooded) in [(64, "pps_64", "flood_64"), (512, "pps_512", "flood_512")] {
        let flood = line.send(size, None)?;
        anyhow::ensure!(flood.received > 0, "no packet of {size} bytes arrives");
        sample.insert(flooded, flood.rate());
        sample.insert(passed, search(flood, |rate| line.send(size, Some(rate)))?);
    }
    Ok(sample)
}

/// The highest rate at which trials pass, by halving (of logarithms) between what is surely possible and the flood.
fn search(flood: Trial, mut trial: impl FnMut(f64) -> Result<Trial>) -> Result<f64> {
    if flood.passed() {
        return Ok(flood.rate());
    }
    let offered = flood.sent as f64 / flood.seconds;
    let (mut low, mut high, mut best) = (flood.rate() / 64.0, offered.min(flood.rate() * 2.0), 0.0_f64);
    for _ in 0..STEPS {
        let rate = (low * high).sqrt();
        let mut one = trial(rate)?;
        if !one.passed() {
            // Something else may have happened on the machine just then.
            one = trial(rate)?;
        }
        if one.passed() {
            best = best.max(one.rate());
            low = rate;
        } else {
            high = rate;
        }
    }
    Ok(best)
}

/// A socket at each end.
struct Line {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Line {
    fn open(from: &Host, to: &Host, address: IpAddr) -> Result<Self> {
        let receiver = to.namespace().inside(|| UdpSocket::bind(SocketAddr::new(address, 0)));
        let receiver = receiver.context("opening a socket for packets")?;
        let target = receiver.local_addr().context("asking for a socket's port")?;
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sender = from.namespace().inside(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            Ok(socket)
        });
        enlarge(&receiver).context("enlarging a socket's buffer")?;
        receiver.set_read_timeout(Some(Duration::from_millis(50))).context("limiting a socket's patience")?;
        Ok(Self { sender: sender.context("opening a socket for packets")?, receiver })
    }

    /// Sends packets of `size` bytes for a while, at `rate` a second or as fast as it can, and counts those that arrive.
    fn send(&self, size: usize, rate: Option<f64>) -> Result<Trial> {
        let done = AtomicBool::new(false);
        let payload = vec![0x5a; size];
        let (sent, received) = thread::scope(|scope| {
            let counter = scope.spawn(|| count(&self.receiver, &done));
            // On a thread of its own, whose timers end with it.
            let sent = scope.spawn(|| pour(&self.sender, &payload, rate)).join();
            let sent = sent.unwrap_or_else(|_| Err(io::Error::other("the thread that sends packets panicked")));
            // What is still under way has this long.
            sleep(Duration::from_millis(150));
            done.store(true, Ordering::Relaxed);
            (sent, counter.join().unwrap_or_else(|_| Err(io::Error::other("the thread that counts packets panicked"))))
        });
        let (sent, seconds) = sent.context("sending packets")?;
        Ok(Trial { sent, received: received.context("receiving packets")?, seconds })
    }
}

/// More than the system's limit, as root may.
fn enlarge(socket: &UdpSocket) -> io::Result<()> {
    let bytes = BUFFER;
    // SAFETY: the pointer is to an int that lives through the call, and the length is its size.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends for [`TRIAL`] and gives the number of packets and the seconds it took.
fn pour(socket: &UdpSocket, payload: &[u8], rate: Option<f64>) -> io::Result<(u64, f64)> {
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: all-zero bytes are a valid mmsghdr.
    let mut messages: [libc::mmsghdr; BURST] = unsafe { std::mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // The kernel adds 50 us to a pause unless told otherwise; then bursts would be larger than need be.
    // SAFETY: this request takes a number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
    let (start, mut sent) = (Instant::now(), 0_u64);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= TRIAL {
            return Ok((sent, elapsed.as_secs_f64()));
        }
        let due = rate.map_or(BURST as u64, |rate| ((rate * elapsed.as_secs_f64()) as u64).saturating_sub(sent));
        if due == 0 {
            sleep(PAUSE);
            continue;
        }
        let burst = due.min(BURST as u64) as libc::c_uint;
        // SAFETY: the messages and the payload that they point to live through the call; `burst` is at most their number.
        let outcome = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), burst, 0) };
        match u64::try_from(outcome) {
            Ok(count) => sent += count,
            // The first hop is full: those packets are neither sent nor lost.
            Err(_)
                if [Some(libc::ENOBUFS), Some(libc::EAGAIN)].contains(&io::Error::last_os_error().raw_os_error()) => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// Counts what arrives until `done` and nothing more comes.
fn count(socket: &UdpSocket, done: &AtomicBool) -> io::Result<u64> {
    const BATCH: usize = 64;
    // Payloads are cut to nothing: only their number counts.
    // SAFETY: all-zero bytes are a valid mmsghdr.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut received = 0;
    loop {
        // SAFETY: the messages live through the call and `BATCH` is their number; without parts nothing is written.
        let outcome = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if let Ok(count) = u64::try_from(outcome) {
            received += count;
            continue;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut if done.load(Ordering::Relaxed) => return Ok(received),
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
            // An answer to the sender's own error, not to ours.
            ErrorKind::ConnectionRefused => {}
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that passes `capacity` packets a second and loses the rest.
    fn line(rate: f64, capacity: f64) -> Trial {
        Trial { sent: rate as u64, received: rate.min(capacity) as u64, seconds: 1.0 }
    }

    #[test]
    fn the_search_finds_the_capacity() {
        for capacity in [40_000.0, 170_000.0, 399_000.0] {
            let found = search(line(400_000.0, capacity), |rate| Ok(line(rate, capacity))).unwrap();
            assert!((0.95..=1.0).contains(&(found / capacity)), "{found} of {capacity}");
        }
    }

    #[test]
    fn a_line_that_loses_more_when_flooded_is_found_too() {
        // Of a flood a third arrives; up to 200,000 everything does.
        let trial = |rate: f64| if rate > 200_000.0 { line(rate, rate / 3.0) } else { line(rate, rate) };
        let found = search(trial(400_000.0), |rate| Ok(trial(rate))).unwrap();
        assert!((180_000.0..=200_000.0).contains(&found), "{found}");
    }

    #[test]
    fn what_passes_a_flood_needs_no_search() {
        assert_eq!(search(line(5000.0, 5000.0), |_| panic!("no trial is needed")).unwrap(), 5000.0);
    }
}
