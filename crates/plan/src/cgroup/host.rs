//! What the host has: plain data that `offshoot_cgroup::probe` reads and a test writes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// One cgroup2 file system on `/sys/fs/cgroup`.
    V2,
    /// v1 hierarchies, and a cgroup2 file system beside them.
    Hybrid,
    /// v1 hierarchies alone, or nothing at all.
    V1,
}

/// The host's cgroup file systems as the runtime sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupHost {
    /// How cgroups are mounted.
    pub mode: Mode,
    /// v1 hierarchies, in the order in which they are mounted.
    pub hierarchies: Vec<HostHierarchy>,
    /// The cgroup2 file system.
    pub unified: Option<HostHierarchy>,
    /// Whether the runtime is in a user namespace other than the first.
    pub in_userns: bool,
    /// Page sizes in the spelling of the hugetlb controller: `64KB`, `2MB`, `1GB`.
    pub huge_page_sizes: Vec<String>,
    /// systemd, when the systemd driver is asked for and it answers.
    pub systemd: Option<SystemdHost>,
}

/// One cgroup file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHierarchy {
    /// v1: the co-mounted controllers, `name=systemd` for a named hierarchy. cgroup2: those that its root offers.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The runtime's own cgroup, relative to the mount point and without a leading slash; none when it is not
    /// below the directory that is mounted.
    pub own_path: Option<PathBuf>,
}

/// The systemd instance that will manage the unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdHost {
    /// Its version: 252.
    pub version: u32,
    /// The cgroup that the instance manages, from the root: `/` for the system's, `/user.slice/…` for a user's.
    pub control_group: PathBuf,
}
