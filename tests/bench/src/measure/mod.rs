//! What is measured: the topology, the subjects, one round, and the columns of the table.

pub(crate) mod cipher;
mod memory;
mod packets;
mod profile;
mod queue;
mod transfer;

use std::{collections::BTreeMap, net::IpAddr, thread::sleep, time::Duration};

use anyhow::{Result, bail};

use crate::{
    iperf::{self, Flow, Length},
    lab::{Card, Lab, Plan},
    peer::{self, Overlay, Programs},
    ping::wait_reachable,
    subject::{RAW, REFERENCE, Subject},
};

/// How often a subject is started until its hosts reach each other.
const ATTEMPTS: u32 = 3;

/// How long they may take.
const READY: Duration = Duration::from_secs(30);

/// What one round says of one subject, by name.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// A subject that is set up.
#[derive(Debug)]
pub(crate) struct Setup {
    // Before the lab: daemons end before their namespaces.
    overlay: Overlay,
    lab: Lab,
}

/// How a round is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Length of a transfer.
    pub(crate) seconds: u32,
}

/// How the rounds become one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// The median.
    Median,
    /// The largest: for what only grows.
    Largest,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// What it is called in the samples.
    pub(crate) key: &'static str,
    /// What it is called in the table, with its unit.
    pub(crate) head: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// How the rounds become one figure.
    pub(crate) sum: Sum,
}

/// Shorthand for the table below.
const fn column(key: &'static str, head: &'static str, digits: usize) -> Column {
    Column { key, head, digits, sum: Sum::Median }
}

/// What is set up and run for each subject.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// What is laid.
    pub(crate) plan: Plan,
    /// Whether a subject takes part.
    pub(crate) who: fn(&Subject) -> bool,
    /// What is done once before the first round, when the subject's hosts reach each other.
    prepare: fn(&Setup) -> Result<()>,
    /// One round.
    pub(crate) round: fn(&Setup, Options) -> Result<Sample>,
}

/// What a measurement works on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Subjects in labs.
    Network(Network),
    /// The ciphers alone.
    Ciphers,
}

/// A measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// For the command line and the JSON.
    pub(crate) name: &'static str,
    /// For people: the heading of the table.
    pub(crate) title: &'static str,
    /// What it does.
    pub(crate) work: Work,
    /// The columns of its table.
    pub(crate) columns: &'static [Column],
}

const TRANSFER: &[Column] = &[
    column("mbit", "Mbit/s", 0),
    column("ratio", "ratio", 2),
    column("cpu_s_per_gb", "CPU s/GB, daemons", 2),
    column("machine_s_per_gb", "CPU s/GB, whole machine", 2),
    column("ping_ms", "ping ms", 3),
    column("added_ms", "ping added ms", 3),
    Column { key: "peak_mib", head: "peak MiB a daemon", digits: 0, sum: Sum::Largest },
];

const FORWARD: &[Column] = &[
    column("forward_s_per_gb", "CPU s/GB, forwarding node", 2),
    column("cpu_s_per_gb", "CPU s/GB, all three", 2),
    column("mbit", "Mbit/s", 0),
    column("ratio", "ratio", 2),
];

/// Rounds in labs that need nothing done before the first.
const fn over(plan: Plan, who: fn(&Subject) -> bool, round: fn(&Setup, Options) -> Result<Sample>) -> Work {
    Work::Network(Network { plan, who, prepare: nothing, round })
}

