//! Paths by their letters.

use std::path::{Component, Path, PathBuf};

/// An absolute path without `.`, `..` and doubled slashes, as Go's `filepath.Clean` has it. Symlinks are looked at when it is
/// opened.
pub fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.as_ref().components() {
        match part {
            Component::ParentDir => _ = out.pop(),
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_above_the_root() {
        for (path, wanted) in [("/a/./b/../c//", "/a/c"), ("a/b", "/a/b"), ("../..", "/"), ("", "/"), ("/../x/", "/x")]
        {
            assert_eq!(clean(path), Path::new(wanted), "{path}");
        }
    }
}
