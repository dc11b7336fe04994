//! Clones as btrfs snapshots: independent of their image once made, with inodes and so page cache of their own.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use offshoot_sys::btrfs;
use offshoot_sys::mount::fstatfs;

use crate::dir::{Dir, is_dir};
use crate::driver::{Driver, DriverKind, Site, Volume, plain, template};
use crate::error::{Error, Kind, Result};
use crate::idmap::IdMap;
use crate::name::Digest;
use crate::record;
use crate::store::Store;
use crate::union::Union;

pub(crate) struct Btrfs;

/// The template's subvolume.
const TREE: &str = "tree";

impl Driver for Btrfs {
    fn probe(&self, store: &Store) -> Result<()> {
        match fstatfs(&store.root)?.magic == btrfs::MAGIC {
            true => Ok(()),
            false => Err(Error::new(Kind::Unsupported, format!("{:?} is not on btrfs", store.path()))),
        }
    }

    fn can_limit(&self) -> bool {
        true
    }

    fn prepare(&self, store: &Store, image: &record::Image, _: Option<u64>) -> Result<()> {
        template::prepare(store, image, DriverKind::Btrfs, |dir| {
            btrfs::create_subvolume(dir, OsStr::new(TREE))?;
            // Blocks are shared with the layers, so this costs names and inodes only.
            template::flatten(store, image, &dir.sub(TREE)?)
        })
    }

    fn threads(&self) -> usize {
        // Each snapshot waits for its transaction; those that wait together share one.
        64
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        let name = template::name(&site.record.image, DriverKind::Btrfs);
        let image = site.store.templates.sub(Path::new(&name).join(TREE))?;
        btrfs::snapshot(site.dir, OsStr::new(id), &image)?;
        limit(site, id)?;
        Ok(Volume::new(id))
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        snapshot_with_nested(&site.dir.sub(&head.id)?, site.dir, id)?;
        Ok((Volume::new(id), head.clone()))
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        snapshot_with_nested(&site.dir.sub(&frozen.id)?, site.dir, id)?;
        limit(site, id)?;
        Ok(Volume::new(id))
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        plain::mount_tree(&site.dir.sub(&head.id)?, idmap)
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        Ok(Union::new(vec![site.dir.sub(&volume.id)?], 0))
    }

    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64> {
        let tree = site.dir.sub(&volume.id)?;
        match btrfs::exclusive_bytes(&tree) {
            Ok(Some(bytes)) => Ok(bytes),
            // Quotas are off, or the caller may not ask: count the files that differ.
            _ => crate::diff::changed_bytes(&site.image()?, &self.view(site, volume)?),
        }
    }

    fn delete_template(&self, _: &Digest, dir: &Dir) -> Result<()> {
        delete(dir, TREE)
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        delete(dir, id)
    }
}

fn limit(site: &Site, id: &str) -> Result<()> {
    let Some(size) = site.record.size else { return Ok(()) };
    match btrfs::limit(site.dir.sub(id)?, size) {
        Err(error) if matches!(error.errno(), Errno::ENOTCONN | Errno::EINVAL | Errno::ENOENT) => {
            Err(Error::from(error).with_hint(format!("switch quotas on: btrfs quota enable {:?}", site.store.path())))
        }
        result => Ok(result?),
    }
}

/// Deletes a subvolume with those that the container made in it (systemd does); nothing of that name is fine.
fn delete(dir: &Dir, name: &str) -> Result<()> {
    let once = |dir: &Dir, name: &OsStr| match btrfs::delete_subvolume(dir, name) {
        Err(error) if error.errno() == Errno::ENOENT => Ok(true),
        Err(error) if error.errno() == Errno::ENOTEMPTY => Ok(false),
        // The kernel's log tells which: "during send", "default subvolume".
        Err(error) if matches!(error.errno(), Errno::EBUSY | Errno::EPERM) => {
            let hint = "something is mounted in it, `btrfs send` is reading it, or `btrfs subvolume set-default` chose it; \
                        once that is over: offshoot image prune";
            Err(Error::new(Kind::Busy, error.to_string()).with_hint(hint))
        }
        result => result.map(|()| true).map_err(Error::from),
    };
    if once(dir, OsStr::new(name))? {
        return Ok(());
    }
    let top = dir.sub(name)?;
    for path in nested(&top)?.iter().rev() {
        let (parent, name) = split(&top, path)?;
        once(&parent, name)?;
    }
    drop(top);
    match once(dir, OsStr::new(name))? {
        true => Ok(()),
        false => Err(Error::new(Kind::Busy, format!("subvolumes keep appearing in {:?}", dir.path().join(name)))),
    }
}

/// A snapshot with snapshots of the subvolumes inside, in whose places it only has empty directories.
fn snapshot_with_nested(source: &Dir, dir: &Dir, name: &str) -> Result<()> {
    btrfs::snapshot(dir, OsStr::new(name), source)?;
    if !btrfs::has_children(source)? {
        return Ok(());
    }
    let top = dir.sub(name)?;
    for path in nested(source)? {
        let (parent, name) = split(&top, &path)?;
        parent.remove_tree(name)?;
        btrfs::snapshot(&parent, name, source.sub(&path)?)?;
    }
    Ok(())
}

/// The subvolumes below a directory, each before those inside it.
fn nested(top: &Dir) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut stack = vec![PathBuf::from(".")];
    while let Some(path) = stack.pop() {
        let dir = top.sub(&path)?;
        for name in dir.names()? {
            let stat = dir.stat(&name)?;
            if is_dir(&stat) {
                stack.push(path.join(&name));
                if stat.st_ino == btrfs::ROOT_INODE {
                    found.push(path.join(&name));
                }
            }
        }
    }
    // A path is shorter than those below it.
    found.sort_by_key(|path| path.as_os_str().len());
    Ok(found)
}

fn split<'a>(top: &Dir, path: &'a Path) -> Result<(Dir, &'a OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((top.sub(parent)?, path.file_name().unwrap_or_default()))
}
