//! A user namespace that exists only for its id mapping, as `MOUNT_ATTR_IDMAP` asks for one.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::{Error, Result};

/// Makes a user namespace with these mappings, in the form of `/proc/PID/uid_map`, such as `"0 100000 65536"`.
///
/// The process that made it is gone on return; the descriptor keeps it. The caller may have any number of threads.
pub fn mapped(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let holder = Holder::new()?;
    let result = holder.map(uid_map, gid_map);
    holder.end();
    result
}

struct Holder {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Holder {
    fn new() -> Result<Holder> {
        let mut pidfd: i32 = -1;
        let parent = nix::unistd::getpid().as_raw();
        // SAFETY: `clone_args` is plain integers, for which zero is valid.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // Without an exit signal the caller sees no SIGCHLD, and its waiting for any child does not see this one.
        args.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u32 as u64;
        args.pidfd = &raw mut pidfd as u64;
        // SAFETY: without CLONE_VM the child has its own copy of memory, and it makes nothing but the system calls below:
        // no allocation and no lock, so other threads of the caller do not matter.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        match Errno::result(pid) {
            Ok(0) => loop {
                // SAFETY: integers and null pointers only; it sleeps until the parent kills it, or dies with it. A parent
                // that was killed before the prctl is another one now, and would never send that signal.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                    if libc::syscall(libc::SYS_getppid) != libc::c_long::from(parent) {
                        libc::_exit(1);
                    }
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            },
            // SAFETY: clone3 stored a new descriptor in `pidfd`, as CLONE_PIDFD asks.
            Ok(pid) => Ok(Holder { pid: pid as libc::pid_t, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
            Err(errno) => Err(Error::new("clone3(CLONE_NEWUSER|CLONE_PIDFD)", errno)),
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

    fn end(self) {
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
