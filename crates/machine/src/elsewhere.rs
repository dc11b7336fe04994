//! Machines that run under another `--root`: nothing here would know of their containers, and take them for stopped.
//!
//! Roots other than the usual one are written down once, by their supervisors, so that no start writes anything for it.

use crate::error::{Error, Kind, Result};
use crate::home;
use crate::machines::Machines;
use offshoot_runtime::Runtime;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The root that is known without being written down.
const USUAL: &str = "/run/offshoot";

impl Machines {
    /// Writes this root down for the others.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn remember_root(&self) -> Result<()> {
        let root = &self.runtime.root;
        if root == Path::new(USUAL) || self.roots()?.contains(root) {
            return Ok(());
        }
        let _held = self.home.lock_machines()?;
        let mut roots = self.roots()?;
        // Those that are gone with a reboot, or whoever made them.
        roots.retain(|other| other.exists() && other != root);
        roots.push(root.clone());
        home::write(&self.file(), &roots, true)
    }

    /// Fails where a machine runs under another root.
    ///
    /// # Errors
    /// That.
    pub(crate) fn check_elsewhere(&self, name: &str) -> Result<()> {
        let usual = PathBuf::from(USUAL);
        for root in self.roots()?.into_iter().chain([usual]).filter(|root| *root != self.runtime.root) {
            if !root.join(name).exists() {
                continue;
            }
            let other = Runtime { root: root.clone(), root_given: true, ..self.runtime.clone() };
            let is_it = |bundle: &Path| bundle == self.home.machine(name);
            if other.load(name).is_ok_and(|container| is_it(&container.state.bundle) && container.is_alive()) {
                let root = root.display();
                return Err(Error::new(Kind::State, format!("machine {name:?} runs under another root, {root}"))
                    .hint(format!("offshoot --root {root} machine …")));
            }
        }
        Ok(())
    }

    fn roots(&self) -> Result<Vec<PathBuf>> {
        let file = self.file();
        match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io(format_args!("read {}", file.display()), &error)),
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::failed(format_args!("read {}", file.display()), error)),
        }
    }

    fn file(&self) -> PathBuf {
        self.home.path.join("machines.roots")
    }
}
