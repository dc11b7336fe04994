//! Being told when the kernel kills for lack of memory.

use crate::dir::{Dir, find_key, read_open, rewind};
use crate::{Cgroup, Error, Result};
use offshoot_sys::{event, path};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What a watch saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// A process was killed, or on v1 the limit was hit.
    Oom,
    /// No process is left, or the cgroup is gone: nothing will come any more.
    Gone,
}

/// A watch on the out-of-memory killer.
#[derive(Debug)]
pub struct OomWatch(Watch);

#[derive(Debug)]
enum Watch {
    V1 { signal: OwnedFd, dir: Dir, _control: OwnedFd },
    V2 { memory: OwnedFd, cgroup: OwnedFd, kills: u64 },
}

impl Cgroup {
    /// Watches the cgroup from now on.
    ///
    /// # Errors
    /// When memory is not accounted here, or the cgroup is gone.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let watch = match (self.hierarchy("memory"), self.hierarchy("")) {
            (Some(joined), _) => watch_v1(&joined.dir),
            (None, Some(joined)) => watch_v2(&joined.dir),
            (None, None) => Err(Error::new("no memory controller")),
        };
        watch.map(OomWatch).map_err(|e| e.while_doing("failed to watch for out-of-memory events"))
    }
}

/// kernel: cgroup-v1/memory.rst, "OOM Control". The eventfd counts; it also goes off when the cgroup is removed.
fn watch_v1(dir: &Dir) -> Result<Watch> {
    let signal = event::eventfd(0, 0).map_err(|e| Error::system("eventfd", e.errno()))?;
    let control = dir.open("memory.oom_control", libc::O_RDONLY)?;
    dir.write("cgroup.event_control", &format!("{} {}", signal.as_raw_fd(), control.as_raw_fd()))?;
    Ok(Watch::V1 { signal, dir: dir.child("".as_ref())?, _control: control })
}

/// kernel: cgroup-v2.rst, "memory.events": whoever polls the file is woken by each change.
fn watch_v2(dir: &Dir) -> Result<Watch> {
    let memory = dir.open("memory.events", libc::O_RDONLY)?;
    let cgroup = dir.open("cgroup.events", libc::O_RDONLY)?;
    let kills = find_key(&read_open(&memory)?, "oom_kill").unwrap_or(0);
    let mut watch = Watch::V2 { memory, cgroup, kills };
    // A file that was never read is always reported as changed.
    watch.populated()?;
    Ok(watch)
}

impl Watch {
    fn populated(&mut self) -> Result<bool> {
        let Watch::V2 { cgroup, .. } = self else { return Ok(true) };
        rewind(cgroup)?;
        Ok(find_key(&read_open(cgroup)?, "populated") == Some(1))
    }
}

impl OomWatch {
    /// The descriptors to poll, each with its events.
    #[must_use]
    pub fn fds(&self) -> Vec<(BorrowedFd<'_>, i16)> {
        match &self.0 {
            Watch::V1 { signal, .. } => vec![(signal.as_fd(), event::POLLIN)],
            Watch::V2 { memory, cgroup, .. } => {
                vec![(memory.as_fd(), event::POLLPRI), (cgroup.as_fd(), event::POLLPRI)]
            }
        }
    }

    /// What happened, after one of the descriptors was reported; nothing when it was of no matter.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read(&mut self) -> Result<Option<OomEvent>> {
        let seen = match &mut self.0 {
            Watch::V1 { signal, dir, .. } => path::read(signal, &mut [0; 8])
                .map_err(|e| Error::system("read eventfd", e.errno()))
                .map(|_| match dir.open("cgroup.event_control", libc::O_WRONLY) {
                    Ok(_) => Some(OomEvent::Oom),
                    Err(_) => Some(OomEvent::Gone),
                }),
            Watch::V2 { memory, kills, .. } => rewind(memory).and_then(|()| read_open(memory)).map(|text| {
                let now = find_key(&text, "oom_kill").unwrap_or(0);
                let more = now > *kills;
                *kills = now;
                more.then_some(OomEvent::Oom)
            }),
        };
        match seen {
            Ok(None) => match self.0.populated() {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(OomEvent::Gone)),
                Err(e) if e.is_absent() => Ok(Some(OomEvent::Gone)),
                Err(e) => Err(e),
            },
            Err(e) if e.is_absent() => Ok(Some(OomEvent::Gone)),
            seen => seen,
        }
    }

    /// The next event; nothing when `timeout` passes without one.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<OomEvent>> {
        let end = timeout.map(|timeout| std::time::Instant::now() + timeout);
        loop {
            let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
            let mut fds: Vec<_> = self.fds().into_iter().map(|(fd, events)| (fd, events, 0)).collect();
            let ready = event::poll(&mut fds, left).map_err(|e| Error::system("poll", e.errno()))?;
            if ready == 0 {
                return Ok(None);
            }
            if let Some(seen) = self.read()? {
                return Ok(Some(seen));
            }
        }
    }
}
