//! WireGuard: one interface a host with its neighbours as peers; the kernel forwards between hops.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, Result, bail};
use grange_netns::{run, wait_until};

use super::{Overlay, Programs};
use crate::{daemon::Daemon, lab::Lab};

/// The interface's name.
const INTERFACE: &str = "wg0";

/// The UDP port.
const PORT: u16 = 51820;

/// Which WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// wireguard-go of Debian 12: a packet a call.
    Go2022,
    /// wireguard-go of its backports, with offloads: what all others are compared with.
    Go2023,
    /// The kernel's own.
    Kernel,
}

/// Keys of a host.
struct Pair {
    private: String,
    public: String,
}

/// Interfaces, keys, peers and routes of all hosts.
///
/// # Errors
/// If the packages or the kernel's module are missing, or a program fails.
pub(super) fn start(lab: &Lab, programs: &Programs, release: Release) -> Result<Overlay> {
    let wg = programs.packages.program("bookworm", "usr/bin/wg")?;
    let program = match release {
        Release::Go2022 => Some(programs.packages.program("bookworm", "usr/bin/wireguard-go")?),
        Release::Go2023 => Some(programs.packages.program("bookworm-backports", "usr/bin/wireguard-go")?),
        Release::Kernel if programs.machine.wireguard => None,
        Release::Kernel => bail!("this kernel has no WireGuard"),
    };
    let mut keys = Vec::new();
    for host in lab.hosts() {
        let private = super::made(&wg, &["genkey"], host.directory(), None)?;
        let public = super::made(&wg, &["pubkey"], host.directory(), Some(&private))?;
        keys.push(Pair { private: private.trim().into(), public: public.trim().into() });
    }
    let mut daemons = Vec::new();
    for host in lab.hosts() {
        match &program {
            Some(program) => {
                daemons.push(vec![Daemon::start(host, program, ["--foreground", INTERFACE], None)?]);
            }
            None => {
                host.namespace().ip(&format!("link add {INTERFACE} type wireguard"))?;
                daemons.push(Vec::new());
            }
        }
    }
    for (host, daemons) in lab.hosts().iter().zip(&daemons) {
        let file = host.write("wg.conf", &config(lab, host.number(), &keys)?)?;
        let mut command = match daemons.first() {
            Some(daemon) => {
                let socket = format!("/run/wireguard/{INTERFACE}.sock");
                wait_until("wireguard-go's socket", Duration::from_secs(10), || Ok(daemon.sees(&socket).then_some(())))
                    .with_context(|| daemon.last_words())?;
                daemon.beside(&wg)
            }
            None => host.namespace().command(&wg),
        };
        run(command.args(["setconf", INTERFACE]).arg(file), None)?;
        host.namespace().ip(&format!("addr add {}/32 dev {INTERFACE}", host.overlay()))?;
        host.namespace().ip(&format!("link set {INTERFACE} mtu 1420 up"))?;
        host.namespace().ip(&format!("route add 10.77.0.0/24 dev {INTERFACE} src {}", host.overlay()))?;
    }
    Ok(Overlay { daemons, addresses: super::given(lab), check: None })
}

/// A host's configuration: each neighbour as a peer, with all hosts that are reached through it.
fn config(lab: &Lab, number: usize, keys: &[Pair]) -> Result<String> {
    let mut behind: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for other in lab.hosts().iter().filter(|other| other.number() != number) {
        let next = lab.next(number, other.number())?.far;
        behind.entry(next).or_default().push(format!("{}/32", other.overlay()));
    }
    let mut text = format!("[Interface]\nPrivateKey={}\nListenPort={PORT}\n", keys[number].private);
    for port in lab.hosts()[number].ports() {
        let allowed = behind.remove(&port.far).unwrap_or_default().join(",");
        let (key, address) = (&keys[port.far].public, port.far_address);
        write!(text, "[Peer]\nPublicKey={key}\nEndpoint={address}:{PORT}\nAllowedIPs={allowed}\n")?;
    }
    Ok(text)
}
