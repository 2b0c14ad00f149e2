//! How the command line speaks to the running agent: a Unix socket in the runtime directory.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod server;
