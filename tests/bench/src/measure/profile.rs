//! Where the processor time of two daemons goes, by samples of their stacks (`perf`).

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use super::{Column, Options, Sample, Setup, Sum, transfer};
use crate::daemon::Daemon;

/// Where a sample was taken: each is a column.
const fn part(key: &'static str, head: &'static str) -> Column {
    Column { key, head, digits: 2, sum: Sum::Median }
}

/// The columns of the table: parts of the processor time, then all of it.
pub(super) const COLUMNS: &[Column] = &[
    part(CIPHER, "cipher"),
    part(OWN, "the rest of the program"),
    part(TUN_READ, "TUN read"),
    part(UDP_SEND, "UDP send"),
    part(UDP_RECEIVE, "UDP receive"),
    part(TUN_WRITE, "TUN write"),
    part(KERNEL, "the rest of the kernel"),
    part("cpu_s_per_gb", "all"),
];

const CIPHER: &str = "cipher";
const OWN: &str = "own";
const TUN_READ: &str = "tun_read";
const TUN_WRITE: &str = "tun_write";
const UDP_SEND: &str = "udp_send";
const UDP_RECEIVE: &str = "udp_receive";
const KERNEL: &str = "kernel";

/// Parts of names of functions that are a cipher: of AWS-LC's and ring's assembly.
const CIPHERS: [&str; 8] = ["chacha20", "poly1305", "aes_gcm", "aes_hw", "aesni", "gcm_", "ghash", "hchacha"];

/// Functions of the kernel through which each part goes. Softirqs that run on the way count with what set them off.
const DOORS: [(&str, &str); 8] = [
    ("tun_chr_write", TUN_WRITE),
    ("tun_get_user", TUN_WRITE),
    ("tun_chr_read", TUN_READ),
    ("tun_do_read", TUN_READ),
    ("sendmsg", UDP_SEND),
    ("sendmmsg", UDP_SEND),
    ("recvmsg", UDP_RECEIVE),
    ("recvmmsg", UDP_RECEIVE),
];

/// A transfer while `perf` looks at both daemons; each part's share of the processor time that `/proc` says.
///
/// # Errors
/// If `perf` cannot be started or sees nothing.
pub(super) fn round(setup: &Setup, options: Options) -> Result<Sample> {
    // Looking costs time itself: what all of it is comes from a transfer that nobody looks at.
    let mut sample = transfer::round(setup, options)?;
    let total = sample.get("cpu_s_per_gb").copied().context("no daemon to look at")?;
    let daemons: Vec<String> =
        setup.overlay.daemons.iter().flatten().map(Daemon::id).map(|id| id.to_string()).collect();
    let file = setup.lab.hosts()[0].directory().join("perf.data");
    let mut recorder = Command::new("perf")
        .args(["record", "--quiet", "--event", "cpu-clock", "--freq", "1999", "-g", "--pid", &daemons.join(",")])
        .arg("--output")
        .arg(&file)
        .args(["--", "sleep", &(options.seconds + 3).to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting perf (Debian package: linux-perf)")?;
    // It may end a little before or after the transfer: the pings before that and the idle time cost next to nothing.
    let looked_at = transfer::round(setup, options);
    recorder.wait().context("waiting for perf")?;
    looked_at?;
    let mut script = Command::new("perf");
    script.args(["script", "--fields", "ip,sym,dso", "--input"]).arg(&file);
    script.stdin(Stdio::null()).stderr(Stdio::null());
    let output = thread::scope(|scope| scope.spawn(|| script.output()).join());
    let output =
        output.map_err(|_| anyhow::anyhow!("the thread that reads from perf panicked"))?.context("running perf")?;
    let counts = classify(&String::from_utf8_lossy(&output.stdout));
    let all: u32 = counts.values().sum();
    anyhow::ensure!(all > 0, "perf saw nothing (does kernel.perf_event_paranoid forbid it?)");
    for (part, count) in counts {
        sample.insert(part, total * f64::from(count) / f64::from(all));
    }
    Ok(sample)
}

/// Counts samples by part. A sample is a paragraph of `ADDRESS FUNCTION (FILE)`, the innermost function first.
fn classify(script: &str) -> BTreeMap<&'static str, u32> {
    let mut counts =
        BTreeMap::from([CIPHER, OWN, TUN_READ, TUN_WRITE, UDP_SEND, UDP_RECEIVE, KERNEL].map(|part| (part, 0)));
    for stack in script.split("\n\n") {
        let frames: Vec<(&str, &str)> = stack.lines().filter_map(frame).collect();
        let Some(&(leaf, file)) = frames.first() else { continue };
        let lower = leaf.to_lowercase();
        let part = if !in_kernel(file) {
            if CIPHERS.iter().any(|name| lower.contains(name)) { CIPHER } else { OWN }
        } else {
            let mut kernel = frames.iter().filter(|(_, file)| in_kernel(file));
            let door = kernel.find_map(|(name, _)| DOORS.iter().find(|(door, _)| name.contains(door)));
            door.map_or(KERNEL, |(_, part)| part)
        };
        *counts.entry(part).or_insert(0) += 1;
    }
    counts
}

fn in_kernel(file: &str) -> bool {
    file.starts_with("[kernel") || file.starts_with("[guest.kernel") || file.ends_with(".ko")
}

/// Name and file of a line of a stack.
fn frame(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.trim_start().split_once(' ')?;
    let (name, file) = rest.rsplit_once(" (")?;
    Some((name, file.strip_suffix(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_fall_into_parts() {
        let script = "\
            \tffff copy_page_from_iter ([kernel.kallsyms])\n\tffff tun_get_user ([kernel.kallsyms])\n\t55 write (libc.so.6)\n\n\
            \t55 ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2 (/x/grange)\n\n\
            \t55 grange_mesh::plane::run (/x/grange)\n\n\
            \tffff veth_xmit ([kernel.kallsyms])\n\tffff udpv6_sendmsg ([kernel.kallsyms])\n\tffff do_syscall_64 ([kernel.kallsyms])\n\n\
            \tffff schedule ([kernel.kallsyms])\n\tffff do_poll ([kernel.kallsyms])\n\n\
            \t55 aws_lc_0_33_0_chacha20_poly1305_open_avx2 (/x/grange)\n";
        let counts = classify(script);
        for (part, count) in [(TUN_WRITE, 1), (CIPHER, 2), (OWN, 1), (UDP_SEND, 1), (KERNEL, 1), (TUN_READ, 0)] {
            assert_eq!(counts[part], count, "{part}");
        }
    }
}
