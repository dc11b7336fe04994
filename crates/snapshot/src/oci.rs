//! Images as others write them: OCI layouts, as directories or archives, and the archives of `docker save`.

use std::io::{BufReader, Read};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

use crate::archive::blobs::Blobs;
use crate::archive::compress::decoder;
use crate::archive::stream::{Hashing, Listener, Progress};
use crate::config;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::import::Making;
use crate::name::{Digest, Name};

/// No manifest or index is longer: registries refuse beyond 4 MiB.
const DOCUMENT: u64 = 8 << 20;
/// Indexes within indexes.
const NESTING: usize = 4;
const BUFFER: usize = 256 << 10;

/// How much of an archive's beginning [`looks_like_image`] wants to see.
pub(crate) const START: u64 = 4096;

/// Whether an archive that begins so holds an image rather than a root file system: by its first entry but `./`.
pub(crate) fn looks_like_image(start: &[u8]) -> bool {
    let names = start.chunks_exact(512).map(|header| {
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        name.strip_prefix(b"./").unwrap_or(name)
    });
    let Some(name) = names.into_iter().find(|name| !name.is_empty()) else { return false };
    let known: [&[u8]; 6] = [b"blobs", b"blobs/", b"index.json", b"oci-layout", b"manifest.json", b"repositories"];
    let digits = name.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    // `docker save` and skopeo name layers and configurations by their digests.
    let by_digest = digits == 64 && matches!(&name[64..], b"" | b".json" | b".tar" | [b'/', ..]);
    known.contains(&name) || name.starts_with(b"blobs/sha256") || by_digest
}

/// An image in a directory.
pub(crate) fn layout(making: &mut Making, dir: Dir, progress: Listener) -> Result<()> {
    image(making, &Blobs::Dir(dir), progress)
}

/// An image in an archive, which is kept aside as its parts stand in any order.
pub(crate) fn archive(making: &mut Making, plain: impl Read) -> Result<()> {
    let blobs = Blobs::spool(plain, &making.staging.dir, making.options.limits.bytes)?;
    // The archive's progress was told while it was spooled.
    image(making, &blobs, &mut |_| ())
}

fn image(making: &mut Making, blobs: &Blobs, progress: Listener) -> Result<()> {
    // `docker save` writes both since version 25; its own manifest has the names.
    match blobs.has("manifest.json") {
        true => docker(making, blobs, progress),
        false => oci(making, blobs, progress),
    }
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker(making: &mut Making, blobs: &Blobs, progress: Listener) -> Result<()> {
    let bytes = blobs.read("manifest.json", DOCUMENT)?;
    let bad = |error| Error::refused(format!("manifest.json is malformed: {error}"));
    let mut saved: Vec<Saved> = serde_json::from_slice(&bytes).map_err(bad)?;
    let names = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    if let Some(wanted) = &making.options.reference {
        let wanted = Name::parse(wanted)?;
        saved.retain(|one| names(one).iter().any(|name| Name::parse(name).is_ok_and(|name| name == wanted)));
    }
    let one = match saved.as_slice() {
        [one] => one,
        several => return Err(ambiguous(several.iter().flat_map(names).collect())),
    };
    making.names = names(one).iter().filter_map(|name| Name::parse(name).ok()).collect();
    let config = blobs.read(&one.config, DOCUMENT)?;
    let named = one.config.strip_suffix(".json").unwrap_or(&one.config);
    let named = named.rsplit('/').next().unwrap_or(named);
    if let Some(digest) = Digest::parse(named).ok().filter(|digest| *digest != Digest::of(&config)) {
        return Err(Error::refused(format!("{:?}: its digest is {}, not {digest}", one.config, Digest::of(&config))));
    }
    let layers = one.layers.iter().map(|path| Part { path: path.clone(), digest: None, size: None }).collect();
    layers_of(making, blobs, config, layers, progress)
}

fn oci(making: &mut Making, blobs: &Blobs, progress: Listener) -> Result<()> {
    let bytes = blobs.read("index.json", DOCUMENT)?;
    let manifest = choose(making, blobs, &bytes, 0)?;
    making.names = name_of(&manifest).and_then(|name| Name::parse(name).ok()).into_iter().collect();
    let bytes = document(blobs, &manifest)?;
    let bad = |error| Error::refused(format!("manifest {} is malformed: {error}", manifest.digest()));
    let manifest = ImageManifest::from_reader(bytes.as_slice()).map_err(bad)?;
    let config = document(blobs, manifest.config())?;
    let layers: Result<Vec<_>> = manifest.layers().iter().map(Part::of).collect();
    layers_of(making, blobs, config, layers?, progress)
}

/// The manifest that is wanted of an index: by its name, and by the architecture.
fn choose(making: &Making, blobs: &Blobs, index: &[u8], nesting: usize) -> Result<Descriptor> {
    let bad = |error| Error::refused(format!("an image index is malformed: {error}"));
    let index = ImageIndex::from_reader(index).map_err(bad)?;
    let architecture = making.options.architecture.as_deref().unwrap_or(config::host_architecture());
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_none_or(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture
        })
    };
    let is_wanted = |descriptor: &&Descriptor| match (&making.options.reference, nesting) {
        (Some(wanted), 0) => name_of(descriptor).is_some_and(|name| {
            name == wanted || Name::parse(name).ok().zip(Name::parse(wanted).ok()).is_some_and(|(a, b)| a == b)
        }),
        _ => true,
    };
    let named: Vec<_> = index.manifests().iter().filter(is_wanted).collect();
    let fitting: Vec<_> = named.iter().copied().filter(fits).collect();
    let one = match (fitting.as_slice(), named.as_slice()) {
        ([one], _) => *one,
        ([], [_, ..]) => return Err(Error::refused(format!("it has no image for linux/{architecture}"))),
        (several, _) => return Err(ambiguous(several.iter().filter_map(|d| name_of(d)).map(str::to_owned).collect())),
    };
    match one.media_type() {
        MediaType::ImageIndex => {}
        MediaType::Other(other) if other == "application/vnd.docker.distribution.manifest.list.v2+json" => {}
        _ => return Ok(one.clone()),
    }
    if nesting >= NESTING {
        return Err(Error::refused("its indexes are nested too deep"));
    }
    let mut chosen = choose(making, blobs, &document(blobs, one)?, nesting + 1)?;
    if name_of(&chosen).is_none() {
        chosen.set_annotations(one.annotations().clone());
    }
    Ok(chosen)
}

