//! Disk usage of trees.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::dir::{Dir, is_dir};
use crate::driver::{DriverKind, template};
use crate::error::Result;
use crate::image::Image;
use crate::store::Store;

impl Store {
    /// Every image with the bytes that its layers and templates occupy; what images share counts with each of them.
    pub fn image_usage(&self) -> Result<Vec<(Image, u64)>> {
        let mut all = Vec::new();
        for image in self.images()? {
            let mut bytes = 0;
            for layer in image.layers() {
                bytes += of_tree(&self.layers.sub(layer.hex())?)?;
            }
            for kind in DriverKind::ALL {
                if let Some(template) = self.templates.sub_if_there(template::name(image.id(), kind))? {
                    bytes += of_tree(&template)?;
                }
            }
            all.push((image, bytes));
        }
        Ok(all)
    }
}

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
