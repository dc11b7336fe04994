//! What the planner must know of the machine, as plain data.

use crate::cgroup::CgroupHost;

/// Facts about the host; `runtime` probes them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Effective user id of the caller.
    pub euid: u32,
    /// Whether the caller is in a user namespace of its own.
    pub in_user_namespace: bool,
    /// Cgroup hierarchies and where the caller is in them.
    pub cgroup: CgroupHost,
    /// What the kernel's seccomp can do.
    pub seccomp: offshoot_seccomp::Kernel,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// Highest capability number of the kernel.
    pub last_cap: u8,
    /// Capabilities that the caller may hand out, as a mask.
    pub bounding: u64,
    /// Whether resctrl is mounted.
    pub resctrl: bool,
}