/// The name that an index gives an image; the reference alone is often just a tag.
fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    let full = annotations.get("io.containerd.image.name");
    full.or(annotations.get("org.opencontainers.image.ref.name")).map(String::as_str)
}

fn ambiguous(names: Vec<String>) -> Error {
    match names.is_empty() {
        true => Error::refused("it holds no such image, or several without names"),
        false => {
            Error::invalid(format!("it holds several images: {}", names.join(", "))).with_hint("choose one with --ref")
        }
    }
}

/// A blob, with what is known of it beforehand.
struct Part {
    path: String,
    digest: Option<Digest>,
    size: Option<u64>,
}

impl Part {
    fn of(descriptor: &Descriptor) -> Result<Part> {
        let digest = Digest::parse(descriptor.digest().as_ref())?;
        Ok(Part { path: format!("blobs/sha256/{}", digest.hex()), digest: Some(digest), size: Some(descriptor.size()) })
    }

    fn verify(&self, digest: &Digest, size: u64) -> Result<()> {
        if let Some(wanted) = self.size.filter(|wanted| *wanted != size) {
            return Err(Error::refused(format!("{:?}: it has {size} bytes, not {wanted}", self.path)));
        }
        match &self.digest {
            Some(wanted) if wanted != digest => Err(Error::refused(format!("{:?}: its digest is {digest}", self.path))),
            _ => Ok(()),
        }
    }
}

/// A verified blob in memory.
fn document(blobs: &Blobs, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let part = Part::of(descriptor)?;
    let bytes = blobs.read(&part.path, DOCUMENT)?;
    part.verify(&Digest::of(&bytes), bytes.len() as u64)?;
    Ok(bytes)
}

fn layers_of(making: &mut Making, blobs: &Blobs, config: Vec<u8>, parts: Vec<Part>, progress: Listener) -> Result<()> {
    let diff_ids = config::diff_ids(&config)?;
    if diff_ids.len() != parts.len() {
        return Err(Error::refused(format!("{} layers, but {} digests of layers", parts.len(), diff_ids.len())));
    }
    let total = parts.iter().map(|part| part.size.unwrap_or(0)).sum();
    let mut done = 0;
    for (part, diff_id) in parts.iter().zip(&diff_ids) {
        layer(making, blobs, part, diff_id)?;
        done += part.size.unwrap_or(0);
        progress(Progress { done, total });
    }
    making.config = Some(config);
    Ok(())
}

fn layer(making: &mut Making, blobs: &Blobs, part: &Part, diff_id: &Digest) -> Result<()> {
    if making.take_known_layer(diff_id)? {
        return Ok(());
    }
    let (hashing, seen) = Hashing::new(blobs.open(&part.path)?);
    let mut raw = BufReader::with_capacity(BUFFER, hashing);
    let add = |making: &mut Making, raw| {
        let plain = decoder(raw).map_err(|error| Error::refused(format!("it is corrupt: {error}")))?;
        making.add_layer(plain, Some(diff_id))
    };
    add(making, &mut raw).map_err(|error| error.prefixed(format!("layer {:?}", part.path)))?;
    std::io::copy(&mut raw, &mut std::io::sink()).map_err(|error| Error::io("read(layer)", &error))?;
    part.verify(&seen.digest(), seen.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_root_file_systems_by_their_first_entry() {
        let archive = |names: &[&str]| -> Vec<u8> {
            let block = |name: &&str| {
                let mut block = name.as_bytes().to_vec();
                block.resize(512, 0);
                block
            };
            names.iter().flat_map(block).collect()
        };
        let digest = "a".repeat(64);
        let named =
            [format!("{digest}/"), format!("{digest}.json"), format!("{digest}/layer.tar"), format!("{digest}.tar")];
        for name in ["blobs/", "./blobs/sha256/", "index.json", "oci-layout"]
            .into_iter()
            .chain(named.iter().map(String::as_str))
        {
            assert!(looks_like_image(&archive(&["./", name])), "{name}");
            assert!(looks_like_image(&archive(&[name])), "{name}");
        }
        for name in ["bin/", "./etc/", "blobs.txt", &digest[1..], &format!("{digest}x")] {
            assert!(!looks_like_image(&archive(&[name])), "{name}");
        }
        assert!(!looks_like_image(b""));
        assert!(!looks_like_image(&[0; 1024]));
    }
}
