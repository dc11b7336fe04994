//! Checking the store: every record, and everything that a record names.

use crate::dir::{Dir, Lock, Locked};
use crate::error::{During, Error, Kind, Result};
use crate::name::Digest;
use crate::record;
use crate::store::{Store, place};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many images there are.
    pub images: usize,
    /// How many layers they use.
    pub layers: usize,
    /// How many clones there are.
    pub clones: usize,
    /// Remains of killed processes, which harm nobody and which the next import or prune removes.
    pub remains: usize,
    /// What is damaged, a sentence each.
    pub problems: Vec<String>,
    /// What a repair did about it, a sentence each.
    pub repairs: Vec<String>,
}

impl Store {
    /// Checks the store; with `repair`, removes what is damaged beyond use, and remains.
    pub fn check(&self, repair: bool) -> Result<Report> {
        let mut report = Report::default();
        let check = |report: &mut Report| {
            let held = self.lock(Lock::Exclusive)?;
            report.remains = self.remains(&held)?.len();
            self.check_clones(report, repair)?;
            self.check_images(report, repair, &held)
        };
        check(&mut report).during(|| format!("check store {:?}", self.path()))?;
        if repair {
            let removed = self.sweep()?;
            if removed > 0 {
                report.repairs.push(format!("removed {removed} unused layers, templates and remains"));
            }
        }
        Ok(report)
    }

    fn check_clones(&self, report: &mut Report, repair: bool) -> Result<()> {
        for name in self.clone_names()? {
            report.clones += 1;
            let dir = self.clones.sub(&name)?;
            let Err(error) = self.check_clone(&name, &dir) else { continue };
            report.problems.push(format!("clone {name:?}: {error}"));
            // Without a record nothing of it can be mounted; with one, whatever is left may still be of use.
            if repair && record::read::<record::Clone>(&dir, place::CLONE).is_err_and(|error| unusable(&error)) {
                drop(self.discard(&self.clones, &name)?);
                report.repairs.push(format!("removed clone {name:?}"));
            }
        }
        Ok(())
    }

    fn check_clone(&self, name: &str, dir: &Dir) -> Result<()> {
        let clone: record::Clone = record::read(dir, place::CLONE)?;
        if clone.name != name {
            return Err(Error::new(Kind::Corrupt, format!("its record is of clone {:?}", clone.name)));
        }
        let volumes = clone.snapshots.iter().map(|snapshot| &snapshot.volume).chain([&clone.head]);
        for id in volumes.flat_map(|volume| volume.needs()) {
            if !clone.driver.driver().exists(name, dir, id)? {
                return Err(Error::new(Kind::Corrupt, format!("its volume {id} is missing")));
            }
        }
        clone.layers.iter().try_for_each(|layer| self.check_layer(layer))
    }

    fn check_images(&self, report: &mut Report, repair: bool, held: &Locked) -> Result<()> {
        let mut layers: Vec<Digest> = Vec::new();
        for id in self.image_ids()? {
            report.images += 1;
            match self.check_image(&id) {
                Ok(image) => layers.extend(image.layers),
                Err(error) => {
                    report.problems.push(format!("image {}: {error}", id.short()));
                    if repair && unusable(&error) && self.clones_of(&id)?.is_empty() {
                        drop(self.discard(&self.images, id.hex())?);
                        report.repairs.push(format!("removed image {}", id.short()));
                    }
                }
            }
        }
        layers.sort();
        layers.dedup();
        report.layers = layers.len();
        let ids = self.image_ids()?;
        let lost: Vec<_> =
            self.names()?.into_iter().filter(|(_, id)| !ids.contains(id)).map(|(name, _)| name).collect();
        if repair && !lost.is_empty() {
            self.set_names(held, |names| names.retain(|name, _| !lost.contains(name)))?;
            report.repairs.extend(lost.iter().map(|name| format!("removed name {name}")));
        }
        report.problems.extend(lost.iter().map(|name| format!("name {name} stands for an image that is missing")));
        Ok(())
    }

    fn check_image(&self, id: &Digest) -> Result<record::Image> {
        let dir = self.images.sub(id.hex())?;
        let image: record::Image = record::read(&dir, place::IMAGE)?;
        let config = dir.read(place::CONFIG, u64::from(u32::MAX))?;
        if image.id != *id || Digest::of(&config) != *id {
            return Err(Error::new(Kind::Corrupt, "its configuration is not what its id says"));
        }
        image.layers.iter().try_for_each(|layer| self.check_layer(layer))?;
        Ok(image)
    }

    fn check_layer(&self, id: &Digest) -> Result<()> {
        let Some(dir) = self.layers.sub_if_there(id.hex())? else {
            return Err(Error::new(Kind::Corrupt, format!("layer {} is missing", id.short())));
        };
        let layer: record::Layer = record::read(&dir, place::LAYER)?;
        match layer.diff_id == *id && dir.has(place::TREE)? {
            true => Ok(()),
            false => Err(Error::new(Kind::Corrupt, format!("layer {} is damaged", id.short()))),
        }
    }
}

/// Whether a record is lost, rather than unreadable for now or of a newer version.
fn unusable(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
}
