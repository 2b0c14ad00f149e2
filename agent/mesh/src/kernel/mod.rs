//! What Grange adds to the kernel, and how it is taken away again: `docs/kernel.md`.
//!
//! [`plan`] says what should be there, [`netlink`] and [`sysctl`] ask for it, [`undo`] remembers what to take back, and
//! [`Kernel`] keeps all of it in step with what the driver wants. [`monitor`] tells what the machine does by itself.

pub(crate) mod monitor;
pub(crate) mod netlink;
pub(crate) mod plan;
pub(crate) mod sysctl;
pub(crate) mod undo;

mod keeper;

pub(crate) use keeper::{GRACE, Kernel, Setup, interface_index};
