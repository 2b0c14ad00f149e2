//! The town: replicated logs, and who is in it, its rules and names as folds over them (`docs/town.md`).
//!
//! From the bottom to the top: [`entry`] and [`fork`] are what authors sign; [`log`] holds how far each log is known;
//! [`store`] keeps the entries on a disk; [`writer`] appends what this node says; [`sync`] brings neighbours' logs to the same
//! length, [`reconcile`] large sets of ids. [`fact`] is what entries say; [`fold`] makes of all of them the state of the
//! town, with its [`policy`] and [`names`]; [`mesh_time`] says what time it is. Everything but the store is plain state without I/O:
//! `now` is passed in, messages come in by `handle` and go out by `poll_message`.
#![forbid(unsafe_code)]

mod date;
pub mod entry;
pub mod fact;
pub mod fold;
pub mod fork;
pub mod log;
pub mod mesh_time;
pub mod names;
mod nearest;
pub mod policy;
pub mod reconcile;
pub mod store;
pub mod sync;
pub mod vector;
pub mod writer;

pub use date::Date;
pub use entry::{Author, Body, Entry, EntryError, EntryHash, EntryRef, LogId, Place, Signer};
pub use fork::{ForkError, ForkProof};
pub use nearest::nearest;
