//! One mount of `mounts[]`: its destination looked up inside the root, its source by descriptor, its attributes set
//! before anyone can see it.

use crate::error::{Context, Error, Result};
use crate::protocol::Report;
use crate::resolve;
use crate::stage::Stage;
use crate::stage_identity::PROC_MAGIC;
use crate::tree::{clone_mount, set_attributes, set_propagation};
use offshoot_plan::attr::{self, Attributes};
use offshoot_plan::{Bind, Kind, Mount, New, What};
use offshoot_sys::mount::{self, AT_EMPTY_PATH, AT_RECURSIVE, FsContext, OPEN_TREE_CLONE, open_tree};
use offshoot_sys::{Errno, libc, path};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is in force on a mount and may be set for it.
const SETTABLE: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;

/// What the kernel locks on mounts that a user namespace inherits.
const LOCKED: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::ATIME | attr::NODIRATIME;

/// Files of procfs that callers virtualise (lxcfs) or need; all else below `/proc` stays the kernel's.
const MOUNTABLE_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

impl Stage<'_> {
    pub fn mount(&mut self, wanted: &Mount) -> Result<()> {
        let source = match &wanted.what {
            What::Bind(bind) => bind.source.to_string_lossy().into_owned(),
            What::New(new) if !new.source.is_empty() => new.source.clone(),
            What::New(new) => new.kind.clone(),
            What::Cgroup { .. } => "cgroup".into(),
            What::Remount => String::new(),
        };
        let tree = match &wanted.what {
            What::Bind(bind) => self.bind(wanted, bind),
            What::New(new) => self.new_mount(wanted, new),
            What::Cgroup { writable } => self.cgroup_mount(wanted, *writable),
            What::Remount => self.remount(wanted),
        };
        tree.and_then(|tree| after(wanted, &tree)).map_err(|cause| {
            Error::new(format!("error mounting {source:?} to rootfs at {:?}: {cause}", wanted.destination))
        })
    }

    fn bind(&mut self, wanted: &Mount, bind: &Bind) -> Result<OwnedFd> {
        let tree = self.bind_source(wanted, bind)?;
        let plan = self.plan()?;
        if plan.mounts_on_host() {
            // Elsewhere all mounts are made slaves at the start; here they are the host's.
            set_propagation(&tree, libc::MS_SLAVE | libc::MS_REC)?;
        }
        // Also where the host's rights are still there: what the source forbids is forbidden to the container.
        apply_flags(&tree, wanted.attributes, self.in_userns || plan.locks_mounts)?;
        let stat = path::fstat(&tree)?;
        let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let root = self.root()?;
        let target = if is_dir {
            resolve::directory(root, &wanted.destination)?
        } else {
            resolve::file(root, &wanted.destination)?
        };
        let target_is_dir = path::fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_dir != target_is_dir {
            return Err(Error::new("one of source and destination is a directory, the other is not: not a directory"));
        }
        let is_procfs = wanted.destination == Path::new("/proc")
            && mount::fstatfs_magic(&tree)? == PROC_MAGIC
            && mount::statx(Some(tree.as_fd()), "", libc::AT_EMPTY_PATH)?.ino == 1;
        check_proc(wanted, &target, is_procfs)?;
        mount::move_mount(&tree, &target)?;
        Ok(tree)
    }

    fn bind_source(&mut self, wanted: &Mount, bind: &Bind) -> Result<OwnedFd> {
        if let Some(index) = bind.opened {
            // Each is used once; the number keeps the others in their places.
            return clone_or_take(&self.opened.sources, index);
        }
        if bind.idmap.is_some() {
            return self.host.ask_fd(&Report::Source(wanted.index as u32));
        }
        let flags = OPEN_TREE_CLONE | if bind.recursive { AT_RECURSIVE } else { 0 };
        match open_tree(None, &bind.source, flags) {
            Err(error) if error.errno() == Errno::EACCES && self.in_userns && !self.job.unprivileged => {
                self.host.ask_fd(&Report::Source(wanted.index as u32))
            }
            result => result.map_err(Into::into),
        }
    }

    fn new_mount(&mut self, wanted: &Mount, new: &New) -> Result<OwnedFd> {
        let kernel_tree = matches!(new.kind.as_str(), "proc" | "sysfs");
        let root = self.root()?;
        let found = if kernel_tree {
            // CVE-2019-19921 and kin: a link here would have the labels and sysctls written somewhere else.
            match resolve::open_ordinary(root, &wanted.destination, libc::O_PATH) {
                Err(error) if error.errno() == Errno::ENOENT => None,
                Err(error) if error.errno() == Errno::ELOOP => return Err(not_ordinary(wanted)),
                Ok(fd) if path::fstat(&fd)?.st_mode & libc::S_IFMT != libc::S_IFDIR => {
                    return Err(not_ordinary(wanted));
                }
                result => Some(result?),
            }
        } else {
            resolve::open(root, &wanted.destination, libc::O_PATH | libc::O_DIRECTORY).ok()
        };
        let existed = found.is_some();
        let target = match found {
            Some(fd) => fd,
            None => resolve::make(root, &wanted.destination)?,
        };
        if kernel_tree && !existed {
            resolve::open_ordinary(root, &wanted.destination, libc::O_PATH).map_err(|_| not_ordinary(wanted))?;
        }
        check_proc(wanted, &target, new.kind == "proc")?;
        let mode = (new.kind == "tmpfs" && existed).then(|| path::fstat(&target)).transpose()?;
        let tree = match make(new, wanted.attributes.set, mode.map(|stat| stat.st_mode & 0o7777)) {
            // A user namespace without a network namespace of its own may not mount sysfs: bind the host's.
            Err(error) if new.kind == "sysfs" && error.errno() == Errno::EPERM && self.in_userns => {
                let tree = open_tree(None, "/sys", OPEN_TREE_CLONE | AT_RECURSIVE)?;
                set_attributes(&tree, wanted.attributes.set | attr::RDONLY, 0, true)?;
                tree
            }
            result => result?,
        };
        if new.copy_up {
            crate::copy_up::copy(target.as_fd(), tree.as_fd()).context(|| "copy up what the directory holds".into())?;
        }
        mount::move_mount(&tree, &target)?;
        if new.kind == "proc" && Path::new("/proc") == wanted.destination {
            self.procfs = Some(tree.try_clone().map_err(|error| Error::new(error.to_string()))?);
        }
        if new.kind == "mqueue" {
            self.label_mqueue(&tree)?;
        }
        Ok(tree)
    }

    /// mqueue takes no context option; its root can be labelled.
    fn label_mqueue(&self, tree: &OwnedFd) -> Result<()> {
        match &self.plan()?.mount_label {
            label if label.is_empty() => Ok(()),
            label => path::setxattr(tree, "security.selinux", label.as_bytes(), 0).map_err(Into::into),
        }
    }

    fn remount(&mut self, wanted: &Mount) -> Result<OwnedFd> {
        let fd = resolve::open(self.root()?, &wanted.destination, libc::O_PATH)?;
        apply_flags(&fd, wanted.attributes, self.in_userns)?;
        Ok(fd)
    }

    /// cgroup2 on hosts with nothing else; otherwise a directory with one bind a hierarchy. Binding the container's
    /// directories shows the same as mounting in its cgroup namespace would, and spares a superblock walk over all
    /// cgroups of the host (6.6 ms with 2700 of them, Linux 6.18).
    fn cgroup_mount(&mut self, wanted: &Mount, writable: bool) -> Result<OwnedFd> {
        let target = resolve::directory(self.root()?, &wanted.destination)?;
        let plan = self.plan()?;
        let hierarchies: Vec<_> = plan.cgroup.hierarchies.clone();
        let own_namespace = plan.namespaces.has(Kind::Cgroup);
        if hierarchies.iter().all(offshoot_plan::cgroup::Hierarchy::is_unified) {
            let own = hierarchies.first().filter(|_| own_namespace).map(|h| h.mount_point.join(&h.path));
            let tree = self.cgroup2(wanted, own.as_deref())?;
            mount::move_mount(&tree, &target)?;
            return Ok(tree);
        }
        let tmpfs =
            New { kind: "tmpfs".into(), source: "cgroup".into(), data: vec!["mode=755".into()], copy_up: false };
        let fixed = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let tree = make(&tmpfs, fixed, None)?;
        mount::move_mount(&tree, &target)?;
        for (index, hierarchy) in hierarchies.iter().filter(|h| !h.is_unified()).enumerate() {
            let name = hierarchy.controllers.join(",");
            let name = name.strip_prefix("name=").unwrap_or(&name);
            let bind = match self.opened.cgroups.is_empty() {
                true => match open_tree(None, hierarchy.mount_point.join(&hierarchy.path), OPEN_TREE_CLONE) {
                    // A caller without rights could not make it: the container is in the caller's.
                    Err(error) if error.errno() == Errno::ENOENT && plan.unprivileged => {
                        let own = own_cgroup(&hierarchy.controllers).filter(|_| !own_namespace);
                        let Some(own) = own else { continue };
                        open_tree(None, hierarchy.mount_point.join(own), OPEN_TREE_CLONE)?
                    }
                    bind => bind?,
                },
                false => clone_or_take(&self.opened.cgroups, index)?,
            };
            let dir = resolve::make_one(tree.as_fd(), name.as_ref())?;
            set_attributes(&bind, fixed | if writable { 0 } else { attr::RDONLY }, 0, false)?;
            mount::move_mount(&bind, &dir)?;
            for link in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
                match path::symlinkat(name, Some(tree.as_fd()), link) {
                    Err(error) if error.errno() != Errno::EEXIST => return Err(error.into()),
                    _ => {}
                }
            }
        }
        if !writable {
            set_attributes(&tree, attr::RDONLY, 0, false)?;
        }
        Ok(tree)
    }

    fn cgroup2(&mut self, wanted: &Mount, own: Option<&Path>) -> Result<OwnedFd> {
        let cgroup2 = New { kind: "cgroup2".into(), source: "cgroup".into(), data: Vec::new(), copy_up: false };
        match make(&cgroup2, wanted.attributes.set, None) {
            Err(error) if matches!(error.errno(), Errno::EPERM | Errno::EBUSY) => {}
            result => return result.map_err(Into::into),
        }
        // A user namespace that shares the cgroup namespace may not mount it.
        let tree = match self.opened.cgroups.pop() {
            Some(tree) => Ok(tree),
            None => open_tree(None, own.unwrap_or(Path::new("/sys/fs/cgroup")), OPEN_TREE_CLONE | AT_RECURSIVE),
        };
        match tree {
            Ok(tree) => {
                set_attributes(&tree, wanted.attributes.set, 0, true)?;
                Ok(tree)
            }
            // CVE-2023-25809: better nothing than the host's, writable.
            Err(error) if error.errno() == Errno::ENOENT => self.empty_tmpfs(1),
            Err(error) => Err(error.into()),
        }
    }
}

