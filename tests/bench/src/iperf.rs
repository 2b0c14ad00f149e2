//! TCP flows by `iperf3`.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::lab::{Host, Lab};

/// First port of the servers; each flow of a measurement has its own.
const FIRST_PORT: u16 = 5201;

/// A flow from one host to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// The host that sends.
    pub(crate) from: usize,
    /// The host that receives.
    pub(crate) to: usize,
}

/// What arrived of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrived {
    /// Mbit/s of payload.
    pub(crate) mbit: f64,
    /// Bytes of payload.
    pub(crate) bytes: f64,
    /// Segments that the sender sent again.
    pub(crate) retransmits: f64,
}

/// How long flows run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    /// Seconds that count.
    pub(crate) seconds: u32,
    /// Seconds before them, for TCP to find its speed.
    pub(crate) warm_up: u32,
}

/// A program that is ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs flows at the same time, cubic at both ends, and gives what arrived of each.
///
/// # Errors
/// If `iperf3` cannot be started or says that it failed.
pub(crate) fn tcp(lab: &Lab, addresses: &[IpAddr], flows: &[Flow], length: Length) -> Result<Vec<Arrived>> {
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for (flow, port) in flows.iter().zip(FIRST_PORT..) {
        servers.push(server(&lab.hosts()[flow.to], addresses[flow.to], port)?);
        clients.push((&lab.hosts()[flow.from], addresses[flow.to], port));
    }
    let limit = (length.seconds + length.warm_up + 20).to_string();
    let clients = clients.into_iter().map(|(host, to, port)| {
        let mut command = host.namespace().command("timeout");
        command.args([&limit, "iperf3", "--json", "--congestion", "cubic", "--client", &to.to_string()]);
        command.args(["--port", &port.to_string(), "--time", &length.seconds.to_string()]);
        command.args(["--omit", &length.warm_up.to_string(), "--connect-timeout", "5000"]);
        command.args(["--interval", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().context("starting iperf3")
    });
    // All are started before the first is waited for.
    let clients: Vec<Result<Child>> = clients.collect();
    clients
        .into_iter()
        .map(|client| {
            let output = client?.wait_with_output().context("waiting for iperf3")?;
            read(&String::from_utf8_lossy(&output.stdout))
        })
        .collect()
}

/// Starts a server for one flow and waits until it listens.
fn server(host: &Host, address: IpAddr, port: u16) -> Result<Running> {
    let mut command = host.namespace().command("iperf3");
    command.args([
        "--server",
        "--one-off",
        "--forceflush",
        "--bind",
        &address.to_string(),
        "--port",
        &port.to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().context("starting iperf3")?);
    let mut lines = BufReader::new(running.0.stdout.take().context("the output of iperf3")?);
    let mut line = String::new();
    while lines.read_line(&mut line).context("reading from iperf3")? > 0 {
        if line.contains("Server listening") {
            // The rest is little, and a pipe that nobody reads holds it.
            running.0.stdout = Some(lines.into_inner());
            return Ok(running);
        }
        line.clear();
    }
    bail!("the iperf3 server on {address} ended at once")
}

/// What `iperf3 --json` says, as far as this asks.
#[derive(Deserialize)]
struct Said {
    error: Option<String>,
    end: Option<End>,
}

#[derive(Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
    retransmits: Option<f64>,
}

fn read(json: &str) -> Result<Arrived> {
    let said: Said = serde_json::from_str(json).context("iperf3 did not finish in time")?;
    if let Some(error) = said.error {
        bail!("iperf3: {error}");
    }
    let end = said.end.context("iperf3 says nothing of the end")?;
    let received = end.sum_received.context("iperf3 says nothing of what arrived")?;
    anyhow::ensure!(received.bytes > 0.0, "nothing arrived");
    Ok(Arrived {
        mbit: received.bits_per_second / 1e6,
        bytes: received.bytes,
        retransmits: end.sum_sent.and_then(|sent| sent.retransmits).unwrap_or(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iperf_says_is_read() {
        let json = r#"{"start":{},"intervals":[],"end":{"streams":[],
            "sum_sent":{"bytes":2000,"bits_per_second":2e6,"retransmits":7},
            "sum_received":{"bytes":1000,"bits_per_second":1e6}}}"#;
        assert_eq!(read(json).unwrap(), Arrived { mbit: 1.0, bytes: 1000.0, retransmits: 7.0 });
        let error = read(r#"{"start":{},"end":{},"error":"unable to connect"}"#).unwrap_err();
        assert_eq!(error.to_string(), "iperf3: unable to connect");
        assert!(read("").is_err());
    }
}
