//! `features`

use crate::host;
use offshoot_plan::{Kind, MEMPOLICY_FLAGS, MEMPOLICY_MODES, MOUNT_OPTIONS};
use offshoot_seccomp::{Arch, action_names, flag_names, operator_names, supported_flag_names};
use offshoot_spec::features::{
    CgroupFeatures, Enabled, Features, IntelRdtFeatures, LinuxFeatures, MemoryPolicyFeatures, MountExtensions,
    SeccompFeatures,
};

/// What this program can do, whatever the machine it runs on; only the system call filter's flags are the kernel's.
///
/// `version` and `commit` say which program: callers show them.
pub fn features(version: &str, commit: &str) -> Features {
    let on = Enabled { enabled: true };
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: offshoot_spec::OCI_VERSION,
        hooks: vec!["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mount_options: sorted(MOUNT_OPTIONS),
        linux: LinuxFeatures {
            namespaces: sorted(Kind::ALL.map(Kind::name)),
            capabilities: (0..=u32::from(host::LAST_CAP)).map(offshoot_plan::capability_name).collect(),
            cgroup: CgroupFeatures { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: SeccompFeatures {
                enabled: true,
                actions: action_names(),
                operators: operator_names(),
                archs: sorted(Arch::ALL.map(Arch::name)),
                known_flags: flag_names(),
                supported_flags: supported_flag_names(host::seccomp().flags),
            },
            apparmor: on,
            selinux: on,
            intel_rdt: IntelRdtFeatures { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicyFeatures {
                modes: sorted(MEMPOLICY_MODES.map(|(name, _)| name)),
                flags: sorted(MEMPOLICY_FLAGS.map(|(name, _)| name)),
            },
            mount_extensions: MountExtensions { idmap: on },
            net_devices: on,
        },
        annotations: [
            ("org.opencontainers.runc.version", version),
            ("org.opencontainers.runc.commit", commit),
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]
        .map(|(key, value)| (key, value.to_owned()))
        .into(),
        potentially_unsafe_config_annotations: vec![
            "bundle",
            "org.systemd.property.",
            "org.criu.config",
            crate::rootfs::ANNOTATION,
            offshoot_system::ANNOTATION,
        ],
    }
}

fn sorted<const N: usize>(names: [&'static str; N]) -> Vec<&'static str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
