//! `pause` and `resume`

use crate::status::Verb;
use crate::{Error, Result, Runtime};

impl Runtime {
    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// The container is not running, or there is no freezer.
    pub fn pause(&self, id: &str) -> Result<()> {
        let container = self.lock(id)?;
        container.allow(Verb::Pause)?;
        container.cgroup()?.freeze().map_err(|error| Error::cgroup("unable to freeze", &error))
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    /// The container is not paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        let container = self.lock(id)?;
        container.allow(Verb::Resume)?;
        container.cgroup()?.thaw().map_err(|error| Error::cgroup("unable to thaw", &error))
    }

    /// The processes of a container, by their numbers on the host; those in cgroups that it made, too.
    ///
    /// # Errors
    /// The container does not exist, or its cgroup cannot be read.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let cgroup = self.load(id)?.cgroup()?;
        cgroup.all_pids().map_err(|error| Error::cgroup("unable to get the container's processes", &error))
    }
}
