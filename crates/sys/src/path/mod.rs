//! Files and directories, by descriptor.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use crate::error::{At, at, owned, raw};
use crate::{Error, Result};

/// Resolution rules of [`openat2`] (man 2 openat2).
pub use libc::{
    RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
};

/// Whether the process may execute `path` with its effective ids (man 2 faccessat, `AT_EACCESS`).
pub fn access_exec(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let mode = nix::unistd::AccessFlags::X_OK;
    call!(nix::unistd::faccessat(at(None), path, mode, AtFlags::AT_EACCESS), "faccessat({path:?}, X_OK)")
}

/// What `fstat` tells of a file.
pub type Stat = libc::stat;

/// How often [`openat2`] tries again when a rename races with it: the kernel then answers EAGAIN, and a hostile container
/// could rename forever, so it fails closed in the end.
const OPENAT2_ATTEMPTS: usize = 128;

/// Opens `path` below `dir` (the working directory where `None`) under the `resolve` rules. Close-on-exec always.
///
/// `flags` are `O_*`, `mode` counts only with `O_CREAT` or `O_TMPFILE`.
pub fn openat2(
    dir: Option<BorrowedFd>,
    path: impl AsRef<Path>,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    let path = path.as_ref();
    // SAFETY: `open_how` is plain integers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
    how.mode = mode.into();
    how.resolve = resolve;
    let open = |path: &std::ffi::CStr| {
        for _ in 0..OPENAT2_ATTEMPTS {
            // SAFETY: `path` is a C string and `how` of the stated size; both outlive the call.
            let ret = unsafe {
                libc::syscall(libc::SYS_openat2, raw(dir), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
            };
            match owned(ret) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    };
    call!(path.with_nix_path(open).flatten(), "openat2({}, {})", At(dir, path), flag_names(flags))
}

/// Opens `path` as the caller sees it. For paths nobody hostile can change.
pub fn open(path: impl AsRef<Path>, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(None, path, flags, mode)
}

/// Opens `path` below `dir`, following symlinks in the middle of it. For single components and trusted trees.
pub fn openat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: i32, mode: u32) -> Result<OwnedFd> {
    let path = path.as_ref();
    let oflag = OFlag::from_bits_retain(flags | libc::O_CLOEXEC);
    let fd = retry!(nix::fcntl::openat(at(dir), path, oflag, Mode::from_bits_retain(mode)));
    call!(fd, "openat({}, {})", At(dir, path), flag_names(flags))
}

/// Opens the very file of `fd` again, with other `flags`, through the caller's `/proc`.
pub fn reopen(fd: impl AsFd, flags: i32) -> Result<OwnedFd> {
    openat(None, fd_path(fd.as_fd()), flags, 0)
}

/// The path by which `/proc` shows a descriptor of the calling process: `/proc/self/fd/7`. `Copy` keeps an owned descriptor,
/// which would be closed on return, from being passed.
pub fn fd_path(fd: impl AsFd + Copy) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Makes a directory.
pub fn mkdirat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, mode: u32) -> Result<()> {
    let path = path.as_ref();
    let ret = nix::sys::stat::mkdirat(at(dir), path, Mode::from_bits_retain(mode));
    call!(ret, "mkdirat({}, {mode:#o})", At(dir, path))
}

/// Makes a device, fifo, socket or empty regular file: `mode` holds type and permissions, `dev` counts for devices.
pub fn mknodat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, mode: u32, dev: u64) -> Result<()> {
    let path = path.as_ref();
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    let ret = nix::sys::stat::mknodat(at(dir), path, kind, Mode::from_bits_truncate(mode), dev);
    call!(ret, "mknodat({}, {mode:#o}, {}:{})", At(dir, path), libc::major(dev), libc::minor(dev))
}

/// Makes a fifo.
pub fn mkfifoat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, mode: u32) -> Result<()> {
    mknodat(dir, path, libc::S_IFIFO | mode, 0)
}

/// Makes the symlink `path` that says `target`.
pub fn symlinkat(target: impl AsRef<Path>, dir: Option<BorrowedFd>, path: impl AsRef<Path>) -> Result<()> {
    let (target, path) = (target.as_ref(), path.as_ref());
    call!(nix::unistd::symlinkat(target, at(dir), path), "symlinkat({target:?}, {})", At(dir, path))
}

/// Makes the hard link `to` of `from`; `flags` are `AT_EMPTY_PATH` and `AT_SYMLINK_FOLLOW`.
pub fn linkat(
    from_dir: Option<BorrowedFd>,
    from: impl AsRef<Path>,
    to_dir: Option<BorrowedFd>,
    to: impl AsRef<Path>,
    flags: i32,
) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let ret = nix::unistd::linkat(at(from_dir), from, at(to_dir), to, AtFlags::from_bits_retain(flags));
    call!(ret, "linkat({}, {})", At(from_dir, from), At(to_dir, to))
}

