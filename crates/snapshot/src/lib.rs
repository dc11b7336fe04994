//! Images and clones: the storage drivers, id-mapped trees to a detached mount and its undo.
//!
//! A [`Store`] holds [`Image`]s: layers, extracted once, with ids as in their archives. A [`RootClone`] is a root file system
//! that shares with its image what it has not changed. [`RootClone::mount`] gives a detached mount of it with the ids mapped
//! for one container, and whoever gets it does not see by which storage driver.
//!
//! ```no_run
//! use offshoot_snapshot::{CloneOptions, IdMap, IdRange, Store};
//! # fn main() -> offshoot_snapshot::Result<()> {
//! let store = Store::open(Store::default_path())?;
//! let clone = store.clone_for(&store.image("debian")?, "web", &CloneOptions::default())?;
//! let ids = [IdRange { inside: 0, outside: 1_000_000, count: 65_536 }];
//! let mount = clone.mount(Some(&IdMap::new(&ids, &ids)?))?;
//! # drop(mount);
//! clone.delete()
//! # }
//! ```

#![forbid(unsafe_code)]

mod annotation;
mod archive;
mod build;
mod check;
mod clone;
mod commit;
mod config;
mod copy;
mod crash;
mod diff;
mod dir;
mod driver;
mod error;
mod export;
mod foreign;
mod idmap;
mod image;
mod import;
mod name;
mod oci;
mod overlayfs;
mod record;
mod rootless;
mod store;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tool;
mod union;
mod usage;

pub use annotation::{ANNOTATION, Request, parse_size};
pub use archive::Limits;
pub use archive::stream::{Listener, Progress};
pub use build::BuildOptions;
pub use check::Report;
pub use clone::{CloneOptions, RootClone};
pub use diff::{Change, ChangeKind};
pub use driver::{Choice, DriverKind};
pub use error::{Error, Kind, Result};
pub use export::ExportFormat;
pub use foreign::map_root;
pub use idmap::{IdMap, Range as IdRange};
pub use image::Image;
pub use import::{Format, ImportOptions, Source};
pub use name::{Digest, Name};
pub use rootless::become_root_of_own_ids;
pub use store::Store;
pub use sweep::Pruned;
