//! Clones as thin snapshots of a logical volume with an ext4, by the tools of lvm2.
//!
//! A volume's file in the clone's directory holds the logical volume's name. It is written before the volume is made and removed
//! after it is, so whoever sweeps the remains of a killed process finds what to remove.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dir::{Dir, Lock};
use crate::driver::{Driver, DriverKind, Site, Volume, ext4, template};
use crate::error::{During, Error, Kind, Result};
use crate::idmap::IdMap;
use crate::name::{Digest, check_plain};
use crate::record;
use crate::store::{Store, place};
use crate::tool::Tool;
use crate::union::Union;

pub(crate) struct LvmThin;

const LVM: Tool = Tool { name: "lvm", package: "lvm2" };
/// The store's record of its pool.
const POOL: &str = "lvm.json";
/// No name of a volume group and a volume is longer.
const NAME: u64 = 300;

/// The thin pool that a store uses.
#[derive(Serialize, Deserialize)]
struct Pool {
    version: u32,
    group: String,
    pool: String,
    /// Tells the volumes of this store from those of others in the pool.
    tag: String,
}

impl Store {
    /// Lets the driver `lvm-thin` use the thin pool `GROUP/POOL`, which is made with `size` bytes where it is missing.
    pub fn use_thin_pool(&self, name: &str, size: Option<u64>) -> Result<()> {
        let set = || {
            let (group, pool) = name.split_once('/').ok_or_else(|| Error::invalid("a pool is named GROUP/POOL"))?;
            check_plain("volume group", group)?;
            check_plain("thin pool", pool)?;
            let _held = self.lock(Lock::Exclusive)?;
            match (lvm(&["lvs", "--noheadings", "-o", "lv_layout", name]), size) {
                (Ok(layout), _) if layout.contains("pool") => {}
                (Ok(_), _) => return Err(Error::invalid("it is no thin pool")),
                (Err(_), Some(size)) => {
                    lvm(&[
                        "lvcreate",
                        "-q",
                        "-y",
                        "--type",
                        "thin-pool",
                        "-L",
                        &format!("{size}b"),
                        "-n",
                        pool,
                        group,
                    ])?;
                    // A full pool fails what is written to it, rather than have it wait for a minute first.
                    lvm(&["lvchange", "-q", "--errorwhenfull", "y", name])?;
                }
                (Err(error), None) => return Err(error.with_hint("give a size to have it made")),
            }
            let seed = format!("{name} {:?} {:?}", self.path(), std::time::SystemTime::now());
            let tag = Digest::of(seed.as_bytes()).hex()[..6].to_owned();
            let pool = Pool { version: record::VERSION, group: group.to_owned(), pool: pool.to_owned(), tag };
            self.root.replace(POOL, &record::bytes(&pool)?)
        };
        set().during(|| format!("use thin pool {name:?}"))
    }
}

impl Driver for LvmThin {
    fn probe(&self, store: &Store) -> Result<()> {
        LVM.find()?;
        ext4::MKFS.find()?;
        pool(store).map(drop)
    }

    fn can_limit(&self) -> bool {
        true
    }

    fn prepare(&self, store: &Store, image: &record::Image, size: Option<u64>) -> Result<()> {
        let size = ext4::size_for(image, size)?;
        let pool = pool(store)?;
        let volume = format!("{}/offshoot.{}.{}.{}M", pool.group, pool.tag, image.id.short(), size >> 20);
        let make = |dir: &Dir, file: &str| {
            dir.write_new(file, volume.as_bytes())?;
            crate::crash::point();
            let (thin, size) = (format!("{}/{}", pool.group, pool.pool), format!("{size}b"));
            let name = volume.rsplit('/').next().unwrap_or_default();
            // Remains of a killed process, whose record is gone with it.
            let _ = lvm(&["lvremove", "-q", "-f", "-y", &volume]);
            lvm(&["lvcreate", "-q", "-y", "-V", &size, "-T", &thin, "-n", name])?;
            let made = ext4::make(store, image, &device(&volume), || ext4::mount(&device(&volume), None, false));
            made.map_err(|error| if is_full(&thin) { full(error.to_string()) } else { error })?;
            lvm(&["lvchange", "-q", "-an", &volume]).map(drop)
        };
        let file = file_of(size);
        template::prepare(store, image, DriverKind::LvmThin, |dir| make(dir, &file))?;
        let dir = store.templates.sub(template::name(&image.id, DriverKind::LvmThin))?;
        if !dir.has(&file)? {
            // Another size beside the first. Killed in the middle, it is found unfinished by its hidden name.
            let unfinished = format!(".{file}");
            dir.remove_tree(&unfinished)?;
            make(&dir, &unfinished)?;
            dir.rename(&unfinished, &dir, &file, 0)?;
        }
        Ok(())
    }

