//! Questions to a namespace descriptor (man 2 ioctl_ns).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::Result;
use crate::error::owned;

const NS_GET_USERNS: libc::c_ulong = nix::request_code_none!(0xb7, 1) as libc::c_ulong;
const NS_GET_PARENT: libc::c_ulong = nix::request_code_none!(0xb7, 2) as libc::c_ulong;
const NS_GET_NSTYPE: libc::c_ulong = nix::request_code_none!(0xb7, 3) as libc::c_ulong;
const NS_GET_OWNER_UID: libc::c_ulong = nix::request_code_none!(0xb7, 4) as libc::c_ulong;

/// The `CLONE_NEW*` flag of the namespace's type. `ENOTTY` where `ns` is no namespace.
pub fn kind(ns: impl AsFd) -> Result<i32> {
    let fd = ns.as_fd().as_raw_fd();
    // SAFETY: this request takes no argument and returns an integer.
    let ret = unsafe { libc::ioctl(fd, NS_GET_NSTYPE as _) };
    call!(Errno::result(ret), "ioctl([{fd}], NS_GET_NSTYPE)")
}

/// The user namespace that owns the namespace. `EPERM` where that is outside the caller's own.
pub fn userns(ns: impl AsFd) -> Result<OwnedFd> {
    let fd = ns.as_fd().as_raw_fd();
    // SAFETY: this request takes no argument and returns a new descriptor.
    let ret = unsafe { libc::ioctl(fd, NS_GET_USERNS as _) };
    call!(owned(ret.into()), "ioctl([{fd}], NS_GET_USERNS)")
}

/// The parent of a pid or user namespace.
pub fn parent(ns: impl AsFd) -> Result<OwnedFd> {
    let fd = ns.as_fd().as_raw_fd();
    // SAFETY: this request takes no argument and returns a new descriptor.
    let ret = unsafe { libc::ioctl(fd, NS_GET_PARENT as _) };
    call!(owned(ret.into()), "ioctl([{fd}], NS_GET_PARENT)")
}

/// The uid, as the caller sees it, that created a user namespace.
pub fn owner(ns: impl AsFd) -> Result<u32> {
    let fd = ns.as_fd().as_raw_fd();
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request stores a uid_t where its argument points, and `uid` outlives the call.
    let ret = unsafe { libc::ioctl(fd, NS_GET_OWNER_UID as _, &raw mut uid) };
    call!(Errno::result(ret), "ioctl([{fd}], NS_GET_OWNER_UID)")?;
    Ok(uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::open;

    #[test]
    fn a_namespace_tells_its_type_and_owner() {
        let ns = open("/proc/self/ns/net", libc::O_RDONLY, 0).unwrap();
        assert_eq!(kind(&ns).unwrap(), libc::CLONE_NEWNET);
        assert_eq!(kind(userns(&ns).unwrap()).unwrap(), libc::CLONE_NEWUSER);
        assert!(parent(&ns).is_err());
        let file = open("/dev/null", libc::O_RDONLY, 0).unwrap();
        assert_eq!(kind(&file).unwrap_err().errno(), Errno::ENOTTY);
    }
}
