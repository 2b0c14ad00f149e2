//! What was dropped, by reason.

/// Datagrams that a node dropped since its start, by reason. For display: that a number grows is no fault of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DropCounters {
    /// No datagram of the protocol, or of another version.
    pub malformed: u64,
    /// On an interface where no links may form.
    pub interface: u64,
    /// Beacons of other towns.
    pub foreign: u64,
    /// Initiations that were answered before.
    pub replayed_initiation: u64,
    /// Initiations with a nonce that is not or no more ours.
    pub stale_nonce: u64,
    /// Solicits, initiations and questions for ports above the rate that is answered.
    pub limited: u64,
    /// Handshake messages that did not decrypt: another town key, or forged.
    pub handshake: u64,
    /// Handshakes whose certificate is not good, or that have nothing in common with us.
    pub certificate: u64,
    /// Handshakes and frames over the mesh that are not of the node whose address they came from.
    pub impostor: u64,
    /// Handshakes with ourselves.
    pub own: u64,
    /// Frames and answers for no session of ours.
    pub unknown_index: u64,
    /// Control frames whose counter was seen or is too old.
    pub replayed: u64,
    /// Control frames that did not authenticate.
    pub forged: u64,
    /// Links or handshakes beyond the limit of their table.
    pub full: u64,
    /// Datagrams of ours that the shell did not fetch in time.
    pub unsent: u64,
}
