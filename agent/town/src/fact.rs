//! What entries say (`docs/town.md`, Facts), and their bytes.
//!
//! A payload is `| version u8 = 1 | fact |`, the fact by postcard. Every list and every text has a bound, so that the largest
//! fact fits an entry; a fact beyond a bound counts for nothing, on every node alike. Numbers and order of variants never
//! change: new facts and decisions are added behind the last one.

use grange_wire::{CERTIFICATE_BY_INVITATION, Grant, NodeId, TownName};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{Author, EntryHash, EntryRef, PAYLOAD_MAX},
    names,
    writer::Beginning,
};

/// The version of the facts that this writes and reads.
const VERSION: u8 = 1;
/// Stewards that a town has at most.
pub const STEWARDS_MAX: usize = 32;
/// Nodes that one [`Removal`] names at most, and that it keeps at most.
pub const NODES_MAX: usize = 128;
/// Households and invitations that one [`Removal`] names at most, each.
pub const REMOVED_MAX: usize = 64;
/// Cutoffs that one decision gives at most.
pub const CUTOFFS_MAX: usize = 64;
/// Services that a node names at most.
pub const SERVICES_MAX: usize = 16;
/// Bytes of a household's name, at most.
pub const HOUSEHOLD_MAX: usize = 48;
/// Bytes of a policy document, at most.
pub const POLICY_MAX: usize = 12 << 10;
/// The number of the last variant of [`Fact`] and of [`Decision`] that this program knows.
const LAST_FACT: u8 = 7;
const LAST_DECISION: u8 = 3;
/// The number of [`Fact::Propose`].
const PROPOSE: u8 = 2;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// This life goes on from there. The first entry of every life but an author's first.
    Begin {
        /// The last entry that the author was sure of.
        parent: EntryRef,
    },
    /// The town is founded. By the key whose hash is the town's id.
    Found {
        /// The town's name, as [`TownName`] takes it.
        name: String,
        /// Generation 0 of the stewards, ascending; none: an open town.
        stewards: Vec<Author>,
        /// How many of them decide; 0 in an open town.
        threshold: u16,
    },
    /// A steward proposes, and approves, a decision.
    Propose {
        /// The generation of stewards that decides.
        generation: u32,
        /// What is to be decided.
        decision: Decision,
    },
    /// A steward approves a proposal.
    Approve {
        /// The entry that proposed it.
        proposal: EntryHash,
    },
    /// A steward lets nodes come by an invitation. The entry's signature is the steward's word; the certificate brings the
    /// signature over the grant again, for those who do not have the log.
    Invite {
        /// The invitation's Ed25519 public key.
        key: [u8; 32],
        /// For how many nodes it is; 0: any number.
        uses: u16,
        /// Second of mesh time from which it is void; 0: never.
        expires: u64,
        /// Whose nodes they are.
        household: String,
    },
    /// A node came. By a member who had a link with it, or by the steward who signed its certificate.
    Admit {
        /// The node's certificate, as in `docs/protocol.md`.
        certificate: Vec<u8>,
        /// Whose node it is, where a steward signed for it in person; else empty: the invitation says it.
        household: String,
    },
    /// A member's name for its node, and what it offers.
    Name {
        /// As in [`names::Label`].
        label: String,
        /// What the node offers, ascending by name.
        services: Vec<Service>,
    },
    /// A steward says whose node it is from now on.
    Assign {
        /// The node.
        #[serde(with = "id")]
        node: NodeId,
        /// Its household.
        household: String,
    },
}

/// What stewards decide together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The next generation of stewards.
    Stewards {
        /// Its keys, ascending, at least one.
        stewards: Vec<Author>,
        /// How many of them decide, at least 1.
        threshold: u16,
        /// Up to where the facts of those count who are stewards no more: the last entry of each of their logs. The hash says
        /// which history is meant, should one of them have written two.
        cutoffs: Vec<EntryRef>,
    },
    /// Who and what is out.
    Remove(Removal),
    /// The next version of the policy.
    Policy {
        /// The entry that proposed the version before; [`EntryHash::NONE`] for the first.
        previous: EntryHash,
        /// The document, as [`crate::policy::Policy::parse`] takes it.
        text: String,
    },
    /// What a new node may do without.
    Snapshot {
        /// The hash of the vector up to which it speaks.
        vector: [u8; 32],
        /// The hash of the set of entries up to there that are kept.
        kept: [u8; 32],
        /// The hash of the state that they give.
        state: [u8; 32],
    },
}

