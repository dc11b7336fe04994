//! Removing what nothing uses: the remains of killed processes, unused layers, clones of an earlier boot, images without clones.

use crate::dir::{Lock, Locked};
use crate::error::{During, Kind, Result};
use crate::name::Digest;
use crate::record;
use crate::store::{Discarded, Store, place};

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Clones that were not to be kept, from before the last boot.
    pub clones: Vec<String>,
    /// Images without clones, by their names or ids.
    pub images: Vec<String>,
    /// Layers and templates that no image uses, and remains of killed processes.
    pub remains: usize,
}

/// Removes something in `tmp/`: a driver's volumes first, where the remains of a clone hold any outside of it.
pub(crate) fn remove_discarded(store: &Store, name: &str) -> Result<()> {
    let Some(dir) = store.tmp.sub_if_there(name)? else { return Ok(()) };
    if let Ok(clone) = record::read::<record::Clone>(&dir, place::CLONE) {
        for number in 1..clone.next {
            clone.driver.driver().delete(&clone.name, &dir, &format!("r{number}"))?;
        }
    }
    if let Ok(template) = record::read::<record::Template>(&dir, place::TEMPLATE) {
        template.driver.driver().delete_template(&template.image, &dir)?;
    }
    drop(dir);
    store.tmp.remove_tree(name)
}

impl Store {
    /// Removes remains of killed processes, and layers and templates that no image uses; returns how many there were.
    pub fn sweep(&self) -> Result<usize> {
        self.sweep_all().during(|| format!("sweep store {:?}", self.path()))
    }

    fn sweep_all(&self) -> Result<usize> {
        let held = self.lock(Lock::Exclusive)?;
        let mut gone = self.remains(&held)?;
        let images = self.image_ids()?;
        let mut used: Vec<Digest> = Vec::new();
        for id in &images {
            // An image whose record is damaged keeps everything, until it is repaired.
            used.extend(self.load_record(id)?.layers);
        }
        for name in self.layers.names()? {
            if !used.iter().any(|id| name == id.hex()) {
                gone.push(self.discard(&self.layers, name)?);
            }
        }
        for name in self.templates.names()? {
            let text = name.to_string_lossy();
            if !images.iter().any(|id| text.strip_prefix(id.hex()).is_some_and(|rest| rest.starts_with('.'))) {
                gone.push(self.discard(&self.templates, name)?);
            }
        }
        for name in self.clone_names()? {
            // Made just before a power cut, which lost the contents of its record.
            if self.clones.sub(&name)?.stat(place::CLONE).is_ok_and(|stat| stat.st_size == 0) {
                gone.push(self.discard(&self.clones, name)?);
            }
        }
        drop(held);
        for remains in &gone {
            remove_discarded(self, &remains.name)?;
        }
        Ok(gone.len())
    }

    /// What killed processes left in `tmp/`; the caller shows that it holds the store exclusively.
    pub(crate) fn remains(&self, _held: &Locked) -> Result<Vec<Discarded>> {
        let mut remains = Vec::new();
        for name in self.tmp.names()? {
            let Some(dir) = self.tmp.sub_if_there(&name)? else { continue };
            // Whoever works there holds its lock; nobody takes it now, as that needs the store's.
            if let (Some(lock), Ok(name)) = (dir.lock(Lock::Exclusive, false)?, name.into_string()) {
                remains.push(Discarded::new(name, lock));
            }
        }
        Ok(remains)
    }

    /// Removes clones that were not to be kept and whose boot is over, with `all` also images that no clone is made of,
    /// and then sweeps.
    pub fn prune(&self, all: bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let boot = record::boot_id();
        for clone in self.clones()? {
            if !clone.keep() && clone.boot().is_some_and(|made_in| Some(made_in) != boot.as_deref()) {
                pruned.clones.push(clone.name().to_owned());
                clone.delete()?;
            }
        }
        for image in if all { self.images()? } else { Vec::new() } {
            match self.remove_image(&image.id().to_string()) {
                Ok(_) => pruned.images.push(image.shown()),
                Err(error) if matches!(error.kind(), Kind::Busy | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        pruned.remains = self.sweep()?;
        Ok(pruned)
    }
}
