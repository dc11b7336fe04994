//! `$NOTIFY_SOCKET`: a container's process tells the caller's service manager that it is ready. man 3 sd_notify
//!
//! The container sees a socket of its own. Only `READY=` is passed on, and the process number that goes with it is
//! set here: what else a service may say (to store descriptors, to name another main process) is not a container's
//! to ask for.

use crate::{Error, Result, cause};
use offshoot_engine::log::Log;
use offshoot_sys::event::{self, POLLHUP, POLLIN};
use offshoot_sys::{pidfd, socket};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the service manager may take to say that it read everything, as systemd's own library waits.
const BARRIER: Duration = Duration::from_secs(30);

/// The socket between a container and the service manager.
#[derive(Debug)]
pub struct Notify {
    /// None if only this process wants to know.
    manager: Option<PathBuf>,
    socket: UnixDatagram,
}

/// Makes the directory `notify` in the state directory, which the container gets at `/run/notify`.
///
/// # Errors
/// The directory cannot be made.
pub(crate) fn make_directory(state_dir: &Path) -> Result<()> {
    let dir = state_dir.join("notify");
    let made = DirBuilder::new().mode(0o755).create(&dir);
    made.and_then(|()| fs::set_permissions(&dir, Permissions::from_mode(0o755)))
        .map_err(|error| Error::io(format_args!("make {}", dir.display()), &error))
}

/// Whether this process has a service manager to tell.
pub fn is_wanted() -> bool {
    manager().is_some()
}

