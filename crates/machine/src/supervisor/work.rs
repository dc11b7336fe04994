//! What takes time, in a child of the keeper's, whose children the inits become that it leaves behind.

use super::keeper::Ended;
use super::message::{Hand, Last, Started, send};
use super::watch::End;
use crate::error::{Error, Kind, Result};
use crate::machines::Machines;
use crate::pool;
use offshoot_runtime::{Format, Log, Runtime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A life in seconds after which a machine is not started again at once, and how long that waits.
const SHORT: f64 = 5.0;
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Start these, and tell the caller of each.
    Start {
        /// The machines.
        names: Vec<String>,
        /// Which these are.
        #[serde(default)]
        births: Vec<String>,
        /// Whether to log how things are done.
        debug: bool,
    },
    /// Clear away what is left of a machine that has ended, and start it again if it asked for that.
    Finish {
        /// The machine.
        name: String,
        /// Its init.
        pid: i32,
        /// How that ended, if somebody told.
        ended: Option<Ended>,
    },
}

/// Does it, and says in a number how that went. With it go the way to the supervisor and, with [`Task::Start`], the caller's
/// connection and standard error.
pub fn run(machines: &Machines, task: &Task, fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let Some(hand) = fds.next().map(Hand::new) else { return 1 };
    let done = match task {
        Task::Start { names, births, debug } => match fds.next() {
            Some(caller) => {
                let log = match fds.next() {
                    Some(stderr) => Log::file(File::from(stderr), Format::Plain, *debug),
                    None => machines.runtime.log.clone(),
                };
                let runtime = Runtime { log, ..machines.runtime.clone() };
                let runtime = if names.len() > 1 { runtime.for_many() } else { runtime };
                start_all(&Machines { runtime, ..machines.clone() }, (names, births), &hand, &caller)
            }
            None => Err(Error::failed("start machines", "there is nobody to be told")),
        },
        Task::Finish { name, pid, ended } => {
            let end = End::of(ended.map(Into::into));
            finish(machines, &hand, name, *pid, end).inspect_err(|error| {
                let _ = Last::save(&machines.run(), name, &end.words(), Some(error.to_string()));
            })
        }
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            machines.runtime.log.warn(error);
            1
        }
    }
}

/// Starts machines and tells the caller of each.
fn start_all(
    machines: &Machines,
    (names, births): (&[String], &[String]),
    hand: &Hand,
    caller: &OwnedFd,
) -> Result<()> {
    let answer = |name: &str, error: Option<Error>| {
        // A caller that is gone does not keep the machines from starting.
        let _ = send(caller, &Started { name: name.to_owned(), error }, &[]);
    };
    let births: BTreeMap<_, _> = names.iter().zip(births).collect();
    let unready = machines.prepare(names);
    let names: Vec<_> = names.iter().filter(|name| !unready.contains_key(*name)).cloned().collect();
    unready.into_iter().for_each(|(name, error)| answer(&name, Some(error)));
    let done = pool::each(&names, pool::width(), &mut |at, result| answer(&names[at], result.err()), &|name| {
        machines.start_one(name, births.get(&name.to_owned()).copied(), hand)
    });
    machines.runtime.tidy();
    done
}

/// Clears away what is left of a machine, unless somebody else has, and starts it again after a reboot.
fn finish(machines: &Machines, hand: &Hand, name: &str, pid: i32, end: End) -> Result<()> {
    let lock = match machines.home.lock(name) {
        // Removed meanwhile.
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        lock => lock?,
    };
    let lived = match machines.container(name)? {
        Some(container) if container.state.init_process_pid == pid && !container.is_alive() => {
            crate::figures::age(container.state.init_process_start)
        }
        _ => return Ok(()),
    };
    let cgroup = machines.cgroup_of_one(&[name.to_owned()]);
    machines.runtime.delete(name, false)?;
    match end {
        End::Reboot => {
            // One that does nothing but reboot must not take a processor for itself.
            if lived < SHORT {
                std::thread::sleep(PAUSE);
            }
            if let Some(error) = machines.prepare(&[name.to_owned()]).remove(name) {
                return Err(error);
            }
            machines.start_locked(name, &lock, hand)
        }
        _ => {
            if let Some(cgroup) = cgroup {
                cgroup.remove_parent();
            }
            Ok(())
        }
    }
}