/// Who and what is out for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// These nodes.
    #[serde(with = "ids")]
    pub nodes: Vec<NodeId>,
    /// All nodes and invitations of these households.
    pub households: Vec<String>,
    /// These invitations, by their keys, and whoever came by them.
    pub invitations: Vec<[u8; 32]>,
    /// Who came by one of the removed invitations and stays nevertheless.
    #[serde(with = "ids")]
    pub kept: Vec<NodeId>,
    /// Up to where the facts of those count who are out by this.
    pub cutoffs: Vec<EntryRef>,
}

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Something that a node offers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// What it is called, as in `http` of `_http._tcp` (RFC 6335): a label of at most 15 characters.
    pub name: String,
    /// How it is reached.
    pub transport: Transport,
    /// At which port.
    pub port: u16,
}

/// Why a fact counts for nothing, or cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub enum FactError {
    /// Not the one encoding of a fact.
    #[error("the bytes are no fact")]
    Format,
    /// Too many bytes or too many in a list.
    #[error("it is larger than a fact may be")]
    Size,
    /// No name of a town.
    #[error("a town's name has 1 to 32 bytes, no control characters, and no blank at either end")]
    TownName,
    /// No name of a household.
    #[error("a household's name has 1 to {HOUSEHOLD_MAX} bytes, no control characters, and no blank at either end")]
    Household,
    /// No list of stewards.
    #[error("stewards stand in ascending order, each once, and the threshold is from 1 to their number")]
    Stewards,
    /// A label or service that is none.
    #[error(transparent)]
    Label(#[from] names::LabelError),
    /// A service without a port, or services out of order.
    #[error("services stand in ascending order, each once, with a name of at most 15 characters and a port")]
    Services,
    /// Longer than any certificate.
    #[error("a certificate has at most {CERTIFICATE_BY_INVITATION} bytes")]
    Certificate,
    /// Nothing is removed.
    #[error("it removes nothing, or keeps somebody of no removed invitation")]
    Nothing,
}

/// What a payload turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A fact within its bounds.
    Fact(Fact),
    /// Of a later version: kept, passed on, and of no effect.
    Unknown,
}

impl Fact {
    /// The payload of an entry that says this.
    ///
    /// # Errors
    /// What is beyond its bounds.
    pub fn encode(&self) -> Result<Vec<u8>, FactError> {
        self.check()?;
        let bytes = postcard::to_extend(self, vec![VERSION]).map_err(|_| FactError::Format)?;
        if bytes.len() > PAYLOAD_MAX { Err(FactError::Size) } else { Ok(bytes) }
    }

    /// What a payload says.
    ///
    /// # Errors
    /// What is wrong with it. Facts and decisions of later programs are not wrong but [`Decoded::Unknown`].
    pub fn decode(payload: &[u8]) -> Result<Decoded, FactError> {
        let Some((&VERSION, body)) = payload.split_first() else {
            return if payload.is_empty() { Err(FactError::Format) } else { Ok(Decoded::Unknown) };
        };
        if payload.len() > PAYLOAD_MAX {
            return Err(FactError::Size);
        }
        let unknown = match body.first() {
            None => return Err(FactError::Format),
            Some(&PROPOSE) => {
                let (_, rest) = postcard::take_from_bytes::<(u8, u32)>(body).map_err(|_| FactError::Format)?;
                rest.first().is_some_and(|variant| *variant > LAST_DECISION)
            }
            Some(&variant) => variant > LAST_FACT,
        };
        if unknown {
            return Ok(Decoded::Unknown);
        }
        let (fact, rest) = postcard::take_from_bytes::<Self>(body).map_err(|_| FactError::Format)?;
        // One fact has one encoding: numbers in their shortest form, nothing behind.
        let shortest = postcard::experimental::serialized_size(&fact).map_err(|_| FactError::Format)?;
        if !rest.is_empty() || shortest != body.len() {
            return Err(FactError::Format);
        }
        fact.check()?;
        Ok(Decoded::Fact(fact))
    }

