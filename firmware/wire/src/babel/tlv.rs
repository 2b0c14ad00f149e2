//! TLVs as values and views (RFC 8966, section 4.6).

use super::{
    INFINITY, ProofView, Seqno,
    encoding::{
        self, AE_LINK_LOCAL, AE_V4, AE_V4_VIA_V6, AE_V6, AE_WILDCARD, DefaultPrefixes, address_octets, prefix_octets,
    },
    kind, sub_tlv,
};
use crate::{Prefix, RouterId};

/// A Hello (section 4.6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The U flag: meant for this neighbour alone, counted apart from multicast Hellos.
    pub unicast: bool,
    /// Number of the Hello.
    pub seqno: Seqno,
    /// Upper bound of the time until the next scheduled one, in centiseconds; 0: not scheduled.
    pub interval: u16,
    /// The sender's clock when it was sent, in microseconds modulo 2^32 (RFC 9616, section 5.1).
    pub timestamp: Option<u32>,
}

/// An IHU, "I heard you" (section 4.6.6). Its address is not kept: on a link there is one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ihu {
    /// What receiving from us costs the sender; [`INFINITY`]: it does not hear us.
    pub rxcost: u16,
    /// Upper bound of the time until the next one, in centiseconds.
    pub interval: u16,
    /// Timestamp of the last Hello that the sender had of us, and the sender's clock when it came (RFC 9616, section
    /// 5.2). Microseconds modulo 2^32.
    pub timestamps: Option<(u32, u32)>,
}

/// An Update (section 4.6.9) with what the TLVs before it set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The prefix; `None` (only with an infinite metric): everything that the sender announced.
    pub prefix: Option<Prefix>,
    /// Upper bound of the time until the next Update for this prefix, in centiseconds.
    pub interval: u16,
    /// The announcement's number, set by its originator.
    pub seqno: Seqno,
    /// The sender's metric; [`INFINITY`] retracts.
    pub metric: u16,
    /// The originator. Always present when the metric is finite.
    pub router_id: Option<RouterId>,
    /// The owner's proof.
    pub proof: Option<ProofView<'a>>,
}

/// A Seqno Request (section 4.6.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqnoRequest {
    /// For what.
    pub prefix: Prefix,
    /// The seqno that the asker needs, or a later one.
    pub seqno: Seqno,
    /// How many more routers may forward the request; never 0.
    pub hop_count: u8,
    /// Of which originator.
    pub router_id: RouterId,
}

/// A TLV of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlv<'a> {
    /// Asks for an [`Ack`](Self::Ack) with the same `opaque` within `interval` centiseconds (section 4.6.3).
    AckRequest {
        /// Any number.
        opaque: u16,
        /// Centiseconds.
        interval: u16,
    },
    /// Answers an acknowledgement request (section 4.6.4).
    Ack {
        /// The request's number.
        opaque: u16,
    },
    /// Section 4.6.5.
    Hello(Hello),
    /// Section 4.6.6.
    Ihu(Ihu),
    /// Section 4.6.9.
    Update(Update<'a>),
    /// Asks for an Update (section 4.6.10); `None`: for all.
    RouteRequest(Option<Prefix>),
    /// Section 4.6.11.
    SeqnoRequest(SeqnoRequest),
    /// Number of the packet among those of its sender (RFC 8967, section 4.3).
    PacketCounter(u32),
}

/// Why a TLV is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// It ends before its fields do, or its length overruns the packet's body.
    #[error("a TLV is shorter than its fields")]
    Short,
    /// An address encoding that does not belong there or that nobody knows.
    #[error("an address encoding is unknown or out of place")]
    Encoding,
    /// A prefix longer than its address, or compressed against nothing.
    #[error("a prefix is malformed")]
    Prefix,
    /// A mandatory sub-TLV that is not understood (section 4.4).
    #[error("a mandatory sub-TLV is unknown")]
    Mandatory,
    /// An Update with a finite metric and nothing before it that names the originator or the next hop.
    #[error("an Update lacks its router-id or next hop")]
    Context,
    /// A field with a value that the RFC forbids.
    #[error("a field has a forbidden value")]
    Value,
}

