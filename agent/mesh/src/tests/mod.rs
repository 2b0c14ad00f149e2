//! Against the real kernel, each test in a network namespace of its own.

mod fence;
mod keeper;
mod mdns;
mod mesh;
mod namespace;
mod town;
