//! Failures on purpose, for the tests that prove that a failed create leaves nothing behind, and a killed one nothing that
//! cannot be found. A release build has none.

use crate::error::Result;

/// Fails if `OFFSHOOT_FAIL` names this place: `stage:3`, `host:0`; is killed if `OFFSHOOT_KILL` does.
#[cfg(debug_assertions)]
pub fn check(side: &str, index: usize) -> Result<()> {
    let named = |variable| std::env::var(variable).is_ok_and(|place| place == format!("{side}:{index}"));
    if named("OFFSHOOT_KILL") {
        offshoot_sys::pidfd::kill(offshoot_sys::process::getpid(), offshoot_sys::libc::SIGKILL)?;
    }
    match named("OFFSHOOT_FAIL") {
        true => Err(crate::Error::new(format!("failed on purpose at {side}:{index}"))),
        false => Ok(()),
    }
}

/// Fails never.
#[cfg(not(debug_assertions))]
#[allow(clippy::unnecessary_wraps)] // The same signature as above.
pub fn check(_side: &str, _index: usize) -> Result<()> {
    Ok(())
}
