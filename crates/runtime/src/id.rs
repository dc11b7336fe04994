//! Container ids.

use crate::{Error, Kind, Result};

/// Checks that an id can be the name of a directory and of a cgroup: letters, digits and `_+.-`, and neither of
/// the two names that every directory holds.
///
/// # Errors
/// In runc's words.
pub fn check(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if id.is_empty() {
        return Err(Error::new(Kind::Request, "container id cannot be empty"));
    }
    if !id.bytes().all(allowed) || matches!(id, "." | "..") {
        return Err(Error::new(Kind::Request, "invalid container ID format"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_inside_their_directory() {
        for id in ["a", "A_b+c.d-9", "...", "-x"] {
            assert!(check(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../a", "a b", "ä", "a\0", "a\n"] {
            assert!(check(id).is_err(), "{id:?}");
        }
    }
}
