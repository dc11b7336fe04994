//! What the supervisor and its callers say to each other, and what it writes down.

use crate::error::{Error, Result};
use crate::home::{self, VERSION};
use offshoot_sys::{path, socket};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest message: the names of more machines than a host can hold.
const LONGEST: usize = 1 << 20;

/// What a caller asks for. The descriptors that go with it are in the order of the comment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Start these; with it goes the caller's stderr, for warnings. Answered by one [`Started`] each, then the end.
    Start {
        /// The machines.
        names: Vec<String>,
        /// Which these are: see `Home::birth`. A start that was slow must not be another machine's, of the same name.
        #[serde(default)]
        births: Vec<String>,
        /// Whether to log how things are done.
        debug: bool,
    },
    /// These are being stopped: they are neither restarted nor cleared away. Answered by the end.
    LeaveAlone {
        /// The machines.
        names: Vec<String>,
    },
    /// Copy this one's console to and from the connection. Answered by [`Granted`], with the terminal for its size.
    Console {
        /// The machine.
        name: String,
    },
}

/// What became of one machine that was to be started.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Its name.
    pub name: String,
    /// Why it does not run.
    pub error: Option<Error>,
}

/// Whether a console can be had.
#[derive(Debug, Serialize, Deserialize)]
pub struct Granted {
    /// Why it cannot.
    pub error: Option<Error>,
}

/// Sends a message with its length in front; `fds` go with the length.
pub fn send(to: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd]) -> Result<()> {
    let text = serde_json::to_vec(message).map_err(|error| Error::failed("write a message", error))?;
    let length = (text.len() as u32).to_ne_bytes();
    // A stream may take a part only, but never nothing, and the descriptors go with the first byte.
    let sent = socket::send(&to, &length, fds)?;
    path::write_all(&to, &length[sent..])?;
    Ok(path::write_all(&to, &text)?)
}

/// Receives a message and the descriptors with it; `None` at the end of the stream.
pub fn receive<T: DeserializeOwned>(from: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let (mut have, fds) = socket::recv(&from, &mut length)?;
    if have == 0 {
        return Ok(None);
    }
    let cut = || Error::failed("read a message", "it is cut short");
    while have < length.len() {
        match path::read(&from, &mut length[have..])? {
            0 => return Err(cut()),
            more => have += more,
        }
    }
    let length = u32::from_ne_bytes(length) as usize;
    if length > LONGEST {
        return Err(Error::failed("read a message", "it is too long"));
    }
    let mut text = vec![0; length];
    let mut have = 0;
    while have < length {
        match path::read(&from, &mut text[have..])? {
            0 => return Err(cut()),
            more => have += more,
        }
    }
    let message = serde_json::from_slice(&text).map_err(|error| Error::failed("read a message", error))?;
    Ok(Some((message, fds)))
}

/// The way from a process that starts a machine to the supervisor.
#[derive(Debug)]
pub struct Hand(OwnedFd);

/// A machine that is about to run; with it go its init's descriptor, where it has one its console, and where its init says when
/// it is ready the socket for that.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its init.
    pub pid: i32,
    /// Whether its console is there.
    pub console: bool,
    /// Whether the socket is.
    pub notify: bool,
    /// Interfaces of the host that it has.
    pub devices: Vec<String>,
}

impl Given {
    /// What came with it: console and socket.
    pub fn parts(&self, fds: impl IntoIterator<Item = OwnedFd>) -> [Option<OwnedFd>; 2] {
        let mut fds = fds.into_iter();
        [self.console, self.notify].map(|is_there| is_there.then(|| fds.next()).flatten())
    }
}

impl Hand {
    /// Over this socket, which keeps messages apart.
    pub fn new(socket: OwnedFd) -> Hand {
        Hand(socket)
    }

    /// For a process that is to have it.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Gives the supervisor a machine.
    pub fn give(
        &self,
        given: Given,
        process: BorrowedFd,
        console: Option<BorrowedFd>,
        notify: Option<BorrowedFd>,
    ) -> Result<()> {
        let given = Given { console: console.is_some(), notify: notify.is_some(), ..given };
        let text = serde_json::to_vec(&given).map_err(|error| Error::failed("write a message", error))?;
        let fds: Vec<_> = std::iter::once(process).chain(console).chain(notify).collect();
        socket::send(&self.0, &text, &fds)?;
        Ok(())
    }
}

/// How a machine last ended: `<run>/NAME.last.json`, as long as the host is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Last {
    version: u32,
    /// When, RFC 3339.
    pub time: String,
    /// In words: `powered off`, `rebooted`, `killed by signal 9`, `unknown`.
    pub how: String,
    /// Why it was not restarted although it asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Last {
    fn file(run: &Path, name: &str) -> PathBuf {
        run.join(format!("{name}.last.json"))
    }

    /// What is known of a machine's end.
    pub fn load(run: &Path, name: &str) -> Option<Last> {
        home::read(&Last::file(run, name)).ok().flatten()
    }

    /// Writes down that a machine has ended.
    pub fn save(run: &Path, name: &str, how: &str, error: Option<String>) -> Result<()> {
        let time = offshoot_spec::time::rfc3339(std::time::SystemTime::now());
        home::write(&Last::file(run, name), &Last { version: VERSION, time, how: how.to_owned(), error }, false)
    }

    /// Forgets it.
    pub fn forget(run: &Path, name: &str) {
        // There may be none.
        let _ = std::fs::remove_file(Last::file(run, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_keep_their_descriptors_and_their_ends() {
        let (one, other) = UnixStream::pair().unwrap();
        let names = (0..5000).map(|number| format!("machine-{number}")).collect();
        let sender = std::thread::spawn(move || {
            let stderr = std::io::stderr();
            send(&one, &Request::Start { names, births: Vec::new(), debug: true }, &[stderr.as_fd()]).unwrap();
            send(&one, &Request::Console { name: "x".into() }, &[]).unwrap();
        });
        let (first, fds) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(first, Request::Start { names, debug: true, .. } if names.len() == 5000) && fds.len() == 1);
        let (second, fds) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(second, Request::Console { .. }) && fds.is_empty());
        sender.join().unwrap();
        assert!(receive::<Request>(&other).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&b"\x02"[..], b"\x05\0\0\0{}", b"\xff\xff\xff\xff", b"\x02\0\0\0{}"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(receive::<Request>(&other).is_err(), "{bytes:?}");
        }
    }
}
