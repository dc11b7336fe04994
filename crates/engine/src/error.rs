//! The one error of this crate.

use offshoot_sys::{Errno, errno_text};
use std::fmt;

/// The result of what the engine does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, as a sentence that carries its cause; it crosses the fork as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: String,
}

/// Where an error comes from, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host's part.
    Host,
    /// The container's own process, before the program.
    Container,
    /// A hook.
    Hook,
    /// The other side is gone; whoever ended it says why.
    Gone,
}

impl Error {
    /// An error of the host's part.
    pub fn new(text: impl Into<String>) -> Error {
        Error { kind: Kind::Host, text: text.into() }
    }

    /// An error of the given kind.
    pub fn of(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    /// Where the error comes from.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<offshoot_sys::Error> for Error {
    fn from(error: offshoot_sys::Error) -> Error {
        Error::new(error.to_string())
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// `failed to DO: cause`
    ///
    /// # Errors
    /// The cause, with `doing` before it.
    fn context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::new(format!("failed to {}: {}", doing(), cause(&error))))
    }
}

/// The text of an error; std's `No such file or directory (os error 2)` in the words of Go and libc, which callers' patterns expect.
pub fn cause(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let number = text.split_once(" (os error ").and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
    number.map_or(text, |code| errno_text(Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn causes_are_in_the_words_of_go() {
        use super::{Context as _, cause};
        let error = std::fs::read("/nope").context(|| "read /nope".into()).unwrap_err();
        assert_eq!(error.to_string(), "failed to read /nope: no such file or directory");
        assert_eq!(cause(&"own words (os error x)"), "own words (os error x)");
    }
}
