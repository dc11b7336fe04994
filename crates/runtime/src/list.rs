//! `list`

use crate::summary::{Summary, summary, user_name};
use crate::{Error, Result, Runtime};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

impl Runtime {
    /// All containers below the root, by name, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// The root cannot be read; a default root need not exist.
    pub fn list(&self) -> Result<(Vec<Summary>, Vec<String>)> {
        let failed = |error: &io::Error| Error::io(format_args!("read {}", self.root.display()), error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.root_given => return Ok(Default::default()),
            entries => entries.map_err(|error| failed(&error))?,
        };
        let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(|error| failed(&error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let (mut list, mut broken) = (Vec::new(), Vec::new());
        let mut names = BTreeMap::new();
        for entry in entries {
            // A container may go while the list is made.
            let Ok(meta) = entry.metadata() else { continue };
            if !meta.is_dir() {
                continue;
            }
            let id = entry.file_name().to_string_lossy().into_owned();
            match self.load(&id).and_then(|container| summary(&container)) {
                Ok(found) => {
                    let owner = names.entry(meta.uid()).or_insert_with(|| user_name(meta.uid()));
                    list.push(Summary { owner: owner.clone(), ..found });
                }
                Err(error) => broken.push(format!("load container {id}: {error}")),
            }
        }
        Ok((list, broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use crate::{Log, State};

    #[test]
    fn broken_containers_do_not_hide_the_others() {
        let scratch = Scratch::new("list");
        let runtime = Runtime::new(Some(scratch.path()), Log::none()).unwrap();
        for id in ["b", "a"] {
            runtime.reserve(State { id: id.into(), ..State::default() }).unwrap();
        }
        fs::create_dir(scratch.path().join("half")).unwrap();
        fs::write(scratch.path().join("file"), "").unwrap();
        let (list, broken) = runtime.list().unwrap();
        assert_eq!(list.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(broken, ["load container half: container does not exist"]);
    }

    #[test]
    fn a_root_that_was_named_must_exist() {
        let scratch = Scratch::new("no-root");
        let missing = scratch.path().join("missing");
        let runtime = Runtime::new(Some(&missing), Log::none()).unwrap();
        assert!(runtime.list().is_err());
        assert!(Runtime { root_given: false, ..runtime }.list().unwrap().0.is_empty());
        assert!(!missing.exists());
    }
}
