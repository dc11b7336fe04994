//! The merged view of a stack of layers, walked without mounting it: what overlayfs would show.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{FileStat, SFlag};

use crate::dir::{Dir, file_type, is_dir};
use crate::error::{Call, Error, Kind, Result};
use crate::overlayfs;

/// Deeper than any real tree; a container may build one that would exhaust our stack and descriptors.
const DEPTH: usize = 400;

/// As many links as the kernel follows in one path (man 7 path_resolution).
const LINKS: usize = 40;

/// One file of the view.
pub(crate) struct Node<'a> {
    /// From the root of the view; empty for the root itself.
    pub(crate) path: &'a Path,
    /// The directory that holds it, in the layer that shows it.
    pub(crate) dir: &'a Dir,
    /// Its name there; `.` for the root.
    pub(crate) name: &'a OsStr,
    pub(crate) stat: FileStat,
}

/// A stack of layers.
pub(crate) struct Union {
    /// The uppermost first.
    layers: Vec<Dir>,
    /// Which of them tells the attributes of the root directory.
    root: usize,
    /// Whether mount points are shown as empty directories.
    one_mount: bool,
    /// Whether whiteouts are shown as the device nodes that they are.
    whiteouts: bool,
}

type Visit<'a> = &'a mut dyn FnMut(&Node) -> Result<()>;

impl Union {
    /// A stack, its uppermost layer first.
    pub(crate) fn new(layers: Vec<Dir>, root: usize) -> Union {
        Union { layers, root, one_mount: false, whiteouts: false }
    }

    /// A single directory of the user's, whose mount points (`/proc`, `/dev` of a chroot) are shown empty.
    pub(crate) fn of_directory(dir: Dir) -> Union {
        Union { layers: vec![dir], root: 0, one_mount: true, whiteouts: false }
    }

    /// A single layer as it lies on disk.
    pub(crate) fn of_layer(dir: Dir) -> Union {
        Union { layers: vec![dir], root: 0, one_mount: false, whiteouts: true }
    }

    /// Whether it is one layer as it lies on disk.
    pub(crate) fn is_layer(&self) -> bool {
        self.whiteouts
    }

    /// Calls `visit` for every file, a directory before what it holds, names in byte order.
    pub(crate) fn walk(&self, visit: Visit) -> Result<()> {
        let Some(root) = self.layers.get(self.root) else { return Ok(()) };
        let stat = root.stat_self()?;
        visit(&Node { path: Path::new(""), dir: root, name: OsStr::new("."), stat })?;
        let level: Result<Vec<_>> = self.layers.iter().map(Dir::try_clone).collect();
        self.level(&level?, &PathBuf::new(), 0, visit)
    }

    fn level(&self, dirs: &[Dir], path: &Path, depth: usize, visit: Visit) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::new(Kind::Unsupported, format!("{path:?} is more than {DEPTH} directories deep")));
        }
        let mut shown: BTreeMap<OsString, usize> = BTreeMap::new();
        for (at, dir) in dirs.iter().enumerate() {
            for name in dir.names()? {
                shown.entry(name).or_insert(at);
            }
        }
        for (name, at) in shown {
            let dir = &dirs[at];
            let stat = dir.stat(&name)?;
            if overlayfs::is_whiteout(&stat) && !self.whiteouts {
                continue;
            }
            let below = path.join(&name);
            visit(&Node { path: &below, dir, name: &name, stat })?;
            if is_dir(&stat) && !self.is_elsewhere(dir, &name)? {
                let merged = merge(&dirs[at..], &name)?;
                self.level(&merged, &below, depth + 1, visit)?;
            }
        }
        Ok(())
    }

    /// What a regular file of the view holds; `limit` in bytes. `None` where there is none.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let name = path.file_name().unwrap_or_default();
        match self.entry(path.parent().unwrap_or(Path::new("")), name)? {
            Some((dir, stat)) if file_type(&stat) == SFlag::S_IFREG => dir.read(name, limit).map(Some),
            _ => Ok(None),
        }
    }

    /// Where a path leads to in the view, from its root, links followed inside it; `None` where that is nothing.
    pub(crate) fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        let names = |path: &Path| -> Vec<OsString> {
            let named = |part: &Component| matches!(part, Component::Normal(_) | Component::ParentDir);
            path.components().rev().filter(named).map(|part| part.as_os_str().to_owned()).collect()
        };
        let (mut rest, mut found, mut links) = (names(path), PathBuf::new(), 0);
        while let Some(name) = rest.pop() {
            if name == ".." {
                found.pop();
                continue;
            }
            let Some((dir, stat)) = self.entry(&found, &name)? else { return Ok(None) };
            match file_type(&stat) {
                SFlag::S_IFLNK if links == LINKS => return Ok(None),
                SFlag::S_IFLNK => {
                    links += 1;
                    let target = nix::fcntl::readlinkat(&dir, &*name).call(|| format!("readlinkat({name:?})"))?;
                    if Path::new(&target).is_absolute() {
                        found.clear();
                    }
                    rest.extend(names(Path::new(&target)));
                }
                _ => found.push(name),
            }
        }
        Ok(Some(found))
    }

    /// A name in a directory of the view: the layer's directory that shows it, and what it is there.
    fn entry(&self, parent: &Path, name: &OsStr) -> Result<Option<(Dir, FileStat)>> {
        let level: Result<Vec<_>> = self.layers.iter().map(Dir::try_clone).collect();
        let mut dirs = level?;
        for name in parent {
            dirs = merge(&dirs, name)?;
        }
        for dir in dirs {
            match dir.stat(name) {
                Ok(stat) => return Ok((!overlayfs::is_whiteout(&stat)).then_some((dir, stat))),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn is_elsewhere(&self, dir: &Dir, name: &OsStr) -> Result<bool> {
        use std::os::fd::AsFd;
        if !self.one_mount {
            return Ok(false);
        }
        Ok(offshoot_sys::mount::statx(Some(dir.as_fd()), name, libc::AT_SYMLINK_NOFOLLOW)?.is_mount_root())
    }
}

/// The directories of that name which are merged into one, the first being in the first layer given.
fn merge(dirs: &[Dir], name: &OsStr) -> Result<Vec<Dir>> {
    let mut merged = Vec::new();
    for dir in dirs {
        match dir.stat(name) {
            Ok(stat) if is_dir(&stat) => {}
            // A file or whiteout hides what is below it.
            Ok(_) => break,
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error),
        }
        let sub = dir.sub(name)?;
        let last = dirs.len() > 1 && overlayfs::is_opaque(&sub)?;
        merged.push(sub);
        if last {
            break;
        }
    }
    Ok(merged)
}
