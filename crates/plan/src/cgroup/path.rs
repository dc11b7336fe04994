//! Which directory in which hierarchy.

use super::{CgroupHost, CgroupRequest, Decisions, Driver, Hierarchy, HostHierarchy, Mode, SystemdUnit};
use crate::clean;
use std::path::{Path, PathBuf};

/// The v1 hierarchies that a container joins, in runc's order, and whether it can do without: a named hierarchy
/// limits nothing.
const V1: [(&str, bool); 15] = [
    ("cpuset", false),
    ("devices", false),
    ("memory", false),
    ("cpu", false),
    ("cpuacct", false),
    ("pids", false),
    ("blkio", false),
    ("hugetlb", false),
    ("net_cls", false),
    ("net_prio", false),
    ("perf_event", false),
    ("freezer", false),
    ("rdma", false),
    ("name=systemd", true),
    ("misc", true),
];

/// The hierarchies to join, and the unit to ask for.
pub(super) fn hierarchies(
    request: &CgroupRequest,
    host: &CgroupHost,
    out: &mut Decisions,
) -> (Vec<Hierarchy>, Option<SystemdUnit>) {
    let unmounted = host.hierarchies.is_empty() && host.unified.is_none();
    let path_given = !request.linux.cgroups_path.is_empty();
    if request.linux.cgroups_path.contains('\0') {
        out.problem("linux.cgroupsPath", "contains a NUL byte");
    }
    if unmounted && request.rootless && !path_given {
        return (Vec::new(), None);
    }
    if unmounted {
        out.problem("linux.cgroupsPath", "no cgroup mount found in mountinfo");
        return (Vec::new(), None);
    }
    match request.driver {
        Driver::Fs => {
            let path = relative(&request.linux.cgroups_path);
            let absolute = request.linux.cgroups_path.starts_with('/');
            if absolute && path.as_os_str().is_empty() {
                out.problem("linux.cgroupsPath", "the root cgroup is the host's, not a container's");
            }
            let name = if path_given { path } else { PathBuf::from(request.id) };
            (all(host, |own| if absolute { name.clone() } else { own.join(&name) }), None)
        }
        Driver::Systemd { user } => {
            if user && host.mode != Mode::V2 {
                out.problem("linux.cgroupsPath", "cannot use rootless systemd cgroups manager on cgroup v1");
            }
            let (path, annotations) = (&request.linux.cgroups_path, request.annotations);
            let unit = match SystemdUnit::new(request.id, path, annotations, user, host.mode != Mode::V2) {
                Ok(unit) => unit,
                Err(problems) => {
                    out.problems.extend(problems);
                    return (Vec::new(), None);
                }
            };
            let Some(systemd) = &host.systemd else {
                out.problem(
                    "linux.cgroupsPath",
                    "systemd not running on this host, cannot use systemd cgroups manager",
                );
                return (Vec::new(), None);
            };
            let path = relative(&format!("{}/{}", systemd.control_group.display(), unit.cgroup_path()));
            (all(host, |_| path.clone()), Some(unit))
        }
    }
}

/// Every hierarchy; `place` turns the cgroup that a relative path starts from into the container's.
fn all(host: &CgroupHost, place: impl Fn(&Path) -> PathBuf) -> Vec<Hierarchy> {
    let hierarchy = |from: &HostHierarchy, start: &Path, optional| Hierarchy {
        controllers: from.controllers.clone(),
        mount_point: from.mount_point.clone(),
        path: place(start),
        enable: Vec::new(),
        optional,
    };
    let mut list: Vec<Hierarchy> = Vec::new();
    for (controller, optional) in V1 {
        // Co-mounted controllers are one hierarchy.
        let found = host.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller));
        if let Some(found) = found.filter(|found| !list.iter().any(|h| h.mount_point == found.mount_point)) {
            list.push(hierarchy(found, found.own_path.as_deref().unwrap_or(Path::new("")), optional));
        }
    }
    if let Some(unified) = &host.unified {
        let only = host.mode == Mode::V2;
        // A cgroup with processes in it can have no limited cgroups below, so the start is the parent of the
        // runtime's own; on a hybrid host the root, as with runc.
        let own = unified.own_path.as_deref().filter(|_| only).and_then(Path::parent).unwrap_or(Path::new(""));
        let enable = if only { unified.controllers.clone() } else { Vec::new() };
        list.push(Hierarchy { controllers: Vec::new(), enable, ..hierarchy(unified, own, !only) });
    }
    list
}

/// A path below the mount point of a hierarchy; `..` does not lead above that.
fn relative(path: &str) -> PathBuf {
    clean(path).components().skip(1).collect()
}
