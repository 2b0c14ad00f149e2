//! What members are called, and whose IPv4 address it is (`docs/town.md`, Names).

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    net::Ipv4Addr,
};

use grange_wire::{NodeId, node_address_v4};

use super::{
    index::{Index, Item, What},
    standing::View,
    state::{Clash, Member, Named},
};
use crate::{
    entry::{Author, EntryHash, LogId},
    names::Label,
};

/// Digits of its id that the second of a name gets, at least.
const DIGITS: usize = 4;
/// Lives that are followed back.
const LIVES: usize = 16;

/// The names of all members: the last one that each gave itself; of one label, the lowest id has it.
/// `latest`: by author the entry that was the last one before, where that cannot have changed.
pub(super) fn names(
    view: View<'_>,
    members: &BTreeMap<NodeId, Member>,
    latest: &mut BTreeMap<Author, EntryHash>,
) -> Vec<Named> {
    let mut named = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut second = Vec::new();
    for member in members.values() {
        let Some(own) = view.index.names.get(&member.identity) else { continue };
        let last = latest.get(&member.identity).and_then(|hash| own.get(hash)).or_else(|| {
            let last = own.values().filter(|item| view.counts(item)).max_by_key(|item| age(view.index, item))?;
            latest.insert(member.identity, last.hash);
            Some(last)
        });
        let Some(What::Name { label, services }) = last.map(|item| &item.what) else { continue };
        if !taken.insert(label.clone()) {
            second.push(named.len());
        }
        named.push(Named { node: member.node, label: label.clone(), shown: label.clone(), services: services.clone() });
    }
    for at in second {
        let named = &mut named[at];
        let Ok(label) = Label::new(&named.label) else { continue };
        let shown = (DIGITS..=64).map(|digits| label.with_id(&named.node, digits)).find(|shown| !taken.contains(shown));
        if let Some(shown) = shown {
            taken.insert(shown.clone());
            named.shown = shown;
        }
    }
    named
}

/// Orders what one author wrote: how many lives it goes back, when that life began, which life it is, the number in it.
fn age(index: &Index, item: &Item) -> (usize, u64, u64, u64) {
    let mut depth = 0;
    let mut log = item.place.log();
    while let Some(parent) = index.parent(log).filter(|_| depth < LIVES) {
        (depth, log) = (depth + 1, parent.log());
    }
    let first = LogId { ..item.place.log() }.at(1);
    let began = index.at(&first).iter().filter_map(|hash| index.items.get(hash)).map(|item| item.time).min();
    (depth, began.unwrap_or(0), item.place.life, item.place.seq)
}

/// The IPv4 addresses that more than one member drew.
pub(super) fn clashes(members: &BTreeMap<NodeId, Member>) -> Vec<Clash> {
    let mut holders: BTreeMap<Ipv4Addr, NodeId> = BTreeMap::new();
    let mut clashes: BTreeMap<Ipv4Addr, Clash> = BTreeMap::new();
    // Ascending ids: the first to draw an address has it.
    for node in members.keys() {
        let address = node_address_v4(node);
        match holders.entry(address) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(*node);
            }
            btree_map::Entry::Occupied(holder) => {
                let holder = *holder.get();
                let clash = clashes.entry(address).or_insert(Clash { address, holder, others: Vec::new() });
                clash.others.push(*node);
            }
        }
    }
    clashes.into_values().collect()
}
