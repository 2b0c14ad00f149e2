//! The form for scripts: one scene after the other, each with a goal and what was measured.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use grange_netns::{Cut, Download, EchoStream, INTERNET_V4, INTERNET_V6, Prober, Snapshot, Town, fetch, wait_until};

use super::plan::{self, FIRST, GATEWAY, NODES};

/// All pairs reach each other within this time of the start.
const FORMED: Duration = Duration::from_secs(5);
/// A cut wire stops traffic for at most this long.
const HEALED: Duration = Duration::from_secs(3);
/// A restarted node is back in all routing tables within this time of its start.
const BACK: Duration = Duration::from_secs(3);

const ECHO_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes a second of the download that runs through the cuts.
const DOWNLOAD_RATE: u64 = 1_000_000;
/// About as long as the cuts take.
const DOWNLOAD_LENGTH: u64 = 20_000_000;

/// The goals so far.
#[derive(Default)]
struct Score {
    met: usize,
    missed: Vec<String>,
}

impl Score {
    /// Notes and prints the outcome of a scene. `Ok` holds what was measured.
    fn scene(&mut self, goal: &str, outcome: Result<String>) {
        match outcome {
            Ok(measured) => {
                self.met += 1;
                println!("  ok    {goal}: {measured}");
            }
            Err(error) => {
                println!("  MISS  {goal}: {error:#}");
                self.missed.push(goal.to_owned());
            }
        }
    }
}

