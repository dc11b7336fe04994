//! A procfs and a sysfs that show nothing, for the kernel to see where a user namespace wants to mount its own.
//!
//! They are of a pid and a network namespace that have ended, so that containers may share them: there is nothing in them to
//! share. To make and to end these namespaces is most of what they cost, so who starts many containers makes them once.

use crate::error::{Context, Error, Result};
use crate::tree::{clone_mount, set_propagation};
use offshoot_sys::{fork, libc, mount, path, process, socket};
use std::os::fd::{AsFd, OwnedFd};

/// Where they go.
pub(crate) const PLACES: [&str; 2] = ["/proc", "/sys"];

/// A file system of this process's namespaces, as a detached mount.
pub(crate) fn make(kind: &str) -> offshoot_sys::Result<OwnedFd> {
    let context = mount::FsContext::open(kind)?;
    context.create()?;
    context.mount(mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC)
}

/// The two, as detached mounts; and a mount namespace in which nothing is, where it could be made.
#[derive(Debug)]
pub struct Hollow {
    mounts: Vec<OwnedFd>,
    void: Option<OwnedFd>,
}

impl Hollow {
    /// Makes them. Needs root's rights, and a process with one thread.
    ///
    /// # Errors
    /// The kernel makes no such file system, or no process.
    pub fn new() -> Result<Hollow> {
        Hollow::make(fork::CLONE_NEWPID | fork::CLONE_NEWNET | fork::CLONE_NEWNS)
    }

    /// The two alone, for one container.
    pub(crate) fn mounts() -> Result<Vec<OwnedFd>> {
        Hollow::make(fork::CLONE_NEWPID | fork::CLONE_NEWNET).map(|hollow| hollow.mounts)
    }

    fn make(namespaces: i32) -> Result<Hollow> {
        let what = || "mount an empty procfs and sysfs".to_owned();
        let (ours, theirs) = socket::seqpacket_pair().context(what)?;
        let own_mounts = namespaces & fork::CLONE_NEWNS != 0;
        let send = || {
            let (proc, sys, void) = (make("proc")?, make("sysfs")?, own_mounts.then(void).flatten());
            let fds: Vec<_> = [&proc, &sys].into_iter().chain(&void).map(AsFd::as_fd).collect();
            socket::send(&theirs, b"x", &fds)
        };
        let child = fork::fork(namespaces as u32 as u64, None, || i32::from(send().is_err())).context(what)?;
        // Their namespaces end with this process, and what is left shows nothing.
        match fork::wait(&child.pidfd).context(what)? {
            exit if exit.success() => {}
            exit => return Err(Error::new(format!("failed to {}: {exit}", what()))),
        }
        let (_, mut mounts) = socket::recv(&ours, &mut [0; 1]).context(what)?;
        let void = (mounts.len() > PLACES.len()).then(|| mounts.pop()).flatten();
        Ok(Hollow { mounts, void })
    }

    /// Whether there is a mount namespace in which nothing is: see [`Hollow::void`].
    pub fn has_void(&self) -> bool {
        self.void.is_some()
    }

    /// It, for one container. Who makes the container's mounts there neither copies the host's, to take them away again, nor
    /// changes the root by `pivot_root`, for which the kernel looks at every process of the host.
    pub(crate) fn void(&self) -> Result<Option<OwnedFd>> {
        self.void.as_ref().map(|void| void.try_clone().context(|| "keep a mount namespace".into())).transpose()
    }

    /// Copies for one container; none before Linux 6.15, which copies only what is attached somewhere.
    pub(crate) fn copies(&self) -> Vec<OwnedFd> {
        self.mounts.iter().map(|tree| clone_mount(tree, false)).collect::<Result<_>>().unwrap_or_default()
    }
}

/// Takes away all mounts of this process's own mount namespace but the kernel's first, which a root changed by `pivot_root` lies
/// over, too. Nothing where that is the host's root, which cannot be taken away; or where no devices can be made, as these would
/// be the host's, mounted.
fn void() -> Option<OwnedFd> {
    let empty = || -> Result<Option<OwnedFd>> {
        let root = || path::open("/", libc::O_PATH | libc::O_DIRECTORY, 0);
        let id = |fd: &OwnedFd| mount::statx(Some(fd.as_fd()), "", libc::AT_EMPTY_PATH).map(|stat| stat.mnt_id);
        let own = path::open("/proc/self/ns/mnt", libc::O_RDONLY, 0)?;
        let before = root()?;
        // First of all, so that none of the host's goes with its copy here.
        set_propagation(&before, libc::MS_PRIVATE | libc::MS_REC)?;
        mount::umount("/", libc::MNT_DETACH)?;
        process::setns(&own, libc::CLONE_NEWNS)?;
        let after = root()?;
        set_propagation(&after, libc::MS_PRIVATE | libc::MS_REC)?;
        let scratch = make("tmpfs")?;
        let null = libc::makedev(1, 3);
        let made = path::mknodat(Some(scratch.as_fd()), "null", libc::S_IFCHR | 0o600, null);
        Ok((id(&before)? != id(&after)? && made.is_ok()).then_some(own))
    };
    empty().ok().flatten()
}