/// This process's own cgroup in the v1 hierarchy of `controllers`, relative to its mount.
fn own_cgroup(controllers: &[String]) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut entries = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) = entries.find(|(names, _)| names.split(',').eq(controllers.iter().map(String::as_str)))?;
    Some(path.trim_start_matches('/').into())
}

fn clone_or_take(list: &[OwnedFd], index: usize) -> Result<OwnedFd> {
    let fd = list.get(index).ok_or_else(|| Error::new("the source was not opened"))?;
    fd.try_clone().map_err(|error| Error::new(error.to_string()))
}

fn not_ordinary(wanted: &Mount) -> Error {
    Error::new(format!("filesystem {:?} must be mounted on ordinary directory", wanted.destination))
}

/// Nothing stands over `/proc` but a procfs, and in it only over what is known to be harmless. CVE-2019-16884.
fn check_proc(wanted: &Mount, target: &OwnedFd, is_procfs: bool) -> Result<()> {
    let inside = mount::fstatfs_magic(target)? == PROC_MAGIC;
    let names_proc = wanted.destination.starts_with("/proc");
    let allowed = MOUNTABLE_IN_PROC.iter().any(|path| Path::new(path) == wanted.destination);
    match () {
        () if !inside && !names_proc => Ok(()),
        () if Path::new("/proc") == wanted.destination && is_procfs => Ok(()),
        () if allowed => Ok(()),
        () if Path::new("/proc") == wanted.destination => {
            Err(Error::new(format!("{:?} cannot be mounted because it is not of type proc", wanted.destination)))
        }
        () => Err(Error::new(format!("{:?} cannot be mounted because it is inside /proc", wanted.destination))),
    }
}

