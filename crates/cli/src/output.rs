//! Standard output. A closed pipe is an error like any other, not a panic.

use crate::failure::Failure;
use offshoot_runtime::cause;
use std::io::Write as _;

/// Writes `text` as it is.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_ref()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new(format!("failed to write the output: {}", cause(&error))))
}
