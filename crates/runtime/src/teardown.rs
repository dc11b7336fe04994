//! The one way in which what is left of a container goes: after a failed `create`, in `delete`, and after a runtime
//! that was killed at any moment. It can be done again, and goes on past what fails.

use crate::ranges::Pool;
use crate::{Container, Error};
use offshoot_engine::failpoint;
use offshoot_sys::libc::{self, SIGKILL};
use offshoot_sys::mount::{self, MountAttr};
use offshoot_sys::{Errno, event, event::POLLIN, path, pidfd};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that goes.
type Step = fn(&mut Container) -> Result<(), Error>;

/// A place where tests kill it.
fn point(index: usize) {
    // To fail on purpose is for what makes, not for what takes away.
    let _ = failpoint::check("teardown", index);
}

impl Container {
    /// Kills what runs and removes what was made: processes, cgroup, resctrl group, mounts on the host, clone, state
    /// directory, in this order. As long as one of them remains, so does the state directory, by which they are found again.
    ///
    /// Returns everything that failed; empty is success. Afterwards the record in memory is all that is known of the
    /// container; [`Container::poststop`] still works with it.
    pub fn teardown(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        let steps: [Step; 4] = [
            |container| container.end_init(),
            |container| container.remove_cgroup(),
            |container| container.remove_resctrl(),
            |container| container.unmount_root(),
        ];
        for (index, step) in steps.into_iter().enumerate() {
            point(index);
            errors.extend(step(self).err());
        }
        point(4);
        if errors.is_empty() {
            errors.extend(self.state.clone.as_ref().and_then(|clone| clone.end().err()));
        }
        point(5);
        if errors.is_empty()
            && let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            errors.push(Error::io(format_args!("remove {}", self.dir.display()), &error));
        }
        point(6);
        // Last: as long as anything of the container may be left, its ids are nobody else's.
        if let Some(first) = self.state.first_id.filter(|_| errors.is_empty()) {
            Pool::of_host().give_back(first, &self.dir);
        }
        errors
    }

    /// Kills the first process, if it lives, and waits for its end.
    fn end_init(&self) -> Result<(), Error> {
        let Some(init) = self.init()? else { return Ok(()) };
        let failed = |error: offshoot_sys::Error| Error::io("kill init", &error.into());
        // It may have ended by now.
        let _ = pidfd::send_signal(&init, SIGKILL);
        if self.is_frozen().unwrap_or(false) {
            self.cgroup()?.thaw().map_err(|error| Error::cgroup("unable to thaw the container", &error))?;
        }
        let mut fds = [(init.as_fd(), POLLIN, 0)];
        match event::poll(&mut fds, Some(PATIENCE)).map_err(failed)? {
            0 => Err(Error::new(crate::Kind::System, "container init still running")),
            _ => Ok(()),
        }
    }

    fn remove_cgroup(&self) -> Result<(), Error> {
        let mut cgroup = self.cgroup()?;
        if self.state.cgroup_made {
            // Also with a pid namespace: its init may not have been recorded before the runtime was killed.
            cgroup.kill_all().map_err(|error| Error::cgroup("unable to kill all processes", &error))?;
        } else if !cgroup.all_pids().map_err(|error| Error::cgroup("unable to get cgroup PIDs", &error))?.is_empty() {
            // Creation was cut short before it was known whether the cgroup is in use by others. It is.
            return Ok(());
        }
        cgroup.remove().map_err(|error| Error::cgroup("unable to remove container's cgroup", &error))
    }

    /// Takes from the host what a container without a mount namespace has mounted there. In another mount namespace
    /// than `create`'s there is nothing to see of it.
    fn unmount_root(&self) -> Result<(), Error> {
        let Some(id) = self.state.root_mount else { return Ok(()) };
        let rootfs = &self.state.config.rootfs;
        let failed =
            |error: offshoot_sys::Error| Error::io(format_args!("unmount {}", rootfs.display()), &error.into());
        let root = match path::open(rootfs, libc::O_PATH | libc::O_DIRECTORY, 0) {
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            root => root.map_err(failed)?,
        };
        let found = mount::statx(Some(root.as_fd()), "", libc::AT_EMPTY_PATH).map_err(failed)?;
        if found.mnt_id != id || !found.is_mount_root() {
            return Ok(());
        }
        // A directory bound into the container with all below it may propagate: the host's own mounts would go, too.
        let private = MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
        mount::mount_setattr(&root, "", mount::AT_EMPTY_PATH | mount::AT_RECURSIVE, &private).map_err(failed)?;
        mount::umount_fd(&root).map_err(failed)
    }

    fn remove_resctrl(&self) -> Result<(), Error> {
        let groups = [(&self.state.intel_rdt_mon_path, true), (&self.state.intel_rdt_path, self.state.owns_intel_rdt)];
        for (path, owned) in groups {
            if owned
                && !path.as_os_str().is_empty()
                && let Err(error) = fs::remove_dir(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(Error::io(format_args!("remove the resctrl group {}", path.display()), &error));
            }
        }
        Ok(())
    }
}
