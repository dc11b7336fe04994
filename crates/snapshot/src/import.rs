//! Import: whatever holds a root file system becomes an image, or leaves nothing behind.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use offshoot_sys::libc::RENAME_NOREPLACE;

use crate::archive::Limits;
use crate::archive::compress::decoder;
use crate::archive::extract::{Extracted, extract};
use crate::archive::pack::pack;
use crate::archive::stream::{Hashing, Listener, Reporting};
use crate::crash;
use crate::dir::{Dir, Lock};
use crate::error::{Call, During, Error, Kind, Result};
use crate::image::Image;
use crate::name::{Digest, Name};
use crate::record;
use crate::store::{Staging, Store, place};
use crate::union::Union;
use crate::{config, oci};

/// Enough for a decompressor to work in one go.
const BUFFER: usize = 256 << 10;

/// What to import.
pub enum Source<'a> {
    /// A root file system's tarball or directory, an OCI layout or its archive, or what `docker save` wrote.
    Path(PathBuf),
    /// The same as a stream, with a name for messages.
    Stream(Box<dyn Read + 'a>, String),
}

/// How a source is to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By what it looks like.
    #[default]
    Auto,
    /// A root file system: a tarball or a directory.
    Rootfs,
    /// An image: an OCI layout or archive, or a `docker save` archive.
    Image,
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The names to give the image; where there are none, those that the source gives it.
    pub names: Vec<Name>,
    /// The SHA-256 that the file as it stands must have.
    pub digest: Option<Digest>,
    /// What the archive may at most hold.
    pub limits: Limits,
    /// How the source is to be understood.
    pub format: Format,
    /// Which image to take, where the source holds several: one of its names.
    pub reference: Option<String>,
    /// The architecture to take, in Go's words; the machine's own where not given.
    pub architecture: Option<String>,
}

impl Store {
    /// Imports an image. `progress` hears of the bytes of the source that were read.
    pub fn import(&self, source: Source, options: &ImportOptions, progress: Listener) -> Result<Image> {
        let shown = match &source {
            Source::Path(path) => format!("{path:?}"),
            Source::Stream(_, name) => name.clone(),
        };
        self.sweep()?;
        let import = || {
            let mut making = Making::new(self, options, shown.trim_matches('"'))?;
            match source {
                Source::Path(path) if path.is_dir() => making.directory(&path, progress)?,
                Source::Path(path) => {
                    let file = File::open(&path).call(|| format!("open({path:?})"))?;
                    let total = file.metadata().map_or(0, |meta| meta.len());
                    making.stream(Box::new(file), total, progress)?;
                }
                Source::Stream(stream, _) => making.stream(stream, 0, progress)?,
            }
            making.finish()
        };
        import().during(|| format!("import {shown}"))
    }
}

/// An image in the making.
pub(crate) struct Making<'a> {
    store: &'a Store,
    pub(crate) options: &'a ImportOptions,
    source: String,
    pub(crate) staging: Staging<'a>,
    layers: Vec<record::Layer>,
    bytes: u64,
    /// The OCI configuration as it stands in the source.
    pub(crate) config: Option<Vec<u8>>,
    /// Names that the source gives it.
    pub(crate) names: Vec<Name>,
}

