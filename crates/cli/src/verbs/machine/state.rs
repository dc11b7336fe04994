//! Verbs that change what machines do: `start`, `stop`, `restart`, `rm`, `set`, `snapshot`, `rollback`, `forget`, `supervise`.

use super::launch::{LIMITS, SECCOMP, change, room};
use super::{ALL, machines, report, selected, summed};
use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;
use crate::verbs::image::STORE;
use crate::verbs::network::failed;
use offshoot_machine::definition::Change;
use offshoot_machine::{Filter, Machine, supervisor};
use std::time::{Duration, Instant};

/// How long a machine may take to stop, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

const TIMEOUT: Flag = Flag::duration("timeout", "kill it if it has not stopped after so long (default: 1m)").short("t");
const KILL: Flag = Flag::switch("force", "kill it at once").short("f");
const NAMES: &str = "NAME...";
const PATTERNS: &str = "A NAME may hold * and ?, which stand for many machines.";

/// `offshoot machine start`
pub static START: Command = Command::new("start", "start machines", start)
    .takes("[NAME...]", Count::AtLeast(0))
    .flags(&[
        STORE,
        Flag::switch("all", "every machine that does not run").short("a"),
        Flag::switch("autostart", "those that are to start when the host boots, and do not run"),
        Flag::switch("force", "start although limits of the host are too low").short("f"),
    ])
    .details(PATTERNS);

/// `offshoot machine stop`
pub static STOP: Command = Command::new("stop", "shut machines down in order", stop)
    .takes("[NAME...]", Count::AtLeast(0))
    .enters()
    .flags(&[STORE, ALL, TIMEOUT, KILL])
    .details(PATTERNS);

/// `offshoot machine wait`
pub static WAIT: Command = Command::new("wait", "wait until machines have booted", wait)
    .takes("[NAME...]", Count::AtLeast(0))
    .flags(&[STORE, ALL, Flag::duration("timeout", "fail after so long (default: 1m)").short("t")])
    .details("Systemd says when it has booted. Machines with another init are taken for ready when\nthey run.");

/// `offshoot machine restart`
pub static RESTART: Command = Command::new("restart", "shut machines down and start them again", restart)
    .takes("[NAME...]", Count::AtLeast(0))
    .enters()
    .flags(&[STORE, ALL, TIMEOUT, KILL])
    .details(PATTERNS);

/// `offshoot machine rm`
pub static REMOVE: Command = Command::new("rm", "remove machines with all that is in them", remove)
    .takes("[NAME...]", Count::AtLeast(0))
    .flags(&[STORE, ALL, Flag::switch("force", "those that run, too").short("f")])
    .details(PATTERNS);

/// `offshoot machine set`
pub static SET: Command = Command::new("set", "change what machines may use, at once and for good", set)
    .takes(NAMES, Count::AtLeast(0))
    .flags(&[
        STORE,
        ALL,
        LIMITS[0],
        LIMITS[1],
        LIMITS[2],
        LIMITS[3],
        LIMITS[4],
        LIMITS[5],
        Flag::switch("autostart", "start it when the host boots; --autostart=false does not"),
        Flag::number("order", "lower ones start earlier and stop later"),
        SECCOMP,
    ])
    .details(PATTERNS);

/// `offshoot machine snapshot`
pub static SNAPSHOT: Command = Command::new("snapshot", "remember a machine's file system under a name", snapshot)
    .takes("NAME SNAPSHOT", Count::Exactly(2))
    .flags(&[STORE])
    .details(
        "A machine that runs stands still meanwhile, so the snapshot is as after a power cut.\n\
             With the storage driver overlay that takes as long as copying what it has changed.\n\
             Machine show lists the snapshots, and machine forget deletes one.",
    );

/// `offshoot machine rollback`
pub static ROLLBACK: Command =
    Command::new("rollback", "take a stopped machine's file system back to a snapshot", rollback)
        .takes("NAME SNAPSHOT", Count::Exactly(2))
        .flags(&[STORE])
        .details("What was written since is lost.");

/// `offshoot machine forget`
pub static FORGET: Command =
    Command::new("forget", "delete a snapshot", forget).takes("NAME SNAPSHOT", Count::Exactly(2)).flags(&[STORE]);

