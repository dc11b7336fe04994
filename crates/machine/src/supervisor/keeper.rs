//! What holds consoles while there is no supervisor: a process that does nothing else, so that nothing is left in it to go wrong.
//!
//! A terminal lives as long as its master is open, and no path leads to a master. So the supervisor, when it starts, looks for
//! a keeper or forks one, and gives it a copy of each console; its successor gets them back. A supervisor that started by
//! itself and was killed is started again by its keeper; one that a service manager looks after is that one's to start.

use super::client::launch;
use super::message::{Given, receive, send};
use super::serve::let_go;
use super::watch::Watched;
use crate::error::{Error, Result};
use offshoot_runtime::notify::Notify;
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::libc::{SIGINT, SIGTERM};
use offshoot_sys::{fork, path, process, socket};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Before a supervisor that was killed is started again: one that cannot live must not take a processor for itself.
const PAUSE: Duration = Duration::from_millis(200);

/// What the supervisor tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Said {
    /// Give back all that is held: answered by one [`Given`] each, without the init's descriptor, and one without a name.
    Return,
    /// Hold what goes with this, of a machine.
    Hold(Given),
    /// This machine has ended.
    Forget { name: String },
    /// Start the supervisor again should it end without [`Said::Leave`].
    Watch { root: PathBuf, store: PathBuf },
    /// The supervisor ends because it was told to.
    Leave,
}

/// The supervisor's way to its keeper.
#[derive(Debug)]
pub struct Keeper(OwnedFd);

/// What machines had, by name.
pub type Returned = BTreeMap<String, (Given, Vec<OwnedFd>)>;

impl Keeper {
    /// The keeper that an earlier supervisor has left, with what it holds, or a new one. For the one supervisor of `run`.
    ///
    /// # Errors
    /// No process can be made, or its socket.
    pub fn find(run: &Path) -> Result<(Keeper, Returned)> {
        if let Ok(keeper) = socket::connect_unix(address(run)).map(Keeper)
            && let Ok(returned) = keeper.returned()
        {
            return Ok((keeper, returned));
        }
        // The socket of one that was killed.
        let _ = fs::remove_file(address(run));
        let failed = |error: &std::io::Error| Error::io("make the consoles' keeper", error);
        let dir = File::open(run).map_err(|error| failed(&error))?;
        // A path that is too long for an address is short through a descriptor.
        let listener = UnixListener::bind(path::fd_path(&dir).join("keeper.sock")).map_err(|error| failed(&error))?;
        fork::fork(0, None, || keep(&listener, &address(run)))?;
        Ok((Keeper(socket::connect_unix(address(run))?), Returned::new()))
    }

    /// Readable when the keeper is gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn returned(&self) -> Result<Returned> {
        send(&self.0, &Said::Return, &[])?;
        let mut all = Returned::new();
        while let Some((given, fds)) = receive::<Given>(&self.0)? {
            if given.name.is_empty() {
                return Ok(all);
            }
            all.insert(given.name.clone(), (given, fds));
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

/// The keeper's life, in a child of the supervisor's. It ends when it holds nothing and no supervisor is there.
fn keep(listener: &UnixListener, address: &Path) -> i32 {
    // The supervisor's lock above all, which must not outlive it.
    let own = listener.as_raw_fd().unsigned_abs();
    let _ = process::close_range(3, own - 1, 0).and_then(|()| process::close_range(own + 1, u32::MAX, 0));
    let_go();
    let _ = process::set_name(c"offshoot-keeper");
    let _ = event::unblock_signals(&[SIGTERM, SIGINT]);
    let mut keeping = Keeping { held: BTreeMap::new(), watching: None, started: None };
    loop {
        let Ok((supervisor, _)) = listener.accept() else { return 1 };
        let supervisor = OwnedFd::from(supervisor);
        // Whatever it sends that cannot be read: it is of no use any more.
        while matches!(keeping.hear(&supervisor), Ok(true)) {}
        drop(supervisor);
        keeping.alone(listener);
        if keeping.held.is_empty() {
            // A supervisor that connects just now finds the end, and makes a keeper of its own.
            let _ = fs::remove_file(address);
            return 0;
        }
    }
}

struct Keeping {
    /// Each with its init, and what it has.
    held: BTreeMap<String, (Given, OwnedFd, Vec<OwnedFd>)>,
    /// How to start the supervisor.
    watching: Option<(PathBuf, PathBuf)>,
    started: Option<std::process::Child>,
}

impl Keeping {
    /// Does what the supervisor says next; `false` at its end.
    fn hear(&mut self, supervisor: &OwnedFd) -> Result<bool> {
        let Some((said, fds)) = receive(supervisor)? else { return Ok(false) };
        match said {
            Said::Return => {
                for (given, _, parts) in self.held.values() {
                    send(supervisor, given, &parts.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
                }
                send(supervisor, &Given::default(), &[])?;
            }
            Said::Hold(given) => {
                let mut fds = fds.into_iter();
                if let Some(init) = fds.next() {
                    self.held.insert(given.name.clone(), (given, init, fds.collect()));
                }
            }
            Said::Forget { name } => drop(self.held.remove(&name)),
            Said::Watch { root, store } => self.watching = Some((root, store)),
            Said::Leave => self.watching = None,
        }
        Ok(true)
    }

    /// Waits, without a supervisor, until there is one or no machine is left that runs.
    fn alone(&mut self, listener: &UnixListener) {
        if let Some(child) = &mut self.started {
            // It has ended, or is about to.
            let _ = child.wait();
            self.started = None;
        }
        if let Some((root, store)) = self.watching.take().filter(|_| !self.held.is_empty()) {
            std::thread::sleep(PAUSE);
            self.started = launch(&root, &store).spawn().ok();
        }
        while !self.held.is_empty() {
            let mut fds = vec![(listener.as_fd(), POLLIN, 0)];
            fds.extend(self.held.values().map(|(_, init, _)| (init.as_fd(), POLLIN, 0)));
            if event::poll(&mut fds, None).is_err() || fds[0].2 != 0 {
                return;
            }
            let mut ended = fds[1..].iter().map(|(_, _, ready)| *ready != 0).collect::<Vec<_>>().into_iter();
            self.held.retain(|_, _| ended.next() == Some(false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::Console;
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_held_is_given_back_and_forgotten() {
        let (supervisor, keeper) = UnixStream::pair().unwrap();
        let (supervisor, keeper) = (Keeper(supervisor.into()), OwnedFd::from(keeper));
        let mut keeping = Keeping { held: BTreeMap::new(), watching: None, started: None };
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
        let told: Vec<_> =
            returned.into_iter().map(|(name, (given, fds))| (name, given.pid, given.parts(fds))).collect();
        assert!(matches!(&told[0], (name, 7, [Some(_), Some(_)]) if name == "a"), "{told:?}");
        assert!(matches!(&told[1], (name, 7, [None, Some(_)]) if name == "c"), "{told:?}");
        assert_eq!(told.len(), 2);
        let keeping = answering.join().unwrap().unwrap();
        assert_eq!(keeping.held.len(), 2, "a copy stays with the keeper");
    }
}
