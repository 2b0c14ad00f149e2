//! The subjects' daemons: how each is configured and started in a lab.

mod fastd;
mod grange;
mod nebula;
mod raw;
mod tinc;
mod wireguard;
mod yggdrasil;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;

pub(crate) use grange::{Abilities, Meeting, Suite};
pub(crate) use wireguard::Release;

use crate::{daemon::Daemon, debian::Packages, lab::Lab, machine::Machine};

/// How long daemons may take to end by themselves.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What subjects are started with.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The `grange` program.
    pub(crate) grange: PathBuf,
    /// What it can be told.
    pub(crate) abilities: Abilities,
    /// The peers, if they could be had.
    pub(crate) packages: Packages,
    /// What the machine is.
    pub(crate) machine: Machine,
}

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the kernel forwards on the bare cables.
    Raw,
    /// Grange.
    Grange {
        /// Which packets it seals by what.
        suite: Suite,
        /// Whether traffic of nodes that are not neighbours is sealed end to end.
        seals: bool,
        /// How neighbours find each other.
        meeting: Meeting,
    },
    /// WireGuard on each hop, the kernel forwards.
    Wireguard(Release),
    /// fastd on each hop, the kernel forwards.
    Fastd,
    /// tinc, which encrypts and forwards on each hop.
    Tinc,
    /// nebula between two hosts.
    Nebula,
    /// Yggdrasil, which encrypts end to end.
    Yggdrasil,
}

/// Running daemons and the addresses that lead through them.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Of each host, in the order of the lab.
    pub(crate) daemons: Vec<Vec<Daemon>>,
    /// Of each host, in the order of the lab.
    pub(crate) addresses: Vec<IpAddr>,
    /// What is to be asked again once packets have passed.
    pub(crate) check: Option<grange::Check>,
}

impl Overlay {
    /// Processor time of each host's daemons so far, in seconds.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn cpu(&self) -> Result<Vec<f64>> {
        self.daemons.iter().map(|daemons| daemons.iter().map(Daemon::cpu).sum()).collect()
    }

    /// The peak of the memory of one host's daemons so far, in MiB.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn peak_memory(&self, host: usize) -> Result<f64> {
        self.daemons[host].iter().map(Daemon::peak_memory).sum()
    }

    fn one_each(daemons: Vec<Daemon>, addresses: Vec<IpAddr>) -> Self {
        Self { daemons: daemons.into_iter().map(|daemon| vec![daemon]).collect(), addresses, check: None }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let mut daemons: Vec<Daemon> = self.daemons.drain(..).flatten().collect();
        daemons.iter().for_each(Daemon::stop);
        let start = Instant::now();
        // Those that do not end are killed when `daemons` goes.
        while start.elapsed() < STOP_LIMIT && !daemons.iter_mut().all(Daemon::has_ended) {
            sleep(Duration::from_millis(20));
        }
    }
}

/// Starts a subject's daemons in a lab, without waiting until they reach each other.
///
/// # Errors
/// The reason why the subject cannot take part.
pub(crate) fn start(kind: Kind, lab: &Lab, programs: &Programs) -> Result<Overlay> {
    let packages = &programs.packages;
    match kind {
        Kind::Raw => raw::start(lab),
        Kind::Grange { suite, seals, meeting } => grange::start(lab, programs, suite, seals, meeting),
        Kind::Wireguard(release) => wireguard::start(lab, programs, release),
        Kind::Fastd => fastd::start(lab, packages),
        Kind::Tinc => tinc::start(lab, packages),
        Kind::Nebula => nebula::start(lab, packages),
        Kind::Yggdrasil => yggdrasil::start(lab, packages),
    }
}

/// The addresses of all hosts, for overlays that take those given.
fn given(lab: &Lab) -> Vec<IpAddr> {
    lab.hosts().iter().map(|host| host.overlay().into()).collect()
}

/// Routes from each host to each other by the overlay's interface towards the next host, for overlays with one interface a
/// cable.
fn route_hop_by_hop(lab: &Lab, interface: impl Fn(usize, usize) -> String) -> Result<()> {
    for host in lab.hosts() {
        for other in lab.hosts().iter().filter(|other| other.number() != host.number()) {
            let next = lab.next(host.number(), other.number())?.far;
            host.namespace().ip(&format!(
                "route replace {}/32 dev {} src {}",
                other.overlay(),
                interface(host.number(), next),
                host.overlay()
            ))?;
        }
    }
    Ok(())
}

/// Runs a program in a folder and gives what it prints.
fn made(program: &Path, arguments: &[&str], folder: &Path, input: Option<&str>) -> Result<String> {
    grange_netns::run(std::process::Command::new(program).args(arguments).current_dir(folder), input)
}
