//! Clones: root file systems that share with their image what they have not changed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::crash;
use crate::dir::{Dir, Lock, Locked};
use crate::driver::{Choice, Driver, DriverKind, Site, Volume};
use crate::error::{During, Error, Kind, Result};
use crate::idmap::IdMap;
use crate::image::Image;
use crate::name::{Digest, check_plain};
use crate::record;
use crate::store::{Store, place};

/// How to make a clone.
#[derive(Clone, Debug, Default)]
pub struct CloneOptions {
    /// The storage driver.
    pub driver: Choice,
    /// Whether it outlives its container, and the next boot.
    pub keep: bool,
    /// The most it may grow to, in bytes.
    pub size: Option<u64>,
}

/// A root file system made of an image.
#[derive(Debug)]
pub struct RootClone<'a> {
    store: &'a Store,
    record: record::Clone,
    dir: Dir,
}

impl Store {
    /// Makes a clone of an image, in some tenths of a millisecond.
    pub fn clone_for(&self, image: &Image, name: &str, options: &CloneOptions) -> Result<RootClone<'_>> {
        let make = || {
            let kind = self.choose(options)?;
            kind.driver().prepare(self, &image.record, options.size)?;
            let clone = self.make_clone(image, name, kind, options)?;
            if options.keep {
                clone.sync()?;
            }
            Ok(clone)
        };
        make().during(|| format!("clone image {:?} as {name:?}", image.shown()))
    }

    /// Makes many clones of an image at once, using several threads where the driver waits for the disk.
    pub fn clone_many(&self, image: &Image, names: &[String], options: &CloneOptions) -> Vec<Result<RootClone<'_>>> {
        let prepared = self.choose(options).and_then(|kind| {
            kind.driver().prepare(self, &image.record, options.size)?;
            Ok(kind)
        });
        let kind = match prepared.during(|| format!("clone image {:?}", image.shown())) {
            Ok(kind) => kind,
            Err(error) => return vec![Err(error)],
        };
        let make = |name: &String| {
            let clone = self.make_clone(image, name, kind, options);
            clone.during(|| format!("clone image {:?} as {name:?}", image.shown()))
        };
        let mut clones = in_threads(names, kind.driver().threads(), make);
        if options.keep {
            // Once for all of them.
            if let Err(error) = offshoot_sys::fsattr::syncfs(&self.clones) {
                clones.push(Err(Error::from(error).during("write the clones to disk")));
            }
        }
        clones
    }

    /// The clone of that name.
    pub fn find_clone(&self, name: &str) -> Result<RootClone<'_>> {
        let find = || {
            check_plain("clone", name)?;
            let dir = match self.clones.sub_if_there(name)? {
                Some(dir) => dir,
                None => return Err(Error::new(Kind::NotFound, "there is no such clone")),
            };
            Ok(RootClone { store: self, record: record::read(&dir, place::CLONE)?, dir })
        };
        find().during(|| format!("open clone {name:?}"))
    }

    /// All clones, by name.
    pub fn clones(&self) -> Result<Vec<RootClone<'_>>> {
        let mut clones = Vec::new();
        for name in self.clone_names()? {
            match self.find_clone(&name) {
                Ok(clone) => clones.push(clone),
                // Deleted since the directory was read.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(clones)
    }

    pub(crate) fn clone_names(&self) -> Result<Vec<String>> {
        let mut names: Vec<_> = self.clones.names()?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The names of the clones made of an image. One whose record cannot be read may be of any.
    pub(crate) fn clones_of(&self, image: &Digest) -> Result<Vec<String>> {
        let mut users = Vec::new();
        for name in self.clone_names()? {
            let Some(dir) = self.clones.sub_if_there(&name)? else { continue };
            if record::read::<record::Clone>(&dir, place::CLONE).map_or(true, |record| record.image == *image) {
                users.push(name);
            }
        }
        Ok(users)
    }

    /// The driver to use: the one asked for, or the first that works here and can do what is asked.
    pub fn choose(&self, options: &CloneOptions) -> Result<DriverKind> {
        let fits = |kind: DriverKind| match options.size.is_some() && !kind.driver().can_limit() {
            true => Err(Error::new(Kind::Unsupported, format!("driver {kind} cannot limit a clone's size"))),
            false => kind.driver().probe(self),
        };
        match options.driver {
            Choice::Fixed(kind) => fits(kind).map(|()| kind),
            Choice::Auto => {
                let mut reasons = Vec::new();
                for kind in DriverKind::ALL {
                    match fits(kind) {
                        Ok(()) => return Ok(kind),
                        Err(error) => reasons.push(format!("{kind}: {error}")),
                    }
                }
                Err(Error::new(Kind::Unsupported, format!("no storage driver can do it ({})", reasons.join("; "))))
            }
        }
    }

    fn make_clone(&self, image: &Image, name: &str, kind: DriverKind, options: &CloneOptions) -> Result<RootClone<'_>> {
        check_plain("clone", name)?;
        let _held = self.lock(Lock::Shared)?;
        if !self.images.has(image.id().hex())? {
            return Err(Error::new(Kind::NotFound, "the image is gone"));
        }
        if self.clones.has(name)? {
            return Err(Error::new(Kind::Exists, format!("clone {name:?} exists already")));
        }
        let mut record = record::Clone {
            version: record::VERSION,
            name: name.to_owned(),
            image: image.id().clone(),
            image_name: image.shown(),
            driver: kind,
            created: record::now(),
            keep: options.keep,
            boot: if options.keep { None } else { record::boot_id() },
            size: options.size,
            layers: image.record.layers.clone(),
            root: image.record.root,
            head: Volume::new("r1"),
            next: 2,
            snapshots: Vec::new(),
        };
        let staging = self.staging_locked()?;
        // First, so that whoever sweeps the remains of a killed process knows what to delete.
        staging.dir.write_new(place::CLONE, &record::bytes(&record)?)?;
        crash::point();
        record.head = kind.driver().create(&Site { store: self, record: &record, dir: &staging.dir }, "r1")?;
        let dir = staging.publish(&self.clones, name)?;
        Ok(RootClone { store: self, record, dir })
    }

    /// Deletes clones; what is not there is fine. The first failure is returned after all were tried.
    pub fn delete_clones(&self, names: &[String]) -> Result<()> {
        let delete = |name: &String| self.delete_clone(name).during(|| format!("delete clone {name:?}"));
        in_threads(names, 4, delete).into_iter().collect()
    }

    fn delete_clone(&self, name: &str) -> Result<()> {
        check_plain("clone", name)?;
        let held = self.lock(Lock::Shared)?;
        let Some(dir) = self.clones.sub_if_there(name)? else { return Ok(()) };
        // Waits for a snapshot or rollback that is under way.
        drop(dir.lock(Lock::Exclusive, true)?);
        let gone = match self.discard(&self.clones, name) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            result => result?,
        };
        drop(held);
        crate::sweep::remove_discarded(self, &gone.name)
    }
}

