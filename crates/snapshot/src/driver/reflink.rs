//! A clone as a single file that holds an ext4: its blocks are shared with the template's file (FICLONE) until written.
//!
//! Snapshots of a mounted clone are as after a power cut: complete up to the last commit of its journal.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use offshoot_sys::fsattr::{ficlone, unshared_bytes};
use offshoot_sys::loopdev::LoopDevice;

use crate::dir::Dir;
use crate::driver::{Driver, DriverKind, Site, Volume, ext4, template};
use crate::error::{Call, Error, Kind, Result};
use crate::idmap::IdMap;
use crate::record;
use crate::store::Store;
use crate::union::Union;

pub(crate) struct Reflink;

impl Driver for Reflink {
    fn probe(&self, store: &Store) -> Result<()> {
        ext4::MKFS.find()?;
        let staging = store.staging()?;
        drop(staging.dir.write_new("a", b"x")?);
        let from = staging.dir.open_at("a", OFlag::O_RDONLY, 0)?;
        let to = staging.dir.write_new("b", b"")?;
        ficlone(&to, &from).map_err(|error| {
            let text = format!("the file system of {:?} shares no blocks ({error})", store.path());
            Error::new(Kind::Unsupported, text).with_hint("xfs and btrfs do")
        })
    }

    fn can_limit(&self) -> bool {
        true
    }

    fn prepare(&self, store: &Store, image: &record::Image, size: Option<u64>) -> Result<()> {
        let size = ext4::size_for(image, size)?;
        template::prepare(store, image, DriverKind::Reflink, |dir| {
            let name = file_of(size);
            make(store, image, dir, &name, size)
        })?;
        // A template of another size, beside the first.
        let name = template::name(&image.id, DriverKind::Reflink);
        let dir = store.templates.sub(&name)?;
        if dir.has(file_of(size))? {
            return Ok(());
        }
        let staging = store.staging()?;
        make(store, image, &staging.dir, "disk", size)?;
        staging.dir.rename("disk", &dir, file_of(size), 0)
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        let image = site.store.load_record(&site.record.image)?;
        let size = ext4::size_for(&image, site.record.size)?;
        let template = Path::new(&template::name(&image.id, DriverKind::Reflink)).join(file_of(size));
        let template = site.store.templates.open_at(template, OFlag::O_RDONLY, 0)?;
        clone_file(&template, site.dir, id)
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        Ok((self.branch(site, head, id)?, head.clone()))
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        clone_file(&site.dir.open_at(&frozen.id, OFlag::O_RDONLY, 0)?, site.dir, id)
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        let device = attach(&site.dir.open_at(&head.id, OFlag::O_RDWR, 0)?)?;
        ext4::mount(device.path(), idmap, false)
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        let device = attach(&site.dir.open_at(&volume.id, OFlag::O_RDWR, 0)?)?;
        let root = Dir::from_fd(ext4::view(device.path())?, PathBuf::from(&volume.id));
        Ok(Union::new(vec![root], 0))
    }

    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64> {
        Ok(unshared_bytes(site.dir.open_at(&volume.id, OFlag::O_RDONLY, 0)?)?)
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        dir.remove_tree(id)
    }
}

/// A template's file, by its size.
fn file_of(size: u64) -> String {
    format!("disk-{}M", size >> 20)
}

fn make(store: &Store, image: &record::Image, dir: &Dir, name: &str, size: u64) -> Result<()> {
    drop(dir.write_new(name, b"")?);
    let file = dir.open_at(name, OFlag::O_RDWR, 0)?;
    nix::unistd::ftruncate(&file, size.cast_signed()).call(|| format!("ftruncate({size})"))?;
    // By number rather than `self`, as another process is to find it.
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    ext4::make(store, image, &path, || {
        let device = attach(&file)?;
        ext4::mount(device.path(), None, false)
    })
}

/// The loop device of a file; the one that it has already, so that its file system is mounted once.
fn attach(file: &OwnedFd) -> Result<LoopDevice> {
    match LoopDevice::find(file)? {
        Some(device) => Ok(device),
        None => Ok(LoopDevice::attach(file, false)?),
    }
}

fn clone_file(from: &OwnedFd, dir: &Dir, id: &str) -> Result<Volume> {
    let to = dir.write_new(id, b"")?;
    ficlone(&to, from)?;
    Ok(Volume::new(id))
}
