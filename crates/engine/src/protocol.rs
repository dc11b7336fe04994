//! What the host and the container's first processes say to each other.
//!
//! One SOCK_SEQPACKET pair: a message is whole or absent. The container's process speaks, the host answers; once
//! a user namespace is entered its messages are untrusted, so each has a fixed size or a cap, and the host takes
//! no descriptor from it.

use crate::error::{Error, Kind, Result};
use offshoot_plan::Sync;
use offshoot_sys::{path, socket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Longest message; a text beyond it is cut.
const MAX: usize = 8192;

/// From the container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It waits here.
    At(Sync),
    /// The launcher made init, with this process id in the host's namespace.
    Forked(i32),
    /// A v1 cgroup has gone before it could enter: index of the `tasks` file, which it needs anew.
    Tasks(u32),
    /// It needs the source of a bind mount opened with the host's rights: index of the step.
    Source(u32),
    /// It holds the seccomp listener in this descriptor.
    Listener(i32),
    /// It waits for `start` (or is about to exec).
    Done,
    /// It failed.
    Failed(String),
    /// Something for the log that does not stop it.
    Warning(String),
    /// Something for a log that wants to know how things are done.
    Debug(String),
}

fn sync_code(sync: Sync) -> u8 {
    match sync {
        Sync::Attached => 0,
        Sync::Mapped => 1,
        Sync::TimeOffsets => 2,
        Sync::Mounted => 3,
        Sync::Ready => 4,
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        let number = |tag: u8, number: i32| [&[tag][..], &number.to_le_bytes()].concat();
        let text = |tag: u8, text: &str| [&[tag][..], text.as_bytes()].concat();
        match self {
            Report::At(sync) => vec![b'S', sync_code(*sync)],
            Report::Forked(pid) => number(b'F', *pid),
            Report::Tasks(index) => number(b'T', *index as i32),
            Report::Source(index) => number(b'O', *index as i32),
            Report::Listener(fd) => number(b'L', *fd),
            Report::Done => vec![b'D'],
            Report::Failed(cause) => text(b'E', cause),
            Report::Warning(message) => text(b'W', message),
            Report::Debug(message) => text(b'G', message),
        }
    }

    fn decode(message: &[u8]) -> Option<Report> {
        let (tag, rest) = message.split_first()?;
        let number = || Some(i32::from_le_bytes(rest.try_into().ok()?));
        let text = || String::from_utf8_lossy(rest).into_owned();
        Some(match tag {
            b'S' => {
                let all = [Sync::Attached, Sync::Mapped, Sync::TimeOffsets, Sync::Mounted, Sync::Ready];
                Report::At(all.into_iter().find(|sync| [sync_code(*sync)] == *rest)?)
            }
            b'F' => Report::Forked(number()?),
            b'T' => Report::Tasks(u32::try_from(number()?).ok()?),
            b'O' => Report::Source(u32::try_from(number()?).ok()?),
            b'L' => Report::Listener(number()?),
            b'D' if rest.is_empty() => Report::Done,
            b'E' => Report::Failed(text()),
            b'W' => Report::Warning(text()),
            b'G' => Report::Debug(text()),
            _ => return None,
        })
    }
}

/// The host's end.
pub struct HostEnd(OwnedFd);

/// The container's end.
pub struct ChildEnd(Option<OwnedFd>);

/// Both ends.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> Result<(HostEnd, ChildEnd)> {
    let (host, child) = socket::seqpacket_pair()?;
    Ok((HostEnd(host), ChildEnd(Some(child))))
}

impl HostEnd {
    /// The next message; none when all processes of the container have let go.
    ///
    /// # Errors
    /// A message that is none of ours.
    pub fn receive(&self) -> Result<Option<Report>> {
        let mut buffer = [0; MAX];
        let (length, fds) = socket::recv(&self.0, &mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        match Report::decode(&buffer[..length]) {
            Some(report) if fds.is_empty() => Ok(Some(report)),
            _ => Err(Error::new("the container's process sent a message that is not of the protocol")),
        }
    }

    /// Lets the container's process go on; `pid` is its id on the host.
    ///
    /// # Errors
    /// The process is gone.
    pub fn go(&self, pid: i32) -> Result<()> {
        path::write_all(&self.0, &pid.to_le_bytes()).map_err(Into::into)
    }

    /// Answers [`Report::Source`] and [`Report::Tasks`].
    ///
    /// # Errors
    /// The process is gone.
    pub fn send_fd(&self, fd: BorrowedFd) -> Result<()> {
        socket::send(&self.0, &[0; 4], &[fd]).map(drop).map_err(Into::into)
    }
}

impl ChildEnd {
    fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd).ok_or_else(|| Error::new("the host is not listening any more"))
    }

    /// The descriptor's number, to be kept open.
    pub fn number(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Lets the host go on without this process.
    pub fn close(&mut self) {
        self.0 = None;
    }

    /// Tells the host and goes on.
    ///
    /// # Errors
    /// The host is gone.
    pub fn tell(&self, report: &Report) -> Result<()> {
        let message = report.encode();
        // write(2), not sendmsg(2): a seccomp profile may be in force, and every profile allows write.
        path::write(self.fd()?, &message[..message.len().min(MAX)]).map(drop).map_err(Into::into)
    }

    /// Tells the host and waits for its go; returns this process's id on the host.
    ///
    /// # Errors
    /// The host is gone, which is how it says that it failed.
    pub fn ask(&self, report: &Report) -> Result<i32> {
        self.tell(report)?;
        let mut answer = [0; 4];
        match path::read(self.fd()?, &mut answer)? {
            4 => Ok(i32::from_le_bytes(answer)),
            _ => Err(gone()),
        }
    }

    /// Asks for a descriptor.
    ///
    /// # Errors
    /// The host is gone.
    pub fn ask_fd(&self, report: &Report) -> Result<OwnedFd> {
        self.tell(report)?;
        let (_, fds) = socket::recv(self.fd()?, &mut [0; 4])?;
        fds.into_iter().next().ok_or_else(gone)
    }
}

fn gone() -> Error {
    Error::of(Kind::Gone, "the runtime ended before the container was complete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives() {
        for report in [
            Report::At(Sync::Attached),
            Report::At(Sync::Ready),
            Report::Forked(70_000),
            Report::Tasks(2),
            Report::Source(3),
            Report::Listener(9),
            Report::Done,
            Report::Failed("näh".into()),
            Report::Warning("w".into()),
            Report::Debug(String::new()),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn nothing_else_is_understood() {
        for message in [&b""[..], b"S", b"S\x09", b"S\x00\x00", b"F123", b"F12345", b"O\xff\xff\xff\xff", b"Dx", b"x"] {
            assert_eq!(Report::decode(message), None, "{message:?}");
        }
    }
}
