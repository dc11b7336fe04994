//! What outlives supervisors: the parent of the machines' inits, which learns how each ended, and holds their consoles.
//!
//! Only a parent is told how a process ended (others not before Linux 6.15, and less), and a terminal lives as long as its master is open, to
//! which no path leads. So the supervisor, when it starts, looks for a keeper or forks one. Processes that start machines are
//! the keeper's children, and so become the inits that they leave behind; it does nothing itself, so that nothing is left in it
//! to go wrong. A supervisor that started by itself and was killed is started again by its keeper; one that a service manager
//! looks after is that one's to start. Should the keeper be killed, the supervisor is the parent, if it is the one whose child that was.

use super::apart::Apart;
use super::client::launch;
use super::message::{Given, receive, send};
use super::serve::let_go;
use super::watch::Watched;
use super::work::{self, Task};
use crate::error::{Error, Result};
use crate::machines::Machines;
use offshoot_runtime::notify::Notify;
use offshoot_sys::event::{self, POLLIN, POLLOUT};
use offshoot_sys::fork::{self, Exit};
use offshoot_sys::libc::{SIGCHLD, SIGINT, SIGPIPE, SIGTERM};
use offshoot_sys::{path, process, socket};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Before a supervisor that was killed is started again: one that cannot live must not take a processor for itself.
const PAUSE: Duration = Duration::from_millis(200);

/// Ends of children that nobody has claimed yet: a machine may end before its keeper is told that it is one.
const STRAYS: usize = 1024;

/// What the supervisor tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Said {
    /// Give back all that is held: answered by one [`Told::Held`] each, and [`Told::All`].
    Return,
    /// Hold what goes with this, of a machine: its init, and what [`Given`] names.
    Hold(Given),
    /// This machine has ended.
    Forget { name: String },
    /// Let a child do this; what goes with it is what [`work::run`] takes. Answered by [`Told::Worked`] when it has ended.
    Work(Task),
    /// Start the supervisor again should it end without [`Said::Leave`].
    Watch { root: PathBuf, store: PathBuf },
    /// The supervisor ends because it was told to.
    Leave,
}

/// What the keeper tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// A machine, with its init and what [`Given`] names, and how it ended if it has.
    Held(Given, Option<Ended>),
    /// These were all.
    All,
    /// A machine has ended.
    Ended {
        /// Its name.
        name: String,
        /// Its init.
        pid: i32,
        /// How.
        how: Ended,
    },
    /// A child has ended that was to do something.
    Worked,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// With this value.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Ended {
        match exit {
            Exit::Code(code) => Ended::Code(code),
            Exit::Signal(signal) => Ended::Signal(signal),
        }
    }
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Exit {
        match ended {
            Ended::Code(code) => Exit::Code(code),
            Ended::Signal(signal) => Exit::Signal(signal),
        }
    }
}

/// The supervisor's way to its keeper.
#[derive(Debug)]
pub struct Keeper(OwnedFd);

/// What is held of a machine: what came with it, and how it ended if it has.
#[derive(Debug)]
pub struct Held {
    /// The machine.
    pub given: Given,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
    /// Its init, and what `given` names.
    pub fds: Vec<OwnedFd>,
}

/// What machines had, by name.
pub type Returned = BTreeMap<String, Held>;

impl Keeper {
    /// The keeper that an earlier supervisor has left, with what it holds, or a new one. For the one supervisor of these
    /// machines.
    ///
    /// # Errors
    /// No process can be made, or its socket.
    pub fn find(machines: &Machines) -> Result<(Keeper, Returned)> {
        let run = &machines.run();
        if let Ok(keeper) = socket::connect_unix(address(run)).map(Keeper)
            && let Ok(returned) = keeper.returned()
        {
            return Ok((keeper, returned));
        }
        // The socket of one that was killed.
        let _ = fs::remove_file(address(run));
        let failed = |error: &std::io::Error| Error::io("make the machines' keeper", error);
        let dir = File::open(run).map_err(|error| failed(&error))?;
        // A path that is too long for an address is short through a descriptor.
        let listener = UnixListener::bind(path::fd_path(&dir).join("keeper.sock")).map_err(|error| failed(&error))?;
        fork::fork(0, None, || keep(machines, &listener, &address(run)))?;
        Ok((Keeper(socket::connect_unix(address(run))?), Returned::new()))
    }

