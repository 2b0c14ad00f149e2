//! `grange status`

use crate::{
    control::{client, protocol::Ask},
    failure::Failure,
    output::{Output, Side, Table, ago},
    report::{Drops, Gateway, Status},
    state::Places,
};

/// Shows how the node is doing.
pub(crate) fn run(places: &Places, output: &Output) -> Result<(), Failure> {
    let status: Status = client::ask(&places.socket(), Ask::Status)?;
    output.show(&status, |output| text(&status, output))
}

fn text(status: &Status, output: &Output) -> String {
    let town = match &status.town {
        Some(town) => format!("{} ({})", town.name, &town.id),
        None => "none: found one with `grange town found NAME`, or join one with `grange town join INVITATION`".into(),
    };
    let count = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let mut pairs = vec![
        ("node", status.name.clone()),
        ("address", format!("{}, {}", status.address, status.address_v4)),
        ("own network", status.prefix.clone()),
        ("town", town),
        (
            "mesh",
            format!(
                "{}, {}",
                count(status.links, "link", "links"),
                count(status.routes, "destination", "destinations")
            ),
        ),
        ("uplink", uplink(&status.gateway)),
        ("agent", format!("grange {}, running for {}, {} plane", status.version, ago(status.uptime_s), status.plane)),
    ];
    let drops = drops(&status.drops);
    if !drops.is_empty() {
        pairs.push(("dropped", drops));
    }
    let mut text = output.pairs(&pairs);
    if !status.interfaces.is_empty() {
        let mut table = Table::new(&[
            ("INTERFACE", Side::Left),
            ("KIND", Side::Left),
            ("STATE", Side::Left),
            ("MTU", Side::Right),
            ("USE", Side::Left),
            ("WHY", Side::Left),
        ]);
        for iface in &status.interfaces {
            table.row(vec![
                iface.name.clone(),
                iface.kind.clone(),
                if iface.up { "up" } else { "down" }.into(),
                iface.mtu.to_string(),
                iface.role.clone(),
                iface.why.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text(output));
    }
    text
}

/// What was dropped for a reason that somebody may want to look into. Queues that are full, ways that are gone and frames
/// that come late are everyday matters.
fn drops(drops: &Drops) -> String {
    let reasons = [
        (drops.unsealed, "from farther away without a seal"),
        (drops.invalid, "malformed or in a false name"),
        (drops.refused, "that could not be sent"),
        (drops.device, "that this machine did not take"),
        (drops.control, "of the mesh's own that came too fast"),
    ];
    let reasons = reasons.into_iter().filter(|(count, _)| *count > 0);
    reasons.map(|(count, reason)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

fn uplink(gateway: &Gateway) -> String {
    let protocols = match (gateway.v4, gateway.v6) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4 only",
        (false, true) => "IPv6 only",
        (false, false) => "but it leads nowhere now",
    };
    match (&gateway.interface, gateway.sharing) {
        (Some(interface), true) => format!("{interface}, shared with the town: {protocols}"),
        (None, true) => "to be shared, but no interface leads to the Internet".into(),
        (Some(interface), false) => format!("{interface}, not shared"),
        (None, false) => "not shared".into(),
    }
}
