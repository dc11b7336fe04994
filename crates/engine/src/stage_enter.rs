//! First steps: cgroups, namespaces, session, keyring.

use crate::error::{Context, Error, Result};
use crate::protocol::Report;
use crate::stage::Stage;
use offshoot_plan::{HookKind, Kind};
use offshoot_sys::{Errno, libc, path, process};
use std::os::fd::AsFd;

/// `SYSLOG`-like bits of keyctl(2) permissions: search and view for the owner's processes.
const KEY_POSSESSOR_SEARCH: u32 = 0x0800_0000;
const KEY_USER_SEARCH: u32 = 0x0008_0000;

/// How often a cgroup is made again.
const TRIES: u32 = 3;

impl Stage<'_> {
    /// A process that writes itself into `tasks` takes 33 µs, where `cgroup.procs` waits for an RCU grace period
    /// of 5 to 21 ms (Linux 6.18). It has one thread, so both mean the same.
    pub fn join_cgroups(&mut self) -> Result<()> {
        for (index, mut tasks) in (0..).zip(std::mem::take(&mut self.opened.tasks)) {
            let mut tries = 0;
            loop {
                match path::write_all(&tasks, b"0") {
                    // It was empty, and somebody removed it.
                    Err(error) if error.errno() == Errno::ENODEV && tries < TRIES => {
                        tasks = self.host.ask_fd(&Report::Tasks(index))?;
                    }
                    entered => break entered.context(|| "enter the cgroup".into())?,
                }
                tries += 1;
            }
        }
        Ok(())
    }

    pub fn become_root(&mut self) -> Result<()> {
        self.in_userns = true;
        // Groups first: setgroups needs the capability that the ids below may lose. Where the namespace has
        // setgroups denied, the groups stay, and the kernel has seen to it that they give nothing.
        match process::setgroups(&[]) {
            Err(error) if error.errno() != Errno::EPERM => return Err(error.into()),
            _ => {}
        }
        process::setresgid(0).context(|| "become root of the user namespace".into())?;
        process::setresuid(0).context(|| "become root of the user namespace".into())?;
        // A change of ids makes the process dumpable or not by sysctl; keep it closed until the exec.
        process::set_dumpable(false)?;
        Ok(())
    }

    /// The kernel charges inotify instances, keys and the like to the owner of a user namespace, within the limits of
    /// that user; so each container's must be somebody of its own (kernel/ucount.c). The rights of root stay.
    pub fn own(&mut self, uid: u32, gid: u32) -> Result<()> {
        take_ids(uid, gid).context(|| format!("become {uid}:{gid}, the owner of the user namespace"))
    }

    /// Three passes: with the caller's rights, then the user namespace, then what only its root may enter.
    pub fn join(&mut self, kinds: &[Kind]) -> Result<()> {
        if let Some(init) = self.opened.init.take() {
            let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
            return process::setns(&init, flags as i32).context(|| "join the container's namespaces".into());
        }
        let namespaces = std::mem::take(&mut self.opened.namespaces);
        let (user, others): (Vec<_>, Vec<_>) = namespaces.into_iter().partition(|(kind, _)| *kind == Kind::User);
        let mut refused = Vec::new();
        for (kind, fd) in others {
            match process::setns(&fd, kind.flag() as i32) {
                Err(error) if error.errno() == Errno::EPERM && !user.is_empty() => refused.push((kind, fd)),
                result => result.context(|| format!("join the {} namespace", kind.name()))?,
            }
        }
        for (kind, fd) in user.into_iter().chain(refused) {
            process::setns(&fd, kind.flag() as i32).context(|| format!("join the {} namespace", kind.name()))?;
        }
        Ok(())
    }

    pub fn unshare(&mut self, flags: u64) -> Result<()> {
        process::unshare(flags as i32).context(|| "make namespaces".into())
    }

    pub fn new_session(&mut self) -> Result<()> {
        process::setsid().context(|| "start a session".into())
    }

    pub fn affinity(&mut self, cpus: Option<&[u32]>) -> Result<()> {
        // 64 Ki bits are more than any kernel has; it cuts the mask to what the cpuset allows.
        let mask = cpus.map_or(vec![u64::MAX; 1024], bits);
        // Also runc's words; more than 64 CPUs take more than one.
        if let (Some(_), [word]) = (cpus, mask.as_slice()) {
            self.debug(format_args!("nsexec: affinity: {word:#x}"));
        }
        match process::sched_setaffinity(0, &mask) {
            // Without a wish the mask is only tidied up; a cpuset without CPUs (yet) must not stop anything.
            Err(_) if cpus.is_none() => Ok(()),
            result => result.context(|| "set the CPU affinity".into()),
        }
    }

    pub fn keyring(&mut self, name: &str, label: &str) -> Result<()> {
        if !label.is_empty() {
            self.write_attribute("keycreate", label)?;
        }
        let serial = match process::join_session_keyring(Some(name)) {
            Ok(serial) => serial,
            // A kernel without keyrings, or a filter around the runtime that hides them (runc: same).
            Err(error) if matches!(error.errno(), Errno::ENOSYS) => return Ok(()),
            Err(error) => return Err(error).context(|| "join the session keyring".into()),
        };
        if !label.is_empty() {
            self.write_attribute("keycreate", "")?;
        }
        // Child processes with other ids must be able to search their session keyring.
        let description = process::describe_key(serial).context(|| "read the session keyring".into())?;
        let permissions = description.split(';').nth(3).and_then(|field| u32::from_str_radix(field, 16).ok());
        let Some(permissions) = permissions else {
            return Err(Error::new(format!(
                "the kernel describes a keyring as {description:?}, which has no permissions"
            )));
        };
        process::set_key_permissions(serial, permissions | KEY_USER_SEARCH | KEY_POSSESSOR_SEARCH)
            .context(|| "open the session keyring to the container".into())
    }

    pub fn loopback(&mut self) -> Result<()> {
        crate::netdev::loopback_up().context(|| "bring up the loopback interface".into())
    }

    /// Hooks that run in the container's namespaces.
    pub fn hooks(&mut self, kind: HookKind) -> Result<()> {
        if kind == HookKind::CreateContainer && self.root.is_some() {
            // They work on the container's root while the host's is still there.
            process::fchdir(self.root()?)?;
        }
        let plan = self.plan()?;
        let state = crate::hooks::state(&plan.id, "created", self.pid, &plan.bundle, &plan.annotations);
        let hooks = plan.hooks_of(kind);
        match kind {
            // In the container, so with its environment.
            HookKind::StartContainer => crate::hooks::run_inside(kind, hooks, &state, &self.env, None),
            // As with runc: none of the host's environment, and in the root filesystem, seen from the host.
            _ => crate::hooks::run_inside(kind, hooks, &state, &[], self.root.as_ref().map(AsFd::as_fd)),
        }
    }

    /// Puts a copy of `fd` over a standard stream.
    pub(crate) fn replace_stream(&self, fd: impl AsFd, stream: i32) -> Result<()> {
        process::dup3(fd, stream, 0).map_err(Into::into)
    }
}

/// Changes user and group, and keeps all capabilities.
pub(crate) fn take_ids(uid: u32, gid: u32) -> offshoot_sys::Result<()> {
    process::setgroups(&[])?;
    process::set_securebits(process::securebits()? | libc::SECBIT_NO_SETUID_FIXUP as u32)?;
    process::setresgid(gid)?;
    process::setresuid(uid)?;
    // By sysctl fs.suid_dumpable a change of ids may have opened it.
    process::set_dumpable(false)
}

/// CPU or node numbers as a mask of 64-bit words.
pub(crate) fn bits(numbers: &[u32]) -> Vec<u64> {
    let words = numbers.iter().max().map_or(1, |max| *max as usize / 64 + 1);
    let mut mask = vec![0; words];
    for number in numbers {
        mask[*number as usize / 64] |= 1 << (number % 64);
    }
    mask
}

/// Flags that name a directory for use by descriptor only.
pub(crate) const O_DIR: i32 = libc::O_PATH | libc::O_DIRECTORY;
