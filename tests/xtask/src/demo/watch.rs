//! Watches the town from threads of its own and keeps the [`View`] fresh.

use std::{
    net::Ipv6Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use grange_netns::{Download, EchoStream, INTERNET_V4, INTERNET_V6, LinkStatus, Namespace, Prober, RouteStatus, Town};

use super::{
    plan::{FIRST, GATEWAY, LINKS, NODES, UPLINK, wire_between},
    view::{HOSTS, View, time_text},
};

/// How often the agents are asked.
const AGENTS_EVERY: Duration = Duration::from_millis(700);
/// How often everybody asks everybody.
const REACH_EVERY: Duration = Duration::from_millis(500);
/// How often the laptop asks the Internet.
const ECHO_EVERY: Duration = Duration::from_millis(20);
/// Bytes a second of the laptop's download, so that there is something to see.
const DOWNLOAD_RATE: u64 = 300_000;
const MAX_EVENTS: usize = 200;
/// How long an act's effect on traffic is waited for.
const GAP_LIMIT: Duration = Duration::from_secs(30);

/// The threads that watch; they end when it is dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    town: Arc<Town>,
    start: Instant,
    view: Mutex<View>,
    stop: AtomicBool,
    started: AtomicBool,
    download: AtomicBool,
    /// The act whose effect on traffic is being measured.
    act: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, text: impl Into<String>) {
        let at = self.start.elapsed().as_secs_f64();
        let mut view = self.view();
        view.events.push((at, text.into()));
        if view.events.len() > MAX_EVENTS {
            view.events.remove(0);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps until `next`, but not past the end.
    fn pause(&self, next: Instant) {
        while !self.stopped() {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

impl Watch {
    pub(super) fn start(town: &Arc<Town>) -> Self {
        let shared = Arc::new(Shared {
            town: Arc::clone(town),
            start: Instant::now(),
            view: Mutex::new(View::default()),
            stop: AtomicBool::new(false),
            started: AtomicBool::new(false),
            download: AtomicBool::new(true),
            act: Mutex::new(None),
        });
        let threads = [watch_agents as fn(&Shared), watch_reach, watch_traffic]
            .map(|work| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || work(&shared))
            })
            .into();
        Self { shared, threads }
    }

    /// The town as it is known now.
    pub(super) fn view(&self) -> View {
        let mut view = self.shared.view().clone();
        view.uptime = self.shared.start.elapsed().as_secs_f64();
        for (wire, shown) in self.shared.town.wires().iter().zip(&mut view.wires) {
            shown.state = wire.state();
        }
        view
    }

    pub(super) fn log(&self, text: impl Into<String>) {
        self.shared.log(text);
    }

    /// The agents run and the laptops have their addresses: everything may be asked.
    pub(super) fn town_started(&self) {
        self.shared.started.store(true, Ordering::Relaxed);
    }

    /// Something was just done to the town: measure how long traffic stands still.
    pub(super) fn acted(&self, at: Instant, what: &str) {
        *self.shared.act.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, what.to_owned()));
    }

    /// Starts or ends the laptop's download.
    pub(super) fn toggle_download(&self) {
        let on = !self.shared.download.fetch_xor(true, Ordering::Relaxed);
        self.shared.log(if on { "lena downloads" } else { "lena's download ends" });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What one agent said.
struct Said {
    links: Vec<LinkStatus>,
    routes: Vec<RouteStatus>,
}

fn watch_agents(shared: &Shared) {
    let town = &shared.town;
    let mut counters: Vec<(u64, Instant)> = vec![(0, Instant::now()); LINKS.len() + 1];
    while !shared.stopped() {
        let next = Instant::now() + AGENTS_EVERY;
        let said: Vec<Option<Said>> = town
            .nodes()
            .iter()
            .map(|node| {
                (node.is_running() && !shared.stopped())
                    .then(|| Some(Said { links: node.links().ok()?, routes: node.routes().ok()? }))?
            })
            .collect();
        let gateway = town.node(GATEWAY).and_then(grange_netns::Node::status).map(|status| status.gateway);
        let mut news = Vec::new();
        {
            let mut view = shared.view();
            for ((node, said), shown) in town.nodes().iter().zip(&said).zip(&mut view.nodes) {
                let answers = said.is_some();
                if answers != shown.answers {
                    news.push(format!("{} {}", node.name(), if answers { "runs" } else { "is down" }));
                }
                shown.running = node.is_running();
                shown.answers = answers;
                shown.routes =
                    said.as_ref().map_or(0, |said| said.routes.iter().filter(|it| it.selected).count() as u64);
            }
            for (number, (a, b)) in LINKS.iter().enumerate() {
                let ends = [link_to(&said, a, b), link_to(&said, b, a)];
                let shown = &mut view.wires[number];
                let linked = ends.iter().all(Option::is_some);
                if linked != shown.linked {
                    news.push(format!("link {a}-{b} {}", if linked { "is up" } else { "is down" }));
                }
                shown.linked = linked;
                shown.cost = ends.iter().flatten().map(|link| link.cost).max().unwrap_or(0);
                // Either end counts both ways.
                let bytes = ends.iter().flatten().map(|link| link.sent_bytes + link.received_bytes).max().unwrap_or(0);
                shown.rate = rate(&mut counters[number], bytes);
            }
            let (v4, v6) = gateway.as_ref().map_or((false, false), |it| (it.sharing && it.v4, it.sharing && it.v6));
            if (v4, v6) != view.gateway {
                news.push(match (v4, v6) {
                    (true, true) => format!("{GATEWAY} offers the Internet"),
                    (true, false) => format!("{GATEWAY} offers IPv4 only"),
                    (false, true) => format!("{GATEWAY} offers IPv6 only"),
                    (false, false) => format!("{GATEWAY} offers no Internet"),
                });
            }
            view.gateway = (v4, v6);
            view.wires[UPLINK].linked = v4 || v6;
            view.wires[UPLINK].rate = rate(&mut counters[UPLINK], uplink_bytes(town));
            let way = way(&said);
            if way != view.way {
                news.push(if way.is_empty() {
                    "lena has no way out".into()
                } else {
                    format!("lena's way: {}", way.join(" "))
                });
            }
            for wire in &mut view.wires {
                wire.used = false;
            }
            for pair in way.windows(2) {
                if let Some(number) = wire_between(&pair[0], &pair[1]) {
                    view.wires[number].used = true;
                }
            }
            view.wires[UPLINK].used = !way.is_empty();
            view.way = way;
        }
        for text in news {
            shared.log(text);
        }
        shared.pause(next);
    }
}

fn link_to<'a>(said: &'a [Option<Said>], node: &str, peer: &str) -> Option<&'a LinkStatus> {
    let place = NODES.iter().position(|name| *name == node)?;
    said[place].as_ref()?.links.iter().find(|link| link.peer.name == peer)
}

