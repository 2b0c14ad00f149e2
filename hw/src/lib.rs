//! What this machine is: board, memory, network interfaces and what each of them is good for.
//!
//! [`Machine::read`] reads `/sys`, `/proc` and a few files of `/etc` and `/tmp` under a root that the caller names, so
//! that a test brings its own. [`roles`] then decides, as a pure function, which interface carries the mesh, which the
//! LAN and which the way to the Internet, each with a sentence why.
//!
//! Nothing here speaks netlink, waits or fails: a file that is missing, unreadable or nonsense leaves a value unknown.
#![forbid(unsafe_code)]

mod board;
mod interface;
mod machine;
mod os;
mod roles;
mod root;
mod route;
mod uci;

pub use board::{Board, BoardSource};
pub use interface::{Interface, Kind, MAX_INTERFACES, Mac};
pub use machine::Machine;
pub use os::Os;
pub use roles::{Assignment, Choice, Medium, Role, Selection, absent, roles, uplinks};
pub use route::{DefaultRoute, DefaultRoutes};