    fn check(&self) -> Result<(), FactError> {
        match self {
            Self::Begin { .. } | Self::Approve { .. } => Ok(()),
            Self::Found { name, stewards, threshold } => {
                TownName::new(name).ok_or(FactError::TownName)?;
                if stewards.is_empty() && *threshold == 0 { Ok(()) } else { check_stewards(stewards, *threshold) }
            }
            Self::Propose { decision, .. } => decision.check(),
            Self::Invite { household, .. } | Self::Assign { household, .. } => check_household(household),
            Self::Admit { certificate, household } => {
                if certificate.len() > CERTIFICATE_BY_INVITATION {
                    return Err(FactError::Certificate);
                }
                if household.is_empty() { Ok(()) } else { check_household(household) }
            }
            Self::Name { label, services } => {
                names::Label::new(label)?;
                check_services(services)
            }
        }
    }

    /// The invitation that a grant is, as a fact.
    #[must_use]
    pub fn invite(grant: &Grant, household: &str) -> Self {
        Self::Invite { key: grant.key, uses: grant.uses, expires: grant.expires, household: household.into() }
    }
}

/// How lives begin, for [`crate::writer::Writer`].
#[derive(Clone, Copy, Debug)]
pub struct Begins;

impl Beginning for Begins {
    fn encode(&self, parent: &EntryRef) -> Vec<u8> {
        // A place and a hash are within every bound.
        Fact::Begin { parent: *parent }.encode().unwrap_or_default()
    }

    fn parent(&self, payload: &[u8]) -> Option<EntryRef> {
        match Fact::decode(payload) {
            Ok(Decoded::Fact(Fact::Begin { parent })) => Some(parent),
            _ => None,
        }
    }
}

impl Decision {
    /// The cutoffs that it gives.
    #[must_use]
    pub fn cutoffs(&self) -> &[EntryRef] {
        match self {
            Self::Stewards { cutoffs, .. } => cutoffs,
            Self::Remove(removal) => &removal.cutoffs,
            Self::Policy { .. } | Self::Snapshot { .. } => &[],
        }
    }

    fn check(&self) -> Result<(), FactError> {
        match self {
            Self::Stewards { stewards, threshold, cutoffs } => {
                check_stewards(stewards, *threshold)?;
                bound(cutoffs.len(), CUTOFFS_MAX)
            }
            Self::Remove(removal) => removal.check(),
            Self::Policy { text, .. } => bound(text.len(), POLICY_MAX),
            Self::Snapshot { .. } => Ok(()),
        }
    }
}

impl Removal {
    fn check(&self) -> Result<(), FactError> {
        bound(self.nodes.len(), NODES_MAX)?;
        bound(self.kept.len(), NODES_MAX)?;
        bound(self.households.len(), REMOVED_MAX)?;
        bound(self.invitations.len(), REMOVED_MAX)?;
        bound(self.cutoffs.len(), CUTOFFS_MAX)?;
        self.households.iter().try_for_each(|name| check_household(name))?;
        let nothing = self.nodes.is_empty() && self.households.is_empty() && self.invitations.is_empty();
        if nothing || (self.invitations.is_empty() && !self.kept.is_empty()) {
            return Err(FactError::Nothing);
        }
        Ok(())
    }
}

fn bound(len: usize, max: usize) -> Result<(), FactError> {
    if len > max { Err(FactError::Size) } else { Ok(()) }
}

fn check_stewards(stewards: &[Author], threshold: u16) -> Result<(), FactError> {
    bound(stewards.len(), STEWARDS_MAX)?;
    let ascending = stewards.windows(2).all(|pair| pair[0] < pair[1]);
    if ascending && threshold >= 1 && usize::from(threshold) <= stewards.len() {
        Ok(())
    } else {
        Err(FactError::Stewards)
    }
}

fn check_household(name: &str) -> Result<(), FactError> {
    let good = !name.is_empty()
        && name.len() <= HOUSEHOLD_MAX
        && name.trim() == name
        && !name.chars().any(|character| character.is_control());
    if good { Ok(()) } else { Err(FactError::Household) }
}

fn check_services(services: &[Service]) -> Result<(), FactError> {
    bound(services.len(), SERVICES_MAX)?;
    for service in services {
        names::Label::new(&service.name)?;
        if service.name.len() > 15 || service.port == 0 {
            return Err(FactError::Services);
        }
    }
    if services.windows(2).all(|pair| pair[0] < pair[1]) { Ok(()) } else { Err(FactError::Services) }
}

/// A node's id as 32 bytes.
pub(crate) mod id {
    use grange_wire::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        id.0.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(NodeId)
    }
}

