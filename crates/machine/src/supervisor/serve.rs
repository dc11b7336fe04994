//! The supervisor itself: one loop that never waits for anything but news. Whatever takes time a child does, which a fork
//! makes of it without exec.

use super::client::{address, make};
use super::console::Console;
use super::keeper::{Held, Keeper, Returned, Told};
use super::message::{Given, Granted, Hand, Last, Request, receive, send};
use super::watch::Watched;
use super::work::Task;
use crate::error::{Error, Kind, Result};
use crate::machines::Machines;
use crate::network::{self, Lent, Server};
use crate::stop::init_of;
use offshoot_runtime::Log;
use offshoot_runtime::notify::{self, Notify};
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::fork;
use offshoot_sys::libc::{LOCK_EX, LOCK_NB, RLIMIT_NOFILE, SIGCHLD, SIGINT, SIGPIPE, SIGTERM};
use offshoot_sys::{path, process, socket};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Between two looks at what gives no news: name servers, ends that are not told yet.
const TICK: Duration = Duration::from_secs(5);
/// The same while an end is not told yet.
const MOMENT: Duration = Duration::from_millis(50);
/// How long a caller may take over its request.
const REQUEST: Duration = Duration::from_secs(2);

/// What it hears of by a descriptor.
const BLOCKED: [i32; 4] = [SIGCHLD, SIGTERM, SIGINT, SIGPIPE];

/// Where the bell is among what is not a machine's.
const BELL: usize = 4;

/// Before another try at a keeper.
const PAUSE: Duration = Duration::from_secs(1);

/// The supervisor's knowledge.
struct Supervisor {
    machines: Machines,
    listener: UnixListener,
    signals: OwnedFd,
    hand: Hand,
    handed: OwnedFd,
    keeper: Keeper,
    watched: BTreeMap<String, Watched>,
    /// Rings once when something happens to a machine: to ask for all of them each time that one starts, or a caller calls,
    /// would take more of a processor the more there are.
    bell: OwnedFd,
    /// Whether the machines may have news.
    rung: bool,
    /// How many of the keeper's children are at work.
    working: usize,
    /// When name servers were last looked at.
    tended: Instant,
    stay: bool,
}

/// Watches over machines until none runs, or, with `stay`, until it is told to end. `ready` is called when callers can connect.
///
/// For a program that does nothing else: it blocks signals, raises the limit of open files and reaps all children.
///
/// # Errors
/// Another supervisor runs, or the socket cannot be made.
pub fn supervise(machines: Machines, stay: bool, ready: &dyn Fn()) -> Result<()> {
    let run = machines.run();
    make(&run)?;
    let _only = only(&run)?;
    event::block_signals(&BLOCKED)?;
    process::set_subreaper(true)?;
    raise_descriptors();
    let socket = address(&run);
    // The one of a supervisor that is gone: the lock says so.
    let _ = fs::remove_file(&socket);
    let failed = |error: &std::io::Error| Error::io(format_args!("listen on {}", socket.display()), error);
    let listener = listen(&run).map_err(|error| failed(&error))?;
    // Before there are descriptors that it would have to close.
    let (keeper, consoles) = Keeper::find(&machines)?;
    let (ours, theirs) = socket::seqpacket_pair()?;
    let mut supervisor = Supervisor {
        signals: event::signalfd(&BLOCKED)?,
        machines,
        listener,
        hand: Hand::new(theirs),
        handed: ours,
        keeper,
        watched: BTreeMap::new(),
        bell: event::epoll()?,
        rung: true,
        working: 0,
        tended: Instant::now(),
        stay,
    };
    supervisor.machines.remember_root()?;
    supervisor.adopt(consoles)?;
    supervisor.be_kept()?;
    ready();
    supervisor.serve()?;
    supervisor.keeper.leave();
    // Before the lock goes: the next caller finds no socket and starts another.
    fs::remove_file(&socket).map_err(|error| failed(&error))
}

/// Closes what the caller had open: a supervisor outlives it by far. For a program that has opened nothing itself yet.
pub fn forget_caller() {
    // A kernel that could not do it would be older than any that machines run on.
    let _ = process::close_range(3, u32::MAX, 0);
}

/// Leaves the caller's session and tells it, by closing standard output, that the supervisor listens.
pub fn let_go() {
    // A session leader stays one.
    let _ = process::setsid();
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = process::dup2(&null, 1);
    }
}

