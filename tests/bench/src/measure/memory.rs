//! The memory of a node with many neighbours, several of which send at once as fast as they can.

use std::ops::Range;

use anyhow::Result;

use super::{Options, Sample, Setup};
use crate::iperf::{self, Flow, Length};

/// Neighbours of the node that is measured.
pub(super) const NEIGHBOURS: usize = 50;

/// Neighbours that send through the node to others.
const THROUGH: Range<usize> = 1..5;

/// Flows at the same time: from neighbours to others through the node, to the node itself, and from it.
fn flows() -> Vec<Flow> {
    let through = THROUGH.map(|from| Flow { from, to: NEIGHBOURS + 1 - from });
    let own = [Flow { from: 11, to: 0 }, Flow { from: 12, to: 0 }, Flow { from: 0, to: 13 }, Flow { from: 0, to: 14 }];
    through.chain(own).collect()
}

/// All flows at once; the node's peak since its start.
///
/// # Errors
/// If nothing arrives or the daemon has ended.
pub(super) fn round(setup: &Setup, options: Options) -> Result<Sample> {
    let idle = setup.overlay.peak_memory(0)?;
    let length = Length { seconds: options.seconds, warm_up: 0 };
    let arrived = iperf::tcp(&setup.lab, setup.addresses(), &flows(), length)?;
    Ok(Sample::from([
        ("idle_mib", idle),
        ("peak_mib", setup.overlay.peak_memory(0)?),
        ("mbit", arrived.iter().map(|flow| flow.mbit).sum()),
    ]))
}
