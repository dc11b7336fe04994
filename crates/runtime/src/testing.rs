//! A directory for one test.

use std::path::{Path, PathBuf};

/// Removed with all it holds when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// `name` must be unique among tests.
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("offshoot-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
