//! The parts of an image by name: files of a directory, or of an archive kept aside.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use nix::fcntl::OFlag;

use crate::archive::tar::{EntryKind, Tar};
use crate::dir::Dir;
use crate::error::{Call, Error, Kind, Result};

/// An archive of an image holds some files for each of at most a few hundred layers.
const PARTS: usize = 100_000;

/// Named parts.
pub(crate) enum Blobs {
    Dir(Dir),
    Archive { file: File, index: HashMap<String, Place> },
}

/// Where a part of an archive is.
pub(crate) enum Place {
    At {
        offset: u64,
        size: u64,
    },
    /// The same as another: older `docker save` wrote layers that repeat as symlinks.
    Same(String),
}

impl Blobs {
    /// Keeps an archive in `aside`, and finds what is in it.
    pub(crate) fn spool(plain: impl Read, aside: &Dir, limit: u64) -> Result<Blobs> {
        let name = "archive";
        drop(aside.write_new(name, b"")?);
        let mut file = File::from(aside.open_at(name, OFlag::O_RDWR, 0)?);
        let mut copying = Copying { plain, to: &file, at: 0, limit };
        let mut tar = Tar::new(&mut copying);
        let mut index = HashMap::new();
        while let Some(entry) = tar.next()? {
            if index.len() >= PARTS {
                return Err(entry.refused(format!("more than {PARTS} parts")));
            }
            let name =
                plain_name(&entry.path).ok_or_else(|| entry.refused("a part of an image cannot have this name"))?;
            match entry.kind {
                EntryKind::File if entry.extents.is_none() => {
                    index.insert(name, Place::At { offset: tar.position(), size: entry.size });
                }
                EntryKind::Symlink | EntryKind::HardLink => {
                    let base = match entry.kind {
                        EntryKind::Symlink => name.rsplit_once('/').map_or("", |(dir, _)| dir),
                        _ => "",
                    };
                    let target =
                        resolve(base, &entry.link).ok_or_else(|| entry.refused("it leads out of the archive"))?;
                    index.insert(name, Place::Same(target));
                }
                EntryKind::Dir => {}
                _ => return Err(entry.refused("an image's archive holds plain files only")),
            }
        }
        file.flush().call(|| "write(archive)")?;
        Ok(Blobs::Archive { file, index })
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Blobs::Dir(dir) => dir.open_at(path, OFlag::O_PATH, 0).is_ok(),
            Blobs::Archive { index, .. } => index.contains_key(path),
        }
    }

    /// A part, from its beginning. One part at a time of an archive.
    pub(crate) fn open(&self, path: &str) -> Result<Box<dyn Read + '_>> {
        match self {
            Blobs::Dir(dir) => Ok(Box::new(File::from(dir.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?))),
            Blobs::Archive { file, index } => {
                let mut name = path;
                for _ in 0..8 {
                    match index.get(name) {
                        Some(Place::Same(other)) => name = other,
                        Some(Place::At { offset, size }) => {
                            let mut file = file;
                            file.seek(SeekFrom::Start(*offset)).call(|| format!("lseek({offset})"))?;
                            return Ok(Box::new(file.take(*size)));
                        }
                        None => break,
                    }
                }
                Err(Error::refused(format!("the archive lacks {path:?}")))
            }
        }
    }

    /// A whole part.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let missing = |error: Error| match error.kind() {
            Kind::NotFound => Error::refused(format!("the image lacks {path:?}")),
            _ => error,
        };
        self.open(path).map_err(missing)?.take(limit + 1).read_to_end(&mut bytes).call(|| format!("read({path:?})"))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::refused(format!("{path:?} has more than {limit} bytes"))),
            false => Ok(bytes),
        }
    }
}

/// Passes an archive on while keeping a copy.
struct Copying<'a, R> {
    plain: R,
    to: &'a File,
    at: u64,
    limit: u64,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.plain.read(buffer)?;
        self.at += count as u64;
        if self.at > self.limit {
            return Err(std::io::Error::other(format!("it has more than {} bytes", self.limit)));
        }
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

fn plain_name(path: &[u8]) -> Option<String> {
    resolve("", path).filter(|name| name.len() < 4096)
}

/// A path within the archive, relative to a directory of it.
fn resolve(base: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok().filter(|path| !path.starts_with('/'))?;
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within_the_archive() {
        assert_eq!(resolve("a", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(resolve("a", b"../../etc/passwd"), None);
        assert_eq!(resolve("", b"/etc/passwd"), None);
        assert_eq!(resolve("", b"./x//y").as_deref(), Some("x/y"));
    }
}
