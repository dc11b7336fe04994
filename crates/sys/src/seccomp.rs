//! Loading seccomp filters, and answering for those that ask a supervisor (man 2 seccomp, man 2 seccomp_unotify).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::error::owned;
use crate::{Error, Result};

/// Flags of [`load`].
pub const FLAG_TSYNC: u64 = 1;
/// Log all actions but `ALLOW`.
pub const FLAG_LOG: u64 = 2;
/// No speculative store bypass mitigation.
pub const FLAG_SPEC_ALLOW: u64 = 4;
/// Return a descriptor on which a supervisor answers.
pub const FLAG_NEW_LISTENER: u64 = 8;
/// A thread that could not be synchronised is an `ESRCH` error.
pub const FLAG_TSYNC_ESRCH: u64 = 16;
/// A waiting process can only be killed while the supervisor works (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u64 = 32;

const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

/// One instruction of a classic BPF program, the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a test holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for SockFilter {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Self { code, jt, jf, k }
    }
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const SockFilter,
}

/// Puts the calling thread (with [`FLAG_TSYNC`] all threads) under `program`, for ever. Returns the listener with
/// [`FLAG_NEW_LISTENER`]. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
pub fn load(program: &[SockFilter], flags: u64) -> Result<Option<OwnedFd>> {
    let text = || format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)", program.len());
    let Ok(len) = u16::try_from(program.len()) else { return Err(Error::new(text(), Errno::E2BIG)) };
    // The kernel looks at the low half only and would drop the rest in silence.
    let Ok(flags) = u32::try_from(flags) else { return Err(Error::new(text(), Errno::EINVAL)) };
    let args = Program { len, filter: program.as_ptr() };
    // SAFETY: `args` points at `len` instructions, which the kernel copies and checks.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const args) };
    if u64::from(flags) & FLAG_NEW_LISTENER != 0 {
        return owned(ret).map(Some).map_err(|errno| Error::new(text(), errno));
    }
    match Errno::result(ret) {
        Ok(0) => Ok(None),
        // With TSYNC alone, the number of a thread that runs under another filter.
        Ok(_) => Err(Error::new(text(), Errno::ESRCH)),
        Err(errno) => Err(Error::new(text(), errno)),
    }
}

/// Whether the kernel knows the action `SECCOMP_RET_*`.
pub fn action_available(action: u32) -> bool {
    // SAFETY: reads one u32, which outlives the call.
    (unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) }) == 0
}

/// Whether the kernel knows the flag: it looks at the flags before the filter, so a null filter gives EFAULT, not EINVAL.
pub fn flag_available(flag: u64) -> bool {
    let Ok(flag) = u32::try_from(flag) else { return false };
    let none = std::ptr::null::<Program>();
    // SAFETY: the kernel refuses a null program; nothing is loaded.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flag, none) };
    Errno::result(ret) == Err(Errno::EFAULT)
}

/// The kernel's sizes in bytes of a notification, a response and the call's data.
pub fn notification_sizes() -> Result<(u16, u16, u16)> {
    let mut sizes = [0u16; 3];
    // SAFETY: stores three u16 in `sizes`, which outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, GET_NOTIF_SIZES, 0, sizes.as_mut_ptr()) };
    call!(Errno::result(ret), "seccomp(SECCOMP_GET_NOTIF_SIZES)")?;
    Ok((sizes[0], sizes[1], sizes[2]))
}

/// A system call that waits for the supervisor's answer: the kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notification {
    /// Names the notification in the calls below.
    pub id: u64,
    /// The waiting thread, in the supervisor's pid namespace.
    pub pid: u32,
    /// None are defined.
    pub flags: u32,
    /// Number of the system call.
    pub nr: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where the call was made.
    pub instruction_pointer: u64,
    /// Arguments of the call.
    pub args: [u64; 6],
}

/// What the waiting process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The call returns this value.
    Value(i64),
    /// The call fails.
    Error(Errno),
    /// The kernel performs the call. Never after looking at pointers: their memory may change in between.
    Continue,
}

#[repr(C)]
struct RawResponse {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const NOTIF_RECV: u64 = nix::request_code_readwrite!(b'!', 0, size_of::<Notification>()) as u64;
const NOTIF_SEND: u64 = nix::request_code_readwrite!(b'!', 1, size_of::<RawResponse>()) as u64;
const NOTIF_ID_VALID: u64 = nix::request_code_write!(b'!', 2, size_of::<u64>()) as u64;
const NOTIF_ADDFD: u64 = nix::request_code_write!(b'!', 3, size_of::<AddFd>()) as u64;

/// Waits for the next notification of a listener. `ENOENT` where the process ended meanwhile: try again.
pub fn receive(listener: impl AsFd) -> Result<Notification> {
    let fd = listener.as_fd().as_raw_fd();
    // All zero, as the kernel demands.
    let mut notification = Notification::default();
    // SAFETY: the request's number states the size of `notification`, which is writable and outlives the call.
    let ret = retry!(Errno::result(unsafe { libc::ioctl(fd, NOTIF_RECV as _, &raw mut notification) }));
    call!(ret, "ioctl([{fd}], SECCOMP_IOCTL_NOTIF_RECV)")?;
    Ok(notification)
}

/// Answers a notification. `ENOENT` where the process no longer waits.
pub fn respond(listener: impl AsFd, id: u64, response: Response) -> Result<()> {
    let fd = listener.as_fd().as_raw_fd();
    let mut answer = RawResponse { id, val: 0, error: 0, flags: 0 };
    match response {
        Response::Value(value) => answer.val = value,
        Response::Error(errno) => answer.error = -(errno as i32),
        Response::Continue => answer.flags = 1,
    }
    // SAFETY: the request's number states the size of `answer`, which outlives the call.
    let ret = retry!(Errno::result(unsafe { libc::ioctl(fd, NOTIF_SEND as _, &raw mut answer) }));
    call!(ret, "ioctl([{fd}], SECCOMP_IOCTL_NOTIF_SEND, {id})").map(drop)
}

/// Whether the notification still waits: to be asked after opening anything by its pid.
pub fn is_valid(listener: impl AsFd, id: u64) -> bool {
    // SAFETY: the request reads a u64, which outlives the call.
    (unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), NOTIF_ID_VALID as _, &raw const id) }) == 0
}

/// Gives the waiting process a copy of `fd`, close-on-exec; returns its number there.
pub fn add_fd(listener: impl AsFd, id: u64, fd: impl AsFd) -> Result<i32> {
    let listener = listener.as_fd().as_raw_fd();
    let srcfd = fd.as_fd().as_raw_fd() as u32;
    let add = AddFd { id, flags: 0, srcfd, newfd: 0, newfd_flags: libc::O_CLOEXEC as u32 };
    // SAFETY: the request's number states the size of `add`, which outlives the call.
    let ret = retry!(Errno::result(unsafe { libc::ioctl(listener, NOTIF_ADDFD as _, &raw const add) }));
    call!(ret, "ioctl([{listener}], SECCOMP_IOCTL_NOTIF_ADDFD, {id}, [{srcfd}])")
}
