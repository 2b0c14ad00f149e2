//! The node's clock: microseconds since the start, from the machine's monotonic clock.

use std::time::Duration;

use grange_core::Instant;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Instant {
        Instant::START + self.start.elapsed()
    }

    /// A moment of the node's as one of the runtime's. What is too far away to be represented is a day from now.
    pub(crate) fn to_tokio(self, at: Instant) -> tokio::time::Instant {
        let since = Duration::from_micros(at.as_micros());
        // One microsecond is cut off by either clock: without it a timer could fire before its time and spin.
        let padded = since.saturating_add(Duration::from_micros(1));
        self.start.checked_add(padded).unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(86_400))
    }
}