pub(super) fn run() -> Result<ExitCode> {
    println!("A town of five routers and a gateway, in network namespaces of this machine:\n");
    println!(
        "           ┌── oak ─────── pond ──┐\n  \
         lena ── mill    │           │    gate ══ the Internet\n           \
         └── barn ────── kiln ──┘\n                 │\n                tom\n"
    );
    let building = Instant::now();
    let town = plan::build()?;
    println!("Built in {}: {} nodes, each with a kernel's network of its own.\n", ms(building.elapsed()), NODES.len());

    let mut score = Score::default();
    let before = town.nodes().iter().map(|node| Snapshot::take(node.namespace())).collect::<Result<Vec<_>>>()?;

    println!("The agents start.");
    let start = town.start()?;
    score.scene(
        &format!("all pairs reach each other within {}", ms(FORMED)),
        town.wait_reachable(FORMED * 3).and_then(|_| within(start.elapsed(), FORMED)),
    );
    if !score.missed.is_empty() {
        print_logs(&town);
        bail!("the town does not form; nothing else can be shown");
    }
    internet(&town, &mut score);
    cuts(&town, &mut score);
    restarts(&town, &mut score);

    println!("\nThe agents stop (SIGTERM).");
    score.scene("every agent ends well", town.stop().map(|()| "all six".into()));
    let after = town.nodes().iter().zip(&before).try_for_each(|(node, before)| {
        before.expect_same(&Snapshot::take(node.namespace())?).with_context(|| node.name().to_owned())
    });
    score.scene(
        "no address, route, rule, interface, table or setting is left",
        after.map(|()| "all networks are as before the start".into()),
    );
    if !score.missed.is_empty() {
        print_logs(&town);
    }
    drop(town);

    if score.missed.is_empty() {
        println!("\nAll {} goals were met.", score.met);
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{} of {} goals were missed:", score.missed.len(), score.met + score.missed.len());
    for goal in &score.missed {
        println!("  {goal}");
    }
    Ok(ExitCode::FAILURE)
}

/// The laptop's way to the Internet.
fn internet(town: &Town, score: &mut Score) {
    println!("\nThe laptop lena, behind {FIRST}, goes to the Internet.");
    score.scene("three hops to the gateway", three_hops(town));
    for (family, server) in [("IPv4", INTERNET_V4.into()), ("IPv6", INTERNET_V6.into())] {
        score.scene(&format!("a page over {family}"), page(town, "lena", server));
    }
    score.scene("the laptops reach each other", laptops(town));
}

fn three_hops(town: &Town) -> Result<String> {
    let address = town.node(GATEWAY)?.address()?;
    let trace = town.node(FIRST)?.trace(&address.to_string())?;
    // A node knows the names of its neighbours only.
    let mut known = BTreeMap::new();
    for node in town.nodes() {
        known.insert(node.address()?.to_string(), node.name());
    }
    let names: Vec<&str> = trace
        .hops
        .iter()
        .map(|hop| hop.address.as_deref().unwrap_or("?"))
        .map(|address| known.get(address).copied().unwrap_or(address))
        .collect();
    ensure!(trace.reached, "{GATEWAY} was not reached: {names:?}");
    ensure!(names.len() == 3, "{} hops: {names:?}", names.len());
    Ok(format!("{FIRST} -> {}", names.join(" -> ")))
}

fn page(town: &Town, laptop: &str, server: IpAddr) -> Result<String> {
    let page = wait_until("the page", Duration::from_secs(5), || {
        fetch(town.laptop(laptop)?.namespace(), server, "/", Duration::from_secs(2)).map(Some)
    })?
    .0;
    ensure!(page.status == 200 && page.body.contains("the Internet"), "{page:?}");
    let title = page.body.lines().last().unwrap_or_default().trim_start_matches("<p>").to_owned();
    Ok(format!("{} ({title})", ms(page.elapsed)))
}

fn laptops(town: &Town) -> Result<String> {
    let (lena, tom) = (town.laptop("lena")?, town.laptop("tom")?);
    let rtt = reach(lena.namespace(), tom.v6()?)?;
    Ok(format!("lena to tom and back in {}", ms(rtt)))
}

fn reach(from: &grange_netns::Namespace, to: Ipv6Addr) -> Result<Duration> {
    let mut prober = Prober::new(from)?;
    let (rtt, _) = wait_until(&format!("an echo of {to}"), Duration::from_secs(3), || {
        Ok(prober.probe(&[to], Duration::from_millis(500))[0])
    })?;
    Ok(rtt)
}

/// What runs while the town is hurt.
struct Traffic {
    v4: EchoStream,
    v6: EchoStream,
    download: Download,
}

impl Traffic {
    fn start(town: &Town) -> Result<Self> {
        let lena = town.laptop("lena")?.namespace();
        Ok(Self {
            v4: EchoStream::start(lena, INTERNET_V4.into(), ECHO_INTERVAL, 200)?,
            v6: EchoStream::start(lena, INTERNET_V6.into(), ECHO_INTERVAL, 200)?,
            download: Download::start(lena, INTERNET_V4.into(), 42, DOWNLOAD_LENGTH, DOWNLOAD_RATE)?,
        })
    }

    fn wait_flowing(&self, limit: Duration) -> Result<()> {
        self.v4.wait_flowing(limit).context("IPv4")?;
        self.v6.wait_flowing(limit).context("IPv6")?;
        Ok(())
    }

    /// Does something to the town and measures how long traffic stood still then.
    fn gap(&self, limit: Duration, act: impl FnOnce() -> Result<()>) -> Result<String> {
        self.wait_flowing(Duration::from_secs(5)).context("before")?;
        let at = Instant::now();
        act()?;
        // Only what was sent after the act counts as healed, and a little longer shows whether it stays so.
        self.wait_flowing(limit * 5)?;
        let settled = Instant::now();
        wait_until("a second of calm", Duration::from_secs(2), || {
            Ok((settled.elapsed() > Duration::from_secs(1)).then_some(()))
        })?;
        self.wait_flowing(limit)?;
        let end = Instant::now();
        let gaps = [self.v4.report().gap(at, end), self.v6.report().gap(at, end)];
        let text = format!("traffic stood still for {} (IPv4), {} (IPv6)", ms(gaps[0]), ms(gaps[1]));
        ensure!(gaps.iter().all(|gap| *gap <= limit), "{text}; the goal is {}", ms(limit));
        Ok(text)
    }
}

fn cuts(town: &Town, score: &mut Score) {
    println!("\nAn echo stream (each {}) and a download run, and wires on their way are cut.", ms(ECHO_INTERVAL));
    let traffic = match Traffic::start(town) {
        Ok(traffic) => traffic,
        Err(error) => return score.scene("traffic flows", Err(error)),
    };
    for (how, text, place) in [
        (Cut::Carrier, "pulled", 0),
        (Cut::Silent, "cut silently", 0),
        (Cut::Carrier, "pulled", 1),
        (Cut::Silent, "cut silently", 1),
        (Cut::Silent, "cut silently", 2),
    ] {
        let used = match used_wire(town, place) {
            Ok(used) => used,
            Err(error) => {
                score.scene("the way in use", Err(error));
                continue;
            }
        };
        let wire = &town.wires()[used];
        let goal = format!("{} {text}, traffic goes on within {}", plan::wire_name(used), ms(HEALED));
        score.scene(&goal, traffic.gap(HEALED, || wire.cut(how)));
        score.scene(
            &format!("{} mended", plan::wire_name(used)),
            traffic.gap(HEALED, || {
                wire.mend()?;
                linked(town, used)
            }),
        );
    }
    let goal = "the download went through all of that, each byte right";
    score.scene(goal, {
        let now = traffic.download.progress();
        if traffic.download.is_finished() {
            traffic.download.finish(Duration::ZERO).map(|done| format!("{} bytes", done.bytes))
        } else if now.bytes == 0 {
            Err(anyhow::anyhow!("nothing arrived"))
        } else {
            traffic
                .download
                .finish(Duration::from_secs(60))
                .map(|done| format!("{} MB, longest stall {}", done.bytes / 1_000_000, ms(done.longest_stall)))
        }
    });
}

/// A wire of lena's way to the Internet: the one at this place, or the nearest that carries the answers too, if the way
/// back is another one (all ways are equally good).
fn used_wire(town: &Town, place: usize) -> Result<usize> {
    let home = town.node(FIRST)?.keys()?.prefix;
    let (way, _) =
        wait_until("a way to the Internet", Duration::from_secs(5), || town.way(FIRST, "0.0.0.0/0").map(Some))?;
    let back = town.way(GATEWAY, &home)?;
    let wires = |way: &[String]| -> Vec<usize> {
        way.windows(2).filter_map(|pair| plan::wire_between(&pair[0], &pair[1])).collect()
    };
    let (there, back) = (wires(&way), wires(&back));
    let mut nearest: Vec<usize> = (0..there.len()).collect();
    nearest.sort_by_key(|other| other.abs_diff(place));
    nearest
        .iter()
        .map(|place| there[*place])
        .find(|wire| back.contains(wire))
        .or_else(|| there.get(place).copied())
        .with_context(|| format!("the way is too short: {way:?}"))
}

/// Waits until both ends of a wire list each other as neighbours.
fn linked(town: &Town, wire: usize) -> Result<()> {
    let hosts = town.wires()[wire].hosts();
    wait_until(&format!("the link {} to come back", plan::wire_name(wire)), Duration::from_secs(10), || {
        let up = |node: &str, peer: &str| -> Result<bool> {
            Ok(town.node(node)?.links()?.iter().any(|link| link.peer.name == peer))
        };
        Ok((up(hosts[0], hosts[1])? && up(hosts[1], hosts[0])?).then_some(()))
    })?;
    Ok(())
}

fn restarts(town: &Town, score: &mut Score) {
    println!("\nA router on the way is killed (SIGKILL) and started again, then stopped (SIGTERM) and started again.");
    for kill in [true, false] {
        let victim = match town.way(FIRST, "0.0.0.0/0") {
            Ok(way) if way.len() > 2 => way[1].clone(),
            Ok(way) => return score.scene("a router on the way", Err(anyhow::anyhow!("{way:?}"))),
            Err(error) => return score.scene("a router on the way", Err(error)),
        };
        let text = if kill { "killed" } else { "stopped" };
        let lena = match town.laptop("lena").map(|lena| lena.namespace()) {
            Ok(lena) => lena,
            Err(error) => return score.scene("the laptop", Err(error)),
        };
        let stream = EchoStream::start(lena, INTERNET_V6.into(), ECHO_INTERVAL, 200);
        score.scene(
            &format!("{victim} {text}, traffic goes on within {}", ms(HEALED)),
            stream.and_then(|stream| {
                stream.wait_flowing(Duration::from_secs(5))?;
                let at = Instant::now();
                let node = town.node(&victim)?;
                if kill {
                    node.kill()?;
                } else {
                    node.stop()?;
                }
                stream.wait_flowing(HEALED * 5)?;
                let gap = stream.report().gap(at, Instant::now());
                ensure!(gap <= HEALED, "traffic stood still for {}", ms(gap));
                Ok(format!("traffic stood still for {}", ms(gap)))
            }),
        );
        score.scene(
            &format!("{victim} started again, in all routing tables within {}", ms(BACK)),
            back(town, &victim).and_then(|took| within(took, BACK)),
        );
    }
}

/// Starts a node and waits until all others have a route to it and reach it.
fn back(town: &Town, name: &str) -> Result<Duration> {
    let node = town.node(name)?;
    let start = Instant::now();
    node.start()?;
    let prefix = node.status()?.prefix;
    for other in town.nodes().iter().filter(|other| other.name() != name) {
        wait_until(&format!("a route from {} to {name}", other.name()), BACK * 3, || {
            Ok(other.routes()?.iter().any(|route| route.selected && route.prefix == prefix).then_some(()))
        })?;
    }
    town.wait_reachable(BACK * 3)?;
    Ok(start.elapsed())
}

fn within(took: Duration, limit: Duration) -> Result<String> {
    ensure!(took <= limit, "it took {}", ms(took));
    Ok(ms(took))
}

fn ms(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

fn print_logs(town: &Town) {
    for node in town.nodes() {
        println!("\n--- the log of {} ends so:\n{}", node.name(), node.log_tail(15));
    }
}