/// Changes owner and group; `flags` are `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW`.
pub fn fchownat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, uid: u32, gid: u32, flags: i32) -> Result<()> {
    let path = path.as_ref();
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let ret = nix::unistd::fchownat(at(dir), path, user, group, AtFlags::from_bits_retain(flags));
    call!(ret, "fchownat({}, {uid}, {gid})", At(dir, path))
}

/// Changes owner and group of the file of `fd`, which may be an `O_PATH` descriptor.
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    fchownat(Some(fd.as_fd()), "", uid, gid, libc::AT_EMPTY_PATH)
}

/// Changes the permissions of the file of `fd`, which may be an `O_PATH` descriptor (then through `/proc`: only since Linux
/// 6.6 does a call take such a descriptor).
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    let bits = Mode::from_bits_retain(mode);
    let ret = match nix::sys::stat::fchmod(&fd, bits) {
        Err(Errno::EBADF) => {
            let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
            nix::sys::stat::fchmodat(at(None), &fd_path(fd.as_fd()), bits, flags)
        }
        ret => ret,
    };
    call!(ret, "fchmod([{}], {mode:#o})", fd.as_fd().as_raw_fd())
}

/// What a symlink says; `path` "" reads the symlink of an `O_PATH` descriptor.
pub fn readlinkat(dir: Option<BorrowedFd>, path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    call!(nix::fcntl::readlinkat(at(dir), path), "readlinkat({})", At(dir, path)).map(PathBuf::from)
}

/// Removes a name; `flags` 0 or `AT_REMOVEDIR`.
pub fn unlinkat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: i32) -> Result<()> {
    let path = path.as_ref();
    let rmdir = flags & libc::AT_REMOVEDIR != 0;
    let kind = if rmdir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
    let name = if rmdir { ", AT_REMOVEDIR" } else { "" };
    call!(nix::unistd::unlinkat(at(dir), path, kind), "unlinkat({}{name})", At(dir, path))
}

/// Renames; `flags` are `RENAME_NOREPLACE` and `RENAME_EXCHANGE`.
pub fn renameat2(
    from_dir: Option<BorrowedFd>,
    from: impl AsRef<Path>,
    to_dir: Option<BorrowedFd>,
    to: impl AsRef<Path>,
    flags: u32,
) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let rename = |from: &std::ffi::CStr, to: &std::ffi::CStr| {
        // SAFETY: both paths are C strings that outlive the call. The raw call, because musl has no wrapper.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_renameat2, raw(from_dir), from.as_ptr(), raw(to_dir), to.as_ptr(), flags)
        })
    };
    let ret = from.with_nix_path(|from| to.with_nix_path(|to| rename(from, to)).flatten()).flatten();
    call!(ret, "renameat2({}, {})", At(from_dir, from), At(to_dir, to)).map(drop)
}

/// Type, mode, owner, device and inode of the file of `fd`.
pub fn fstat(fd: impl AsFd) -> Result<Stat> {
    call!(nix::sys::stat::fstat(&fd), "fstat([{}])", fd.as_fd().as_raw_fd())
}

/// The same of `path` below `dir`; `flags` are `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`.
pub fn fstatat(dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: i32) -> Result<Stat> {
    let path = path.as_ref();
    let ret = nix::sys::stat::fstatat(at(dir), path, AtFlags::from_bits_retain(flags));
    call!(ret, "fstatat({})", At(dir, path))
}

/// The names in a directory, without `.` and `..`, in the kernel's order. `dir` may be an `O_PATH` descriptor.
pub fn read_dir(dir: impl AsFd) -> Result<Vec<OsString>> {
    let fd = dir.as_fd().as_raw_fd();
    let again = openat(Some(dir.as_fd()), ".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut entries = call!(nix::dir::Dir::from_fd(again), "getdents([{fd}])")?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = call!(entry, "getdents([{fd}])")?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_os_string());
        }
    }
    Ok(names)
}

/// Reads up to `buf.len()` bytes, again where a signal interrupts; 0 at the end.
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    call!(retry!(nix::unistd::read(&fd, buf)), "read([{}])", fd.as_fd().as_raw_fd())
}

/// Writes once, again where a signal interrupts; returns how many bytes went.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    call!(retry!(nix::unistd::write(&fd, bytes)), "write([{}], {} bytes)", fd.as_fd().as_raw_fd(), bytes.len())
}

