//! Babel packets (RFC 8966, section 4) as bytes.
//!
//! From the bottom: [`Seqno`] and the address encodings, sub-TLVs, [`Packet`] and its TLVs as views, and the
//! [`PacketWriter`] that lays them out in a buffer of the caller.

mod encoding;
mod packet;
mod proof;
mod seqno;
mod sub_tlv;
#[cfg(test)]
mod tests;
mod tlv;
mod writer;

pub use packet::{Packet, PacketError, Tlvs};
pub use proof::ProofView;
pub use seqno::Seqno;
pub use tlv::{Hello, Ihu, SeqnoRequest, Tlv, TlvError, Update};
pub use writer::{Full, PacketWriter};

/// The metric and cost that mean unreachable (RFC 8966, section 3.5.2).
pub const INFINITY: u16 = 0xffff;

/// First byte of a packet.
const MAGIC: u8 = 42;
/// Second byte of a packet.
const VERSION: u8 = 2;
/// Bytes of a packet's header.
const HEADER: usize = 4;

/// TLV types (RFC 8966, section 4.6; the packet counter: RFC 8967, section 4.3).
mod kind {
    pub(super) const PAD1: u8 = 0;
    pub(super) const ACK_REQUEST: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const HELLO: u8 = 4;
    pub(super) const IHU: u8 = 5;
    pub(super) const ROUTER_ID: u8 = 6;
    pub(super) const NEXT_HOP: u8 = 7;
    pub(super) const UPDATE: u8 = 8;
    pub(super) const ROUTE_REQUEST: u8 = 9;
    pub(super) const SEQNO_REQUEST: u8 = 10;
    pub(super) const PACKET_COUNTER: u8 = 17;
}
