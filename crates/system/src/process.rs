//! pid 1: root of its own user namespace, with all rights in it.

use crate::{Facts, Init};
use offshoot_plan::capability_name;
use offshoot_spec::Process;

/// Rights that the kernel asks for in the first user namespace only. Without them, units that load modules or touch
/// hardware are skipped by their conditions, where they would fail.
const NEVER: [u32; 2] = [16, 17]; // CAP_SYS_MODULE, CAP_SYS_RAWIO

/// AppArmor profiles that engines give to every container, and that forbid it to mount.
const DEFAULT_PROFILES: [&str; 4] =
    ["docker-default", "cri-containerd.apparmor.d", "crio-default", "containers-default-"];

pub(crate) fn rewrite(process: &mut Process, facts: &Facts) {
    let all: Vec<String> = (0..64)
        .filter(|number| facts.capabilities & 1 << number != 0 && !NEVER.contains(number))
        .map(capability_name)
        .collect();
    let sets = process.capabilities.get_or_insert_default();
    if process.user.uid == 0 {
        (sets.effective, sets.permitted) = (all.clone(), all.clone());
    }
    sets.bounding = all;
    sets.inheritable.clear();
    sets.ambient.clear();
    process.no_new_privileges = false;
    if DEFAULT_PROFILES.iter().any(|name| process.apparmor_profile.starts_with(name)) {
        process.apparmor_profile.clear();
    }
    if !process.env.iter().any(|entry| entry.starts_with("container=")) {
        // OpenRC looks for names that it knows, and takes others for a machine with clocks and disks to check.
        let value = if facts.init == Some(Init::OpenRc) { "lxc" } else { "oci" };
        process.env.push(format!("container={value}"));
    }
}
