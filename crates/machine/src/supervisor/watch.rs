//! A machine that the supervisor watches, and what its end means.

use super::console::Console;
use crate::network::Lent;
use offshoot_runtime::notify::Notify;
use offshoot_sys::fork::{self, Exit};
use offshoot_sys::libc::{SIGHUP, SIGINT, SIGKILL};
use offshoot_sys::pidfd;
use std::os::fd::OwnedFd;

/// Looks at an end that is not told yet, between two of which the supervisor waits a moment.
const LOOKS: u32 = 20;

/// What an init may say before it is ready. Systemd says some dozens of things; each costs the supervisor a look at all machines, and
/// the guest next to nothing.
const SAYS: u32 = 4096;

/// A machine that runs, or has ended just now.
#[derive(Debug)]
pub struct Watched {
    /// Its init.
    pub process: OwnedFd,
    /// The init's number.
    pub pid: i32,
    /// Its console, unless an earlier supervisor had it.
    pub console: Option<Console>,
    /// Where its init says that it is ready, until it has, or has said too much.
    pub notify: Option<Notify>,
    /// How often it has said something else.
    pub said: u32,
    /// What it has of the host's.
    pub lent: Option<Lent>,
    /// Whether somebody is stopping it, who also clears it away.
    pub left_alone: bool,
    /// How it ended, if its parent has told.
    pub told: Option<Exit>,
    /// How often its end was looked for.
    pub looks: u32,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its init called for a reboot: man 2 reboot, "in a PID namespace".
    Reboot,
    /// Its init halted or powered off.
    PowerOff,
    /// Its init ended by itself or was killed.
    Other(Exit),
    /// Nobody told.
    Unknown,
}

impl End {
    /// What the end of an init in a pid namespace of its own stands for.
    pub fn of(exit: Option<Exit>) -> End {
        match exit {
            Some(Exit::Signal(SIGHUP)) => End::Reboot,
            Some(Exit::Signal(SIGINT)) => End::PowerOff,
            Some(exit) => End::Other(exit),
            None => End::Unknown,
        }
    }

    /// As the kernel has it.
    pub fn exit(self) -> Option<Exit> {
        match self {
            End::Reboot => Some(Exit::Signal(SIGHUP)),
            End::PowerOff => Some(Exit::Signal(SIGINT)),
            End::Other(exit) => Some(exit),
            End::Unknown => None,
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            End::Reboot => "rebooted".into(),
            End::PowerOff => "powered off".into(),
            End::Other(Exit::Code(code)) => format!("init exited with {code}"),
            End::Other(Exit::Signal(signal)) => format!("init was killed by signal {signal}"),
            End::Unknown => "ended; how is not known, as its keeper was killed".into(),
        }
    }
}

impl Watched {
    /// A machine with this init.
    pub fn new(process: OwnedFd, pid: i32) -> Watched {
        Watched {
            process,
            pid,
            console: None,
            notify: None,
            said: 0,
            lent: None,
            left_alone: false,
            told: None,
            looks: 0,
        }
    }

    /// Hears what its init says; whether that is that it is ready.
    pub fn hears(&mut self) -> bool {
        // One that cannot be read is of no use.
        let ready = self.notify.as_ref().is_some_and(|notify| notify.relay(self.pid.unsigned_abs()).unwrap_or(true));
        self.said += 1;
        if ready || self.said > SAYS {
            self.notify = None;
        }
        ready
    }

    /// How it ended; `None` to ask again. Its parent tells, who may take a moment to reap it: the keeper, or this process where
    /// that was killed. Failing both, the kernel tells others since Linux 6.15, but of an init that was ended by reboot(2) only
    /// that it was killed (seen on 6.18).
    pub fn end(&mut self) -> Option<End> {
        if let Some(exit) = self.told {
            return Some(End::of(Some(exit)));
        }
        match fork::try_wait(&self.process) {
            Ok(Some(exit)) => return Some(End::of(Some(exit))),
            Ok(None) => return None,
            // ECHILD
            Err(_) => {}
        }
        self.looks += 1;
        match self.unreaped() {
            None if self.looks < LOOKS => None,
            None => Some(End::of(pidfd::exit(&self.process).filter(|exit| *exit != Exit::Signal(SIGKILL)))),
            exit => Some(End::of(exit)),
        }
    }

    /// What a process leaves that nobody has reaped yet.
    fn unreaped(&self) -> Option<Exit> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // After reading: as long as it can be signalled it has not been reaped, and its number is still its own.
        pidfd::send_signal(&self.process, 0).ok()?;
        exit_code(&stat)
    }
}

/// man 5 proc_pid_stat: (52) exit_code, of a zombie. The name in parentheses may hold anything.
fn exit_code(stat: &str) -> Option<Exit> {
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let status: i32 = fields.get(49).filter(|_| fields[0] == "Z")?.parse().ok()?;
    Some(match status & 0x7f {
        0 => Exit::Code(status >> 8 & 0xff),
        signal => Exit::Signal(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_tells_what_the_guest_asked_for() {
        assert_eq!(End::of(Some(Exit::Signal(1))), End::Reboot);
        assert_eq!(End::of(Some(Exit::Signal(2))).words(), "powered off");
        assert_eq!(End::of(Some(Exit::Signal(9))).words(), "init was killed by signal 9");
        assert_eq!(End::of(Some(Exit::Code(0))), End::Other(Exit::Code(0)));
        assert!(End::of(None).words().contains("not known"));
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        let stat = |state: &str, code: &str| format!("7 (a) b) {state} {} {code}\n", ["0"; 48].join(" "));
        assert_eq!(exit_code(&stat("Z", "1")), Some(Exit::Signal(1)));
        assert_eq!(exit_code(&stat("Z", "1792")), Some(Exit::Code(7)));
        assert_eq!(exit_code(&stat("S", "0")), None);
        assert_eq!(exit_code(""), None);
    }

    #[test]
    fn an_init_that_says_too_much_is_not_listened_to_any_more() {
        let scratch = crate::testing::Scratch::new("says");
        let path = scratch.path().join("socket");
        let listens = || Some(Notify::of(std::os::unix::net::UnixDatagram::bind(&path).unwrap().into()));
        let own = pidfd::open(offshoot_sys::process::getpid()).unwrap();
        let mut watched = Watched { notify: listens(), ..Watched::new(own, 1) };
        let init = std::os::unix::net::UnixDatagram::unbound().unwrap();
        for _ in 0..SAYS {
            init.send_to(b"STATUS=booting", &path).unwrap();
            assert!(!watched.hears() && watched.notify.is_some());
        }
        init.send_to(b"STATUS=booting", &path).unwrap();
        assert!(!watched.hears() && watched.notify.is_none());
        assert!(init.send_to(b"READY=1", &path).is_err(), "its socket is closed");
        std::fs::remove_file(&path).unwrap();
        watched = Watched { notify: listens(), said: 0, ..watched };
        init.send_to(b"READY=1", &path).unwrap();
        assert!(watched.hears() && watched.notify.is_none());
    }

    #[test]
    fn an_end_is_looked_for_until_it_is_told_or_for_a_while() {
        let mut child = std::process::Command::new("sh").args(["-c", "kill -1 $$"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut watched = Watched::new(pidfd::open(pid).unwrap(), pid);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while watched.end().is_none_or(|found| found != End::Reboot) {
            assert!(std::time::Instant::now() < end, "the end was not told");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = child.wait();
    }
}
