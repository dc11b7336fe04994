//! Clones as ZFS clones, by its tools, beside the dataset on which the store lies.
//!
//! As with LVM, a volume's file in the clone's directory holds the dataset's name, from before it is made until after it is gone.
//! Datasets have legacy mount points, so that ZFS mounts them nowhere by itself.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use offshoot_sys::mount::{FsContext, MOUNT_ATTR_RDONLY, fstatfs};

use crate::dir::Dir;
use crate::driver::{Driver, DriverKind, Site, Volume, template};
use crate::error::{Error, Kind, Result};
use crate::idmap::IdMap;
use crate::name::Digest;
use crate::record;
use crate::store::Store;
use crate::tool::Tool;
use crate::union::Union;

pub(crate) struct Zfs;

const ZFS: Tool = Tool { name: "zfs", package: "zfsutils-linux" };
const MAGIC: u64 = 0x2fc1_2fc1;
/// The template's file, and the snapshot of it that clones are made of.
const TREE: &str = "tree";
const BASE: &str = "base";
/// No dataset's name is longer (ZFS_MAX_DATASET_NAME_LEN).
const NAME: u64 = 256;

impl Driver for Zfs {
    fn probe(&self, store: &Store) -> Result<()> {
        if fstatfs(&store.root)?.magic != MAGIC {
            return Err(Error::new(Kind::Unsupported, format!("{:?} is not on ZFS", store.path())));
        }
        ZFS.find().map(drop)
    }

    fn can_limit(&self) -> bool {
        true
    }

    fn prepare(&self, store: &Store, image: &record::Image, _: Option<u64>) -> Result<()> {
        template::prepare(store, image, DriverKind::Zfs, |dir| {
            let dataset = format!("{}/offshoot-{}", parent(store)?, image.id.short());
            dir.write_new(TREE, dataset.as_bytes())?;
            crate::crash::point();
            ZFS.run(&["create", "-o", "mountpoint=legacy", &dataset])?;
            let root = Dir::from_fd(mount(&dataset, 0)?, PathBuf::from(&dataset)).sub(".")?;
            template::flatten(store, image, &root)?;
            offshoot_sys::fsattr::syncfs(&root)?;
            drop(root);
            ZFS.run(&["snapshot", &format!("{dataset}@{BASE}")]).map(drop)
        })
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        let name = template::name(&site.record.image, DriverKind::Zfs);
        let image = dataset_of(&site.store.templates.sub(name)?, TREE)?;
        fork(site, &format!("{image}@{BASE}"), id)
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        Ok((self.branch(site, head, id)?, head.clone()))
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        let snapshot = format!("{}@{id}", dataset_of(site.dir, &frozen.id)?);
        ZFS.run(&["snapshot", &snapshot])?;
        fork(site, &snapshot, id)
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        let mount = mount(&dataset_of(site.dir, &head.id)?, 0)?;
        if let Some(idmap) = idmap {
            idmap.apply(&mount)?;
        }
        Ok(mount)
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        let dataset = dataset_of(site.dir, &volume.id)?;
        Ok(Union::new(vec![Dir::from_fd(mount(&dataset, MOUNT_ATTR_RDONLY)?, PathBuf::from(dataset))], 0))
    }

    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64> {
        let text = ZFS.run(&["get", "-Hp", "-o", "value", "used", &dataset_of(site.dir, &volume.id)?])?;
        text.trim().parse().map_err(|_| Error::new(Kind::System, format!("zfs printed {text:?}")))
    }

    fn delete_template(&self, _: &Digest, dir: &Dir) -> Result<()> {
        remove(dir, TREE)
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        remove(dir, id)
    }
}

/// The dataset on which the store lies.
fn parent(store: &Store) -> Result<String> {
    let path = store.path().display().to_string();
    Ok(ZFS.run(&["list", "-H", "-o", "name", &path])?.trim().to_owned())
}

/// The dataset that a file names.
fn dataset_of(dir: &Dir, file: &str) -> Result<String> {
    let bytes = dir.read(file, NAME)?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Corrupt, format!("{:?} names no dataset", dir.path().join(file))))
}

fn mount(dataset: &str, attributes: u64) -> Result<OwnedFd> {
    let context = FsContext::open("zfs")?;
    context.string("source", dataset)?;
    context.create()?;
    Ok(context.mount(attributes)?)
}

fn fork(site: &Site, snapshot: &str, id: &str) -> Result<Volume> {
    let dataset = format!("{}/offshoot-{}-{id}", parent(site.store)?, site.record.name);
    site.dir.write_new(id, dataset.as_bytes())?;
    crate::crash::point();
    let quota = format!("refquota={}", site.record.size.map_or("none".to_owned(), |size| size.to_string()));
    ZFS.run(&["clone", "-o", "mountpoint=legacy", "-o", &quota, snapshot, &dataset])?;
    Ok(Volume::new(id))
}

/// Destroys the dataset that a file names, and the file. What was cloned from its snapshots takes those over before.
fn remove(dir: &Dir, file: &str) -> Result<()> {
    if !dir.has(file)? {
        return Ok(());
    }
    let dataset = dataset_of(dir, file)?;
    let there = !dataset.is_empty() && ZFS.run(&["list", "-H", "-o", "name", &dataset]).is_ok();
    if there {
        let clones = ZFS.run(&["list", "-H", "-t", "snapshot", "-o", "clones", "-d", "1", &dataset])?;
        // The last line is the latest snapshot: promoting a clone of that takes all earlier ones along.
        if let Some(clone) = clones.lines().rev().find_map(first_clone) {
            ZFS.run(&["promote", clone])?;
        }
        ZFS.run(&["destroy", "-r", &dataset]).map_err(|error| match error.to_string().contains("busy") {
            true => Error::new(Kind::Busy, error.to_string()).with_hint("stop the container that has it mounted"),
            false => error,
        })?;
    }
    dir.remove_tree(file)
}

/// The first of the datasets cloned from a snapshot: a list with commas, or a dash.
fn first_clone(line: &str) -> Option<&str> {
    line.trim().split(',').next().filter(|clone| !matches!(*clone, "" | "-"))
}

#[cfg(test)]
mod tests {
    use super::first_clone;

    #[test]
    fn the_clones_of_a_snapshot_are_read() {
        assert_eq!(first_clone("tank/a,tank/b\n"), Some("tank/a"));
        assert_eq!(first_clone("-"), None);
        assert_eq!(first_clone(""), None);
    }
}