/// The service manager's socket.
fn manager() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Notify {
    /// Opens the socket in `<state_dir>/notify`, if `create` made the directory and this process has a service
    /// manager.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(state_dir: &Path) -> Result<Option<Notify>> {
        manager().map_or(Ok(None), |manager| Notify::open(state_dir, Some(manager)))
    }

    /// The same for this process, whether or not there is a service manager.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(state_dir: &Path) -> Result<Option<Notify>> {
        Notify::open(state_dir, manager())
    }

    fn open(state_dir: &Path, manager: Option<PathBuf>) -> Result<Option<Notify>> {
        let dir = state_dir.join("notify");
        let path = dir.join("notify.sock");
        let failed = |error: &io::Error| Error::io(format_args!("listen on {}", path.display()), error);
        let opened = match File::open(&dir) {
            // The container was created without a service manager, and has no socket to write to.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| failed(&error))?,
        };
        // An address holds 107 bytes; through a descriptor of the directory any path is short.
        let short = format!("/proc/self/fd/{}/notify.sock", opened.as_raw_fd());
        let socket = UnixDatagram::bind(&short).map_err(|error| failed(&error))?;
        // Whoever the process is in the container may write.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(|error| failed(&error))?;
        Ok(Some(Notify { manager, socket }))
    }

    /// That of another process, which listened.
    pub fn of(socket: OwnedFd) -> Notify {
        Notify { manager: None, socket: socket.into() }
    }

    /// Readable when the container said something.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits until the container's process says that it is ready, no longer than `patience`; false if it did not, or is
    /// gone.
    ///
    /// # Errors
    /// The socket cannot be read.
    pub(crate) fn wait_ready(&self, process: BorrowedFd, patience: Duration) -> Result<bool> {
        let failed = |error: offshoot_sys::Error| Error::io("wait until the container is ready", &error.into());
        let end = Instant::now() + patience;
        loop {
            let mut fds = [(self.socket.as_fd(), POLLIN, 0), (process, POLLIN, 0)];
            let left = end.saturating_duration_since(Instant::now());
            event::poll(&mut fds, Some(left)).map_err(failed)?;
            let [(_, _, said), (_, _, gone)] = fds;
            if said != 0 && self.relay(std::process::id())? {
                return Ok(true);
            }
            if gone != 0 || left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Reads one message. If it says that the container is ready, tells the service manager, and that `main` is the
    /// process to watch; returns whether it did.
    ///
    /// # Errors
    /// The service manager's socket refuses.
    pub fn relay(&self, main: u32) -> Result<bool> {
        let mut buffer = [0; 4096];
        let length =
            self.socket.recv(&mut buffer).map_err(|error| Error::io("read what the container says", &error))?;
        let Some(ready) = ready(&buffer[..length]) else { return Ok(false) };
        let Some(manager) = &self.manager else { return Ok(true) };
        let failed = |error: &io::Error| Error::io(format_args!("notify {}", manager.display()), error);
        let client = connect(manager).map_err(|error| failed(&error))?;
        let message = [ready, format!("\nMAINPID={main}\n").as_bytes()].concat();
        client.send(&message).map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Waits until the container is ready or its process `pid` is gone; then until the service manager has read the
    /// news, since it may not accept them from a process that no longer exists.
    ///
    /// # Errors
    /// The service manager's socket refuses.
    pub fn wait(&self, pid: i32, log: &Log) -> Result<()> {
        let failed = |error: offshoot_sys::Error| Error::io("wait until the container is ready", &error.into());
        // A process that is gone cannot become ready.
        let Ok(process) = pidfd::open(pid) else { return Ok(()) };
        loop {
            let mut fds = [(self.socket.as_fd(), POLLIN, 0), (process.as_fd(), POLLIN, 0)];
            event::poll(&mut fds, None).map_err(failed)?;
            let [(_, _, said), (_, _, gone)] = fds;
            if said != 0 && self.relay(pid.unsigned_abs())? {
                return self.barrier(log);
            }
            if gone != 0 {
                return Ok(());
            }
        }
    }

    /// sd_notify_barrier(3): the service manager closes the pipe once it has worked through what came before.
    fn barrier(&self, log: &Log) -> Result<()> {
        let Some(manager) = &self.manager else { return Ok(()) };
        let failed = |error: &io::Error| Error::io(format_args!("notify {}", manager.display()), error);
        let client = connect(manager).map_err(|error| failed(&error))?;
        let (reader, writer) = event::pipe().map_err(|error| failed(&error.into()))?;
        socket::send(&client, b"BARRIER=1", &[writer.as_fd()]).map_err(|error| failed(&error.into()))?;
        drop(writer);
        let mut fds = [(reader.as_fd(), POLLIN | POLLHUP, 0)];
        match event::poll(&mut fds, Some(BARRIER)) {
            Ok(0) => log.warn("the service manager did not answer a barrier within 30 s"),
            Ok(_) => {}
            Err(error) => log.warn(cause(&std::io::Error::from(error))),
        }
        Ok(())
    }
}

/// Remembers, as long as the container is there, that it has said that it is ready.
///
/// # Errors
/// The file cannot be made.
pub fn mark(state_dir: &Path) -> Result<()> {
    let file = state_dir.join("ready");
    File::create(&file).map(drop).map_err(|error| Error::io(format_args!("make {}", file.display()), &error))
}

/// Whether a container is ready, of one that was made to say it.
pub fn is_ready(state_dir: &Path) -> Option<bool> {
    state_dir.join("notify").exists().then(|| state_dir.join("ready").exists())
}

/// The line `READY=…` of a message that begins with it.
fn ready(message: &[u8]) -> Option<&[u8]> {
    message.split(|&byte| byte == b'\n').next().filter(|line| line.starts_with(b"READY="))
}

fn connect(manager: &Path) -> io::Result<UnixDatagram> {
    let client = UnixDatagram::unbound()?;
    match manager.as_os_str().as_bytes() {
        [b'@', name @ ..] => client.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => client.connect(manager)?,
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn only_a_message_that_begins_with_ready_is_one() {
        assert_eq!(ready(b"READY=1\nMAINPID=1\n"), Some(&b"READY=1"[..]));
        assert_eq!(ready(b"STATUS=x\nREADY=1"), None);
        assert_eq!(ready(b""), None);
    }

    #[test]
    fn readiness_is_passed_on_with_the_right_process() {
        let scratch = Scratch::new("notify");
        let manager = scratch.path().join("manager");
        let listener = UnixDatagram::bind(&manager).unwrap();
        let path = scratch.path().join("container");
        let notify = Notify { manager: Some(manager), socket: UnixDatagram::bind(&path).unwrap() };
        let container = UnixDatagram::unbound().unwrap();
        container.send_to(b"FDSTORE=1", &path).unwrap();
        assert!(!notify.relay(7).unwrap());
        container.send_to(b"READY=1\nMAINPID=1", &path).unwrap();
        assert!(notify.relay(7).unwrap());
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nMAINPID=7\n");
    }
}
