//! What each command does.

pub(crate) mod config;
pub(crate) mod docs;
pub(crate) mod key;
pub(crate) mod links;
pub(crate) mod routes;
pub(crate) mod seals;
pub(crate) mod status;
pub(crate) mod town;
pub(crate) mod trace;
