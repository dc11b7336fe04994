//! Making an image of a clone: how a template is prepared by hand.

use crate::archive::pack::pack;
use crate::archive::stream::Listener;
use crate::clone::RootClone;
use crate::error::{Call, During, Error, Kind, Result};
use crate::image::Image;
use crate::import::{ImportOptions, Making};
use crate::name::Name;
use crate::store::Store;

/// Layers of an image that grew by commits: each costs a look at every lookup, and before Linux 6.13 all their names have to fit
/// into a page of mount options.
const DEEPEST: usize = 16;

impl Store {
    /// Makes an image of a clone as it is now; its own image tells the configuration. Where the clone is layers over its image's,
    /// the new image has the same ones below, so that the two share what is on disk and in memory; else it has one layer.
    pub fn commit(&self, clone: &RootClone, names: &[Name], progress: Listener) -> Result<Image> {
        let mut commit = || {
            let image = self.image(clone.image().hex())?;
            let config = image.config().clone();
            let options = ImportOptions { names: names.to_vec(), ..ImportOptions::default() };
            let mut making = Making::new(self, &options, &format!("clone {}", clone.name()))?;
            let below = &image.record.layers;
            match clone.changes()?.filter(|changes| below.len() + changes.len() <= DEEPEST) {
                Some(changes) => {
                    for layer in below {
                        if !making.take_known_layer(layer)? {
                            let message = format!("layer {} of its image is gone", layer.short());
                            return Err(Error::new(Kind::NotFound, message));
                        }
                    }
                    changes
                        .into_iter()
                        .try_for_each(|layer| making.packed(move |out| pack(&layer, out), &mut *progress))?;
                }
                None => {
                    let view = clone.view()?;
                    making.packed(move |out| pack(&view, out), progress)?;
                }
            }
            making.reconfigure(config)?;
            making.finish()
        };
        commit().during(|| format!("commit clone {:?}", clone.name()))
    }
}

impl Making<'_> {
    /// Adds a layer that `write` writes as an archive: through a pipe, so that one way in needs guarding.
    pub(crate) fn packed(
        &mut self,
        write: impl FnOnce(std::io::BufWriter<std::io::PipeWriter>) -> Result<()> + Send,
        progress: Listener,
    ) -> Result<()> {
        let (reader, writer) = std::io::pipe().call(|| "pipe2()")?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || write(std::io::BufWriter::with_capacity(256 << 10, writer)));
            let layer = self.add_layer(crate::archive::stream::Reporting::new(reader, 0, progress), None);
            let written =
                writing.join().unwrap_or_else(|_| Err(Error::new(Kind::System, "the packing thread panicked")));
            match (written, layer) {
                // The writer's broken pipe only says that the extraction failed.
                (_, Err(error)) if error.kind() != Kind::Refused => Err(error),
                (Err(error), _) | (_, Err(error)) => Err(error),
                _ => Ok(()),
            }
        })
    }
}
