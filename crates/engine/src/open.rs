//! What the host opens before the clone, so that the container's process finds it by descriptor.

use crate::error::{Context, Error, Result};
use crate::stage::Opened;
use crate::{id_map, stage_mount};
use offshoot_plan::{Bind, IdMap, Kind, Plan};
use offshoot_sys::{libc, ns, path};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// User namespaces by their map: mounts of one container usually share one.
#[derive(Default)]
pub(crate) struct IdMaps(HashMap<IdMap, OwnedFd>);

impl IdMaps {
    fn get(&mut self, map: &IdMap) -> Result<&OwnedFd> {
        if !self.0.contains_key(map) {
            self.0.insert(map.clone(), id_map::namespace(map)?);
        }
        self.0.get(map).ok_or_else(|| Error::new("no user namespace for the map"))
    }

    /// Makes the namespace of a map ahead of its use.
    pub fn prepare(&mut self, map: &IdMap) -> Result<()> {
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
    let propagation = match plan.propagation & !libc::MS_REC {
        0 => libc::MS_SLAVE,
        flags => flags,
    };
    for bind in &plan.sources {
        opened.sources.push(maps.source(bind, propagation)?);
    }
    let in_userns = plan.namespaces.has(Kind::User);
    if in_userns && !plan.unprivileged {
        for hierarchy in plan.cgroup.hierarchies.iter().filter(|h| !h.is_unified()) {
            opened.cgroups.push(stage_mount::open_cgroup(&hierarchy.mount_point.join(&hierarchy.path))?);
        }
    }
    Ok(opened)
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
