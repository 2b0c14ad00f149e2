//! Lines for whoever reads the output of a test.
#![expect(clippy::print_stdout, reason = "the output of a test")]

/// Prints what a test measured, as a line `MEASURED text`.
pub fn measured(text: &str) {
    println!("MEASURED {text}");
}

/// Prints why a test cannot run here, as a line `SKIPPED name: reason`; `cargo xtask test` looks for it.
pub(crate) fn skipped(name: &str, reason: &str) {
    println!("SKIPPED {name}: {reason}");
}
