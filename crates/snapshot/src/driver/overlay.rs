//! overlayfs over the image's layers: the default, as all clones of an image share its page cache.
//!
//! Both the layers and the clone's own directory are reached through one id-mapped copy of the store's mount, so files lie
//! on disk with the ids of the container: a clone can run under another range next time, or become a layer of a new image.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};
use offshoot_sys::mount::{FsContext, fstatfs};

use crate::archive::extract::in_initial_user_namespace;
use crate::dir::Dir;
use crate::driver::{Driver, Site, Volume, old_overlay, plain};
use crate::error::{Call, Error, Kind, Result};
use crate::idmap::IdMap;
use crate::store::{Store, place};
use crate::union::Union;

pub(crate) struct Overlay;

/// ext2-4, xfs, btrfs, tmpfs, f2fs: known to serve as upper layers (xattrs, whiteouts, file types in listings).
const GOOD: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010];

/// Redirects and metadata copies would make layers that only overlayfs can read; ours stay plain trees with whiteouts.
const OPTIONS: [(&str, &str); 4] =
    [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off"), ("xino", "off")];

impl Driver for Overlay {
    fn probe(&self, store: &Store) -> Result<()> {
        let magic = fstatfs(&store.root)?.magic;
        match GOOD.contains(&magic) {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Unsupported,
                format!(
                    "the file system of {:?} (type {magic:#x}) cannot hold an upper layer of overlayfs",
                    store.path()
                ),
            )),
        }
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        let layers = &site.record.layers;
        let root = place::tree(&layers[site.record.root]);
        // The mount's root directory is the upper layer's, so that has to look as the image's.
        let root = site.store.layers.open_at(root, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
        make_upper(site.dir, id, &offshoot_sys::path::fstat(&root)?)?;
        Ok(Volume::new(id))
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        // The head becomes a layer that nothing writes to any more, so nothing may have it mounted.
        ensure_unused(site, head)?;
        Ok((head.clone(), self.branch(site, head, id)?))
    }

    fn snapshot_mounted(&self, site: &Site, head: &Volume, id: &str) -> Result<Volume> {
        // What is mounted cannot become a lower layer, so this costs what the clone has changed, or only its names and inodes
        // where the file system shares blocks.
        let upper = site.dir.sub(&head.id)?;
        make_upper(site.dir, id, &upper.stat_self()?)?;
        crate::copy::copy_tree(&Union::of_layer(upper), &site.dir.sub(id)?)?;
        Ok(Volume { id: id.to_owned(), under: head.under.clone() })
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        make_upper(site.dir, id, &site.dir.sub(&frozen.id)?.stat_self()?)?;
        Ok(Volume { id: id.to_owned(), under: frozen.needs().map(str::to_owned).collect() })
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        let stack = Stack::new(site, head);
        // The kernel would let two containers write to one upper layer, each with a cache of its own of what is in it. A
        // temporary clone has one container only.
        if !stack.volatile && !take_fresh(site, head) {
            ensure_unused(site, head)?;
        }
        if stack.volatile {
            // A mark of the mount before: after a crash the kernel would refuse what may be half written. The container that
            // wrote it is gone.
            if let Some(work) = site.dir.sub_if_there(format!("{}/work", work(&head.id)))? {
                work.remove_tree("incompat")?;
            }
        }
        let base = base(site.store, idmap)?;
        match stack.mount(&base, idmap)? {
            Some(mount) => Ok(mount),
            None => old_overlay::mount(&stack, site.store, idmap),
        }
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        let mut layers: Vec<Dir> = Vec::new();
        for id in volume.needs() {
            layers.insert(0, site.dir.sub(id)?);
        }
        layers.extend(site.image_layers()?);
        Ok(Union::new(layers, 0))
    }

    fn changes(&self, site: &Site, volume: &Volume) -> Result<Option<Vec<Union>>> {
        volume.needs().map(|id| Ok(Union::of_layer(site.dir.sub(id)?))).collect::<Result<Vec<_>>>().map(Some)
    }

    fn usage(&self, site: &Site, _: &Volume) -> Result<u64> {
        crate::usage::of_tree(site.dir)
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        dir.remove_tree(work(id))?;
        dir.remove_tree(id)
    }
}

/// On the work directory of a volume that was never mounted. Of 512 fresh clones that start at once none has to be tried, which
/// costs a line of the kernel's log each, and a serial console takes 9 ms for that.
const FRESH: &str = "trusted.offshoot.fresh";

/// The first pause that is too long for waiting for an unmount: 1.3 seconds in all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes the mark of a volume that was never mounted, so that nobody can be using it; `false` where there is none, or where it
/// cannot be told. One that a power cut brings back is as true: nothing is mounted any more.
fn take_fresh(site: &Site, head: &Volume) -> bool {
    let work = site.dir.sub(work(&head.id)).ok();
    work.is_some_and(|work| offshoot_sys::fsattr::take(&work, OsStr::new(FRESH)).unwrap_or(false))
}

/// Fails where an overlay that has this volume as its upper layer is mounted anywhere.
///
/// The kernel unmounts what the last process of a container has left behind some time after that has ended; with a hundred
/// killed at once on a busy host that was seen to take a while.
fn ensure_unused(site: &Site, head: &Volume) -> Result<()> {
    let mut pause = Duration::from_millis(10);
    loop {
        match is_unused(site, head) {
            Err(error) if error.kind() == Kind::Busy && pause < PATIENCE => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            looked => return looked,
        }
    }
}