/// A new instance, not attached yet.
fn make(new: &New, attributes: u64, mode: Option<u32>) -> offshoot_sys::Result<OwnedFd> {
    let context = FsContext::open(&new.kind)?;
    if !new.source.is_empty() {
        context.string("source", &new.source)?;
    }
    let has_mode = new.data.iter().any(|word| word.starts_with("mode="));
    if let Some(mode) = mode.filter(|_| !has_mode) {
        context.string("mode", format!("{mode:o}"))?;
    }
    for word in &new.data {
        match word.split_once('=') {
            // A context with commas stands in quotes, which only mount(8) reads.
            Some((key, value)) => context.string(key, value.trim_matches('"'))?,
            // devpts took it as a word without meaning since 4.7.
            None if word == "newinstance" => {}
            None => context.flag(word)?,
        }
    }
    context.create()?;
    context.mount(attributes)
}

/// The second half of a bind mount with flags, as mount(8) and MS_REMOUNT do it: flags that are not named are cleared;
/// a kind of atime stays unless another is named. For a container with a user namespace the flags that the kernel
/// would lock for it stay (mount_namespaces(7)), and asking to clear one of them is an error.
fn apply_flags(tree: &OwnedFd, wanted: Attributes, in_userns: bool) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let names_atime = wanted.clear & attr::ATIME != 0 || wanted.set & attr::NODIRATIME != 0;
    let kept = if in_userns { in_force(tree)? & LOCKED } else { 0 };
    let atime = kept & (attr::ATIME | attr::NODIRATIME);
    let wanted_atime = wanted.set & (attr::ATIME | attr::NODIRATIME);
    if kept & wanted.clear & !attr::ATIME != 0 || in_userns && names_atime && atime != wanted_atime {
        return Err(Error::new(
            "a flag that the source mount has cannot be cleared in a user namespace: operation not permitted",
        ));
    }
    let set = wanted.set | kept;
    let mut clear = SETTABLE & !set;
    if names_atime {
        clear |= attr::ATIME | attr::NODIRATIME & !set;
    }
    let set = if names_atime { set } else { set & !(attr::ATIME | attr::NODIRATIME) };
    set_attributes(tree, set, clear, false).map_err(Into::into)
}