/// `offshoot machine supervise`
pub static SUPERVISE: Command = Command::new("supervise", "watch over machines in the foreground", supervise)
    .enters()
    .flags(&[STORE, Flag::switch("detach", "as other commands start it: end when no machine runs")])
    .details(
        "Other commands start it when it is needed. It restarts machines that reboot, keeps\n\
         their consoles, and runs the name servers of networks. When it ends, machines go on.",
    );

fn start(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    let names = match call.on("autostart") {
        true if call.on("all") || !call.arguments().is_empty() => {
            return Err(Failure::new("--autostart names the machines already"));
        }
        true => machines.autostarting().map_err(failed)?,
        false => selected(call, &machines)?,
    };
    // Of those that are named one by one it may be of interest that they run already.
    let names: Vec<_> = match call.on("all") {
        true => names.into_iter().filter(|name| !machines.is_running(name).unwrap_or(false)).collect(),
        false => names,
    };
    room(call, &machines, names.len())?;
    summed(machines.start(&names, &mut report), "started", since)
}

fn stop(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    let names = selected(call, &machines)?;
    let patience = call.duration("timeout").unwrap_or(PATIENCE);
    summed(machines.stop(&names, patience, call.on("force"), &mut report), "stopped", since)
}

fn restart(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    let names = selected(call, &machines)?;
    let patience = call.duration("timeout").unwrap_or(PATIENCE);
    let stopped = machines.stop(&names, patience, call.on("force"), &mut report).map_err(failed)?;
    let good: Vec<_> = names.into_iter().filter(|name| !stopped.failed.iter().any(|(bad, _)| bad == name)).collect();
    let outcome = machines.start(&good, &mut report).map(|mut outcome| {
        outcome.failed.extend(stopped.failed);
        outcome
    });
    summed(outcome, "restarted", since)
}

fn wait(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    let names = selected(call, &machines)?;
    summed(Ok(machines.wait(&names, call.duration("timeout").unwrap_or(PATIENCE), &mut report)), "ready", since)
}

fn remove(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    // Of a launch that was killed there may be more than names can tell.
    machines.home.lock_machines().and_then(|held| machines.recover(&held)).map_err(failed)?;
    let names = selected(call, &machines)?;
    summed(machines.remove(&names, call.on("force"), &mut report), "removed", since)
}

fn set(call: &Call) -> Result<u8, Failure> {
    let (machines, since) = (machines(call)?, Instant::now());
    let (names, limits) = (selected(call, &machines)?, change(call)?);
    if limits == Change::default() && !["autostart", "order", "seccomp"].iter().any(|option| call.given(option)) {
        return Err(Failure::new("no option says what to change").hint("machine set --help lists them"));
    }
    let (autostart, order) = (call.given("autostart").then(|| call.on("autostart")), call.number("order"));
    let seccomp = call.text("seccomp").map(Filter::parse).transpose().map_err(failed)?;
    let other = |machine: &mut Machine| {
        if let Some(seccomp) = &seccomp {
            machine.seccomp = seccomp.clone();
        }
        machine.autostart = autostart.unwrap_or(machine.autostart);
        machine.order = order.unwrap_or(machine.order);
    };
    let changed = machines.each(&names, &mut report, &|name| machines.change(name, &limits, &other));
    summed(changed, "changed", since)
}

fn snapshot(call: &Call) -> Result<u8, Failure> {
    let [name, snapshot] = [0, 1].map(|at| &call.arguments()[at]);
    machines(call)?.snapshot(name, snapshot).map_err(failed).map(|()| 0)
}

fn rollback(call: &Call) -> Result<u8, Failure> {
    let [name, snapshot] = [0, 1].map(|at| &call.arguments()[at]);
    machines(call)?.rollback(name, snapshot).map_err(failed).map(|()| 0)
}

fn forget(call: &Call) -> Result<u8, Failure> {
    let [name, snapshot] = [0, 1].map(|at| &call.arguments()[at]);
    machines(call)?.forget_snapshot(name, snapshot).map_err(failed).map(|()| 0)
}

fn supervise(call: &Call) -> Result<u8, Failure> {
    let detached = call.on("detach");
    if detached {
        supervisor::forget_caller();
    }
    let ready = || {
        if detached {
            supervisor::let_go();
        }
    };
    supervisor::supervise(machines(call)?, !detached, &ready).map_err(failed).map(|()| 0)
}
