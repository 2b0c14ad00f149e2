//! Throughput as `iperf3` measures it, for comparisons of one way through the kernel with another.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Namespace, Unavailable, privileges::find_tool, run};

/// One TCP stream for `span` from `client` to `server`, where `address` is: what arrived, in Mbit/s.
///
/// # Errors
/// [`Unavailable`] without `iperf3`; if the stream breaks or carries nothing.
pub fn iperf3(client: &Namespace, server: &Namespace, address: IpAddr, span: Duration) -> Result<f64> {
    if find_tool("iperf3").is_none() {
        return Err(Unavailable("`iperf3` is missing; as root: apt-get install iperf3".into()).into());
    }
    let _server = Server::start(server, address)?;
    let (to, seconds) = (address.to_string(), span.as_secs().max(1).to_string());
    let mut command = client.command("iperf3");
    command.args(["--client", &to, "--time", &seconds, "--json", "--connect-timeout", "10000"]);
    let report: Value = serde_json::from_str(&run(&mut command, None)?).context("reading iperf3's report")?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 reports no rate")?;
    if rate <= 0.0 {
        bail!("iperf3 to {address} carried nothing");
    }
    Ok(rate / 1e6)
}

/// A server for one client, ended when dropped.
struct Server {
    child: Child,
    /// Kept, since a server whose output nobody takes ends.
    _output: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Gives it when it listens.
    fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--one-off", "--forceflush", "--bind", &address.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut server = Self { child: child.context("starting iperf3")?, _output: None };
        let mut output = BufReader::new(server.child.stdout.take().context("iperf3 has no output")?);
        let mut line = String::new();
        while output.read_line(&mut line).context("reading from iperf3")? > 0 {
            if line.starts_with("Server listening") {
                server._output = Some(output);
                return Ok(server);
            }
            line.clear();
        }
        bail!("iperf3 does not listen on {address}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
