//! Many machines go down: all are told at once, all are waited for together, and what is left of each is removed.

use crate::error::{Error, Kind, Result};
use crate::machines::{Machines, Outcome};
use crate::network::{self, Lent};
use crate::pool;
use crate::supervisor::{self, Last};
use offshoot_cgroup::Cgroup;
use offshoot_runtime::Container;
use offshoot_sys::event::{POLLIN, poll};
use offshoot_sys::libc::{SIGKILL, SIGTERM};
use offshoot_sys::pidfd;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the kernel may take to end a machine that was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How machines are stopped.
#[derive(Clone, Copy)]
struct How {
    /// By force.
    force: bool,
    /// They are removed next.
    removes: bool,
    /// Those that a start under way meanwhile has brought up are stopped once more.
    again: bool,
}

impl Machines {
    /// Stops machines, the highest order first: in order, as each init does it, within `patience`; then, or at once with
    /// `force`, by killing it. One that does not run is stopped already.
    ///
    /// # Errors
    /// No process can be made.
    pub fn stop(
        &self,
        names: &[String],
        patience: Duration,
        force: bool,
        report: &mut dyn FnMut(&str, &Result<()>),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for group in self.in_order(names).into_iter().rev() {
            self.stop_group(&group, patience, How { force, removes: false, again: force }, &mut |name, result| {
                report(name, &result);
                outcome.add(name, result);
            })?;
        }
        Ok(outcome)
    }

    fn stop_group(
        &self,
        names: &[String],
        patience: Duration,
        how: How,
        report: &mut dyn FnMut(&str, Result<()>),
    ) -> Result<()> {
        let cgroup = self.cgroup_of_one(names);
        let (mut told, mut held) = (Vec::new(), Vec::new());
        for name in names {
            match self.process(name).and_then(|process| Ok((self.lent(name, process.as_ref())?, process))) {
                Ok((lent, process)) => {
                    held.extend(lent);
                    told.push((name.clone(), process));
                }
                Err(error) => report(name, Err(error)),
            }
        }
        let alive: Vec<String> =
            told.iter().filter(|(_, process)| process.is_some()).map(|(name, _)| name.clone()).collect();
        // It would take a machine that goes down by itself for one to be restarted or cleared away.
        supervisor::leave_alone(self, &alive);
        let signal = if how.force { SIGKILL } else { SIGTERM };
        let mut refused = Vec::new();
        // Runit, s6 and OpenRC are told by a command in the machine. Were that a child of this process, which waits for the
        // machine's end, the kernel would keep its init until the child is reaped (zap_pid_ns_processes).
        pool::apart(
            &alive,
            pool::width(),
            &mut |at, result| {
                if let Err(error) = result {
                    refused.push((alive[at].clone(), error));
                }
            },
            // One that has ended since is what was wanted.
            &|name| match self.runtime.kill(name, signal) {
                Err(error) if error.kind() != offshoot_runtime::Kind::Status => Err(error.into()),
                _ => Ok(()),
            },
        )?;
        for (name, error) in refused {
            told.retain(|(other, _)| *other != name);
            report(&name, Err(error.during(format_args!("stop machine {name:?}"))));
        }
        let mut waiting: Vec<_> =
            told.iter().filter_map(|(name, process)| Some((name.as_str(), process.as_ref()?))).collect();
        wait_for(&mut waiting, if how.force { PATIENCE } else { patience })?;
        for (name, process) in &waiting {
            self.runtime.log.warn(format_args!("machine {name:?} did not stop within {patience:?} and is killed"));
            // It may have ended by now.
            let _ = pidfd::send_signal(process, SIGKILL);
        }
        wait_for(&mut waiting, PATIENCE)?;
        for lent in &held {
            if let Err(error) = lent.give_back() {
                self.runtime.log.warn(error);
            }
        }
        let names: Vec<_> = told.iter().map(|(name, _)| name.clone()).collect();
        let mut again = Vec::new();
        let mut hear = |at: usize, result: Result<()>| match result {
            // A start that was under way when this one looked: that of a command that was killed goes on.
            Err(error) if how.again && error.kind() == Kind::State => again.push(names[at].clone()),
            result => report(&names[at], result),
        };
        pool::each(&names, pool::width(), &mut hear, &|name| self.clear(name, how.removes))?;
        if !again.is_empty() {
            self.stop_group(&again, patience, How { again: false, ..how }, report)?;
        }
        // Once for all of them, after the last.
        if let Some(cgroup) = cgroup {
            cgroup.remove_parent();
        }
        Ok(())
    }

    /// That of the first machine that has one: all have the same parent.
    pub(crate) fn cgroup_of_one(&self, names: &[String]) -> Option<Cgroup> {
        names.iter().find_map(|name| self.container(name).ok()??.cgroup().ok())
    }

