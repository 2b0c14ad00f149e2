//! A TCP flow from the first host of a chain to the last.

use std::time::Duration;

use anyhow::Result;

use super::{Options, Sample, Setup};
use crate::{
    iperf::{self, Flow, Length},
    machine::Time,
    ping::ping,
    stats::median,
};

/// Echoes on an idle line before each transfer.
const PINGS: u32 = 200;

/// Pings on the idle line, then one flow; the daemons' processor time is read before and after it.
///
/// # Errors
/// If nothing arrives or a daemon has ended.
pub(super) fn round(setup: &Setup, options: Options) -> Result<Sample> {
    let (lab, overlay, last) = (&setup.lab, &setup.overlay, setup.last());
    let times = ping(&lab.hosts()[0], overlay.addresses[last], PINGS, Duration::from_millis(10))?;
    let (before, worked) = (overlay.cpu()?, Time::now()?);
    let length = Length { seconds: options.seconds, warm_up: 0 };
    let arrived = iperf::tcp(lab, &overlay.addresses, &[Flow { from: 0, to: last }], length)?;
    let (after, now) = (overlay.cpu()?, Time::now()?);
    let gigabytes = arrived.iter().map(|flow| flow.bytes).sum::<f64>() / 1e9;
    let used: Vec<f64> = before.iter().zip(&after).map(|(before, after)| (after - before) / gigabytes).collect();
    let mut sample = Sample::from([
        ("mbit", arrived.iter().map(|flow| flow.mbit).sum()),
        ("retransmits", arrived.iter().map(|flow| flow.retransmits).sum()),
        ("machine_s_per_gb", now.worked_since(worked) / gigabytes),
        ("stolen_s", now.stolen_since(worked)),
    ]);
    sample.extend(median(&times).map(|time| ("ping_ms", time)));
    if overlay.daemons.iter().any(|daemons| !daemons.is_empty()) {
        sample.insert("cpu_s_per_gb", used.iter().sum());
        let peaks = (0..=last).map(|host| overlay.peak_memory(host)).collect::<Result<Vec<f64>>>()?;
        sample.insert("peak_mib", peaks.into_iter().fold(0.0, f64::max));
        if let [_, middle, _] = used[..] {
            sample.insert("forward_s_per_gb", middle);
        }
    }
    Ok(sample)
}
