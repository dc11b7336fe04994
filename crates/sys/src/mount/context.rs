//! Making a file system step by step: fsopen, fsconfig, fsmount.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

use crate::error::{At, owned, raw};
use crate::{Error, Result};

const FSOPEN_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSMOUNT_CLOEXEC: u32 = 1;

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_BINARY: u32 = 2;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// A file system being configured. Errors carry what the kernel wrote in the context's log, such as
/// `overlay: Unknown parameter 'x'`.
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
}

impl FsContext {
    /// Starts a new file system of type `kind`, such as `tmpfs`.
    pub fn open(kind: &str) -> Result<Self> {
        let open = || {
            let kind = CString::new(kind).map_err(|_| Errno::EINVAL)?;
            // SAFETY: `kind` is a C string that outlives the call, which returns a new descriptor.
            owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
        };
        Ok(Self { fd: call!(open(), "fsopen({kind:?})")? })
    }

    /// Picks the mounted file system of `path` below `dir`, to reconfigure it; path `""` picks that of `dir` itself.
    pub fn pick(dir: Option<BorrowedFd>, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = FSPICK_CLOEXEC | if path.as_os_str().is_empty() { FSPICK_EMPTY_PATH } else { 0 };
        let pick = |path: &std::ffi::CStr| {
            // SAFETY: `path` is a C string that outlives the call, which returns a new descriptor.
            owned(unsafe { libc::syscall(libc::SYS_fspick, raw(dir), path.as_ptr(), flags) })
        };
        Ok(Self { fd: call!(path.with_nix_path(pick).flatten(), "fspick({})", At(dir, path))? })
    }

    /// Sets an option without value, such as `ro`.
    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), std::ptr::null(), 0, || format!("flag {key:?}"))
    }

    /// Sets an option to a string, such as `size` to `64k`; the device is `source`.
    pub fn string(&self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Result<()> {
        let value = value.as_ref();
        let text = || format!("{key:?}, {value:?}");
        let Ok(value) = CString::new(value.as_encoded_bytes()) else {
            return Err(self.error(text, Errno::EINVAL));
        };
        self.config(FSCONFIG_SET_STRING, Some(key), value.as_ptr().cast(), 0, text)
    }

    /// Sets an option to a descriptor.
    pub fn fd(&self, key: &str, value: impl AsFd) -> Result<()> {
        let value = value.as_fd().as_raw_fd();
        self.config(FSCONFIG_SET_FD, Some(key), std::ptr::null(), value, || format!("{key:?}, [{value}]"))
    }

    /// Sets an option to bytes.
    pub fn binary(&self, key: &str, value: &[u8]) -> Result<()> {
        let text = || format!("{key:?}, {} bytes", value.len());
        let Ok(len) = i32::try_from(value.len()) else { return Err(self.error(text, Errno::E2BIG)) };
        self.config(FSCONFIG_SET_BINARY, Some(key), value.as_ptr(), len, text)
    }

    /// Makes the file system's superblock of the options set so far.
    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, std::ptr::null(), 0, || "FSCONFIG_CMD_CREATE".to_string())
    }

    /// Applies the options set so far to a file system that was [picked](Self::pick).
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, std::ptr::null(), 0, || "FSCONFIG_CMD_RECONFIGURE".to_string())
    }

    /// A detached mount of the created file system, with `MOUNT_ATTR_*` attributes.
    pub fn mount(&self, attrs: u64) -> Result<OwnedFd> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: takes integers, returns a new descriptor.
        let ret = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attrs as u32) };
        owned(ret).map_err(|errno| Error::new(format!("fsmount([{fd}], {attrs:#x})"), errno).with_note(self.log()))
    }

    fn config(
        &self,
        command: u32,
        key: Option<&str>,
        value: *const u8,
        aux: i32,
        text: impl Fn() -> String,
    ) -> Result<()> {
        let Ok(key) = key.map(CString::new).transpose() else { return Err(self.error(text, Errno::EINVAL)) };
        let key = key.as_ref().map_or(std::ptr::null(), |key| key.as_ptr());
        // SAFETY: `key` is null or a C string. `value` is what `command` asks for: null, a C string, or `aux` readable
        // bytes, as each of the callers above passes it. All outlive the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, key, value, aux) };
        Errno::result(ret).map(drop).map_err(|errno| self.error(text, errno))
    }

    fn error(&self, text: impl Fn() -> String, errno: Errno) -> Error {
        Error::new(format!("fsconfig([{}], {})", self.fd.as_raw_fd(), text()), errno).with_note(self.log())
    }

    /// The kernel's messages so far: each read takes one, `e text\n`, `w text\n` or `i text\n`; none left is ENODATA.
    fn log(&self) -> String {
        let mut lines = Vec::new();
        let mut message = [0; 1024];
        // The kernel keeps eight messages; the bound is for safety only.
        for _ in 0..16 {
            let Ok(len @ 1..) = nix::unistd::read(&self.fd, &mut message) else { break };
            let line = String::from_utf8_lossy(&message[..len]);
            let line = line.trim_end();
            lines.push(line.split_once(' ').map_or(line, |(_, text)| text).to_string());
        }
        lines.join("; ")
    }
}

impl AsFd for FsContext {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