/// Nodes' ids, 32 bytes each.
pub(crate) mod ids {
    use grange_wire::NodeId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(ids: &[NodeId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(|id| id.0))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeId>, D::Error> {
        Vec::<[u8; 32]>::deserialize(deserializer).map(|ids| ids.into_iter().map(NodeId).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Place;

    fn place(seq: u64) -> Place {
        Place { author: Author([7; 32]), life: 300, seq }
    }

    fn removal() -> Removal {
        Removal {
            nodes: vec![NodeId([1; 32])],
            households: vec!["Meier".into()],
            invitations: vec![[2; 32]],
            kept: vec![NodeId([3; 32])],
            cutoffs: vec![EntryRef { place: place(9), hash: EntryHash([4; 32]) }],
        }
    }

    fn all() -> Vec<Fact> {
        let propose = |decision| Fact::Propose { generation: 1, decision };
        vec![
            Fact::Begin { parent: EntryRef { place: place(5), hash: EntryHash([6; 32]) } },
            Fact::Found { name: "Oberdorf".into(), stewards: vec![Author([1; 32]), Author([2; 32])], threshold: 2 },
            Fact::Approve { proposal: EntryHash([9; 32]) },
            Fact::Invite { key: [3; 32], uses: 300, expires: 1_800_000_000, household: "Müller".into() },
            Fact::Admit { certificate: vec![1, 2, 3], household: String::new() },
            Fact::Name {
                label: "mill".into(),
                services: vec![Service { name: "http".into(), transport: Transport::Tcp, port: 80 }],
            },
            Fact::Assign { node: NodeId([8; 32]), household: "Meier".into() },
            propose(Decision::Stewards {
                stewards: vec![Author([1; 32])],
                threshold: 1,
                cutoffs: vec![EntryRef { place: place(128), hash: EntryHash([4; 32]) }],
            }),
            propose(Decision::Remove(removal())),
            propose(Decision::Policy { previous: EntryHash::NONE, text: "[store]\ncopies = 3\n".into() }),
            propose(Decision::Snapshot { vector: [1; 32], kept: [2; 32], state: [3; 32] }),
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        for fact in all() {
            assert_eq!(Fact::decode(&fact.encode().unwrap()), Ok(Decoded::Fact(fact)));
        }
    }

    #[test]
    fn golden_bytes() {
        let hex = |fact: &Fact| fact.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let facts = all();
        // By hand from postcard's rules: version, variant, then varints, lengths and bytes.
        assert_eq!(hex(&facts[2]), format!("0103{}", "09".repeat(32)));
        assert_eq!(hex(&facts[0]), format!("0100{}ac0205{}", "07".repeat(32), "06".repeat(32)));
        assert_eq!(hex(&facts[1]), format!("0101084f626572646f726602{}{}02", "01".repeat(32), "02".repeat(32)));
        assert_eq!(hex(&facts[3]), format!("0104{}ac0280a4a7da06074dc3bc6c6c6572", "03".repeat(32)));
        assert_eq!(hex(&facts[4]), "01050301020300");
        assert_eq!(hex(&facts[5]), "0106046d696c6c0104687474700050");
        assert_eq!(hex(&facts[6]), format!("0107{}054d65696572", "08".repeat(32)));
        assert_eq!(
            hex(&facts[7]),
            format!("01020100{}{}0101{}ac028001{}", "01", "01".repeat(32), "07".repeat(32), "04".repeat(32))
        );
        assert_eq!(
            hex(&facts[8]),
            format!(
                "0102010101{}01054d6569657201{}01{}01{}ac0209{}",
                "01".repeat(32),
                "02".repeat(32),
                "03".repeat(32),
                "07".repeat(32),
                "04".repeat(32)
            )
        );
        assert_eq!(hex(&facts[9]), format!("01020102{}135b73746f72655d0a636f70696573203d20330a", "00".repeat(32)));
        assert_eq!(hex(&facts[10]), format!("01020103{}{}{}", "01".repeat(32), "02".repeat(32), "03".repeat(32)));
    }

    #[test]
    fn later_facts_are_unknown_and_others_wrong() {
        assert_eq!(Fact::decode(&[2, 1, 2, 3]), Ok(Decoded::Unknown), "another version");
        assert_eq!(Fact::decode(&[1, LAST_FACT + 1, 2, 3]), Ok(Decoded::Unknown), "another fact");
        assert_eq!(Fact::decode(&[1, PROPOSE, 5, LAST_DECISION + 1, 3]), Ok(Decoded::Unknown), "another decision");
        assert_eq!(Fact::decode(&[]), Err(FactError::Format));
        assert_eq!(Fact::decode(&[1]), Err(FactError::Format));
        for fact in all() {
            let good = fact.encode().unwrap();
            let mut longer = good.clone();
            longer.push(0);
            assert_eq!(Fact::decode(&longer), Err(FactError::Format), "{fact:?}");
            assert!(Fact::decode(&good[..good.len() - 1]).is_err(), "{fact:?}");
        }
        // The generation 1 in two bytes instead of one.
        let mut long = vec![1, PROPOSE, 0x81, 0x00, 3];
        long.extend([0; 96]);
        assert_eq!(Fact::decode(&long), Err(FactError::Format));
    }

    #[test]
    fn bounds_hold_both_ways() {
        let wrong = |fact: Fact, error| {
            assert_eq!(fact.encode(), Err(error), "{fact:?}");
            let bytes = postcard::to_extend(&fact, vec![VERSION]).unwrap();
            let read = Fact::decode(&bytes).unwrap_err();
            assert!(read == error || bytes.len() > PAYLOAD_MAX, "{fact:?}: {read}");
        };
        let found = |stewards, threshold| Fact::Found { name: "x".into(), stewards, threshold };
        let (a, b) = (Author([1; 32]), Author([2; 32]));
        wrong(found(vec![a, b], 3), FactError::Stewards);
        wrong(found(vec![a, b], 0), FactError::Stewards);
        wrong(found(vec![], 1), FactError::Stewards);
        wrong(found(vec![b, a], 1), FactError::Stewards);
        wrong(found(vec![a, a], 1), FactError::Stewards);
        let nobody = Decision::Stewards { stewards: vec![], threshold: 0, cutoffs: vec![] };
        wrong(Fact::Propose { generation: 0, decision: nobody }, FactError::Stewards);
        wrong(Fact::Assign { node: NodeId([0; 32]), household: " x".into() }, FactError::Household);
        wrong(Fact::Assign { node: NodeId([0; 32]), household: "x".repeat(HOUSEHOLD_MAX + 1) }, FactError::Household);
        wrong(
            Fact::Admit { certificate: vec![0; CERTIFICATE_BY_INVITATION + 1], household: String::new() },
            FactError::Certificate,
        );
        let remove = |removal| Fact::Propose { generation: 0, decision: Decision::Remove(removal) };
        wrong(remove(Removal::default()), FactError::Nothing);
        wrong(remove(Removal { invitations: vec![], ..removal() }), FactError::Nothing);
        wrong(remove(Removal { nodes: vec![NodeId([0; 32]); NODES_MAX + 1], ..removal() }), FactError::Size);
        let long = Decision::Policy { previous: EntryHash::NONE, text: "#".repeat(POLICY_MAX + 1) };
        wrong(Fact::Propose { generation: 0, decision: long }, FactError::Size);
    }

    #[test]
    fn the_largest_facts_fit_an_entry() {
        let cutoffs = vec![
            EntryRef {
                place: Place { author: Author([9; 32]), life: u64::MAX, seq: u64::MAX },
                hash: EntryHash([9; 32])
            };
            CUTOFFS_MAX
        ];
        let largest = Removal {
            nodes: vec![NodeId([1; 32]); NODES_MAX / 2],
            households: vec!["x".repeat(HOUSEHOLD_MAX); REMOVED_MAX / 2],
            invitations: vec![[2; 32]; REMOVED_MAX / 2],
            kept: vec![NodeId([3; 32]); NODES_MAX / 2],
            cutoffs,
        };
        for decision in
            [Decision::Remove(largest), Decision::Policy { previous: EntryHash([1; 32]), text: "#".repeat(POLICY_MAX) }]
        {
            Fact::Propose { generation: u32::MAX, decision }.encode().unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..=LAST_FACT) {
            let _ = Fact::decode(&bytes);
            if bytes.len() > 2 {
                (bytes[0], bytes[1]) = (VERSION, kind);
            }
            if let Ok(Decoded::Fact(fact)) = Fact::decode(&bytes) {
                prop_assert_eq!(fact.encode().unwrap(), bytes);
            }
        }
    }
}
