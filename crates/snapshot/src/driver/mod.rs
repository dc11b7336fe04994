//! Storage drivers: how a clone shares what it has not changed with its image.
//!
//! A clone's state is a [`Volume`]; a driver makes, forks, mounts and deletes volumes and knows nothing of records, names or
//! locks. What a killed driver leaves behind lies in the clone's directory (or carries its name) and no record names it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::idmap::IdMap;
use crate::name::Digest;
use crate::record;
use crate::store::{Store, place};
use crate::union::Union;

mod btrfs;
mod ext4;
mod lvm;
pub(crate) mod old_overlay;
pub(crate) mod overlay;
mod plain;
mod reflink;
pub(crate) mod template;
mod zfs;

/// The storage drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverKind {
    /// overlayfs over the image's layers: the page cache is shared by all clones.
    Overlay,
    /// btrfs snapshots: independent of the image, and the size can be limited.
    Btrfs,
    /// ZFS clones, where the store lies on ZFS.
    Zfs,
    /// Thin snapshots of logical volumes, in a pool that the store was told of.
    LvmThin,
    /// A single file with a file system of its own, whose blocks are shared: on xfs and btrfs.
    Reflink,
    /// A writable copy of every file: works everywhere.
    Dir,
}

impl DriverKind {
    /// All of them, in the order in which `auto` tries them.
    pub const ALL: [DriverKind; 6] = [
        DriverKind::Overlay,
        DriverKind::Btrfs,
        DriverKind::Zfs,
        DriverKind::LvmThin,
        DriverKind::Reflink,
        DriverKind::Dir,
    ];

    /// The name users write.
    pub fn as_str(self) -> &'static str {
        match self {
            DriverKind::Overlay => "overlay",
            DriverKind::Btrfs => "btrfs",
            DriverKind::Zfs => "zfs",
            DriverKind::LvmThin => "lvm-thin",
            DriverKind::Reflink => "reflink",
            DriverKind::Dir => "dir",
        }
    }

    pub(crate) fn driver(self) -> &'static dyn Driver {
        match self {
            DriverKind::Overlay => &overlay::Overlay,
            DriverKind::Btrfs => &btrfs::Btrfs,
            DriverKind::Zfs => &zfs::Zfs,
            DriverKind::LvmThin => &lvm::LvmThin,
            DriverKind::Reflink => &reflink::Reflink,
            DriverKind::Dir => &plain::Plain,
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DriverKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<DriverKind> {
        DriverKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = DriverKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let hint = format!("drivers: auto {}", known.join(" "));
            Error::invalid(format!("there is no storage driver {text:?}")).with_hint(hint)
        })
    }
}

/// Which driver to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that works here and can do what is asked.
    #[default]
    Auto,
    /// This one.
    Fixed(DriverKind),
}

impl FromStr for Choice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Choice> {
        match text {
            "auto" => Ok(Choice::Auto),
            _ => text.parse().map(Choice::Fixed),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Fixed(kind) => kind.fmt(f),
        }
    }
}

/// A state of a clone, as its driver stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Its name within the clone, `r1`.
    pub(crate) id: String,
    /// The volumes that it lies over, the lowest first: of overlay only, where a snapshot is a layer.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) under: Vec<String>,
}

impl Volume {
    pub(crate) fn new(id: &str) -> Volume {
        Volume { id: id.to_owned(), under: Vec::new() }
    }

    /// Everything on disk that this state needs.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &str> {
        self.under.iter().chain([&self.id]).map(String::as_str)
    }
}

/// What a driver works with: a clone's record and directory.
pub(crate) struct Site<'a> {
    pub(crate) store: &'a Store,
    pub(crate) record: &'a record::Clone,
    pub(crate) dir: &'a Dir,
}

impl Site<'_> {
    /// The image's trees, the uppermost layer first.
    pub(crate) fn image_layers(&self) -> Result<Vec<Dir>> {
        layers_of(self.store, &self.record.layers)
    }

    /// The image's tree as one.
    pub(crate) fn image(&self) -> Result<Union> {
        let layers = self.image_layers()?;
        let root = layers.len() - 1 - self.record.root;
        Ok(Union::new(layers, root))
    }
}

/// The trees of layers, the uppermost first; `ids` come from the lowest up.
pub(crate) fn layers_of(store: &Store, ids: &[Digest]) -> Result<Vec<Dir>> {
    ids.iter().rev().map(|id| store.layers.sub(place::tree(id))).collect()
}

/// What a driver can do.
pub(crate) trait Driver: Sync {
    /// Whether it works in this store; the error says why not.
    fn probe(&self, store: &Store) -> Result<()>;

    /// Whether a volume can be kept from growing beyond a size.
    fn can_limit(&self) -> bool {
        false
    }

    /// Prepares what all clones of an image share, before any lock is taken; done once for each image
    /// (and size, where clones have one).
    fn prepare(&self, store: &Store, image: &record::Image, size: Option<u64>) -> Result<()> {
        let _ = (store, image, size);
        Ok(())
    }

    /// How many threads make clones fastest; more than one where each waits for the disk.
    fn threads(&self) -> usize {
        1
    }

    /// Makes a clone's first volume, called `id`.
    fn create(&self, site: &Site, id: &str) -> Result<Volume>;

    /// Freezes `head`; returns the frozen state and the head to go on with, one of which is new and called `id`.
    fn snapshot(&self, site: &Site, head: &Volume, id: &str) -> Result<(Volume, Volume)>;

    /// The same while the head is mounted and nothing writes to it: it stays the head.
    fn snapshot_mounted(&self, site: &Site, head: &Volume, id: &str) -> Result<Volume> {
        self.snapshot(site, head, id).map(|(frozen, _)| frozen)
    }

    /// Makes a new head, called `id`, from a frozen state.
    fn branch(&self, site: &Site, frozen: &Volume, id: &str) -> Result<Volume>;

    /// A detached mount of the volume, its ids mapped.
    fn mount(&self, site: &Site, head: &Volume, idmap: Option<&IdMap>) -> Result<OwnedFd>;

    /// The volume's tree, for reading.
    fn view(&self, site: &Site, volume: &Volume) -> Result<Union>;

    /// A volume as layers over those of the image, the lowest first, where it is such.
    fn changes(&self, site: &Site, volume: &Volume) -> Result<Option<Vec<Union>>> {
        let _ = (site, volume);
        Ok(None)
    }

    /// Bytes on disk that the clone does not share with its image, as far as the driver can tell.
    fn usage(&self, site: &Site, volume: &Volume) -> Result<u64>;

    /// Gives back what a mount held beyond its descriptor, after the last one is gone.
    fn release(&self, site: &Site, volume: &Volume) -> Result<()> {
        let _ = (site, volume);
        Ok(())
    }

    /// Deletes what [`Driver::prepare`] made outside of the template's directory.
    fn delete_template(&self, image: &Digest, dir: &Dir) -> Result<()> {
        let _ = (image, dir);
        Ok(())
    }

    /// Whether a volume is there.
    fn exists(&self, clone: &str, dir: &Dir, id: &str) -> Result<bool> {
        let _ = clone;
        dir.has(id)
    }

    /// Deletes one volume by name; one that is not there is fine.
    fn delete(&self, clone: &str, dir: &Dir, id: &str) -> Result<()>;
}
