//! Everything that an agent may change in a namespace, as text to compare.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::{Context, Result, bail};

use crate::Namespace;

/// Values that change by themselves.
const VOLATILE: &[&str] = &["nf_conntrack_count", "nf_conntrack_buckets", "stat", "random"];

/// Addresses, links, rules, routes, nftables rules and network sysctls of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: Vec<String>,
}

impl Snapshot {
    /// Reads the state of a namespace.
    ///
    /// # Errors
    /// If a program fails.
    pub fn take(namespace: &Namespace) -> Result<Self> {
        let mut lines = Vec::new();
        for command in [
            "ip -d link",
            "ip -d address",
            "ip rule",
            "ip -6 rule",
            "ip -d route show table all",
            "ip -6 -d route show table all",
            "ip token",
            "tc qdisc show",
            "nft list ruleset",
        ] {
            lines.extend(namespace.sh(command)?.lines().map(|line| format!("{command}: {}", without_timers(line))));
        }
        let mut values = BTreeMap::new();
        namespace.inside(|| read_sysctls(Path::new("/proc/sys/net"), &mut values)).context("reading /proc/sys/net")?;
        lines.extend(values.into_iter().map(|(name, value)| format!("{name} = {value}")));
        Ok(Self { lines })
    }

    /// What differs from a later snapshot: gone lines with `-`, new ones with `+`.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let gone = self.lines.iter().filter(|line| !later.lines.contains(line)).map(|line| format!("- {line}"));
        let new = later.lines.iter().filter(|line| !self.lines.contains(line)).map(|line| format!("+ {line}"));
        let mut difference: Vec<String> = gone.chain(new).collect();
        if difference.is_empty() && self.lines != later.lines {
            difference.push("the same lines in another order or number".into());
        }
        difference
    }

    /// Whether nothing differs.
    ///
    /// # Errors
    /// The difference.
    pub fn expect_same(&self, later: &Self) -> Result<()> {
        let difference = self.difference(later);
        if !difference.is_empty() {
            bail!("left behind:\n{}", difference.join("\n"));
        }
        Ok(())
    }
}

/// A bridge's timers run by themselves: `hello_timer 0.42` becomes `hello_timer`.
fn without_timers(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if word.ends_with("_timer") {
            words.next();
        }
    }
    format!("{}{}", &line[..indent], kept.join(" "))
}

fn read_sysctls(directory: &Path, values: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            read_sysctls(&path, values)?;
        } else if !VOLATILE.contains(&entry.file_name().to_string_lossy().as_ref())
            // Some are for writing only, some give an error until they were written.
            && let Ok(value) = fs::read_to_string(&path)
        {
            values.insert(path.display().to_string(), value.trim().to_owned());
        }
    }
    Ok(())
}
