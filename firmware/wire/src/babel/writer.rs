//! Lays a packet out in a buffer.

use super::{
    HEADER, Hello, INFINITY, Ihu, MAGIC, ProofView, SeqnoRequest, Update, VERSION,
    encoding::{AE_WILDCARD, DefaultPrefixes, octets, prefix_octets},
    kind, sub_tlv,
    tlv::{request_encoding, update_encoding},
};
use crate::{Prefix, RouterId};

/// The TLV does not fit into what is left of the buffer; the packet is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is full")]
pub struct Full;

/// Writes a packet into a slice, TLV by TLV. Router-ids and prefixes are written only as far as they differ from what
/// stands in the packet already.
#[derive(Debug)]
pub struct PacketWriter<'a> {
    buf: &'a mut [u8],
    len: usize,
    router_id: Option<RouterId>,
    prefixes: DefaultPrefixes,
}

impl<'a> PacketWriter<'a> {
    /// Starts a packet.
    ///
    /// # Errors
    ///
    /// [`Full`] if the buffer does not hold a header.
    pub fn new(buf: &'a mut [u8]) -> Result<Self, Full> {
        buf.get_mut(..HEADER).ok_or(Full)?.copy_from_slice(&[MAGIC, VERSION, 0, 0]);
        Ok(Self { buf, len: HEADER, router_id: None, prefixes: DefaultPrefixes::default() })
    }

