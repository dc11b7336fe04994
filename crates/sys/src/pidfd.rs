//! Processes by descriptor: no signal and no look-up can reach a recycled pid.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::Result;
use crate::error::owned;
use crate::fork::Exit;

/// A pidfd for the process `pid` (man 2 pidfd_open). `ESRCH` where there is none.
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor; pidfds are close-on-exec by themselves.
    let opened = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    // The number of a process that is gone may still be that of a session or group with processes in it, or again that
    // of a thread: to this call it is then invalid.
    let gone = |errno| if errno == Errno::EINVAL && pid > 0 { Errno::ESRCH } else { errno };
    call!(opened.map_err(gone), "pidfd_open({pid})")
}

/// Sends `signal` to the process (0 asks whether one may). `ESRCH` where it has been reaped.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in the sender; nothing else is a pointer.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
    call!(Errno::result(ret), "pidfd_send_signal([{fd}], {signal})").map(drop)
}

/// Copies descriptor number `target` out of the process. Needs ptrace rights over it.
pub fn getfd(pidfd: impl AsFd, target: i32) -> Result<OwnedFd> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: takes integers, returns a new close-on-exec descriptor.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, target, 0) };
    call!(owned(ret), "pidfd_getfd([{fd}], {target})")
}

/// `struct pidfd_info` in its first version (linux/pidfd.h, Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_GET_INFO: libc::c_ulong = nix::request_code_readwrite!(0xff, 11, size_of::<Info>()) as libc::c_ulong;
const PIDFD_INFO_EXIT: u64 = 8;

/// How the process ended, whoever its parent is. `None` where the kernel does not tell: it runs, has not been reaped, was reaped
/// before the pidfd was opened, or the kernel is older than Linux 6.15.
pub fn exit(pidfd: impl AsFd) -> Option<Exit> {
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: this request reads and stores a structure of the size that it names, and `info` is that and outlives the call.
    let ret = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if ret < 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    Some(match info.exit_code & 0x7f {
        0 => Exit::Code(info.exit_code >> 8 & 0xff),
        signal => Exit::Signal(signal),
    })
}

/// Sends `signal` to `pid` by number, for a process that has no pidfd or a group (negative `pid`).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes integers only. A signal to the caller itself is delivered as from any other process.
    call!(Errno::result(unsafe { libc::kill(pid, signal) }), "kill({pid}, {signal})").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_signals_and_copies() {
        let me = open(std::process::id() as i32).unwrap();
        send_signal(&me, 0).unwrap();
        let (reader, _writer) = crate::event::pipe().unwrap();
        let copy = getfd(&me, reader.as_raw_fd()).unwrap();
        assert_eq!(crate::path::fstat(&copy).unwrap().st_ino, crate::path::fstat(&reader).unwrap().st_ino);
        assert_eq!(send_signal(&me, 999).unwrap_err().errno(), Errno::EINVAL);
    }

    #[test]
    fn an_end_is_told_once_it_is_known() {
        for (script, expected) in [("exit 7", Exit::Code(7)), ("kill -1 $$", Exit::Signal(1))] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let process = open(child.id() as i32).unwrap();
            child.wait().unwrap();
            match exit(&process) {
                None => println!("skipped: this kernel does not tell how a process ended (Linux 6.15 does)"),
                found => assert_eq!(found, Some(expected), "{script}"),
            }
        }
        assert_eq!(exit(open(std::process::id() as i32).unwrap()), None);
    }

    #[test]
    fn a_session_without_its_leader_is_no_process() {
        let leader =
            std::process::Command::new("setsid").args(["sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!"]).output();
        let member: i32 = String::from_utf8(leader.unwrap().stdout).unwrap().trim().parse().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{member}/stat")).unwrap();
        // pid (comm) state ppid pgrp session
        let session: i32 = status.rsplit(')').next().unwrap().split(' ').nth(4).unwrap().parse().unwrap();
        let found = open(session);
        kill(member, libc::SIGKILL).unwrap();
        assert_eq!(found.unwrap_err().errno(), Errno::ESRCH);
    }

    #[test]
    fn no_such_process() {
        assert_eq!(kill(i32::MAX, 0).unwrap_err().to_string(), "kill(2147483647, 0): no such process");
        assert!(open(i32::MAX).is_err());
    }
}
