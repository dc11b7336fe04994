//! A procfs and a sysfs that show nothing, for the kernel to see where a user namespace wants to mount its own.
//!
//! They are of a pid and a network namespace that have ended, so that containers may share them: there is nothing in them to
//! share. To make and to end these namespaces is most of what they cost, so who starts many containers makes them once.

use crate::error::{Context, Error, Result};
use crate::tree::clone_mount;
use offshoot_sys::{fork, mount, socket};
use std::os::fd::{AsFd, OwnedFd};

/// Where they go.
pub(crate) const PLACES: [&str; 2] = ["/proc", "/sys"];

/// A file system of this process's namespaces, as a detached mount.
pub(crate) fn make(kind: &str) -> offshoot_sys::Result<OwnedFd> {
    let context = mount::FsContext::open(kind)?;
    context.create()?;
    context.mount(mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC)
}

/// The two, as detached mounts.
#[derive(Debug)]
pub struct Hollow(Vec<OwnedFd>);

impl Hollow {
    /// Makes them. Needs root's rights, and a process with one thread.
    ///
    /// # Errors
    /// The kernel makes no such file system, or no process.
    pub fn new() -> Result<Hollow> {
        let what = || "mount an empty procfs and sysfs".to_owned();
        let (ours, theirs) = socket::seqpacket_pair().context(what)?;
        let send = || {
            let (proc, sys) = (make("proc")?, make("sysfs")?);
            socket::send(&theirs, b"x", &[proc.as_fd(), sys.as_fd()])
        };
        let flags = (fork::CLONE_NEWPID | fork::CLONE_NEWNET) as u32 as u64;
        let child = fork::fork(flags, None, || i32::from(send().is_err())).context(what)?;
        // Their namespaces end with this process, and what is left shows nothing.
        match fork::wait(&child.pidfd).context(what)? {
            exit if exit.success() => {}
            exit => return Err(Error::new(format!("failed to {}: {exit}", what()))),
        }
        let (_, mounts) = socket::recv(&ours, &mut [0; 1]).context(what)?;
        Ok(Hollow(mounts))
    }

    /// Copies for one container; none before Linux 6.15, which copies only what is attached somewhere.
    pub(crate) fn copies(&self) -> Vec<OwnedFd> {
        self.0.iter().map(|tree| clone_mount(tree, false)).collect::<Result<_>>().unwrap_or_default()
    }

    pub(crate) fn into_mounts(self) -> Vec<OwnedFd> {
        self.0
    }
}