    /// Readable when the keeper tells something, or is gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What it tells; `None` if it is gone.
    pub fn told(&self) -> Option<Told> {
        receive(&self.0).ok().flatten().map(|(told, _)| told)
    }

    fn returned(&self) -> Result<Returned> {
        send(&self.0, &Said::Return, &[])?;
        let mut all = Returned::new();
        while let Some((told, fds)) = receive::<Told>(&self.0)? {
            match told {
                Told::Held(given, ended) => drop(all.insert(given.name.clone(), Held { given, ended, fds })),
                Told::All => return Ok(all),
                // It is among those held; and no child was this supervisor's to wait for.
                Told::Ended { .. } | Told::Worked => {}
            }
        }
        Err(Error::failed("get the consoles back", "their keeper ended"))
    }

    /// Gives it what a machine has to hold, in place of what it held of it.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn hold(&self, name: &str, watched: &Watched) -> Result<()> {
        let console = watched.console.as_ref().map(|console| console.master().as_fd());
        let notify = watched.notify.as_ref().map(Notify::as_fd);
        let given = Given {
            name: name.to_owned(),
            pid: watched.pid,
            console: console.is_some(),
            notify: notify.is_some(),
            devices: Vec::new(),
        };
        let fds: Vec<_> = std::iter::once(watched.process.as_fd()).chain(console).chain(notify).collect();
        send(&self.0, &Said::Hold(given), &fds)
    }

    /// Tells it that a machine has ended.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn forget(&self, name: &str) -> Result<()> {
        send(&self.0, &Said::Forget { name: name.to_owned() }, &[])
    }

    /// Lets a child of its do what takes time, with what [`work::run`] takes.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn work(&self, task: Task, fds: &[BorrowedFd]) -> Result<()> {
        send(&self.0, &Said::Work(task), fds)
    }

    /// Has this supervisor started again should it be killed.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn watch(&self, root: &Path, store: &Path) -> Result<()> {
        send(&self.0, &Said::Watch { root: root.to_owned(), store: store.to_owned() }, &[])
    }

    /// Tells it that this supervisor ends on purpose.
    pub fn leave(&self) {
        // One that is gone need not know.
        let _ = send(&self.0, &Said::Leave, &[]);
    }
}

fn address(run: &Path) -> PathBuf {
    run.join("keeper.sock")
}

/// The keeper's life, in a child of the supervisor's. It ends when it has nobody to keep and no supervisor is there.
fn keep(machines: &Machines, listener: &UnixListener, address: &Path) -> i32 {
    // The supervisor's lock above all, which must not outlive it.
    close_all_but(machines, &[listener.as_fd()]);
    let_go();
    let _ = process::set_name(c"offshoot-keeper");
    let _ = event::unblock_signals(&[SIGTERM, SIGINT]);
    let signals = process::set_subreaper(true)
        .and_then(|()| event::block_signals(&[SIGCHLD]))
        .and_then(|()| event::signalfd(&[SIGCHLD]));
    let Ok(signals) = signals else { return 1 };
    let apart = Apart::enter();
    let mut keeping = Keeping::new(machines.clone());
    let mut expected = true;
    while let Some(supervisor) = keeping.alone(listener, &signals, expected) {
        expected = false;
        while keeping.turn(&supervisor, &signals) {}
        drop(supervisor);
        keeping.left();
    }
    // A supervisor that connects just now finds the end, and makes a keeper of its own.
    let _ = fs::remove_file(address);
    apart.leave();
    0
}

