//! Settings under `/proc/sys` that hosts on the LAN and a shared uplink need, and their way back.
//!
//! IPv4 is forwarded where the interface that a packet came in by allows it (`conf/IFACE/forwarding`); IPv6 only where
//! `conf/all/forwarding` does. Switching the latter on makes the kernel forget the provider's router advertisements
//! unless the interface has `accept_ra=2`, which therefore goes first (Linux `Documentation/networking/ip-sysctl.rst`).

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use super::undo::{SysctlChange, Undo};

/// What is to be forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// Interfaces that IPv4 packets come in by: the TUN, the LAN, the uplink.
    pub from: BTreeSet<String>,
    /// Interfaces whose router advertisements must still be heard: the uplink.
    pub hear: BTreeSet<String>,
}

/// The directory `/proc/sys`, or another one in tests.
#[derive(Clone, Debug)]
pub(crate) struct Sysctls {
    root: PathBuf,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self { root: "/proc/sys".into() }
    }
}

const ALL_V6: &str = "net/ipv6/conf/all/forwarding";

/// What the kernel itself sets to 0 when a WireGuard interface is switched on (Linux `drivers/net/wireguard/device.c`).
const REDIRECTS: &str = "net/ipv4/conf/all/send_redirects";

impl Sysctls {
    #[cfg(test)]
    pub(crate) fn at(root: &std::path::Path) -> Self {
        Self { root: root.into() }
    }

