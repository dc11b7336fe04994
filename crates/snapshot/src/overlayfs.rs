//! The marks by which overlayfs layers say what they hide (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque").

use std::ffi::OsStr;
use std::os::fd::AsFd;

use nix::sys::stat::{FileStat, Mode, SFlag, mknodat};

use crate::dir::{Dir, file_type};
use crate::error::{Call, Result};

/// The attribute where the mounter is privileged, and its unprivileged twin (mount option `userxattr`, Linux 5.11).
pub(crate) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Whether a file is the mark of a deleted one: a character device 0:0.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Marks `name` in `dir` as deleted. Needs no privilege (Linux 5.8).
pub(crate) fn whiteout(dir: &Dir, name: &OsStr) -> Result<()> {
    mknodat(dir, name, SFlag::S_IFCHR, Mode::empty(), 0).call(|| format!("mknodat({:?}, 0:0)", dir.path().join(name)))
}

/// Marks a directory as hiding everything below it.
pub(crate) fn set_opaque(dir: &Dir, rootless: bool) -> Result<()> {
    Ok(offshoot_sys::fsattr::set(dir, OsStr::new(OPAQUE[usize::from(rootless)]), b"y")?)
}

/// Whether a directory hides everything below it.
pub(crate) fn is_opaque(dir: impl AsFd) -> Result<bool> {
    for name in OPAQUE {
        if offshoot_sys::fsattr::get(&dir, OsStr::new(name))?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}
