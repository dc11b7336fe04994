//! What a clone has changed since it was made of its image.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use nix::sys::stat::FileStat;

use crate::clone::RootClone;
use crate::dir::is_dir;
use crate::error::{During, Result};
use crate::union::Union;

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has no such file.
    Added,
    /// Contents, owner, mode or type changed.
    Modified,
    /// Only the image has it.
    Deleted,
}

impl ChangeKind {
    /// The letter that `docker diff` uses.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// One changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it differs.
    pub kind: ChangeKind,
    /// From the root.
    pub path: PathBuf,
}

impl RootClone<'_> {
    /// The files that differ from the image, in order of their names. Contents count as changed when time or size did, as
    /// rsync has it; of a deleted directory only itself is told.
    pub fn diff(&self) -> Result<Vec<Change>> {
        let diff = || compare(&self.image_view()?, &self.view()?);
        diff().during(|| format!("compare clone {:?} with its image", self.name()))
    }
}

fn compare(before: &Union, after: &Union) -> Result<Vec<Change>> {
    let mut old: BTreeMap<PathBuf, FileStat> = BTreeMap::new();
    before.walk(&mut |node| {
        old.insert(node.path.to_owned(), node.stat);
        Ok(())
    })?;
    let mut changes = Vec::new();
    after.walk(&mut |node| {
        let kind = match old.remove(node.path) {
            None => ChangeKind::Added,
            Some(stat) if same(&stat, &node.stat) => return Ok(()),
            Some(_) => ChangeKind::Modified,
        };
        changes.push(Change { kind, path: node.path.to_owned() });
        Ok(())
    })?;
    let mut gone: Option<PathBuf> = None;
    for path in old.into_keys() {
        if !gone.as_ref().is_some_and(|above| path.starts_with(above)) {
            changes.push(Change { kind: ChangeKind::Deleted, path: path.clone() });
            gone = Some(path);
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Bytes on disk of the files that differ.
pub(crate) fn changed_bytes(before: &Union, after: &Union) -> Result<u64> {
    let changed: HashSet<_> = compare(before, after)?.into_iter().map(|change| change.path).collect();
    let mut total = 0;
    after.walk(&mut |node| {
        if changed.contains(node.path) {
            total += node.stat.st_blocks.cast_unsigned() * 512;
        }
        Ok(())
    })?;
    Ok(total)
}

fn same(a: &FileStat, b: &FileStat) -> bool {
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return true;
    }
    let about = |stat: &FileStat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    // A directory's own time and size say only that something in it changed.
    let contents = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    about(a) == about(b) && (is_dir(a) || contents(a) == contents(b))
}
