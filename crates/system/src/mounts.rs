//! The file systems of the kernel and the temporary ones that an init wants to find; then the caller's.

use offshoot_plan::clean;
use offshoot_spec::Mount;
use std::path::{Path, PathBuf};

/// What is there in any case, in this order: destination, type, source, options. The caller's own takes its place.
const BASE: [(&str, &str, &str, &[&str]); 8] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    // Read-only, which tells udev and others that the devices are not theirs.
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    // As systemd mounts it where nobody did.
    ("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "strictatime", "mode=755", "size=20%", "nr_inodes=800k"]),
    ("/run/lock", "tmpfs", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=5242880"]),
];

/// Where a system with a read-only root still has to write.
const SCRATCH: [(&str, &str, &str, &[&str]); 2] = [
    ("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ("/var/log/journal", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "mode=755"]),
];

/// The container's own cgroups and nothing else, in the form that all versions of systemd since 232 can manage; on a host
/// with v1 hierarchies as well, where it has no controllers.
const CGROUP: (&str, &str, &str, &[&str]) =
    ("/sys/fs/cgroup", "cgroup2", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]);

pub(crate) fn rewrite(theirs: Vec<Mount>, read_only_root: bool) -> Vec<Mount> {
    let mut theirs: Vec<(PathBuf, Mount)> =
        theirs.into_iter().map(|mount| (clean(&mount.destination), mount)).collect();
    theirs.retain(|(at, _)| !at.starts_with(CGROUP.0));
    let mut all = Vec::new();
    for (at, kind, source, options) in BASE {
        // In this order, whatever the caller's is: `/dev` would cover `/dev/shm`, and a volume goes into `/run`.
        let given: Vec<usize> = (0..theirs.len()).filter(|i| theirs[*i].0 == Path::new(at)).collect();
        if given.is_empty() {
            all.push(mount(at, kind, source, options));
        }
        all.extend(given.into_iter().rev().map(|i| theirs.remove(i).1).collect::<Vec<_>>().into_iter().rev());
        if at == "/sys" {
            let (at, kind, source, options) = CGROUP;
            all.push(mount(at, kind, source, options));
        }
    }
    if read_only_root {
        let wanted = SCRATCH.iter().filter(|(at, ..)| !theirs.iter().any(|(other, _)| other == Path::new(at)));
        all.extend(wanted.map(|(at, kind, source, options)| mount(at, kind, source, options)));
    }
    all.extend(theirs.into_iter().map(|(_, mount)| mount));
    all
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: options.iter().map(ToString::to_string).collect(),
        ..Mount::default()
    }
}
