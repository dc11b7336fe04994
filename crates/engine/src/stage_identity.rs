//! From root to the process's own identity.

use crate::error::{Context, Error, Result};
use crate::protocol::Report;
use crate::resolve;
use crate::stage::Stage;
use crate::stage_enter::bits;
use offshoot_plan::{NumaPolicy, SchedAttr};
use offshoot_sys::{Errno, errno_text, libc, mount, path, process, seccomp};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// `PROC_SUPER_MAGIC`, linux/magic.h.
pub(crate) const PROC_MAGIC: u64 = 0x9fa0;
/// Inode of a procfs's root directory.
const PROC_ROOT_INO: u64 = 1;

impl Stage<'_> {
    pub fn umask(&mut self, mask: u32) -> Result<()> {
        process::umask(mask);
        Ok(())
    }

    pub fn hostname(&mut self, name: &str) -> Result<()> {
        process::sethostname(name).context(|| format!("set the host name {name:?}"))
    }

    pub fn domainname(&mut self, name: &str) -> Result<()> {
        process::setdomainname(name).context(|| format!("set the domain name {name:?}"))
    }

    pub fn no_new_privileges(&mut self) -> Result<()> {
        process::set_no_new_privs().context(|| "set no_new_privs".into())
    }

    pub fn scheduler(&mut self, attr: &SchedAttr) -> Result<()> {
        let SchedAttr { policy, flags, nice, priority, runtime, deadline, period } = *attr;
        let attr =
            process::SchedAttr { policy, flags, nice, priority, runtime, deadline, period, util_min: 0, util_max: 0 };
        match process::sched_setattr(0, &attr) {
            Err(error) if error.errno() == Errno::EPERM && policy == 6 => Err(Error::new(
                "failed to set the scheduler: process scheduler can't be used together with AllowedCPUs",
            )),
            result => result.context(|| "set the scheduler".into()),
        }
    }

    pub fn io_priority(&mut self, value: i32) -> Result<()> {
        const IOPRIO_WHO_PGRP: i32 = 2;
        process::ioprio_set(IOPRIO_WHO_PGRP, 0, value).context(|| "set the I/O priority".into())
    }

    pub fn personality(&mut self, domain: u64) -> Result<()> {
        process::personality(domain).map(drop).context(|| "set the personality".into())
    }

    pub fn memory_policy(&mut self, policy: &NumaPolicy) -> Result<()> {
        let nodes = if policy.nodes.is_empty() { Vec::new() } else { bits(&policy.nodes) };
        process::set_mempolicy(policy.mode, &nodes).context(|| "set the memory policy: invalid memory policy".into())
    }

    pub fn apparmor(&mut self, profile: &str) -> Result<()> {
        let text = format!("exec {profile}");
        match self.write_attribute("apparmor/exec", &text) {
            Err(_) => self.write_attribute("exec", &text),
            Ok(()) => Ok(()),
        }
        .context(|| format!("apply AppArmor profile {profile:?}"))
    }

    pub fn selinux_label(&mut self, label: &str) -> Result<()> {
        self.write_attribute("exec", label).context(|| format!("set SELinux label {label:?}"))
    }

    pub fn sysctl(&mut self, sysctl: &offshoot_plan::Sysctl) -> Result<()> {
        let file = format!("sys/{}", sysctl.path);
        self.write_proc(&file, &sysctl.value).context(|| format!("set sysctl {:?}", sysctl.path))
    }

    /// Writes below `/proc/thread-self/attr`.
    pub fn write_attribute(&mut self, name: &str, text: &str) -> Result<()> {
        // `thread-self` is a link the kernel makes; follow it by hand, since links are refused below.
        let proc = self.procfs()?;
        let own = path::readlinkat(Some(proc.as_fd()), "thread-self")?;
        let file = own.join("attr").join(name);
        self.write_proc(&file, text)
    }

    /// Writes to a file of procfs, where no mount and no link can stand in for it.
    fn write_proc(&mut self, file: impl AsRef<Path>, text: &str) -> Result<()> {
        let proc = self.procfs()?;
        let rules = path::RESOLVE_BENEATH | path::RESOLVE_NO_SYMLINKS | path::RESOLVE_NO_XDEV;
        let fd = path::openat2(Some(proc.as_fd()), file, libc::O_WRONLY, 0, rules)?;
        if mount::fstatfs_magic(&fd)? != PROC_MAGIC {
            return Err(Error::new("/proc of the container is not a procfs"));
        }
        match path::write(&fd, text.as_bytes())? {
            written if written == text.len() => Ok(()),
            _ => Err(Error::new("the kernel took only a part of the value")),
        }
    }

    /// A procfs that can be trusted: the one this process mounted; else a new one that nobody sees; else, where a
    /// user namespace may not mount one (the container's is masked), the container's, verified.
    fn procfs(&mut self) -> Result<&OwnedFd> {
        if self.procfs.is_none() {
            let private = || {
                let context = mount::FsContext::open("proc")?;
                context.create()?;
                context.mount(mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC)
            };
            let proc = match private() {
                Ok(proc) => proc,
                Err(_) => {
                    let proc = path::open("/proc", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
                    let ino = mount::statx(Some(proc.as_fd()), "", libc::AT_EMPTY_PATH)?.ino;
                    if mount::fstatfs_magic(&proc)? != PROC_MAGIC || ino != PROC_ROOT_INO {
                        return Err(Error::new("/proc of the container is not the root of a procfs"));
                    }
                    proc
                }
            };
            self.procfs = Some(proc);
        }
        self.procfs.as_ref().ok_or_else(|| Error::new("no procfs"))
    }

    pub fn seccomp(&mut self) -> Result<()> {
        let Some(filter) = &self.job.process.seccomp else { return Ok(()) };
        self.debug(format_args!("seccomp filter flags: {}", filter.flags));
        let program: Vec<seccomp::SockFilter> =
            filter.program.iter().map(|i| seccomp::SockFilter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
        if self.job.unprivileged && filter.flags & seccomp::FLAG_NEW_LISTENER != 0 {
            // Or pidfd_getfd(2) would want rights over the host. Nothing of the host is open here any more, and
            // switch_user leaves it so.
            process::set_dumpable(true)?;
        }
        let listener = seccomp::load(&program, filter.flags).context(|| "load the seccomp filter".into())?;
        if let Some(listener) = listener {
            // The host takes it by pidfd_getfd, since the filter may trap sendmsg.
            self.host.ask(&Report::Listener(listener.as_raw_fd()))?;
        }
        Ok(())
    }

    /// Before the user changes, root may reach a directory that the user may not; after, the other way round.
    pub fn enter_cwd(&mut self) -> Result<()> {
        match process::chdir(&self.job.process.cwd) {
            Err(error) if matches!(error.errno(), Errno::EACCES | Errno::EPERM) => Ok(()),
            result => {
                result.map_err(|error| self.no_cwd(&error))?;
                self.entered_cwd = true;
                inside_root()
            }
        }
    }

    pub fn bounding_set(&mut self, mask: u64) -> Result<()> {
        for capability in (0..64).filter(|capability| mask & 1 << capability == 0) {
            match process::capbset_drop(capability) {
                // Above the kernel's last capability.
                Err(error) if error.errno() == Errno::EINVAL => break,
                result => result.context(|| "drop a capability from the bounding set".into())?,
            }
        }
        Ok(())
    }

    pub fn switch_user(&mut self) -> Result<()> {
        let user = self.job.process;
        process::set_keepcaps(true)?;
        self.give_streams(user.uid)?;
        if let Some(groups) = &user.groups {
            match process::setgroups(groups) {
                // A user namespace whose maps were written without privilege denies setgroups for good.
                Err(error) if error.errno() == Errno::EPERM && groups.is_empty() && self.in_userns => {}
                result => result.context(|| "set additional groups".into())?,
            }
        }
        let unmapped = |error: offshoot_sys::Error, what: &str| match error.errno() {
            Errno::EINVAL => Error::new(format!("cannot set {what} to unmapped user in user namespace")),
            _ => error.into(),
        };
        process::setresgid(user.gid).map_err(|error| unmapped(error, "gid"))?;
        process::setresuid(user.uid).map_err(|error| unmapped(error, "uid"))?;
        process::set_keepcaps(false)?;
        // A change of ids may have reset it (sysctl fs.suid_dumpable). Without rights over the host, `exec` could not
        // join a container that waits for `start` if it were closed; what is there to see by now is the container's.
        process::set_dumpable(self.job.unprivileged)?;
        Ok(())
    }

    /// Lets the user open its own stdio again through /proc/self/fd; never touches a /dev/null, which is the
    /// host's or the container's, but nobody's own.
    fn give_streams(&self, uid: u32) -> Result<()> {
        for stream in 0..3 {
            let Some((fd, stat)) = crate::streams::borrow(stream) else { continue };
            let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
            if null || stat.st_uid == uid {
                continue;
            }
            match path::fchown(fd, uid, u32::MAX) {
                Err(error) if !matches!(error.errno(), Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {
                    return Err(error).context(|| format!("give stream {stream} to the user"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn capabilities(&mut self) -> Result<()> {
        let Some(caps) = self.job.process.capabilities else { return Ok(()) };
        process::capset(caps.effective, caps.permitted, caps.inheritable).context(|| "apply caps".into())?;
        process::ambient_clear()?;
        for capability in (0..64).filter(|capability| caps.ambient & 1 << capability != 0) {
            if let Err(error) = process::ambient_raise(capability) {
                // The specification asks for a warning: the capability may not be permitted and inheritable.
                let name = offshoot_plan::capability_name(capability);
                let cause = offshoot_sys::errno_text(error.errno());
                self.warn(format_args!("can't raise ambient capability {name}: {cause}"));
            }
        }
        Ok(())
    }

    pub fn verify_cwd(&mut self) -> Result<()> {
        if self.entered_cwd {
            return Ok(());
        }
        // Again as the user, who may be allowed what root without CAP_DAC_OVERRIDE is not.
        process::chdir(&self.job.process.cwd).map_err(|error| self.no_cwd(&error))?;
        inside_root()
    }

    /// In runc's words, which engines show to users.
    fn no_cwd(&self, error: &offshoot_sys::Error) -> Error {
        let cwd = &self.job.process.cwd;
        Error::new(format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", errno_text(error.errno())))
    }

    /// Makes the working directory, as runc does, inside the root only.
    pub fn make_cwd(&mut self) -> Result<()> {
        match resolve::directory(self.root()?, &self.job.process.cwd) {
            // It may be there and closed to root of the user namespace; entering it will tell.
            Err(_) if self.in_userns => Ok(()),
            result => result.map(drop).context(|| format!("create the working directory {:?}", self.job.process.cwd)),
        }
    }
}

/// CVE-2024-21626: a descriptor leaked by the caller may lead out of the root.
fn inside_root() -> Result<()> {
    match process::getcwd() {
        Ok(path) if path.starts_with("/") => Ok(()),
        Err(error) if error.errno() != Errno::ENOENT => Err(error.into()),
        _ => Err(Error::new(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )),
    }
}
