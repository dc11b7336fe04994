//! What a container has from outside, which CRIU must be told of: bind mounts and joined namespaces.

use super::message::ExternalMount;
use crate::resolve;
use offshoot_plan::{Bind, Kind, Mount, Plan, Step, What};
use offshoot_sys as sys;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

/// Where the masked files come from, which is also the name for all of them in an image, as runc's.
const NULL: &str = "/dev/null";

/// The bind mounts of a plan: mount point as configured, and source on the host.
fn binds(plan: &Plan) -> Vec<(PathBuf, PathBuf)> {
    let mut list = Vec::new();
    for mount in &plan.mounts {
        match &mount.what {
            What::Bind(bind) => list.push((mount.destination.clone(), bind.source.clone())),
            // Under v1 each hierarchy is a bind; a cgroup2 file system is mounted, and CRIU knows how.
            What::Cgroup { .. } => list.extend(cgroup_binds(mount, plan)),
            What::New(_) | What::Remount => {}
        }
    }
    // Nodes are binds in a user namespace, where they cannot be made; what is no mount CRIU passes over.
    list.extend(plan.devices.iter().map(|device| (device.path.clone(), device.path.clone())));
    list
}

fn cgroup_binds<'a>(mount: &'a Mount, plan: &'a Plan) -> impl Iterator<Item = (PathBuf, PathBuf)> + 'a {
    plan.cgroup.hierarchies.iter().filter(|hierarchy| !hierarchy.is_unified()).map(|hierarchy| {
        let name = hierarchy.controllers.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name);
        (mount.destination.join(name), hierarchy.mount_point.join(&hierarchy.path))
    })
}

/// The paths that the plan hides.
fn masked(plan: &Plan) -> &[PathBuf] {
    let found = plan.steps.iter().find_map(|step| if let Step::MaskedPaths(paths) = step { Some(paths) } else { None });
    found.map_or(&[], Vec::as_slice)
}

/// For a dump of the container whose root is `root`: each mount point, and the name under which it is known then.
pub(super) fn dump_mounts(plan: &Plan, root: BorrowedFd<'_>) -> Vec<ExternalMount> {
    let named = |point: PathBuf| ExternalMount { key: point.clone(), value: point };
    let mut list: Vec<_> = binds(plan).into_iter().map(|(point, _)| named(resolved(root, &point))).collect();
    for path in masked(plan) {
        let file = resolve::open(root, path, sys::libc::O_PATH).and_then(sys::path::fstat);
        // Directories are hidden by a tmpfs of the container's own.
        if file.is_ok_and(|stat| stat.st_mode & sys::libc::S_IFMT != sys::libc::S_IFDIR) {
            list.push(ExternalMount { key: path.clone(), value: NULL.into() });
        }
    }
    list
}

/// For a restore into the root filesystem `root`: each name, and the source on the host.
pub(super) fn restore_mounts(plan: &Plan, root: BorrowedFd<'_>) -> Vec<ExternalMount> {
    let mut list: Vec<_> = binds(plan)
        .into_iter()
        // CRIU looks for the mount that the source is on by the letters of its path.
        .map(|(point, source)| ExternalMount {
            key: resolved(root, &point),
            value: source.canonicalize().unwrap_or(source),
        })
        .collect();
    if !masked(plan).is_empty() {
        list.push(ExternalMount { key: NULL.into(), value: NULL.into() });
    }
    list
}

/// `path` below `root` without symlinks, as the kernel names the mount point; a part that does not exist stays as it is.
fn resolved(root: BorrowedFd<'_>, path: &Path) -> PathBuf {
    let place = |path: &Path| {
        let fd = resolve::open(root, path, sys::libc::O_PATH).ok()?;
        std::fs::read_link(sys::path::fd_path(&fd)).ok()
    };
    let Some(top) = place(Path::new("/")) else { return path.to_owned() };
    for existing in path.ancestors() {
        if let Some(found) = place(existing)
            && let Ok(below) = found.strip_prefix(&top)
        {
            let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
            return Path::new("/").join(below).join(missing).components().collect();
        }
    }
    path.to_owned()
}

/// A namespace's name in CRIU's options, and the key by which an image refers to one from outside.
pub(super) fn namespace_key(kind: Kind) -> String {
    let mut name = kind.file().to_owned();
    name[..1].make_ascii_uppercase();
    format!("extRoot{name}NS")
}

/// The namespaces that CRIU takes from outside as they are. For others it has only a way to join them at restore.
pub(super) fn stays_outside(kind: Kind) -> bool {
    matches!(kind, Kind::Network | Kind::Pid)
}

/// Whether the directory `path` comes back with the content of a tmpfs.
fn is_on_tmpfs(path: &Path, mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        matches!(&mount.what, What::New(new) if new.kind == "tmpfs")
            && path != mount.destination
            && path.starts_with(&mount.destination)
    })
}

/// Makes mount points as the creation of a container does, below `root`, which must be a mount that may be thrown away:
/// sources are mounted on the way, for mount points inside them.
pub(super) fn make_mount_points(plan: &Plan, root: BorrowedFd<'_>) -> crate::Result<()> {
    for mount in &plan.mounts {
        let is_root = mount.destination.components().all(|part| part == Component::RootDir);
        if is_root || is_on_tmpfs(&mount.destination, &plan.mounts) {
            continue;
        }
        match &mount.what {
            What::Bind(bind) => bind_for_now(root, mount, bind)?,
            What::New(_) => drop(resolve::directory(root, &mount.destination)?),
            // v1: on a tmpfs; v2: below sysfs.
            What::Cgroup { .. } | What::Remount => {}
        }
    }
    Ok(())
}

fn bind_for_now(root: BorrowedFd<'_>, mount: &Mount, bind: &Bind) -> crate::Result<()> {
    let recursive = if bind.recursive { sys::mount::AT_RECURSIVE } else { 0 };
    let tree = sys::mount::open_tree(None, &bind.source, sys::mount::OPEN_TREE_CLONE | recursive)?;
    let is_dir = sys::path::fstat(&tree)?.st_mode & sys::libc::S_IFMT == sys::libc::S_IFDIR;
    let target =
        if is_dir { resolve::directory(root, &mount.destination)? } else { resolve::file(root, &mount.destination)? };
    Ok(sys::mount::move_mount(&tree, &target)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn keys_are_runcs() {
        assert_eq!(namespace_key(Kind::Network), "extRootNetNS");
        assert_eq!(namespace_key(Kind::Pid), "extRootPidNS");
    }

    #[test]
    fn symlinks_are_resolved_below_the_root() {
        let dir = std::env::temp_dir().join(format!("offshoot-criu-external-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("real/conf")).unwrap();
        std::os::unix::fs::symlink("/real/conf", dir.join("conf")).unwrap();
        let root = std::fs::File::open(&dir).unwrap();
        let of = |path: &str| resolved(root.as_fd(), Path::new(path));
        assert_eq!(of("/conf"), Path::new("/real/conf"));
        assert_eq!(of("/conf/new/er"), Path::new("/real/conf/new/er"));
        assert_eq!(of("/none"), Path::new("/none"));
        assert_eq!(of("/"), Path::new("/"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
