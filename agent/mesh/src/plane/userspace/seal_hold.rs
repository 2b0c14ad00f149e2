//! Packets that wait for a seal.

use std::{collections::VecDeque, time::Duration};

use grange_core::Instant;
use grange_wire::NodeId;

use crate::packet::VnetHeader;

/// Most bytes that wait for one seal: two super-packets.
const MAX_PEER_BYTES: usize = 128 << 10;

/// Most bytes that wait for all seals together.
const MAX_BYTES: usize = 1 << 20;

/// Most seals that are waited for.
const MAX_PEERS: usize = 256;

/// What a packet costs beside its bytes.
const PACKET: usize = 128;

/// How long a packet waits: as long as a host waits before it sends the first packet of a connection again
/// (RFC 6298, section 2).
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two askings for the same seal.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// A queue for each seal that is not there yet, bounded in bytes and in time; the oldest make room for the newest.
#[derive(Default)]
pub(super) struct Hold {
    peers: Vec<Waiting>,
    bytes: usize,
}

struct Waiting {
    peer: NodeId,
    /// Never empty.
    packets: VecDeque<Held>,
    bytes: usize,
    asked: Option<Instant>,
}

struct Held {
    since: Instant,
    bytes: Box<[u8]>,
}

impl Held {
    fn cost(&self) -> usize {
        self.bytes.len() + PACKET
    }
}

impl Hold {
    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Lets a packet wait for the seal to `peer`. Gives how many packets were dropped for it, itself included if there
    /// is no room at all.
    pub(super) fn push(&mut self, now: Instant, peer: NodeId, vnet: &VnetHeader, packet: &[u8]) -> u64 {
        let held = Held { since: now, bytes: [&vnet.bytes(), packet].concat().into() };
        let cost = held.cost();
        let at = match self.peers.iter().position(|waiting| waiting.peer == peer) {
            Some(at) => at,
            None if self.peers.len() >= MAX_PEERS => return 1,
            None => {
                self.peers.push(Waiting { peer, packets: VecDeque::new(), bytes: 0, asked: None });
                self.peers.len() - 1
            }
        };
        let waiting = &mut self.peers[at];
        waiting.packets.push_back(held);
        waiting.bytes += cost;
        self.bytes += cost;
        let mut dropped = 0;
        while self.peers[at].bytes > MAX_PEER_BYTES && self.peers[at].packets.len() > 1 {
            self.pop(at);
            dropped += 1;
        }
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.oldest()
        {
            self.pop(oldest);
            dropped += 1;
        }
        dropped
    }

    /// Whether the seal to `peer`, which packets wait for, is to be asked for again; it counts as asked then.
    pub(super) fn asks(&mut self, now: Instant, peer: NodeId) -> bool {
        let Some(waiting) = self.peers.iter_mut().find(|waiting| waiting.peer == peer) else { return false };
        let due = waiting.asked.is_none_or(|asked| now.since(asked) >= ASK_INTERVAL);
        if due {
            waiting.asked = Some(now);
        }
        due
    }

    /// Takes the next packet, as the device gave it, for a peer that `ready` says nobody needs to wait for; each peer's in their order.
    pub(super) fn take(&mut self, ready: impl Fn(&NodeId) -> bool) -> Option<Box<[u8]>> {
        let at = self.peers.iter().position(|waiting| ready(&waiting.peer))?;
        self.pop(at)
    }

