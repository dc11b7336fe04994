//! The one error of this crate: which system call, with which arguments, and why.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::errno_text;

/// The result of a system call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed system call. Prints as `openat2([7]"etc/x", O_PATH): no such file or directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: String,
    note: String,
    errno: Errno,
}

impl Error {
    /// An error of `call`, which names the system call and its arguments.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), note: String::new(), errno }
    }

    /// Adds what the kernel said beside the error number, such as its file system context log or its verifier's.
    pub(crate) fn with_note(mut self, note: String) -> Self {
        self.note = note;
        self
    }

    /// The kernel's error number.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The system call and its arguments.
    pub fn call(&self) -> &str {
        &self.call
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, errno_text(self.errno))?;
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(io::Error::from(error.errno).kind(), error)
    }
}

/// Gives the error of a `nix::Result` the text of its call. The text is built only when the call failed.
macro_rules! call {
    ($result:expr, $($text:tt)+) => {
        ($result).map_err(|errno| $crate::Error::new(format!($($text)+), errno))
    };
}

/// Runs a system call again for as long as a signal interrupts it.
macro_rules! retry {
    ($result:expr) => {
        loop {
            match $result {
                Err(nix::errno::Errno::EINTR) => {}
                result => break result,
            }
        }
    };
}

/// Takes ownership of the descriptor that a system call has just returned, or of its error.
pub(crate) fn owned(ret: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(ret)?;
    // SAFETY: every caller passes the result of a call that returns a new descriptor, which nobody else knows yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Prints a directory descriptor and a path below it: `[7]"etc/x"`, or `"/etc/x"` where there is no descriptor.
pub(crate) struct At<'a>(pub Option<BorrowedFd<'a>>, pub &'a Path);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dir) = self.0 {
            write!(f, "[{}]", dir.as_raw_fd())?;
            if self.1.as_os_str().is_empty() {
                return Ok(());
            }
        }
        write!(f, "{:?}", self.1)
    }
}

/// The raw number of a directory descriptor, `AT_FDCWD` where there is none.
pub(crate) fn raw(dir: Option<BorrowedFd>) -> i32 {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

/// The directory descriptor itself, `AT_FDCWD` where there is none.
pub(crate) fn at(dir: Option<BorrowedFd>) -> BorrowedFd {
    dir.unwrap_or(nix::fcntl::AT_FDCWD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_call_and_the_kernels_words() {
        let error = Error::new("openat2([7]\"etc/x\", O_PATH)", Errno::ENOENT);
        assert_eq!(error.to_string(), "openat2([7]\"etc/x\", O_PATH): no such file or directory");
        assert_eq!(
            error.with_note("overlay: no upper".into()).to_string(),
            "openat2([7]\"etc/x\", O_PATH): no such file or directory (overlay: no upper)"
        );
    }

    #[test]
    fn an_io_error_keeps_kind_and_text() {
        let error: io::Error = Error::new("mkdirat(\"a\")", Errno::EEXIST).into();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(error.to_string(), "mkdirat(\"a\"): file exists");
    }
}
