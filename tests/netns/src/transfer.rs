//! A checksummed transfer that tells how fast it went at every moment.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Arrivals, Namespace, Random, wait_until};

/// Bytes that share a digest: how near a wrong byte is found.
const BLOCK: usize = 1 << 20;

/// Bytes of one read or write.
const CHUNK: usize = 128 << 10;

/// How often the receiver looks at the clock, with or without data.
const TICK: Duration = Duration::from_millis(10);

/// One TCP connection that carries seeded random bytes one way. Both ends hash what passes them, and the digests are
/// compared at the end: for the whole and for each MiB, to say where it went wrong. Ends when dropped.
#[derive(Debug)]
pub struct Transfer {
    least: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Arrivals>>,
    ends: [TcpStream; 2],
    threads: Option<[JoinHandle<io::Result<Digest>>; 2]>,
}

/// What a finished transfer carried.
#[derive(Clone, Debug)]
pub struct Transferred {
    /// Bytes, the same at both ends and with the same BLAKE3 digest.
    pub bytes: u64,
    /// When they arrived.
    pub arrivals: Arrivals,
}

impl Transferred {
    /// Bits a second over the whole time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let Some((first, last)) = self.arrivals.span() else { return 0.0 };
        self.arrivals.rate(first, last)
    }
}

/// The BLAKE3 digest of a stream, and those of its blocks.
#[derive(Debug, Default)]
struct Digest {
    bytes: u64,
    whole: blake3::Hasher,
    block: blake3::Hasher,
    blocks: Vec<blake3::Hash>,
}

impl Digest {
    fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let room = BLOCK - (self.bytes % BLOCK as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            self.bytes += now.len() as u64;
            if now.len() == room {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        self.blocks.push(self.block.finalize());
        self.block.reset();
    }

    /// The number of bytes, if both streams are the same.
    fn same(mut self, mut sent: Self) -> Result<u64> {
        ensure!(self.bytes == sent.bytes, "{} bytes were sent and {} arrived", sent.bytes, self.bytes);
        self.close();
        sent.close();
        if let Some(at) = self.blocks.iter().zip(&sent.blocks).position(|(here, there)| here != there) {
            bail!("the transfer was changed on the way, first in its MiB {at} of {}", self.bytes / BLOCK as u64);
        }
        ensure!(self.whole.finalize() == sent.whole.finalize(), "the transfer was changed on the way");
        Ok(self.bytes)
    }
}

impl Transfer {
    /// Connects `from` to an unused port of `to`'s address `server` and starts to send, until [`Self::finish`] says that
    /// it is enough.
    ///
    /// # Errors
    /// If the connection does not come about within 5 s.
    pub fn start(from: &Namespace, to: &Namespace, server: IpAddr, seed: u64) -> Result<Self> {
        let listener = to
            .inside(|| TcpListener::bind(SocketAddr::new(server, 0)))
            .with_context(|| format!("listening on {server} in {}", to.name()))?;
        let address = listener.local_addr()?;
        let sender = from
            .inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))
            .with_context(|| format!("connecting to {address} from {}", from.name()))?;
        let (receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(TICK))?;
        let ends = [sender.try_clone()?, receiver.try_clone()?];
        let (least, stop) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicBool::new(false)));
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        let sending = std::thread::spawn({
            let least = Arc::clone(&least);
            move || send(sender, seed, &least)
        });
        let receiving = std::thread::spawn({
            let (stop, arrivals) = (Arc::clone(&stop), Arc::clone(&arrivals));
            move || receive(receiver, &stop, &arrivals)
        });
        Ok(Self { least, stop, arrivals, ends, threads: Some([sending, receiving]) })
    }

    /// What arrived so far.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many bytes arrived.
    ///
    /// # Errors
    /// If they do not within `limit`.
    pub fn wait_bytes(&self, bytes: u64, limit: Duration) -> Result<()> {
        wait_until(&format!("{bytes} bytes to arrive"), limit, || {
            let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((arrivals.bytes() >= bytes).then_some(()))
        })?;
        Ok(())
    }

    /// Sends on until `least` bytes are sent (none more, if they are already), waits for the end and compares what was
    /// sent and what arrived.
    ///
    /// # Errors
    /// If a connection breaks, the end does not come within `limit`, or anything arrived otherwise than it was sent.
    pub fn finish(mut self, least: u64, limit: Duration) -> Result<Transferred> {
        self.least.store(least, Ordering::Relaxed);
        let outcome = wait_until("the transfer to end", limit, || {
            Ok(self.threads.iter().flatten().all(JoinHandle::is_finished).then_some(()))
        });
        let arrivals = self.arrivals();
        outcome.with_context(|| format!("{} bytes arrived", arrivals.bytes()))?;
        let Some([sending, receiving]) = self.threads.take() else { bail!("the transfer has ended") };
        let join = |thread: JoinHandle<io::Result<Digest>>| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a transfer's thread panicked")))
        };
        let (sent, received) = (join(sending), join(receiving));
        let sent = sent.with_context(|| format!("sending, {} bytes arrived", arrivals.bytes()))?;
        let bytes = received.context("receiving")?.same(sent)?;
        Ok(Transferred { bytes, arrivals })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in &self.ends {
            // One that the other end closed needs no shutdown.
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.take().into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

fn send(mut stream: TcpStream, seed: u64, least: &AtomicU64) -> io::Result<Digest> {
    let mut random = Random::new(seed);
    let mut digest = Digest::default();
    let mut chunk = vec![0; CHUNK];
    while digest.bytes < least.load(Ordering::Relaxed) {
        random.fill(&mut chunk);
        stream.write_all(&chunk)?;
        digest.update(&chunk);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(digest)
}

fn receive(mut stream: TcpStream, stop: &AtomicBool, arrivals: &Mutex<Arrivals>) -> io::Result<Digest> {
    let mut digest = Digest::default();
    let mut chunk = vec![0; CHUNK];
    let mut next = Instant::now();
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => 0,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return Err(error);
                }
                arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now(), digest.bytes);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        digest.update(&chunk[..length]);
        let now = Instant::now();
        if now >= next || length == 0 {
            arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(now, digest.bytes);
            next = now + TICK;
        }
        if length == 0 {
            return Ok(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8], cut: usize) -> Digest {
        let mut digest = Digest::default();
        bytes.chunks(cut).for_each(|part| digest.update(part));
        digest
    }

    #[test]
    fn a_changed_byte_is_found_in_its_mib_however_the_stream_is_cut() {
        let mut bytes = vec![0; 3 * BLOCK + 77];
        Random::new(1).fill(&mut bytes);
        let sent = bytes.clone();
        assert!(matches!(digest(&sent, 1000).same(digest(&bytes, CHUNK)), Ok(length) if length == sent.len() as u64));
        bytes[2 * BLOCK + 5] ^= 1;
        let error = digest(&bytes, 1000).same(digest(&sent, CHUNK)).expect_err("a changed byte");
        assert!(error.to_string().contains("MiB 2 "), "{error}");
        assert!(digest(&sent[1..], 1000).same(digest(&sent, CHUNK)).is_err());
    }
}
