//! Images: looking them up, naming them, removing them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dir::{Lock, Locked};
use crate::error::{During, Error, Kind, Result};
use crate::name::{Digest, Name};
use crate::record;
use crate::store::{Store, place};
use crate::union::Union;

/// No image configuration is longer; runc's callers have some kilobytes.
const CONFIG: u64 = 8 << 20;

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) record: record::Image,
    names: Vec<Name>,
    config: serde_json::Value,
}

impl Image {
    /// The SHA-256 of its configuration, as Docker names images.
    pub fn id(&self) -> &Digest {
        &self.record.id
    }

    /// The names that stand for it, in order.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// A name for people: the first, or the short id.
    pub fn shown(&self) -> String {
        self.names.first().map_or_else(|| self.id().short().to_owned(), Name::to_string)
    }

    /// When it was imported, in RFC 3339.
    pub fn created(&self) -> &str {
        &self.record.created
    }

    /// What it was imported from.
    pub fn source(&self) -> &str {
        &self.record.source
    }

    /// Bytes of file contents of all layers.
    pub fn bytes(&self) -> u64 {
        self.record.bytes
    }

    /// Its layers, the lowest first: the digests of their uncompressed archives.
    pub fn layers(&self) -> &[Digest] {
        &self.record.layers
    }

    /// Its OCI configuration, with `Env`, `Cmd`, `Entrypoint`… below `config`.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }
}

impl Store {
    /// The image of that name, id, or unambiguous beginning of an id (four digits or more).
    pub fn image(&self, reference: &str) -> Result<Image> {
        let names = self.names()?;
        let id = self.resolve(reference, &names)?;
        self.load_image(&id, &names)
    }

    /// All images, by their first names.
    pub fn images(&self) -> Result<Vec<Image>> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.image_ids()? {
            match self.load_image(&id, &names) {
                Ok(image) => images.push(image),
                // Removed since the directory was read.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        images.sort_by(|a, b| (a.names(), a.id()).cmp(&(b.names(), b.id())));
        Ok(images)
    }

    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        let names = self.images.names()?;
        Ok(names.iter().filter_map(|name| Digest::parse(name.to_str()?).ok()).collect())
    }

    /// Lets `name` stand for an image, whatever it stood for before.
    pub fn tag(&self, image: &Image, name: &Name) -> Result<()> {
        let tag = || {
            let held = self.lock(Lock::Exclusive)?;
            if !self.images.has(image.id().hex())? {
                return Err(Error::new(Kind::NotFound, "the image is gone"));
            }
            self.set_names(&held, |names| {
                names.insert(name.clone(), image.id().clone());
            })
        };
        tag().during(|| format!("tag image {:?} as {name:?}", image.shown()))
    }

    /// Removes a name, and with its last name or by its id the image itself; fails while clones use it. True where the image went.
    pub fn remove_image(&self, reference: &str) -> Result<bool> {
        let remove = || {
            let held = self.lock(Lock::Exclusive)?;
            let names = self.names()?;
            let id = self.resolve(reference, &names)?;
            let others = names.values().filter(|other| **other == id).count();
            let by_name = Name::parse(reference).ok().filter(|name| names.get(name) == Some(&id));
            if let (Some(name), true) = (&by_name, others > 1) {
                self.set_names(&held, |names| drop(names.remove(name)))?;
                return Ok(false);
            }
            if let [first, rest @ ..] = self.clones_of(&id)?.as_slice() {
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                return Err(Error::new(Kind::Busy, format!("clone {first:?}{more} is made of it"))
                    .with_hint("delete its clones first"));
            }
            self.set_names(&held, |names| names.retain(|_, other| *other != id))?;
            let gone = self.discard(&self.images, id.hex())?;
            drop(held);
            crate::sweep::remove_discarded(self, &gone.name)?;
            Ok(true)
        };
        let went = remove().during(|| format!("remove image {reference:?}"))?;
        self.sweep()?;
        Ok(went)
    }

    /// What a regular file of an image holds, such as `etc/passwd`; `None` where the image has none of that name.
    pub fn read_file(&self, image: &Image, path: &Path) -> Result<Option<Vec<u8>>> {
        let layers = crate::driver::layers_of(self, image.layers());
        let read = layers.and_then(|layers| Union::new(layers, 0).read(path, CONFIG));
        read.during(|| format!("read {path:?} of image {:?}", image.shown()))
    }

    /// Where a path leads to in an image, such as `sbin/init`: from its root, links followed inside it; `None` where that is
    /// nothing.
    pub fn resolve_file(&self, image: &Image, path: &Path) -> Result<Option<PathBuf>> {
        let layers = crate::driver::layers_of(self, image.layers());
        let found = layers.and_then(|layers| Union::new(layers, 0).resolve(path));
        found.during(|| format!("find {path:?} in image {:?}", image.shown()))
    }

    /// All names and what they stand for.
    pub(crate) fn names(&self) -> Result<BTreeMap<Name, Digest>> {
        match record::read::<record::Names>(&self.root, place::NAMES) {
            Err(error) if error.kind() == Kind::NotFound => Ok(BTreeMap::new()),
            result => Ok(result?.names),
        }
    }

    /// Changes the names; the caller shows that it holds the store exclusively.
    pub(crate) fn set_names(&self, _held: &Locked, change: impl FnOnce(&mut BTreeMap<Name, Digest>)) -> Result<()> {
        let mut names = self.names()?;
        change(&mut names);
        self.root.replace(place::NAMES, &record::bytes(&record::Names { version: record::VERSION, names })?)
    }

    pub(crate) fn load_image(&self, id: &Digest, names: &BTreeMap<Name, Digest>) -> Result<Image> {
        let dir = self.images.sub(id.hex())?;
        let config = dir.read(place::CONFIG, CONFIG)?;
        let damaged = |error| Error::new(Kind::Corrupt, format!("the configuration of image {id} is damaged: {error}"));
        Ok(Image {
            record: self.load_record(id)?,
            names: names.iter().filter(|(_, other)| *other == id).map(|(name, _)| name.clone()).collect(),
            config: serde_json::from_slice(&config).map_err(damaged)?,
        })
    }

    pub(crate) fn load_record(&self, id: &Digest) -> Result<record::Image> {
        record::read(&self.images.sub(id.hex())?, place::IMAGE)
    }

    fn resolve(&self, reference: &str, names: &BTreeMap<Name, Digest>) -> Result<Digest> {
        if let Some(id) = Name::parse(reference).ok().and_then(|name| names.get(&name)) {
            return Ok(id.clone());
        }
        let start = reference.strip_prefix("sha256:").unwrap_or(reference);
        let is_id = start.len() >= 4 && start.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut fits = self.image_ids()?;
        fits.retain(|id| is_id && id.hex().starts_with(start));
        match fits.as_slice() {
            [id] => Ok(id.clone()),
            [] => Err(Error::new(Kind::NotFound, format!("there is no image {reference:?}"))
                .with_hint("offshoot image list shows them; offshoot image import makes one")),
            _ => Err(Error::invalid(format!("{} image ids begin with {start}", fits.len()))),
        }
    }
}
