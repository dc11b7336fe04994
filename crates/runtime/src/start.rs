//! `start`, and what `run` does after `create`.

use crate::create::New;
use crate::foreground::{Foreground, Subject};
use crate::launch::Launch;
use crate::notify::Notify;
use crate::status::Verb;
use crate::{Container, Error, Kind, Result, Runtime};
use offshoot_engine::hooks;
use offshoot_plan::HookKind;
use offshoot_sys::event::{self, POLLERR};
use offshoot_sys::libc::SIGTERM;
use offshoot_sys::{Errno, libc, path};
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long `start` waits for the exec, where nothing depends on it.
const EXEC: Duration = Duration::from_millis(50);

impl Runtime {
    /// Lets the process of a created container become its program.
    ///
    /// # Errors
    /// The container does not exist, or is not waiting to be started.
    pub fn start(&self, id: &str) -> Result<()> {
        let mut container = self.lock(id)?;
        container.allow(Verb::Start)?;
        if !container.state.has_process {
            // The specification wants an error, its validation suite and crun a container that ends at once.
            self.log.warn("there is nothing to start, the container stops: config.json has no process");
        }
        let notify = Notify::bind(&container.dir)?;
        self.release(&mut container)?;
        let pid = container.state.init_process_pid;
        drop(container);
        notify.map_or(Ok(()), |notify| notify.wait(pid, &self.log))
    }

    /// Writes the byte that the process waits for, and runs poststart hooks when it has become its program.
    fn release(&self, container: &mut Container) -> Result<()> {
        let failed = |error: offshoot_sys::Error| match error.errno() {
            Errno::ENXIO => Error::new(Kind::Status, "container process is already dead"),
            _ => Error::io("open the start fifo", &error.into()),
        };
        let fifo = path::open(container.fifo(), libc::O_WRONLY | libc::O_NONBLOCK, 0).map_err(failed)?;
        // Gone first: a container is running from the moment on at which its process may run.
        fs::remove_file(container.fifo()).map_err(|error| Error::io("remove the start fifo", &error))?;
        path::write_all(&fifo, b"0").map_err(failed)?;
        // The process's end of the fifo closes with its exec. A signal that comes after `start` is the program's, not ours;
        // but nobody waits long for a process that hooks hold up, or the seccomp agent of an exec.
        let patience = container.state.poststart.is_empty().then_some(EXEC);
        event::poll(&mut [(fifo.as_fd(), POLLERR, 0)], patience).map_err(failed)?;
        if container.state.poststart.is_empty() {
            return Ok(());
        }
        let state = &container.state;
        let text = hooks::state(&state.id, "running", state.init_process_pid, &state.bundle, &state.annotations);
        hooks::run_all(HookKind::Poststart, &state.poststart, &text, None).map_err(|error| {
            self.abandon(container);
            Error::new(Kind::System, error.to_string())
        })
    }

    /// Creates and starts a container. In the foreground, waits for its process, removes the container and returns
    /// the exit status; detached, returns 0 at once.
    ///
    /// # Errors
    /// As [`Runtime::create`] and [`Runtime::start`]. Nothing is left on the host then.
    pub fn run(&self, launch: &Launch) -> Result<u8> {
        let bundle = self.bundle(launch)?;
        let Some(process) = &bundle.spec.process else {
            return Err(Error::new(Kind::Request, "cannot start a container without a process: config.json has none"));
        };
        let terminal = process.terminal;
        let foreground = match launch.detached {
            true => None,
            false => Some(Foreground::new(terminal, launch.subreaper, self.log.clone())?),
        };
        let New { mut container, pidfd, master } = self.create_from(launch, &bundle)?;
        let listen = if launch.ready.is_some() { Notify::listen } else { Notify::bind };
        let notify = listen(&container.dir).and_then(|notify| self.release(&mut container).map(|()| notify));
        let notify = notify.inspect_err(|_| self.abandon(&mut container))?;
        let (id, pid, init) = (container.state.id.clone(), container.state.init_process_pid, container.state.init);
        // Others may look at the container, signal it and exec into it meanwhile.
        drop(container);
        let Some(mut foreground) = foreground else {
            return match (notify, launch.ready) {
                (Some(notify), Some(patience)) if !notify.wait_ready(pidfd.as_fd(), patience)? => {
                    let text = format!(
                        "container {id} runs, but has not said that it is ready (hint: of inits, systemd does)"
                    );
                    Err(Error::new(Kind::System, text))
                }
                (Some(notify), None) => notify.wait(pid, &self.log).map(|()| 0),
                _ => Ok(0),
            };
        };
        let subject = Subject { pid, pidfd: pidfd.as_fd() };
        foreground.reaps |= init.is_some();
        // A service manager that ends this process wants what an engine wants with `kill TERM`.
        let pass_on = |signal| match signal {
            SIGTERM if init.is_some() => self.kill(&id, SIGTERM),
            signal => subject.signal(signal),
        };
        let exit = foreground.wait(subject, master, notify.as_ref(), &pass_on);
        if !launch.keep {
            match self.delete(&id, true) {
                Err(error) if error.kind() != Kind::NotFound => self.log.warn(error),
                _ => {}
            }
        }
        exit.map(|exit| u8::try_from(exit.status()).unwrap_or(u8::MAX))
    }
}