/// Closes what a child has of its parent's but `kept`, standard streams and the log.
fn close_all_but(machines: &Machines, kept: &[BorrowedFd]) {
    let log = machines.runtime.log.as_file().map(AsRawFd::as_raw_fd);
    let numbers = kept.iter().map(AsRawFd::as_raw_fd).chain(log).map(i32::unsigned_abs);
    let mut from = 3;
    for number in numbers.filter(|number| *number > 2).collect::<BTreeSet<_>>() {
        if number > from {
            let _ = process::close_range(from, number - 1, 0);
        }
        from = number + 1;
    }
    let _ = process::close_range(from, u32::MAX, 0);
}

struct Keeping {
    machines: Machines,
    held: Returned,
    /// Children that are at work.
    workers: BTreeSet<i32>,
    /// Children that ended and are no machine's init, as far as is known.
    strays: VecDeque<(i32, Ended)>,
    /// What the supervisor is to be told when it can take it: neither may wait for the other.
    news: VecDeque<Told>,
    /// How to start the supervisor.
    watching: Option<(PathBuf, PathBuf)>,
    /// The one that was started, until it ends.
    started: Option<i32>,
}

impl Keeping {
    fn new(machines: Machines) -> Keeping {
        Keeping {
            machines,
            held: Returned::new(),
            workers: BTreeSet::new(),
            strays: VecDeque::new(),
            news: VecDeque::new(),
            watching: None,
            started: None,
        }
    }

    /// Waits for what happens next, and does it; `false` at the supervisor's end.
    fn turn(&mut self, supervisor: &OwnedFd, signals: &OwnedFd) -> bool {
        let wanted = if self.news.is_empty() { POLLIN } else { POLLIN | POLLOUT };
        let mut fds = [(supervisor.as_fd(), wanted, 0), (signals.as_fd(), POLLIN, 0)];
        if event::poll(&mut fds, None).is_err() {
            return true;
        }
        let [(_, _, heard), (_, _, ended)] = fds;
        if ended != 0 {
            self.reap(signals);
        }
        // The kernel calls a socket writable when there is room for many of these.
        if heard & POLLOUT != 0
            && let Some(told) = self.news.pop_front()
        {
            let _ = send(supervisor, &told, &[]);
        }
        // Whatever it sends that cannot be read: it is of no use any more.
        heard & !POLLOUT == 0 || matches!(self.hear(supervisor), Ok(true))
    }

    /// Does what the supervisor says next; `false` at its end.
    fn hear(&mut self, supervisor: &OwnedFd) -> Result<bool> {
        let Some((said, fds)) = receive(supervisor)? else { return Ok(false) };
        match said {
            Said::Return => {
                // What is there to be told by now is among it, or not for this one.
                self.news.clear();
                for held in self.held.values() {
                    let fds: Vec<_> = held.fds.iter().map(AsFd::as_fd).collect();
                    send(supervisor, &Told::Held(held.given.clone(), held.ended), &fds)?;
                }
                send(supervisor, &Told::All, &[])?;
            }
            Said::Hold(given) => self.hold(given, fds),
            Said::Forget { name } => drop(self.held.remove(&name)),
            Said::Work(task) => self.work(&task, fds),
            Said::Watch { root, store } => self.watching = Some((root, store)),
            Said::Leave => self.watching = None,
        }
        Ok(true)
    }

    fn hold(&mut self, given: Given, fds: Vec<OwnedFd>) {
        let Some(init) = fds.first() else { return };
        let before = self.held.remove(&given.name).filter(|held| held.given.pid == given.pid);
        let mut ended = before.and_then(|held| held.ended);
        if let Some(at) = self.strays.iter().position(|(pid, _)| *pid == given.pid) {
            // If it has not ended, the number was another's before.
            let stray = self.strays.remove(at).map(|(_, how)| how);
            if let Some(how) = stray.filter(|_| has_ended(init)) {
                ended = Some(how);
                self.news.push_back(Told::Ended { name: given.name.clone(), pid: given.pid, how });
            }
        }
        self.held.insert(given.name.clone(), Held { given, ended, fds });
    }