/// Attributes of a mount, from statfs(2).
fn in_force(tree: &OwnedFd) -> Result<u64> {
    let flags = mount::fstatfs(tree)?.flags;
    let table = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
        (libc::ST_NOATIME, attr::NOATIME),
        (libc::ST_NODIRATIME, attr::NODIRATIME),
    ];
    let named: u64 = table.iter().filter(|(st, _)| flags & st != 0).map(|(_, attribute)| attribute).sum();
    // strictatime is the absence of the other two.
    let strict = flags & (libc::ST_NOATIME | mount::ST_RELATIME) == 0;
    Ok(named | if strict { attr::STRICTATIME } else { 0 })
}

/// What is set on the mount when it is in its place.
fn after(wanted: &Mount, tree: &OwnedFd) -> Result<()> {
    if !wanted.recursive.is_empty() {
        let Attributes { set, clear } = wanted.recursive;
        set_attributes(tree, set, clear, true)?;
    }
    for flags in &wanted.propagation {
        set_propagation(tree, *flags)?;
    }
    Ok(())
}

/// Opens a source of a bind mount with the host's rights: a detached tree, ids shifted if asked, propagation as the
/// container's own copy of the host's mounts would have it.
pub(crate) fn open_source(bind: &Bind, userns: Option<&OwnedFd>, propagation: u64) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | if bind.recursive { AT_RECURSIVE } else { 0 };
    let tree = open_tree(None, &bind.source, flags).context(|| format!("open {}", bind.source.display()))?;
    set_propagation(&tree, propagation | if bind.recursive { libc::MS_REC } else { 0 })?;
    let Some(userns) = userns else { return Ok(tree) };
    let attr = mount::MountAttr { set: mount::MOUNT_ATTR_IDMAP, userns: Some(userns.as_fd()), ..Default::default() };
    let shift = |flags| mount::mount_setattr(&tree, "", AT_EMPTY_PATH | flags, &attr);
    let shifted = match shift(if bind.idmap_recursive { AT_RECURSIVE } else { 0 }) {
        // What is mounted below may be of another kind.
        Err(error) if cannot_shift(&error) && bind.idmap_or_plain && bind.idmap_recursive => shift(0),
        shifted => shifted,
    };
    match shifted {
        Err(error) if cannot_shift(&error) && bind.idmap_or_plain => {}
        shifted => shifted.context(|| format!("shift the ids of {}", bind.source.display()))?,
    }
    Ok(tree)
}

/// Whether a mount's file system knows no id mappings, or the mount has one already. man 2 mount_setattr
fn cannot_shift(error: &offshoot_sys::Error) -> bool {
    matches!(error.errno(), Errno::EINVAL | Errno::EPERM)
}

/// A cgroup directory as a detached tree.
pub(crate) fn open_cgroup(path: &Path) -> Result<OwnedFd> {
    let fd = path::open(path, crate::stage_enter::O_DIR, 0)?;
    clone_mount(&fd, false)
}
