//! What a process may change about itself: rights, limits, namespaces, directories, program.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::stat::Mode;

use crate::{Result, path};

mod identity;
mod keyring;
mod scheduling;

pub use identity::{
    Capabilities, ambient_clear, ambient_raise, capbset_drop, capget, capset, securebits, set_keepcaps, set_securebits,
    setfsgid, setfsuid, setgroups, setresgid, setresuid,
};
pub use keyring::{describe_key, join_session_keyring, keyring_id, set_key_permissions};
pub use scheduling::{
    SchedAttr, get_mempolicy, ioprio_set, sched_getaffinity, sched_setaffinity, sched_setattr, set_mempolicy,
};

/// `close_range` flags.
pub use libc::{CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_UNSHARE};

/// Ends the process at once: nothing is flushed, no destructor and no exit handler runs.
pub fn exit(status: i32) -> ! {
    // SAFETY: ends the process; there is nothing after it to keep sound.
    unsafe { libc::_exit(status) }
}

/// The parent's pid, 0 where it is outside the caller's pid namespace.
pub fn getppid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// The caller's pid in its own pid namespace.
pub fn getpid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// Whether there is a process with this real user id, as far as the caller's pid namespace shows. Not for user 0, which
/// stands for the caller.
pub fn user_has_processes(uid: u32) -> bool {
    // SAFETY: takes integers only. The raw call returns 20 less the nice value, which is never negative.
    let ret = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_USER, uid) };
    // Any error but "none found" leaves it open: then there may be some.
    !matches!(Errno::result(ret), Err(Errno::ESRCH))
}

/// Whether other processes of the user may look into this one, and core dumps may be made.
pub fn set_dumpable(on: bool) -> Result<()> {
    call!(prctl::set_dumpable(on), "prctl(PR_SET_DUMPABLE, {})", i32::from(on))
}

/// See [`set_dumpable`].
pub fn dumpable() -> Result<bool> {
    // SAFETY: takes integers only. nix's wrapper reads 2 (dumpable by root) as true, which it is not for our purpose.
    let ret = Errno::result(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) });
    Ok(call!(ret, "prctl(PR_GET_DUMPABLE)")? == 1)
}

/// Gives up, for ever and for all descendants, to gain rights by execve.
pub fn set_no_new_privs() -> Result<()> {
    call!(prctl::set_no_new_privs(), "prctl(PR_SET_NO_NEW_PRIVS, 1)")
}

/// See [`set_no_new_privs`].
pub fn no_new_privs() -> Result<bool> {
    call!(prctl::get_no_new_privs(), "prctl(PR_GET_NO_NEW_PRIVS)")
}

/// Whether orphaned descendants become children of this process.
pub fn set_subreaper(on: bool) -> Result<()> {
    call!(prctl::set_child_subreaper(on), "prctl(PR_SET_CHILD_SUBREAPER, {})", i32::from(on))
}

/// The signal this process gets when the thread that made it ends; 0 for none.
pub fn set_pdeathsig(signal: i32) -> Result<()> {
    // SAFETY: takes integers only. nix's wrapper takes no real-time signals.
    let ret = Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) });
    call!(ret, "prctl(PR_SET_PDEATHSIG, {signal})").map(drop)
}

/// Names the process, as `ps` shows it; the kernel keeps 15 bytes.
pub fn set_name(name: &CStr) -> Result<()> {
    call!(prctl::set_name(name), "prctl(PR_SET_NAME, {name:?})")
}

/// A new session with this process as its leader and without controlling terminal.
pub fn setsid() -> Result<()> {
    call!(nix::unistd::setsid(), "setsid()").map(drop)
}

/// Sets the file mode creation mask; returns the one before.
pub fn umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Changes the working directory.
pub fn chdir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    call!(nix::unistd::chdir(path), "chdir({path:?})")
}

/// Changes the working directory to that of a descriptor.
pub fn fchdir(fd: impl AsFd) -> Result<()> {
    call!(nix::unistd::fchdir(&fd), "fchdir([{}])", fd.as_fd().as_raw_fd())
}

/// Changes the root directory; the working directory stays.
pub fn chroot(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    call!(nix::unistd::chroot(path), "chroot({path:?})")
}

