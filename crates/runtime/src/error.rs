//! The one error of the library, and the words of the system's errors.

use offshoot_engine::cause;
use offshoot_sys::Errno;
use std::fmt;
use std::io;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such container.
    NotFound,
    /// There is one already.
    Exists,
    /// The container's status does not allow the verb.
    Status,
    /// The request is wrong: an id, a bundle, an option.
    Request,
    /// The system refused for want of permission.
    Permission,
    /// The system failed.
    System,
}

/// Why a verb failed: a sentence, in runc's words where callers look for them.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// An error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None }
    }

    /// `failed to <verb> <object>: <cause>` for a system call that failed.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Error {
        let kind = if error.kind() == io::ErrorKind::PermissionDenied { Kind::Permission } else { Kind::System };
        Error::new(kind, format!("failed to {what}: {}", cause(error)))
    }

    /// What was being done, and why a cgroup did not let it.
    pub fn cgroup(what: &str, error: &offshoot_cgroup::Error) -> Error {
        let denied = matches!(error.errno(), Some(Errno::EPERM | Errno::EACCES | Errno::EROFS));
        let kind = if denied { Kind::Permission } else { Kind::System };
        Error::new(kind, format!("{what}: {error}"))
    }

    /// All that is wrong with a request, on one line, as callers show an error.
    pub fn problems(problems: &[offshoot_plan::Problem]) -> Error {
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Error::new(Kind::Request, texts.join("; "))
    }

    /// With advice, where there is some.
    pub fn with_hint(self, hint: Option<String>) -> Error {
        Error { hint, ..self }
    }

    /// What to try next, where that is known; for a line of its own after the error.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// An error of the store of images and clones, with its hint.
pub(crate) fn of_store(error: &offshoot_snapshot::Error) -> Error {
    // Not the kinds of containers: a clone that does not exist says nothing of the container.
    let kind = if error.kind() == offshoot_snapshot::Kind::Invalid { Kind::Request } else { Kind::System };
    Error::new(kind, error.to_string()).with_hint(error.hint().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_is_told_apart() {
        let error = Error::io("open x", &io::Error::from_raw_os_error(13));
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Permission, "failed to open x: permission denied")
        );
    }
}
