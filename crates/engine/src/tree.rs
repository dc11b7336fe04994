//! A mount, or a tree of them, held by descriptor.

use crate::error::Result;
use offshoot_sys::libc;
use offshoot_sys::mount::{self, AT_EMPTY_PATH, AT_RECURSIVE, MountAttr, OPEN_TREE_CLONE, open_tree};
use std::os::fd::{AsFd, OwnedFd};

/// The clone of a mount found by descriptor.
pub(crate) fn clone_mount(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    open_tree(Some(fd.as_fd()), "", flags).map_err(Into::into)
}

/// Adds attributes to the mount at `fd`.
pub(crate) fn set_attributes(fd: impl AsFd, set: u64, clear: u64, recursive: bool) -> offshoot_sys::Result<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    mount::mount_setattr(fd, "", flags, &MountAttr { set, clear, ..Default::default() })
}

/// Sets propagation by mount(2) flags, with `MS_REC` where asked.
pub(crate) fn set_propagation(fd: impl AsFd, flags: u64) -> offshoot_sys::Result<()> {
    let recursive = if flags & libc::MS_REC != 0 { AT_RECURSIVE } else { 0 };
    let attr = MountAttr { propagation: flags & !libc::MS_REC, ..Default::default() };
    mount::mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &attr)
}
