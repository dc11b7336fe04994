//! Subvolumes of btrfs: snapshots, deletion, and limits by quota groups (linux/btrfs.h).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use crate::{Error, Result};

/// The magic number of the file system.
pub const MAGIC: u64 = 0x9123_683e;
/// The inode number of the root directory of every subvolume (BTRFS_FIRST_FREE_OBJECTID).
pub const ROOT_INODE: u64 = 256;

const QUOTA_TREE: u64 = 8;
const QGROUP_INFO_KEY: u32 = 242;
const LIMIT_MAX_REFERENCED: u64 = 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`, without the unions that only multi-device and qgroup inheritance use.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
#[derive(Default)]
struct QgroupLimit {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
struct SearchKey {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    items: u32,
    unused: [u32; 9],
}

/// `struct btrfs_ioctl_search_args`: what is found stands in the buffer, each item after a header of 32 bytes.
#[repr(C)]
struct SearchArgs {
    key: SearchKey,
    buffer: [u8; 4096 - size_of::<SearchKey>()],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`: the subvolumes just below one.
#[repr(C)]
struct RootRefs {
    min_tree: u64,
    refs: [[u64; 2]; 255],
    count: u8,
    align: [u8; 7],
}

const _: () = {
    assert!(size_of::<VolArgs>() == 4096);
    assert!(size_of::<VolArgsV2>() == 4096);
    assert!(size_of::<SearchArgs>() == 4096);
    assert!(size_of::<InoLookup>() == 4096);
    assert!(size_of::<RootRefs>() == 4096);
};

const fn iow<T>(number: u32) -> u32 {
    1 << 30 | (size_of::<T>() as u32) << 16 | 0x94 << 8 | number
}

const fn ior<T>(number: u32) -> u32 {
    2 << 30 | (size_of::<T>() as u32) << 16 | 0x94 << 8 | number
}

const SNAP_DESTROY: u32 = iow::<VolArgs>(15);
const SNAP_CREATE_V2: u32 = iow::<VolArgsV2>(23);
const SUBVOL_CREATE_V2: u32 = iow::<VolArgsV2>(24);
const QGROUP_LIMIT: u32 = ior::<QgroupLimit>(43);
const TREE_SEARCH: u32 = iow::<SearchArgs>(17) | 2 << 30;
const INO_LOOKUP: u32 = iow::<InoLookup>(18) | 2 << 30;
const GET_SUBVOL_ROOTREF: u32 = iow::<RootRefs>(61) | 2 << 30;

/// Runs a request whose argument is a `T`.
fn ioctl<T>(fd: impl AsFd, request: u32, args: &mut T) -> nix::Result<()> {
    // SAFETY: `args` is the structure of `request`, as its size in the request's number says; it outlives the call.
    Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(args)) })
        .map(drop)
}

fn named<const N: usize>(name: &OsStr) -> nix::Result<[u8; N]> {
    let mut field = [0; N];
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= N || bytes.contains(&0) {
        return Err(Errno::EINVAL);
    }
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(field)
}

fn create(dir: impl AsFd, request: u32, name: &OsStr, source: i64) -> nix::Result<()> {
    ioctl(dir, request, &mut VolArgsV2 { fd: source, transid: 0, flags: 0, unused: [0; 4], name: named(name)? })
}

/// Makes an empty subvolume `name` in `dir`.
pub fn create_subvolume(dir: impl AsFd, name: &OsStr) -> Result<()> {
    let made = create(&dir, SUBVOL_CREATE_V2, name, 0);
    call!(made, "ioctl([{}], BTRFS_IOC_SUBVOL_CREATE_V2, {name:?})", dir.as_fd().as_raw_fd())
}

/// Makes a writable snapshot `name` in `dir` of the subvolume whose root directory `source` is. Waits for the transaction.
pub fn snapshot(dir: impl AsFd, name: &OsStr, source: impl AsFd) -> Result<()> {
    let source = source.as_fd().as_raw_fd();
    let made = create(&dir, SNAP_CREATE_V2, name, source.into());
    call!(made, "ioctl([{}], BTRFS_IOC_SNAP_CREATE_V2, {name:?}, [{source}])", dir.as_fd().as_raw_fd())
}

/// Deletes the subvolume `name` in `dir`; its space is freed in the background. One with subvolumes below is `ENOTEMPTY`.
pub fn delete_subvolume(dir: impl AsFd, name: &OsStr) -> Result<()> {
    let delete = || ioctl(&dir, SNAP_DESTROY, &mut VolArgs { fd: 0, name: named(name)? });
    call!(delete(), "ioctl([{}], BTRFS_IOC_SNAP_DESTROY, {name:?})", dir.as_fd().as_raw_fd())
}

/// Whether there are subvolumes somewhere below the subvolume of `fd` that belong to it.
pub fn has_children(fd: impl AsFd) -> Result<bool> {
    let mut refs = RootRefs { min_tree: 0, refs: [[0; 2]; 255], count: 0, align: [0; 7] };
    match ioctl(&fd, GET_SUBVOL_ROOTREF, &mut refs) {
        // More than fit.
        Err(Errno::EOVERFLOW) => Ok(true),
        result => {
            call!(result, "ioctl([{}], BTRFS_IOC_GET_SUBVOL_ROOTREF)", fd.as_fd().as_raw_fd())?;
            Ok(refs.count > 0)
        }
    }
}

/// Limits the bytes that the subvolume of `fd` may refer to. `ENOTCONN` where the file system has quotas off.
pub fn limit(fd: impl AsFd, bytes: u64) -> Result<()> {
    // Quota group 0 stands for that of the subvolume itself.
    let mut args = QgroupLimit { flags: LIMIT_MAX_REFERENCED, max_referenced: bytes, ..QgroupLimit::default() };
    let ret = ioctl(&fd, QGROUP_LIMIT, &mut args);
    call!(ret, "ioctl([{}], BTRFS_IOC_QGROUP_LIMIT, {bytes})", fd.as_fd().as_raw_fd())
}

/// The bytes that only the subvolume of `fd` refers to; `None` where the file system has quotas off.
pub fn exclusive_bytes(fd: impl AsFd) -> Result<Option<u64>> {
    let number = fd.as_fd().as_raw_fd();
    let mut lookup = InoLookup { tree: 0, object: ROOT_INODE, name: [0; 4080] };
    call!(ioctl(&fd, INO_LOOKUP, &mut lookup), "ioctl([{number}], BTRFS_IOC_INO_LOOKUP)")?;
    let key = SearchKey {
        tree: QUOTA_TREE,
        min_object: 0,
        max_object: 0,
        min_offset: lookup.tree,
        max_offset: lookup.tree,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: QGROUP_INFO_KEY,
        max_type: QGROUP_INFO_KEY,
        items: 1,
        unused: [0; 9],
    };
    let mut search = SearchArgs { key, buffer: [0; 4096 - size_of::<SearchKey>()] };
    match ioctl(&fd, TREE_SEARCH, &mut search) {
        Err(Errno::ENOENT) => return Ok(None),
        result => call!(result, "ioctl([{number}], BTRFS_IOC_TREE_SEARCH)")?,
    }
    if search.key.items == 0 {
        return Ok(None);
    }
    // After the header: generation, referenced, the same compressed, exclusive; all 64-bit little-endian.
    let exclusive = search.buffer[32 + 24..32 + 32].try_into().map(u64::from_le_bytes);
    exclusive.map(Some).map_err(|_| Error::new(format!("ioctl([{number}], BTRFS_IOC_TREE_SEARCH)"), Errno::EIO))
}
