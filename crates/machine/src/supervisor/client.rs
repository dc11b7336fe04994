//! The callers' side: finding the supervisor, or starting it.

use super::message::{Granted, Request, Started, receive, send};
use crate::error::{Error, Kind, Result};
use crate::machines::Machines;
use offshoot_sys::event::{self, POLLIN};
use offshoot_sys::libc::{LOCK_EX, SIGWINCH};
use offshoot_sys::{path, socket};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The supervisor's socket.
pub(super) fn address(run: &Path) -> PathBuf {
    run.join("supervisor.sock")
}

/// Makes the directory of the socket, which nobody else may reach.
pub(super) fn make(run: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(run);
    made.map_err(|error| Error::io(format_args!("make {}", run.display()), &error))
}

fn connect(run: &Path) -> Option<OwnedFd> {
    socket::connect_unix(address(run)).ok()
}

/// A connection to the supervisor, which is started where none runs.
fn ensure(machines: &Machines) -> Result<OwnedFd> {
    let run = machines.run();
    if let Some(connected) = connect(&run) {
        return Ok(connected);
    }
    make(&run)?;
    let what = "start the supervisor";
    let io = |error: &std::io::Error| Error::io(what, error);
    // One caller starts it, the others find it afterwards.
    let lock = File::open(&run).map_err(|error| io(&error))?;
    path::flock(&lock, LOCK_EX)?;
    if let Some(connected) = connect(&run) {
        return Ok(connected);
    }
    let log = File::options().create(true).append(true).open(run.join("supervisor.log")).map_err(|error| io(&error))?;
    let child = launch(&machines.runtime.root, &machines.home.path).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.map_err(|error| io(&error))?;
    // It closes its output when it listens, or ends.
    let mut said = String::new();
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut said));
    connect(&run).ok_or_else(|| {
        let log = fs::read_to_string(run.join("supervisor.log")).unwrap_or_default();
        Error::failed(what, log.lines().next_back().unwrap_or("it ended without a word"))
    })
}

/// The command that starts a supervisor in the background.
pub(super) fn launch(root: &Path, store: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("offshoot")
        .arg("--root")
        .arg(root)
        .args(["machine", "supervise", "--detach", "--store"])
        .arg(store)
        // A service's readiness is not the supervisor's to tell.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .current_dir("/");
    command
}

/// Starts machines, and reports each.
pub fn start(machines: &Machines, names: &[String], report: &mut dyn FnMut(&str, Result<()>)) -> Result<()> {
    let connection = ensure(machines)?;
    let stderr = std::io::stderr();
    let births = names.iter().map(|name| machines.home.birth(name)).collect();
    let request = Request::Start { names: names.to_vec(), births, debug: machines.runtime.log.is_debug() };
    send(&connection, &request, &[stderr.as_fd()])?;
    let mut left: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    // The supervisor may be killed at any moment: what was not answered did not happen, as far as is known.
    while let Ok(Some((Started { name, error }, _))) = receive(&connection) {
        if left.remove(name.as_str()) {
            report(&name, error.map_or(Ok(()), Err));
        }
    }
    for name in left {
        report(
            name,
            Err(Error::failed(format_args!("start machine {name:?}"), "the supervisor ended before it said so")),
        );
    }
    Ok(())
}

/// Tells the supervisor, if there is one, that these machines are being stopped.
pub(crate) fn leave_alone(machines: &Machines, names: &[String]) {
    // Without a supervisor nobody would restart them.
    let Some(connection) = connect(&machines.run()).filter(|_| !names.is_empty()) else { return };
    let told = send(&connection, &Request::LeaveAlone { names: names.to_vec() }, &[]);
    match told.and_then(|()| receive::<Granted>(&connection)) {
        Ok(_) => {}
        Err(error) => machines.runtime.log.warn(error),
    }
}

/// A console, attached to.
#[derive(Debug)]
pub struct Attached {
    /// What is typed goes in, what is shown comes out.
    pub stream: OwnedFd,
    /// The terminal, for its size only.
    pub terminal: OwnedFd,
}

/// Attaches to the console of a machine.
pub fn attach(machines: &Machines, name: &str) -> Result<Attached> {
    machines.home.load(name)?;
    if !machines.is_running(name)? {
        let message = format!("machine {name:?} does not run");
        return Err(Error::new(Kind::State, message).hint(format!("offshoot machine start {name}")));
    }
    let what = format!("attach to the console of {name:?}");
    // One that was told to end has left the consoles to the keeper.
    let stream = ensure(machines)?;
    send(&stream, &Request::Console { name: name.to_owned() }, &[])?;
    let answer: Option<(Granted, _)> = receive(&stream)?;
    let Some((Granted { error }, fds)) = answer else {
        return Err(Error::failed(what, "the supervisor ended"));
    };
    match (error, fds.into_iter().next()) {
        (Some(error), _) => Err(error.during(what)),
        (None, Some(terminal)) => Ok(Attached { stream, terminal }),
        (None, None) => Err(Error::failed(what, "the supervisor sent none")),
    }
}

/// Copies between the caller's terminal and a console until one of them ends or Ctrl-] is typed.
pub fn relay(attached: &Attached) -> Result<()> {
    const LEAVE: u8 = 0x1d;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut terminal = offshoot_runtime::terminal::HostTerminal::find().ok();
    event::block_signals(&[SIGWINCH])?;
    let resizes = event::signalfd(&[SIGWINCH])?;
    if let Some(terminal) = &mut terminal {
        terminal.resize(attached.terminal.as_fd());
        terminal.make_raw()?;
    }
    let mut chunk = [0; 4096];
    let mut typing = true;
    loop {
        let mut fds = vec![(attached.stream.as_fd(), POLLIN, 0), (resizes.as_fd(), POLLIN, 0)];
        if typing {
            fds.push((stdin.as_fd(), POLLIN, 0));
        }
        event::poll(&mut fds, None)?;
        let [shown, resized, typed] = [0, 1, 2].map(|at| fds.get(at).is_some_and(|(_, _, ready)| *ready != 0));
        if resized {
            while event::read_signal(&resizes)?.is_some() {}
            if let Some(terminal) = &terminal {
                terminal.resize(attached.terminal.as_fd());
            }
        }
        if shown {
            match path::read(&attached.stream, &mut chunk)? {
                0 => return Ok(()),
                length => path::write_all(&stdout, &chunk[..length])?,
            }
        }
        if typed {
            let length = path::read(&stdin, &mut chunk)?;
            let end = chunk[..length].iter().position(|byte| *byte == LEAVE);
            path::write_all(&attached.stream, &chunk[..end.unwrap_or(length)])?;
            if end.is_some() {
                return Ok(());
            }
            // What the machine answers to the end of a script is still of interest.
            typing = length > 0;
        }
    }
}
