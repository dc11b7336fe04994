//! `kill`

use crate::launch::{Further, Streams};
use crate::status::Verb;
use crate::{Container, Error, Kind, Result, Runtime, Wanted, process};
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::libc::{SIGKILL, SIGTERM};
use offshoot_sys::{Errno, fork, pidfd};
use offshoot_system::Stop;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a command that tells an init to stop may take to end.
const SOON: Duration = Duration::from_secs(1);

impl Runtime {
    /// Sends a signal to a container's first process. SIGKILL to a container that shares its pid namespace goes to
    /// all its processes: there is no init whose death takes the others along.
    ///
    /// SIGTERM, with which every engine stops a container, shuts a whole system down in order, by what its init
    /// understands.
    ///
    /// The container is not locked: a signal must get through while another verb hangs.
    ///
    /// # Errors
    /// The container does not exist or is not running.
    pub fn kill(&self, id: &str, signal: i32) -> Result<()> {
        let container = self.load(id)?;
        match container.stop(signal) {
            None => container.kill(signal),
            Some(Stop::Signal(other)) => container.kill(other),
            Some(Stop::Command(command)) => self.tell(&container, command),
            Some(Stop::Child(name, otherwise)) => match container.child_of_init(name)? {
                Some(child) => send(&child, SIGTERM),
                None => self.tell(&container, otherwise),
            },
        }
    }

    /// Runs a command in a container, as its root. One that ends soon is waited for: as long as nobody reaps it, the scripts
    /// of a system that goes down find it among the processes that they wait for.
    fn tell(&self, container: &Container, command: &[&str]) -> Result<()> {
        container.allow(Verb::Kill)?;
        let args = command.iter().map(ToString::to_string).collect();
        let user = Some("0:0".into());
        let wanted = Wanted { args, user, cwd: Some("/".into()), ..Wanted::default() };
        let id = container.state.id.clone();
        // The command is the guest's, and what it had of the caller's it could keep: a terminal, or a pipe whose end an engine
        // waits for.
        let further = Further { id, wanted, detached: true, streams: Streams::None, ..Further::default() };
        let command = self.enter(&further)?.process.pidfd;
        let failed =
            |error: offshoot_sys::Error| Error::io("wait for the command that stops the system", &error.into());
        event::poll(&mut [(command.as_fd(), POLLIN, 0)], Some(SOON)).map_err(failed)?;
        fork::try_wait(&command).map_err(failed)?;
        Ok(())
    }
}

/// What has ended meanwhile needs no signal any more.
fn send(process: &OwnedFd, signal: i32) -> Result<()> {
    match pidfd::send_signal(process, signal) {
        Err(error) if error.errno() != Errno::ESRCH => Err(Error::io("signal a child of the init", &error.into())),
        _ => Ok(()),
    }
}

impl Container {
    /// What `signal` stands for, if it tells a whole system to stop. One that waits for `start` has no init yet.
    fn stop(&self, signal: i32) -> Option<Stop> {
        let init = self.state.init.filter(|_| signal == SIGTERM)?;
        (!self.fifo().exists()).then(|| init.stop())
    }

    /// Whether [`Runtime::kill`] with this signal may run a command in the container, before which the caller has to
    /// protect its own program.
    pub fn kill_enters(&self, signal: i32) -> bool {
        matches!(self.stop(signal), Some(Stop::Command(_) | Stop::Child(..)))
    }

    /// A child of the first process, by the name of its program. A guest can give any of its processes that name, but
    /// the first process's children are processes of the guest in any case.
    fn child_of_init(&self, name: &str) -> Result<Option<OwnedFd>> {
        let init = self.state.init_process_pid;
        let is_it = |pid: i32| {
            let called = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            process::stat(pid).is_some_and(|stat| stat.parent == init)
                && called.is_ok_and(|comm| comm.trim_end() == name)
        };
        let pids =
            self.cgroup()?.all_pids().map_err(|error| Error::cgroup("unable to find the init's children", &error))?;
        for pid in pids.into_iter().filter(|&pid| is_it(pid)) {
            match pidfd::open(pid) {
                // After opening: the number cannot have come to mean another process since.
                Ok(child) if is_it(pid) && self.is_alive() => return Ok(Some(child)),
                Ok(_) => {}
                Err(error) if error.errno() == Errno::ESRCH => {}
                Err(error) => return Err(Error::io("find a child of the init", &error.into())),
            }
        }
        Ok(None)
    }

    pub(crate) fn kill(&self, signal: i32) -> Result<()> {
        if signal == SIGKILL && !self.state.own_pid_namespace {
            return self.kill_all();
        }
        self.allow(Verb::Kill)?;
        self.signal(signal)
    }

    /// Kills every process of the container, whether its first one lives or not.
    fn kill_all(&self) -> Result<()> {
        let cgroup = self.cgroup()?;
        // A cgroup that is not known to be the container's own may hold anybody.
        if !self.state.cgroup_made || !cgroup.exists() {
            self.allow(Verb::Kill)?;
            return self.signal(SIGKILL);
        }
        match cgroup.kill_all() {
            // Nobody delegated the cgroup to an ordinary user, perhaps; the first process can be reached in any case.
            Err(_) if self.state.rootless => self.signal(SIGKILL),
            killed => killed.map_err(|error| Error::cgroup("unable to kill all processes", &error)),
        }
    }

    fn signal(&self, signal: i32) -> Result<()> {
        let init = self.init()?.ok_or_else(|| Error::new(Kind::Status, "container not running"))?;
        pidfd::send_signal(&init, signal).map_err(|error| {
            Error::new(Kind::System, format!("unable to signal init: {}", offshoot_sys::errno_text(error.errno())))
        })?;
        // A process that is frozen by cgroup v1 dies only once it is thawed.
        if signal == SIGKILL && self.is_frozen()? {
            self.cgroup()?.thaw().map_err(|error| Error::cgroup("unable to thaw the container", &error))?;
        }
        Ok(())
    }

    /// A descriptor of the first process; `None` when it is gone. What was opened is what was recorded: the number
    /// is compared after it cannot be used again.
    pub(crate) fn init(&self) -> Result<Option<OwnedFd>> {
        let (pid, start) = (self.state.init_process_pid, self.state.init_process_start);
        if pid <= 0 {
            return Ok(None);
        }
        match pidfd::open(pid) {
            Ok(init) => Ok(Some(init).filter(|_| process::is_alive(pid, start))),
            Err(error) if error.errno() == Errno::ESRCH => Ok(None),
            Err(error) => Err(Error::io("find the container's process", &error.into())),
        }
    }
}
