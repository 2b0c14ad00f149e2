//! Logging to standard error.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::{config::LogFilter, output::colours};

/// Starts logging. Under systemd, whose journal has a clock, lines carry no time.
pub(crate) fn start(filter: &LogFilter) {
    // The filter's form was checked when the configuration was read.
    let filter = EnvFilter::new(&filter.0);
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours(&io::stderr()));
    let lines = lines.with_target(false);
    // Only a second call in one process fails, and then the first one holds.
    let _ =
        if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().try_init() } else { lines.try_init() };
}
