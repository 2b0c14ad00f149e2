//! `grange key`

use data_encoding::HEXLOWER;
use grange_core::Identity;
use grange_wire::{lan_prefix, node_address, node_address_v4};
use serde::Serialize;

use crate::{
    failure::Failure,
    output::Output,
    state::{Places, file::Locked, key},
};

#[derive(Serialize)]
struct Shown {
    id: String,
    address: String,
    address_v4: String,
    prefix: String,
    identity_key: String,
    link_key: String,
    file: String,
}

/// Shows what follows from the node's key; with `new` makes one first.
pub(crate) fn run(places: &Places, output: &Output, new: bool) -> Result<(), Failure> {
    let identity = if new {
        // A damaged or open file is told as such, not as one that exists.
        key::read(&places.state)?;
        Identity::from_seed(&*key::make(&Locked::new(&places.state)?)?)
    } else {
        key::identity(&places.state)?
    };
    let id = identity.id();
    let shown = Shown {
        id: id.to_string(),
        address: node_address(&id).to_string(),
        address_v4: node_address_v4(&id).to_string(),
        prefix: lan_prefix(&id).to_string(),
        identity_key: HEXLOWER.encode(&identity.public()),
        link_key: HEXLOWER.encode(&identity.link_public()),
        file: places.state.join(key::NODE_KEY.file).display().to_string(),
    };
    output.show(&shown, |output| {
        output.pairs(&[
            ("id", shown.id.clone()),
            ("address", format!("{}, {}", shown.address, shown.address_v4)),
            ("own network", shown.prefix.clone()),
            ("identity key (Ed25519, public)", shown.identity_key.clone()),
            ("link key (X25519, public)", shown.link_key.clone()),
            ("secret in", shown.file.clone()),
        ])
    })
}