fn is_unused(site: &Site, head: &Volume) -> Result<()> {
    // The kernel looks whether the upper layer is in use before it looks at the work directory, and with index=on it refuses
    // one that is (fs/overlayfs/super.c). With the upper layer as work directory it goes no further, and changes nothing.
    let upper = site.dir.sub(&head.id)?;
    let context = FsContext::open("overlay")?;
    context.string("lowerdir", site.store.tmp.magic_path())?;
    context.string("upperdir", upper.magic_path())?;
    context.string("workdir", upper.magic_path())?;
    context.string("index", "on")?;
    match context.create() {
        Err(error) if error.errno() == Errno::EBUSY => Err(Error::new(Kind::Busy, "it is mounted")
            .with_hint("stop the container that it belongs to, or unmount it; then try again")),
        _ => Ok(()),
    }
}

/// Where overlayfs prepares what then moves into the upper layer.
fn work(id: &str) -> String {
    format!("{id}.work")
}

fn make_upper(dir: &Dir, id: &str, root: &FileStat) -> Result<()> {
    // In this order, as remains are known by the upper directory.
    dir.mkdir(id, root.st_mode & 0o7777)?;
    crate::crash::point();
    dir.mkdir(work(id), 0o700)?;
    // Not there without root's rights, and not needed.
    let _ = offshoot_sys::fsattr::set(dir.sub(work(id))?, OsStr::new(FRESH), b"");
    let upper = dir.sub(id)?;
    let call = |what: &str| format!("{what}({:?})", upper.path());
    let made = upper.stat_self()?;
    if (made.st_uid, made.st_gid) != (root.st_uid, root.st_gid) {
        let (uid, gid) = (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid));
        fchown(&upper, Some(uid), Some(gid)).call(|| call("fchown"))?;
    }
    // The process's umask may have taken bits away.
    if (made.st_mode ^ root.st_mode) & 0o7777 != 0 {
        fchmod(&upper, Mode::from_bits_truncate(root.st_mode & 0o7777)).call(|| call("fchmod"))?;
    }
    Ok(())
}

/// A mount of the store whose ids are mapped, or the store itself.
pub(crate) fn base(store: &Store, idmap: Option<&IdMap>) -> Result<Dir> {
    let Some(idmap) = idmap else { return store.root.try_clone() };
    let mount = plain::mount_tree(&store.root, Some(idmap))?;
    Ok(Dir::from_fd(mount, store.path().to_owned()))
}

/// The layers of one mount, as paths within the store.
pub(crate) struct Stack {
    /// The uppermost first.
    pub(crate) lower: Vec<PathBuf>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Whether the mounter is root in a user namespace only.
    rootless: bool,
    /// Whether it ends with its container, so that nothing of it need ever be written to disk.
    volatile: bool,
}

impl Stack {
    fn new(site: &Site, head: &Volume) -> Stack {
        let clone = Path::new(place::CLONES).join(&site.record.name);
        let snapshots = head.under.iter().rev().map(|id| clone.join(id));
        let layers = site.record.layers.iter().rev().map(|id| Path::new(place::LAYERS).join(place::tree(id)));
        Stack {
            lower: snapshots.chain(layers).collect(),
            upper: clone.join(&head.id),
            work: clone.join(work(&head.id)),
            rootless: !in_initial_user_namespace(),
            volatile: !site.record.keep,
        }
    }

    /// Mounts by descriptors; `None` where the kernel takes none (before Linux 6.13).
    fn mount(&self, base: &Dir, idmap: Option<&IdMap>) -> Result<Option<OwnedFd>> {
        let context = FsContext::open("overlay")?;
        let layer = |path: &Path| base.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0);
        for path in &self.lower {
            match context.fd("lowerdir+", layer(path)?) {
                Err(error) if matches!(error.errno(), Errno::EBADF | Errno::EINVAL) => return Ok(None),
                result => result?,
            }
        }
        context.fd("upperdir", layer(&self.upper)?)?;
        context.fd("workdir", layer(&self.work)?)?;
        for (key, value) in self.options() {
            match value {
                Some(value) => context.string(key, value)?,
                None => context.flag(key)?,
            }
        }
        match idmap {
            Some(idmap) => idmap.as_mapped_root(|| Ok(context.create()?))?,
            None => context.create()?,
        }
        let mount = context.mount(0)?;
        ensure_writable(&mount)?;
        Ok(Some(mount))
    }

    /// Mount options: keys, with values where they have one.
    pub(crate) fn options(&self) -> Vec<(&'static str, Option<&'static str>)> {
        let mut options: Vec<_> = match self.rootless {
            // A user namespace may not choose the others; with this one, redirects and metadata copies are off.
            true => vec![("userxattr", None), ("xino", Some("off"))],
            false => OPTIONS.iter().map(|(key, value)| (*key, Some(*value))).collect(),
        };
        if self.volatile {
            // Unmounting would write the upper layer to disk, just before it is deleted.
            options.push(("volatile", None));
        }
        options
    }
}

/// overlayfs falls back to a read-only mount where it cannot make its work directory, and says so in the kernel's log only.
pub(crate) fn ensure_writable(mount: &OwnedFd) -> Result<()> {
    const ST_RDONLY: u64 = 1;
    match fstatfs(mount)?.flags & ST_RDONLY {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Unsupported, "overlayfs came up read-only, as it could not make its work directory")
            .with_hint("see the kernel's log (dmesg); id-mapped layers need Linux 5.19")),
    }
}