/// The working directory as the kernel says it: `(unreachable)/…` where it is outside the root directory, which a C
/// library's `getcwd` would hide.
pub fn getcwd() -> Result<PathBuf> {
    let mut buf = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: `buf` is writable for its length.
    let ret = Errno::result(unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) });
    let len = call!(ret, "getcwd()")?;
    // The length counts the final NUL.
    buf.truncate((len as usize).saturating_sub(1));
    Ok(PathBuf::from(std::ffi::OsString::from_vec(buf)))
}

/// Sets the host name of the UTS namespace.
pub fn sethostname(name: &str) -> Result<()> {
    call!(nix::unistd::sethostname(name), "sethostname({name:?})")
}

/// Sets the NIS domain name of the UTS namespace.
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: `name` is readable for its length; no NUL is needed.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    call!(Errno::result(ret), "setdomainname({name:?})").map(drop)
}

/// Moves the process into new namespaces, `CLONE_NEW*`.
pub fn unshare(flags: i32) -> Result<()> {
    let ret = nix::sched::unshare(CloneFlags::from_bits_retain(flags));
    call!(ret, "unshare({})", clone_names(flags as u32 as u64))
}

/// Moves the process into the namespace of a descriptor, or with a pidfd into those of a process that `flags` names.
pub fn setns(fd: impl AsFd, flags: i32) -> Result<()> {
    let ret = nix::sched::setns(&fd, CloneFlags::from_bits_retain(flags));
    call!(ret, "setns([{}], {})", fd.as_fd().as_raw_fd(), clone_names(flags as u32 as u64))
}

/// Sets a resource limit (`RLIMIT_*`, [`libc::RLIM_INFINITY`]) of `pid`, 0 for the caller.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `limit` outlives the call; no old value is asked for.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, none) };
    call!(Errno::result(ret), "prlimit({pid}, {resource}, {soft}:{hard})").map(drop)
}

/// The soft and hard limit of a resource of `pid`, 0 for the caller.
pub fn getrlimit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: `limit` is writable and outlives the call; no new value is given.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, &raw mut limit) };
    call!(Errno::result(ret), "prlimit({pid}, {resource})")?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the execution domain (man 2 personality); returns the one before.
pub fn personality(persona: u64) -> Result<u64> {
    // SAFETY: takes an integer only.
    let ret = unsafe { libc::syscall(libc::SYS_personality, persona) };
    call!(Errno::result(ret), "personality({persona:#x})").map(|before| before as u64)
}

/// Closes the descriptors `first` to `last`, or with [`CLOSE_RANGE_CLOEXEC`] marks them to be closed by execve.
///
/// Without that flag it takes descriptors away from whoever owns them in this process, so it belongs right before execve in
/// a forked child, which is the only place that calls it so.
pub fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    call!(Errno::result(ret), "close_range({first}, {last}, {flags:#x})").map(drop)
}

/// Makes `number` a copy of `fd` that survives execve, closing what it was. For 0 to 2 and passed-on descriptors in a child.
pub fn dup2(fd: impl AsFd, number: RawFd) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes integers only; the caller owns `number`, which in a child about to exec is everybody's.
    let ret = retry!(Errno::result(unsafe { libc::dup2(fd, number) }));
    call!(ret, "dup2([{fd}], {number})").map(drop)
}

/// Makes `number`, which differs from `fd`, a copy of it; `flags` 0 or `O_CLOEXEC`.
pub fn dup3(fd: impl AsFd, number: RawFd, flags: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes integers only; the caller owns `number`, which in a child about to exec is everybody's.
    let ret = retry!(Errno::result(unsafe { libc::dup3(fd, number, flags) }));
    call!(ret, "dup3([{fd}], {number}, {flags:#x})").map(drop)
}

/// Lets a descriptor pass through execve, or not.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    let flag = if on { nix::fcntl::FdFlag::FD_CLOEXEC } else { nix::fcntl::FdFlag::empty() };
    let ret = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(flag));
    call!(ret, "fcntl([{}], F_SETFD)", fd.as_fd().as_raw_fd()).map(drop)
}

/// Becomes the program `path`. Returns only where that fails.
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> Result<Infallible> {
    call!(nix::unistd::execve(path, argv, envp), "execve({path:?})")
}