impl<'a> Making<'a> {
    pub(crate) fn new(store: &'a Store, options: &'a ImportOptions, source: &str) -> Result<Making<'a>> {
        let staging = store.staging()?;
        let source = source.to_owned();
        Ok(Making { store, options, source, staging, layers: Vec::new(), bytes: 0, config: None, names: Vec::new() })
    }

    fn directory(&mut self, path: &Path, progress: Listener) -> Result<()> {
        if self.options.digest.is_some() {
            return Err(Error::invalid("a directory has no digest to verify"));
        }
        let dir = Dir::open(path)?;
        let is_layout = dir.has("oci-layout")? && dir.has("index.json")?;
        match (self.options.format, is_layout) {
            (Format::Image, _) | (Format::Auto, true) => oci::layout(self, dir, progress),
            _ => self.packed(move |out| pack(&Union::of_directory(dir), out), progress),
        }
    }

    fn stream(&mut self, stream: Box<dyn Read + '_>, total: u64, progress: Listener) -> Result<()> {
        let (hashing, seen) = Hashing::new(Reporting::new(stream, total, progress));
        let mut raw = BufReader::with_capacity(BUFFER, hashing);
        let plain = decoder(&mut raw).call(|| "read(archive)")?;
        self.archive(plain)?;
        std::io::copy(&mut raw, &mut std::io::sink()).call(|| "read(archive)")?;
        match &self.options.digest {
            Some(wanted) if *wanted != seen.digest() => {
                Err(Error::refused(format!("its digest is {}, not {wanted}", seen.digest())))
            }
            _ => Ok(()),
        }
    }

    /// An uncompressed archive: of a root file system, or of an image.
    fn archive(&mut self, mut plain: impl Read) -> Result<()> {
        let mut start = Vec::new();
        let looked = (&mut plain).take(oci::START).read_to_end(&mut start);
        looked.map_err(|error| Error::refused(format!("the archive is corrupt: {error}")))?;
        let is_image = match self.options.format {
            Format::Auto => oci::looks_like_image(&start),
            format => format == Format::Image,
        };
        let plain = BufReader::with_capacity(BUFFER, start.as_slice().chain(plain));
        match is_image {
            true => oci::archive(self, plain),
            false => self.add_layer(plain, None),
        }
    }

    /// Whether the store, or this image, has that layer already.
    pub(crate) fn take_known_layer(&mut self, diff_id: &Digest) -> Result<bool> {
        let known = match self.layers.iter().find(|layer| layer.diff_id == *diff_id) {
            Some(layer) => Some(layer.clone()),
            None => match self.store.layers.sub_if_there(diff_id.hex())? {
                Some(dir) => record::read(&dir, place::LAYER).ok(),
                None => None,
            },
        };
        let Some(layer) = known else { return Ok(false) };
        self.bytes += layer.bytes;
        self.layers.push(layer);
        Ok(true)
    }

    /// Extracts a layer from its uncompressed archive, whose digest must be `diff_id` where that is given.
    pub(crate) fn add_layer(&mut self, plain: impl Read, diff_id: Option<&Digest>) -> Result<()> {
        let name = format!("layer-{}", self.layers.len());
        self.staging.dir.mkdir(&name, 0o700)?;
        let dir = self.staging.dir.sub(&name)?;
        dir.mkdir(place::TREE, 0o755)?;
        let limits =
            Limits { bytes: self.options.limits.bytes.saturating_sub(self.bytes), ..self.options.limits.clone() };
        let (hashing, seen) = Hashing::new(plain);
        let Extracted { bytes, entries, root, .. } = extract(hashing, &dir.sub(place::TREE)?, &limits)?;
        if let Some(wanted) = diff_id.filter(|wanted| **wanted != seen.digest()) {
            return Err(Error::refused(format!("the layer's digest is {}, not {wanted}", seen.digest())));
        }
        let layer = record::Layer { version: record::VERSION, diff_id: seen.digest(), bytes, entries, root };
        dir.write_new(place::LAYER, &record::bytes(&layer)?)?;
        self.bytes += bytes;
        self.layers.push(layer);
        crash::point();
        Ok(())
    }

    /// Takes over another image's configuration, with the layers of this one.
    pub(crate) fn reconfigure(&mut self, mut config: serde_json::Value) -> Result<()> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        config["created"] = serde_json::json!(record::now());
        if let Some(config) = config.as_object_mut() {
            config.remove("history");
        }
        let bytes = serde_json::to_vec(&config);
        self.config = Some(bytes.map_err(|error| Error::new(Kind::System, format!("write JSON: {error}")))?);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Image> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if diff_ids.is_empty() {
            return Err(Error::refused("the image has no layers"));
        }
        let config = match &self.config {
            Some(config) => config.clone(),
            None => config::for_rootfs(&diff_ids, &self.staging.dir.sub("layer-0")?.sub(place::TREE)?)?,
        };
        let image = record::Image {
            version: record::VERSION,
            id: Digest::of(&config),
            created: record::now(),
            source: self.source.clone(),
            bytes: self.bytes,
            root: self.layers.iter().rposition(|layer| layer.root).unwrap_or(0),
            layers: diff_ids,
        };
        let dir = self.staging.dir.ensure("image", 0o700)?;
        dir.write_new(place::CONFIG, &config)?;
        dir.write_new(place::IMAGE, &record::bytes(&image)?)?;
        // Everything is on disk before anything of it can be seen.
        offshoot_sys::fsattr::syncfs(&self.staging.dir)?;
        self.commit(&image)
    }

    /// Puts the parts into their places. Killed in between, it leaves layers that no image uses, which the next sweep removes.
    fn commit(&self, image: &record::Image) -> Result<Image> {
        let held = self.store.lock(Lock::Exclusive)?;
        let place_in = |name: &str, to: &Dir, new: &str| {
            crash::point();
            match self.staging.dir.rename(name, to, new, RENAME_NOREPLACE) {
                // Another import was faster; what is there is the same, as its name is its digest.
                Err(error) if error.kind() == Kind::Exists => Ok(()),
                result => result,
            }
        };
        for (number, layer) in self.layers.iter().enumerate() {
            let name = format!("layer-{number}");
            if self.staging.dir.has(&name)? {
                place_in(&name, &self.store.layers, layer.diff_id.hex())?;
            } else if !self.store.layers.has(layer.diff_id.hex())? {
                return Err(Error::new(Kind::Busy, format!("layer {} was removed meanwhile", layer.diff_id.short()))
                    .with_hint("import it again"));
            }
        }
        place_in("image", &self.store.images, image.id.hex())?;
        crash::point();
        let given = if self.options.names.is_empty() { &self.names } else { &self.options.names };
        self.store.set_names(&held, |names| names.extend(given.iter().map(|name| (name.clone(), image.id.clone()))))?;
        self.store.load_image(&image.id, &self.store.names()?)
    }
}