/// Bytes a second since the last call. A counter that went back (an agent restarted) counts as no traffic.
fn rate(last: &mut (u64, Instant), bytes: u64) -> f64 {
    let rate = bytes.saturating_sub(last.0) as f64 / last.1.elapsed().as_secs_f64().max(0.001);
    let first = last.0 == 0;
    *last = (bytes, Instant::now());
    if first { 0.0 } else { rate }
}

/// Bytes over the uplink so far, by the kernel's counters in the Internet's namespace.
fn uplink_bytes(town: &Town) -> u64 {
    let count = || -> Option<u64> {
        let wire = &town.wires()[UPLINK];
        let internet = town.internet()?.namespace();
        let interface = wire.interface(grange_netns::Internet::NAME)?;
        // /proc/net is a link to the calling thread's own namespace.
        let text = internet.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev")).ok()?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
        let number = |place: usize| line.split_whitespace().nth(place)?.parse::<u64>().ok();
        Some(number(0)? + number(8)?)
    };
    count().unwrap_or(0)
}

/// The names on the way from lena's router to the gateway, by what the agents said; empty if there is none.
fn way(said: &[Option<Said>]) -> Vec<String> {
    let mut way = vec![FIRST.to_owned()];
    while way.last().is_some_and(|last| last != GATEWAY) {
        let next = way.last().and_then(|last| {
            let place = NODES.iter().position(|name| name == last)?;
            let routes = &said[place].as_ref()?.routes;
            let route = routes.iter().find(|route| route.selected && route.prefix == "0.0.0.0/0")?;
            Some(route.via.name.clone())
        });
        match next {
            Some(next) if !way.contains(&next) => way.push(next),
            _ => return Vec::new(),
        }
    }
    way
}

