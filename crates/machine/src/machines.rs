//! The handle for all verbs: where definitions are, and the runtime that has the containers.

use crate::check::{Facts, Finding};
use crate::definition::Machine;
use crate::error::{Error, Kind, Result};
use crate::home::Home;
use crate::name;
use crate::pool;
use crate::still::{self, PATIENCE, PATIENCE_STILL};
use crate::supervisor;
use crate::valid;
use offshoot_runtime::{Container, Runtime, Status};
use offshoot_snapshot::Store;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// From this many machines on, the host's limits are looked at before a start.
const MANY: usize = 16;
/// What a small machine takes at rest, in KiB: the least that any start needs.
const SMALL: u64 = 400;

/// All machines of one home, with their containers in one runtime.
#[derive(Clone, Debug)]
pub struct Machines {
    /// Where they are written down.
    pub home: Home,
    /// What runs them. A machine's container has the machine's name.
    pub runtime: Runtime,
}

/// What each of many came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many did what they were to do.
    pub done: usize,
    /// Those that did not, in the order in which they failed.
    pub failed: Vec<(String, Error)>,
}

impl Outcome {
    pub(crate) fn add(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.done += 1,
            Err(error) => self.failed.push((name.to_owned(), error)),
        }
    }

    /// Whether all did.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty()
    }
}

impl Machines {
    /// With definitions in the directory of the image store.
    pub fn new(home: Home, runtime: Runtime) -> Machines {
        Machines { home, runtime }
    }

    /// Where the supervisor's socket and what it knows are.
    pub fn run(&self) -> PathBuf {
        crate::beside(&self.runtime, "machines")
    }