/// Reads to the end. More than `cap` bytes are an error (`EFBIG`), not a truncation.
pub fn read_to_end(fd: impl AsFd, cap: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = read(&fd, &mut chunk)?;
        if n == 0 {
            return Ok(bytes);
        }
        if bytes.len() + n > cap {
            let text = format!("read([{}]) of at most {cap} bytes", fd.as_fd().as_raw_fd());
            return Err(Error::new(text, Errno::EFBIG));
        }
        bytes.extend_from_slice(&chunk[..n]);
    }
}

/// Writes all of `bytes`.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = write(&fd, bytes)?;
        if n == 0 {
            return Err(Error::new(format!("write([{}])", fd.as_fd().as_raw_fd()), Errno::EIO));
        }
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Copies `from` from where it stands to its end into `to`, within the kernel; returns how many bytes that were.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<u64> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let mut copied = 0;
    loop {
        // The most that one call copies (man 2 sendfile).
        let most = 0x7fff_f000;
        // SAFETY: takes integers; a null offset stands for that of the description.
        let ret = retry!(Errno::result(unsafe { libc::sendfile(to, from, std::ptr::null_mut(), most) }));
        match call!(ret, "sendfile([{to}], [{from}])")? {
            0 => return Ok(copied),
            n => copied += n as u64,
        }
    }
}

/// Sets the length of a regular file.
pub fn ftruncate(fd: impl AsFd, len: i64) -> Result<()> {
    call!(nix::unistd::ftruncate(&fd, len), "ftruncate([{}], {len})", fd.as_fd().as_raw_fd())
}

/// Sets an extended attribute on the file of `fd` (no `O_PATH` descriptor); `flags` 0, `XATTR_CREATE` or `XATTR_REPLACE`.
pub fn setxattr(fd: impl AsFd, name: &str, value: &[u8], flags: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    let set = || {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `name` is a C string, `value` is readable for its length; both outlive the call.
        Errno::result(unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), flags) })
    };
    call!(set(), "fsetxattr([{fd}], {name:?})").map(drop)
}

/// An extended attribute of the file of `fd` (no `O_PATH` descriptor); `None` where it has none of that name.
pub fn getxattr(fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    let fd = fd.as_fd().as_raw_fd();
    let get = |value: &mut [u8]| {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `name` is a C string, `value` is writable for its length; both outlive the call.
        Errno::result(unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len()) })
    };
    // XATTR_SIZE_MAX: no attribute is longer, so one call always suffices.
    let mut value = vec![0; 65536];
    match get(&mut value) {
        Ok(len) => {
            value.truncate(len as usize);
            Ok(Some(value))
        }
        Err(Errno::ENODATA) => Ok(None),
        Err(errno) => Err(Error::new(format!("fgetxattr([{fd}], {name:?})"), errno)),
    }
}

/// Takes or releases a whole-file lock: `LOCK_EX`, `LOCK_SH`, `LOCK_UN`, with `LOCK_NB` to fail with `EWOULDBLOCK` instead of
/// waiting. The lock goes with the last copy of the descriptor.
pub fn flock(fd: impl AsFd, operation: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes integers only.
    let ret = retry!(Errno::result(unsafe { libc::flock(fd, operation) }));
    call!(ret, "flock([{fd}], {operation})").map(drop)
}

/// The names of `O_*` flags, joined by `|`.
pub(crate) fn flag_names(flags: i32) -> String {
    const NAMES: [(i32, &str); 13] = [
        (libc::O_PATH, "O_PATH"),
        (libc::O_TMPFILE, "O_TMPFILE"),
        (libc::O_DIRECTORY, "O_DIRECTORY"),
        (libc::O_NOFOLLOW, "O_NOFOLLOW"),
        (libc::O_CREAT, "O_CREAT"),
        (libc::O_EXCL, "O_EXCL"),
        (libc::O_TRUNC, "O_TRUNC"),
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_NOCTTY, "O_NOCTTY"),
        (libc::O_SYNC, "O_SYNC"),
        (libc::O_NOATIME, "O_NOATIME"),
        (libc::O_CLOEXEC, ""),
    ];
    // Not O_ACCMODE, which takes in O_PATH with musl.
    const ACCESS: i32 = libc::O_RDONLY | libc::O_WRONLY | libc::O_RDWR;
    let mut names = Vec::new();
    match flags & ACCESS {
        libc::O_WRONLY => names.push("O_WRONLY".to_string()),
        libc::O_RDWR => names.push("O_RDWR".to_string()),
        _ if flags & libc::O_PATH != 0 => {}
        _ => names.push("O_RDONLY".to_string()),
    }
    let mut rest = flags & !ACCESS;
    for (flag, name) in NAMES {
        if rest & flag == flag {
            rest &= !flag;
            if !name.is_empty() {
                names.push(name.to_string());
            }
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names.join("|")
}

#[cfg(test)]
mod tests;