    /// The init of a machine, while it lives. One that is frozen is thawed, to hear that it is to stop.
    fn process(&self, name: &str) -> Result<Option<OwnedFd>> {
        if self.home.load(name).is_err_and(|error| error.kind() == Kind::NotFound) {
            return Err(crate::home::absent("machine", name));
        }
        let Some(container) = self.container(name)? else { return Ok(None) };
        if matches!(container.status()?, offshoot_runtime::Status::Paused) {
            self.runtime.resume(name)?;
        }
        init_of(&container)
    }

    /// What a machine has of the host's, while its init lives.
    fn lent(&self, name: &str, process: Option<&OwnedFd>) -> Result<Option<Lent>> {
        let (Some(process), Some(container)) = (process, self.container(name)?) else { return Ok(None) };
        // One that cannot be read any more is stopped all the same: the kernel returns what is hardware.
        let Ok(machine) = self.home.load(name).inspect_err(|error| self.runtime.log.warn(error)) else {
            return Ok(None);
        };
        let lent = match Lent::hold(network::devices(&machine), container.state.init_process_pid) {
            // It has ended.
            Err(_) if pidfd::send_signal(process, 0).is_err() => return Ok(None),
            lent => lent?,
        };
        // After opening: the number was still its own.
        Ok(lent.filter(|_| pidfd::send_signal(process, 0).is_ok()))
    }

    /// Removes what is left of a machine that was stopped, unless it has been started anew. One that is to be removed cannot
    /// be started afterwards.
    fn clear(&self, name: &str, removes: bool) -> Result<()> {
        let _lock = self.home.lock(name)?;
        match self.container(name)? {
            Some(container) if container.is_alive() => {
                return Err(Error::new(Kind::State, format!("machine {name:?} is running again")));
            }
            Some(_) => self.runtime.delete(name, true)?,
            None => {}
        }
        if removes { self.home.close(name) } else { Ok(()) }
    }

    /// Removes machines with their file systems, snapshots and addresses. One that runs is refused, or with `force` killed.
    ///
    /// # Errors
    /// No process can be made, or the leases cannot be written.
    pub fn remove(&self, names: &[String], force: bool, report: &mut dyn FnMut(&str, &Result<()>)) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut gone = Vec::new();
        let mut stopped = |name: &str, result: Result<()>| match result {
            Ok(()) => gone.push(name.to_owned()),
            Err(error) => {
                let result = Err(error);
                report(name, &result);
                outcome.add(name, result);
            }
        };
        if force {
            self.stop_group(names, Duration::ZERO, How { force: true, removes: true, again: true }, &mut stopped)?;
        } else {
            let at_rest = |name: &str| match self.process(name)? {
                None => self.clear(name, true),
                Some(_) => Err(Error::new(Kind::State, format!("machine {name:?} is running"))
                    .hint("stop it first, or remove it with --force")),
            };
            let cgroup = self.cgroup_of_one(names);
            pool::each(names, pool::width(), &mut |at, result| stopped(&names[at], result), &at_rest)?;
            if let Some(cgroup) = cgroup {
                cgroup.remove_parent();
            }
        }
        let held = self.home.lock_machines()?;
        // First, so that what a killed process leaves is a machine without a clone, which can be removed again.
        self.store()?.delete_clones(&gone)?;
        self.home.give_back_addresses(&self.network_run(), &gone)?;
        let mut removed = |at: usize, result: Result<()>| {
            let name: &String = &gone[at];
            report(name, &result);
            outcome.add(name, result);
        };
        pool::each(&gone, pool::width(), &mut removed, &|name| {
            Last::forget(&self.run(), name);
            self.home.forget(name, &held)
        })?;
        Ok(outcome)
    }
}

/// The descriptor of a container's init, while it lives.
pub(crate) fn init_of(container: &Container) -> Result<Option<OwnedFd>> {
    match pidfd::open(container.state.init_process_pid.max(1)) {
        // After opening: the number cannot have come to mean another process since.
        Ok(process) => Ok(Some(process).filter(|_| container.is_alive())),
        Err(error) if error.errno() == offshoot_sys::Errno::ESRCH => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until all have ended, at most `patience`; those that have not are left in `waiting`.
fn wait_for(waiting: &mut Vec<(&str, &OwnedFd)>, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    while !waiting.is_empty() {
        let mut fds: Vec<_> = waiting.iter().map(|(_, process)| (process.as_fd(), POLLIN, 0)).collect();
        let left = end.saturating_duration_since(Instant::now());
        if poll(&mut fds, Some(left))? == 0 && left.is_zero() {
            return Ok(());
        }
        let ended: Vec<bool> = fds.iter().map(|(_, _, ready)| *ready != 0).collect();
        let mut at = 0;
        waiting.retain(|_| {
            at += 1;
            !ended[at - 1]
        });
        if Instant::now() >= end {
            return Ok(());
        }
    }
    Ok(())
}
