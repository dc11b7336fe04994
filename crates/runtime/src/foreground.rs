//! Standing in for a container's process in the foreground: its signals, its terminal, its exit status.
//!
//! This is for a program that does nothing else, as the `offshoot` command: it blocks the signals of the calling
//! thread and may reap every child of the process. The rest of the library does neither.

use crate::apart::Apart;
use crate::notify::Notify;
use crate::terminal::{HostTerminal, Relay};
use crate::{Error, Log, Result};
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::fork::{self, Exit};
use offshoot_sys::libc::{SIGCHLD, SIGKILL, SIGSTOP, SIGURG, SIGWINCH};
use offshoot_sys::{Errno, pidfd, process};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Signals that C libraries keep for themselves: 32 and 33 (man 7 nptl), and 34 in musl.
const INTERNAL: std::ops::RangeInclusive<i32> = 32..=34;

/// A foreground that waits for its process.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
    terminal: Option<HostTerminal>,
    /// Whether any child is reaped: orphans of the container with a subreaper; of a whole system also the command that told
    /// it to stop, as the kernel does not end a pid namespace before.
    pub(crate) reaps: bool,
    apart: Apart,
    log: Log,
}

/// The process to stand in for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its number.
    pub pid: i32,
    /// Its descriptor.
    pub pidfd: BorrowedFd<'a>,
}

impl Subject<'_> {
    /// Sends it a signal, if it is still there.
    ///
    /// # Errors
    /// It may not be sent.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match pidfd::send_signal(self.pidfd, signal) {
            Err(error) if error.errno() != Errno::ESRCH => Err(Error::io("pass a signal on", &error.into())),
            _ => Ok(()),
        }
    }
}

impl Foreground {
    /// Gets ready before the process exists, so that no signal is lost in between: from here on they wait. With
    /// `terminal`, finds the caller's. With `subreaper`, orphans of the container become children of this process.
    ///
    /// # Errors
    /// There is no terminal.
    pub fn new(terminal: bool, subreaper: bool, log: Log) -> Result<Foreground> {
        let terminal = if terminal { Some(HostTerminal::find()?) } else { None };
        let failed = |error: offshoot_sys::Error| Error::io("catch signals", &error.into());
        let all: Vec<i32> =
            (1..=64).filter(|signal| ![SIGKILL, SIGSTOP].contains(signal) && !INTERNAL.contains(signal)).collect();
        if subreaper && let Err(error) = process::set_subreaper(true) {
            log.warn(error);
        }
        event::block_signals(&all).map_err(failed)?;
        let signals = event::signalfd(&all).map_err(failed)?;
        Ok(Foreground { signals, terminal, reaps: subreaper, apart: Apart::default(), log })
    }

    /// With streams to copy.
    pub(crate) fn copying(self, apart: Apart) -> Foreground {
        Foreground { apart, ..self }
    }

