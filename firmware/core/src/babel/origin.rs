//! What this node itself announces.

use alloc::collections::BTreeMap;
use core::time::Duration;

use grange_wire::{Prefix, RouterId, TownId, babel::Seqno};

use super::proof::{Claim, Proof};
use crate::{Identity, Instant};

/// A seqno is not raised again before this time has passed, whoever asks: each one is a signature for us and a
/// verification for the whole town.
const RAISE_INTERVAL: Duration = Duration::from_millis(100);

/// One prefix of our own. It stays here after it was withdrawn, so that its seqno goes on when it comes back.
#[derive(Debug)]
struct Origin {
    seqno: Seqno,
    /// Wanted by configuration.
    wanted: bool,
    /// A node with a lower id has the same IPv4 address and keeps it.
    ceded: bool,
    raised: Option<Instant>,
    proof: Option<Proof>,
}

/// The prefixes of this node.
#[derive(Debug, Default)]
pub(super) struct Origins {
    prefixes: BTreeMap<Prefix, Origin>,
}

impl Origins {
    /// Sets what is wanted; gives the prefixes for which that is news.
    pub(super) fn set(&mut self, wanted: &[Prefix]) -> alloc::vec::Vec<Prefix> {
        let mut changed = alloc::vec::Vec::new();
        for (prefix, origin) in &mut self.prefixes {
            let now_wanted = wanted.contains(prefix);
            if origin.wanted != now_wanted {
                origin.wanted = now_wanted;
                origin.raise();
                changed.push(*prefix);
            }
        }
        for prefix in wanted {
            if !self.prefixes.contains_key(prefix) {
                let origin = Origin { seqno: Seqno(0), wanted: true, ceded: false, raised: None, proof: None };
                self.prefixes.insert(*prefix, origin);
                changed.push(*prefix);
            }
        }
        changed
    }

    /// Whether the prefix is announced.
    pub(super) fn announces(&self, prefix: &Prefix) -> bool {
        self.prefixes.get(prefix).is_some_and(|origin| origin.wanted && !origin.ceded)
    }

    /// Whether the prefix belongs to this node, even while another has it.
    pub(super) fn wants(&self, prefix: &Prefix) -> bool {
        self.prefixes.get(prefix).is_some_and(|origin| origin.wanted)
    }

    /// Leaves an IPv4 address to the node with the lower id, or takes it back.
    pub(super) fn set_ceded(&mut self, prefix: &Prefix, ceded: bool) {
        if let Some(origin) = self.prefixes.get_mut(prefix)
            && origin.ceded != ceded
        {
            origin.ceded = ceded;
            origin.raise();
        }
    }

    /// The seqno of an announced prefix.
    pub(super) fn seqno(&self, prefix: &Prefix) -> Option<Seqno> {
        self.prefixes.get(prefix).filter(|origin| origin.wanted && !origin.ceded).map(|origin| origin.seqno)
    }

    /// Somebody asked for a later seqno: one step, and not too often (RFC 8966, section 3.8.1.2). Gives whether it was done.
    pub(super) fn raise(&mut self, now: Instant, prefix: &Prefix) -> bool {
        let Some(origin) = self.prefixes.get_mut(prefix) else { return false };
        if origin.raised.is_some_and(|raised| now.since(raised) < RAISE_INTERVAL) {
            return false;
        }
        origin.raised = Some(now);
        origin.raise();
        true
    }

    /// The proof for an announced prefix, signed when it is first needed.
    pub(super) fn proof(
        &mut self,
        prefix: &Prefix,
        router_id: RouterId,
        town: &TownId,
        identity: &Identity,
    ) -> Option<Proof> {
        let origin = self.prefixes.get_mut(prefix)?;
        let claim = Claim { prefix: *prefix, router_id, seqno: origin.seqno };
        Some(*origin.proof.get_or_insert_with(|| claim.sign(town, identity)))
    }
}

impl Origin {
    fn raise(&mut self) {
        self.seqno = self.seqno.plus(1);
        self.proof = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_withdrawn_prefix_comes_back_with_a_later_seqno() {
        let mut origins = Origins::default();
        let p = Prefix::DEFAULT_V6;
        assert_eq!(origins.set(&[p]), [p]);
        assert_eq!(origins.set(&[p]), []);
        let before = origins.seqno(&p).unwrap();
        assert_eq!(origins.set(&[]), [p]);
        assert_eq!(origins.seqno(&p), None);
        origins.set(&[p]);
        assert!(before.is_before(origins.seqno(&p).unwrap()));
    }

    #[test]
    fn a_seqno_rises_by_one_and_not_too_often() {
        let mut origins = Origins::default();
        let p = Prefix::DEFAULT_V6;
        origins.set(&[p]);
        assert!(origins.raise(Instant::START, &p));
        assert!(!origins.raise(Instant::START + RAISE_INTERVAL / 2, &p));
        assert_eq!(origins.seqno(&p), Some(Seqno(1)));
        assert!(origins.raise(Instant::START + RAISE_INTERVAL, &p));
        assert_eq!(origins.seqno(&p), Some(Seqno(2)));
    }

    #[test]
    fn proofs_are_signed_once_a_seqno() {
        let (identity, town) = (Identity::from_seed(&[3; 32]), TownId([1; 16]));
        let mut origins = Origins::default();
        let p = grange_wire::lan_prefix(&identity.id());
        origins.set(&[p]);
        let first = origins.proof(&p, RouterId([1; 8]), &town, &identity).unwrap();
        assert!(origins.proof(&p, RouterId([1; 8]), &town, &identity) == Some(first));
        origins.raise(Instant::START, &p);
        assert!(origins.proof(&p, RouterId([1; 8]), &town, &identity) != Some(first));
    }
}
