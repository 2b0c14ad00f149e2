//! Latency under load: what a person on the telephone hears while another downloads.

use std::{
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Options, Sample, Setup};
use crate::{
    iperf::{self, Flow, Length},
    ping::ping,
    stats::{median, quantile},
};

/// Seconds in which TCP finds the speed of the cable; they do not count.
const WARM_UP: u32 = 2;

/// Time between two pings.
const INTERVAL: Duration = Duration::from_millis(20);

/// One flow, and pings the same way while it runs.
///
/// # Errors
/// If nothing arrives.
pub(super) fn round(setup: &Setup, options: Options) -> Result<Sample> {
    let (lab, addresses, last) = (&setup.lab, setup.addresses(), setup.last());
    let length = Length { seconds: options.seconds, warm_up: WARM_UP };
    let (arrived, times) = thread::scope(|scope| {
        let flow = scope.spawn(|| iperf::tcp(lab, addresses, &[Flow { from: 0, to: last }], length));
        sleep(Duration::from_secs(WARM_UP.into()));
        // The last interval is left free, so that no ping falls behind the flow's end.
        let count = options.seconds * 1000 / INTERVAL.as_millis() as u32 - 10;
        let times = ping(&lab.hosts()[0], addresses[last], count, INTERVAL);
        let flow = flow.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread of a flow panicked")));
        (flow, times)
    });
    let (arrived, times) = (arrived?, times?);
    let mut sample = Sample::from([("mbit", arrived.iter().map(|flow| flow.mbit).sum())]);
    sample.insert("loaded_median_ms", median(&times).context("no ping came back")?);
    sample.insert("loaded_p95_ms", quantile(&times, 0.95).context("no ping came back")?);
    Ok(sample)
}
