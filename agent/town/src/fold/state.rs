//! The state of the town that a set of entries gives.

use std::{net::Ipv4Addr, sync::Arc};

use grange_wire::NodeId;
use serde::{Serialize, Serializer};

use super::reason::WhyNot;
use crate::{
    entry::{Author, EntryHash, LogId, Place},
    fact::{Decision, FactError, Service, id, ids},
    policy::Policy,
};

/// Who is in the town, by which rules, and what stands out. Every list is in a stated order, so that the same entries give
/// the same bytes on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TownState {
    /// The entry that founded the town; none: it has not come here yet, and there is nobody and nothing.
    pub founding: Option<EntryHash>,
    /// The town's name.
    pub name: String,
    /// Its label in the DNS (`<label>.internal`).
    pub label: String,
    /// Whether anybody may join and nobody is steward.
    pub open: bool,
    /// How often the stewards changed.
    pub generation: u32,
    /// The stewards' keys, ascending.
    pub stewards: Vec<Author>,
    /// How many of them decide.
    pub threshold: u16,
    /// Keys that were stewards' and never are again, ascending.
    pub former_stewards: Vec<Author>,
    /// Who is in, by node id.
    pub members: Vec<Member>,
    /// Who was in and is out, by node id.
    pub former: Vec<FormerMember>,
    /// Who was let in by somebody without effect, by node id: at most [`REFUSED_MAX`].
    pub refused: Vec<Refused>,
    /// The invitations of stewards, by key and steward.
    pub invitations: Vec<Invitation>,
    /// What stands in decisions to remove: nodes, ascending.
    #[serde(with = "ids")]
    pub removed_nodes: Vec<NodeId>,
    /// Households, ascending.
    pub removed_households: Vec<String>,
    /// Invitations' keys, ascending.
    pub removed_invitations: Vec<[u8; 32]>,
    /// The policy in force.
    pub policy: PolicyInForce,
    /// Snapshots that were decided, by hash.
    pub snapshots: Vec<SnapshotDecided>,
    /// Members with a name, by node id.
    pub names: Vec<Named>,
    /// IPv4 addresses that more than one member drew, ascending.
    pub clashes: Vec<Clash>,
    /// What waits for approvals of the present stewards, by hash: at most [`PROPOSALS_MAX`].
    pub proposals: Vec<Proposal>,
    /// What people should know, in order of kind and place: at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

/// Entries of [`TownState::refused`], at most: those with the lowest ids.
pub const REFUSED_MAX: usize = 1024;
/// Entries of [`TownState::problems`], at most.
pub const PROBLEMS_MAX: usize = 256;
/// Entries of [`TownState::proposals`], at most: those with the lowest hashes.
pub const PROPOSALS_MAX: usize = 256;
/// Versions of the policy whose texts are at hand, at most: the latest.
pub const POLICY_TEXTS: usize = 16;
/// Members that a town has at most, at a time: so many who came by an invitation that leaked make room when it is removed.
pub const MEMBERS_MAX: usize = 4096;

/// Somebody who is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The node.
    #[serde(with = "id")]
    pub node: NodeId,
    /// Its key.
    pub identity: Author,
    /// Whose node it is; empty: nobody said.
    pub household: String,
    /// Who let it in: a member's identity key, or a steward's key.
    pub sponsor: Author,
    /// Second of mesh time at which it came; none: nobody knew.
    pub admitted: Option<u64>,
    /// The key of the invitation that it came by; none: a steward signed for it.
    pub invitation: Option<[u8; 32]>,
    /// The steward who signed its certificate or invitation.
    pub signer: Author,
}

/// Somebody who was in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormerMember {
    /// As it was.
    pub member: Member,
    /// Why it is out.
    pub why: WhyNot,
}

/// Somebody who was let in without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The node.
    #[serde(with = "id")]
    pub node: NodeId,
    /// Why it is not in.
    pub why: WhyNot,
}

/// An invitation that a steward wrote into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// Its key.
    pub key: [u8; 32],
    /// Who gave it.
    pub steward: Author,
    /// Whose nodes come by it.
    pub household: String,
    /// For how many nodes; 0: any number.
    pub uses: u16,
    /// How many came, those included who are out again.
    pub used: u16,
    /// Second of mesh time from which it is void; 0: never.
    pub expires: u64,
    /// Whether it or its household was removed.
    pub removed: bool,
}

