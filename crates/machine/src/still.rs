//! A machine that stands still for a moment, and goes on whatever becomes of the process that stopped it.
//!
//! A frozen cgroup stays frozen when nobody is left to thaw it. So a child outlives the process that froze it, and thaws the
//! machine should that one end with its work undone (killed, interrupted); and what stands still is written down with a lock
//! that both hold, so that the next command finds it where both were killed at once.

use crate::error::{Error, Result};
use crate::machines::Machines;
use offshoot_runtime::Status;
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::fork::{self, Child};
use offshoot_sys::libc::{self, LOCK_EX, LOCK_NB, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use offshoot_sys::{Errno, fsattr, path, pidfd, process};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the names of records end with.
const ENDING: &str = ".still";

/// What a child that is to outlive its maker must not hear.
const ENDS: [i32; 4] = [SIGINT, SIGTERM, SIGQUIT, SIGHUP];

impl Machines {
    /// Does `work` while a machine that runs stands still. The caller has its lock.
    pub(crate) fn still<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let record = Record::make(&self.run(), name)?;
        let guard = self.guard(name)?;
        let frozen = self.runtime.pause(name).map_err(Error::from);
        let done = frozen.and_then(|()| work());
        let resumed = self.go_on(name);
        guard.dismiss();
        // One that still stands is for the next command.
        resumed.inspect(|()| record.remove())?;
        done
    }

    /// Lets machines go on that stand still because whoever stopped them is gone, and nobody else has seen to it.
    ///
    /// # Errors
    /// One cannot be thawed.
    pub fn thaw_left(&self) -> Result<()> {
        let run = self.run();
        let Ok(entries) = fs::read_dir(&run) else { return Ok(()) };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(ENDING)) else { continue };
            if let Some(record) = Record::left(&run, name)? {
                self.runtime.log.warn(format_args!("machine {name:?} stood still for a command that was killed"));
                self.go_on(name)?;
                record.remove();
            }
        }
        Ok(())
    }

    /// Thaws a machine, if it is there and frozen.
    fn go_on(&self, name: &str) -> Result<()> {
        let Some(container) = self.container(name)? else { return Ok(()) };
        let paused = container.status()? == Status::Paused;
        drop(container);
        if paused { self.runtime.resume(name).map_err(Error::from) } else { Ok(()) }
    }

    /// Makes the child that sees to it.
    fn guard(&self, name: &str) -> Result<Guard> {
        let (told, tell) = event::pipe()?;
        // By its descriptor, as the pipe's other end is open in the child, too.
        let owner = pidfd::open(process::getpid())?;
        // What ends a command at a terminal is meant for all of its processes. From before the fork on: it may come at once.
        event::block_signals(&ENDS)?;
        let made = fork::fork(0, None, || {
            let _ = process::setsid().and_then(|()| process::set_name(c"offshoot-thaw"));
            let mut fds = [(told.as_fd(), POLLIN, 0), (owner.as_fd(), POLLIN, 0)];
            while event::poll(&mut fds, None).is_err() {}
            match fds[0].2 {
                0 => i32::from(self.go_on(name).is_err()),
                _ => 0,
            }
        });
        event::unblock_signals(&ENDS)?;
        Ok(Guard { child: made?, tell })
    }
}

/// How long what a guest has written may take to reach the disk while it runs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// And while it stands still, when next to nothing is left.
pub(crate) const PATIENCE_STILL: Duration = Duration::from_secs(30);

/// Writes to disk what the guest of init `pid` has written to its root. That may have become a file system that the guest serves
/// itself (FUSE), and never answers: least of all while it stands still.
pub(crate) fn sync(pid: i32, patience: Duration) -> Result<()> {
    let written = fork::within(patience, || {
        let root = path::open(format!("/proc/{pid}/root"), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        fsattr::syncfs(&root)
    });
    written.map_err(|error| match error.errno() {
        Errno::ETIMEDOUT => Error::failed(
            "write what it has written to disk",
            format_args!("its root has not answered for {} s", patience.as_secs()),
        )
        .hint("a snapshot of a machine that is stopped does not need its answer"),
        _ => Error::failed("write what it has written to disk", error),
    })
}

/// The child that outlives its maker.
struct Guard {
    child: Child,
    tell: OwnedFd,
}

impl Guard {
    fn dismiss(self) {
        // One that is gone has nothing to be told.
        let _ = path::write_all(&self.tell, b"x").and_then(|()| fork::wait(&self.child.pidfd).map(drop));
    }
}

/// The file `<run>/NAME.still`, locked by whoever keeps the machine.
struct Record {
    path: PathBuf,
    /// Shared with the child, which has it from the fork.
    _lock: File,
}

impl Record {
    fn make(run: &Path, name: &str) -> Result<Record> {
        let path = run.join(format!("{name}{ENDING}"));
        let failed = |error: &io::Error| Error::io(format_args!("write {}", path.display()), error);
        loop {
            let opened = File::options().create(true).write(true).truncate(false).open(&path);
            let file = opened.map_err(|error| failed(&error))?;
            path::flock(&file, LOCK_EX)?;
            // Whoever had it may have removed it.
            if is_at(&file, &path) {
                return Ok(Record { path, _lock: file });
            }
        }
    }

    /// The record of a machine whose keepers are gone.
    fn left(run: &Path, name: &str) -> Result<Option<Record>> {
        let path = run.join(format!("{name}{ENDING}"));
        let Ok(file) = File::open(&path) else { return Ok(None) };
        match path::flock(&file, LOCK_EX | LOCK_NB) {
            Err(error) if error.errno() == offshoot_sys::Errno::EWOULDBLOCK => Ok(None),
            locked => {
                locked?;
                Ok(is_at(&file, &path).then_some(Record { path, _lock: file }))
            }
        }
    }

    fn remove(&self) {
        // One that stays is looked at again, and finds a machine that goes on.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    file.metadata().map(id).ok() == fs::metadata(path).map(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_record_is_left_when_nobody_holds_it() {
        let scratch = Scratch::new("still");
        let run = scratch.path();
        assert!(Record::left(run, "a").unwrap().is_none());
        let held = Record::make(run, "a").unwrap();
        assert!(Record::left(run, "a").unwrap().is_none());
        drop(held);
        let left = Record::left(run, "a").unwrap().unwrap();
        left.remove();
        assert!(Record::left(run, "a").unwrap().is_none() && !run.join("a.still").exists());
        // A record that is taken away while one waits for it is made again.
        drop(left);
        assert!(is_at(&File::open(Record::make(run, "a").unwrap().path).unwrap(), &run.join("a.still")));
    }
}
