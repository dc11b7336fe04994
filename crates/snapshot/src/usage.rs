//! Disk usage of trees.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::dir::{Dir, is_dir};
use crate::error::Result;

/// Bytes that everything below a directory, and itself, occupies on disk; hard links count once.
pub(crate) fn of_tree(dir: &Dir) -> Result<u64> {
    let mut seen = HashSet::new();
    let mut total = blocks(dir.stat_self()?.st_blocks);
    let mut stack = vec![PathBuf::from(".")];
    while let Some(path) = stack.pop() {
        let at = dir.sub(&path)?;
        for name in at.names()? {
            let stat = at.stat(&name)?;
            if is_dir(&stat) {
                stack.push(path.join(&name));
            } else if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            total += blocks(stat.st_blocks);
        }
    }
    Ok(total)
}

/// stat counts in units of 512 bytes whatever the file system's blocks are (man 2 stat).
fn blocks(count: i64) -> u64 {
    count.cast_unsigned() * 512
}
