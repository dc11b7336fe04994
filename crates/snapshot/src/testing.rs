//! What the unit tests share.

use std::path::{Path, PathBuf};

/// A directory that is removed with the guard.
pub(crate) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fresh directory for the test of that name.
pub(crate) fn scratch(name: &str) -> (Scratch, PathBuf) {
    let path = std::env::temp_dir().join(format!("offshoot-snapshot-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    (Scratch(path.clone()), path)
}

/// Whether the test runs as root; says so where not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Everything below a directory with what matters about it, as lines that compare.
pub(crate) fn listing(path: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    let mut stack = vec![path.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let at = entry.unwrap().path();
            let stat = std::fs::symlink_metadata(&at).unwrap();
            let shown = at.strip_prefix(path).unwrap().display().to_string();
            let what = match stat.file_type() {
                kind if kind.is_symlink() => std::fs::read_link(&at).unwrap().display().to_string(),
                kind if kind.is_dir() => {
                    stack.push(at.clone());
                    String::new()
                }
                kind if kind.is_file() => {
                    String::from_utf8_lossy(&std::fs::read(&at).unwrap()).chars().take(40).collect()
                }
                _ => format!("{:#x}", stat.rdev()),
            };
            lines.push(format!("{shown} {:o} {}:{} {what}", stat.mode(), stat.uid(), stat.gid()));
        }
    }
    lines.sort();
    lines
}
