//! What must be known to find a container's cgroup again.

use offshoot_plan::cgroup::{Driver, Hierarchy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The part of a container's state that is about its cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupState {
    /// Who made it.
    pub driver: Driver,
    /// systemd's name for it.
    pub unit: Option<String>,
    /// The directories.
    pub hierarchies: Vec<Hierarchy>,
    /// Whether missing permissions are to be expected.
    pub rootless: bool,
}

impl CgroupState {
    /// Absolute paths by controller, as runc's `cgroup_paths`: the unified hierarchy's has an empty key.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            let path = hierarchy.mount_point.join(&hierarchy.path).to_string_lossy().into_owned();
            if hierarchy.is_unified() {
                paths.insert(String::new(), path);
            } else {
                paths.extend(hierarchy.controllers.iter().map(|c| (c.clone(), path.clone())));
            }
        }
        paths
    }
}