    /// Whether no TLV was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == HEADER
    }

    /// Bytes left.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Fills in the body's length and gives the packet.
    #[must_use]
    pub fn finish(self) -> &'a [u8] {
        let body = u16::try_from(self.len - HEADER).unwrap_or(u16::MAX);
        self.buf[2..HEADER].copy_from_slice(&body.to_be_bytes());
        &self.buf[..self.len]
    }

    /// An acknowledgement request.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room, as with all that follow.
    pub fn ack_request(&mut self, opaque: u16, interval: u16) -> Result<(), Full> {
        self.tlv(kind::ACK_REQUEST, &[&[0, 0], &opaque.to_be_bytes(), &interval.to_be_bytes()])
    }

    /// An acknowledgement.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn ack(&mut self, opaque: u16) -> Result<(), Full> {
        self.tlv(kind::ACK, &[&opaque.to_be_bytes()])
    }

    /// A Hello.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn hello(&mut self, hello: &Hello) -> Result<(), Full> {
        let flags = if hello.unicast { 0x8000_u16 } else { 0 };
        let stamp = hello.timestamp.map(|at| [at.to_be_bytes()]);
        self.tlv(
            kind::HELLO,
            &[
                &flags.to_be_bytes(),
                &hello.seqno.0.to_be_bytes(),
                &hello.interval.to_be_bytes(),
                if stamp.is_some() { &[sub_tlv::TIMESTAMP, 4] } else { &[] },
                stamp.as_ref().map_or(&[], |stamp| stamp.as_flattened()),
            ],
        )
    }

    /// An IHU without an address: on a link there is one neighbour.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn ihu(&mut self, ihu: &Ihu) -> Result<(), Full> {
        let stamps = ihu.timestamps.map(|(origin, receive)| [origin.to_be_bytes(), receive.to_be_bytes()]);
        self.tlv(
            kind::IHU,
            &[
                &[AE_WILDCARD, 0],
                &ihu.rxcost.to_be_bytes(),
                &ihu.interval.to_be_bytes(),
                if stamps.is_some() { &[sub_tlv::TIMESTAMP, 8] } else { &[] },
                stamps.as_ref().map_or(&[], |stamps| stamps.as_flattened()),
            ],
        )
    }

    /// An Update, with a Router-Id before it where the last one in the packet is another. A retraction needs none.
    ///
    /// # Errors
    ///
    /// [`Full`], also for a finite metric without prefix or router-id, which cannot be written.
    pub fn update(&mut self, update: &Update<'_>) -> Result<(), Full> {
        let Some(prefix) = update.prefix else {
            if update.metric != INFINITY {
                return Err(Full);
            }
            return self.update_tlv([AE_WILDCARD, 0, 0, 0], update, &[]);
        };
        if update.metric == INFINITY && update.router_id.is_none() {
            return self.update_with_prefix(&prefix, update);
        }
        let router_id = update.router_id.ok_or(Full)?;
        let (before, known) = (self.len, self.router_id);
        if known != Some(router_id) {
            self.tlv(kind::ROUTER_ID, &[&[0, 0], &router_id.0])?;
            self.router_id = Some(router_id);
        }
        let written = self.update_with_prefix(&prefix, update);
        if written.is_err() {
            (self.len, self.router_id) = (before, known);
        }
        written
    }

    fn update_with_prefix(&mut self, prefix: &Prefix, update: &Update<'_>) -> Result<(), Full> {
        let ae = update_encoding(prefix);
        let bytes = octets(prefix.addr());
        let count = prefix_octets(prefix.len());
        let omitted = self
            .prefixes
            .get(ae)
            .map_or(0, |last| bytes[..count].iter().zip(last).take_while(|(byte, last)| byte == last).count());
        let omitted_octet = u8::try_from(omitted).unwrap_or(0);
        self.update_tlv([ae, 0x80, prefix.len(), omitted_octet], update, &bytes[omitted..count])?;
        self.prefixes.set(ae, bytes);
        Ok(())
    }

    fn update_tlv(&mut self, head: [u8; 4], update: &Update<'_>, prefix: &[u8]) -> Result<(), Full> {
        let (mark, owner, signature): (&[u8], &[u8], &[u8]) = match &update.proof {
            Some(proof) => (&[sub_tlv::PROOF, ProofView::SIZE as u8], proof.owner, proof.signature),
            None => (&[], &[], &[]),
        };
        self.tlv(
            kind::UPDATE,
            &[
                &head,
                &update.interval.to_be_bytes(),
                &update.seqno.0.to_be_bytes(),
                &update.metric.to_be_bytes(),
                prefix,
                mark,
                owner,
                signature,
            ],
        )
    }

    /// A Route Request; `None`: for everything.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn route_request(&mut self, prefix: Option<&Prefix>) -> Result<(), Full> {
        match prefix {
            None => self.tlv(kind::ROUTE_REQUEST, &[&[AE_WILDCARD, 0]]),
            Some(prefix) => self.tlv(
                kind::ROUTE_REQUEST,
                &[&[request_encoding(prefix), prefix.len()], &octets(prefix.addr())[..prefix_octets(prefix.len())]],
            ),
        }
    }

    /// A Seqno Request.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn seqno_request(&mut self, request: &SeqnoRequest) -> Result<(), Full> {
        let prefix = &request.prefix;
        self.tlv(
            kind::SEQNO_REQUEST,
            &[
                &[request_encoding(prefix), prefix.len()],
                &request.seqno.0.to_be_bytes(),
                &[request.hop_count, 0],
                &request.router_id.0,
                &octets(prefix.addr())[..prefix_octets(prefix.len())],
            ],
        )
    }

    /// The packet's number (RFC 8967, section 4.3), without an index.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn packet_counter(&mut self, counter: u32) -> Result<(), Full> {
        self.tlv(kind::PACKET_COUNTER, &[&counter.to_be_bytes()])
    }

    fn tlv(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), Full> {
        let size = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = u8::try_from(size).map_err(|_| Full)?;
        let end = self.len + 2 + size;
        if end - HEADER > usize::from(u16::MAX) {
            return Err(Full);
        }
        let out = self.buf.get_mut(self.len..end).ok_or(Full)?;
        let (head, mut out) = out.split_at_mut(2);
        head.copy_from_slice(&[kind, length]);
        for part in parts {
            let (place, rest) = out.split_at_mut(part.len());
            place.copy_from_slice(part);
            out = rest;
        }
        self.len = end;
        Ok(())
    }
}