    fn create(&self, site: &Site, id: &str) -> Result<Volume> {
        let image = site.store.load_record(&site.record.image)?;
        let size = ext4::size_for(&image, site.record.size)?;
        let template = site.store.templates.sub(template::name(&image.id, DriverKind::LvmThin))?;
        fork(site, &volume_of(&template, &file_of(size))?, id)
    }

    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)> {
        // device-mapper freezes a mounted file system meanwhile, so the snapshot is clean.
        Ok((self.branch(site, head, id)?, head.clone()))
    }

    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume> {
        fork(site, &volume_of(site.dir, &frozen.id)?, id)
    }

    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        let volume = activate(site, head)?;
        // So that what a container deletes returns to the pool.
        ext4::mount(&device(&volume), idmap, true)
    }

    fn view(&self, site: &Site, volume: &Volume) -> Result<Union> {
        let volume = activate(site, volume)?;
        let root = Dir::from_fd(ext4::view(&device(&volume))?, PathBuf::from(volume));
        Ok(Union::new(vec![root], 0))
    }

    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64> {
        activate(site, volume)?;
        let volume = volume_of(site.dir, &volume.id)?;
        // What it maps, blocks shared with the image included: lvm2 tells no other figure.
        let text = lvm(&["lvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "lv_size,data_percent", &volume])?;
        let mut words = text.split_whitespace();
        let (size, percent) = (words.next().unwrap_or_default(), words.next().unwrap_or("0"));
        let number =
            |text: &str| text.parse::<f64>().map_err(|_| Error::new(Kind::System, format!("lvs printed {text:?}")));
        Ok((number(size)? * number(percent)? / 100.0) as u64)
    }

    fn release(&self, site: &Site, volume: &Volume) -> Result<()> {
        lvm(&["lvchange", "-q", "-an", &volume_of(site.dir, &volume.id)?]).map(drop)
    }

    fn delete_template(&self, _: &Digest, dir: &Dir) -> Result<()> {
        for name in dir.names()? {
            if name != place::TEMPLATE {
                remove(dir, &name.to_string_lossy())?;
            }
        }
        Ok(())
    }

    fn delete(&self, _: &str, dir: &Dir, id: &str) -> Result<()> {
        match dir.has(id)? {
            true => remove(dir, id),
            false => Ok(()),
        }
    }
}

fn lvm(args: &[&str]) -> Result<String> {
    LVM.run(args).map_err(|error| {
        let text = error.to_string();
        if text.contains("nsufficient free") || text.contains("reached threshold") || text.contains("out of data space")
        {
            return full(text);
        }
        if text.contains("in use") {
            return Error::new(Kind::Busy, text).with_hint("stop the container that has it mounted");
        }
        error
    })
}

fn full(text: String) -> Error {
    Error::new(Kind::NoSpace, text).with_hint("the thin pool is full; extend it: lvextend -L +10G GROUP/POOL")
}

/// Whether a pool has no space left for data.
fn is_full(pool: &str) -> bool {
    let percent = lvm(&["lvs", "--noheadings", "-o", "data_percent", pool]);
    percent.is_ok_and(|text| text.trim().parse::<f64>().is_ok_and(|percent| percent > 99.0))
}

fn pool(store: &Store) -> Result<Pool> {
    record::read(&store.root, POOL).map_err(|error| match error.kind() {
        Kind::NotFound => Error::new(Kind::Unsupported, "the store has no thin pool")
            .with_hint("name one: offshoot image pool GROUP/POOL [--size 50G]"),
        _ => error,
    })
}

fn device(volume: &str) -> PathBuf {
    Path::new("/dev").join(volume)
}

/// A template's file, by its size.
fn file_of(size: u64) -> String {
    format!("disk-{}M", size >> 20)
}

/// The logical volume that a file names.
fn volume_of(dir: &Dir, file: &str) -> Result<String> {
    let bytes = dir.read(file, NAME)?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Corrupt, format!("{:?} names no volume", dir.path().join(file))))
}

fn fork(site: &Site, from: &str, id: &str) -> Result<Volume> {
    let pool = pool(site.store)?;
    let name = format!("offshoot.{}.{}.{id}", pool.tag, site.record.name);
    site.dir.write_new(id, format!("{}/{name}", pool.group).as_bytes())?;
    crate::crash::point();
    // Without the flag, thin snapshots are skipped at activation (man 7 lvmthin).
    lvm(&["lvcreate", "-q", "-s", "-kn", "-n", &name, from])?;
    Ok(Volume::new(id))
}

fn activate(site: &Site, volume: &Volume) -> Result<String> {
    let volume = volume_of(site.dir, &volume.id)?;
    lvm(&["lvchange", "-q", "-ay", &volume])?;
    Ok(volume)
}

/// Removes the logical volume that a file names, and the file.
fn remove(dir: &Dir, file: &str) -> Result<()> {
    let volume = volume_of(dir, file)?;
    match lvm(&["lvremove", "-q", "-f", "-y", &volume]) {
        Err(error) if volume.is_empty() || error.to_string().contains("Failed to find") => drop(error),
        result => drop(result?),
    }
    dir.remove_tree(file)
}
