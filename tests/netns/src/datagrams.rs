//! Numbered datagrams: what is lost, overtaken, repeated or changed on a way.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::Namespace;

/// The smallest datagram of a flow: its number.
const NUMBER: usize = 8;

/// How long the receiver waits for what is still on the way.
const REST: Duration = Duration::from_millis(300);

/// What a flow sends.
#[derive(Clone, Debug)]
pub struct FlowSpec {
    /// UDP payloads in bytes, one after the other and again from the first; each at least 8.
    pub sizes: Vec<usize>,
    /// Datagrams a second.
    pub rate: u32,
    /// Makes the contents.
    pub seed: u64,
}

/// What became of a flow's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowReport {
    /// How many were sent.
    pub sent: u64,
    /// How many arrived, repeated ones not counted.
    pub arrived: u64,
    /// Those of them that one with a higher number had overtaken.
    pub overtaken: u64,
    /// How many arrived once more.
    pub repeated: u64,
    /// How many arrived with other bytes, another length or a number never sent.
    pub changed: u64,
}

/// A steady stream of numbered datagrams one way; ends when finished or dropped.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<u64>>,
    receiver: Option<JoinHandle<FlowReport>>,
    done: Arc<AtomicBool>,
}

impl FlowSpec {
    /// The bytes of datagram `number`.
    fn datagram(&self, number: u64) -> Vec<u8> {
        let size = self.sizes.get((number % self.sizes.len().max(1) as u64) as usize).copied().unwrap_or(NUMBER);
        let mut bytes = vec![0; size.max(NUMBER)];
        crate::Random::new(self.seed ^ number << 20).fill(&mut bytes);
        bytes[..NUMBER].copy_from_slice(&number.to_be_bytes());
        bytes
    }
}

impl Flow {
    /// Starts to send from `from` to an unused port of `to`'s address `target`.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn start(from: &Namespace, to: &Namespace, target: IpAddr, spec: FlowSpec) -> Result<Self> {
        let sink = to.inside(|| UdpSocket::bind((target, 0))).with_context(|| format!("binding {target}"))?;
        sink.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = sink.local_addr()?;
        let any: SocketAddr = if target.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
        let socket = from.inside(|| UdpSocket::bind(any)).context("making a UDP socket")?;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let sender = std::thread::spawn({
            let (stop, spec) = (Arc::clone(&stop), spec.clone());
            move || send(&socket, address, &spec, &stop)
        });
        let receiver = std::thread::spawn({
            let done = Arc::clone(&done);
            move || receive(&sink, &spec, &done)
        });
        Ok(Self { stop, sender: Some(sender), receiver: Some(receiver), done })
    }

    /// Stops to send, waits for what is on the way, and gives what became of all.
    ///
    /// # Errors
    /// If a thread panicked.
    pub fn finish(mut self) -> Result<FlowReport> {
        let outcome = self.end();
        outcome.context("a flow's thread panicked")
    }

    fn end(&mut self) -> Option<FlowReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take()?.join().ok()?;
        self.done.store(true, Ordering::Relaxed);
        let report = self.receiver.take()?.join().ok()?;
        Some(FlowReport { sent, ..report })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, spec: &FlowSpec, stop: &AtomicBool) -> u64 {
    let (start, mut number) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        // Whatever the machine's pauses: a short burst, and never a long one.
        let due = (start.elapsed().as_secs_f64() * f64::from(spec.rate)) as u64;
        for _ in 0..due.saturating_sub(number).min(16) {
            // One that is refused (no buffers, no route, too large for the way as just learnt) is lost like any other.
            let _ = socket.send_to(&spec.datagram(number), to);
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    number
}

fn receive(socket: &UdpSocket, spec: &FlowSpec, done: &AtomicBool) -> FlowReport {
    let mut report = FlowReport::default();
    let (mut seen, mut highest) = (Vec::new(), None);
    let mut buffer = vec![0; 65536];
    let mut last = Instant::now();
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else {
            if done.load(Ordering::Relaxed) && last.elapsed() >= REST {
                return report;
            }
            continue;
        };
        last = Instant::now();
        let number = buffer[..length].first_chunk::<NUMBER>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        if number > u64::from(u32::MAX) || buffer[..length] != spec.datagram(number)[..] {
            report.changed += 1;
            continue;
        }
        let at = number as usize;
        if seen.len() <= at {
            seen.resize(at + 1, false);
        }
        if std::mem::replace(&mut seen[at], true) {
            report.repeated += 1;
            continue;
        }
        report.arrived += 1;
        report.overtaken += u64::from(highest > Some(number));
        highest = highest.max(Some(number));
    }
}
