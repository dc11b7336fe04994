//! Session keyrings (man 7 keyrings).

use std::ffi::CString;

use nix::errno::Errno;

use crate::Result;

const KEYCTL_GET_KEYRING_ID: i32 = 0;
const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
const KEYCTL_SETPERM: i32 = 5;
const KEYCTL_DESCRIBE: i32 = 6;

/// The special number of the caller's session keyring.
const KEY_SPEC_SESSION_KEYRING: i32 = -3;

/// Joins the session keyring `name`, made where it does not exist (an anonymous new one for `None`); returns its serial.
pub fn join_session_keyring(name: Option<&str>) -> Result<i32> {
    let join = || {
        let name = name.map(CString::new).transpose().map_err(|_| Errno::EINVAL)?;
        let name = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        // SAFETY: `name` is null or a C string that outlives the call.
        Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) })
    };
    call!(join(), "keyctl(KEYCTL_JOIN_SESSION_KEYRING, {:?})", name.unwrap_or_default()).map(|id| id as i32)
}

/// The serial of the caller's session keyring.
pub fn keyring_id() -> Result<i32> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
    call!(Errno::result(ret), "keyctl(KEYCTL_GET_KEYRING_ID)").map(|id| id as i32)
}

/// The kernel's description of a key: `type;uid;gid;permissions in hexadecimal;description`.
pub fn describe_key(serial: i32) -> Result<String> {
    let mut buf = [0u8; 4096];
    // SAFETY: `buf` is writable for the length given.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, serial, buf.as_mut_ptr(), buf.len()) };
    // The length counts the final NUL, and is the full one even where the buffer was too short.
    let len = call!(Errno::result(ret), "keyctl(KEYCTL_DESCRIBE, {serial})")? as usize;
    Ok(String::from_utf8_lossy(&buf[..len.saturating_sub(1).min(buf.len())]).into_owned())
}

/// Sets the permissions of a key.
pub fn set_key_permissions(serial: i32, permissions: u32) -> Result<()> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, permissions) };
    call!(Errno::result(ret), "keyctl(KEYCTL_SETPERM, {serial}, {permissions:#x})").map(drop)
}
