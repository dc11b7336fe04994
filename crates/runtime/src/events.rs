//! `events`

use crate::status::Verb;
use crate::{Container, Error, Result, Runtime};
use offshoot_cgroup::{Cgroup, OomEvent, OomWatch};
use offshoot_spec::events::Event;
use offshoot_sys::event::{POLLIN, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What to do with an event; its error ends the stream.
pub type Report<'a> = &'a mut dyn FnMut(&Event) -> Result<()>;

impl Runtime {
    /// Reports what a container uses now.
    ///
    /// # Errors
    /// The container is not running, or its cgroup cannot be read.
    pub fn stats(&self, id: &str, report: Report) -> Result<()> {
        let container = self.load(id)?;
        container.allow(Verb::Events)?;
        stats(&container, &container.cgroup()?, report)
    }

    /// Reports what a container uses every `interval`, and when the kernel kills in it for lack of memory, until the
    /// container ends.
    ///
    /// # Errors
    /// The container is not running, or its cgroup cannot be watched.
    pub fn events(&self, id: &str, interval: Duration, report: Report) -> Result<()> {
        let container = self.load(id)?;
        container.allow(Verb::Events)?;
        let Some(init) = container.init()? else { return Ok(()) };
        let cgroup = container.cgroup()?;
        let mut watch = cgroup.watch_oom().map_err(|error| Error::cgroup("unable to follow events", &error))?;
        let mut next = Instant::now() + interval;
        loop {
            match wait(&mut watch, &init, next)? {
                Seen::End => return Ok(()),
                Seen::Oom => report(&Event { kind: "oom", id, data: None })?,
                Seen::Nothing => {}
            }
            if Instant::now() >= next {
                next += interval;
                if let Err(error) = stats(&container, &cgroup, report) {
                    self.log.error(error);
                }
            }
        }
    }
}

enum Seen {
    Oom,
    End,
    Nothing,
}

/// Waits for something to happen, at most until `next`.
fn wait(watch: &mut OomWatch, init: &OwnedFd, next: Instant) -> Result<Seen> {
    let mut fds = vec![(init.as_fd(), POLLIN, 0)];
    fds.extend(watch.fds().into_iter().map(|(fd, events)| (fd, events, 0)));
    poll(&mut fds, Some(next.saturating_duration_since(Instant::now())))
        .map_err(|error| Error::io("wait for events", &error.into()))?;
    let (ended, happened) = (fds[0].2 != 0, fds[1..].iter().any(|(_, _, ready)| *ready != 0));
    if happened {
        return match watch.read().map_err(|error| Error::cgroup("unable to follow events", &error))? {
            Some(OomEvent::Oom) => Ok(Seen::Oom),
            Some(OomEvent::Gone) => Ok(Seen::End),
            None => Ok(Seen::Nothing),
        };
    }
    Ok(if ended { Seen::End } else { Seen::Nothing })
}

fn stats(container: &Container, cgroup: &Cgroup, report: Report) -> Result<()> {
    let stats = cgroup.stats().map_err(|error| Error::cgroup("unable to get the container's stats", &error))?;
    report(&Event { kind: "stats", id: &container.state.id, data: Some(&stats) })
}
