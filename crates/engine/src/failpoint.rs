//! Failures on purpose, for the tests that prove that a failed create leaves nothing behind. A release build has none.

use crate::error::Result;

/// Fails if `OFFSHOOT_FAIL` names this place: `stage:3`, `host:0`.
#[cfg(debug_assertions)]
pub fn check(side: &str, index: usize) -> Result<()> {
    match std::env::var("OFFSHOOT_FAIL") {
        Ok(place) if place == format!("{side}:{index}") => {
            Err(crate::Error::new(format!("failed on purpose at {place}")))
        }
        _ => Ok(()),
    }
}

/// Fails never.
#[cfg(not(debug_assertions))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
pub fn check(_side: &str, _index: usize) -> Result<()> {
    Ok(())
}
