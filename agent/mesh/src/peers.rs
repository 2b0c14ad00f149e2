//! Static peers: names become addresses, and stay up to date.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use grange_core::{Endpoint, IfaceId};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::config::{MAX_STATIC_PEERS, StaticPeer};

/// How long an answer of the resolver holds.
const REFRESH: Duration = Duration::from_secs(300);

/// First and longest pause after the resolver failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(120));

/// How long an address is tried before the peer's next one is.
const TRIAL: Duration = Duration::from_secs(20);

/// Most addresses of a peer that are tried.
const MAX_ADDRESSES: usize = 8;

/// Longest that the resolver is waited for.
const RESOLVER: Duration = Duration::from_secs(20);

/// A peer and its addresses.
#[derive(Debug)]
struct Peer {
    peer: StaticPeer,
    addresses: Vec<SocketAddr>,
    /// Which of them is tried or in use.
    chosen: usize,
    /// When the next one is tried if no link comes of this one.
    turn: Instant,
    /// When to ask the resolver again.
    resolve: Instant,
    backoff: Duration,
}

/// The static peers. Plain state: what the resolver says comes in, endpoints come out.
#[derive(Debug)]
struct Peers {
    peers: Vec<Peer>,
}

impl Peers {
    fn new(peers: Vec<StaticPeer>, now: Instant) -> Self {
        let mut seen = BTreeSet::new();
        let peers = peers
            .into_iter()
            .filter(|peer| seen.insert(peer.clone()))
            .take(MAX_STATIC_PEERS)
            .map(|peer| Peer { peer, addresses: Vec::new(), chosen: 0, turn: now, resolve: now, backoff: BACKOFF.0 })
            .collect();
        Self { peers }
    }

    /// The peer whose name is to be resolved now.
    fn due(&self, now: Instant) -> Option<usize> {
        self.peers.iter().position(|peer| peer.resolve <= now)
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        self.peers
            .iter()
            .map(|peer| if peer.addresses.len() > 1 { peer.resolve.min(peer.turn) } else { peer.resolve })
            .min()
    }

    fn handle_resolved(&mut self, now: Instant, index: usize, result: io::Result<Vec<SocketAddr>>) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match result {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(MAX_ADDRESSES);
                let current = peer.addresses.get(peer.chosen).copied();
                let kept = current.and_then(|current| addresses.iter().position(|address| *address == current));
                if kept.is_none() {
                    peer.turn = now + TRIAL;
                }
                peer.chosen = kept.unwrap_or(0);
                peer.addresses = addresses;
                peer.resolve = now + REFRESH;
                peer.backoff = BACKOFF.0;
            }
            result => {
                // What resolved before may still be right: the Internet is away more often than peers move.
                if let Err(error) = result {
                    tracing::debug!(peer = %peer.peer, %error, "a static peer's name cannot be resolved");
                }
                peer.resolve = now + peer.backoff;
                peer.backoff = (peer.backoff * 2).min(BACKOFF.1);
            }
        }
    }

    /// Turns to the next address of peers that no link came of.
    fn handle_timeout(&mut self, now: Instant, linked: &BTreeSet<SocketAddr>) {
        for peer in &mut self.peers {
            let Some(current) = peer.addresses.get(peer.chosen) else { continue };
            if linked.contains(current) {
                peer.turn = now + TRIAL;
            } else if peer.turn <= now {
                peer.chosen = (peer.chosen + 1) % peer.addresses.len();
                peer.turn = now + TRIAL;
            }
        }
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let chosen = self.peers.iter().filter_map(|peer| peer.addresses.get(peer.chosen));
        let unique: BTreeSet<SocketAddr> = chosen.copied().collect();
        unique.into_iter().map(|addr| Endpoint { iface: IfaceId(0), addr }).collect()
    }
}

