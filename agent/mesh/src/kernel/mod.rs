//! What Grange adds to the kernel, and how it is taken away again: `docs/kernel.md`.
//!
//! [`plan`] says what should be there, [`netlink`], [`wireguard`] and [`sysctl`] ask for it, [`undo`] remembers what to
//! take back, [`fence`] is what nftables is told, and [`Kernel`] keeps all of it in step with what the driver wants. [`monitor`] tells what the machine does by itself.

pub(crate) mod monitor;
pub(crate) mod netlink;
pub(crate) mod plan;
pub(crate) mod sysctl;
pub(crate) mod tunnels;
pub(crate) mod undo;
pub(crate) mod wireguard;

pub(crate) mod fence;
mod guard;
mod keeper;
mod wants;

pub(crate) use keeper::{GRACE, Kernel, Setup, interface_index};
pub use plan::{GROUP, SEAL_GROUP};
pub(crate) use plan::{Hop, Path, SEAL_MARK};
#[cfg(test)]
pub(crate) use tunnels::Reports;
pub(crate) use tunnels::{TunnelReport, TunnelSpec};
pub(crate) use wants::{Done, Wants};
