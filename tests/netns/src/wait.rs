//! Waiting for something to become true, with a deadline.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How much longer everything may take on an emulated processor.
const SLOWER: u32 = 10;

/// Asks `check` again and again until it gives a value, and says how long that took.
///
/// `check` gives `Ok(None)` for "not yet". An error counts as "not yet" too, and is named if the time runs out: an
/// agent that does not answer at this moment may a moment later.
///
/// In a virtual machine by emulation, which says so in `VM_ACCELERATION`, the limit is ten times as long.
///
/// # Errors
/// After `limit`: `what`, and the last error of `check`.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let emulated = env::var_os("VM_ACCELERATION").is_some_and(|how| how == "emulation");
    let limit = if emulated { limit * SLOWER } else { limit };
    let start = Instant::now();
    loop {
        let outcome = check();
        if let Ok(Some(value)) = outcome {
            return Ok((value, start.elapsed()));
        }
        if start.elapsed() >= limit {
            let text = format!("waited {:.1} s for {what}", limit.as_secs_f64());
            return match outcome {
                Err(error) => Err(error).context(text),
                Ok(_) => bail!(text),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
