//! A user namespace that exists only for its id mapping, as `MOUNT_ATTR_IDMAP` asks for one.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::{Error, Result};

/// Makes a user namespace with these mappings, in the form of `/proc/PID/uid_map`, such as `"0 100000 65536"`.
///
/// The process that made it is gone on return; the descriptor keeps it. The caller may have any number of threads.
pub fn mapped(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    Holder::new()?.map(uid_map, gid_map)
}

/// Bytes of the stack of a process that makes a few system calls.
const STACK: usize = 16 << 10;

/// Stacks are aligned so (System V ABI, AAPCS64).
#[repr(align(16))]
struct Line(#[expect(dead_code, reason = "it is for the child")] [u8; 16]);

/// A process that is there for its user namespace, and ends with this.
struct Holder {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    _stack: Vec<Line>,
}

/// The process's life. It sleeps until it is killed, or dies with its parent. A parent that was killed before the prctl is another
/// one now, and would never send that signal.
extern "C" fn hold(parent: *mut libc::c_void) -> libc::c_int {
    loop {
        // SAFETY: integers and null pointers only. All signals are blocked, so nothing interrupts it.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            if libc::syscall(libc::SYS_getppid) != parent as libc::c_long {
                libc::_exit(1);
            }
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
    }
}

impl Holder {
    fn new() -> Result<Holder> {
        let mut pidfd: i32 = -1;
        let parent = nix::unistd::getpid().as_raw();
        let mut stack = Vec::<Line>::with_capacity(STACK / size_of::<Line>());
        // Without an exit signal the caller sees no SIGCHLD, and its waiting for any child does not see this one. A copy of the
        // caller's memory would take longer than all else.
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_PIDFD;
        // No handler of the caller's may run in the child.
        let before = call!(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK), "sigprocmask(SIG_SETMASK)")?;
        // SAFETY: the child runs `hold` on a stack of its own, to whose end `top` points, and which is given back after the child
        // is reaped: see `Drop`. It makes nothing but system calls that do not fail: no allocation, no lock and no errno, so
        // it does not matter that it shares its memory, and even its thread's, with the caller and his threads.
        let pid = unsafe {
            let top = stack.spare_capacity_mut().as_mut_ptr_range().end.cast();
            libc::clone(hold, top, flags, parent as usize as *mut libc::c_void, &raw mut pidfd)
        };
        let made = Errno::result(pid);
        let _ = before.thread_set_mask();
        match made {
            // SAFETY: clone stored a new descriptor in `pidfd`, as CLONE_PIDFD asks.
            Ok(pid) => Ok(Holder { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, _stack: stack }),
            Err(errno) => Err(Error::new("clone(CLONE_NEWUSER|CLONE_VM|CLONE_PIDFD)", errno)),
        }
    }

    fn map(&self, uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
        for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
            let path = format!("/proc/{}/{file}", self.pid);
            let fd = crate::path::open(&path, libc::O_WRONLY, 0)?;
            // One write: the kernel takes a whole map at once, or nothing (man 7 user_namespaces).
            call!(nix::unistd::write(&fd, map.as_bytes()), "write({path:?}, {map:?})")?;
        }
        crate::path::open(format!("/proc/{}/ns/user", self.pid), libc::O_RDONLY, 0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let fd = self.pidfd.as_fd().as_raw_fd();
        // SAFETY: integers and null pointers, and a pidfd that we own; waiting reaps the child that we made ourselves.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, 0, 0);
            let options = libc::WEXITED | libc::__WALL;
            while libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, 0, options, 0) < 0 && Errno::last() == Errno::EINTR
            {
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_namespace_outlives_the_process_that_made_it() {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        // Without privileges only one's own ids may be mapped, and the gid map is refused before setgroups is denied.
        if !uid.is_root() {
            println!("skipped: needs root");
            return;
        }
        let ns = super::mapped(&format!("0 {uid} 1"), &format!("0 {gid} 1")).unwrap();
        assert_eq!(crate::ns::kind(&ns).unwrap(), libc::CLONE_NEWUSER);
        let error = super::mapped("0 0 1 rubbish", "0 0 1").unwrap_err();
        assert!(error.to_string().contains("uid_map"), "{error}");
    }
}
