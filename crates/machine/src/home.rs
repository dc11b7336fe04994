//! Where definitions are kept: one directory beside the images and clones, changed under one lock each for machines and
//! networks, and every file replaced as a whole.

use crate::error::{Error, Kind, Result};
use offshoot_sys::libc::{LOCK_EX, LOCK_NB, LOCK_SH};
use offshoot_sys::{Errno, fsattr, path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of the files that this program writes. A later one is refused rather than half understood.
pub const VERSION: u32 = 1;

/// The directory of all definitions: that of the store.
#[derive(Clone, Debug)]
pub struct Home {
    /// The store's directory, `/var/lib/offshoot` unless told otherwise.
    pub path: PathBuf,
}

/// The right to read or change, until dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "holds the lock")] File);

impl Home {
    /// In the directory of the image store.
    pub fn new(path: impl Into<PathBuf>) -> Home {
        Home { path: path.into() }
    }

    /// Where machines are.
    pub fn machines(&self) -> PathBuf {
        self.path.join("machines")
    }

    /// A machine's directory, which is also its bundle.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    /// Where networks are.
    pub fn networks(&self) -> PathBuf {
        self.path.join("networks")
    }

    /// Waits for the right to add, change or remove machines.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub fn lock_machines(&self) -> Result<Held> {
        lock(&self.machines(), LOCK_EX)
    }

    /// The same, unless another has it.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub(crate) fn try_lock_machines(&self) -> Result<Option<Held>> {
        try_lock(&self.machines(), LOCK_EX | LOCK_NB)
    }

    /// Waits for the right to change networks and their leases.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub fn lock_networks(&self) -> Result<Held> {
        lock(&self.networks(), LOCK_EX)
    }

    /// Waits until nobody changes networks.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub fn read_networks(&self) -> Result<Held> {
        lock(&self.networks(), LOCK_SH)
    }
}

fn lock(dir: &Path, operation: i32) -> Result<Held> {
    // A call that waits does not return without it.
    try_lock(dir, operation)?.ok_or_else(|| Error::failed(format_args!("lock {}", dir.display()), "another has it"))
}

/// `None` where another has it and `operation` does not wait.
fn try_lock(dir: &Path, operation: i32) -> Result<Option<Held>> {
    let open = || {
        // 0700: the environment of a machine may hold secrets.
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        File::open(dir)
    };
    let file = open().map_err(|error| Error::io(format_args!("open {}", dir.display()), &error))?;
    match path::flock(&file, operation) {
        Err(error) if error.errno() == Errno::EWOULDBLOCK => Ok(None),
        Err(error) => Err(Error::failed(format_args!("lock {}", dir.display()), error)),
        Ok(()) => Ok(Some(Held(file))),
    }
}

/// The record in `file`; `None` where there is none.
///
/// # Errors
/// The file cannot be read, is not what it should be, or is of a later version.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let what = || format!("read {}", file.display());
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| Error::io(what(), &error))?,
    };
    let Versioned { version } = serde_json::from_slice(&text).map_err(|error| Error::failed(what(), error))?;
    if version > VERSION {
        return Err(Error::failed(what(), "written by a later version of offshoot"));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| Error::failed(what(), error))
}

/// Replaces `file` by `value` as JSON, as a whole or not at all. With `durable` it is on disk afterwards.
///
/// # Errors
/// The file cannot be written; the old one is still there then.
pub fn write(file: &Path, value: &impl Serialize, durable: bool) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::failed(format_args!("write {}", file.display()), error))?;
    text.push(b'\n');
    write_text(file, &text, durable)
}

/// [`write`] of a text.
///
/// # Errors
/// As [`write`].
pub fn write_text(file: &Path, text: &[u8], durable: bool) -> Result<()> {
    let failed = |error: &io::Error| Error::io(format_args!("write {}", file.display()), error);
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = file.with_file_name(name);
    let write = || {
        let mut options = OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        new.write_all(text)?;
        if durable {
            new.sync_all()?;
        }
        fs::rename(&temporary, file)
    };
    if let Err(error) = write() {
        // On a full disk it is in the way.
        let _ = fs::remove_file(&temporary);
        return Err(failed(&error));
    }
    match file.parent() {
        Some(parent) if durable => sync(parent),
        _ => Ok(()),
    }
}

/// Removes a file; none is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove(file: &Path) -> Result<()> {
    gone(file, fs::remove_file(file))
}

/// Removes a directory with all in it; none is fine.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_dir(dir: &Path) -> Result<()> {
    gone(dir, fs::remove_dir_all(dir))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format_args!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Puts a directory's names on disk.
///
/// # Errors
/// The disk refuses.
pub fn sync(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(|error| Error::io(format_args!("open {}", dir.display()), &error))?;
    fsattr::fsync(&opened).map_err(|error| Error::failed(format_args!("write {} to disk", dir.display()), error))
}

/// The names of the directories in `dir`, sorted; none where `dir` is missing.
///
/// # Errors
/// The directory cannot be read.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let failed = |error: &io::Error| Error::io(format_args!("read {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(&error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

/// A kind of error for what is not there.
pub(crate) fn absent(what: &str, name: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {what} {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use serde_json::{Value, json};

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_later_one_refused() {
        let scratch = Scratch::new("home");
        let file = scratch.path().join("x.json");
        assert!(read::<Value>(&file).unwrap().is_none());
        for value in [json!({"version": 1, "a": 1}), json!({"version": 1})] {
            write(&file, &value, true).unwrap();
            assert_eq!(read::<Value>(&file).unwrap().unwrap(), value);
        }
        assert_eq!(names(scratch.path()).unwrap(), ["x.json"]);
        write(&file, &json!({"version": VERSION + 1}), false).unwrap();
        assert!(read::<Value>(&file).unwrap_err().to_string().contains("later version"));
        fs::write(&file, "{").unwrap();
        assert!(read::<Value>(&file).is_err());
    }
}
