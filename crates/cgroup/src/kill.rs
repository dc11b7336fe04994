//! The processes in a cgroup, and signals to them all.

use crate::{Cgroup, Error, Result};
use offshoot_sys::{Errno, pidfd};

impl Cgroup {
    /// The processes in the cgroup itself. Empty when it is gone.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.list(crate::dir::Dir::pids)
    }

    /// The processes in the cgroup and in those that the container made below it. Empty when it is gone.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn all_pids(&self) -> Result<Vec<i32>> {
        self.list(crate::dir::Dir::all_pids)
    }

    fn list(&self, read: impl Fn(&crate::dir::Dir) -> Result<Vec<i32>>) -> Result<Vec<i32>> {
        match self.main().map(|joined| read(&joined.dir)) {
            None => Ok(Vec::new()),
            Some(Err(e)) if e.is_absent() => Ok(Vec::new()),
            Some(list) => list.map_err(|e| e.while_doing("failed to list the cgroup's processes")),
        }
    }

    /// Kills every process in the cgroup and below, those that are being forked, too. Again is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(joined) = self.hierarchy("") {
            match joined.dir.write("cgroup.kill", "1") {
                // Before Linux 5.14.
                Err(e) if e.errno() == Some(Errno::ENOENT) && self.exists() => {}
                Err(e) if e.is_absent() => {}
                // A threaded cgroup cannot be killed as one.
                Err(e) if e.errno() == Some(Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(e.while_doing("failed to kill the cgroup's processes")),
                Ok(()) if self.joined.iter().all(|joined| joined.hierarchy.is_unified()) => return Ok(()),
                // On a hybrid host, a process may have left the unified directory and none of the others.
                Ok(()) => {}
            }
        }
        self.signal_all(libc::SIGKILL)
    }

    /// Sends a signal to every process in the cgroup and below. They are frozen meanwhile, so that none is forked
    /// and no number is used again.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if self.all_pids()?.is_empty() {
            // A frozen process that is about to die would stay.
            return if self.frozen().unwrap_or(false) { self.thaw() } else { Ok(()) };
        }
        let frozen = self.freeze();
        let sent = self.all_pids().and_then(|pids| {
            pids.into_iter().try_for_each(|pid| match pidfd::kill(pid, signal) {
                Err(e) if e.errno() != Errno::ESRCH => {
                    Err(Error::system(format_args!("failed to send signal {signal} to process {pid}"), e.errno()))
                }
                _ => Ok(()),
            })
        });
        if frozen.is_ok() {
            self.thaw()?;
        }
        sent
    }
}
