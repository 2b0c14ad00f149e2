//! Grange: real agents, each with a state of its own, in a town that they found and join by the command line.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use grange_netns::{run, wait_until};
use serde_json::Value;

use super::{Overlay, Programs};
use crate::{
    daemon::Daemon,
    lab::{Host, Lab},
};

/// What packets go through, and what seals them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The user-space plane with AES-256-GCM.
    Aes,
    /// The user-space plane with ChaCha20-Poly1305.
    Chacha,
    /// The kernel plane: WireGuard, and so ChaCha20-Poly1305.
    Kernel,
}

/// How neighbours find each other, and so what their frames travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// By beacons on the cable: IPv6 between link-local addresses.
    Beacons,
    /// One calls the other's IPv4 address, as over the Internet.
    Calls,
}

/// Which settings the program knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// `mesh.cipher`.
    cipher: bool,
    /// `mesh.seals`.
    seals: bool,
    /// `mesh.plane`.
    plane: bool,
}

impl Abilities {
    /// Asks the program.
    ///
    /// # Errors
    /// If it does not even show its settings.
    pub(crate) fn of(program: &Path) -> Result<Self> {
        let knows = |setting: &str| {
            let mut command = Command::new(program);
            command.args(["--config", "/dev/null", "config"]);
            if !setting.is_empty() {
                command.args(["--set", setting]);
            }
            run(&mut command, None)
        };
        knows("")?;
        Ok(Self {
            cipher: knows("mesh.cipher=auto").is_ok(),
            seals: knows("mesh.seals=true").is_ok(),
            plane: knows("mesh.plane=userspace").is_ok(),
        })
    }
}

/// What the agents say of their links and seals is to be as was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    suite: Suite,
    seals: bool,
    program: PathBuf,
    /// Each host's files and address.
    hosts: Vec<(PathBuf, IpAddr)>,
}

/// Founds a town, lets all hosts join and starts the agents.
///
/// # Errors
/// If the program does not know a setting that makes the difference, or fails.
pub(super) fn start(lab: &Lab, programs: &Programs, suite: Suite, seals: bool, meeting: Meeting) -> Result<Overlay> {
    let (program, abilities) = (&programs.grange, programs.abilities);
    match suite {
        Suite::Aes if !abilities.cipher => bail!("this grange has no choice of cipher (mesh.cipher)"),
        Suite::Kernel if !programs.machine.wireguard => bail!("this kernel has no WireGuard"),
        Suite::Kernel if !abilities.plane => bail!("this grange has no choice of plane (mesh.plane)"),
        _ => {}
    }
    ensure!(!seals || abilities.seals, "this grange has no seals (mesh.seals)");
    for host in lab.hosts() {
        host.write("grange.toml", &config(host, abilities, suite, seals, meeting))?;
    }
    let (first, others) = lab.hosts().split_first().context("a lab without hosts")?;
    let tell = |host: &Host, words: &[&str]| {
        let mut command = host.namespace().command(program);
        run(with_files(&mut command, host.directory()).args(words), None)
    };
    tell(first, &["town", "found", "Bench"])?;
    for host in others {
        let text = tell(first, &["town", "invite"])?;
        let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        let invitation = words.find(|word| word.starts_with("grange1"));
        tell(host, &["town", "join", invitation.with_context(|| format!("no invitation in: {text}"))?])?;
    }
    let (mut daemons, mut names, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for host in lab.hosts() {
        let keys = json(program, host.directory(), "key")?;
        let address = |key: &str| keys[key].as_str().context("grange key names no address");
        names.push(address("address")?.parse::<IpAddr>().context("the address of grange key")?);
        // As the other subjects' packets: IPv4.
        addresses.push(address("address_v4")?.parse::<IpAddr>().context("the IPv4 address of grange key")?);
        let files = with_files(&mut Command::new(program), host.directory())
            .arg("run")
            .get_args()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>();
        daemons.push(Daemon::start(host, program, files, None)?);
    }
    let folders = lab.hosts().iter().map(|host| host.directory().to_owned());
    let check = Check { suite, seals, program: program.clone(), hosts: folders.zip(names).collect() };
    let mut overlay = Overlay::one_each(daemons, addresses);
    overlay.check = Some(check);
    Ok(overlay)
}

/// A host's configuration. Settings that the program does not know are left out.
fn config(host: &Host, abilities: Abilities, suite: Suite, seals: bool, meeting: Meeting) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let (interfaces, peers) = match meeting {
        Meeting::Beacons => (list(host.ports().iter().map(|port| format!("{:?}", port.name)).collect()), String::new()),
        Meeting::Calls => {
            let calls = host.ports().iter().filter(|port| port.calls);
            (String::new(), list(calls.map(|port| format!("\"{}:7264\"", port.far_address)).collect()))
        }
    };
    let mut text = format!(
        "name = \"n{}\"\n[mesh]\ninterfaces = [{interfaces}]\npeers = [{peers}]\nmdns = false\n",
        host.number()
    );
    if abilities.plane {
        text += if suite == Suite::Kernel { "plane = \"auto\"\n" } else { "plane = \"userspace\"\n" };
    }
    if abilities.cipher {
        text += if suite == Suite::Chacha { "cipher = \"chacha20-poly1305\"\n" } else { "cipher = \"auto\"\n" };
    }
    if abilities.seals {
        text += &format!("seals = {seals}\n");
    }
    text + "[lan]\ninterfaces = []\n"
}

