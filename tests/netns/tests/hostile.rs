//! Replayed, truncated, changed, reordered and random packets change nothing and crash nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use grange_netns::{
    EchoServer, EchoStream, Frame, PacketSocket, Random, Recording, Town, WireSpec, town_test, wait_until,
};

const PORT: u16 = 7264;

/// Process id, and links by number and peer.
type Identity = (Option<u32>, Vec<(u64, String)>);

/// Two neighbours with traffic between them. Without offload: frames on the wire are such as can be sent again.
struct Pair {
    town: Town,
    stream: EchoStream,
    _server: EchoServer,
}

impl Pair {
    fn new() -> Result<(Self, Recording)> {
        let town = Town::builder()
            .nodes(&["a", "b"])
            .link_with("a", "b", WireSpec { offload: false, ..WireSpec::default() })
            .build()?;
        town.found()?;
        let capture = town.wire("a", "b")?.capture()?;
        town.start()?;
        town.wait_reachable(Duration::from_secs(10))?;
        let (a, b) = (town.node("a")?, town.node("b")?);
        let server = EchoServer::start(b.namespace(), b.address()?.into())?;
        let stream = EchoStream::start(a.namespace(), b.address()?.into(), Duration::from_millis(10), 200)?;
        stream.wait_flowing(Duration::from_secs(5))?;
        wait_until(
            "some traffic",
            Duration::from_secs(5),
            || Ok((stream.report().arrived.len() >= 100).then_some(())),
        )?;
        let recording = capture.stop();
        let mesh = recording.frames.iter().filter(|frame| payload(frame).is_some()).count();
        ensure!(recording.dropped == 0 && mesh > 100, "only {mesh} datagrams were captured");
        Ok((Self { town, stream, _server: server }, recording))
    }

    /// What must not change: processes and links.
    fn identity(&self) -> Result<Vec<Identity>> {
        self.town
            .nodes()
            .iter()
            .map(|node| {
                let links = node.links()?.into_iter().map(|link| (link.link, link.peer.id)).collect();
                Ok((node.pid().filter(|_| node.is_running()), links))
            })
            .collect()
    }

    /// Does something hostile; everything stays as it is and traffic goes on meanwhile.
    fn unmoved(&self, attack: impl FnOnce(&Town) -> Result<()>) -> Result<()> {
        let before = self.identity()?;
        let routes: Vec<usize> =
            self.town.nodes().iter().map(|node| Ok(node.routes()?.len())).collect::<Result<_>>()?;
        let start = Instant::now();
        attack(&self.town)?;
        self.stream.wait_flowing(Duration::from_secs(3)).context("after the attack")?;
        let after = self.identity()?;
        ensure!(before == after, "before: {before:?}, after: {after:?}");
        for (node, count) in self.town.nodes().iter().zip(routes) {
            ensure!(node.routes()?.len() == count, "{} has other routes: {:?}", node.name(), node.routes()?);
            let log = node.log_tail(1000);
            ensure!(!log.contains("panicked"), "{} panicked:\n{log}", node.name());
        }
        let gap = self.stream.report().gap(start, Instant::now());
        ensure!(gap < Duration::from_secs(1), "traffic stood still for {gap:?}");
        Ok(())
    }
}

/// The payload of a datagram of the mesh.
fn payload(frame: &Frame) -> Option<&[u8]> {
    let (source, destination, payload) = frame.udp()?;
    (source == PORT || destination == PORT).then_some(payload)
}

/// The mesh's frames of a recording, with the end each is for.
fn mesh(recording: &Recording) -> Vec<(usize, &Frame)> {
    recording.frames.iter().filter(|frame| payload(frame).is_some()).map(|frame| (1 - frame.from, frame)).collect()
}

fn injectors(town: &Town) -> Result<[PacketSocket; 2]> {
    let wire = town.wire("a", "b")?;
    Ok([wire.injector("a")?, wire.injector("b")?])
}

