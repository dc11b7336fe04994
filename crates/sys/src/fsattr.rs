//! Extended attributes of any file, also of a symlink or through an `O_PATH` descriptor, and copies that share blocks.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;

use crate::path::fd_path;
use crate::{Error, Result};

/// No attribute is longer (XATTR_SIZE_MAX), nor a list of names (XATTR_LIST_MAX), so one call always suffices.
const LONGEST: usize = 65536;

/// The path of `fd` in `/proc`: the calls that take a descriptor refuse `O_PATH` ones, and so symlinks (before Linux 6.13).
fn through_proc(fd: &impl AsFd) -> CString {
    CString::new(fd_path(fd).into_os_string().into_vec()).unwrap_or_default()
}

/// The names of all extended attributes of the file of `fd`; none where the file system knows no attributes.
pub fn list(fd: impl AsFd) -> Result<Vec<OsString>> {
    let path = through_proc(&fd);
    let mut names = [0u8; LONGEST];
    // SAFETY: `path` is a C string, `names` is writable for its length; both outlive the call.
    let ret = Errno::result(unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) });
    match ret {
        Ok(length) => {
            let parts = names[..length as usize].split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(parts.map(|name| OsStr::from_bytes(name).to_owned()).collect())
        }
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(Error::new(format!("listxattr([{}])", fd.as_fd().as_raw_fd()), errno)),
    }
}

/// An extended attribute of the file of `fd`; `None` where it has none of that name.
pub fn get(fd: impl AsFd, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let path = through_proc(&fd);
    let read = |value: &mut [u8]| {
        let name = c_name(name)?;
        // SAFETY: both strings are C strings, `value` is writable for its length; all outlive the call.
        Errno::result(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) })
    };
    let mut value = vec![0; LONGEST];
    match read(&mut value) {
        Ok(length) => {
            value.truncate(length as usize);
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(Error::new(format!("getxattr([{}], {name:?})", fd.as_fd().as_raw_fd()), errno)),
    }
}

/// Removes an extended attribute of the file of `fd`; says whether it was there. Of several callers at once one removes it.
pub fn take(fd: impl AsFd, name: &OsStr) -> Result<bool> {
    let path = through_proc(&fd);
    let remove = || {
        let name = c_name(name)?;
        // SAFETY: both strings are C strings that outlive the call.
        Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) })
    };
    match remove() {
        Ok(_) => Ok(true),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::new(format!("removexattr([{}], {name:?})", fd.as_fd().as_raw_fd()), errno)),
    }
}

/// Sets an extended attribute on the file of `fd`.
pub fn set(fd: impl AsFd, name: &OsStr, value: &[u8]) -> Result<()> {
    let path = through_proc(&fd);
    let write = || {
        let name = c_name(name)?;
        // SAFETY: both strings are C strings, `value` is readable for its length; all outlive the call.
        Errno::result(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
    };
    call!(write(), "setxattr([{}], {name:?}, {} bytes)", fd.as_fd().as_raw_fd(), value.len()).map(drop)
}

/// Makes the file `to` share all blocks of `from` (man 2 ioctl_ficlone): btrfs, xfs, bcachefs and overlays of those.
pub fn ficlone(to: impl AsFd, from: impl AsFd) -> Result<()> {
    let (to, from) = (to.as_fd().as_raw_fd(), from.as_fd().as_raw_fd());
    // SAFETY: FICLONE takes two integers.
    let ret = Errno::result(unsafe { libc::ioctl(to, libc::FICLONE, from) });
    call!(ret, "ioctl([{to}], FICLONE, [{from}])").map(drop)
}

/// `struct fiemap` with room for some extents.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [FiemapExtent; 128],
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `_IOWR('f', 11, struct fiemap)`; the size is that of the header.
const FIEMAP: u32 = 3 << 30 | 32 << 16 | (b'f' as u32) << 8 | 11;
const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_LAST: u32 = 1;
const FIEMAP_EXTENT_SHARED: u32 = 0x2000;

/// Bytes of a file's extents that it shares with no other file.
pub fn unshared_bytes(fd: impl AsFd) -> Result<u64> {
    let number = fd.as_fd().as_raw_fd();
    let (mut start, mut total) = (0, 0);
    loop {
        // SAFETY: `Fiemap` is plain integers, for which zero is valid.
        let mut map: Fiemap = unsafe { std::mem::zeroed() };
        map.start = start;
        map.length = u64::MAX - start;
        map.flags = FIEMAP_FLAG_SYNC;
        map.room = map.extents.len() as u32;
        // SAFETY: `map` is the structure of FIEMAP with as many extents as it says, and outlives the call.
        let ret = unsafe { libc::ioctl(number, FIEMAP as libc::Ioctl, &raw mut map) };
        call!(Errno::result(ret), "ioctl([{number}], FS_IOC_FIEMAP)")?;
        let extents = &map.extents[..(map.mapped as usize).min(map.extents.len())];
        total += extents.iter().filter(|e| e.flags & FIEMAP_EXTENT_SHARED == 0).map(|e| e.length).sum::<u64>();
        match extents.last() {
            Some(last) if last.flags & FIEMAP_EXTENT_LAST == 0 => start = last.logical + last.length,
            _ => return Ok(total),
        }
    }
}

/// Writes everything of the file system of `fd` to disk.
pub fn syncfs(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes an integer.
    call!(Errno::result(unsafe { libc::syncfs(fd) }), "syncfs([{fd}])").map(drop)
}

/// Writes a file or directory, and what leads to it, to disk.
pub fn fsync(fd: impl AsFd) -> Result<()> {
    call!(nix::unistd::fsync(&fd), "fsync([{}])", fd.as_fd().as_raw_fd())
}

fn c_name(name: &OsStr) -> nix::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_set_and_listed_through_an_o_path_descriptor() {
        let dir = std::env::temp_dir().join(format!("offshoot-sys-xattr-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let fd = crate::path::open(&dir, libc::O_PATH | libc::O_DIRECTORY, 0).unwrap();
        match set(&fd, OsStr::new("user.test"), b"a\nb\0c") {
            Err(error) if error.errno() == Errno::EOPNOTSUPP => println!("skipped: no user attributes in {dir:?}"),
            result => {
                result.unwrap();
                assert_eq!(list(&fd).unwrap(), ["user.test"]);
                assert_eq!(get(&fd, OsStr::new("user.test")).unwrap().unwrap(), b"a\nb\0c");
                assert_eq!(get(&fd, OsStr::new("user.none")).unwrap(), None);
            }
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