/// A path that is too long for an address is short through a descriptor.
fn listen(run: &std::path::Path) -> std::io::Result<UnixListener> {
    let dir = File::open(run)?;
    UnixListener::bind(path::fd_path(&dir).join("supervisor.sock"))
}

/// The right to be the supervisor.
fn only(run: &std::path::Path) -> Result<File> {
    let file = run.join("supervisor.lock");
    let opened = File::options().create(true).write(true).truncate(false).open(&file);
    let opened = opened.map_err(|error| Error::io(format_args!("open {}", file.display()), &error))?;
    match path::flock(&opened, LOCK_EX | LOCK_NB) {
        Err(error) if error.errno() == offshoot_sys::Errno::EWOULDBLOCK => {
            Err(Error::new(Kind::Exists, "failed to start the supervisor: one is running"))
        }
        locked => locked.map(|()| opened).map_err(Into::into),
    }
}

/// As far as may be: three descriptors a machine.
fn raise_descriptors() {
    let own = process::getpid();
    if let Ok((_, hard)) = process::getrlimit(own, RLIMIT_NOFILE) {
        // At worst the limit stays, and the machine that is one too many says so.
        let _ = process::prlimit(own, RLIMIT_NOFILE, hard, hard);
    }
}

/// What woke the supervisor.
enum News {
    Caller,
    Signal,
    Handed,
    Kept,
    Ended(String),
    Printed(String),
    Typed(String, usize),
    Said(String),
}

impl Supervisor {
    /// Takes over machines that run already, from a supervisor that was killed.
    fn adopt(&mut self, mut consoles: Returned) -> Result<()> {
        self.told(|supervisor| supervisor.machines.thaw_left());
        for name in self.machines.home.machine_names()? {
            let Ok(Some(container)) = self.machines.container(&name) else { continue };
            let pid = container.state.init_process_pid;
            let mut held = consoles.remove(&name).filter(|held| held.given.pid == pid);
            // One that has ended meanwhile is the keeper's to tell of.
            let process = match held.as_mut().filter(|held| !held.fds.is_empty()) {
                Some(held) => Some(held.fds.remove(0)),
                None => init_of(&container)?,
            };
            let Some(process) = process else { continue };
            let mut watched = Watched::new(process, pid);
            if let Some(Held { given, ended, fds }) = held {
                let [console, notify] = given.parts(fds);
                watched.console = console.map(Console::new).transpose()?;
                watched.notify = notify.map(Notify::of);
                watched.told = ended.map(Into::into);
            }
            if watched.told.is_none() {
                // One that cannot be read any more must not keep the others from being watched.
                let machine = self.machines.home.load(&name);
                let lent = machine.and_then(|machine| Lent::hold(network::devices(&machine), pid));
                watched.lent = lent.inspect_err(|error| self.log().warn(error)).unwrap_or_default();
            }
            if watched.console.is_none() {
                self.log().warn(format_args!(
                    "machine {name:?} was started under an earlier supervisor: its console is lost until it starts again"
                ));
            }
            self.watch(name, watched);
        }
        // Of machines that have ended.
        consoles.keys().try_for_each(|name| self.keeper.forget(name))
    }

    /// Asks to be started again should this one be killed; where `stay` is given, whoever started it does that.
    fn be_kept(&self) -> Result<()> {
        match self.stay {
            true => Ok(()),
            false => self.keeper.watch(&self.machines.runtime.root, &self.machines.home.path),
        }
    }

    /// The keeper tells how a machine ended, or what became of its children, or is gone.
    fn hear_keeper(&mut self) -> Result<()> {
        match self.keeper.told() {
            None => self.find_keeper(),
            Some(Told::Ended { name, pid, how }) => {
                match self.watched.get_mut(&name).filter(|watched| watched.pid == pid) {
                    Some(watched) => watched.told = Some(how.into()),
                    None => return Ok(()),
                }
                self.ended(&name)
            }
            Some(Told::Worked) => {
                self.working = self.working.saturating_sub(1);
                Ok(())
            }
            Some(Told::Held(..) | Told::All) => Ok(()),
        }
    }

    /// The keeper was killed: another one gets all consoles.
    fn find_keeper(&mut self) -> Result<()> {
        // Until there is one, the end of the last is told again and again.
        let found = Keeper::find(&self.machines).inspect_err(|_| std::thread::sleep(PAUSE));
        self.keeper = found?.0;
        // Those of the one that is gone are nobody's to count.
        self.working = 0;
        self.be_kept()?;
        self.watched.iter().try_for_each(|(name, watched)| self.keeper.hold(name, watched))
    }

