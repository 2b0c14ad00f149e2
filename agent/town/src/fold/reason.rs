//! Why a node is not in the town, in one sentence.

use std::fmt;

use grange_core::certificate::CertificateError;
use grange_wire::NodeId;
use serde::Serialize;

use crate::{date::Date, entry::Author, fact::id};

/// Why a node is not in the town. Its `Display` is a sentence without a dot, for people who were refused and for
/// those who want to help them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum WhyNot {
    /// Nobody let it in, and it shows nothing.
    Stranger,
    /// Its certificate is none, or a signature is wrong.
    Forged(Forgery),
    /// The signer never was a steward.
    NoSteward(Author),
    /// No log has its invitation, or its admission by the steward in person.
    UnknownInvitation(Author),
    /// A steward made the invitation after the others had replaced that steward.
    FormerSteward(Author),
    /// The steward's log has two histories, and the invitation is in neither's common part.
    ForkedSteward(Author),
    /// The certificate shows other terms than the invitation in the log.
    OtherTerms,
    /// The invitation was over; at this second of mesh time.
    Expired(u64),
    /// So many came by the invitation before.
    Spent {
        /// For how many it was.
        uses: u16,
        /// The last of those who are in by it.
        #[serde(with = "id")]
        last: NodeId,
    },
    /// The stewards removed this node.
    RemovedNode,
    /// The stewards removed its household.
    RemovedHousehold(String),
    /// The stewards removed its invitation.
    RemovedInvitation,
    /// Whoever let it in was no member, or not any more.
    SponsorOut(#[serde(with = "id")] NodeId),
    /// The town has as many members as a town can have.
    Full,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Forgery {
    /// It is none.
    Format,
    /// The signature of the steward it names.
    Steward,
    /// The signature by the invitation's key.
    Invitation,
    /// The node's own signature.
    Node,
    /// It is for another town or another key.
    Other,
}

impl From<CertificateError> for WhyNot {
    fn from(error: CertificateError) -> Self {
        Self::Forged(match error {
            CertificateError::Format(_) => Forgery::Format,
            CertificateError::Steward => Forgery::Steward,
            CertificateError::Invited => Forgery::Invitation,
            CertificateError::Consent => Forgery::Node,
            CertificateError::Expired => return Self::Expired(0),
            CertificateError::Town | CertificateError::StaticKey => Forgery::Other,
        })
    }
}

/// The first digits of an id, for sentences.
pub(crate) struct Short<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..")
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => {
                f.write_str("no member of the town has let it in, and it shows no certificate of this town")
            }
            Self::Forged(Forgery::Format) => f.write_str("what it shows is no certificate"),
            Self::Forged(Forgery::Steward) => {
                f.write_str("its certificate is forged: the steward whom it names did not sign it")
            }
            Self::Forged(Forgery::Invitation) => {
                f.write_str("its certificate is forged: whoever made it did not have the invitation")
            }
            Self::Forged(Forgery::Node) => {
                f.write_str("its certificate is forged: the node that it names did not sign it")
            }
            Self::Forged(Forgery::Other) => f.write_str("its certificate is for another town or another node"),
            Self::NoSteward(who) => write!(f, "{}, who signed for it, is no steward of this town", Short(&who.0)),
            Self::UnknownInvitation(who) => write!(
                f,
                "what the steward {} signed for it is in no log that is known here: the news has not come yet, or it was never given",
                Short(&who.0)
            ),
            Self::FormerSteward(who) => write!(
                f,
                "its invitation was made with the key of a former steward, {}, after the others had replaced it",
                Short(&who.0)
            ),
            Self::ForkedSteward(who) => {
                write!(f, "its invitation was made with a steward's key, {}, that wrote two histories", Short(&who.0))
            }
            Self::OtherTerms => f.write_str("its certificate shows other terms than its invitation has"),
            Self::Expired(0) => f.write_str("its invitation had expired when it came"),
            Self::Expired(at) => write!(f, "its invitation expired on {}, before it came", Date(*at)),
            Self::Spent { uses: 1, last } => {
                write!(f, "the invitation was for one node, and {} came by it before", Short(&last.0))
            }
            Self::Spent { uses, last } => write!(
                f,
                "the invitation was for {uses} nodes, and so many came by it before, {} as the last",
                Short(&last.0)
            ),
            Self::RemovedNode => {
                f.write_str("the stewards removed it; its key never comes back, a new key can be invited")
            }
            Self::RemovedHousehold(name) => write!(f, "the stewards removed its household, {name:?}"),
            Self::RemovedInvitation => f.write_str("the stewards removed the invitation that it came by"),
            Self::SponsorOut(sponsor) => {
                write!(f, "{}, who let it in, was no member of the town then", Short(&sponsor.0))
            }
            Self::Full => f.write_str("the town has as many members as a town can have"),
        }
    }
}
