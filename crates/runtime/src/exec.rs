//! `exec`

use crate::apart::Apart;
use crate::bundle::parse;
use crate::connect::{Console, receive_master};
use crate::descriptors::Descriptors;
use crate::foreground::{Foreground, Subject};
use crate::launch::{Further, Streams};
use crate::status::Verb;
use crate::terminal::HostTerminal;
use crate::{Container, Error, Kind, Result, Runtime};
use offshoot_cgroup::Cgroup;
use offshoot_engine::{Created, Io};
use offshoot_plan::ExecRequest;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

/// A further process that runs.
pub(crate) struct Running {
    /// It; a child of ours.
    pub process: Created,
    /// Its terminal's other side, which nobody else has.
    pub master: Option<OwnedFd>,
    /// What waits for it, unless it is detached.
    pub foreground: Option<Foreground>,
}

impl Runtime {
    /// Runs a further process in a container. In the foreground, waits for it and returns its exit status; detached,
    /// returns 0 when it runs.
    ///
    /// # Errors
    /// The container does not run, or the process cannot be started.
    pub fn exec(&self, wanted: &Further) -> Result<u8> {
        let Running { process: Created { pid, pidfd, .. }, master, foreground } = self.enter(wanted)?;
        let Some(foreground) = foreground else { return Ok(0) };
        let subject = Subject { pid, pidfd: pidfd.as_fd() };
        foreground
            .wait(subject, master, None, &|signal| subject.signal(signal))
            .map(|exit| u8::try_from(exit.status()).unwrap_or(u8::MAX))
    }

    /// Starts a further process.
    pub(crate) fn enter(&self, wanted: &Further) -> Result<Running> {
        // Without the lock: a further process changes nothing that is recorded, and many may come at once.
        let container = self.load(&wanted.id)?;
        container.allow(if wanted.ignore_paused { Verb::ExecIgnorePaused } else { Verb::Exec })?;
        let text = fs::read(container.config()).map_err(|e| Error::io("read the container's config.json", &e))?;
        let spec = parse(&text).map_err(|cause| Error::new(Kind::System, cause))?;
        let mut process = wanted.wanted.process(&spec)?;
        if container.state.is_system {
            offshoot_system::rewrite_further(&mut process, &crate::system::facts(container.state.init, None));
        }
        if process.terminal && !wanted.detached && process.console_size.is_none() {
            // From the beginning: what asks at once would be told none.
            process.console_size = HostTerminal::find().ok().and_then(|terminal| terminal.size());
        }
        let descriptors = Descriptors::preserved(wanted.connections.preserve_fds)?;
        let request = ExecRequest {
            rootless: self.is_rootless(),
            preserve_fds: descriptors.total,
            listen_fds: descriptors.listen,
            listen_fd_names: descriptors.names,
            detached: wanted.detached,
            console_socket: wanted.connections.console_socket.is_some(),
        };
        let plan = offshoot_plan::exec(&spec, &process, &wanted.id, &request, &self.exec_host())
            .map_err(|all| Error::problems(&all))?;
        for warning in &plan.warnings {
            self.log.warn(warning);
        }
        let socket = wanted.connections.console_socket.as_deref();
        let (theirs, ours) = Console::open(plan.process.terminal, wanted.detached, socket)?.split();
        let (streams, apart) = match wanted.streams {
            Streams::Caller => Default::default(),
            // Of a process with a terminal, that takes their place.
            _ if plan.process.terminal => Default::default(),
            Streams::NoTerminal => Apart::open()?,
            Streams::None => (Apart::nothing()?, Apart::default()),
        };
        let foreground = match wanted.detached {
            true => None,
            false => Some(Foreground::new(plan.process.terminal, false, self.log.clone())?.copying(apart)),
        };
        let init = container.init()?.ok_or_else(|| Error::new(Kind::Status, "cannot exec in a stopped container"))?;
        let cgroup = self.cgroup_of(&container, &wanted.cgroups)?;
        let exec = offshoot_engine::Exec { plan: &plan, init: &init, cgroup, state: state(&container) };
        let io = Io { fifo: None, console: theirs, root: None, hollow: None, streams, log: &self.log };
        let created = offshoot_engine::exec(exec, io)
            .map_err(|error| Error::new(Kind::System, format!("unable to start container process: {error}")))?;
        if let Err(error) = wanted.connections.announce(created.pid, created.pidfd.as_fd(), "setns") {
            let _ = offshoot_sys::pidfd::send_signal(&created.pidfd, offshoot_sys::libc::SIGKILL);
            return Err(error);
        }
        let master = ours.map(receive_master).transpose()?;
        Ok(Running { process: created, master, foreground })
    }

    /// The container's cgroup, or those below it that were asked for.
    fn cgroup_of(&self, container: &Container, below: &BTreeMap<String, String>) -> Result<Cgroup> {
        let failed = |error: offshoot_cgroup::Error| Error::new(Kind::System, error.to_string());
        let init = if below.is_empty() { container.state.init_process_pid } else { 0 };
        container.cgroup()?.sub(below).map(|cgroup| cgroup.or_where(init)).map_err(failed)
    }
}

/// The container's state, for a seccomp agent.
fn state(container: &Container) -> serde_json::Value {
    let state = &container.state;
    let pid = state.init_process_pid;
    let text = offshoot_engine::hooks::state(&state.id, "running", pid, &state.bundle, &state.annotations);
    serde_json::from_slice(&text).unwrap_or_default()
}