    /// A machine's init said something.
    fn heard(&mut self, name: &str) -> Result<()> {
        let Some(watched) = self.watched.get_mut(name) else { return Ok(()) };
        let ready = watched.hears();
        if watched.notify.is_some() {
            return Ok(());
        }
        // What the keeper has still got would be asked again by the next supervisor.
        let kept = self.keeper.hold(name, watched);
        if !ready {
            self.log()
                .warn(format_args!("machine {name:?} talks without end of its boot, and is not listened to any more"));
            return kept;
        }
        let container = self.machines.container(name)?;
        if let Some(container) = container.filter(|container| container.state.init_process_pid == watched.pid) {
            notify::mark(&container.dir)?;
        }
        kept
    }

    fn watch(&mut self, name: String, watched: Watched) {
        let console = watched.console.as_ref().map(|console| console.master().as_fd());
        let notify = watched.notify.as_ref().map(|notify| notify.as_fd());
        for fd in [Some(watched.process.as_fd()), console, notify].into_iter().flatten() {
            if let Err(error) = event::epoll_add(&self.bell, fd) {
                // What cannot ring is still looked at each time that nothing else happens.
                self.log().warn(error);
            }
        }
        self.watched.insert(name, watched);
    }

    fn log(&self) -> &Log {
        &self.machines.runtime.log
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            let (news, ticked) = self.wait()?;
            for one in news {
                match one {
                    News::Caller => self.call(),
                    News::Handed => self.told(|supervisor| supervisor.take()),
                    News::Kept => self.told(Supervisor::hear_keeper),
                    News::Signal if self.signal()? => return Ok(()),
                    News::Signal => {}
                    News::Ended(name) => self.told(|supervisor| supervisor.ended(&name)),
                    News::Printed(name) => {
                        let home = &self.machines.home;
                        if let Some(watched) = self.watched.get_mut(&name)
                            && let Some(console) = &mut watched.console
                            && !console.read(home, &name)
                        {
                            watched.console = None;
                        }
                    }
                    News::Said(name) => self.told(|supervisor| supervisor.heard(&name)),
                    News::Typed(name, at) => {
                        let console = self.watched.get_mut(&name).and_then(|watched| watched.console.as_mut());
                        // One that left before it moved the others.
                        if let Some(console) = console.filter(|console| at < console.viewers().len()) {
                            console.typed(at);
                        }
                    }
                }
            }
            // Not only when nothing happens: some machine may always have something to say.
            if self.tended.elapsed() >= TICK {
                self.tend_servers();
                self.tended = Instant::now();
            }
            if ticked && self.watched.is_empty() && self.working == 0 && !self.stay {
                return Ok(());
            }
        }
    }

    /// Does what may fail for one machine, as on a full disk, and must not end the watch over the others.
    fn told(&mut self, act: impl FnOnce(&mut Supervisor) -> Result<()>) {
        if let Err(error) = act(self) {
            self.log().warn(error);
        }
    }

    /// Waits for news; says whether there was none for a while.
    fn wait(&mut self) -> Result<(Vec<News>, bool)> {
        let mut in_vain = false;
        if !self.rung {
            let mut own = self.own().map(|(fd, _)| (fd, POLLIN, 0));
            in_vain = event::poll(&mut own, Some(TICK))? == 0;
            if !in_vain && own[BELL].2 == 0 {
                let ready = own.map(|(_, _, ready)| ready != 0);
                let news = self.own().into_iter().zip(ready);
                return Ok((news.filter_map(|((_, news), ready)| news.filter(|_| ready)).collect(), false));
            }
        }
        // Before the look, so that what happens after it rings again.
        event::epoll_drain(&self.bell)?;
        let (mut fds, mut meaning) = (Vec::new(), Vec::new());
        for (fd, news) in self.own() {
            fds.extend(news.is_some().then_some((fd, POLLIN, 0)));
            meaning.extend(news);
        }
        let mut patience = Duration::ZERO;
        for (name, watched) in &self.watched {
            if watched.looks == 0 {
                fds.push((watched.process.as_fd(), POLLIN, 0));
                meaning.push(News::Ended(name.clone()));
            } else {
                patience = MOMENT;
            }
            if let Some(notify) = &watched.notify {
                fds.push((notify.as_fd(), POLLIN, 0));
                meaning.push(News::Said(name.clone()));
            }
            let Some(console) = &watched.console else { continue };
            fds.push((console.master().as_fd(), POLLIN, 0));
            meaning.push(News::Printed(name.clone()));
            for (at, viewer) in console.viewers().iter().enumerate() {
                fds.push((viewer.as_fd(), POLLIN, 0));
                meaning.push(News::Typed(name.clone(), at));
            }
        }
        let count = event::poll(&mut fds, Some(patience))?;
        let ready: Vec<bool> = fds.iter().map(|(_, _, ready)| *ready != 0).collect();
        // What a machine printed comes before its end, and is not lost with it.
        let mut news: Vec<_> =
            meaning.into_iter().zip(ready).filter_map(|(news, ready)| ready.then_some(news)).collect();
        news.sort_by_key(|news| matches!(news, News::Ended(_)));
        let waiting = self.watched.iter().filter(|(_, watched)| watched.looks > 0);
        news.extend(waiting.map(|(name, _)| News::Ended(name.clone())));
        // What was not read to its end does not ring again.
        self.rung = !news.is_empty();
        Ok((news, in_vain && count == 0 && patience.is_zero()))
    }

    /// What is not a machine's, and what it is news of.
    fn own(&self) -> [(BorrowedFd<'_>, Option<News>); 5] {
        [
            // Before callers: whoever started a machine answers without us, and a caller may ask for it by now.
            (self.handed.as_fd(), Some(News::Handed)),
            (self.listener.as_fd(), Some(News::Caller)),
            (self.signals.as_fd(), Some(News::Signal)),
            (self.keeper.as_fd(), Some(News::Kept)),
            (self.bell.as_fd(), None),
        ]
    }

    /// Answers a caller. Whoever reaches the socket is root, but may be slow or gone.
    fn call(&mut self) {
        let answered =
            self.listener.accept().map_err(|error| Error::io("accept a caller", &error)).and_then(|(stream, _)| {
                let (_, uid, _) = socket::peer_credentials(&stream)?;
                if uid != nix::unistd::geteuid().as_raw() {
                    return Err(Error::failed("answer a caller", format_args!("it is user {uid}")));
                }
                let timeouts =
                    stream.set_read_timeout(Some(REQUEST)).and_then(|()| stream.set_write_timeout(Some(REQUEST)));
                timeouts.map_err(|error| Error::io("answer a caller", &error))?;
                match receive(&stream)? {
                    None => Ok(()),
                    Some((request, fds)) => self.answer(stream.into(), request, fds),
                }
            });
        if let Err(error) = answered {
            self.log().warn(error);
        }
    }

    fn answer(&mut self, stream: OwnedFd, request: Request, fds: Vec<OwnedFd>) -> Result<()> {
        match request {
            Request::LeaveAlone { names } => {
                for name in names {
                    if let Some(watched) = self.watched.get_mut(&name) {
                        watched.left_alone = true;
                    }
                }
                send(&stream, &Granted { error: None }, &[])
            }
            Request::Console { name } => {
                let console = self.watched.get_mut(&name).map(|watched| watched.console.as_mut());
                let refusal = match console {
                    Some(Some(console)) => {
                        send(&stream, &Granted { error: None }, &[console.master().as_fd()])?;
                        event::epoll_add(&self.bell, &stream)?;
                        return console.add(stream);
                    }
                    Some(None) => "it was lost with an earlier supervisor, until the machine starts again",
                    None => "the machine does not run",
                };
                send(&stream, &Granted { error: Some(Error::new(Kind::State, refusal)) }, &[])
            }
            Request::Start { names, births, debug } => {
                let fds: Vec<_> = std::iter::once(&stream).chain(&fds).map(AsFd::as_fd).collect();
                self.work(&Task::Start { names, births, debug }, &fds)
            }
        }
    }

    /// Lets a child of the keeper's do what takes time.
    fn work(&mut self, task: &Task, fds: &[BorrowedFd]) -> Result<()> {
        let give = |supervisor: &Supervisor| {
            let fds: Vec<_> = std::iter::once(supervisor.hand.as_fd()).chain(fds.iter().copied()).collect();
            supervisor.keeper.work(task.clone(), &fds)
        };
        if give(self).is_err() {
            // Killed just now.
            self.find_keeper()?;
            give(self)?;
        }
        self.working += 1;
        Ok(())
    }

    /// Takes machines over from children that start them, as many as there are.
    fn take(&mut self) -> Result<()> {
        while event::poll(&mut [(self.handed.as_fd(), POLLIN, 0)], Some(Duration::ZERO))? > 0 {
            self.take_one()?;
        }
        Ok(())
    }

    fn take_one(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let (length, fds) = socket::recv(&self.handed, &mut buffer)?;
        let given: Given =
            serde_json::from_slice(&buffer[..length]).map_err(|error| Error::failed("read a message", error))?;
        let mut fds = fds.into_iter();
        let Some(process) = fds.next() else { return Ok(()) };
        let mut watched = Watched::new(process, given.pid);
        watched.lent = Lent::hold(given.devices.clone(), given.pid)?;
        let [console, notify] = given.parts(fds);
        watched.console = console.map(Console::new).transpose()?;
        watched.notify = notify.map(Notify::of);
        if let Err(error) = self.keeper.hold(&given.name, &watched) {
            // Its end is noticed, and the next one gets this one, too.
            self.log().debug(error);
        }
        Last::forget(&self.machines.run(), &given.name);
        self.watch(given.name, watched);
        Ok(())
    }

    /// Reaps children; says whether the supervisor is to end.
    fn signal(&mut self) -> Result<bool> {
        let mut end = false;
        while let Some(info) = event::read_signal(&self.signals)? {
            end |= matches!(info.ssi_signo as i32, SIGTERM | SIGINT);
        }
        // A machine is handed over before it runs: first, so that none that ended at once is taken for an orphan.
        self.told(Supervisor::take);
        self.reap();
        Ok(end)
    }

    /// Reaps what has ended, but for inits that are watched: their ends are for [`Watched::end`] to see.
    fn reap(&mut self) {
        while let Ok(Some(pid)) = fork::peek_any() {
            if self.watched.values().any(|watched| watched.pid == pid) {
                // It comes first as long as it is not reaped. Its turn is now.
                let name = self.watched.iter().find(|(_, watched)| watched.pid == pid).map(|(name, _)| name.clone());
                if let Some(name) = name {
                    self.told(|supervisor| supervisor.ended(&name));
                }
                continue;
            }
            if fork::wait_pid(pid).is_err() {
                return;
            }
        }
    }

    /// A machine's init has ended: clears it away, and restarts it if that is what it asked for.
    fn ended(&mut self, name: &str) -> Result<()> {
        let Some(watched) = self.watched.get_mut(name) else { return Ok(()) };
        let Some(end) = watched.end() else { return Ok(()) };
        if let Some(console) = &mut watched.console {
            // The last words.
            console.read(&self.machines.home, name);
        }
        if let Some(Err(error)) = watched.lent.as_ref().map(Lent::give_back) {
            self.machines.runtime.log.warn(error);
        }
        let (pid, left_alone) = (watched.pid, watched.left_alone);
        self.watched.remove(name);
        // If the keeper is gone, so is what it held.
        let _ = self.keeper.forget(name);
        self.log().info(format_args!("machine {name:?} {}", end.words()));
        let run = self.machines.run();
        if let Err(error) = Last::save(&run, name, &end.words(), None) {
            self.log().warn(error);
        }
        if left_alone {
            return Ok(());
        }
        self.work(&Task::Finish { name: name.to_owned(), pid, ended: end.exit().map(Into::into) }, &[])
    }

    /// Starts name servers again that have ended. By a child, as a program begins with the signals blocked that its maker blocks:
    /// it could not be told to end.
    fn tend_servers(&self) {
        let run = self.machines.network_run();
        for network in crate::home::names(&run).unwrap_or_default() {
            let server = Server::new(&run, &network);
            let revive = || {
                let revived = event::unblock_signals(&BLOCKED).map_err(Error::from).and_then(|()| server.revive());
                revived.inspect_err(|error| self.log().warn(error)).map_or(1, |()| 0)
            };
            let tended = server.is_down().and_then(|down| match down {
                false => Ok(()),
                true => Ok(fork::fork(0, None, revive).and_then(|child| fork::wait(&child.pidfd)).map(drop)?),
            });
            if let Err(error) = tended {
                self.log().warn(error);
            }
        }
    }
}