    /// Where the name servers' files are.
    pub fn network_run(&self) -> PathBuf {
        crate::beside(&self.runtime, "networks")
    }

    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.home.path)?)
    }

    /// The machines that `words` name, or all.
    ///
    /// # Errors
    /// A word names none, or there is no word.
    pub fn select(&self, words: &[String], all: bool) -> Result<Vec<String>> {
        self.mend();
        let known = self.home.machine_names()?;
        match (words.is_empty(), all) {
            (true, true) => Ok(known),
            (false, false) => name::select(words, &known),
            (true, false) => Err(Error::request("no machine is named").hint("--all means every one")),
            (false, true) => Err(Error::request("machines are named and --all is given")),
        }
    }

    /// Sees to what commands that were killed have left half done, where others would meet it.
    fn mend(&self) {
        for error in [self.thaw_left(), self.recover_left()].into_iter().filter_map(Result::err) {
            self.runtime.log.warn(error);
        }
    }

    /// The container of a machine; none where it does not run and nothing is left of it. One that runs under another root fails.
    pub(crate) fn container(&self, name: &str) -> Result<Option<Container>> {
        match self.runtime.load(name) {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.kind() == offshoot_runtime::Kind::NotFound => self.check_elsewhere(name).map(|()| None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a machine's init lives.
    ///
    /// # Errors
    /// Its state cannot be read.
    pub fn is_running(&self, name: &str) -> Result<bool> {
        Ok(self.container(name)?.is_some_and(|container| container.is_alive()))
    }

    /// Machines by their order, the earliest first; those of one order may go at once. One that cannot be read comes last, to
    /// fail by itself.
    pub(crate) fn in_order(&self, names: &[String]) -> Vec<Vec<String>> {
        let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for name in names {
            let order = self.home.load(name).map_or(i64::MAX, |machine| machine.order);
            groups.entry(order).or_default().push(name.clone());
        }
        groups.into_values().collect()
    }

    /// The limits of the host that `more` machines beside those that run would meet: those too low.
    ///
    /// # Errors
    /// The names of the machines cannot be read.
    pub fn narrow(&self, more: usize) -> Result<Vec<Finding>> {
        if more < MANY {
            return Ok(Vec::new());
        }
        let running = self.home.machine_names()?.iter().filter(|name| self.is_running(name).unwrap_or(false)).count();
        let mut limits = Facts::read().limits((running + more) as u64, SMALL);
        limits.retain(|found| !found.is_enough());
        Ok(limits)
    }

    /// Starts machines, each order after the one before. `report` gets each result.
    ///
    /// # Errors
    /// The supervisor cannot be reached.
    pub fn start(&self, names: &[String], report: &mut dyn FnMut(&str, &Result<()>)) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for group in self.in_order(names) {
            supervisor::start(self, &group, &mut |name, result| {
                report(name, &result);
                outcome.add(name, result);
            })?;
        }
        Ok(outcome)
    }

    /// Those that start by themselves and do not run; and those of which that cannot be told, to fail by themselves.
    ///
    /// # Errors
    /// The names of the machines cannot be read.
    pub fn autostarting(&self) -> Result<Vec<String>> {
        self.mend();
        let starts = |name: &String| match self.home.load(name) {
            Ok(machine) => machine.autostart && !self.is_running(name).unwrap_or(false),
            Err(_) => true,
        };
        Ok(self.home.machine_names()?.into_iter().filter(starts).collect())
    }

    /// Does the same for each of many, in order and at this machine's width.
    ///
    /// # Errors
    /// No process can be made.
    pub fn each(
        &self,
        names: &[String],
        report: &mut dyn FnMut(&str, &Result<()>),
        work: &dyn Fn(&str) -> Result<()>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        pool::each(
            names,
            pool::width(),
            &mut |at, result| {
                report(&names[at], &result);
                outcome.add(&names[at], result);
            },
            work,
        )?;
        Ok(outcome)
    }

    /// Changes what is written down of a machine, and its container, where it runs.
    ///
    /// # Errors
    /// A limit cannot be set; then nothing is changed.
    pub fn change(&self, name: &str, limits: &crate::definition::Change, change: &dyn Fn(&mut Machine)) -> Result<()> {
        let _lock = self.home.lock(name)?;
        let mut machine = self.home.load(name)?;
        limits.apply(&mut machine.limits);
        valid::limits(&machine.limits)?;
        change(&mut machine);
        let resources = limits.resources();
        if resources != offshoot_spec::Resources::default() && self.is_running(name)? {
            self.runtime.update(name, &resources, &offshoot_runtime::update::Schemata::default())?;
        }
        self.home.save(&machine)
    }

    /// Remembers the state of a machine's file system. One that runs is frozen meanwhile, so the snapshot is as after a power
    /// cut at that moment.
    ///
    /// # Errors
    /// It cannot be frozen, or there is a snapshot of that name.
    pub fn snapshot(&self, name: &str, snapshot: &str) -> Result<()> {
        let _lock = self.home.lock(name)?;
        self.snapshot_locked(name, snapshot)
    }

    pub(crate) fn snapshot_locked(&self, name: &str, snapshot: &str) -> Result<()> {
        let store = self.store()?;
        let mut clone = store.find_clone(name)?;
        let Some(container) = self.container(name)?.filter(Container::is_alive) else {
            return Ok(clone.snapshot(snapshot)?);
        };
        // What it has written and the disk has not: as much as can be before it stands still.
        let pid = container.state.init_process_pid;
        still::sync(pid, PATIENCE)?;
        let pause = container.status()? != Status::Paused;
        drop(container);
        let mut take = || {
            still::sync(pid, PATIENCE_STILL)?;
            Ok(clone.snapshot_mounted(snapshot)?)
        };
        if pause { self.still(name, take) } else { take() }
    }

    /// Takes a machine's file system back to a snapshot; what was written since is lost.
    ///
    /// # Errors
    /// It runs, or there is no such snapshot.
    pub fn rollback(&self, name: &str, snapshot: &str) -> Result<()> {
        let _lock = self.home.lock(name)?;
        self.check_at_rest(name, "roll back")?;
        Ok(self.store()?.find_clone(name)?.rollback(snapshot)?)
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn forget_snapshot(&self, name: &str, snapshot: &str) -> Result<()> {
        let _lock = self.home.lock(name)?;
        Ok(self.store()?.find_clone(name)?.delete_snapshot(snapshot)?)
    }

    pub(crate) fn check_at_rest(&self, name: &str, verb: &str) -> Result<()> {
        match self.is_running(name)? {
            true => Err(Error::new(Kind::State, format!("failed to {verb} machine {name:?}: it is running"))
                .hint(format!("offshoot machine stop {name}"))),
            false => Ok(()),
        }
    }
}
