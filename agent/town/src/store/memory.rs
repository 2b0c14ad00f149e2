//! An archive without a disk, for simulations.

use std::collections::BTreeMap;

use super::StoreError;
use crate::{
    entry::{Entry, EntryHash, LogId, Place},
    fork::ForkProof,
    log::Archive,
};

/// Entries and proofs in memory. Clones share the entries.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    entries: BTreeMap<Place, Entry>,
    forks: BTreeMap<LogId, ForkProof>,
    branches: BTreeMap<EntryHash, Entry>,
}

impl Archive for Memory {
    fn entry(&self, place: Place) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries.get(&place).cloned())
    }

    fn fork(&self, log: LogId) -> Result<Option<ForkProof>, StoreError> {
        Ok(self.forks.get(&log).cloned())
    }

    fn each_entry(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.entries.values().try_for_each(each)
    }

    fn each_fork(&self, each: &mut dyn FnMut(&ForkProof) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.forks.values().try_for_each(each)
    }

    fn branch(&self, hash: EntryHash) -> Result<Option<Entry>, StoreError> {
        Ok(self.branches.get(&hash).cloned())
    }

    fn each_branch(&self, each: &mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.branches.values().try_for_each(each)
    }

    fn keep_branch(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.branches.insert(entry.hash(), entry.clone());
        Ok(())
    }

    fn keep(&mut self, entry: &Entry) -> Result<(), StoreError> {
        self.entries.insert(entry.place(), entry.clone());
        Ok(())
    }

    fn keep_fork(&mut self, proof: &ForkProof) -> Result<(), StoreError> {
        self.forks.insert(proof.place().log(), proof.clone());
        Ok(())
    }

    fn keep_durably(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        entries.iter().try_for_each(|entry| self.keep(entry))
    }
}