    /// The value of a setting; none if the kernel has no such setting.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().into())
    }

    /// Sets a setting. Fine if it is gone: so is its interface.
    pub(crate) fn set(&self, path: &str, value: &str) -> io::Result<()> {
        let file = self.root.join(path);
        match fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }

    /// The changes that lead from what is set to `wanted`, in the order in which they are to be made. Where forwarding
    /// was on before us, advertisements were heard or not before us too and are left alone.
    fn changes(&self, wanted: &Forwarding, undo: &Undo) -> Vec<SysctlChange> {
        let mut changes = Vec::new();
        let mut change = |path: String, from: &[&str], to: &str| {
            if let Some(before) = self.get(&path).filter(|before| from.contains(&before.as_str())) {
                changes.push(SysctlChange { path, before, after: to.into() });
            }
        };
        let names = |names: &BTreeSet<String>| {
            names.iter().filter(|name| !name.is_empty() && !name.contains('/')).cloned().collect::<Vec<_>>()
        };
        if self.get(ALL_V6).as_deref() == Some("0") || undo.before(ALL_V6) == Some("0") {
            for name in names(&wanted.hear) {
                change(format!("net/ipv6/conf/{name}/accept_ra"), &["1"], "2");
            }
        }
        for name in names(&wanted.from) {
            change(format!("net/ipv4/conf/{name}/forwarding"), &["0"], "1");
        }
        change(ALL_V6.into(), &["0"], "1");
        changes
    }

    /// Interfaces whose own IPv6 forwarding is on while the setting for all is off; the kernel forgets that when the
    /// one for all is switched on and off again.
    fn overridden(&self) -> Vec<SysctlChange> {
        let Ok(entries) = fs::read_dir(self.root.join("net/ipv6/conf")) else { return Vec::new() };
        let mut found: Vec<SysctlChange> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != "all")
            .map(|name| format!("net/ipv6/conf/{name}/forwarding"))
            .filter(|path| self.get(path).as_deref() == Some("1"))
            .map(|path| SysctlChange { path, before: "1".into(), after: "1".into() })
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// What `undo` has to hold before [`Self::apply`] may be called. What stands there already stays: it is from before
    /// our first change.
    pub(crate) fn record(&self, wanted: &Forwarding, undo: &mut Undo) {
        let changes = self.changes(wanted, undo);
        if changes.iter().any(|change| change.path == ALL_V6) && undo.before(ALL_V6).is_none() {
            for change in self.overridden() {
                if undo.before(&change.path).is_none() {
                    undo.sysctls.push(change);
                }
            }
        }
        // What was changed last is restored first: forwarding goes off while accept_ra still is 2.
        for change in changes {
            if undo.before(&change.path).is_none() {
                undo.sysctls.insert(0, change);
            }
        }
    }

    /// Adds to `undo` what the kernel is about to change when a WireGuard interface is switched on.
    pub(crate) fn record_redirects(&self, undo: &mut Undo) {
        if undo.before(REDIRECTS).is_none() && self.get(REDIRECTS).as_deref() == Some("1") {
            undo.sysctls.push(SysctlChange { path: REDIRECTS.into(), before: "1".into(), after: "0".into() });
        }
    }

    /// Whether `undo` holds more than that: something is forwarded for our sake.
    pub(crate) fn forwards(undo: &Undo) -> bool {
        undo.sysctls.iter().any(|change| change.path != REDIRECTS)
    }

    /// Whether the machine forwards IPv4 and IPv6 for others than us. We switch IPv4 on for single interfaces only,
    /// IPv6 for all.
    pub(crate) fn others(&self, undo: &Undo) -> (bool, bool) {
        let on = |path| self.get(path).is_some_and(|value| value != "0");
        (on("net/ipv4/ip_forward"), on(ALL_V6) && undo.before(ALL_V6) != Some("0"))
    }

    /// Makes the changes.
    pub(crate) fn apply(&self, wanted: &Forwarding, undo: &Undo) -> io::Result<()> {
        self.changes(wanted, undo).iter().try_for_each(|change| self.set(&change.path, &change.after))
    }

    /// Restores all that `undo` holds and takes it out. What somebody else has set to a third value since is left
    /// alone.
    pub(crate) fn restore(&self, undo: &mut Undo) -> io::Result<()> {
        let mut result = Ok(());
        undo.sysctls.retain(|change| {
            let ours = change.before == change.after || self.get(&change.path).as_ref() == Some(&change.after);
            if ours && let Err(error) = self.set(&change.path, &change.before) {
                result = Err(error);
                return true;
            }
            false
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc/sys` of files: the kernel's side effects are played by the test.
    fn tree(values: &[(&str, &str)]) -> (tempfile::TempDir, Sysctls) {
        let dir = tempfile::tempdir().unwrap();
        for (path, value) in values {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        let sysctls = Sysctls::at(dir.path());
        (dir, sysctls)
    }

    fn wanted() -> Forwarding {
        Forwarding { from: ["eth0".into(), "lan".into(), "gone".into()].into(), hear: ["eth0".into()].into() }
    }

    #[test]
    fn the_providers_advertisements_are_kept_before_forwarding_starts() {
        let (_dir, sysctls) = tree(&[
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv6/conf/eth0/forwarding", "0"),
            ("net/ipv6/conf/eth0/accept_ra", "1"),
            ("net/ipv4/conf/eth0/forwarding", "0"),
            ("net/ipv4/conf/lan/forwarding", "1"),
        ]);
        let changes = sysctls.changes(&wanted(), &Undo::default());
        let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(
            paths,
            ["net/ipv6/conf/eth0/accept_ra", "net/ipv4/conf/eth0/forwarding", "net/ipv6/conf/all/forwarding"]
        );
        let mut undo = Undo::default();
        sysctls.record(&wanted(), &mut undo);
        sysctls.apply(&wanted(), &undo).unwrap();
        assert_eq!(sysctls.get("net/ipv6/conf/all/forwarding").unwrap(), "1");
        assert_eq!(sysctls.get("net/ipv6/conf/eth0/accept_ra").unwrap(), "2");
        assert_eq!(undo.sysctls.first().unwrap().path, "net/ipv6/conf/all/forwarding", "forwarding ends first");
        sysctls.restore(&mut undo).unwrap();
        assert!(undo.sysctls.is_empty());
        assert_eq!(sysctls.get("net/ipv6/conf/all/forwarding").unwrap(), "0");
        assert_eq!(sysctls.get("net/ipv6/conf/eth0/accept_ra").unwrap(), "1");
        assert_eq!(sysctls.get("net/ipv4/conf/eth0/forwarding").unwrap(), "0");
        assert_eq!(sysctls.get("net/ipv4/conf/lan/forwarding").unwrap(), "1");
    }

    #[test]
    fn a_machine_that_forwards_already_is_left_alone() {
        let (_dir, sysctls) = tree(&[
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/eth0/accept_ra", "1"),
            ("net/ipv4/conf/eth0/forwarding", "1"),
            ("net/ipv4/conf/lan/forwarding", "1"),
        ]);
        let mut undo = Undo::default();
        sysctls.record(&wanted(), &mut undo);
        assert_eq!(undo, Undo::default());
        assert!(sysctls.changes(&wanted(), &undo).is_empty());
    }

    #[test]
    fn the_first_value_survives_a_killed_run() {
        let (_dir, sysctls) = tree(&[("net/ipv6/conf/all/forwarding", "0"), ("net/ipv6/conf/special/forwarding", "1")]);
        let mut undo = Undo::default();
        sysctls.record(&wanted(), &mut undo);
        sysctls.apply(&wanted(), &undo).unwrap();
        // The run is killed; the next one finds the changed value and the record.
        sysctls.record(&wanted(), &mut undo);
        assert_eq!(undo.before("net/ipv6/conf/all/forwarding"), Some("0"));
        // What the kernel does when the setting for all goes off.
        sysctls.set("net/ipv6/conf/special/forwarding", "0").unwrap();
        sysctls.restore(&mut undo).unwrap();
        assert_eq!(sysctls.get("net/ipv6/conf/all/forwarding").unwrap(), "0");
        assert_eq!(sysctls.get("net/ipv6/conf/special/forwarding").unwrap(), "1");
    }

    #[test]
    fn what_wireguard_changes_by_itself_is_restored() {
        let (_dir, sysctls) = tree(&[(REDIRECTS, "1")]);
        let mut undo = Undo::default();
        sysctls.record_redirects(&mut undo);
        sysctls.set(REDIRECTS, "0").unwrap();
        // A later run finds the changed one.
        sysctls.record_redirects(&mut undo);
        assert_eq!(undo.sysctls.len(), 1);
        sysctls.restore(&mut undo).unwrap();
        assert_eq!(sysctls.get(REDIRECTS).as_deref(), Some("1"));
    }

    #[test]
    fn what_somebody_set_meanwhile_stays() {
        let (_dir, sysctls) = tree(&[("net/ipv6/conf/all/forwarding", "0"), ("net/ipv6/conf/eth0/accept_ra", "1")]);
        let mut undo = Undo::default();
        sysctls.record(&wanted(), &mut undo);
        sysctls.apply(&wanted(), &undo).unwrap();
        sysctls.set("net/ipv6/conf/eth0/accept_ra", "0").unwrap();
        sysctls.restore(&mut undo).unwrap();
        assert_eq!(sysctls.get("net/ipv6/conf/eth0/accept_ra").unwrap(), "0");
    }
}
