//! `grange routes`

use super::links::cost;
use crate::{
    control::{client, protocol::Ask},
    failure::Failure,
    output::{Output, Side, Table},
    report::Route,
    state::Places,
};

/// Shows the ways to all nodes of the town.
pub(crate) fn run(places: &Places, output: &Output) -> Result<(), Failure> {
    let routes: Vec<Route> = client::ask(&places.socket(), Ask::Routes)?;
    output.show(&routes, |output| text(&routes, output))
}

fn text(routes: &[Route], output: &Output) -> String {
    if routes.is_empty() {
        return "No routes yet. `grange links` shows the neighbours they would come from.\n".into();
    }
    let mut table = Table::new(&[
        ("", Side::Left),
        ("DESTINATION", Side::Left),
        ("VIA", Side::Left),
        ("LINK", Side::Right),
        ("INTERFACE", Side::Left),
        ("COST", Side::Right),
        ("OWNER", Side::Left),
    ]);
    for route in routes {
        table.row(vec![
            if route.selected { "*" } else { "" }.into(),
            route.prefix.clone(),
            route.via.name.clone(),
            route.via.link.to_string(),
            route.interface.clone().unwrap_or_else(|| "-".into()),
            cost(route.metric),
            route.owner.name.clone().unwrap_or_else(|| route.owner.id.chars().take(16).collect()),
        ]);
    }
    table.text(output)
}
