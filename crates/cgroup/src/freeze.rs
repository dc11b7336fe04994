//! Freezing and thawing.

use crate::dir::Dir;
use crate::make::Joined;
use crate::{Cgroup, Error, Result};
use offshoot_sys::Errno;
use std::time::{Duration, Instant};

/// How often v1 is asked again at once; after that a process has to get a processor before it can stop.
const QUICK: u32 = 50;
/// After so many attempts v1 begins anew: its freezer misses processes that are forked meanwhile.
const AGAIN: u32 = 200;
/// How long it may take: a process in an uninterruptible call stops only after it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process in the cgroup, and waits until all have.
    ///
    /// # Errors
    /// When there is no freezer, or some do not stop; they run on then.
    pub fn freeze(&self) -> Result<()> {
        let frozen = match self.freezer()? {
            Freezer::V1(dir) => freeze_v1(dir),
            Freezer::V2(dir) => freeze_v2(dir),
        };
        if frozen.is_err() {
            // Half frozen, a container can be neither used nor killed.
            let _ = self.thaw();
        }
        frozen.map_err(|e| e.while_doing("failed to freeze cgroup"))
    }

    /// Lets the processes run again. Again is fine.
    ///
    /// # Errors
    /// When there is no freezer.
    pub fn thaw(&self) -> Result<()> {
        let thawed = match self.freezer()? {
            Freezer::V1(dir) => dir.write("freezer.state", "THAWED"),
            Freezer::V2(dir) => dir.write("cgroup.freeze", "0"),
        };
        thawed.map_err(|e| e.while_doing("failed to thaw cgroup"))
    }

    /// Whether the cgroup was frozen; that an ancestor was does not count. False without a freezer.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn frozen(&self) -> Result<bool> {
        self.hierarchy("freezer").or_else(|| self.pure_v2()).map_or(Ok(false), is_frozen)
    }

    fn freezer(&self) -> Result<Freezer<'_>> {
        match (self.hierarchy("freezer"), self.pure_v2()) {
            (Some(joined), _) => Ok(Freezer::V1(&joined.dir)),
            (None, Some(joined)) => Ok(Freezer::V2(&joined.dir)),
            (None, None) => Err(Error::new("cannot toggle freezer: cgroups not configured for container")),
        }
    }

    /// The unified hierarchy, also where a hybrid host has no v1 freezer.
    fn pure_v2(&self) -> Option<&Joined> {
        self.hierarchy("")
    }
}

enum Freezer<'a> {
    V1(&'a Dir),
    V2(&'a Dir),
}

/// Whether this very directory is frozen. A hierarchy without a freezer never is.
pub(crate) fn is_frozen(joined: &Joined) -> Result<bool> {
    let unified = joined.hierarchy.is_unified();
    if !unified && !joined.hierarchy.controllers.iter().any(|c| c == "freezer") {
        return Ok(false);
    }
    // `freezer.state` is FROZEN below a frozen ancestor, too.
    let file = if unified { "cgroup.freeze" } else { "freezer.self_freezing" };
    match joined.dir.read(file) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(e) if e.is_absent() => Ok(false),
        Err(e) => Err(e),
    }
}

/// The kernel says FREEZING while some are still running; it tries again each time it is asked. When processes keep
/// appearing, thawing in between helps. kernel: cgroup-v1/freezer-subsystem.rst
fn freeze_v1(dir: &Dir) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    for attempt in 1.. {
        dir.write("freezer.state", "FROZEN")?;
        match dir.read("freezer.state")?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" if Instant::now() >= end => break,
            "FREEZING" => {}
            other => return Err(Error::new(format!("unexpected state {other} while freezing"))),
        }
        if attempt % AGAIN == 0 {
            dir.write("freezer.state", "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        } else if attempt > QUICK {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Err(Error::new("unable to freeze"))
}

fn freeze_v2(dir: &Dir) -> Result<()> {
    match dir.write("cgroup.freeze", "1") {
        Err(e) if e.errno() == Some(Errno::ENOENT) => return Err(e.while_doing("freezer not supported")),
        done => done?,
    }
    if dir.wait_event("frozen", 1, PATIENCE)? {
        return Ok(());
    }
    Err(Error::new(format!("timeout of {} s reached waiting for the cgroup to freeze", PATIENCE.as_secs())))
}
