//! Carries the frames of one wire in user space, to delay, reorder, lose or repeat them.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    Namespace, Random,
    packet::{MAX_FRAME, PacketSocket, wait_readable},
};

/// Bytes of delayed frames that the relay holds at most; what comes beyond is lost, as in a router's queue.
const MAX_HELD: usize = 16 << 20;

/// What happens to the frames of a wire. The default carries them unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Each frame comes this much later.
    pub delay: Duration,
    /// Share of frames (0 to 1) that are held back for `hold` more, so that later ones overtake them.
    pub reorder: f64,
    /// How long those are held back.
    pub hold: Duration,
    /// Share of frames (0 to 1) that are lost.
    pub loss: f64,
    /// Share of frames (0 to 1) that come twice.
    pub duplicate: f64,
    /// The same seed makes the same decisions for the same sequence of frames.
    pub seed: u64,
}

/// The relay's thread; ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    settings: Arc<Mutex<Settings>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Settings {
    impairment: Impairment,
    cut: bool,
}

/// A frame that waits for its time. Ordered by time, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    number: u64,
    to: usize,
    frame: Vec<u8>,
}

impl Relay {
    /// Carries frames between two interfaces of a namespace.
    pub(crate) fn start(namespace: &Namespace, ends: [&str; 2], impairment: Impairment) -> Result<Self> {
        Self::between(namespace, ends, ends, impairment)
    }

    /// Carries what comes in at `sources[n]` out of `sinks[1 - n]`.
    pub(crate) fn between(
        namespace: &Namespace,
        sources: [&str; 2],
        sinks: [&str; 2],
        impairment: Impairment,
    ) -> Result<Self> {
        let sources =
            [PacketSocket::open(namespace, sources[0], true)?, PacketSocket::open(namespace, sources[1], true)?];
        let sinks = [PacketSocket::sender(namespace, sinks[0])?, PacketSocket::sender(namespace, sinks[1])?];
        let settings = Arc::new(Mutex::new(Settings { impairment, cut: false }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (settings, stop) = (Arc::clone(&settings), Arc::clone(&stop));
            move || carry(&sources, &sinks, &settings, &stop)
        });
        Ok(Self { settings, stop, thread: Some(thread) })
    }

    pub(crate) fn set_impairment(&self, impairment: Impairment) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).impairment = impairment;
    }

    /// Whether everything is lost from now on.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).cut = cut;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(sources: &[PacketSocket; 2], sinks: &[PacketSocket; 2], settings: &Mutex<Settings>, stop: &AtomicBool) {
    let mut queue: BinaryHeap<Reverse<Held>> = BinaryHeap::new();
    let mut held_bytes = 0;
    let mut number = 0;
    let mut buffer = vec![0; MAX_FRAME];
    let seed = settings.lock().unwrap_or_else(PoisonError::into_inner).impairment.seed;
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let wait = queue.peek().map_or(Duration::from_millis(50), |Reverse(held)| {
            held.due.saturating_duration_since(now).min(Duration::from_millis(50))
        });
        wait_readable(sources, wait);
        let (impairment, cut) = {
            let settings = settings.lock().unwrap_or_else(PoisonError::into_inner);
            (settings.impairment, settings.cut)
        };
        for (from, socket) in sources.iter().enumerate() {
            // A flood from one side must not starve the other.
            for _ in 0..64 {
                let Ok(Some((length, _))) = socket.receive(&mut buffer) else { break };
                if cut || random.chance(impairment.loss) {
                    continue;
                }
                let copies = if random.chance(impairment.duplicate) { 2 } else { 1 };
                for _ in 0..copies {
                    if held_bytes + length > MAX_HELD {
                        break;
                    }
                    let extra = if random.chance(impairment.reorder) { impairment.hold } else { Duration::ZERO };
                    let due = Instant::now() + impairment.delay + extra;
                    held_bytes += length;
                    number += 1;
                    queue.push(Reverse(Held { due, number, to: 1 - from, frame: buffer[..length].to_vec() }));
                }
            }
        }
        let now = Instant::now();
        while queue.peek().is_some_and(|Reverse(held)| held.due <= now) {
            let Some(Reverse(held)) = queue.pop() else { break };
            held_bytes -= held.frame.len();
            if !cut {
                // A full queue or a downed end loses the frame, as a wire does.
                let _ = sinks[held.to].send(&held.frame);
            }
        }
    }
}
