//! Mounts that the container's root cannot undo.
//!
//! They are made in a mount namespace that belongs to the host's user namespace, by the launcher, which enters the root
//! there; the container's user and mount namespaces are made after that. What the second mount namespace inherits of the
//! first is locked (man 7 mount_namespaces): it cannot be unmounted, moved or made writable, in no namespace below either.
//! The file systems that belong to the container's namespaces (procfs, cgroup2, devpts, …) are mounted inside as always.
//!
//! Hooks that work on the container's root while the host's is still there come between: then the launcher does not enter
//! the root, and init, in the container's namespaces, takes a copy of it that stands free, runs the hooks and enters that.
//! All below it is as locked as ever; what a hook mounts is not, for it is the container's root who has mounted it.

use crate::mounts::is_dev;
use crate::step::Step;
use crate::{HookKind, IdMap, Kind, Mount, Plan, Request, What, order};
use std::path::Path;

/// Whether the mounts of this container can be made so.
pub fn possible(plan: &Plan, request: &Request) -> bool {
    let owned = plan.entry.launcher.as_ref().is_some_and(|steps| matches!(steps.last(), Some(Step::Owner { .. })));
    let dev = plan.mounts.iter().any(|mount| is_dev(&mount.destination) && is_tmpfs(mount));
    // The host's files are out of sight when the container's own file systems are there.
    let late = |mount: &Mount| match &mount.what {
        What::Bind(bind) => bind.opened.is_none(),
        What::Remount => true,
        What::New(_) | What::Cgroup { .. } => false,
    };
    let elsewhere = plan.devices.iter().any(|device| !device.path.starts_with("/dev"));
    owned
        && plan.namespaces.makes(Kind::Mount)
        && dev
        && !elsewhere
        && !request.no_pivot
        && !plan.mounts.iter().any(late)
}

/// Gives the launcher its part. `has_void`: see [`Request`].
pub fn apply(plan: &mut Plan, has_void: bool) {
    plan.locks_mounts = true;
    let late = enters_late(plan);
    if late {
        // Hooks look for it there, and what covers the host's root could not be left behind: it is locked, too.
        plan.root_at = plan.rootfs.clone();
    }
    if let Some(map) = &plan.id_map {
        // The launcher makes the nodes, and sees ids as the host does.
        for device in &mut plan.devices {
            let outside = |ranges, id| IdMap::outside(ranges, id).unwrap_or(u32::MAX);
            device.owner = (outside(&map.uids, device.owner.0), outside(&map.gids, device.owner.1));
        }
    }
    // With the root over that of an empty mount namespace, nothing of the host's has to be left behind.
    plan.enters_void = has_void && !late && plan.root_at == Path::new("/");
    let mut steps = match plan.enters_void {
        true => vec![Step::EnterVoid, Step::BindRoot],
        false => std::iter::once(Step::Unshare(Kind::Mount.flag())).chain(order::root(plan)).collect(),
    };
    // `/dev` first: a volume may go into it.
    let (dev, volumes): (Vec<_>, Vec<_>) = outer(plan).partition(|mount| is_dev(&mount.destination));
    steps.extend(dev.into_iter().map(Step::Mount));
    steps.extend(plan.devices.iter().cloned().map(Step::Device));
    steps.push(Step::DeviceLinks);
    steps.extend(volumes.into_iter().map(Step::Mount));
    let enter = match () {
        () if late => Step::StandInRoot,
        () if plan.enters_void => Step::Chroot,
        () => Step::PivotRoot,
    };
    steps.extend([Step::Placeholders, enter]);
    plan.entry.launcher.get_or_insert_default().extend(steps);
}

/// Whether init enters the root, after hooks that find the host's beside it. spec: config.md#posix-platform-hooks
pub fn enters_late(plan: &Plan) -> bool {
    let kinds = [HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer];
    plan.locks_mounts && kinds.into_iter().any(|kind| !plan.hooks_of(kind).is_empty())
}

/// What the launcher mounts.
fn outer(plan: &Plan) -> impl Iterator<Item = Mount> + '_ {
    plan.mounts.iter().filter(|mount| is_outer(plan, mount)).cloned()
}

/// What init mounts.
pub fn inner(plan: &Plan) -> impl Iterator<Item = Mount> + '_ {
    plan.mounts.iter().filter(|mount| !is_outer(plan, mount)).cloned()
}

/// All volumes but those that go into a file system of the container's own, and the temporary file systems that they go
/// into; and `/dev`, whose nodes only the host can make.
fn is_outer(plan: &Plan, mount: &Mount) -> bool {
    let below = |other: &&Mount| *other != mount && mount.destination.starts_with(&other.destination);
    let candidate = is_volume(mount) || is_home(plan, mount);
    candidate && plan.mounts.iter().filter(below).all(|other| is_volume(other) || is_home(plan, other))
}

fn is_volume(mount: &Mount) -> bool {
    matches!(mount.what, What::Bind(_))
}

fn is_home(plan: &Plan, mount: &Mount) -> bool {
    let within = |other: &Mount| is_volume(other) && other.destination.starts_with(&mount.destination);
    is_tmpfs(mount) && (is_dev(&mount.destination) || plan.mounts.iter().any(within))
}

fn is_tmpfs(mount: &Mount) -> bool {
    matches!(&mount.what, What::New(new) if new.kind == "tmpfs")
}
