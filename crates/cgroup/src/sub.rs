//! Cgroups below the container's, for `exec --cgroup`.

use crate::dir::names;
use crate::make::Joined;
use crate::{Cgroup, Error, Result};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

impl Cgroup {
    /// The cgroup for one more process: this one, or those that `below` names by controller. The empty name is for
    /// all. The result has [`Cgroup::fd`] and [`Cgroup::task_files`].
    ///
    /// # Errors
    /// A controller that there is not, a path that leads out, a cgroup that does not exist.
    pub fn sub(&self, below: &BTreeMap<String, String>) -> Result<Cgroup> {
        if let Some(unknown) = below.keys().find(|c| !c.is_empty() && self.hierarchy(c).is_none()) {
            return Err(Error::new(format!("unknown controller {unknown} in SubCgroupPaths")));
        }
        let mut joined = Vec::new();
        for base in &self.joined {
            let mine = base.hierarchy.controllers.iter().find_map(|c| below.get(c)).or_else(|| below.get(""));
            let path = mine.map_or(Ok(PathBuf::new()), |path| inside(path))?;
            let mut hierarchy = base.hierarchy.clone();
            hierarchy.path.extend(names(&path));
            match Joined::below(base, &path, hierarchy) {
                Ok(found) => joined.push(found),
                Err(_) if base.hierarchy.optional => {}
                Err(e) => return Err(e.while_doing("error adding pid to cgroups")),
            }
        }
        let below = below.get("").map_or(Ok(PathBuf::new()), |path| inside(path))?;
        let mover = self.unit.clone().map(|unit| (unit, Path::new("/").join(below).to_string_lossy().into_owned()));
        let unified_mount = self.unified_mount.clone();
        let mut sub =
            Cgroup { joined, mover, unified_mount, rootless: self.rootless, started: true, ..Cgroup::default() };
        sub.tasks = sub.open_tasks()?;
        Ok(sub)
    }

    /// The unified directory that `pid` is in now. A container's first process may have moved, and the cgroup it
    /// started in may take processes no more.
    ///
    /// # Errors
    /// When the process is gone, or in a cgroup that cannot be seen.
    pub fn fd_of(&self, pid: i32) -> Result<OwnedFd> {
        let failed = |e: Error| e.while_doing(format_args!("failed to find the cgroup of process {pid}"));
        let Some(mount) = &self.unified_mount else {
            return Err(failed(Error::new("no unified hierarchy")));
        };
        let text = crate::probe::read(format!("/proc/{pid}/cgroup")).map_err(failed)?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path.ok_or_else(|| failed(Error::new("not in the unified hierarchy")))?;
        let root = crate::dir::Dir::mounted(mount).map_err(failed)?;
        root.child(Path::new(path)).map(crate::dir::Dir::into_fd).map_err(failed)
    }
}

/// `/` is the container's cgroup; `..` must not lead out of it.
fn inside(path: &str) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir => return Err(Error::new(format!("bad sub cgroup path: {path}"))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}
