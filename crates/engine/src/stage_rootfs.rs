//! The container's root: made a mount, filled, entered, closed.

use crate::error::{Context, Error, Result};
use crate::hollow::{self, Hollow};
use crate::resolve;
use crate::stage::Stage;
use crate::stage_enter::O_DIR;
use crate::tree::{clone_mount, set_attributes, set_propagation};
use offshoot_plan::{Device, Kind};
use offshoot_sys::mount::{self, AT_RECURSIVE, MOUNT_ATTR_RDONLY, OPEN_TREE_CLONE, open_tree};
use offshoot_sys::{Errno, libc, path, process};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

impl Stage<'_> {
    pub fn host_propagation(&mut self, flags: u64) -> Result<()> {
        let host_root = path::open("/", O_DIR, 0)?;
        set_propagation(&host_root, flags).context(|| "set the propagation of the host's mounts".into())?;
        // Else all are cut off already.
        if flags & libc::MS_SHARED != 0 || flags & libc::MS_REC == 0 {
            self.make_parent_private()?;
        }
        Ok(())
    }

    /// pivot_root(2) refuses a new root whose parent mount is shared, and what is mounted below it would reach the host.
    fn make_parent_private(&self) -> Result<()> {
        for dir in self.plan()?.root_at.ancestors() {
            let fd = path::open(dir, O_DIR, 0)?;
            if mount::statx(Some(fd.as_fd()), "", libc::AT_EMPTY_PATH)?.is_mount_root() {
                return set_propagation(&fd, libc::MS_PRIVATE).context(|| format!("make {} private", dir.display()));
            }
        }
        Ok(())
    }

    pub fn bind_root(&mut self) -> Result<()> {
        let rootfs = self.plan()?.rootfs.clone();
        let at = || format!("mount the root filesystem {}", rootfs.display());
        let given = self.opened.root.take();
        let was_given = given.is_some();
        let tree = match given {
            Some(tree) => tree,
            None => open_tree(None, &rootfs, OPEN_TREE_CLONE | AT_RECURSIVE).context(at)?,
        };
        let target = path::open(&self.plan()?.root_at, O_DIR, 0).context(at)?;
        mount::move_mount(&tree, &target).context(at)?;
        if was_given {
            // A copy of a mount of the host's that is shared would still be its peer.
            set_propagation(&tree, libc::MS_SLAVE | libc::MS_REC).context(at)?;
        }
        self.opened.root = Some(tree);
        self.hold_root()
    }

    pub fn hold_root(&mut self) -> Result<()> {
        // Files that follow get the modes they are given.
        process::umask(0);
        self.root = self.opened.root.take();
        Ok(())
    }

    /// Goes where there are no mounts, with a mount namespace of its own.
    pub fn enter_void(&mut self) -> Result<()> {
        let what = || "enter an empty mount namespace".to_owned();
        let void = self.opened.void.take().ok_or_else(|| Error::new("there is none")).context(what)?;
        self.kcore = Some(has_kcore());
        process::setns(&void, libc::CLONE_NEWNS).context(what)?;
        self.unshare(Kind::Mount.flag())
    }

    pub fn take_root(&mut self) -> Result<()> {
        self.root = Some(path::open("/", O_DIR, 0).context(|| "open the root".into())?);
        Ok(())
    }

    pub fn stand_in_root(&mut self) -> Result<()> {
        process::fchdir(self.root()?).context(|| "stand in the root".into())
    }

    /// The mounts below are locked in the copy as in the original; only its own root is not, which it needs to be entered.
    /// kernel: fs/namespace.c, copy_tree, pivot_root.
    pub fn free_root(&mut self) -> Result<()> {
        let what = || "take a copy of the root".to_owned();
        let locked = path::open(".", O_DIR, 0).context(what)?;
        let tree = clone_mount(&locked, true).context(what)?;
        mount::move_mount(&tree, &locked).context(what)?;
        self.root = Some(tree);
        Ok(())
    }

    /// kernel: fs/namespace.c, mnt_already_visible.
    pub fn placeholders(&mut self) -> Result<()> {
        let what = || "mount an empty procfs and sysfs".to_owned();
        // A network that was joined belongs to its maker's user namespace, whose root alone can mount its sysfs: now.
        let joined = self.plan()?.namespaces.joins(Kind::Network).then(|| hollow::make("sysfs"));
        let joined = joined.transpose().context(what)?;
        let given = std::mem::take(&mut self.opened.hollow);
        let mut mounts = if given.is_empty() { Hollow::mounts()? } else { given };
        if let (Some(joined), Some(sys)) = (joined, mounts.get_mut(1)) {
            *sys = joined;
        }
        for (place, tree) in hollow::PLACES.iter().zip(mounts) {
            let target = resolve::directory(self.root()?, Path::new(place)).context(what)?;
            mount::move_mount(&tree, &target).context(what)?;
        }
        Ok(())
    }

    pub fn device(&mut self, device: &Device) -> Result<()> {
        let what = || format!("make the device {}", device.path.display());
        // In a user namespace, made here or around the runtime: bind the host's node.
        if !self.in_userns && self.make_node(device).context(what)? {
            return Ok(());
        }
        let source = path::open(&device.path, libc::O_PATH | libc::O_NOFOLLOW, 0).context(what)?;
        verify_node(&source, device).context(what)?;
        let target = resolve::file(self.root()?, &device.path).context(what)?;
        mount::move_mount(clone_mount(&source, false)?, &target).context(what)
    }

    /// Makes a node, or makes sure that it is there; false where this process may make none.
    fn make_node(&mut self, device: &Device) -> Result<bool> {
        let dir = device.path.parent().unwrap_or(Path::new("/"));
        let name = Path::new(device.path.file_name().ok_or_else(|| Error::new("the path has no name"))?);
        // Most are in one directory.
        let (_, parent) = match self.device_dir.take_if(|(path, _)| path == dir) {
            Some(same) => self.device_dir.insert(same),
            None => {
                let parent = resolve::directory(self.root()?, dir)?;
                self.device_dir.insert((dir.to_owned(), parent))
            }
        };
        let number = libc::makedev(device.number.0, device.number.1);
        match path::mknodat(Some(parent.as_fd()), name, device.kind | device.mode, number) {
            Err(error) if error.errno() == Errno::EPERM => return Ok(false),
            Err(error) if error.errno() != Errno::EEXIST => return Err(error.into()),
            _ => {}
        }
        own_node(parent, name, device).map(|()| true)
    }

    pub fn device_links(&mut self) -> Result<()> {
        let dev = match self.device_dir.take() {
            Some((path, fd)) if path == Path::new("/dev") => fd,
            _ => resolve::directory(self.root()?, Path::new("/dev")).context(|| "open /dev of the container".into())?,
        };
        let mut links = vec![
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ];
        if self.kcore.unwrap_or_else(has_kcore) {
            links.push(("core", "/proc/kcore"));
        }
        // Whatever the image has there, only a devpts of the container's own may serve terminals.
        match path::unlinkat(Some(dev.as_fd()), "ptmx", 0) {
            Err(error) if !matches!(error.errno(), Errno::ENOENT | Errno::EROFS | Errno::EBUSY) => {
                return Err(error.into());
            }
            _ => links.push(("ptmx", "pts/ptmx")),
        }
        for (name, target) in links {
            match path::symlinkat(target, Some(dev.as_fd()), name) {
                Err(error) if error.errno() != Errno::EEXIST => {
                    return Err(error).context(|| format!("make the link /dev/{name}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn pivot_root(&mut self) -> Result<()> {
        let what = || "change the root by pivot_root".to_owned();
        let old = path::open("/", O_DIR, 0).context(what)?;
        process::fchdir(self.root()?).context(what)?;
        // Old and new root on one directory: no place for the old one is needed in the image (man 2 pivot_root).
        mount::pivot_root(".", ".").context(what)?;
        process::fchdir(&old).context(what)?;
        // What is unmounted here must not vanish from the host.
        set_propagation(&old, libc::MS_SLAVE | libc::MS_REC).context(what)?;
        mount::umount(".", libc::MNT_DETACH).context(what)?;
        process::chdir("/").context(what)
    }

    /// For a root that cannot be pivoted from (an initramfs): the new root is moved over the old one. Mounts of the
    /// host's procfs and sysfs stay reachable for the kernel's visibility check, so they are taken away first.
    pub fn move_root(&mut self) -> Result<()> {
        let what = || "change the root without pivot_root".to_owned();
        let rootfs = self.plan()?.rootfs.clone();
        for entry in crate::mountinfo::points(&["proc", "sysfs"]).context(what)? {
            if entry.starts_with(&rootfs) {
                continue;
            }
            let fd = match path::open(&entry, O_DIR, 0) {
                Ok(fd) => fd,
                // Covered by another mount, or gone.
                Err(_) => continue,
            };
            let _ = set_propagation(&fd, libc::MS_SLAVE | libc::MS_REC);
            if let Err(error) = mount::umount(&entry, libc::MNT_DETACH) {
                if !matches!(error.errno(), Errno::EINVAL | Errno::EPERM) {
                    return Err(error).context(what);
                }
                // Locked by an outer user namespace: cover it.
                let tmpfs = self.empty_tmpfs(1).context(what)?;
                mount::move_mount(&tmpfs, &fd).context(what)?;
            }
        }
        let root = self.root()?;
        process::fchdir(root).context(what)?;
        mount::mount_legacy(Some(Path::new(".")), "/", None, libc::MS_MOVE, None).context(what)?;
        process::chroot(".").context(what)?;
        process::chdir("/").context(what)
    }

    pub fn chroot(&mut self) -> Result<()> {
        let rootfs = &self.plan()?.rootfs;
        let what = || format!("change the root to {}", rootfs.display());
        match &self.root {
            Some(root) => process::fchdir(root).and_then(|()| process::chroot(".")).context(what)?,
            None => process::chroot(rootfs).context(what)?,
        }
        process::chdir("/").context(what)?;
        self.root = Some(path::open("/", O_DIR, 0).context(what)?);
        Ok(())
    }

    pub fn root_propagation(&mut self, flags: u64) -> Result<()> {
        set_propagation(self.root()?, flags).context(|| "set the propagation of /".into())
    }

    /// A standard stream on the host's `/dev/null` would keep the host's `/dev` in reach of the container.
    pub fn reopen_null(&mut self) -> Result<()> {
        let mut null = None;
        for stream in 0..3 {
            let Some((_, stat)) = crate::streams::borrow(stream) else { continue };
            if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
                continue;
            }
            if null.is_none() {
                null = match resolve::open(self.root()?, Path::new("/dev/null"), libc::O_RDWR) {
                    Ok(fd) => Some(fd),
                    // A container without /dev/null keeps the stream it has.
                    Err(_) => return Ok(()),
                };
            }
            if let Some(fd) = &null {
                is_null(fd.as_fd()).context(|| "open /dev/null of the container".into())?;
                self.replace_stream(fd, stream)?;
            }
        }
        Ok(())
    }

    pub fn console(&mut self, mount: bool, control: bool) -> Result<()> {
        let socket = self.opened.console.take().ok_or_else(|| Error::new("no console socket was given"))?;
        let root = path::open("/", O_DIR, 0)?;
        let size = self.job.process.console_size.as_ref().map(|size| (size.height, size.width));
        let peer = crate::console::attach(root.as_fd(), socket.as_fd(), size, self.job.process.uid, mount)?;
        match control {
            true => offshoot_sys::tty::set_controlling(&peer).context(|| "make the terminal".into()),
            false => Ok(()),
        }
    }

    pub fn readonly(&mut self, destination: &Path) -> Result<()> {
        let what = || format!("make {} read-only", destination.display());
        let fd = resolve::open(self.root()?, destination, libc::O_PATH).context(what)?;
        set_attributes(&fd, MOUNT_ATTR_RDONLY, 0, false).context(what)
    }

    pub fn root_readonly(&mut self) -> Result<()> {
        set_attributes(self.root()?, MOUNT_ATTR_RDONLY, 0, false)
            .context(|| "make the root filesystem read-only".into())
    }

    pub fn readonly_path(&mut self, path: &Path) -> Result<()> {
        let what = || format!("make {} read-only", path.display());
        let target = match resolve::open(self.root()?, path, libc::O_PATH) {
            Err(error) if is_absent(&error) => return Ok(()),
            result => result.context(what)?,
        };
        let tree = clone_mount(&target, true).context(what)?;
        set_attributes(&tree, MOUNT_ATTR_RDONLY, 0, true).context(what)?;
        mount::move_mount(&tree, &target).context(what)
    }

    /// Directories share one read-only tmpfs, files one `/dev/null`: a mount each, but no file system each.
    pub fn masked_paths(&mut self, paths: &[std::path::PathBuf]) -> Result<()> {
        let root = self.root()?;
        let mut empty: Option<OwnedFd> = None;
        let mut null: Option<OwnedFd> = None;
        for masked in paths {
            let what = || format!("mask {}", masked.display());
            let target = match resolve::open(root, masked, libc::O_PATH) {
                Err(error) if is_absent(&error) => continue,
                result => result.context(what)?,
            };
            if path::fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
                match &empty {
                    Some(tmpfs) => mount::move_mount(clone_mount(tmpfs, false)?, &target).context(what)?,
                    None => {
                        let tmpfs = self.empty_tmpfs(1).or_else(|_| self.empty_tmpfs(2)).context(what)?;
                        mount::move_mount(&tmpfs, &target).context(what)?;
                        empty = Some(tmpfs);
                    }
                }
            } else {
                if null.is_none() {
                    // CVE-2025-31133: the image's /dev/null may be anything; only 1:3 will do.
                    null = Some(open_null(root).context(what)?);
                }
                if let Some(null) = &null {
                    mount::move_mount(clone_mount(null, false)?, &target).context(what)?;
                }
            }
        }
        Ok(())
    }

    /// A read-only tmpfs that can hold nothing. Some kernels count the root directory, so it gets `inodes` inodes.
    pub fn empty_tmpfs(&self, inodes: u32) -> Result<OwnedFd> {
        let context = mount::FsContext::open("tmpfs")?;
        context.string("nr_blocks", "1")?;
        context.string("nr_inodes", inodes.to_string())?;
        context.string("source", "tmpfs")?;
        context.create()?;
        context.mount(MOUNT_ATTR_RDONLY).map_err(Into::into)
    }
}

fn has_kcore() -> bool {
    path::fstatat(None, "/proc/kcore", 0).is_ok()
}

fn is_absent(error: &offshoot_sys::Error) -> bool {
    matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR)
}

/// Opens the container's `/dev/null` and makes sure that it is one.
fn open_null(root: BorrowedFd) -> Result<OwnedFd> {
    let fd = resolve::open(root, Path::new("/dev/null"), libc::O_PATH)?;
    is_null(fd.as_fd())?;
    Ok(fd)
}

fn is_null(fd: BorrowedFd) -> Result<()> {
    let stat = path::fstat(fd)?;
    match stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3) {
        true => Ok(()),
        false => Err(Error::new("/dev/null is not the character device 1:3")),
    }
}

fn verify_node(fd: &OwnedFd, device: &Device) -> Result<path::Stat> {
    let stat = path::fstat(fd)?;
    let kind = stat.st_mode & libc::S_IFMT;
    let same_number = device.kind == libc::S_IFIFO || stat.st_rdev == libc::makedev(device.number.0, device.number.1);
    match kind == device.kind && same_number {
        true => Ok(stat),
        false => Err(Error::new("there is another file in its place")),
    }
}

/// Sets mode and owner of a node by descriptor, after looking what it is: in a shared `/dev` it may have been swapped.
fn own_node(parent: &OwnedFd, name: &Path, device: &Device) -> Result<()> {
    let rules = path::RESOLVE_BENEATH | path::RESOLVE_NO_SYMLINKS;
    let node = path::openat2(Some(parent.as_fd()), name, libc::O_PATH | libc::O_NOFOLLOW, 0, rules)?;
    let stat = verify_node(&node, device)?;
    if (stat.st_uid, stat.st_gid) != device.owner {
        path::fchownat(Some(node.as_fd()), "", device.owner.0, device.owner.1, libc::AT_EMPTY_PATH)?;
    }
    Ok(())
}
