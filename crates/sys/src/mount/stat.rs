//! What a file tells about its mount and file system.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

use crate::Result;
use crate::error::{At, raw};

/// The part of statx(2) that tells files and mounts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statx {
    /// The mount the file was reached through (Linux 5.8), as `/proc/self/mountinfo` numbers it.
    pub mnt_id: u64,
    /// Major and minor number of the file system's device.
    pub dev: (u32, u32),
    /// Major and minor number where the file is a device.
    pub rdev: (u32, u32),
    /// Inode.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Length in bytes.
    pub size: u64,
    /// `STATX_ATTR_*` that hold, among those that the file system can tell.
    pub attributes: u64,
}

impl Statx {
    /// The file is protected by fs-verity: its content cannot change.
    pub fn is_verity(&self) -> bool {
        self.attributes & libc::STATX_ATTR_VERITY as u64 != 0
    }

    /// The file is the root of a mount.
    pub fn is_mount_root(&self) -> bool {
        self.attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
    }

    /// The type of the file: `S_IFDIR`, `S_IFLNK`, …
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// Asks about `path` below `dir`; `flags` are `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW`. Triggers no automount.
pub fn statx(dir: Option<BorrowedFd>, path: impl AsRef<Path>, flags: i32) -> Result<Statx> {
    let path = path.as_ref();
    // SAFETY: `statx` is plain integers, for which zero is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let ask = |path: &std::ffi::CStr| {
        let flags = flags | libc::AT_NO_AUTOMOUNT;
        // SAFETY: `path` is a C string and `stat` writable; both outlive the call. The raw call, because an old glibc
        // emulates statx where a sandbox forbids it, without attributes.
        Errno::result(unsafe { libc::syscall(libc::SYS_statx, raw(dir), path.as_ptr(), flags, mask, &raw mut stat) })
    };
    call!(path.with_nix_path(ask).flatten(), "statx({})", At(dir, path))?;
    Ok(Statx {
        mnt_id: stat.stx_mnt_id,
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        ino: stat.stx_ino,
        mode: stat.stx_mode.into(),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        nlink: stat.stx_nlink,
        size: stat.stx_size,
        attributes: stat.stx_attributes & stat.stx_attributes_mask,
    })
}

/// `ST_RELATIME` of [`StatFs::flags`], which libc lacks for musl.
pub const ST_RELATIME: u64 = 0x1000;

/// What a file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// Its magic number, such as `PROC_SUPER_MAGIC` (man 2 statfs).
    pub magic: u64,
    /// `ST_*` flags of the mount and the superblock together.
    pub flags: u64,
}

/// The kernel's `struct statfs` of 64-bit machines; libc's hides the flags on glibc.
#[repr(C)]
#[derive(Default)]
struct RawStatFs {
    kind: u64,
    block_size: u64,
    blocks_and_files: [u64; 5],
    id: [i32; 2],
    name_length: u64,
    fragment_size: u64,
    flags: u64,
    spare: [u64; 4],
}
const _: () = assert!(size_of::<RawStatFs>() == size_of::<libc::statfs>());

/// Asks the file system of `fd`, which may be an `O_PATH` descriptor.
pub fn fstatfs(fd: impl AsFd) -> Result<StatFs> {
    let fd = fd.as_fd().as_raw_fd();
    let mut stat = RawStatFs::default();
    // SAFETY: `stat` is writable, as long as the kernel's structure, and outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_fstatfs, fd, &raw mut stat) };
    call!(Errno::result(ret), "fstatfs([{fd}])")?;
    Ok(StatFs { magic: stat.kind, flags: stat.flags })
}

/// The magic number of the file system of `fd`.
pub fn fstatfs_magic(fd: impl AsFd) -> Result<u64> {
    Ok(fstatfs(fd)?.magic)
}
