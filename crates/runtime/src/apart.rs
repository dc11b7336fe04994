//! A process of a container without the caller's terminal: pipes in its place, which the caller copies.
//!
//! CVE-2016-10124: a program in a container that has the terminal of whoever entered it can type there as if it were he, where
//! the kernel lets it (TIOCSTI), and read what he types, also after it has ended for him, in a child that it leaves behind.

use crate::terminal::{Flow, set_nonblocking};
use crate::{Error, Result};
use offshoot_sys::event::{self, POLLIN, POLLOUT};
use offshoot_sys::tty;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a process gets for standard streams, where not the caller's.
pub(crate) type Ends = [Option<OwnedFd>; 3];

/// The pipes of those standard streams that are terminals.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    ways: Vec<Way>,
}

/// One stream.
#[derive(Debug)]
struct Way {
    number: usize,
    flow: Flow,
    /// The pipe's other end; none once that side has ended.
    pipe: Option<OwnedFd>,
}

impl Apart {
    /// Pipes for the standard streams that are terminals, and the process's ends of them.
    ///
    /// # Errors
    /// No pipe can be made.
    pub(crate) fn open() -> Result<(Ends, Apart)> {
        let (mut ends, mut apart) = (Ends::default(), Apart::default());
        for (number, theirs) in ends.iter_mut().enumerate() {
            if !tty::is_terminal(stream(number)) {
                continue;
            }
            let (reader, writer) =
                event::pipe().map_err(|error| Error::io("make pipes in place of the terminal", &error.into()))?;
            let (given, kept) = if number == 0 { (reader, writer) } else { (writer, reader) };
            set_nonblocking(&kept)?;
            *theirs = Some(given);
            apart.ways.push(Way { number, flow: Flow::new(), pipe: Some(kept) });
        }
        Ok((ends, apart))
    }

    /// Streams of a process that has nothing to do with the caller's.
    ///
    /// # Errors
    /// There is no `/dev/null`.
    pub(crate) fn nothing() -> Result<Ends> {
        let open = || File::options().read(true).write(true).open("/dev/null").map(|null| Some(OwnedFd::from(null)));
        let all = || Ok([open()?, open()?, open()?]);
        all().map_err(|error: io::Error| Error::io("open /dev/null", &error))
    }

    /// What to poll for, in the order that [`Apart::step`] takes the answers.
    pub(crate) fn wants(&self) -> impl Iterator<Item = (BorrowedFd<'_>, i16, i16)> {
        self.ways.iter().filter_map(Way::wants).map(|(fd, wish)| (fd, wish, 0))
    }

    /// Does what the descriptors are ready for.
    pub(crate) fn step(&mut self, ready: &[i16]) {
        let mut answers = ready.iter().copied();
        for way in &mut self.ways {
            if way.wants().is_some() && answers.next().is_some_and(|ready| ready != 0) {
                way.step();
            }
        }
    }

    /// Passes on what the process said before it ended, but waits for nobody who has its pipes still open.
    pub(crate) fn drain(&mut self) {
        for way in self.ways.iter_mut().filter(|way| way.number != 0) {
            loop {
                while !way.flow.bytes.is_empty() {
                    way.flow.write(stream(way.number));
                }
                match &way.pipe {
                    Some(pipe) if !way.flow.ended => way.flow.read(pipe.as_fd()),
                    _ => break,
                }
                if way.flow.bytes.is_empty() {
                    break;
                }
            }
        }
    }
}

impl Way {
    /// What it waits for now: for room where it has something, else for something.
    fn wants(&self) -> Option<(BorrowedFd<'_>, i16)> {
        let (own, pipe) = (stream(self.number), self.pipe.as_ref()?.as_fd());
        let (from, to) = if self.number == 0 { (own, pipe) } else { (pipe, own) };
        match (self.flow.bytes.is_empty(), self.flow.ended) {
            (false, _) => Some((to, POLLOUT)),
            (true, false) => Some((from, POLLIN)),
            (true, true) => None,
        }
    }

    fn step(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let (own, pipe) = (stream(self.number), pipe.as_fd());
        let (from, to) = if self.number == 0 { (own, pipe) } else { (pipe, own) };
        if self.flow.bytes.is_empty() {
            self.flow.read(from);
        } else {
            self.flow.write(to);
        }
        if self.flow.ended && self.flow.bytes.is_empty() {
            // So that the process sees the end, too.
            self.pipe = None;
        }
    }
}

fn stream(number: usize) -> BorrowedFd<'static> {
    use std::sync::LazyLock;
    static STREAMS: LazyLock<(io::Stdin, io::Stdout, io::Stderr)> =
        LazyLock::new(|| (io::stdin(), io::stdout(), io::stderr()));
    match number {
        0 => STREAMS.0.as_fd(),
        1 => STREAMS.1.as_fd(),
        _ => STREAMS.2.as_fd(),
    }
}
