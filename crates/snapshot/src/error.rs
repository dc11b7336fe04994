//! The one error of this crate: a sentence, the kind of trouble, and a hint where one is known.

use std::fmt;

use nix::errno::Errno;
use offshoot_sys::errno_text;

/// What sort of trouble an [`Error`] is, for callers that act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The image, clone, snapshot or file does not exist.
    NotFound,
    /// Something of that name exists already.
    Exists,
    /// It is in use: by a clone, a mount or another process.
    Busy,
    /// The caller's input is malformed: a name, an annotation, a reference.
    Invalid,
    /// An archive is hostile, truncated or not what its digests promise.
    Refused,
    /// The kernel, the file system or a missing tool cannot do it.
    Unsupported,
    /// The file system, a quota or a pool is full.
    NoSpace,
    /// The store's own records are damaged.
    Corrupt,
    /// A system call or tool failed in another way.
    System,
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An opaque error whose text is a sentence without a final stop; see [`Error::hint`] for advice.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    text: String,
    hint: Option<String>,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, text: text.into(), hint: None }))
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, text)
    }

    pub(crate) fn refused(text: impl Into<String>) -> Error {
        Error::new(Kind::Refused, text)
    }

    /// A failed system call: `call` is its name with its arguments.
    pub(crate) fn call(call: impl fmt::Display, errno: Errno) -> Error {
        let error = Error::new(kind_of(errno), format!("{call}: {}", errno_text(errno)));
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => {
                error.with_hint("free some space, or remove what nothing uses: offshoot image prune")
            }
            Errno::EPERM | Errno::EACCES if !nix::unistd::geteuid().is_root() => {
                error.with_hint("run as root, or set XDG_DATA_HOME to a directory of yours for a rootless store")
            }
            _ => error,
        }
    }

    /// The same for an error that came through `std::io`.
    pub(crate) fn io(call: impl fmt::Display, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(raw) => Error::call(call, Errno::from_raw(raw)),
            None => Error::new(Kind::System, format!("{call}: {error}")),
        }
    }

    /// Turns a cause into the sentence a user reads: "failed to `<what>`: `<cause>`".
    pub(crate) fn during(mut self, what: impl fmt::Display) -> Error {
        self.0.text = format!("failed to {what}: {}", self.0.text);
        self
    }

    /// Names the object before the cause.
    pub(crate) fn prefixed(mut self, object: impl fmt::Display) -> Error {
        self.0.text = format!("{object}: {}", self.0.text);
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// The sort of trouble.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What to try next, where that is known; for a line of its own after the error.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.text)?;
        match &self.0.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Adds the sentence to whatever went wrong below.
pub(crate) trait During<T> {
    /// "failed to `<what>`: `<cause>`"; `what` is only evaluated on failure.
    fn during<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> During<T> for Result<T> {
    fn during<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.during(what()))
    }
}

/// Names the system call, with its arguments, that returned an errno.
pub(crate) trait Call<T> {
    /// `call` is only evaluated on failure.
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Call<T> for nix::Result<T> {
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::call(call(), errno))
    }
}

impl<T> Call<T> for std::io::Result<T> {
    fn call<D: fmt::Display>(self, call: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::io(call(), &error))
    }
}

fn kind_of(errno: Errno) -> Kind {
    match errno {
        Errno::ENOENT => Kind::NotFound,
        Errno::EEXIST => Kind::Exists,
        Errno::EBUSY | Errno::ETXTBSY | Errno::EWOULDBLOCK => Kind::Busy,
        Errno::ENOSPC | Errno::EDQUOT => Kind::NoSpace,
        Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV => Kind::Unsupported,
        _ => Kind::System,
    }
}

impl From<offshoot_sys::Error> for Error {
    fn from(error: offshoot_sys::Error) -> Error {
        let mut text = error.to_string();
        let cause = format!(": {}", errno_text(error.errno()));
        if let Some(call) = text.strip_suffix(&cause) {
            text = call.to_owned();
            return Error::call(text, error.errno());
        }
        Error::new(kind_of(error.errno()), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_a_sentence_that_ends_in_the_system_call() {
        let result: nix::Result<()> = Err(Errno::ENOENT);
        let error = result.call(|| "openat(\"layers\")").during(|| "open store \"/x\"").unwrap_err();
        assert_eq!(error.to_string(), "failed to open store \"/x\": openat(\"layers\"): no such file or directory");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn a_full_disk_comes_with_a_hint() {
        let error = Error::call("write(7)", Errno::ENOSPC);
        assert_eq!(error.kind(), Kind::NoSpace);
        assert!(error.hint().unwrap().contains("prune"));
    }
}
