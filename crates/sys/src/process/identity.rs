//! Users, groups and capabilities.
//!
//! The set-id calls are raw: a C library's change all threads of the process by signals, which a forked child neither needs
//! nor can rely on.

use nix::errno::Errno;

use crate::{Error, Result};

/// Sets real, effective and saved user id of the calling thread.
pub fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    call!(Errno::result(ret), "setresuid({uid}, {uid}, {uid})").map(drop)
}

/// Sets real, effective and saved group id of the calling thread.
pub fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    call!(Errno::result(ret), "setresgid({gid}, {gid}, {gid})").map(drop)
}

/// Sets the supplementary groups of the calling thread.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: `groups` is readable for its length.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    call!(Errno::result(ret), "setgroups({groups:?})").map(drop)
}

/// Sets the user id for file access of the calling thread; returns the one before. `EPERM` where it did not change.
pub fn setfsuid(uid: u32) -> Result<u32> {
    // SAFETY: takes integers only. The call reports no error: asking again with an invalid id tells what holds now.
    let (before, now) = unsafe { (libc::syscall(libc::SYS_setfsuid, uid), libc::syscall(libc::SYS_setfsuid, -1)) };
    if now as u32 == uid { Ok(before as u32) } else { Err(Error::new(format!("setfsuid({uid})"), Errno::EPERM)) }
}

/// Sets the group id for file access of the calling thread; returns the one before. `EPERM` where it did not change.
pub fn setfsgid(gid: u32) -> Result<u32> {
    // SAFETY: takes integers only. The call reports no error: asking again with an invalid id tells what holds now.
    let (before, now) = unsafe { (libc::syscall(libc::SYS_setfsgid, gid), libc::syscall(libc::SYS_setfsgid, -1)) };
    if now as u32 == gid { Ok(before as u32) } else { Err(Error::new(format!("setfsgid({gid})"), Errno::EPERM)) }
}

/// The three settable capability sets of a thread, bit n for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Checked by the kernel now.
    pub effective: u64,
    /// May be made effective.
    pub permitted: u64,
    /// Kept over execve, where the file says so too.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets, in two halves.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets the capability sets of the calling thread.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 takes two halves; both structures outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    call!(Errno::result(ret), "capset({effective:#x}, {permitted:#x}, {inheritable:#x})").map(drop)
}

/// The capability sets of the calling thread.
pub fn capget() -> Result<Capabilities> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 stores two halves; both structures outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    call!(Errno::result(ret), "capget()")?;
    let join = |set: fn(&Half) -> u32| u64::from(set(&halves[0])) | u64::from(set(&halves[1])) << 32;
    Ok(Capabilities {
        effective: join(|h| h.effective),
        permitted: join(|h| h.permitted),
        inheritable: join(|h| h.inheritable),
    })
}

/// Takes a capability out of the bounding set, for ever. `EINVAL` for one the kernel does not know.
pub fn capbset_drop(capability: u32) -> Result<()> {
    prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<()> {
    prctl("PR_CAP_AMBIENT_CLEAR_ALL", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Puts a permitted and inheritable capability in the ambient set: it survives execve of plain files.
pub fn ambient_raise(capability: u32) -> Result<()> {
    prctl("PR_CAP_AMBIENT_RAISE", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into()).map(drop)
}

/// Whether the permitted capabilities survive the change from user 0 to another.
pub fn set_keepcaps(on: bool) -> Result<()> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, on.into(), 0).map(drop)
}

/// Sets the `SECBIT_*` flags.
pub fn set_securebits(bits: u32) -> Result<()> {
    prctl("PR_SET_SECUREBITS", libc::PR_SET_SECUREBITS, bits.into(), 0).map(drop)
}

/// The `SECBIT_*` flags.
pub fn securebits() -> Result<u32> {
    prctl("PR_GET_SECUREBITS", libc::PR_GET_SECUREBITS, 0, 0).map(|bits| bits as u32)
}

fn prctl(name: &str, option: i32, a: u64, b: u64) -> Result<i32> {
    // SAFETY: none of the options above takes a pointer.
    let ret = unsafe { libc::prctl(option, a as libc::c_ulong, b as libc::c_ulong, 0, 0) };
    call!(Errno::result(ret), "prctl({name}, {a}, {b})")
}