/// Adds the options that name a host's files; nothing of the caller's environment is meant for it.
fn with_files<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"GRANGE_") {
            command.env_remove(variable);
        }
    }
    command.arg("--config").arg(folder.join("grange.toml"));
    command.arg("--state-dir").arg(folder.join("state"));
    command.arg("--runtime-dir").arg(folder.join("control"))
}

/// Asks a host's `grange`; the control socket is a file, so from anywhere.
fn json(program: &Path, folder: &Path, word: &str) -> Result<Value> {
    let text = run(with_files(&mut Command::new(program), folder).args(["--json", word]), None)?;
    serde_json::from_str(&text).with_context(|| format!("reading what grange --json {word} says"))
}

impl Check {
    /// Waits until every link is of the plane and cipher that were asked for, and, where there shall be seals, one between
    /// the first and the last host too. To be called when packets have passed between them: they make the seal.
    ///
    /// # Errors
    /// If that is not so within 15 s: what is instead.
    pub(crate) fn wait(&self) -> Result<()> {
        wait_until("links and seals as asked for", Duration::from_secs(15), || {
            for (folder, _) in &self.hosts {
                self.suite.agrees_with_all(&json(&self.program, folder, "links")?)?;
            }
            if self.seals {
                let ((folder, _), (_, last)) = (&self.hosts[0], &self.hosts[self.hosts.len() - 1]);
                let seals = json(&self.program, folder, "seals")?;
                self.suite.agrees_with_all(&seals)?;
                let to_last = |seal: &Value| seal["peer"]["address"] == last.to_string();
                ensure!(seals.as_array().is_some_and(|seals| seals.iter().any(to_last)), "no seal with the last host");
            }
            Ok(Some(()))
        })
        .map(drop)
    }
}

impl Suite {
    /// Whether all links or seals of a list are of this suite.
    fn agrees_with_all(self, list: &Value) -> Result<()> {
        list.as_array().context("grange printed no list")?.iter().try_for_each(|link| self.agrees(link))
    }

    /// Whether a link or a seal, as `grange --json links` shows it, is of this suite.
    fn agrees(self, link: &Value) -> Result<()> {
        let is = |key: &str, wanted: &str| {
            let says = link[key].as_str().with_context(|| format!("this grange does not say a link's {key}"))?;
            ensure!(says == wanted, "a link's {key} is {says}");
            Ok(())
        };
        match self {
            Self::Aes => is("plane", "userspace").and_then(|()| is("cipher", "aes-256-gcm")),
            Self::Chacha => is("plane", "userspace").and_then(|()| is("cipher", "chacha20-poly1305")),
            // WireGuard has one cipher; the one that is named is of what the agent moves itself.
            Self::Kernel => is("plane", "kernel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_link_of_another_suite_is_found() {
        let link = json!({ "plane": "userspace", "cipher": "aes-256-gcm" });
        assert!(Suite::Aes.agrees(&link).is_ok());
        assert_eq!(Suite::Chacha.agrees(&link).unwrap_err().to_string(), "a link's cipher is aes-256-gcm");
        assert_eq!(Suite::Kernel.agrees(&link).unwrap_err().to_string(), "a link's plane is userspace");
        assert!(Suite::Kernel.agrees(&json!({ "plane": "kernel", "cipher": "aes-256-gcm" })).is_ok());
        assert!(Suite::Chacha.agrees(&json!({})).is_err());
        assert!(Suite::Aes.agrees_with_all(&json!([link, { "plane": "kernel" }])).is_err());
    }
}
