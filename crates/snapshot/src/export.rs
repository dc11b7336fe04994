//! Export: an image or clone as a tarball, or as an OCI archive that other tools take.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::fcntl::OFlag;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::archive::pack::pack;
use crate::clone::RootClone;
use crate::driver::layers_of;
use crate::error::{Call, During, Error, Kind, Result};
use crate::image::Image;
use crate::name::Digest;
use crate::store::Store;
use crate::union::Union;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// The root file system as a tarball.
    Tar,
    /// The same, compressed by gzip.
    TarGzip,
    /// An OCI archive with the root file system as its one layer, for skopeo, podman, containerd.
    Oci,
}

impl Store {
    /// Writes an image.
    pub fn export_image(&self, image: &Image, format: ExportFormat, out: impl Write) -> Result<()> {
        let export = || {
            let layers = layers_of(self, image.layers())?;
            let root = layers.len() - 1 - image.record.root;
            self.export(&Union::new(layers, root), image, format, out)
        };
        export().during(|| format!("export image {:?}", image.shown()))
    }

    /// Writes a clone as it is now; its image tells the configuration.
    pub fn export_clone(&self, clone: &RootClone, format: ExportFormat, out: impl Write) -> Result<()> {
        let export = || self.export(&clone.view()?, &self.image(clone.image().hex())?, format, out);
        export().during(|| format!("export clone {:?}", clone.name()))
    }

    fn export(&self, tree: &Union, image: &Image, format: ExportFormat, out: impl Write) -> Result<()> {
        let mut out = BufWriter::with_capacity(256 << 10, out);
        match format {
            ExportFormat::Tar => pack(tree, &mut out)?,
            ExportFormat::TarGzip => gzip(tree, &mut out)?,
            ExportFormat::Oci => self.oci(tree, image, &mut out)?,
        }
        out.flush().call(|| "write(archive)")
    }

    fn oci(&self, tree: &Union, image: &Image, out: &mut impl Write) -> Result<()> {
        let staging = self.staging()?;
        drop(staging.dir.write_new("layer", b"")?);
        let fd: OwnedFd = staging.dir.open_at("layer", OFlag::O_RDWR, 0)?;
        let mut layer = File::from(fd);
        // Two digests of one pass: of the layer as it is, and of what it is compressed from.
        let mut blob = HashingWriter::new(BufWriter::with_capacity(256 << 10, &layer));
        let mut plain = HashingWriter::new(GzEncoder::new(&mut blob, Compression::fast()));
        pack(tree, &mut plain)?;
        let (encoder, diff_id, _) = plain.finish();
        encoder.finish().call(|| "write(layer)")?;
        let (mut buffer, digest, size) = blob.finish();
        buffer.flush().call(|| "write(layer)")?;
        drop(buffer);
        layer.rewind().call(|| "lseek(layer)")?;

        let mut config = image.config().clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id.to_string()] });
        if let Some(config) = config.as_object_mut() {
            config.remove("history");
        }
        let config = text(&config)?;
        let manifest = text(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &Digest::of(&config), config.len() as u64),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest, size)],
        }))?;
        let mut entry =
            descriptor("application/vnd.oci.image.manifest.v1+json", &Digest::of(&manifest), manifest.len() as u64);
        if let Some(name) = image.names().first() {
            entry["annotations"] = json!({
                "io.containerd.image.name": name.as_str(),
                "org.opencontainers.image.ref.name": name.as_str(),
            });
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let layout = text(&json!({ "imageLayoutVersion": "1.0.0" }))?;
        add(out, "oci-layout", layout.len() as u64, layout.as_slice())?;
        let index = text(&index)?;
        add(out, "index.json", index.len() as u64, index.as_slice())?;
        add(out, &blob(&Digest::of(&manifest)), manifest.len() as u64, manifest.as_slice())?;
        add(out, &blob(&Digest::of(&config)), config.len() as u64, config.as_slice())?;
        add(out, &blob(&digest), size, &layer)?;
        out.write_all(&[0; 1024]).call(|| "write(archive)")
    }
}

fn gzip(tree: &Union, out: impl Write) -> Result<()> {
    let mut encoder = GzEncoder::new(out, Compression::default());
    pack(tree, &mut encoder)?;
    encoder.finish().call(|| "write(archive)").map(drop)
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::new(Kind::System, format!("write JSON: {error}")))
}

/// Adds a file to the outer archive.
fn add(out: &mut impl Write, name: &str, size: u64, mut data: impl Read) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[156] = b'0';
    header.set_cksum();
    let call = || format!("write(archive, {name:?})");
    out.write_all(header.as_bytes()).call(call)?;
    std::io::copy(&mut data, out).call(call)?;
    out.write_all(&[0; 512][..(size.wrapping_neg() % 512) as usize]).call(call)
}

/// Passes bytes on, hashing and counting them.
struct HashingWriter<W> {
    inner: W,
    hash: sha2::Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hash: sha2::Sha256::new(), bytes: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(&self.hash.finalize()), self.bytes)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
