//! What nodes said about their links and seals.

use std::time::Duration;

use grange_core::{DownReason, LinkId};

/// Something about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It came up.
    Up,
    /// It went down.
    Down(DownReason),
    /// It has new keys.
    Rekeyed,
    /// The neighbour has another address.
    Moved,
    /// Another size passes.
    Mtu(u16),
}

/// What a node said about one of its links or seals.
#[derive(Clone, Copy, Debug)]
pub struct LinkNote {
    /// When.
    pub at: Duration,
    /// Who said it.
    pub host: usize,
    /// Who is at the other end.
    pub peer: usize,
    /// Which link.
    pub link: LinkId,
    /// Whether it is a seal.
    pub seal: bool,
    /// What.
    pub note: Note,
}
