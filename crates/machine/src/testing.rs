//! What unit tests share.

use crate::{Home, Machines};
use offshoot_runtime::{Format, Log, Runtime};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory for one test, gone with the guard.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("offshoot-machine-{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// None yet, with all that belongs to them in here.
    pub fn machines(&self) -> Machines {
        let runtime = Runtime::new(Some(&self.0.join("root")), Log::stderr(Format::Text, false)).unwrap();
        Machines::new(Home::new(self.0.join("store")), runtime)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
