//! One verb at a time changes a container.
//!
//! The lock is `flock(2)` on the state directory: the kernel releases it when its holder dies, however it dies, and
//! the directory is there as long as the container is. A child of the holder shares the lock until it closes the
//! descriptor, so the stages of a container's process close it first of all.

use crate::{Error, Kind, Result};
use offshoot_sys::libc::LOCK_EX;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Exclusive right to change a container, until dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock of the container whose state is in `dir`.
    ///
    /// # Errors
    /// The container does not exist, or no longer when the wait is over.
    pub fn take(dir: &Path) -> Result<Lock> {
        let file = File::open(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::NotFound, "container does not exist"),
            _ => Error::io(format_args!("open {}", dir.display()), &error),
        })?;
        offshoot_sys::path::flock(&file, LOCK_EX)
            .map_err(|error| Error::io(format_args!("lock {}", dir.display()), &error.into()))?;
        // Whoever held the lock before may have deleted the container, and another may have made a new one of the
        // same name since: this lock is then on a directory without a name.
        match file.metadata() {
            Ok(meta) if meta.nlink() > 0 => Ok(Lock(file)),
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
    use std::time::Duration;

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
