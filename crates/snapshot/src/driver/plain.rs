//! A clone as a full copy, sharing blocks where the file system can: works everywhere, costs the most.

use std::os::fd::{AsFd, OwnedFd};

use offshoot_sys::mount::{AT_EMPTY_PATH, MountAttr, OPEN_TREE_CLONE, mount_setattr, open_tree};

use crate::copy::copy_tree;
use crate::dir::Dir;
use crate::driver::{Driver, Site, Volume};
use crate::error::Result;
use crate::idmap::IdMap;
use crate::store::Store;
use crate::union::Union;

pub(crate) struct Plain;

impl Driver for Plain {
    fn probe(&self, _: &Store) -> Result<()> {
        Ok(())
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        copy(&site.image()?, site.dir, id)
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        Ok((self.branch(site, head, id)?, head.clone()))
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        copy(&self.view(site, frozen)?, site.dir, id)
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        mount_tree(&site.dir.sub(&head.id)?, idmap)
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        Ok(Union::new(vec![site.dir.sub(&volume.id)?], 0))
    }

    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64> {
        crate::usage::of_tree(&site.dir.sub(&volume.id)?)
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        dir.remove_tree(id)
    }
}

fn copy(from: &Union, dir: &Dir, id: &str) -> Result<Volume> {
    dir.mkdir(id, 0o755)?;
    copy_tree(from, &dir.sub(id)?)?;
    Ok(Volume::new(id))
}

/// A detached mount of a directory, its ids mapped.
pub(crate) fn mount_tree(tree: &Dir, idmap: Option<&IdMap>) -> Result<OwnedFd> {
    let mount = open_tree(Some(tree.as_fd()), "", OPEN_TREE_CLONE | AT_EMPTY_PATH)?;
    // A copy of a shared mount, as systemd makes all of the host's, is its peer: what is mounted on it would appear on the
    // host, and it could not be a root (man 2 pivot_root).
    let private = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    mount_setattr(&mount, "", AT_EMPTY_PATH, &private)?;
    if let Some(idmap) = idmap {
        idmap.apply(&mount)?;
    }
    Ok(mount)
}
