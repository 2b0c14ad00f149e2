//! What the benchmark is asked for.

use std::path::PathBuf;

/// Options of `cargo xtask bench planes`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only these measurements and subjects (`--list` names them); with names of one kind alone, all of the other kind
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub only: Vec<String>,
    /// Name the measurements and the subjects, and stop
    #[arg(long)]
    pub list: bool,
    /// How often each subject is measured; the tables show medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Length of one transfer
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How long to wait before each sample for the rest of the machine to be quiet (less than a fifth busy)
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub patience: u32,
    /// Write every sample, the medians and the machine's description to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Put the tables into docs/performance.md
    #[arg(long)]
    pub write_doc: bool,
}