impl Invitation {
    /// How many nodes can still come by it; `None`: any number. 0 if it was removed, whatever the date.
    #[must_use]
    pub fn left(&self) -> Option<u16> {
        if self.removed {
            return Some(0);
        }
        (self.uses != 0).then(|| self.uses.saturating_sub(self.used))
    }
}

/// The policy that all nodes follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyInForce {
    /// The rules; those of a new town before the first decision.
    #[serde(skip)]
    pub rules: Arc<Policy>,
    /// All versions, the first first.
    pub history: Vec<PolicyVersion>,
}

impl PolicyInForce {
    /// The entry that proposed the version in force: what the next one names. [`EntryHash::NONE`]: none was decided.
    #[must_use]
    pub fn hash(&self) -> EntryHash {
        self.history.last().map_or(EntryHash::NONE, |version| version.hash)
    }
}

/// One version of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyVersion {
    /// The entry that proposed it.
    pub hash: EntryHash,
    /// The generation of stewards that decided it.
    pub generation: u32,
    /// Who proposed it.
    pub by: Author,
    /// Second of mesh time at which it was proposed; 0: unknown.
    pub time: u64,
    /// The document; none: older than the last [`POLICY_TEXTS`].
    pub text: Option<String>,
}

/// A snapshot that the stewards decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotDecided {
    /// The entry that proposed it.
    pub proposal: EntryHash,
    /// The hash of its vector.
    pub vector: [u8; 32],
    /// The hash of the set of entries that are kept.
    pub kept: [u8; 32],
    /// The hash of the state that they give.
    pub state: [u8; 32],
}

/// A member's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The node.
    #[serde(with = "id")]
    pub node: NodeId,
    /// What it calls itself.
    pub label: String,
    /// What it is called: the same, or with a part of its id where another node has that name.
    pub shown: String,
    /// What it offers.
    pub services: Vec<Service>,
}

/// An IPv4 address that several members drew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clash {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has it: the lowest id.
    #[serde(with = "id")]
    pub holder: NodeId,
    /// Who goes without one, ascending.
    #[serde(with = "ids")]
    pub others: Vec<NodeId>,
}

/// What waits for approvals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// The entry that proposed it.
    pub hash: EntryHash,
    /// Who proposed it.
    pub by: Author,
    /// What is to be decided.
    #[serde(serialize_with = "shared")]
    pub decision: Arc<Decision>,
    /// Who approved it, the proposer included, ascending.
    pub approvals: Vec<Author>,
    /// Why it never will be decided as it is: a policy that breaks a rule, or one whose predecessor is not in force.
    pub hopeless: Option<String>,
}

/// What people should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Problem {
    /// An author wrote two histories; from this number on, nothing in this log counts.
    Fork {
        /// The log.
        log: LogId,
        /// The first number that there are two entries for.
        seq: u64,
    },
    /// Somebody used a steward's key that was replaced, or a removed node's.
    Cut {
        /// The key.
        author: Author,
        /// How many facts are void by that.
        facts: u64,
    },
    /// A fact that is none.
    Wrong {
        /// Where.
        place: Place,
        /// What is wrong.
        why: FactError,
    },
    /// A steward's fact by somebody who never was one.
    NotSteward {
        /// Where.
        place: Place,
    },
    /// A second founding.
    Founding {
        /// Where.
        place: Place,
    },
    /// A decided policy that counts for nobody, since it breaks a rule or another was decided in its place.
    PolicyVoid {
        /// The entry that proposed it.
        proposal: EntryHash,
        /// What it breaks; none: another one was decided in its place.
        why: Option<String>,
    },
    /// A change of stewards that was decided and is overruled by another one.
    StewardsVoid {
        /// The entry that proposed it.
        proposal: EntryHash,
    },
}

fn shared<S: Serializer>(decision: &Arc<Decision>, serializer: S) -> Result<S::Ok, S::Error> {
    decision.as_ref().serialize(serializer)
}

impl TownState {
    /// A member, by its id.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.binary_search_by(|member| member.node.cmp(node)).ok().map(|at| &self.members[at])
    }

    /// Whether this key is, or was, a steward's: a certificate by it may be good.
    #[must_use]
    pub fn ever_steward(&self, key: &[u8; 32]) -> bool {
        let key = Author(*key);
        self.stewards.binary_search(&key).is_ok() || self.former_stewards.binary_search(&key).is_ok()
    }

    /// The BLAKE3 hash of the whole state, equal on all nodes that have the same entries.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let bytes = postcard::to_allocvec(self).unwrap_or_default();
        *blake3::hash(&bytes).as_bytes()
    }
}