    /// Takes a packet that has waited too long.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let at = self.oldest()?;
        let since = self.peers[at].packets.front()?.since;
        if now.since(since) < PATIENCE { None } else { self.pop(at) }
    }

    /// When [`Self::expired`] will have something.
    pub(super) fn expires(&self) -> Option<Instant> {
        let since = self.peers[self.oldest()?].packets.front()?.since;
        Some(since + PATIENCE)
    }

    /// The queue with the oldest packet.
    fn oldest(&self) -> Option<usize> {
        let heads =
            self.peers.iter().enumerate().filter_map(|(at, waiting)| Some((waiting.packets.front()?.since, at)));
        heads.min().map(|(_, at)| at)
    }

    fn pop(&mut self, at: usize) -> Option<Box<[u8]>> {
        let waiting = &mut self.peers[at];
        let held = waiting.packets.pop_front()?;
        waiting.bytes -= held.cost();
        self.bytes -= held.cost();
        if waiting.packets.is_empty() {
            self.peers.swap_remove(at);
        }
        Some(held.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::VNET_LEN;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn node(number: u16) -> NodeId {
        let mut id = NodeId([0; 32]);
        id.0[..2].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn push(hold: &mut Hold, now: Instant, peer: NodeId, packet: &[u8]) -> u64 {
        hold.push(now, peer, &VnetHeader::default(), packet)
    }

    #[test]
    fn each_peers_packets_come_in_their_order() {
        let mut hold = Hold::default();
        for number in 0..10u8 {
            assert_eq!(push(&mut hold, at(0), node(u16::from(number % 2)), &[number]), 0);
        }
        assert_eq!(hold.take(|peer| *peer == node(7)), None);
        let mut taken = Vec::new();
        while let Some(packet) = hold.take(|peer| *peer == node(1)) {
            taken.push(packet[VNET_LEN]);
        }
        assert_eq!(taken, [1, 3, 5, 7, 9]);
        assert!(!hold.is_empty());
        while let Some(packet) = hold.take(|_| true) {
            taken.push(packet[VNET_LEN]);
        }
        assert_eq!(taken[5..], [0, 2, 4, 6, 8]);
        assert!(hold.is_empty() && hold.bytes == 0);
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut hold = Hold::default();
        let mut dropped = 0;
        for number in 0..100u8 {
            let mut packet = vec![0; 10_000];
            packet[0] = number;
            dropped += push(&mut hold, at(u64::from(number)), node(1), &packet);
            assert!(hold.bytes <= MAX_PEER_BYTES);
        }
        assert!(dropped > 80);
        let first = hold.take(|_| true).unwrap();
        assert_eq!(u64::from(first[VNET_LEN]), dropped);
        // A super-packet always finds room.
        assert!(push(&mut hold, at(200), node(1), &[0; 65_545]) > 0);
        // Many peers share what there is.
        for number in 0..1000 {
            push(&mut hold, at(300 + u64::from(number)), node(number), &[0; 60_000]);
            assert!(hold.bytes <= MAX_BYTES && hold.peers.len() <= MAX_PEERS);
        }
        assert_eq!(hold.bytes, hold.peers.iter().map(|waiting| waiting.bytes).sum::<usize>());
        let mut small = Hold::default();
        let refused: u64 = (0..1000).map(|number| push(&mut small, at(0), node(number), &[0; 40])).sum();
        assert_eq!((small.peers.len() as u64, refused), (MAX_PEERS as u64, 1000 - MAX_PEERS as u64));
    }

    #[test]
    fn a_packet_waits_a_second() {
        let mut hold = Hold::default();
        assert_eq!(hold.expires(), None);
        push(&mut hold, at(500), node(1), &[1]);
        push(&mut hold, at(100), node(2), &[2]);
        assert_eq!(hold.expires(), Some(at(1100)));
        assert_eq!(hold.expired(at(1099)), None);
        assert_eq!(hold.expired(at(1100)).unwrap()[VNET_LEN..], [2]);
        assert_eq!(hold.expires(), Some(at(1500)));
        assert_eq!(hold.expired(at(5000)).unwrap()[VNET_LEN..], [1]);
        assert_eq!(hold.expired(at(5000)), None);
    }

    #[test]
    fn a_seal_is_asked_for_now_and_then() {
        let mut hold = Hold::default();
        assert!(!hold.asks(at(0), node(1)), "nothing waits for it");
        let asked = (0..1000).filter(|millis| {
            push(&mut hold, at(*millis), node(1), &[0]);
            hold.asks(at(*millis), node(1))
        });
        assert_eq!(asked.collect::<Vec<_>>(), [0, 250, 500, 750]);
    }
}
