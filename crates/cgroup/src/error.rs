//! The crate's one error.

use offshoot_sys::Errno;
use std::fmt;

/// What could not be done with a cgroup: a sentence with its cause, and where one is known a `hint:` line.
#[derive(Debug)]
pub struct Error {
    text: String,
    errno: Option<Errno>,
}

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(sentence: impl Into<String>) -> Error {
        Error { text: sentence.into(), errno: None }
    }

    /// A whole sentence, and the kernel's answer behind it.
    pub(crate) fn with_cause(sentence: impl Into<String>, errno: Errno) -> Error {
        Error { text: sentence.into(), errno: Some(errno) }
    }

    /// `call: kernel's words`
    pub(crate) fn system(call: impl fmt::Display, errno: Errno) -> Error {
        Error { text: format!("{call}: {}", offshoot_sys::errno_text(errno)), errno: Some(errno) }
    }

    /// The same cause, told as part of what was to be done.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Error {
        Error { text: format!("{what}: {}", self.text), errno: self.errno }
    }

    /// The kernel's answer, where it was the kernel that said no.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Whether the cgroup, or the file in it, is not there (any more).
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.errno, Some(Errno::ENOENT | Errno::ENODEV))
    }

    /// Whether it was for lack of permission: expected of a rootless caller. A read-only mount is one way to lack it.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self.errno, Some(Errno::EPERM | Errno::EACCES | Errno::EROFS))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
