//! Making directories, level by level, and unmaking exactly those.

use crate::dir::{Dir, names};
use crate::{Error, Result};
use offshoot_plan::cgroup::{CgroupPlan, Hierarchy};
use offshoot_sys::Errno;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The container's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) hierarchy: Hierarchy,
    /// The directory that has the container's.
    pub(crate) parent: Dir,
    pub(crate) name: OsString,
    pub(crate) dir: Dir,
    /// What was made above the container's directory, topmost first.
    made_above: Vec<(Dir, OsString)>,
    /// Whether the container's directory was made here, too.
    pub(crate) made: bool,
}

impl Joined {
    /// Opens a directory that exists; nothing where it does not.
    pub(crate) fn open(hierarchy: &Hierarchy) -> Result<Option<Joined>> {
        let open = || -> Result<Joined> {
            let root = Dir::mounted(&hierarchy.mount_point)?;
            let above = hierarchy.path.parent().unwrap_or(Path::new(""));
            let name = hierarchy.path.file_name().unwrap_or_default().to_os_string();
            let parent = if above.as_os_str().is_empty() { root } else { root.child(above)? };
            let dir = parent.child(name.as_ref())?;
            Ok(Joined { hierarchy: hierarchy.clone(), parent, name, dir, made_above: Vec::new(), made: false })
        };
        match open() {
            Ok(joined) => Ok(Some(joined)),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A directory below `base`'s that exists.
    pub(crate) fn below(base: &Joined, path: &Path, hierarchy: Hierarchy) -> Result<Joined> {
        let dir = base.dir.child(path)?;
        let parent = base.dir.child("".as_ref())?;
        let name = path.file_name().unwrap_or_default().to_os_string();
        Ok(Joined { hierarchy, parent, name, dir, made_above: Vec::new(), made: false })
    }

    /// Makes the directory and those above it. What was made before a failure is unmade.
    pub(crate) fn make(hierarchy: &Hierarchy, plan: &CgroupPlan) -> Result<Joined> {
        let mut tries = 0;
        loop {
            match Maker::run(hierarchy, plan) {
                // Another container's end may have taken a shared directory away between two steps.
                Err(e) if e.is_absent() && tries < 3 => tries += 1,
                done => return done,
            }
        }
    }

    /// Makes the directory once more, which somebody removed.
    pub(crate) fn make_again(&mut self, plan: &CgroupPlan) -> Result<()> {
        let again = Joined::make(&self.hierarchy, plan)?;
        let mut made_above = std::mem::take(&mut self.made_above);
        *self = again;
        made_above.append(&mut self.made_above);
        self.made_above = made_above;
        Ok(())
    }

    /// Removes the directory, with all in it, if it was made here, and the ones above that nobody else uses.
    pub(crate) fn unmake(&mut self) -> Result<()> {
        if self.made {
            self.parent.remove(&self.name)?;
            self.made = false;
        }
        unmake(&mut self.made_above);
        Ok(())
    }
}

/// Others may have come to use these; then they stay.
fn unmake(made: &mut Vec<(Dir, OsString)>) {
    while let Some((parent, name)) = made.pop() {
        let _ = parent.unmake(&name);
    }
}

struct Maker {
    made: Vec<(Dir, OsString)>,
}

impl Drop for Maker {
    fn drop(&mut self) {
        unmake(&mut self.made);
    }
}

impl Maker {
    fn run(hierarchy: &Hierarchy, plan: &CgroupPlan) -> Result<Joined> {
        let mut maker = Maker { made: Vec::new() };
        let mut parent = Dir::mounted(&hierarchy.mount_point)?;
        let mut levels = names(&hierarchy.path).peekable();
        while let Some(name) = levels.next() {
            if hierarchy.is_unified() {
                enable(&parent, &hierarchy.enable)?;
            }
            let made = parent.make(name)?;
            if levels.peek().is_none() {
                let dir = open(&parent, name, hierarchy, plan).inspect_err(|_| {
                    if made {
                        let _ = parent.unmake(name);
                    }
                })?;
                let (hierarchy, name) = (hierarchy.clone(), name.to_os_string());
                let made_above = std::mem::take(&mut maker.made);
                return Ok(Joined { hierarchy, parent, name, dir, made_above, made });
            }
            if made {
                maker.made.push((parent.child("".as_ref())?, name.to_os_string()));
            }
            parent = open(&parent, name, hierarchy, plan)?;
            if made && has_cpuset(hierarchy) {
                hand_down(&parent);
            }
        }
        Err(Error::new(format!("failed to make a cgroup in {}: no path", hierarchy.mount_point.display())))
    }
}

/// Opens one level, which can be entered then.
fn open(parent: &Dir, name: &OsStr, hierarchy: &Hierarchy, plan: &CgroupPlan) -> Result<Dir> {
    let dir = parent.child(name.as_ref())?;
    if hierarchy.is_unified() {
        check_type(&dir, plan)?;
    } else if has_cpuset(hierarchy) && copy_cpuset(parent, &dir)? && parent.path() != hierarchy.mount_point {
        // The first only: an earlier version, or another program, has made the parent.
        hand_down(parent);
    }
    Ok(dir)
}

fn has_cpuset(hierarchy: &Hierarchy) -> bool {
    !hierarchy.is_unified() && hierarchy.controllers.iter().any(|controller| controller == "cpuset")
}

/// Has the kernel copy the CPUs and memory nodes of a v1 cpuset into each that is made in it: to write them it walks all
/// cpusets of the host, so the five hundredth container would wait longest. kernel: cgroup-v1/cpusets.rst, 1.8
fn hand_down(dir: &Dir) {
    // Where it cannot be set, they are written.
    let _ = dir.write("cgroup.clone_children", "1");
}

/// Enables controllers for the cgroups below. A rewrite of what is on already would make the kernel walk all cgroups,
/// so the file is read first. What cannot be enabled is found out by the limit that needs it, if any does.
fn enable(dir: &Dir, wanted: &[String]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let on = match dir.read("cgroup.subtree_control") {
        Err(e) if e.is_permission() => return Ok(()),
        on => on?,
    };
    let missing: Vec<String> =
        wanted.iter().filter(|c| !on.split_whitespace().any(|o| o == *c)).map(|c| format!("+{c}")).collect();
    if missing.is_empty() || dir.write("cgroup.subtree_control", &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in missing {
        let _ = dir.write("cgroup.subtree_control", &controller);
    }
    Ok(())
}

/// kernel: cgroup-v2.rst, "Threads". Below a cgroup with processes and controllers, a new one is invalid: it can only
/// become threaded, and then lacks the controllers that do not know threads.
fn check_type(dir: &Dir, plan: &CgroupPlan) -> Result<()> {
    let kind = match dir.read("cgroup.type") {
        Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(()), // The root has none.
        kind => kind?,
    };
    let refused = |state: &str| {
        let path = dir.path().display();
        Err(Error::new(format!("cannot enter cgroupv2 \"{path}\" with domain controllers -- it is in {state}")))
    };
    match kind.trim() {
        "domain invalid" if plan.needs_domain => refused("an invalid state"),
        "domain invalid" => {
            let _ = dir.write("cgroup.type", "threaded");
            Ok(())
        }
        kind @ ("threaded" | "domain threaded") if plan.needs_domain => refused(&format!("{kind} mode")),
        _ => Ok(()),
    }
}

/// A v1 cpuset starts without CPUs and memory nodes, and nobody can enter it then. Whether any had to be written.
fn copy_cpuset(parent: &Dir, dir: &Dir) -> Result<bool> {
    let mut wrote = false;
    for name in ["cpus", "mems"] {
        // Mounted with `noprefix`, the files have bare names.
        let prefixed = format!("cpuset.{name}");
        let (file, value) = match dir.read(&prefixed) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => (name, dir.read(name)?),
            value => (prefixed.as_str(), value?),
        };
        if value.trim().is_empty() {
            dir.write(file, parent.read(file)?.trim_end())?;
            wrote = true;
        }
    }
    Ok(wrote)
}
