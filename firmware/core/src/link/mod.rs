//! What a link is made of, bottom up: the replay window, Noise, a session's control frames, beacons and their nonces,
//! the evidence that a link lives, the search for its MTU. [`Node`](crate::Node) puts them together.

mod beacons;
mod bucket;
mod liveness;
mod loss;
mod mtu;
mod noise;
mod ports;
mod random;
mod session;
mod window;

pub(crate) use beacons::{Beacons, Recognised, Verdict};
pub(crate) use bucket::TokenBucket;
pub(crate) use liveness::{Liveness, Step};
pub(crate) use mtu::{MtuSearch, Underlay};
pub(crate) use noise::{Established, Handshake, NoiseContext, Phase};
pub(crate) use ports::PlanePorts;
pub(crate) use random::Random;
pub(crate) use session::{OpenError, Session};
pub use window::ReplayWindow;
