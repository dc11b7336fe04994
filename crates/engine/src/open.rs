//! What the host opens before the clone, so that the container's process finds it by descriptor.

use crate::error::{Context, Error, Result};
use crate::inherit::Opened;
use crate::tree::{clone_mount, set_propagation};
use crate::{id_map, stage_mount};
use offshoot_plan::{Bind, IdMap, Kind, Plan, Shift, What};
use offshoot_sys::{libc, mount, ns, path};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// User namespaces by their map: mounts of one container usually share one.
#[derive(Default)]
pub(crate) struct IdMaps {
    made: HashMap<IdMap, OwnedFd>,
    /// The one that the container joins.
    joined: Option<OwnedFd>,
}

impl IdMaps {
    fn get(&mut self, shift: &Shift) -> Result<&OwnedFd> {
        let found = match shift {
            Shift::Joined => self.joined.as_ref(),
            Shift::Map(map) => {
                if !self.made.contains_key(map) {
                    self.made.insert(map.clone(), id_map::namespace(map)?);
                }
                self.made.get(map)
            }
        };
        found.ok_or_else(|| Error::new("there is no user namespace to shift ids by"))
    }

    /// Makes the namespace of a map ahead of its use.
    pub fn prepare(&mut self, map: &Shift) -> Result<()> {
        self.get(map).map(drop)
    }

    /// Opens the source of a bind mount in the caller's mount namespace.
    pub fn source(&mut self, bind: &Bind, propagation: u64) -> Result<OwnedFd> {
        let userns = bind.idmap.as_ref().map(|map| self.get(map)).transpose()?;
        stage_mount::open_source(bind, userns, propagation)
    }
}

/// Opens everything.
pub(crate) fn open(plan: &Plan, maps: &mut IdMaps) -> Result<Opened> {
    let mut opened = Opened { namespaces: namespaces(plan)?, ..Opened::default() };
    if let Some((_, user)) = opened.namespaces.iter().find(|(kind, _)| *kind == Kind::User) {
        maps.joined = Some(user.try_clone().context(|| "keep the user namespace".into())?);
    }
    let propagation = plan.early_propagation() & !libc::MS_REC;
    for bind in &plan.sources {
        opened.sources.push(maps.source(bind, propagation)?);
    }
    let in_userns = plan.namespaces.has(Kind::User);
    let shows_cgroups = plan.mounts.iter().any(|mount| matches!(mount.what, What::Cgroup { .. }));
    // To close a tree that is mounted nowhere waits for all processors.
    if in_userns && !plan.unprivileged && shows_cgroups {
        for hierarchy in plan.cgroup.hierarchies.iter().filter(|h| !h.is_unified()) {
            opened.cgroups.push(stage_mount::open_cgroup(&hierarchy.mount_point.join(&hierarchy.path))?);
        }
    }
    Ok(opened)
}

/// Mounts the root filesystem (or `root` in its place) on its own path, in the host's mount namespace. `note` writes the
/// mount's id down before it can be seen.
pub(crate) fn mount_root(plan: &Plan, root: Option<OwnedFd>, note: impl FnOnce(u64) -> Result<()>) -> Result<OwnedFd> {
    let what = || format!("mount the root filesystem {}", plan.rootfs.display());
    let target = path::open(&plan.rootfs, libc::O_PATH | libc::O_DIRECTORY, 0).context(what)?;
    let tree = match root {
        Some(tree) => tree,
        None => clone_mount(&target, true).context(what)?,
    };
    // What is mounted below it stays here, and what goes from below it stays elsewhere.
    set_propagation(&tree, libc::MS_PRIVATE | libc::MS_REC).context(what)?;
    note(mount::statx(Some(tree.as_fd()), "", libc::AT_EMPTY_PATH).context(what)?.mnt_id)?;
    mount::move_mount(&tree, &target).context(what)?;
    Ok(tree)
}

fn namespaces(plan: &Plan) -> Result<Vec<(Kind, OwnedFd)>> {
    let mut list = Vec::new();
    for (kind, path) in &plan.namespaces.joined {
        let what = || format!("open the {} namespace {}", kind.name(), path.display());
        let fd = path::open(path, libc::O_RDONLY, 0).context(what)?;
        let found = ns::kind(&fd).context(what)?;
        if found as u32 as u64 != kind.flag() {
            return Err(Error::new(format!("{} is not a {} namespace", path.display(), kind.name())));
        }
        list.push((*kind, fd));
    }
    Ok(list)
}
