//! Anonymous files in memory, and their seals.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::Result;
use crate::error::owned;

/// `memfd_create` flags.
pub use libc::{MFD_ALLOW_SEALING, MFD_CLOEXEC};
/// The file may be executed whatever `vm.memfd_noexec` says. Linux 6.3; EINVAL before.
pub const MFD_EXEC: u32 = 0x10;
/// The file may never become executable. Linux 6.3; EINVAL before.
pub const MFD_NOEXEC_SEAL: u32 = 0x8;
/// Seals: no more seals, no shrinking, no growing, no writing.
pub use libc::{F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE};
/// Seals the executable bits. Linux 6.3.
pub const F_SEAL_EXEC: i32 = 0x20;

/// A new anonymous file; `/proc` shows it as `/memfd:NAME (deleted)`. Close-on-exec always.
pub fn memfd(name: &str, flags: u32) -> Result<OwnedFd> {
    let create = || {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `name` is a C string that outlives the call, which returns a new descriptor.
        owned(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags | MFD_CLOEXEC) })
    };
    call!(create(), "memfd_create({name:?}, {flags:#x})")
}

/// Adds seals, `F_SEAL_*`.
pub fn seal(fd: impl AsFd, seals: i32) -> Result<()> {
    let ret = fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seals)));
    call!(ret, "fcntl([{}], F_ADD_SEALS, {seals:#x})", fd.as_fd().as_raw_fd()).map(drop)
}

/// The seals of a file; `EINVAL` where it can have none.
pub fn seals(fd: impl AsFd) -> Result<i32> {
    call!(fcntl(&fd, FcntlArg::F_GET_SEALS), "fcntl([{}], F_GET_SEALS)", fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::write_all;

    #[test]
    fn a_sealed_file_cannot_be_written() {
        let file = memfd("test", MFD_ALLOW_SEALING).unwrap();
        write_all(&file, b"text").unwrap();
        seal(&file, F_SEAL_WRITE | F_SEAL_SEAL).unwrap();
        assert_eq!(seals(&file).unwrap(), F_SEAL_WRITE | F_SEAL_SEAL);
        assert_eq!(write_all(&file, b"more").unwrap_err().errno(), Errno::EPERM);
        assert_eq!(seal(&file, F_SEAL_GROW).unwrap_err().errno(), Errno::EPERM);
        let link = crate::path::readlinkat(None, crate::path::fd_path(&file)).unwrap();
        assert_eq!(link.to_str(), Some("/memfd:test (deleted)"));
    }
}
