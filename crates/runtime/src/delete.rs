//! `delete`

use crate::lock::Lock;
use crate::status::Verb;
use crate::{Container, Error, Kind, Log, Result, Runtime};
use offshoot_engine::hooks;
use offshoot_plan::HookKind;
use offshoot_sys::libc::SIGKILL;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long `delete --force` waits for a verb whose process it has killed.
const PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Removes a stopped or a created container and runs its poststop hooks; with `force`, any container, and it is
    /// no error if there is none.
    ///
    /// # Errors
    /// The container does not exist or runs, or something of it could not be removed.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let dir = self.dir(id)?;
        if force && let Ok(container) = self.load(id) {
            // Before the lock: a verb that waits for the container's process holds it until the process ends.
            // What cannot be killed now fails the teardown, which says why.
            let _ = container.kill(SIGKILL);
        }
        let locked = if force { self.lock_within(id, PATIENCE) } else { self.lock(id) };
        match locked {
            Ok(container) => self.delete_locked(container, force),
            Err(error) if error.kind() == Kind::NotFound => {
                remove_half_made(&dir)?;
                if force { Ok(()) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn delete_locked(&self, mut container: Container, force: bool) -> Result<()> {
        container.allow(if force { Verb::ForceDelete } else { Verb::Delete })?;
        let mut errors = container.teardown().into_iter();
        if let Some(first) = errors.next() {
            errors.for_each(|error| self.log.warn(error));
            return Err(first);
        }
        container.poststop(&self.log);
        Ok(())
    }
}

impl Container {
    /// Runs the poststop hooks of a container that is gone. Each of them runs, whatever the others did.
    /// spec: runtime.md#lifecycle, step 12
    pub(crate) fn poststop(&self, log: &Log) {
        let state = &self.state;
        let input = hooks::state(&state.id, "stopped", 0, &state.bundle, &state.annotations);
        for failed in
            hooks::run_each(HookKind::Poststop, &state.poststop, &input, None).filter_map(std::result::Result::err)
        {
            log.warn(failed);
        }
    }
}

/// A directory without a record: the runtime was killed between making one and the other. Nothing else exists then.
fn remove_half_made(dir: &Path) -> Result<()> {
    // With the lock: a `create` that is alive holds it.
    let Ok(_lock) = Lock::take(dir) else { return Ok(()) };
    if dir.join("state.json").exists() {
        return Ok(());
    }
    fs::remove_dir_all(dir).map_err(|error| Error::io(format_args!("remove {}", dir.display()), &error))
}
