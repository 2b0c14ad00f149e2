//! What went over a wire.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::packet::{Direction, MAX_FRAME, PacketSocket, wait_readable};

/// Bytes that one capture keeps at most; what comes after is counted as dropped.
const MAX_KEPT: usize = 128 << 20;

/// One Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When it was read.
    pub at: SystemTime,
    /// Which end of the wire sent it: 0 the first one named, 1 the second.
    pub from: usize,
    /// The bytes from the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The UDP payload, if this is UDP over IPv4 or IPv6 without extension headers, and the UDP ports (source,
    /// destination).
    #[must_use]
    pub fn udp(&self) -> Option<(u16, u16, &[u8])> {
        let kind = self.bytes.get(12..14)?;
        let transport = match kind {
            [0x86, 0xdd] if *self.bytes.get(20)? == 17 => self.bytes.get(54..)?,
            [0x08, 0x00] if *self.bytes.get(23)? == 17 => {
                self.bytes.get(14 + usize::from(self.bytes.get(14)? & 15) * 4..)?
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
        Some((port(0)?, port(2)?, transport.get(8..)?))
    }
}

impl Frame {
    /// The same frame with another UDP payload, lengths and checksums right. Only for UDP over IPv6 without extension
    /// headers.
    #[must_use]
    pub fn with_udp_payload(&self, payload: &[u8]) -> Option<Vec<u8>> {
        self.udp().filter(|_| self.bytes[12..14] == [0x86, 0xdd])?;
        let length = u16::try_from(8 + payload.len()).ok()?;
        let mut bytes = self.bytes.get(..62)?.to_vec();
        bytes.extend_from_slice(payload);
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        bytes[58..60].copy_from_slice(&length.to_be_bytes());
        bytes[60..62].fill(0);
        // RFC 8200, section 8.1: addresses, length and next header, then the datagram.
        let mut sum = u64::from(length) + 17;
        for pair in bytes[22..].chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = match !(sum as u16) {
            0 => 0xffff,
            other => other,
        };
        bytes[60..62].copy_from_slice(&checksum.to_be_bytes());
        Some(bytes)
    }
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    recording: Arc<Mutex<Recording>>,
    thread: Option<JoinHandle<()>>,
}

/// What a capture saw.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The frames in order.
    pub frames: Vec<Frame>,
    /// Frames that were not kept. A test that says what did not happen wants 0 here.
    pub dropped: usize,
}

impl Capture {
    pub(crate) fn start(socket: PacketSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let recording = Arc::new(Mutex::new(Recording::default()));
        let thread = std::thread::spawn({
            let (stop, recording) = (Arc::clone(&stop), Arc::clone(&recording));
            move || record(&socket, &stop, &recording)
        });
        Self { stop, recording, thread: Some(thread) }
    }

    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> Recording {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the capture. All that was on the wire before this call is in the recording.
    #[must_use]
    pub fn stop(mut self) -> Recording {
        self.end();
        std::mem::take(&mut *self.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn record(socket: &PacketSocket, stop: &AtomicBool, recording: &Mutex<Recording>) {
    let mut kept = 0;
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let last = stop.load(Ordering::Relaxed);
        while let Ok(Some((length, direction))) = socket.receive(&mut buffer) {
            let mut recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
            kept += length;
            if kept > MAX_KEPT {
                recording.dropped += 1;
                continue;
            }
            // The socket is on the hub's port of end 0: what comes in there was sent by end 0.
            let from = usize::from(direction == Direction::Out);
            recording.frames.push(Frame { at: SystemTime::now(), from, bytes: buffer[..length].to_vec() });
        }
        if last {
            let dropped = socket.dropped().unwrap_or(0) as usize;
            recording.lock().unwrap_or_else(PoisonError::into_inner).dropped += dropped;
            return;
        }
        wait_readable(std::slice::from_ref(socket), Duration::from_millis(20));
    }
}

impl Recording {
    /// The number of the first frame that holds these bytes anywhere.
    #[must_use]
    pub fn find(&self, needle: &[u8]) -> Option<usize> {
        let first = *needle.first()?;
        self.frames.iter().position(|frame| {
            frame.bytes.len() >= needle.len()
                && frame.bytes[..=frame.bytes.len() - needle.len()]
                    .iter()
                    .enumerate()
                    .any(|(at, byte)| *byte == first && frame.bytes[at..].starts_with(needle))
        })
    }

    /// Writes the frames as a pcap file (link type Ethernet) for other programs.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_pcap(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        // Magic, version 2.4, time zone and accuracy 0, snapshot length, link type 1.
        file.write_all(&0xa1b2_c3d4u32.to_be_bytes())?;
        file.write_all(&[0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0])?;
        file.write_all(&(MAX_FRAME as u32).to_be_bytes())?;
        file.write_all(&1u32.to_be_bytes())?;
        for frame in &self.frames {
            let at = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let length = (frame.bytes.len() as u32).to_be_bytes();
            file.write_all(&(at.as_secs() as u32).to_be_bytes())?;
            file.write_all(&at.subsec_micros().to_be_bytes())?;
            file.write_all(&length)?;
            file.write_all(&length)?;
            file.write_all(&frame.bytes)?;
        }
        file.flush()
    }
}
