//! The caller's terminal while a container's process uses it: in raw mode, copied to and from the process's own
//! pseudo-terminal, and put back as it was.

use crate::{Error, Result};
use nix::sys::termios::Termios;
use offshoot_spec::ConsoleSize;
use offshoot_sys::event::{POLLERR, POLLHUP, POLLIN, POLLOUT};
use offshoot_sys::{Errno, path, tty};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes read at once. A pipe that polls writable takes this many without blocking (man 7 pipe, `PIPE_BUF`).
const CHUNK: usize = 4096;

/// The caller's terminal.
#[derive(Debug)]
pub struct HostTerminal {
    tty: OwnedFd,
    before: Option<Termios>,
}

impl HostTerminal {
    /// Finds the terminal: any of standard error, output and input may be redirected; the controlling terminal is
    /// there even if all are.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<HostTerminal> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let standard = [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()];
        let tty = match standard.into_iter().find(|fd| tty::is_terminal(fd)) {
            Some(fd) => fd.try_clone_to_owned(),
            None => File::options().read(true).write(true).open("/dev/tty").map(OwnedFd::from),
        };
        let tty = tty.map_err(|error| Error::io("find a terminal: open /dev/tty", &error))?;
        Ok(HostTerminal { tty, before: None })
    }

    /// Passes every key on untouched, until dropped. Output is still processed, as this program's own messages and
    /// those of other processes on the terminal expect.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn make_raw(&mut self) -> Result<()> {
        let before =
            tty::make_raw(&self.tty, true).map_err(|error| Error::io("set the terminal to raw mode", &error.into()))?;
        self.before.get_or_insert(before);
        Ok(())
    }

    /// How large it is, if it says so.
    pub fn size(&self) -> Option<ConsoleSize> {
        let size = tty::size(&self.tty).ok()?;
        Some(ConsoleSize { height: size.rows, width: size.columns })
    }

    /// Gives `master` the size of the caller's terminal. Either may be gone already, which its other users will see.
    pub fn resize(&self, master: BorrowedFd) {
        let _ = tty::size(&self.tty).and_then(|size| tty::set_size(master, size));
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no restoring.
            let _ = tty::restore(&self.tty, before);
        }
    }
}

/// Copies between standard input and output and a pseudo-terminal's master, without blocking on either.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    input: Flow,
    output: Flow,
}

/// One direction: what was read and not yet written.
#[derive(Debug)]
pub(crate) struct Flow {
    pub bytes: Vec<u8>,
    pub ended: bool,
}

impl Flow {
    pub(crate) const fn new() -> Flow {
        Flow { bytes: Vec::new(), ended: false }
    }

    pub(crate) fn read(&mut self, from: BorrowedFd) {
        let mut chunk = [0; CHUNK];
        match path::read(from, &mut chunk) {
            Ok(0) => self.ended = true,
            Ok(length) => self.bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.errno() == Errno::EAGAIN => {}
            // EIO: the last process that had the terminal open is gone.
            Err(_) => self.ended = true,
        }
    }

    pub(crate) fn write(&mut self, to: BorrowedFd) {
        match path::write(to, &self.bytes[..self.bytes.len().min(CHUNK)]) {
            Ok(length) => drop(self.bytes.drain(..length)),
            Err(error) if error.errno() == Errno::EAGAIN => {}
            // Nobody reads any more. The process goes on; what it says is lost, as on a hung-up line.
            Err(_) => self.bytes.clear(),
        }
    }

    fn wants(&self, when_empty: i16) -> i16 {
        if self.bytes.is_empty() && !self.ended { when_empty } else { 0 }
    }
}

impl Relay {
    /// A relay over `master`.
    ///
    /// # Errors
    /// It is no terminal.
    pub fn new(master: OwnedFd) -> Result<Relay> {
        // Another open file than the process's: its flags are ours alone.
        set_nonblocking(&master)?;
        Ok(Relay { master, input: Flow::new(), output: Flow::new() })
    }

    /// The terminal's master.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// What to poll for, in the order that [`Relay::step`] takes the answers: master, input, output.
    pub fn wants(&self) -> [i16; 3] {
        let write = if self.input.bytes.is_empty() { 0 } else { POLLOUT };
        let output = if self.output.bytes.is_empty() { 0 } else { POLLOUT };
        [self.output.wants(POLLIN) | write, self.input.wants(POLLIN), output]
    }

    /// Does what the descriptors are ready for.
    pub fn step(&mut self, ready: [i16; 3]) {
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let [master, input, output] = ready;
        if input & (POLLIN | POLLHUP | POLLERR) != 0 {
            self.input.read(stdin.as_fd());
        }
        if master & POLLOUT != 0 {
            self.input.write(self.master.as_fd());
        }
        if master & (POLLIN | POLLHUP | POLLERR) != 0 && self.output.wants(POLLIN) != 0 {
            self.output.read(self.master.as_fd());
        }
        if output & (POLLOUT | POLLERR) != 0 {
            self.output.write(stdout.as_fd());
        }
    }

    /// Writes out what the process said before it ended.
    pub fn drain(&mut self) {
        let stdout = std::io::stdout();
        loop {
            let before = self.output.bytes.len();
            if !self.output.ended {
                self.output.read(self.master.as_fd());
            }
            if self.output.bytes.len() == before {
                break;
            }
        }
        while !self.output.bytes.is_empty() {
            self.output.write(stdout.as_fd());
        }
    }
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let set = || {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
    };
    set().map(drop).map_err(|errno| Error::io("set up the terminal: fcntl(F_SETFL, O_NONBLOCK)", &errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_keeps_what_was_not_written() {
        let (reader, writer) = offshoot_sys::event::pipe().unwrap();
        path::write_all(&writer, b"abc").unwrap();
        let mut flow = Flow::new();
        assert_eq!(flow.wants(POLLIN), POLLIN);
        flow.read(reader.as_fd());
        assert_eq!((flow.bytes.as_slice(), flow.wants(POLLIN)), (&b"abc"[..], 0));
        flow.write(writer.as_fd());
        assert!(flow.bytes.is_empty());
        drop(writer);
        flow.read(reader.as_fd());
        flow.write(reader.as_fd());
        assert!(flow.bytes.is_empty() && !flow.ended);
        flow.read(reader.as_fd());
        assert!(flow.ended);
        assert_eq!(flow.wants(POLLIN), 0);
    }

    #[test]
    fn what_the_terminal_says_passes_without_waiting() {
        let master = path::open("/dev/ptmx", offshoot_sys::libc::O_RDWR | offshoot_sys::libc::O_NOCTTY, 0).unwrap();
        tty::unlock(&master).unwrap();
        let peer = tty::peer(&master).unwrap();
        let mut relay = Relay::new(master).unwrap();
        path::write_all(&peer, b"ab").unwrap();
        relay.output.read(relay.master.as_fd());
        assert_eq!(relay.output.bytes, b"ab");
        // Nothing waits: no blocking, no end.
        relay.output.read(relay.master.as_fd());
        assert!(!relay.output.ended);
    }
}