/// Becomes the program of a descriptor and path; `""` with `AT_EMPTY_PATH` the file of `dir` itself.
pub fn execveat(dir: impl AsFd, path: &CStr, argv: &[CString], envp: &[CString], flags: i32) -> Result<Infallible> {
    let ret = nix::unistd::execveat(&dir, path, argv, envp, AtFlags::from_bits_retain(flags));
    call!(ret, "execveat([{}]{path:?})", dir.as_fd().as_raw_fd())
}

/// Lets this process hear how its children end, whatever its caller had it ignore: of a process that ignores SIGCHLD they
/// vanish, and there is nothing to wait for (man 2 wait, NOTES).
pub fn heed_children() -> Result<()> {
    // SAFETY: the default action is no handler that could be unsound.
    let ret = unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl) };
    call!(ret.map(drop), "signal(SIGCHLD, SIG_DFL)")
}

/// Every signal, as a mask.
pub const ALL_SIGNALS: u64 = u64::MAX;

/// The signals that this process ignores, as a mask with bit 0 for signal 1; all of them where `/proc` does not tell.
pub fn ignored_signals() -> u64 {
    let status = path::open("/proc/self/status", libc::O_RDONLY, 0).and_then(|file| path::read_to_end(file, 1 << 16));
    status.ok().and_then(|status| ignored_in(&String::from_utf8_lossy(&status))).unwrap_or(ALL_SIGNALS)
}

fn ignored_in(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// Gives the signals of `which` (bit 0 is signal 1) their default action again and unblocks all: what a program expects to be
/// started with. Of the others, exec itself takes the handlers away.
pub fn reset_signals(which: u64) -> Result<()> {
    // The kernel's `struct sigaction` without handler, flags, restorer and mask. The raw call, because the C libraries
    // refuse the two or three real-time signals they use themselves, and those could have been ignored by our caller.
    let default = [0u64; 4];
    let settable = |signal: &i32| ![libc::SIGKILL, libc::SIGSTOP].contains(signal) && which >> (signal - 1) & 1 == 1;
    for signal in (1..=64).filter(settable) {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: `default` is as long as the kernel's structure and installs no handler. A child about to exec needs none
        // of the handlers that it replaces.
        let ret = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8usize) };
        call!(Errno::result(ret), "rt_sigaction({signal}, SIG_DFL)")?;
    }
    let empty = nix::sys::signal::SigSet::empty();
    call!(empty.thread_set_mask(), "sigprocmask(SIG_SETMASK, [])")
}

/// Makes `signals` end the process, with 128 and the signal as a shell reports it. The first process of a pid namespace
/// needs a handler for that: the kernel drops what would take its default action there. A new program starts without it.
pub fn exit_on_signals(signals: &[nix::sys::signal::Signal]) -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    extern "C" fn end(signal: libc::c_int) {
        exit(128 + signal)
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for &signal in signals {
        // SAFETY: the handler only calls _exit(2), which may be called at any moment (man 7 signal-safety).
        let set = unsafe { sigaction(signal, &action) };
        call!(set, "sigaction({signal})")?;
    }
    Ok(())
}

/// The names of `CLONE_NEW*` flags, joined by `|`.
pub(crate) fn clone_names(flags: u64) -> String {
    const NAMES: [(i32, &str); 9] = [
        (libc::CLONE_NEWUSER, "CLONE_NEWUSER"),
        (libc::CLONE_NEWNS, "CLONE_NEWNS"),
        (libc::CLONE_NEWPID, "CLONE_NEWPID"),
        (libc::CLONE_NEWIPC, "CLONE_NEWIPC"),
        (libc::CLONE_NEWUTS, "CLONE_NEWUTS"),
        (libc::CLONE_NEWNET, "CLONE_NEWNET"),
        (libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
        (crate::fork::CLONE_NEWTIME, "CLONE_NEWTIME"),
        (libc::CLONE_PARENT, "CLONE_PARENT"),
    ];
    let mut rest = flags;
    let mut names = Vec::new();
    for (flag, name) in NAMES {
        let flag = flag as u32 as u64;
        if rest & flag != 0 {
            rest &= !flag;
            names.push(name.to_string());
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names.join("|")
}