    fn work(&mut self, task: &Task, fds: Vec<OwnedFd>) {
        let machines = &self.machines;
        let made = fork::fork(0, None, || {
            // Each process that this one makes would copy what is held, and close it; and a supervisor is told of the keeper's end
            // by that of their connection. What owns them here is never dropped.
            close_all_but(machines, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
            let _ = process::set_name(c"offshoot");
            // As the supervisor's caller had them, for the container's process to begin with.
            match event::unblock_signals(&[SIGCHLD, SIGTERM, SIGINT, SIGPIPE]) {
                Ok(()) => work::run(machines, task, fds),
                Err(_) => 1,
            }
        });
        match made {
            Ok(child) => drop(self.workers.insert(child.pid)),
            Err(error) => {
                self.machines.runtime.log.warn(error);
                self.news.push_back(Told::Worked);
            }
        }
    }

    /// Reaps all children that have ended.
    fn reap(&mut self, signals: &OwnedFd) {
        while let Ok(Some(_)) = event::read_signal(signals) {}
        while let Ok(Some((pid, exit))) = fork::try_wait_any() {
            self.reaped(pid, exit.into());
        }
    }

    fn reaped(&mut self, pid: i32, how: Ended) {
        if self.workers.remove(&pid) {
            self.news.push_back(Told::Worked);
        } else if self.started == Some(pid) {
            self.started = None;
        } else if let Some(held) = self.held.values_mut().find(|held| held.given.pid == pid && held.ended.is_none()) {
            held.ended = Some(how);
            self.news.push_back(Told::Ended { name: held.given.name.clone(), pid, how });
        } else {
            self.strays.truncate(STRAYS - 1);
            self.strays.push_front((pid, how));
        }
    }

    /// The supervisor has ended: starts another one, if that is wanted.
    fn left(&mut self) {
        self.news.clear();
        if let Some((root, store)) = self.watching.take().filter(|_| !self.held.is_empty()) {
            std::thread::sleep(PAUSE);
            self.started = launch(&root, &store).spawn().ok().and_then(|child| child.id().try_into().ok());
        }
    }

    /// Waits until there is a supervisor; `None` if none is `expected` and nobody is left to keep.
    fn alone(&mut self, listener: &UnixListener, signals: &OwnedFd, expected: bool) -> Option<OwnedFd> {
        loop {
            let mut fds = vec![(listener.as_fd(), POLLIN, 0), (signals.as_fd(), POLLIN, 0)];
            // One that is not a child, of an earlier keeper.
            let lives = |held: &&Held| held.ended.is_none() && held.fds.first().is_some_and(|init| !has_ended(init));
            let living: Vec<_> = self.held.values().filter(lives).filter_map(|held| held.fds.first()).collect();
            if living.is_empty() && self.workers.is_empty() && self.started.is_none() && !expected {
                return None;
            }
            fds.extend(living.iter().map(|init| (init.as_fd(), POLLIN, 0)));
            let polled = event::poll(&mut fds, None);
            let (called, ended) = (fds[0].2 != 0, fds[1].2 != 0);
            if polled.is_ok() && ended {
                self.reap(signals);
            }
            // A caller that went away at once is no supervisor.
            if polled.is_ok()
                && called
                && let Ok((supervisor, _)) = listener.accept()
            {
                return Some(supervisor.into());
            }
        }
    }
}

/// Whether the process of a descriptor has ended.
fn has_ended(process: &OwnedFd) -> bool {
    event::poll(&mut [(process.as_fd(), POLLIN, 0)], Some(Duration::ZERO)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::super::console::Console;
    use super::*;
    use crate::testing::Scratch;
    use offshoot_sys::pidfd;
    use std::os::unix::net::UnixStream;

    fn pair(scratch: &Scratch) -> (Keeper, OwnedFd, Keeping) {
        let (supervisor, keeper) = UnixStream::pair().unwrap();
        (Keeper(supervisor.into()), OwnedFd::from(keeper), Keeping::new(scratch.machines()))
    }

    #[test]
    fn what_is_held_is_given_back_and_forgotten() {
        let scratch = Scratch::new("keeper");
        let (supervisor, keeper, mut keeping) = pair(&scratch);
        let fd = || OwnedFd::from(File::open("/dev/null").unwrap());
        for name in ["a", "b", "c"] {
            let mut watched = Watched::new(fd(), 7);
            watched.console = (name != "c").then(|| Console::new(fd()).unwrap());
            watched.notify = Some(Notify::of(fd()));
            supervisor.hold(name, &watched).unwrap();
            assert!(keeping.hear(&keeper).unwrap());
        }
        supervisor.forget("b").unwrap();
        supervisor.watch(Path::new("/r"), Path::new("/s")).unwrap();
        assert!(keeping.hear(&keeper).unwrap() && keeping.hear(&keeper).unwrap() && keeping.watching.is_some());
        let answering = std::thread::spawn(move || keeping.hear(&keeper).map(|_| keeping));
        let returned = supervisor.returned().unwrap();
        let told: Vec<_> = returned
            .into_iter()
            .map(|(name, held)| (name, held.given.pid, held.ended, held.given.parts(held.fds.into_iter().skip(1))))
            .collect();
        assert!(matches!(&told[0], (name, 7, None, [Some(_), Some(_)]) if name == "a"), "{told:?}");
        assert!(matches!(&told[1], (name, 7, None, [None, Some(_)]) if name == "c"), "{told:?}");
        assert_eq!(told.len(), 2);
        let keeping = answering.join().unwrap().unwrap();
        assert_eq!(keeping.held.len(), 2, "a copy stays with the keeper");
    }

    #[test]
    fn how_a_machine_ended_is_told_whether_it_was_known_before_or_not() {
        let scratch = Scratch::new("ends");
        let (_, _, mut keeping) = pair(&scratch);
        let given = |name: &str, pid: i32| Given { name: name.into(), pid, ..Given::default() };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let gone = || vec![pidfd::open(pid).unwrap()];
        let (early, late) = (gone(), gone());
        child.wait().unwrap();
        let lives = || vec![pidfd::open(process::getpid()).unwrap()];
        // Known, then ended.
        keeping.hold(given("a", 1), lives());
        keeping.reaped(1, Ended::Signal(1));
        keeping.reaped(1, Ended::Signal(9));
        // Ended, then known.
        keeping.reaped(pid, Ended::Code(3));
        keeping.hold(given("b", pid), early);
        // Another's number.
        keeping.reaped(2, Ended::Code(4));
        keeping.hold(given("c", 2), lives());
        // Said again.
        keeping.hold(given("b", pid), late);
        keeping.workers.insert(5);
        keeping.reaped(5, Ended::Code(0));
        let news: Vec<_> = keeping.news.iter().map(|told| format!("{told:?}")).collect();
        let ended = |name: &str, pid: i32, how| format!("{:?}", Told::Ended { name: name.into(), pid, how });
        assert_eq!(news, [ended("a", 1, Ended::Signal(1)), ended("b", pid, Ended::Code(3)), "Worked".into()]);
        let held: Vec<_> = keeping.held.values().map(|held| held.ended).collect();
        assert_eq!(held, [Some(Ended::Signal(1)), Some(Ended::Code(3)), None]);
        (0..5000).for_each(|pid| keeping.reaped(pid + 100, Ended::Code(0)));
        assert_eq!(keeping.strays.len(), STRAYS);
    }
}
