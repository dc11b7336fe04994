//! A container that exists: its state directory, its record, and the lock of whoever changes it.

use crate::lock::Lock;
use crate::status::{Observed, Status, Verb, allowed, status};
use crate::{Error, Kind, Result, Runtime, State, process};
use offshoot_cgroup::{Cgroup, CgroupState};
use offshoot_plan::cgroup::Hierarchy;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The FIFO in the state directory that a created container's process waits at. `start` opens it for reading.
pub const FIFO: &str = "exec.fifo";

/// The copy of `config.json` in the state directory: changes to the bundle after `create` have no effect.
/// spec: runtime.md#lifecycle
pub const CONFIG: &str = "config.json";

/// A container, as recorded.
#[derive(Debug)]
pub struct Container {
    /// The state directory.
    pub dir: PathBuf,
    /// The record.
    pub state: State,
    lock: Option<Lock>,
}

impl Runtime {
    /// Reads a container's record, to look at it or to signal it.
    ///
    /// # Errors
    /// The container does not exist, or its record cannot be read.
    pub fn load(&self, id: &str) -> Result<Container> {
        let dir = self.dir(id)?;
        let state = State::load(&dir)?;
        Ok(Container { dir, state, lock: None })
    }

    /// Waits until no other verb is changing the container, then reads its record, to change it.
    ///
    /// # Errors
    /// The container does not exist, or its record cannot be read.
    pub fn lock(&self, id: &str) -> Result<Container> {
        let dir = self.dir(id)?;
        let lock = Lock::take(&dir)?;
        let state = State::load(&dir)?;
        Ok(Container { dir, state, lock: Some(lock) })
    }

    /// [`Runtime::lock`] that waits no longer than `patience`.
    pub(crate) fn lock_within(&self, id: &str, patience: Duration) -> Result<Container> {
        let dir = self.dir(id)?;
        let lock = Lock::take_within(&dir, patience)?;
        let state = State::load(&dir)?;
        Ok(Container { dir, state, lock: Some(lock) })
    }

    /// Makes the state directory of a new container and locks it. The first record has neither a process nor a
    /// cgroup; `create` saves fuller ones as it goes on, so that `delete` finds everything wherever it was killed.
    ///
    /// # Errors
    /// There is a container of that name, or the directory cannot be made.
    pub fn reserve(&self, state: State) -> Result<Container> {
        let dir = self.dir(&state.id)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.root).map_err(|error| Error::io(format_args!("make {}", self.root.display()), &error))?;
        fs::create_dir(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::new(Kind::Exists, "container with given ID already exists"),
            _ => Error::io(format_args!("make {}", dir.display()), &error),
        })?;
        let lock = Lock::take(&dir)?;
        let container = Container { dir, state, lock: Some(lock) };
        // Root of a user namespace has to reach the FIFO and the notify socket by path; the caller's umask says
        // nothing about that.
        fs::set_permissions(&container.dir, Permissions::from_mode(0o711))
            .map_err(|error| Error::io(format_args!("change the mode of {}", container.dir.display()), &error))?;
        container.save()?;
        Ok(container)
    }
}

impl Container {
    /// What the container is doing now.
    ///
    /// # Errors
    /// The freezer cannot be read.
    pub fn status(&self) -> Result<Status> {
        let alive = self.is_alive();
        let observed = Observed {
            has_init: self.state.init_process_pid > 0,
            alive,
            waits: alive && self.fifo().exists(),
            frozen: alive && self.is_frozen()?,
        };
        Ok(status(observed))
    }

    /// The status, if it allows the verb.
    ///
    /// # Errors
    /// It does not.
    pub fn allow(&self, verb: Verb) -> Result<Status> {
        let status = self.status()?;
        allowed(&self.state.id, status, verb).map(|()| status)
    }

    /// Whether the container's first process lives.
    pub fn is_alive(&self) -> bool {
        process::is_alive(self.state.init_process_pid, self.state.init_process_start)
    }

    /// The container's cgroup; one that is gone has no directories.
    ///
    /// # Errors
    /// A directory cannot be opened.
    pub fn cgroup(&self) -> Result<Cgroup> {
        let open = |state| Cgroup::open(state).map_err(|error| Error::cgroup("failed to open the cgroup", &error));
        self.state.cgroup.as_ref().map_or_else(|| Ok(Cgroup::default()), open)
    }

    /// Whether the container's processes are frozen. Only the hierarchy that tells is opened.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let Some(state) = &self.state.cgroup else { return Ok(false) };
        let has_freezer = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|name| name == "freezer");
        let v1 = state.hierarchies.iter().find(has_freezer);
        let unified = || state.hierarchies.iter().find(|hierarchy| hierarchy.is_unified());
        let hierarchies = v1.or_else(unified).cloned().into_iter().collect();
        let only = CgroupState { hierarchies, unit: None, ..*state };
        let frozen = Cgroup::open(&only).and_then(|cgroup| cgroup.frozen());
        frozen.map_err(|error| Error::cgroup("unable to get cgroup freezer state", &error))
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<()> {
        debug_assert!(self.lock.is_some(), "changed without the lock");
        self.state.save(&self.dir)
    }

    /// Where the process waits for `start`.
    pub fn fifo(&self) -> PathBuf {
        self.dir.join(FIFO)
    }

    /// The configuration that the container was created from.
    pub fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The root directory that the state directory is in.
    pub fn root(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Log;
    use crate::testing::Scratch;
    use std::os::unix::fs::MetadataExt;

    fn runtime(scratch: &Scratch) -> Runtime {
        Runtime::new(Some(&scratch.path().join("root")), Log::none()).unwrap()
    }

    fn named(id: &str) -> State {
        State { id: id.into(), ..State::default() }
    }

    #[test]
    fn one_of_two_creators_wins() {
        let scratch = Scratch::new("reserve");
        let runtime = runtime(&scratch);
        let first = runtime.reserve(named("x")).unwrap();
        let second = runtime.reserve(named("x")).unwrap_err();
        assert_eq!(
            (second.kind(), second.to_string().as_str()),
            (Kind::Exists, "container with given ID already exists")
        );
        assert_eq!(fs::metadata(&runtime.root).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(&first.dir).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(runtime.load("x").unwrap().status().unwrap(), Status::Creating);
    }

    #[test]
    fn status_follows_the_process_and_the_fifo() {
        let scratch = Scratch::new("status");
        let runtime = runtime(&scratch);
        let mut container = runtime.reserve(named("x")).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        container.state.init_process_pid = pid;
        container.state.init_process_start = process::stat(pid).unwrap().start;
        fs::write(container.fifo(), "").unwrap();
        assert_eq!(container.allow(Verb::Start).unwrap(), Status::Created);
        fs::remove_file(container.fifo()).unwrap();
        assert_eq!(container.status().unwrap(), Status::Running);
        container.state.init_process_start += 1;
        assert_eq!(container.status().unwrap(), Status::Stopped);
        assert!(container.allow(Verb::Kill).is_err());
    }

    #[test]
    fn what_does_not_exist_says_so() {
        let scratch = Scratch::new("missing");
        let runtime = runtime(&scratch);
        for error in [runtime.load("x").unwrap_err(), runtime.lock("x").unwrap_err()] {
            assert_eq!(error.to_string(), "container does not exist");
        }
        assert_eq!(runtime.load("../x").unwrap_err().kind(), Kind::Request);
    }
}
