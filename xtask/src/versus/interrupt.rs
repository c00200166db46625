//! Ctrl-C while workers run: whoever waits looks here, gives up with an error, and so the workers are ended and nothing
//! is written.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C (and a termination from outside) is noted instead of ending this process at once.
///
/// # Errors
/// When the system refuses the handler.
pub fn watch() -> Result<()> {
    ctrlc::set_handler(|| ASKED.store(true, Ordering::SeqCst)).context("watching for Ctrl-C")
}

/// Passes where nobody has asked for an end.
///
/// # Errors
/// Somebody has.
pub fn check() -> Result<()> {
    if ASKED.load(Ordering::SeqCst) {
        bail!("interrupted: nothing was written");
    }
    Ok(())
}