/// All measurements, in the order in which they run.
pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        name: "cipher",
        title: "The ciphers alone, 1,400 bytes, one core",
        work: Work::Ciphers,
        columns: &[
            column("seal_gb_s", "seal GB/s", 2),
            column("open_gb_s", "open GB/s", 2),
            column("hop_s_per_gb", "one hop (seal and open) s/GB", 2),
        ],
    },
    Measure {
        name: "two-nodes",
        title: "Two nodes",
        work: over(Plan::chain(2), direct, transfer::round),
        columns: TRANSFER,
    },
    Measure {
        name: "two-nodes-plain",
        title: "Two nodes, cards without segmentation offload",
        work: over(Plan::chain(2).with(Card::Plain), closest, transfer::round),
        columns: TRANSFER,
    },
    Measure {
        name: "two-nodes-bare",
        title: "Two nodes, cards without any offload, not even on receipt",
        work: over(Plan::chain(2).with(Card::Bare), closest, transfer::round),
        columns: TRANSFER,
    },
    Measure {
        name: "chain",
        title: "Chain of four",
        work: over(Plan::chain(4), over_hops, transfer::round),
        columns: TRANSFER,
    },
    Measure {
        name: "forwarding",
        title: "A forwarding node (the middle of three)",
        work: over(Plan::chain(3), daemons, transfer::round),
        columns: FORWARD,
    },
    Measure {
        name: "forwarding-plain",
        title: "A forwarding node, cards without segmentation offload",
        work: over(Plan::chain(3).with(Card::Plain), daemons, transfer::round),
        columns: FORWARD,
    },
    Measure {
        name: "forwarding-bare",
        title: "A forwarding node, cards without any offload, not even on receipt",
        work: over(Plan::chain(3).with(Card::Bare), daemons, transfer::round),
        columns: FORWARD,
    },
    Measure {
        name: "queue",
        title: "Ping under a full TCP load, the cable limited to 100 Mbit/s with a queue of 50 ms",
        work: Work::Network(Network {
            plan: Plan::chain(2),
            who: |subject| closest(subject) || subject.calls(),
            prepare: |setup| setup.lab.slow_down(),
            round: queue::round,
        }),
        columns: &[
            column("loaded_median_ms", "median ms", 1),
            column("loaded_p95_ms", "95th percentile ms", 1),
            column("mbit", "Mbit/s", 1),
        ],
    },
    Measure {
        name: "packets",
        title: "Packets per second, UDP",
        work: over(Plan::chain(2), direct, packets::round),
        columns: &[
            column("pps_64", "64 bytes, at most 0.1 % lost", 0),
            column("pps_512", "512 bytes, at most 0.1 % lost", 0),
            column("flood_64", "64 bytes, received of a flood", 0),
            column("flood_512", "512 bytes, received of a flood", 0),
        ],
    },
    Measure {
        name: "memory",
        title: "Memory of a node at full load with 50 neighbours",
        work: over(Plan::star(memory::NEIGHBOURS), hub, memory::round),
        columns: &[
            column("idle_mib", "after a first transfer MiB", 1),
            Column { key: "peak_mib", head: "peak MiB", digits: 1, sum: Sum::Largest },
            column("mbit", "Mbit/s, all flows", 0),
        ],
    },
    Measure {
        name: "profile",
        title: "Where the time goes between two nodes, CPU s/GB of both daemons",
        work: over(Plan::chain(2), profiled, profile::round),
        columns: profile::COLUMNS,
    },
];

/// Between neighbours there are no seals.
fn direct(subject: &Subject) -> bool {
    !subject.seals() && !subject.calls()
}

/// The cables themselves, Grange, and what it is compared with.
fn closest(subject: &Subject) -> bool {
    direct(subject) && (subject.is_grange() || [RAW, REFERENCE].contains(&subject.name))
}

/// Grange and what it is compared with.
fn daemons(subject: &Subject) -> bool {
    closest(subject) && subject.name != RAW
}

/// Whoever has a way over several hops.
fn over_hops(subject: &Subject) -> bool {
    subject.kind != peer::Kind::Nebula && !subject.calls()
}

/// Grange as it is on this machine, and what it is compared with.
fn hub(subject: &Subject) -> bool {
    ["grange-aes", "grange-chacha", "grange-kernel", REFERENCE].contains(&subject.name)
}

/// Those whose programs name their functions.
fn profiled(subject: &Subject) -> bool {
    ["grange-aes", "grange-chacha"].contains(&subject.name)
}

fn nothing(_: &Setup) -> Result<()> {
    Ok(())
}

impl Setup {
    /// Starts a subject in a lab of its own, waits until its hosts reach each other, and sends for a second. Tries it
    /// [`ATTEMPTS`] times: Yggdrasil sometimes finds no way over several hops until it is started anew.
    ///
    /// # Errors
    /// The reason why the subject cannot take part.
    pub(crate) fn new(network: &Network, subject: &Subject, programs: &Programs) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let lab = Lab::build(network.plan)?;
            let setup = Self { overlay: peer::start(subject.kind, &lab, programs)?, lab };
            match setup.wait_ready() {
                Ok(()) => {
                    if let Some(check) = &setup.overlay.check {
                        check.wait()?;
                    }
                    (network.prepare)(&setup)?;
                    return Ok(setup);
                }
                Err(error) if attempt == ATTEMPTS => bail!("{error:#}; {}", setup.last_words()),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Waits until packets pass between the first and each other host.
    fn wait_ready(&self) -> Result<()> {
        let last = self.last();
        (1..=last).try_for_each(|host| wait_reachable(&self.lab, self.addresses(), 0, host, READY))?;
        // Yggdrasil and tinc find better ways after the first.
        sleep(Duration::from_secs(1));
        let (flow, length) = (Flow { from: 0, to: last }, Length { seconds: 1, warm_up: 0 });
        iperf::tcp(&self.lab, self.addresses(), &[flow], length).map(drop)
    }

    /// The addresses that lead through the overlay.
    fn addresses(&self) -> &[IpAddr] {
        &self.overlay.addresses
    }

    /// The number of the host at the end of a chain.
    fn last(&self) -> usize {
        self.lab.hosts().len() - 1
    }

    /// What the daemons of the first host said last.
    fn last_words(&self) -> String {
        let said: Vec<String> =
            self.overlay.daemons.iter().flatten().take(1).map(crate::daemon::Daemon::last_words).collect();
        said.join("; ")
    }
}
