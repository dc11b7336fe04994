//! The store: a directory of layers, images and clones that stays consistent whenever a process dies.
//!
//! Everything is made in `tmp/` under a lock of its own and appears by one rename; everything vanishes by one rename into
//! `tmp/`. So what lies in `tmp/` unlocked is rubbish, and what lies elsewhere is whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use offshoot_sys::libc::RENAME_NOREPLACE;

use crate::crash;
use crate::dir::{Dir, Lock, Locked};
use crate::error::{During, Error, Kind, Result};
use crate::record;

/// Names within the store.
pub(crate) mod place {
    pub(crate) const LAYERS: &str = "layers";
    pub(crate) const IMAGES: &str = "images";
    pub(crate) const TEMPLATES: &str = "templates";
    pub(crate) const CLONES: &str = "clones";
    pub(crate) const TMP: &str = "tmp";
    pub(crate) const NAMES: &str = "names.json";
    pub(crate) const STORE: &str = "store.json";
    /// Beside a layer's record: its files.
    pub(crate) const TREE: &str = "tree";
    pub(crate) const LAYER: &str = "layer.json";
    pub(crate) const IMAGE: &str = "image.json";
    pub(crate) const CONFIG: &str = "config.json";
    pub(crate) const CLONE: &str = "clone.json";
    pub(crate) const TEMPLATE: &str = "template.json";

    /// A layer's tree, below [`LAYERS`].
    pub(crate) fn tree(layer: &crate::name::Digest) -> String {
        format!("{}/{TREE}", layer.hex())
    }
}

/// Images and clones in one directory of one file system.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: Dir,
    pub(crate) layers: Dir,
    pub(crate) images: Dir,
    pub(crate) templates: Dir,
    pub(crate) clones: Dir,
    pub(crate) tmp: Dir,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoreRecord {
    version: u32,
}

impl Store {
    /// Where images are kept: what `$OFFSHOOT_STORE` says, or `/var/lib/offshoot`, or the user's data directory for
    /// anyone but root.
    pub fn default_path() -> PathBuf {
        let home = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = home("OFFSHOOT_STORE") {
            return path;
        }
        if nix::unistd::geteuid().is_root() && crate::archive::extract::in_initial_user_namespace() {
            return PathBuf::from("/var/lib/offshoot");
        }
        match (home("XDG_DATA_HOME"), home("HOME")) {
            (Some(data), _) => data.join("offshoot"),
            (None, Some(home)) => home.join(".local/share/offshoot"),
            (None, None) => PathBuf::from("/var/lib/offshoot"),
        }
    }

    /// Opens the store in that directory, making it where it is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        Store::open_or_make(path).during(|| format!("open store {path:?}"))
    }

    /// Opens the store in that directory, if there is one.
    pub fn find(path: impl AsRef<Path>) -> Result<Option<Store>> {
        let path = path.as_ref();
        match std::fs::symlink_metadata(path.join(place::STORE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            _ => Store::open(path).map(Some),
        }
    }

    fn open_or_make(path: &Path) -> Result<Store> {
        use std::os::unix::fs::DirBuilderExt;
        // 0700: the layers hold set-user-id programs, which no user of the host should reach.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Error::io(format!("mkdir({path:?})"), &error))?;
        let root = Dir::open(path)?;
        let sub = |name| root.ensure(name, 0o700);
        let [layers, images, templates] = [sub(place::LAYERS)?, sub(place::IMAGES)?, sub(place::TEMPLATES)?];
        let (clones, tmp) = (sub(place::CLONES)?, sub(place::TMP)?);
        match record::read::<StoreRecord>(&root, place::STORE) {
            Err(error) if error.kind() == Kind::NotFound => {
                root.replace(place::STORE, &record::bytes(&StoreRecord { version: record::VERSION })?)?;
            }
            other => {
                other?;
            }
        }
        Ok(Store { root, layers, images, templates, clones, tmp })
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Holds the store against removal of what one is about to use (shared), or against all others (exclusive).
    pub(crate) fn lock(&self, how: Lock) -> Result<Locked> {
        self.root.lock(how, true)?.ok_or_else(|| Error::new(Kind::Busy, "the store is locked"))
    }

    /// A new place to make something in, which nobody else touches.
    pub(crate) fn staging(&self) -> Result<Staging<'_>> {
        // Sweeping takes this lock exclusively, so it never sees a directory between its making and its locking.
        let _held = self.lock(Lock::Shared)?;
        self.staging_locked()
    }

    /// The same for a caller that holds the store's lock already.
    pub(crate) fn staging_locked(&self) -> Result<Staging<'_>> {
        let name = self.fresh("new", |name| self.tmp.mkdir(name, 0o700))?;
        let dir = self.tmp.sub(&name)?;
        let lock = dir.lock(Lock::Exclusive, true)?;
        crash::point();
        Ok(Staging { store: self, name, dir, lock, published: false })
    }

    /// Moves a directory into `tmp/`, by which it is gone. The caller holds the store's lock, so that nobody sweeps it before
    /// it is locked.
    pub(crate) fn discard(&self, from: &Dir, name: impl AsRef<Path>) -> Result<Discarded> {
        let name = name.as_ref();
        let gone = self.fresh("del", |gone| from.rename(name, &self.tmp, gone, RENAME_NOREPLACE))?;
        crash::point();
        let lock = self.tmp.sub(&gone)?.lock(Lock::Exclusive, true)?;
        Ok(Discarded { name: gone, _lock: lock })
    }

    fn fresh(&self, prefix: &str, make: impl Fn(&str) -> Result<()>) -> Result<String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            match make(&name) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == Kind::Exists => continue,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Something that is gone, but not removed yet.
pub(crate) struct Discarded {
    pub(crate) name: String,
    _lock: Option<Locked>,
}

impl Discarded {
    pub(crate) fn new(name: String, lock: Locked) -> Discarded {
        Discarded { name, _lock: Some(lock) }
    }
}

/// A directory in `tmp/` while something is made in it. Dropped unpublished, it is removed; killed, it is swept later.
pub(crate) struct Staging<'a> {
    store: &'a Store,
    name: String,
    pub(crate) dir: Dir,
    lock: Option<Locked>,
    published: bool,
}

impl Staging<'_> {
    /// Makes the whole directory appear as `name` in `to`, in one step.
    pub(crate) fn publish(mut self, to: &Dir, name: impl AsRef<Path>) -> Result<Dir> {
        crash::point();
        self.store.tmp.rename(&self.name, to, &name, RENAME_NOREPLACE)?;
        self.published = true;
        crash::point();
        let fd = self.dir.open_at(".", nix::fcntl::OFlag::O_DIRECTORY, 0)?;
        Ok(Dir::from_fd(fd, to.path().join(name)))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is swept by the next import or prune; the failure that led here matters more.
            let _ = crate::sweep::remove_discarded(self.store, &self.name);
        }
        self.lock.take();
    }
}