/// A sender that overruns its queue waits a moment.
fn send(socket: &PacketSocket, frame: &[u8]) {
    for _ in 0..50 {
        if socket.send(frame).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn replayed_and_reordered_packets_change_nothing() {
    town_test("replayed_and_reordered_packets_change_nothing", || {
        let (pair, recording) = Pair::new()?;
        pair.unmoved(|town| {
            let sockets = injectors(town)?;
            let frames = mesh(&recording);
            // In order, backwards, then each to its own sender.
            for (to, frame) in frames.iter().chain(frames.iter().rev()) {
                send(&sockets[*to], &frame.bytes);
            }
            for (to, frame) in &frames {
                send(&sockets[1 - *to], &frame.bytes);
            }
            Ok(())
        })
    });
}

#[test]
fn truncated_and_changed_packets_change_nothing() {
    town_test("truncated_and_changed_packets_change_nothing", || {
        let (pair, recording) = Pair::new()?;
        pair.unmoved(|town| {
            let sockets = injectors(town)?;
            let mut random = Random::new(4);
            for (to, frame) in mesh(&recording).into_iter().take(3000) {
                let original = payload(frame).unwrap_or_default();
                let length = random.below(original.len() + 1);
                let mut changed = original.to_vec();
                if let Some(byte) = original.len().checked_sub(1).map(|last| random.below(last + 1)) {
                    changed[byte] ^= 1 << random.below(8);
                }
                let mut longer = original.to_vec();
                longer.resize((original.len() + random.below(64)).min(1400), 0x5a);
                for payload in [&original[..length], &changed, &longer] {
                    // IPv4 datagrams and the like are left out: the mesh speaks IPv6 on a wire.
                    if let Some(bytes) = frame.with_udp_payload(payload) {
                        send(&sockets[to], &bytes);
                    }
                }
                // The frame itself cut short, so that the lengths inside lie.
                send(&sockets[to], &frame.bytes[..14 + random.below(frame.bytes.len() - 14)]);
            }
            Ok(())
        })
    });
}

#[test]
fn random_packets_change_nothing() {
    town_test("random_packets_change_nothing", || {
        let (pair, recording) = Pair::new()?;
        pair.unmoved(|town| {
            let sockets = injectors(town)?;
            let mut random = Random::new(5);
            let frames = mesh(&recording);
            for round in 0..6000 {
                let (to, frame) = frames[random.below(frames.len())];
                let mut bytes = vec![0; random.below(1400)];
                random.fill(&mut bytes);
                // Most have a type that exists, half of them the right version, some a receiver index that exists.
                if round % 8 != 0 && bytes.len() > 8 {
                    bytes[0] = 1 + (round % 6) as u8;
                    if round % 2 == 0 {
                        bytes[1] = if bytes[0] < 5 { 1 } else { 0 };
                        bytes[2..4].fill(0);
                    }
                    if round % 3 == 0 {
                        let original = payload(frame).unwrap_or_default();
                        let shared = original.len().min(8);
                        bytes[..shared].copy_from_slice(&original[..shared]);
                    }
                }
                if let Some(bytes) = frame.with_udp_payload(&bytes) {
                    send(&sockets[to], &bytes);
                }
            }
            Ok(())
        })
    });
}

#[test]
fn a_replayed_handshake_gets_no_answer() {
    town_test("a_replayed_handshake_gets_no_answer", || {
        let (pair, recording) = Pair::new()?;
        let town = &pair.town;
        let initiations: Vec<_> =
            mesh(&recording).into_iter().filter(|(_, frame)| payload(frame).is_some_and(|it| it[0] == 2)).collect();
        ensure!(!initiations.is_empty(), "no initiation was captured");
        // The nonce is good for some time: the same ephemeral key must not be answered twice even then.
        let capture = town.wire("a", "b")?.capture()?;
        let sockets = injectors(town)?;
        for _ in 0..20 {
            for (to, frame) in &initiations {
                send(&sockets[*to], &frame.bytes);
            }
        }
        pair.stream.wait_flowing(Duration::from_secs(3))?;
        let answers = capture.stop();
        let count = mesh(&answers).iter().filter(|(_, frame)| payload(frame).is_some_and(|it| it[0] == 3)).count();
        ensure!(count == 0, "{count} answers to replayed initiations");
        Ok(())
    });
}
