//! One session: the keys that one handshake gave, and the control frames under them.

use alloc::{vec, vec::Vec};

use grange_wire::{ControlFrame, DatagramKind, FRAME_HEAD, FRAME_TAG, FrameHeader, LinkIndex};
use snow::StatelessTransportState;

use super::ReplayWindow;
use crate::Instant;

/// Counters that a control window remembers (`docs/protocol.md`, Control frames).
const WINDOW: usize = 2048;

/// Why a control frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Its counter was seen or is too old.
    Replayed,
    /// It is not under this session's key.
    Forged,
}

/// Seals and opens the control frames of one session.
pub(crate) struct Session {
    /// The index in the frames that come to us.
    pub(crate) local: LinkIndex,
    /// The index in the frames that we send.
    pub(crate) remote: LinkIndex,
    /// When the handshake ended.
    pub(crate) created: Instant,
    /// Whether we began the handshake: then we begin the next one too.
    pub(crate) initiator: bool,
    transport: StatelessTransportState,
    sent: u64,
    window: ReplayWindow<WINDOW>,
}

/// What [`Session::open`] gives.
pub(crate) struct Opened {
    /// The control frame's bytes.
    pub(crate) plaintext: Vec<u8>,
    /// The counter is the highest so far.
    pub(crate) newest: bool,
    /// Counters that were skipped to reach it: frames that are lost or late.
    pub(crate) skipped: u64,
}

impl Session {
    pub(crate) fn new(
        transport: StatelessTransportState,
        (local, remote): (LinkIndex, LinkIndex),
        created: Instant,
        initiator: bool,
    ) -> Self {
        Self { local, remote, created, initiator, transport, sent: 0, window: ReplayWindow::new() }
    }

    /// Frames sealed so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the neighbour has sent anything under these keys.
    pub(crate) fn heard(&self) -> bool {
        self.window.highest().is_some()
    }

    /// Seals a frame; `None` if it is longer than a Noise message may be.
    pub(crate) fn seal(&mut self, frame: &ControlFrame<'_>) -> Option<Vec<u8>> {
        let mut plaintext = vec![0; frame.encoded_len()];
        frame.write(&mut plaintext).ok()?;
        let header = FrameHeader { kind: DatagramKind::Control, receiver: self.remote, counter: self.sent };
        let mut datagram = vec![0; FRAME_HEAD + plaintext.len() + FRAME_TAG];
        datagram[..FRAME_HEAD].copy_from_slice(&header.to_bytes());
        self.transport.write_message(self.sent, &plaintext, &mut datagram[FRAME_HEAD..]).ok()?;
        self.sent += 1;
        Some(datagram)
    }

    /// Whether a frame is under this session's key. Changes nothing.
    pub(crate) fn authenticates(&self, counter: u64, ciphertext: &[u8]) -> bool {
        let mut plaintext = vec![0; ciphertext.len()];
        self.window.may_accept(counter) && self.transport.read_message(counter, ciphertext, &mut plaintext).is_ok()
    }

    /// Opens a frame whose header named this session.
    pub(crate) fn open(&mut self, counter: u64, ciphertext: &[u8]) -> Result<Opened, OpenError> {
        if !self.window.may_accept(counter) {
            return Err(OpenError::Replayed);
        }
        let mut plaintext = vec![0; ciphertext.len()];
        let len = self.transport.read_message(counter, ciphertext, &mut plaintext).map_err(|_| OpenError::Forged)?;
        plaintext.truncate(len);
        let expected = self.window.highest().map_or(0, |highest| highest + 1);
        self.window.accept(counter);
        Ok(Opened { plaintext, newest: counter >= expected, skipped: counter.saturating_sub(expected) })
    }
}