/// What TLVs leave behind for those that follow in the same packet (section 4.5).
#[derive(Clone, Debug, Default)]
pub(super) struct ParserState {
    router_id: Option<RouterId>,
    next_hop_v4: bool,
    prefixes: DefaultPrefixes,
}

/// Big-endian fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], TlvError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TlvError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn slice(&mut self, count: usize) -> Result<&'a [u8], TlvError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(TlvError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, TlvError> {
        Ok(self.take::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, TlvError> {
        Ok(u16::from_be_bytes(*self.take()?))
    }

    fn u32(&mut self) -> Result<u32, TlvError> {
        Ok(u32::from_be_bytes(*self.take()?))
    }

    /// What is left are sub-TLVs, of which none is known here.
    fn end(self) -> Result<(), TlvError> {
        sub_tlv::for_each(self.0, |_, _| Ok(false))
    }
}

impl<'a> Tlv<'a> {
    /// Parses one TLV's body. `Ok(None)`: of a type that is unknown or only sets state.
    pub(super) fn parse(state: &mut ParserState, kind: u8, body: &'a [u8]) -> Result<Option<Self>, TlvError> {
        let mut fields = Fields(body);
        let tlv = match kind {
            kind::ACK_REQUEST => {
                fields.u16()?;
                let (opaque, interval) = (fields.u16()?, fields.u16()?);
                fields.end()?;
                Self::AckRequest { opaque, interval }
            }
            kind::ACK => {
                let opaque = fields.u16()?;
                fields.end()?;
                Self::Ack { opaque }
            }
            kind::HELLO => Self::Hello(hello(fields)?),
            kind::IHU => Self::Ihu(ihu(fields)?),
            kind::ROUTER_ID => {
                // A broken one must not leave the Updates behind it to the originator before it.
                state.router_id = None;
                fields.u16()?;
                state.router_id = Some(checked_router_id(*fields.take()?)?);
                fields.end()?;
                return Ok(None);
            }
            kind::NEXT_HOP => {
                let ae = fields.u8()?;
                fields.u8()?;
                match ae {
                    AE_V4 => fields.slice(4).map(|_| state.next_hop_v4 = true)?,
                    AE_V6 => fields.slice(16).map(drop)?,
                    AE_LINK_LOCAL => fields.slice(8).map(drop)?,
                    _ => return Err(TlvError::Encoding),
                }
                fields.end()?;
                return Ok(None);
            }
            kind::UPDATE => Self::Update(update(state, fields)?),
            kind::ROUTE_REQUEST => {
                let (ae, plen) = (fields.u8()?, fields.u8()?);
                let prefix = if ae == AE_WILDCARD {
                    if plen != 0 {
                        return Err(TlvError::Value);
                    }
                    None
                } else {
                    let (prefix, rest) = encoding::take_prefix(ae, plen, fields.0)?;
                    fields.0 = rest;
                    Some(prefix)
                };
                fields.end()?;
                Self::RouteRequest(prefix)
            }
            kind::SEQNO_REQUEST => {
                let (ae, plen, seqno, hop_count) = (fields.u8()?, fields.u8()?, fields.u16()?, fields.u8()?);
                fields.u8()?;
                let router_id = checked_router_id(*fields.take()?)?;
                let (prefix, rest) = encoding::take_prefix(ae, plen, fields.0)?;
                fields.0 = rest;
                fields.end()?;
                if hop_count == 0 {
                    return Err(TlvError::Value);
                }
                Self::SeqnoRequest(SeqnoRequest { prefix, seqno: Seqno(seqno), hop_count, router_id })
            }
            // What follows the counter is an index without inner structure, not sub-TLVs.
            kind::PACKET_COUNTER => Self::PacketCounter(fields.u32()?),
            _ => return Ok(None),
        };
        Ok(Some(tlv))
    }
}

fn hello(mut fields: Fields<'_>) -> Result<Hello, TlvError> {
    let (flags, seqno, interval) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let mut timestamp = None;
    sub_tlv::for_each(fields.0, |kind, body| {
        if kind == sub_tlv::TIMESTAMP {
            timestamp = Some(Fields(body).u32()?);
        }
        Ok(kind == sub_tlv::TIMESTAMP)
    })?;
    Ok(Hello { unicast: flags & 0x8000 != 0, seqno: Seqno(seqno), interval, timestamp })
}