    /// Waits until the process ends, and returns how. `master` is the process's terminal, if it has one; `notify`
    /// the socket on which it reports readiness; `pass_on` gets the signals that come for it.
    ///
    /// # Errors
    /// A system call that cannot fail did.
    pub fn wait(
        mut self,
        subject: Subject,
        master: Option<OwnedFd>,
        notify: Option<&Notify>,
        pass_on: &dyn Fn(i32) -> Result<()>,
    ) -> Result<Exit> {
        let failed = |error: offshoot_sys::Error| Error::io("wait for the process", &error.into());
        let mut relay = match (&mut self.terminal, master) {
            (Some(terminal), Some(master)) => {
                let relay = Relay::new(master)?;
                terminal.resize(relay.master());
                terminal.make_raw()?;
                Some(relay)
            }
            _ => None,
        };
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let exit = loop {
            let mut fds = vec![(subject.pidfd, POLLIN, 0), (self.signals.as_fd(), POLLIN, 0)];
            if let Some(notify) = notify {
                fds.push((notify.as_fd(), POLLIN, 0));
            }
            let at = fds.len();
            if let Some(relay) = &relay {
                let [master, input, output] = relay.wants();
                // Descriptors without a wish are left out: a hung-up one would always be ready.
                let wishes = [(relay.master(), master), (stdin.as_fd(), input), (stdout.as_fd(), output)];
                fds.extend(wishes.into_iter().filter(|(_, wish)| *wish != 0).map(|(fd, wish)| (fd, wish, 0)));
            }
            let copies = fds.len();
            fds.extend(self.apart.wants());
            event::poll(&mut fds, None).map_err(failed)?;
            let ready: Vec<i16> = fds.iter().map(|(_, _, ready)| *ready).collect();
            let has_news = notify.is_some() && ready[2] != 0;
            if let (true, Some(notify)) = (has_news, notify)
                && let Err(error) = notify.relay(std::process::id())
            {
                self.log.warn(error);
            }
            if let Some(relay) = &mut relay {
                let mut answers = ready[at..].iter().copied();
                let step = relay.wants().map(|wish| if wish == 0 { 0 } else { answers.next().unwrap_or(0) });
                relay.step(step);
            }
            self.apart.step(&ready[copies..]);
            let reaped = self.signals(subject, relay.as_ref(), pass_on).map_err(failed)?;
            if let Some(exit) = reaped {
                break exit;
            }
            if ready[0] != 0
                && let Some(exit) = fork::try_wait(subject.pidfd).map_err(failed)?
            {
                break exit;
            }
        };
        if let Some(relay) = &mut relay {
            relay.drain();
        }
        self.apart.drain();
        self.log.debug(format_args!("process {} ended: {exit}", subject.pid));
        Ok(exit)
    }

    /// Works through the signals that came. Returns how the process ended, if it was reaped here.
    fn signals(
        &self,
        subject: Subject,
        relay: Option<&Relay>,
        pass_on: &dyn Fn(i32) -> Result<()>,
    ) -> offshoot_sys::Result<Option<Exit>> {
        let mut ended = None;
        while let Some(info) = event::read_signal(&self.signals)? {
            match i32::try_from(info.ssi_signo).unwrap_or(0) {
                SIGWINCH => {
                    if let (Some(terminal), Some(relay)) = (&self.terminal, relay) {
                        terminal.resize(relay.master());
                    }
                }
                SIGCHLD if self.reaps => ended = ended.or(reap(subject.pid)?),
                // Go's scheduler sends itself SIGURG, and callers written for runc know that it is not passed on.
                SIGCHLD | SIGURG => {}
                signal => {
                    self.log.debug(format_args!("forwarding signal {signal} to {}", subject.pid));
                    if let Err(error) = pass_on(signal) {
                        self.log.warn(error);
                    }
                }
            }
        }
        Ok(ended)
    }
}

/// Reaps all children that ended; returns how `pid` did, if it is among them.
fn reap(pid: i32) -> offshoot_sys::Result<Option<Exit>> {
    let mut found = None;
    loop {
        match fork::try_wait_any() {
            Ok(Some((ended, exit))) if ended == pid => found = Some(exit),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(found),
            Err(error) if error.errno() == Errno::ECHILD => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[expect(clippy::zombie_processes, reason = "the foreground reaps it")]
    fn wait_for(script: &str) -> Exit {
        let foreground = Foreground::new(false, false, Log::none()).unwrap();
        // The child would inherit the blocked signals; sh cannot unblock them.
        let command = format!("exec env --default-signal sh -c '{script}'");
        let child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd::open(pid).unwrap();
        let subject = Subject { pid, pidfd: pidfd.as_fd() };
        foreground.wait(subject, None, None, &|signal| subject.signal(signal)).unwrap()
    }

    #[test]
    fn the_exit_status_is_the_process_s() {
        assert_eq!(wait_for("exit 7").status(), 7);
        assert_eq!(wait_for("kill -9 $$").status(), 137);
    }
}