fn watch_reach(shared: &Shared) {
    while !shared.started.load(Ordering::Relaxed) && !shared.stopped() {
        shared.pause(Instant::now() + Duration::from_millis(50));
    }
    let Ok((mut probers, targets)) = reach_tools(&shared.town) else {
        return shared.log("nobody's reach can be asked");
    };
    while !shared.stopped() {
        let next = Instant::now() + REACH_EVERY;
        let rows: Vec<Vec<Option<Duration>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = probers
                .iter_mut()
                .map(|prober| scope.spawn(|| prober.probe(&targets, Duration::from_millis(400))))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        });
        let mut view = shared.view();
        for (shown, row) in view.reach.iter_mut().zip(rows) {
            for (to, from) in shown.iter_mut().zip(row) {
                *to = from;
            }
        }
        drop(view);
        shared.pause(next);
    }
}

/// One prober for each host, and the addresses of all hosts and of the Internet.
fn reach_tools(town: &Town) -> Result<(Vec<Prober>, Vec<Ipv6Addr>)> {
    let mut spaces: Vec<&Namespace> = Vec::with_capacity(HOSTS);
    let mut targets = Vec::with_capacity(HOSTS + 1);
    for node in town.nodes() {
        spaces.push(node.namespace());
        targets.push(node.address()?);
    }
    for laptop in town.laptops() {
        spaces.push(laptop.namespace());
        targets.push(laptop.v6()?);
    }
    targets.push(INTERNET_V6);
    Ok((spaces.into_iter().map(Prober::new).collect::<Result<_>>()?, targets))
}

fn watch_traffic(shared: &Shared) {
    while !shared.started.load(Ordering::Relaxed) && !shared.stopped() {
        shared.pause(Instant::now() + Duration::from_millis(50));
    }
    let Ok(lena) = shared.town.laptop("lena").map(grange_netns::Laptop::namespace) else { return };
    let stream = |server| EchoStream::start(lena, server, ECHO_EVERY, 200).ok();
    let servers = [INTERNET_V4.into(), INTERNET_V6.into()];
    let mut streams = servers.map(stream);
    let mut born = Instant::now();
    let mut download: Option<Download> = None;
    let mut last = (0, Instant::now());
    let mut pending: Option<(Instant, String)> = None;
    while !shared.stopped() {
        let recent = Instant::now().checked_sub(Duration::from_millis(500)).unwrap_or(shared.start);
        let alive = streams.each_ref().map(|it| it.as_ref().is_some_and(|it| it.arrived_since(recent) > 0));
        shared.view().internet = (alive[0], alive[1]);

        if let Some(act) = shared.act.lock().unwrap_or_else(PoisonError::into_inner).take() {
            pending = Some(act);
        }
        if let Some((at, what)) = &pending {
            // Two seconds show whether traffic stopped at all; then it must flow again.
            let flows = streams.iter().flatten().all(|it| it.arrived_since(recent) > 10);
            if (at.elapsed() > Duration::from_secs(2) && flows) || at.elapsed() > GAP_LIMIT {
                let gap = streams.iter().flatten().map(|it| it.report().gap(*at, Instant::now())).max();
                let gap = gap.unwrap_or_default();
                shared.log(if flows {
                    format!("{what}: stopped traffic {}", time_text(gap))
                } else {
                    format!("{what}: stopped traffic for good")
                });
                shared.view().last_gap = flows.then_some(gap);
                pending = None;
            }
        } else if born.elapsed() > Duration::from_secs(600) {
            // The streams remember each datagram: begin anew now and then.
            streams = servers.map(stream);
            born = Instant::now();
        }

        if shared.download.load(Ordering::Relaxed) {
            if download.as_ref().is_none_or(Download::is_finished) {
                download = Download::start(lena, INTERNET_V4.into(), 1, u64::from(u32::MAX), DOWNLOAD_RATE).ok();
                last = (0, Instant::now());
            }
        } else {
            download = None;
        }
        if last.1.elapsed() > Duration::from_millis(700) {
            let bytes = download.as_ref().map_or(0, |it| it.progress().bytes);
            shared.view().download = bytes.saturating_sub(last.0) as f64 / last.1.elapsed().as_secs_f64();
            last = (bytes, Instant::now());
        }
        shared.pause(Instant::now() + Duration::from_millis(100));
    }
}