/// Starts resolving; each change of the peers' endpoints is sent. `linked` are the addresses that links are up with.
/// Ends when the receiver is dropped.
pub(crate) fn spawn(
    peers: Vec<StaticPeer>,
    linked: watch::Receiver<BTreeSet<SocketAddr>>,
) -> mpsc::Receiver<Vec<Endpoint>> {
    let (sender, receiver) = mpsc::channel(1);
    if peers.is_empty() {
        return receiver;
    }
    tokio::spawn(async move {
        let mut peers = Peers::new(peers, Instant::now());
        let mut sent = Vec::new();
        loop {
            while let Some(index) = peers.due(Instant::now()) {
                let result = resolve(&peers.peers[index].peer).await;
                peers.handle_resolved(Instant::now(), index, result);
                // Whoever is known already need not wait for the others' names.
                if publish(&sender, &peers, &mut sent).await.is_err() {
                    return;
                }
            }
            peers.handle_timeout(Instant::now(), &linked.borrow());
            if publish(&sender, &peers, &mut sent).await.is_err() {
                return;
            }
            let Some(next) = peers.next() else { return };
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    });
    receiver
}

async fn publish(sender: &mpsc::Sender<Vec<Endpoint>>, peers: &Peers, sent: &mut Vec<Endpoint>) -> Result<(), ()> {
    let endpoints = peers.endpoints();
    if endpoints != *sent {
        sent.clone_from(&endpoints);
        sender.send(endpoints).await.map_err(drop)?;
    }
    Ok(())
}

async fn resolve(peer: &StaticPeer) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = peer.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, peer.port)]);
    }
    match tokio::time::timeout(RESOLVER, tokio::net::lookup_host((peer.host.as_str(), peer.port))).await {
        Ok(found) => Ok(found?.take(MAX_ADDRESSES).collect()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peers(now: Instant) -> Peers {
        Peers::new(vec!["a.example:1".parse().unwrap(), "b.example:2".parse().unwrap()], now)
    }

    #[test]
    fn a_peer_is_tried_at_each_of_its_addresses_until_a_link_is_up() {
        let now = Instant::now();
        let mut peers = peers(now);
        assert_eq!(peers.due(now), Some(0));
        peers.handle_resolved(now, 0, Ok(addresses(&["192.0.2.1:1", "[2001:db8::1]:1"])));
        assert_eq!(peers.due(now), Some(1));
        peers.handle_resolved(now, 1, Ok(addresses(&["192.0.2.2:2"])));
        assert_eq!(peers.due(now), None);
        let first = peers.endpoints();
        assert_eq!(first.len(), 2);
        assert_eq!(peers.next(), Some(now + TRIAL));
        peers.handle_timeout(now + TRIAL, &BTreeSet::new());
        let second = peers.endpoints();
        assert_ne!(first, second);
        let linked: BTreeSet<SocketAddr> = addresses(&["[2001:db8::1]:1"]).into_iter().collect();
        peers.handle_timeout(now + TRIAL * 2, &linked);
        assert_eq!(peers.endpoints(), second, "a link is up: it stays");
        peers.handle_resolved(now + REFRESH, 0, Ok(addresses(&["192.0.2.9:1", "[2001:db8::1]:1"])));
        assert_eq!(peers.endpoints(), second, "and after a new answer that still has it");
    }

    #[test]
    fn failures_back_off_and_forget_nothing() {
        let start = Instant::now();
        let mut now = start;
        let mut peers = peers(now);
        peers.handle_resolved(now, 1, Ok(addresses(&["192.0.2.2:2"])));
        peers.handle_resolved(now, 0, Ok(addresses(&["192.0.2.1:1"])));
        let known = peers.endpoints();
        now += REFRESH;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            peers.handle_resolved(now, 0, Err(io::ErrorKind::TimedOut.into()));
            pauses.push(peers.peers[0].resolve - now);
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((pauses[0], pauses[9]), BACKOFF);
        assert_eq!(peers.endpoints(), known);
        peers.handle_resolved(now, 0, Ok(addresses(&["192.0.2.3:1"])));
        assert_ne!(peers.endpoints(), known);
        assert_eq!(peers.peers[0].backoff, BACKOFF.0);
    }
}
