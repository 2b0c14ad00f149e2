//! `grange trace ADDR`

use crate::{
    control::{client, protocol::Ask},
    failure::{Code, Failure},
    output::{Output, Side, Table, millis},
    report::Trace,
    state::Places,
};

/// Shows the way to `destination`, hop by hop.
///
/// # Errors
/// [`Code::Unreached`] if it did not answer, after the way was shown.
pub(crate) fn run(places: &Places, output: &Output, destination: &str) -> Result<(), Failure> {
    let trace: Trace = client::ask(&places.socket(), Ask::Trace { destination: destination.into() })?;
    output.show(&trace, |output| text(&trace, output))?;
    if trace.reached {
        return Ok(());
    }
    let last = trace.hops.iter().rev().find_map(|hop| hop.address.map(|addr| (hop.hop, addr)));
    let so_far = match last {
        Some((hop, addr)) => format!("the last answer came from {addr}, hop {hop}"),
        None if trace.hops.is_empty() => "this node has no way to it".into(),
        None => "no hop answered".into(),
    };
    Err(Failure::new(
        Code::Unreached,
        format!("{} was not reached: {so_far}. `grange routes` shows all ways that are known here.", trace.destination),
    ))
}

fn text(trace: &Trace, output: &Output) -> String {
    if trace.hops.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&[("HOP", Side::Right), ("NAME", Side::Left), ("ADDRESS", Side::Left), ("DELAYS", Side::Left)]);
    for hop in &trace.hops {
        let delays: Vec<String> = hop.rtt_us.iter().map(|rtt| format!("{:>9}", millis(*rtt))).collect();
        table.row(vec![
            hop.hop.to_string(),
            hop.name.clone().unwrap_or_else(|| "-".into()),
            hop.address.map_or("no answer".into(), |addr| addr.to_string()),
            delays.join(" "),
        ]);
    }
    table.text(output)
}
