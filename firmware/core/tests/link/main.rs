//! Links between two or three nodes in virtual time: how they open, renew, move, and notice that they are dead; and
//! that nothing a stranger sends has any effect.
#![allow(missing_docs)]

mod agreement;
mod hostile;
mod liveness;
mod net;
mod opening;
mod ports;
mod renewal;
mod seals;
