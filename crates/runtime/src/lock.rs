//! One verb at a time changes a container.
//!
//! The lock is `flock(2)` on the state directory: the kernel releases it when its holder dies, however it dies, and
//! the directory is there as long as the container is. A child of the holder shares the lock until it closes the
//! descriptor, so the stages of a container's process close it first of all.

use crate::{Error, Kind, Result};
use offshoot_sys::Errno;
use offshoot_sys::libc::{LOCK_EX, LOCK_NB};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Exclusive right to change a container, until dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock of the container whose state is in `dir`.
    ///
    /// # Errors
    /// The container does not exist, or no longer when the wait is over.
    pub fn take(dir: &Path) -> Result<Lock> {
        // A call that waits does not return without the lock.
        Lock::attempt(dir, LOCK_EX)?.ok_or_else(|| Error::new(Kind::System, "failed to lock the container"))
    }

    /// Takes the lock, but waits no longer than `patience`.
    ///
    /// # Errors
    /// As [`Lock::take`]; or another verb still holds it.
    pub fn take_within(dir: &Path, patience: Duration) -> Result<Lock> {
        let end = Instant::now() + patience;
        loop {
            match Lock::attempt(dir, LOCK_EX | LOCK_NB)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() >= end => {
                    let message =
                        format!("failed to lock {}: another command is changing the container", dir.display());
                    return Err(Error::new(Kind::System, message));
                }
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    /// `None` if somebody else holds it and `operation` does not wait.
    fn attempt(dir: &Path, operation: i32) -> Result<Option<Lock>> {
        let file = File::open(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::NotFound, "container does not exist"),
            _ => Error::io(format_args!("open {}", dir.display()), &error),
        })?;
        match offshoot_sys::path::flock(&file, operation) {
            Err(error) if error.errno() == Errno::EWOULDBLOCK => return Ok(None),
            Err(error) => return Err(Error::io(format_args!("lock {}", dir.display()), &error.into())),
            Ok(()) => {}
        }
        // Whoever held the lock before may have deleted the container, and another may have made a new one of the
        // same name since: this lock is then on a directory without a name.
        match file.metadata() {
            Ok(meta) if meta.nlink() > 0 => Ok(Some(Lock(file))),
            _ => Err(Error::new(Kind::NotFound, "container does not exist")),
        }
    }

    /// The descriptor of the state directory.
    pub fn directory(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::sync::mpsc;

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let scratch = Scratch::new("lock");
        let first = Lock::take(scratch.path()).unwrap();
        let path = scratch.path().to_owned();
        let (send, receive) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let lock = Lock::take(&path);
            send.send(()).unwrap();
            lock.is_ok()
        });
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err(), "did not wait");
        assert!(Lock::take_within(scratch.path(), Duration::from_millis(20)).is_err());
        drop(first);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn what_is_gone_cannot_be_locked() {
        let scratch = Scratch::new("gone");
        let inner = scratch.path().join("inner");
        assert_eq!(Lock::take(&inner).unwrap_err().kind(), Kind::NotFound);
        std::fs::create_dir(&inner).unwrap();
        let held = Lock::take(&inner).unwrap();
        let waiting = inner.clone();
        let waiter = std::thread::spawn(move || Lock::take(&waiting).map_err(|error| error.kind()));
        std::thread::sleep(Duration::from_millis(30));
        std::fs::remove_dir(&inner).unwrap();
        drop(held);
        assert_eq!(waiter.join().unwrap().err(), Some(Kind::NotFound));
    }
}
