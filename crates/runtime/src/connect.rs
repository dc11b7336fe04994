//! How a process and its caller are connected: terminal, pidfd, pid file.

use crate::{Error, Kind, Result, pidfile};
use offshoot_sys::{socket, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a caller wants to get of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Socket to which the terminal's master goes, of a process whose caller does not wait for it.
    pub console_socket: Option<PathBuf>,
    /// Socket to which a pidfd goes.
    pub pidfd_socket: Option<PathBuf>,
    /// File for the process's number.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process gets, beside those of `$LISTEN_FDS`.
    pub preserve_fds: u32,
}

impl Connections {
    /// Tells the caller which process it is. `payload` is `standard` for a container's first, `setns` for a further
    /// one.
    ///
    /// # Errors
    /// The socket or the file cannot be written.
    pub fn announce(&self, pid: i32, pidfd: BorrowedFd, payload: &str) -> Result<()> {
        if let Some(path) = &self.pidfd_socket {
            let sent = connect(path)
                .and_then(|socket| socket::send(&socket, payload.as_bytes(), &[pidfd]).map_err(std::io::Error::from));
            sent.map_err(|error| Error::io(format_args!("send the pidfd to {}", path.display()), &error))?;
        }
        self.pid_file.as_deref().map_or(Ok(()), |path| pidfile::write(path, pid))
    }
}

/// Where the process sends its terminal's master.
#[derive(Debug)]
pub enum Console {
    /// It has no terminal.
    None,
    /// To a program that the caller runs.
    Socket(OwnedFd),
    /// To this process, which copies.
    Own {
        /// The end to receive from.
        ours: OwnedFd,
        /// The process's end.
        theirs: OwnedFd,
    },
}

impl Console {
    /// Prepares for a process with or without a `terminal`. A process whose caller does not wait (`detached`) needs
    /// a socket for it; another one must not have any.
    ///
    /// # Errors
    /// In runc's words; or the socket cannot be connected.
    pub fn open(terminal: bool, detached: bool, path: Option<&Path>) -> Result<Console> {
        let wrong = |text| Err(Error::new(Kind::Request, text));
        match (terminal && detached, path) {
            (true, None) => wrong("cannot allocate tty if offshoot will detach without setting console socket"),
            (false, Some(_)) => wrong("cannot use console socket if offshoot will not detach or allocate tty"),
            (true, Some(path)) => socket::connect_unix_soon(path).map(Console::Socket).map_err(|error| {
                Error::io(format_args!("connect to the console socket {}", path.display()), &error.into())
            }),
            (false, None) if terminal => {
                let pair = socket::stream_pair().map_err(|error| Error::io("make a console socket", &error.into()));
                pair.map(|(ours, theirs)| Console::Own { ours, theirs })
            }
            (false, None) => Ok(Console::None),
        }
    }

    /// The process's end, to be handed to the engine, and the end to receive the master from, if that is here.
    pub fn split(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        match self {
            Console::None => (None, None),
            Console::Socket(socket) => (Some(socket), None),
            Console::Own { ours, theirs } => (Some(theirs), Some(ours)),
        }
    }
}

/// Receives the terminal's master. The process that sends it is half in the container, so what comes is looked at.
///
/// # Errors
/// Something else came, or nothing.
pub fn receive_master(socket: impl AsFd) -> Result<OwnedFd> {
    let failed = |error: offshoot_sys::Error| Error::io("receive the terminal", &error.into());
    let mut name = [0; 4096];
    let (_, mut fds) = socket::recv(socket, &mut name).map_err(failed)?;
    match (fds.pop(), fds.pop()) {
        (Some(master), None) if tty::number(&master).is_ok() => Ok(master),
        _ => Err(Error::new(Kind::System, "failed to receive the terminal: the process sent none")),
    }
}

fn connect(path: &Path) -> std::io::Result<OwnedFd> {
    socket::connect_unix(path).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use offshoot_sys::libc::{O_NOCTTY, O_RDWR};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_terminal_without_a_reader_is_refused_and_the_reverse() {
        let text = |terminal, detached, path: Option<&str>| {
            Console::open(terminal, detached, path.map(Path::new)).unwrap_err().to_string()
        };
        assert!(text(true, true, None).contains("without setting console socket"));
        for (terminal, detached) in [(true, false), (false, true), (false, false)] {
            assert!(text(terminal, detached, Some("/x")).contains("cannot use console socket"));
        }
        assert!(matches!(Console::open(false, true, None).unwrap(), Console::None));
    }

    #[test]
    fn a_console_socket_may_come_late() {
        let scratch = Scratch::new("late");
        let path = scratch.path().join("socket");
        let text = Console::open(true, true, Some(&path)).unwrap_err().to_string();
        assert!(text.contains("failed to connect to the console socket") && text.contains("no such file"), "{text}");
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| Console::open(true, true, Some(&path)));
            std::thread::sleep(std::time::Duration::from_millis(20));
            let _listener = UnixListener::bind(&path).unwrap();
            assert!(opened.join().unwrap().is_ok());
        });
    }

    #[test]
    fn a_master_comes_through_the_pair() {
        let (theirs, ours) = Console::open(true, false, None).unwrap().split();
        let (theirs, ours) = (theirs.unwrap(), ours.unwrap());
        let master = offshoot_sys::path::open("/dev/ptmx", O_RDWR | O_NOCTTY, 0).unwrap();
        socket::send(&theirs, b"/dev/pts/0", &[master.as_fd()]).unwrap();
        assert!(receive_master(&ours).is_ok());
        socket::send(&theirs, b"x", &[ours.as_fd()]).unwrap();
        assert!(receive_master(&ours).is_err());
        drop(theirs);
        assert!(receive_master(&ours).is_err());
    }

    #[test]
    fn a_process_is_announced() {
        let scratch = Scratch::new("announce");
        let path = scratch.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let connections = Connections {
            pidfd_socket: Some(path),
            pid_file: Some(scratch.path().join("pid")),
            ..Connections::default()
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        let pidfd = offshoot_sys::pidfd::open(pid).unwrap();
        connections.announce(pid, pidfd.as_fd(), "standard").unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut payload = [0; 16];
        let (length, fds) = socket::recv(&stream, &mut payload).unwrap();
        assert_eq!((&payload[..length], fds.len()), (&b"standard"[..], 1));
        assert_eq!(std::fs::read_to_string(scratch.path().join("pid")).unwrap(), pid.to_string());
    }
}
