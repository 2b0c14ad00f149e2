//! `grange links`

use crate::{
    control::{client, protocol::Ask},
    failure::Failure,
    output::{Output, Side, Table, ago, bytes, millis},
    report::Link,
    state::Places,
};

/// A cost that means unusable (RFC 8966, section 3.4.2).
const INFINITE: u16 = 0xffff;

/// Shows the links to neighbours.
pub(crate) fn run(places: &Places, output: &Output) -> Result<(), Failure> {
    let links: Vec<Link> = client::ask(&places.socket(), Ask::Links)?;
    output.show(&links, |output| text(&links, output))
}

/// A cost as a person reads it.
pub(super) fn cost(cost: u16) -> String {
    if cost == INFINITE { "none".into() } else { cost.to_string() }
}

fn text(links: &[Link], output: &Output) -> String {
    if links.is_empty() {
        return "No links yet. `grange status` shows on which interfaces neighbours are looked for.\n".into();
    }
    let mut table = Table::new(&[
        ("LINK", Side::Right),
        ("NEIGHBOUR", Side::Left),
        ("ADDRESS", Side::Left),
        ("INTERFACE", Side::Left),
        ("COST", Side::Right),
        ("DELAY", Side::Right),
        ("MTU", Side::Right),
        ("CIPHER", Side::Left),
        ("PLANE", Side::Left),
        ("UP FOR", Side::Right),
        ("SENT", Side::Right),
        ("RECEIVED", Side::Right),
    ]);
    for link in links {
        table.row(vec![
            link.link.to_string(),
            link.peer.name.clone(),
            link.peer.address.to_string(),
            link.interface.clone().unwrap_or_else(|| link.endpoint.clone()),
            cost(link.cost),
            link.rtt_us.map_or("-".into(), millis),
            link.mtu.to_string(),
            link.cipher.clone(),
            link.plane.clone(),
            ago(link.age_s),
            bytes(link.sent_bytes),
            bytes(link.received_bytes),
        ]);
    }
    table.text(output)
}
