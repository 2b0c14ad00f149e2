//! Round-trip times by `ping`.

use std::{net::IpAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use grange_netns::wait_until;

use crate::lab::{Host, Lab};

/// Sends `count` echoes, one each `interval`, and gives the round-trip times of those that came back, in milliseconds.
///
/// # Errors
/// If `ping` cannot be started, or none comes back.
pub(crate) fn ping(host: &Host, to: IpAddr, count: u32, interval: Duration) -> Result<Vec<f64>> {
    let limit = interval.as_secs_f64() * f64::from(count) + 5.0;
    let mut command = host.namespace().command("timeout");
    command.args([&format!("{limit}"), "ping", "-n", "-W", "1", "-c", &count.to_string()]);
    command.args(["-i", &interval.as_secs_f64().to_string(), &to.to_string()]);
    let output = command.stdin(Stdio::null()).output().context("starting ping")?;
    let times = times(&String::from_utf8_lossy(&output.stdout));
    anyhow::ensure!(!times.is_empty(), "no answer to {count} pings from {to}");
    Ok(times)
}

/// The times in what `ping` prints.
fn times(text: &str) -> Vec<f64> {
    text.lines().filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok()).collect()
}

/// Waits until two hosts reach each other.
///
/// # Errors
/// If they do not within `limit`.
pub(crate) fn wait_reachable(lab: &Lab, addresses: &[IpAddr], a: usize, b: usize, limit: Duration) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        wait_until(&format!("host {from} to reach host {to}"), limit, || {
            ping(&lab.hosts()[from], addresses[to], 1, Duration::from_secs(1)).map(|_| Some(()))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read() {
        let text = "PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.\n\
                    64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.512 ms\n\
                    64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=12 ms (DUP!)\n\
                    \n2 packets transmitted, 2 received, 0% packet loss, time 1001ms\n";
        assert_eq!(super::times(text), [0.512, 12.0]);
    }
}
