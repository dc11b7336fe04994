//! What `features` prints. spec: features.md, features-linux.md

use serde::Serialize;
use std::collections::BTreeMap;

/// Something that is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Enabled {
    /// Whether it is there.
    pub enabled: bool,
}

/// spec: features.md
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// The oldest version of `config.json` that is understood.
    pub oci_version_min: &'static str,
    /// The newest.
    pub oci_version_max: &'static str,
    /// Kinds of hooks.
    pub hooks: Vec<&'static str>,
    /// Mount options with a meaning of their own, sorted.
    pub mount_options: Vec<&'static str>,
    /// spec: features-linux.md
    pub linux: LinuxFeatures,
    /// Facts beside the specification.
    pub annotations: BTreeMap<&'static str, String>,
    /// Annotations that steer the runtime: a caller should not take them from an untrusted user. A full stop at the
    /// end means all that begin so.
    pub potentially_unsafe_config_annotations: Vec<&'static str>,
}

/// spec: features-linux.md
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxFeatures {
    /// Kinds of namespaces, sorted.
    pub namespaces: Vec<&'static str>,
    /// Capabilities by number.
    pub capabilities: Vec<String>,
    /// Cgroups.
    pub cgroup: CgroupFeatures,
    /// System call filters.
    pub seccomp: SeccompFeatures,
    /// AppArmor profiles.
    pub apparmor: Enabled,
    /// SELinux labels.
    pub selinux: Enabled,
    /// Cache and memory bandwidth allocation.
    pub intel_rdt: IntelRdtFeatures,
    /// NUMA memory policies.
    pub memory_policy: MemoryPolicyFeatures,
    /// Mounts beyond mount(8).
    pub mount_extensions: MountExtensions,
    /// Moving network interfaces into a container.
    pub net_devices: Enabled,
}

/// Cgroup drivers and versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CgroupFeatures {
    /// cgroup v1.
    pub v1: bool,
    /// cgroup v2.
    pub v2: bool,
    /// systemd's system instance.
    pub systemd: bool,
    /// systemd's user instance.
    pub systemd_user: bool,
    /// The rdma controller.
    pub rdma: bool,
}

/// System call filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompFeatures {
    /// Whether there are filters.
    pub enabled: bool,
    /// `SCMP_ACT_…`, sorted.
    pub actions: Vec<&'static str>,
    /// `SCMP_CMP_…`, sorted.
    pub operators: Vec<&'static str>,
    /// `SCMP_ARCH_…`, sorted.
    pub archs: Vec<&'static str>,
    /// `SECCOMP_FILTER_FLAG_…` that are understood.
    pub known_flags: Vec<&'static str>,
    /// Those that this kernel takes.
    pub supported_flags: Vec<&'static str>,
}

/// spec: features-linux.md#intelrdt
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IntelRdtFeatures {
    /// `linux.intelRdt`.
    pub enabled: bool,
    /// `linux.intelRdt.schemata`.
    pub schemata: bool,
    /// `linux.intelRdt.enableMonitoring`.
    pub monitoring: bool,
}

/// spec: features-linux.md#memorypolicy
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPolicyFeatures {
    /// `MPOL_…`, sorted.
    pub modes: Vec<&'static str>,
    /// `MPOL_F_…`, sorted.
    pub flags: Vec<&'static str>,
}

/// spec: features-linux.md#mount-extensions
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MountExtensions {
    /// Id-mapped mounts. CRI-O and containerd give a pod a user namespace only if this is there.
    pub idmap: Enabled,
}
