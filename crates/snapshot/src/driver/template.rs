//! What a driver prepares of an image once, for all its clones: the image as one tree, in the driver's own form.

use crate::copy::copy_tree;
use crate::dir::Dir;
use crate::driver::{DriverKind, layers_of};
use crate::error::{Kind, Result};
use crate::name::Digest;
use crate::record;
use crate::store::{Store, place};
use crate::union::Union;

/// Its directory, below `templates/`.
pub(crate) fn name(image: &Digest, driver: DriverKind) -> String {
    format!("{}.{driver}", image.hex())
}

/// Has `make` prepare a template in an empty directory, unless there is one.
pub(crate) fn prepare(
    store: &Store,
    image: &record::Image,
    driver: DriverKind,
    make: impl FnOnce(&Dir) -> Result<()>,
) -> Result<()> {
    let name = name(&image.id, driver);
    if store.templates.has(&name)? {
        return Ok(());
    }
    let staging = store.staging()?;
    let record = record::Template { version: record::VERSION, image: image.id.clone(), driver };
    staging.dir.write_new(place::TEMPLATE, &record::bytes(&record)?)?;
    make(&staging.dir)?;
    crate::crash::point();
    offshoot_sys::fsattr::syncfs(&staging.dir)?;
    match staging.publish(&store.templates, name) {
        // Another process was faster.
        Err(error) if error.kind() == Kind::Exists => Ok(()),
        result => result.map(drop),
    }
}

/// Writes the image as one tree into an empty directory.
pub(crate) fn flatten(store: &Store, image: &record::Image, to: &Dir) -> Result<()> {
    let layers = layers_of(store, &image.layers)?;
    let root = layers.len() - 1 - image.root;
    copy_tree(&Union::new(layers, root), to)
}