/// Does something for each of many, in several threads where that helps, keeping the order.
fn in_threads<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if threads <= 1 || items.len() <= 8 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

impl<'a> RootClone<'a> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The id of the image it was made of.
    pub fn image(&self) -> &Digest {
        &self.record.image
    }

    /// How that image was called then.
    pub fn image_name(&self) -> &str {
        &self.record.image_name
    }

    /// Its storage driver.
    pub fn driver(&self) -> DriverKind {
        self.record.driver
    }

    /// When it was made, in RFC 3339.
    pub fn created(&self) -> &str {
        &self.record.created
    }

    /// Whether it outlives its container.
    pub fn keep(&self) -> bool {
        self.record.keep
    }

    /// The boot it was made in, unless it is kept.
    pub(crate) fn boot(&self) -> Option<&str> {
        self.record.boot.as_deref()
    }

    /// The most it may grow to, in bytes, where it is limited.
    pub fn size_limit(&self) -> Option<u64> {
        self.record.size
    }

    /// Its snapshots, the oldest first: names and times.
    pub fn snapshots(&self) -> impl Iterator<Item = (&str, &str)> {
        self.record.snapshots.iter().map(|snapshot| (snapshot.name.as_str(), snapshot.created.as_str()))
    }

    /// Writes it to disk, so that it survives a power cut from now on. After its rename, as then one journal commit does it
    /// all; a record that a power cut left empty is swept.
    fn sync(&self) -> Result<()> {
        let record = self.dir.open_at(place::CLONE, nix::fcntl::OFlag::O_RDONLY, 0)?;
        offshoot_sys::fsattr::fsync(&record)?;
        Ok(offshoot_sys::fsattr::fsync(&self.store.clones)?)
    }

    fn kind(&self) -> &'static dyn Driver {
        self.record.driver.driver()
    }

    fn site(&self) -> Site<'_> {
        Site { store: self.store, record: &self.record, dir: &self.dir }
    }

    /// A detached mount of the root file system, to be attached anywhere; it goes away with the descriptor or where it is
    /// attached. With an id map, files appear as those of the container that has it; nothing on disk depends on it.
    pub fn mount(&self, idmap: Option<&IdMap>) -> Result<OwnedFd> {
        self.kind().mount(&self.site(), &self.record.head, idmap).during(|| format!("mount clone {:?}", self.name()))
    }

    /// Mounts it, without an id map, on a directory of the caller's.
    pub fn mount_on(&self, directory: &Path) -> Result<()> {
        let mount = self.mount(None)?;
        let attach = || Ok(offshoot_sys::mount::move_mount_to(&mount, None, directory)?);
        attach().during(|| format!("mount clone {:?} on {directory:?}", self.name()))
    }

    /// Gives back what a mount held beyond its descriptor (an active logical volume), once the container has ended.
    pub fn release(&self) -> Result<()> {
        self.kind().release(&self.site(), &self.record.head).during(|| format!("release clone {:?}", self.name()))
    }

    /// Deletes it with its snapshots. What is mounted of it stays usable until it is unmounted.
    pub fn delete(self) -> Result<()> {
        let name = self.record.name.clone();
        self.store.delete_clone(&name).during(|| format!("delete clone {name:?}"))
    }

    /// Bytes on disk that the clone and its snapshots do not share with the image, as far as its driver can tell.
    pub fn usage(&self) -> Result<u64> {
        let usage = || self.kind().usage(&self.site(), &self.record.head);
        usage().during(|| format!("measure clone {:?}", self.name()))
    }

    /// Where a path leads to in the clone as it is now, as [`Store::resolve_file`] does in an image.
    pub fn resolve_file(&self, path: &Path) -> Result<Option<PathBuf>> {
        let found = self.view().and_then(|view| view.resolve(path));
        found.during(|| format!("find {path:?} in clone {:?}", self.name()))
    }

    /// Its tree, for reading.
    pub(crate) fn view(&self) -> Result<crate::union::Union> {
        self.kind().view(&self.site(), &self.record.head)
    }

    /// What lies over its image's layers, the lowest first, where it is made so.
    pub(crate) fn changes(&self) -> Result<Option<Vec<crate::union::Union>>> {
        self.kind().changes(&self.site(), &self.record.head)
    }

    /// The image's tree, for reading.
    pub(crate) fn image_view(&self) -> Result<crate::union::Union> {
        self.site().image()
    }

    /// Remembers its state under a name, to roll back to.
    pub fn snapshot(&mut self, name: &str) -> Result<()> {
        self.take_snapshot(name).during(|| format!("snapshot clone {:?} as {name:?}", self.record.name))
    }

    /// The same of one that is mounted, while the caller keeps everything from writing to it.
    pub fn snapshot_mounted(&mut self, name: &str) -> Result<()> {
        let mut take = || {
            let _busy = self.begin()?;
            let id = self.new_snapshot(name)?;
            let volume = self.kind().snapshot_mounted(&self.site(), &self.record.head, &id)?;
            crash::point();
            self.record.snapshots.push(record::Snapshot { name: name.to_owned(), created: record::now(), volume });
            self.save()
        };
        take().during(|| format!("snapshot clone {:?} as {name:?}", self.record.name))
    }

    /// The clone as it was at a snapshot, for looking at and for [`Store::commit`].
    pub fn at(&self, snapshot: &str) -> Result<RootClone<'a>> {
        let mut record = record::read::<record::Clone>(&self.dir, place::CLONE)?;
        let found = record.snapshots.iter().find(|one| one.name == snapshot);
        record.head = found.map(|one| one.volume.clone()).ok_or_else(|| no_snapshot(snapshot))?;
        Ok(RootClone { store: self.store, record, dir: self.dir.try_clone()? })
    }

    /// Claims the volume of a snapshot that is to be called `name`.
    fn new_snapshot(&mut self, name: &str) -> Result<String> {
        check_plain("snapshot", name)?;
        if self.record.snapshots.iter().any(|snapshot| snapshot.name == name) {
            return Err(Error::new(Kind::Exists, format!("snapshot {name:?} exists already")));
        }
        self.next_volume()
    }

    fn take_snapshot(&mut self, name: &str) -> Result<()> {
        let _busy = self.begin()?;
        let id = self.new_snapshot(name)?;
        let (volume, head) = self.kind().snapshot(&self.site(), &self.record.head, &id)?;
        crash::point();
        self.record.head = head;
        self.record.snapshots.push(record::Snapshot { name: name.to_owned(), created: record::now(), volume });
        self.save()
    }

    /// Goes back to a snapshot; what was written since is lost. Not while it is mounted.
    pub fn rollback(&mut self, name: &str) -> Result<()> {
        self.roll_back(name).during(|| format!("roll clone {:?} back to {name:?}", self.record.name))
    }

    fn roll_back(&mut self, name: &str) -> Result<()> {
        let _busy = self.begin()?;
        let frozen = self.find_snapshot(name)?.volume.clone();
        let id = self.next_volume()?;
        let head = self.kind().branch(&self.site(), &frozen, &id)?;
        crash::point();
        self.record.head = head;
        self.save()?;
        self.drop_unneeded()
    }

    /// Forgets a snapshot.
    pub fn delete_snapshot(&mut self, name: &str) -> Result<()> {
        let delete = |clone: &mut Self| {
            let _busy = clone.begin()?;
            clone.find_snapshot(name)?;
            clone.record.snapshots.retain(|snapshot| snapshot.name != name);
            clone.save()?;
            clone.drop_unneeded()
        };
        delete(self).during(|| format!("delete snapshot {name:?} of clone {:?}", self.record.name))
    }

    fn find_snapshot(&self, name: &str) -> Result<&record::Snapshot> {
        let found = self.record.snapshots.iter().find(|snapshot| snapshot.name == name);
        found.ok_or_else(|| no_snapshot(name))
    }

    /// Takes the clone's lock, and the state that whoever held it before has left.
    fn begin(&mut self) -> Result<Locked> {
        let busy = self.dir.lock(Lock::Exclusive, true)?;
        self.record = record::read(&self.dir, place::CLONE)?;
        self.drop_unneeded()?;
        busy.ok_or_else(|| Error::new(Kind::Busy, "it is locked"))
    }

    /// Claims the number of a new volume, so that its remains are never taken for another's.
    fn next_volume(&mut self) -> Result<String> {
        let id = format!("r{}", self.record.next);
        self.record.next += 1;
        self.save()?;
        Ok(id)
    }

    fn save(&self) -> Result<()> {
        self.dir.replace(place::CLONE, &record::bytes(&self.record)?)
    }

    /// Deletes volumes that neither the head nor a snapshot needs: those rolled back over, and those of killed processes.
    fn drop_unneeded(&self) -> Result<()> {
        for number in 1..self.record.next {
            let id = format!("r{number}");
            if !needed(&self.record, &id) && self.kind().exists(self.name(), &self.dir, &id)? {
                self.kind().delete(self.name(), &self.dir, &id)?;
                crash::point();
            }
        }
        Ok(())
    }
}

fn no_snapshot(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("it has no snapshot {name:?}"))
}

fn needed(record: &record::Clone, id: &str) -> bool {
    let volumes = record.snapshots.iter().map(|snapshot| &snapshot.volume).chain([&record.head]);
    volumes.flat_map(Volume::needs).any(|needed| needed == id)
}
