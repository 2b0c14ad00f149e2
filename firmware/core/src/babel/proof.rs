//! Who may announce what, and how it is proved.

use alloc::collections::{BTreeSet, VecDeque};

use grange_wire::{
    NodeId, Prefix, RouterId, TownId,
    babel::{ProofView, Seqno},
    lan_prefix, node_address, node_address_v4,
};

use crate::{Identity, identity};

/// Proofs that are remembered as good.
const MAX_VERIFIED: usize = 4096;
const CONTEXT: &str = "grange v1 prefix";

/// An owner's signature over an announcement. It is passed on unchanged from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    owner: [u8; 32],
    signature: [u8; 64],
}

impl Proof {
    pub(super) fn view(&self) -> ProofView<'_> {
        ProofView { owner: &self.owner, signature: &self.signature }
    }
}

/// What a proof is over.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) prefix: Prefix,
    pub(super) router_id: RouterId,
    pub(super) seqno: Seqno,
}

impl Claim {
    /// Calls `with` with the parts that are signed: town id, address family (1 or 2) and prefix length, address,
    /// router-id, seqno.
    fn parts<T>(&self, town: &TownId, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        let head = [if self.prefix.is_v4() { 1 } else { 2 }, self.prefix.len()];
        let seqno = self.seqno.0.to_be_bytes();
        match self.prefix.addr() {
            core::net::IpAddr::V4(addr) => with(&[&town.0, &head, &addr.octets(), &self.router_id.0, &seqno]),
            core::net::IpAddr::V6(addr) => with(&[&town.0, &head, &addr.octets(), &self.router_id.0, &seqno]),
        }
    }

    /// Signs the claim.
    pub(super) fn sign(&self, town: &TownId, identity: &Identity) -> Proof {
        self.parts(town, |parts| Proof { owner: identity.public(), signature: identity.sign(CONTEXT, parts) })
    }
}

/// Whether a prefix follows from a node's id: its LAN, its address, its IPv4 address.
pub(super) fn follows(prefix: &Prefix, owner: &NodeId) -> bool {
    *prefix == lan_prefix(owner)
        || *prefix == Prefix::host(node_address(owner).into())
        || *prefix == Prefix::host(node_address_v4(owner).into())
}

/// Proofs that were found good, so that each is checked once, however many neighbours pass it on.
#[derive(Debug, Default)]
pub(super) struct ProofCache {
    known: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl ProofCache {
    /// Whether this proof is already known to be good.
    pub(super) fn contains(&self, claim: &Claim, view: &ProofView<'_>) -> bool {
        self.known.contains(&fingerprint(claim, view))
    }

    /// Checks the signature and, if it is good, gives the proof and remembers it. The oldest is forgotten for it.
    pub(super) fn check(&mut self, town: &TownId, claim: &Claim, view: &ProofView<'_>) -> Option<Proof> {
        let proof = Proof { owner: *view.owner, signature: *view.signature };
        let print = fingerprint(claim, view);
        if self.known.contains(&print) {
            return Some(proof);
        }
        if !claim.parts(town, |parts| identity::verify(view.owner, CONTEXT, parts, view.signature)) {
            return None;
        }
        if self.order.len() >= MAX_VERIFIED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(print);
        self.order.push_back(print);
        Some(proof)
    }
}

fn fingerprint(claim: &Claim, view: &ProofView<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    // Length and family fix the length of the address, so that no two claims hash the same bytes.
    hasher.update(&[claim.prefix.len(), u8::from(claim.prefix.is_v4())]);
    match claim.prefix.addr() {
        core::net::IpAddr::V4(addr) => hasher.update(&addr.octets()),
        core::net::IpAddr::V6(addr) => hasher.update(&addr.octets()),
    };
    hasher.update(&claim.router_id.0).update(&claim.seqno.0.to_be_bytes()).update(view.owner).update(view.signature);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOWN: TownId = TownId([4; 16]);

    fn claim(identity: &Identity) -> Claim {
        Claim { prefix: lan_prefix(&identity.id()), router_id: RouterId([1; 8]), seqno: Seqno(5) }
    }

    #[test]
    fn a_proof_is_for_one_claim_in_one_town() {
        let owner = Identity::from_seed(&[1; 32]);
        let claim = claim(&owner);
        let proof = claim.sign(&TOWN, &owner);
        let mut cache = ProofCache::default();
        assert!(cache.check(&TOWN, &claim, &proof.view()).is_some());
        assert!(cache.contains(&claim, &proof.view()));
        assert!(ProofCache::default().check(&TownId([5; 16]), &claim, &proof.view()).is_none());
        for other in [
            Claim { seqno: Seqno(6), ..claim },
            Claim { router_id: RouterId([2; 8]), ..claim },
            Claim { prefix: Prefix::DEFAULT_V6, ..claim },
            Claim { prefix: Prefix::DEFAULT_V4, ..claim },
        ] {
            assert!(!cache.contains(&other, &proof.view()));
            assert!(cache.check(&TOWN, &other, &proof.view()).is_none());
        }
    }

    #[test]
    fn only_its_own_prefixes_follow_from_an_id() {
        let (a, b) = (Identity::from_seed(&[1; 32]).id(), Identity::from_seed(&[2; 32]).id());
        for prefix in [lan_prefix(&a), Prefix::host(node_address(&a).into()), Prefix::host(node_address_v4(&a).into())]
        {
            assert!(follows(&prefix, &a) && !follows(&prefix, &b));
        }
        assert!(!follows(&Prefix::new_truncating(node_address(&a).into(), 63), &a));
        assert!(!follows(&Prefix::DEFAULT_V6, &a));
    }

    #[test]
    fn the_cache_is_bounded() {
        let owner = Identity::from_seed(&[1; 32]);
        let mut cache = ProofCache::default();
        cache.order = (0..MAX_VERIFIED as u64).map(|n| *blake3::hash(&n.to_be_bytes()).as_bytes()).collect();
        cache.known = cache.order.iter().copied().collect();
        let claim = claim(&owner);
        assert!(cache.check(&TOWN, &claim, &claim.sign(&TOWN, &owner).view()).is_some());
        assert_eq!((cache.known.len(), cache.order.len()), (MAX_VERIFIED, MAX_VERIFIED));
    }
}
