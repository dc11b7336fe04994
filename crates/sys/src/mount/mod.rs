//! Mounts: the descriptor-based calls of Linux 5.2 and later, and the classic ones where they are still needed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use crate::Result;
use crate::error::{At, owned, raw};

mod context;
mod stat;

pub use context::FsContext;
pub use stat::{ST_RELATIME, StatFs, Statx, fstatfs, fstatfs_magic, statx};

/// Mount attributes (man 2 mount_setattr).
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// Ignore set-user-id bits and file capabilities.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// Ignore device files.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// No execution.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// The mask of the access-time attributes; clear it together with setting one of them.
pub const MOUNT_ATTR__ATIME: u64 = 0x70;
/// Update access times when older than modification or a day.
pub const MOUNT_ATTR_RELATIME: u64 = 0;
/// Never update access times.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// Always update access times.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// No access times for directories.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// Map ids through a user namespace.
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// Follow no symlinks.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// `open_tree`: make a detached copy of the mount.
pub const OPEN_TREE_CLONE: u32 = 1;
/// `open_tree`: close on exec; always set here.
pub const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
/// `AT_RECURSIVE`: the mounts below as well.
pub const AT_RECURSIVE: u32 = 0x8000;
/// `AT_EMPTY_PATH`, for the `u32` flags of this module.
pub const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
/// `AT_SYMLINK_NOFOLLOW`, for the `u32` flags of this module.
pub const AT_SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;

/// `move_mount`: follow symlinks of the source.
pub const MOVE_MOUNT_F_SYMLINKS: u32 = 0x1;
/// `move_mount`: the source is the descriptor itself.
pub const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
/// `move_mount`: follow symlinks of the target.
pub const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
/// `move_mount`: the target is the descriptor itself.
pub const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
/// `move_mount`: mount beneath the top mount of the target (Linux 6.5).
pub const MOVE_MOUNT_BENEATH: u32 = 0x200;

/// Opens a mount, or with [`OPEN_TREE_CLONE`] a detached copy of it that goes away with the descriptor.
pub fn open_tree(dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: u32) -> Result<OwnedFd> {
    let path = path.as_ref();
    let open = |path: &std::ffi::CStr| {
        // SAFETY: `path` is a C string that outlives the call, which returns a new descriptor.
        owned(unsafe { libc::syscall(libc::SYS_open_tree, raw(dir), path.as_ptr(), flags | OPEN_TREE_CLOEXEC) })
    };
    call!(path.with_nix_path(open).flatten(), "open_tree({}, {flags:#x})", At(dir, path))
}

/// Attaches the mount `from` on the file or directory `to`; neither goes by path.
pub fn move_mount(from: impl AsFd, to: impl AsFd) -> Result<()> {
    move_mount_flags(from, Some(to.as_fd()), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
}

/// Attaches the mount `from` on `path` below `dir`, which may end in no symlink.
pub fn move_mount_to(from: impl AsFd, dir: Option<BorrowedFd>, path: impl AsRef<Path>) -> Result<()> {
    move_mount_flags(from, dir, path, MOVE_MOUNT_F_EMPTY_PATH)
}

/// Attaches the mount `from` on `path` below `dir`, under `MOVE_MOUNT_*` flags.
pub fn move_mount_flags(from: impl AsFd, dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: u32) -> Result<()> {
    let (from, path) = (from.as_fd().as_raw_fd(), path.as_ref());
    let go = |path: &std::ffi::CStr| {
        // SAFETY: both paths are C strings that outlive the call.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), raw(dir), path.as_ptr(), flags)
        })
    };
    call!(path.with_nix_path(go).flatten(), "move_mount([{from}], {})", At(dir, path)).map(drop)
}

/// A change of mount attributes (man 2 mount_setattr).
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`, or 0 for no change.
    pub propagation: u64,
    /// The user namespace for [`MOUNT_ATTR_IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
}

/// The kernel's `struct mount_attr`, which libc 0.2 lacks.
#[repr(C)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of the mount of `path` below `fd` (`""` with [`AT_EMPTY_PATH`] for `fd` itself), with
/// [`AT_RECURSIVE`] of all mounts below as well: of all or, on an error, of none.
pub fn mount_setattr(fd: impl AsFd, path: impl AsRef<Path>, flags: u32, attr: &MountAttr) -> Result<()> {
    let (fd, path) = (fd.as_fd(), path.as_ref());
    let args = RawMountAttr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let set = |path: &std::ffi::CStr| {
        // SAFETY: `path` is a C string and `args` of the stated size; both outlive the call.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                fd.as_raw_fd(),
                path.as_ptr(),
                flags,
                &raw const args,
                size_of::<RawMountAttr>(),
            )
        })
    };
    let MountAttr { set: on, clear: off, propagation, .. } = attr;
    let ret = path.with_nix_path(set).flatten();
    call!(
        ret,
        "mount_setattr({}, flags={flags:#x}, set={on:#x}, clear={off:#x}, propagation={propagation:#x})",
        At(Some(fd), path)
    )
    .map(drop)
}

/// Makes `new` the root of the mount namespace and puts the old root at `old` (man 2 pivot_root; both may be `"."`).
pub fn pivot_root(new: impl AsRef<Path>, old: impl AsRef<Path>) -> Result<()> {
    let (new, old) = (new.as_ref(), old.as_ref());
    call!(nix::unistd::pivot_root(new, old), "pivot_root({new:?}, {old:?})")
}

/// Unmounts `path`; `flags` are `MNT_DETACH`, `MNT_FORCE`, `MNT_EXPIRE`, `UMOUNT_NOFOLLOW`.
pub fn umount(path: impl AsRef<Path>, flags: i32) -> Result<()> {
    let path = path.as_ref();
    call!(nix::mount::umount2(path, MntFlags::from_bits_retain(flags)), "umount2({path:?}, {flags:#x})")
}

/// Detaches the mount whose root `fd` is, through the caller's `/proc`. Lazily always, since `fd` itself keeps it busy.
pub fn umount_fd(fd: impl AsFd) -> Result<()> {
    umount(crate::path::fd_path(fd.as_fd()), libc::MNT_DETACH)
}

/// mount(2), for what the newer calls cannot do. `target` is `/proc/self/fd/N` wherever a container could change the path;
/// `flags` are `MS_*`, `data` the file system's options.
pub fn mount_legacy(
    source: Option<&Path>,
    target: impl AsRef<Path>,
    kind: Option<&str>,
    flags: u64,
    data: Option<&str>,
) -> Result<()> {
    let target = target.as_ref();
    let ret = nix::mount::mount(source, target, kind, MsFlags::from_bits_retain(flags), data);
    call!(
        ret,
        "mount({:?}, {target:?}, {:?}, {flags:#x}, {:?})",
        source.unwrap_or(Path::new("")),
        kind.unwrap_or_default(),
        data.unwrap_or_default()
    )
}
