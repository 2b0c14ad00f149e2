//! Bytes on the wire and on disk, addresses and ids of the Grange mesh.
//!
//! `no_std`, no allocation. A parser takes a slice and returns a view or an error: it never panics and never
//! trusts a length that the sender chose. All integers are big-endian unless a type says otherwise.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod addr;
pub mod babel;
mod beacon;
mod certificate;
mod control;
mod data;
mod datagram;
mod handshake;
mod hello;
mod id;
mod invitation;
mod prefix;

pub use addr::{MESH_V4, MESH_V6, PORT, SEAL_PORT, lan_gateway, lan_prefix, node_address, node_address_v4};
pub use beacon::{BEACON_LEN, Beacon, BeaconFlags};
pub use certificate::{
    Admission, CERTIFICATE_BY_INVITATION, CERTIFICATE_BY_STEWARD, Certificate, CertificateFormatError,
    CertificateWriter, Grant,
};
pub use control::{ControlFrame, FRAME_HEAD, FRAME_TAG, FrameHeader, PROBE_HEAD};
pub use data::{DATA_OVERHEAD, DataFlags, Part, UNDERLAY_V4, UNDERLAY_V6};
pub use datagram::{DatagramError, DatagramKind};
pub use handshake::{
    ANSWER_HEAD, Finish, HANDSHAKE_MAX, INITIATION_HEAD, INITIATION_LEN, Initiation, InitiationPayload, Response,
};
pub use hello::{CERTIFICATE_MAX, Hello, HelloError, NAME_MAX};
pub use id::{LinkIndex, NodeId, RouterId, TownId};
pub use invitation::{INVITATION_PREFIX, Invitation, InvitationError, TownName, Typo};
pub use prefix::{ParsePrefixError, Prefix};
