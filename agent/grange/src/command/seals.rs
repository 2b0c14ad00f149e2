//! `grange seals`

use crate::{
    control::{client, protocol::Ask},
    failure::Failure,
    output::{Output, Side, Table, ago, bytes, millis},
    report::Seal,
    state::Places,
};

/// Shows the seals with nodes farther away.
pub(crate) fn run(places: &Places, output: &Output) -> Result<(), Failure> {
    let seals: Vec<Seal> = client::ask(&places.socket(), Ask::Seals)?;
    output.show(&seals, |output| text(&seals, output))
}

fn text(seals: &[Seal], output: &Output) -> String {
    if seals.is_empty() {
        return "No seals now. One is made when there is traffic to a node that is no neighbour.\n".into();
    }
    let mut table = Table::new(&[
        ("SEAL", Side::Right),
        ("NODE", Side::Left),
        ("ADDRESS", Side::Left),
        ("DELAY", Side::Right),
        ("MTU", Side::Right),
        ("CIPHER", Side::Left),
        ("PLANE", Side::Left),
        ("UP FOR", Side::Right),
        ("IDLE", Side::Right),
        ("SENT", Side::Right),
        ("RECEIVED", Side::Right),
    ]);
    for seal in seals {
        table.row(vec![
            seal.seal.to_string(),
            seal.peer.name.clone(),
            seal.peer.address.to_string(),
            seal.rtt_us.map_or("-".into(), millis),
            seal.mtu.to_string(),
            seal.cipher.clone(),
            seal.plane.clone(),
            ago(seal.age_s),
            ago(seal.idle_s),
            bytes(seal.sent_bytes),
            bytes(seal.received_bytes),
        ]);
    }
    table.text(output)
}
