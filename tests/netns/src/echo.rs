//! A steady stream of UDP echoes: how long traffic stood still.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::Namespace;

/// The port of the echo server (RFC 862).
const PORT: u16 = 7;

/// Answers each datagram with itself; ends when dropped.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts a server on this address of the namespace.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let socket = namespace
            .inside(|| UdpSocket::bind(SocketAddr::new(address, PORT)))
            .with_context(|| format!("binding an echo server to {address} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut buffer = vec![0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    // An ICMP error for an earlier answer shows up here; the stream goes on.
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a stream saw.
#[derive(Clone, Debug, Default)]
pub struct EchoReport {
    /// When each datagram was sent; its number is its place.
    pub sent: Vec<Instant>,
    /// What came back: number and time, in order of arrival.
    pub arrived: Vec<(usize, Instant)>,
}

impl EchoReport {
    /// The longest time without an arrival in `[from, to]`. A stop that began earlier counts from `from`.
    #[must_use]
    pub fn gap(&self, from: Instant, to: Instant) -> Duration {
        let mut inside: Vec<Instant> =
            self.arrived.iter().map(|(_, at)| *at).filter(|at| *at >= from && *at <= to).collect();
        inside.sort_unstable();
        let mut longest = Duration::ZERO;
        let mut last = from;
        for at in inside.into_iter().chain([to]) {
            longest = longest.max(at.saturating_duration_since(last));
            last = at;
        }
        longest
    }

    /// How many sent in `[from, to]` never came back.
    #[must_use]
    pub fn lost(&self, from: Instant, to: Instant) -> usize {
        let back: std::collections::BTreeSet<usize> = self.arrived.iter().map(|(number, _)| *number).collect();
        self.sent.iter().enumerate().filter(|(number, at)| **at >= from && **at <= to && !back.contains(number)).count()
    }
}

/// A client that sends a datagram each interval and notes what comes back; ends when stopped or dropped.
#[derive(Debug)]
pub struct EchoStream {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<EchoReport>>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoStream {
    /// Starts a stream of datagrams of `size` bytes (at least 8, at most 2048) to the echo server at `server`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(namespace: &Namespace, server: IpAddr, interval: Duration, size: usize) -> Result<Self> {
        let any: SocketAddr = if server.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
        let socket = Arc::new(namespace.inside(|| UdpSocket::bind(any)).context("making a UDP socket")?);
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(EchoReport::default()));
        let size = size.clamp(8, 2048);
        let sender = std::thread::spawn({
            let (socket, stop, report) = (Arc::clone(&socket), Arc::clone(&stop), Arc::clone(&report));
            move || {
                let mut datagram = vec![b'x'; size];
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let number = {
                        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                        report.sent.push(Instant::now());
                        report.sent.len() - 1
                    };
                    datagram[..8].copy_from_slice(&(number as u64).to_be_bytes());
                    // No route at this moment is a loss like any other.
                    let _ = socket.send_to(&datagram, SocketAddr::new(server, PORT));
                    next += interval;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    // After a pause of the whole machine, do not catch up in a burst.
                    next = next.max(Instant::now().checked_sub(interval * 10).unwrap_or(next));
                }
            }
        });
        let receiver = std::thread::spawn({
            let (stop, report) = (Arc::clone(&stop), Arc::clone(&report));
            move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                    let Some(number) = buffer[..length].first_chunk::<8>() else { continue };
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.arrived.push((u64::from_be_bytes(*number) as usize, Instant::now()));
                }
            }
        });
        Ok(Self { stop, report, threads: vec![sender, receiver] })
    }

    /// What it saw so far.
    #[must_use]
    pub fn report(&self) -> EchoReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many answers came after `from`.
    #[must_use]
    pub fn arrived_since(&self, from: Instant) -> usize {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.arrived.iter().rev().take_while(|(_, at)| *at >= from).count()
    }

    /// Waits until answers to datagrams sent after this call flow steadily, ten of them.
    ///
    /// # Errors
    /// If they do not within `limit`.
    pub fn wait_flowing(&self, limit: Duration) -> Result<Duration> {
        let first = self.report.lock().unwrap_or_else(PoisonError::into_inner).sent.len();
        let ((), elapsed) = crate::wait_until("the echo stream to flow", limit, || {
            let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = report.arrived.iter().rev().take_while(|(number, _)| *number >= first).count();
            Ok((fresh >= 10).then_some(()))
        })?;
        Ok(elapsed)
    }
}

impl Drop for EchoStream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_time_without_an_arrival() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let report = EchoReport {
            sent: (0..10).map(|n| at(n * 10)).collect(),
            arrived: vec![(0, at(1)), (1, at(11)), (6, at(61)), (7, at(71)), (9, at(91))],
        };
        assert_eq!(report.gap(at(5), at(95)), Duration::from_millis(50));
        assert_eq!(report.gap(at(15), at(95)), Duration::from_millis(46));
        assert_eq!(report.gap(at(95), at(300)), Duration::from_millis(205));
        assert_eq!(report.lost(at(15), at(95)), 5);
    }
}