fn ihu(mut fields: Fields<'_>) -> Result<Ihu, TlvError> {
    let ae = fields.u8()?;
    fields.u8()?;
    let (rxcost, interval) = (fields.u16()?, fields.u16()?);
    fields.slice(match ae {
        AE_WILDCARD => 0,
        AE_V4 => 4,
        AE_V6 => 16,
        AE_LINK_LOCAL => 8,
        _ => return Err(TlvError::Encoding),
    })?;
    let mut timestamps = None;
    sub_tlv::for_each(fields.0, |kind, body| {
        if kind == sub_tlv::TIMESTAMP {
            let mut body = Fields(body);
            timestamps = Some((body.u32()?, body.u32()?));
        }
        Ok(kind == sub_tlv::TIMESTAMP)
    })?;
    Ok(Ihu { rxcost, interval, timestamps })
}

fn update<'a>(state: &mut ParserState, mut fields: Fields<'a>) -> Result<Update<'a>, TlvError> {
    let (ae, flags, plen, omitted) = (fields.u8()?, fields.u8()?, fields.u8()?, usize::from(fields.u8()?));
    let (interval, seqno, metric) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let prefix = if ae == AE_WILDCARD {
        if plen != 0 || omitted != 0 || metric != INFINITY {
            return Err(TlvError::Value);
        }
        None
    } else {
        let size = address_octets(ae).ok_or(TlvError::Encoding)?;
        let count = prefix_octets(plen);
        if count > size || omitted > size {
            return Err(TlvError::Prefix);
        }
        let mut octets = [0; 16];
        if omitted > 0 {
            octets[..omitted].copy_from_slice(&state.prefixes.get(ae).ok_or(TlvError::Prefix)?[..omitted]);
        }
        if count > omitted {
            octets[omitted..count].copy_from_slice(fields.slice(count - omitted)?);
        }
        let prefix = encoding::prefix(ae, &octets, plen).ok_or(TlvError::Prefix)?;
        // The state is set even if the Update is then ignored for a sub-TLV (section 4.5).
        let first = encoding::octets(prefix.addr());
        if flags & 0x80 != 0 {
            state.prefixes.set(ae, first);
        }
        if flags & 0x40 != 0 {
            let mut id = [0; 8];
            if size == 4 {
                id[4..].copy_from_slice(&first[..4]);
            } else {
                id.copy_from_slice(&first[8..]);
            }
            state.router_id = Some(RouterId(id));
        }
        Some(prefix)
    };
    let mut proof = None;
    sub_tlv::for_each(fields.0, |kind, body| {
        if kind != sub_tlv::PROOF {
            return Ok(false);
        }
        if proof.is_some() {
            return Err(TlvError::Value);
        }
        proof = Some(ProofView::parse(body).ok_or(TlvError::Short)?);
        Ok(true)
    })?;
    if metric != INFINITY {
        let router_id = state.router_id.ok_or(TlvError::Context)?;
        checked_router_id(router_id.0)?;
        // Over IPv4 there is no address to fall back to; with the other encodings the sender is the next hop.
        if ae == AE_V4 && !state.next_hop_v4 {
            return Err(TlvError::Context);
        }
    }
    Ok(Update { prefix, interval, seqno: Seqno(seqno), metric, router_id: state.router_id, proof })
}

/// Section 4.1.3: neither all zeroes nor all ones.
fn checked_router_id(id: [u8; 8]) -> Result<RouterId, TlvError> {
    if id == [0; 8] || id == [0xff; 8] { Err(TlvError::Value) } else { Ok(RouterId(id)) }
}

/// The encoding in which this prefix is announced. IPv4 goes by RFC 9229: the link is the next hop.
pub(super) fn update_encoding(prefix: &Prefix) -> u8 {
    if prefix.is_v4() { AE_V4_VIA_V6 } else { AE_V6 }
}

/// The encoding in which this prefix is asked for: that of the prefix alone (RFC 9229, section 2.3).
pub(super) fn request_encoding(prefix: &Prefix) -> u8 {
    if prefix.is_v4() { AE_V4 } else { AE_V6 }
}
