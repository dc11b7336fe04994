//! The host's part: it makes what the container's processes need, lets them go step by step, and takes everything back
//! if one of them fails.

use crate::error::{Context, Error, Kind, Result};
use crate::hollow::Hollow;
use crate::inherit::Opened;
use crate::log::Log;
use crate::open::{self, IdMaps};
use crate::protocol::{self, HostEnd, Report};
use crate::stage::{self, Job};
use crate::{failpoint, hooks, id_map, inherit};
use offshoot_cgroup::Cgroup;
use offshoot_plan::cgroup::Driver;
use offshoot_plan::{ExecPlan, HookKind, HostStep, Plan, Process, ResourceLimit, Step, Sync, What};
use offshoot_sys::fork::{self, Child};
use offshoot_sys::{Errno, libc, path, pidfd, process, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What a container or an exec'd process is connected to.
pub struct Io<'a> {
    /// The fifo that `start` writes to, opened for reading and writing; none for `exec`.
    pub fifo: Option<OwnedFd>,
    /// The socket that gets the terminal's master.
    pub console: Option<OwnedFd>,
    /// The root filesystem as a detached mount, in place of the configuration's path.
    pub root: Option<OwnedFd>,
    /// What shows nothing at /proc and /sys; made for the container alone where not given.
    pub hollow: Option<&'a Hollow>,
    /// What takes the place of the caller's standard input, output and error.
    pub streams: [Option<OwnedFd>; 3],
    /// Where messages go.
    pub log: &'a Log,
}

/// A process that waits for `start`, or that has just become its program.
pub struct Created {
    /// Its id on the host.
    pub pid: i32,
    /// Its descriptor, which no other process can take over.
    pub pidfd: OwnedFd,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// The resctrl group that was made for it and goes with it.
    pub resctrl: Option<crate::rdt::Group>,
}

/// What exists by now and is to be written down before more is done.
pub enum Progress<'a> {
    /// The cgroup.
    Cgroup(&'a Cgroup),
    /// The mount of the root filesystem that the host is about to get, by its id.
    Root(u64),
    /// The process too; it has not been let go yet.
    Process(&'a Created),
}

type Save<'a> = dyn FnMut(Progress) -> Result<()> + 'a;

/// An `exec`.
pub struct Exec<'a> {
    /// The decision.
    pub plan: &'a ExecPlan,
    /// The container's init.
    pub init: &'a OwnedFd,
    /// Where the process goes.
    pub cgroup: Cgroup,
    /// The container's state, for a seccomp agent.
    pub state: serde_json::Value,
}

/// Makes a container. `save` writes down what exists, before the container's process is let go.
///
/// # Errors
/// What failed. No process or cgroup is left on the host; a root filesystem mounted there was told to `save`, and is the
/// caller's to take away.
pub fn create(plan: &Plan, io: Io, save: &mut Save) -> Result<Created> {
    let unprivileged = plan.unprivileged;
    let job = Job {
        launcher: plan.entry.launcher.as_deref(),
        clone_flags: plan.entry.clone_flags,
        steps: &plan.steps,
        process: &plan.process,
        plan: Some(plan),
        log: io.log,
        unprivileged,
        ignored_signals: process::ignored_signals(),
    };
    let mut host = Host {
        job,
        plan: Some(plan),
        cgroup: None,
        init: None,
        launcher: None,
        maps: IdMaps::default(),
        resctrl: None,
        attached: true,
        entered: false,
        count: 0,
        state: serde_json::Value::Null,
    };
    let result = host.prepare(io, save).and_then(|end| host.serve(&end, save));
    host.finish(result)
}

/// Makes a further process in a container.
///
/// # Errors
/// What failed; the process is gone then.
pub fn exec(exec: Exec, io: Io) -> Result<Created> {
    let plan = exec.plan;
    // The launcher inherits the initial affinity, and changes it when it is in the container's cgroup.
    let first = plan.initial_affinity.clone().map(|cpus| Step::Affinity(Some(cpus)));
    let launcher: Vec<Step> = first.into_iter().chain(plan.launcher.iter().cloned()).collect();
    let job = Job {
        launcher: Some(&launcher),
        clone_flags: 0,
        steps: &plan.steps,
        process: &plan.process,
        plan: None,
        log: io.log,
        unprivileged: false,
        ignored_signals: process::ignored_signals(),
    };
    let mut host = Host {
        job,
        plan: None,
        cgroup: Some(exec.cgroup),
        init: None,
        launcher: None,
        maps: IdMaps::default(),
        resctrl: None,
        attached: true,
        entered: false,
        count: 0,
        state: exec.state,
    };
    let opened = exec.init.try_clone().context(|| "keep the container's init".into());
    let result = opened
        .map(|init| Opened { init: Some(init), console: io.console, streams: io.streams, ..Opened::default() })
        .and_then(|opened| host.clone_first(opened))
        .and_then(|end| host.serve(&end, &mut |_| Ok(())));
    host.finish(result)
}

struct Host<'a> {
    job: Job<'a>,
    /// The container; none for `exec`.
    plan: Option<&'a Plan>,
    cgroup: Option<Cgroup>,
    /// init, or the launcher until it has made init.
    init: Option<Child>,
    /// The launcher once it has made init: it ends meanwhile, for which the kernel takes as long as for its mount namespace.
    launcher: Option<Child>,
    maps: IdMaps,
    resctrl: Option<crate::rdt::Group>,
    /// Whether the clone put the process into its cgroup (or it does so itself).
    attached: bool,
    /// Whether the process is past its cgroups.
    entered: bool,
    /// Steps done, for failures on purpose.
    count: usize,
    state: serde_json::Value,
}

impl Host<'_> {
    fn prepare(&mut self, io: Io, save: &mut Save) -> Result<HostEnd> {
        let plan = self.plan.ok_or_else(|| Error::new("there is no container to make"))?;
        let mut opened = Opened::default();
        let mut end = Err(Error::new("the plan does not clone"));
        let (mut fifo, mut console, mut root, mut streams) = (io.fifo, io.console, io.root, io.streams);
        for step in plan.prepare() {
            self.checkpoint()?;
            match step {
                HostStep::Cgroup => {
                    self.cgroup = Some(Cgroup::prepare(&plan.cgroup).map_err(|e| Error::new(e.to_string()))?)
                }
                HostStep::Save => self.cgroup.iter().try_for_each(|cgroup| save(Progress::Cgroup(cgroup)))?,
                HostStep::Open => {
                    opened = open::open(plan, &mut self.maps)?;
                    (opened.fifo, opened.console, opened.root) = (fifo.take(), console.take(), root.take());
                    opened.streams = std::mem::take(&mut streams);
                    if plan.locks_mounts {
                        opened.hollow = io.hollow.map(Hollow::copies).unwrap_or_default();
                    }
                    if plan.enters_void {
                        opened.void = io.hollow.map(Hollow::void).transpose()?.flatten();
                    }
                }
                HostStep::MountRoot => {
                    let root = open::mount_root(plan, opened.root.take(), |id| save(Progress::Root(id)))?;
                    opened.root = Some(root);
                }
                _ => end = self.clone_first(std::mem::take(&mut opened)),
            }
        }
        end
    }

    fn checkpoint(&mut self) -> Result<()> {
        let index = self.count;
        self.count += 1;
        failpoint::check("host", index)
    }

    fn clone_first(&mut self, mut opened: Opened) -> Result<HostEnd> {
        let (end, child_end) = protocol::pair()?;
        let flags = if self.job.launcher.is_some() { 0 } else { self.job.clone_flags };
        opened.tasks = self.cgroup.as_mut().map(Cgroup::take_task_files).unwrap_or_default();
        let enters_itself = !opened.tasks.is_empty();
        let job = self.job;
        // Taken by the child, which is a copy: whichever clone succeeds runs it.
        let mut child = Some((opened, child_end));
        let mut attempt = |cgroup| {
            fork::fork(flags, cgroup, || match child.take() {
                Some((opened, end)) => match inherit::keep_own(job.process.preserve_fds, &opened, &end) {
                    Ok(()) => stage::main(job, opened, end),
                    Err(_) => 1,
                },
                None => 1,
            })
        };
        let (into, other) = self.cgroup.as_ref().map_or((None, None), |cgroup| (cgroup.fd(), cgroup.other_fd()));
        // The container's own cgroup is gone when nobody is left in it.
        let into = into.or(other);
        self.attached = into.is_some() || enters_itself;
        // A cgroup with inner processes, a threaded one, one that is not ours to enter.
        let refused = |made: &offshoot_sys::Result<Child>| {
            made.as_ref().is_err_and(|error| {
                matches!(error.errno(), Errno::EBUSY | Errno::EOPNOTSUPP | Errno::EACCES | Errno::ENODEV)
            })
        };
        let mut made = attempt(into);
        if other.is_some() && refused(&made) {
            made = attempt(other);
        }
        if into.is_some() && refused(&made) {
            self.attached = false;
            made = attempt(None);
        }
        self.init = Some(made.context(|| "clone the container's first process".into())?);
        Ok(end)
    }

    fn pid(&self) -> i32 {
        self.init.as_ref().map_or(0, |init| init.pid)
    }

    /// Answers the container's processes until they are done.
    fn serve(&mut self, end: &HostEnd, save: &mut Save) -> Result<()> {
        loop {
            match end.receive()? {
                Some(Report::At(point)) => {
                    self.at(point, save)?;
                    end.go(self.pid())?;
                }
                Some(Report::Forked(pid)) => self.forked(pid)?,
                Some(Report::Tasks(index)) => self.tasks(end, index)?,
                Some(Report::Source(index)) => self.source(end, index)?,
                Some(Report::Listener(fd)) => {
                    self.listener(fd)?;
                    end.go(self.pid())?;
                }
                Some(Report::Done) => return Ok(()),
                Some(Report::Failed(text)) => return Err(Error::of(Kind::Container, text)),
                Some(Report::Warning(text)) => self.job.log.warn(text),
                Some(Report::Debug(text)) => self.job.log.debug(text),
                None => return Err(self.death()),
            }
        }
    }

    /// init died without a word: a signal, most likely the OOM killer's.
    fn death(&self) -> Error {
        let exit = self.init.as_ref().and_then(|init| fork::wait(&init.pidfd).ok());
        let how = exit.map_or("it is gone".into(), |exit| exit.to_string());
        Error::of(
            Kind::Container,
            format!(
                "the container's process ended before its program ran: {how} (hint: a memory limit may be too small)"
            ),
        )
    }

    fn forked(&mut self, pid: i32) -> Result<()> {
        if self.launcher.is_some() || self.job.launcher.is_none() {
            return Err(Error::new("the container's process named another one"));
        }
        let made = Child { pid, pidfd: pidfd::open(pid).context(|| "open the container's process".into())? };
        self.launcher = self.init.replace(made);
        Ok(())
    }

    fn tasks(&mut self, end: &HostEnd, index: u32) -> Result<()> {
        // Nothing of cgroups is for a process that has left the host's namespaces, whatever it says.
        if self.entered {
            return Err(Error::new("the container's process asked for a cgroup that it is in"));
        }
        match self.with_cgroup(|cgroup| cgroup.task_file_again(index as usize))? {
            Some(tasks) => end.send_fd(tasks.as_fd()),
            None => Err(Error::new("there is no cgroup")),
        }
    }

    /// Reaps the launcher, so that nothing of the container is left that its caller does not know of.
    fn bury(&mut self) -> Result<()> {
        self.launcher.take().map_or(Ok(()), |launcher| fork::wait(&launcher.pidfd).map(drop).map_err(Into::into))
    }

    fn at(&mut self, point: Sync, save: &mut Save) -> Result<()> {
        self.entered = true;
        let steps = match self.plan {
            Some(plan) => plan.host(point),
            None if point == Sync::Attached => vec![HostStep::Attach, HostStep::OomScoreAdj],
            None => vec![HostStep::Rlimits],
        };
        for step in steps {
            self.checkpoint()?;
            match step {
                HostStep::Save => self.save(save)?,
                step => self.step(step)?,
            }
        }
        Ok(())
    }

    fn step(&mut self, step: HostStep) -> Result<()> {
        let pid = self.pid();
        match step {
            HostStep::Attach => self.attach(pid),
            HostStep::OomScoreAdj => oom_score_adj(pid, self.job.process, self.job.unprivileged),
            HostStep::Rlimits => rlimits(pid, self.job.process),
            HostStep::Limits => {
                self.with_cgroup(|cgroup| cgroup.apply())?;
                self.resctrl.iter().try_for_each(|group| group.apply())
            }
            HostStep::IdMaps => match self.plan.and_then(|plan| plan.id_map.as_ref()) {
                Some(map) => id_map::write(pid, map, self.job.unprivileged),
                None => Ok(()),
            },
            HostStep::TimeOffsets => {
                let file = path::open(format!("/proc/{pid}/timens_offsets"), libc::O_WRONLY, 0)?;
                let offsets = self.plan.map_or("", |plan| plan.time_offsets.as_str());
                path::write_all(&file, offsets.as_bytes()).context(|| "set the offsets of the time namespace".into())
            }
            HostStep::IntelRdt => {
                if let Some((plan, rdt)) = self.plan.and_then(|plan| Some((plan, plan.intel_rdt.as_ref()?))) {
                    self.resctrl = Some(crate::rdt::Group::join(&plan.id, rdt, pid)?);
                }
                Ok(())
            }
            HostStep::NetDevices => match self.plan {
                Some(plan) => crate::netdev::move_all(pid, &plan.net_devices),
                None => Ok(()),
            },
            HostStep::Hooks(kind) => self.hooks(kind),
            HostStep::Cgroup | HostStep::Open | HostStep::MountRoot | HostStep::Clone | HostStep::Save => Ok(()),
        }
    }

    fn with_cgroup<T>(
        &mut self,
        act: impl FnOnce(&mut Cgroup) -> Result<T, offshoot_cgroup::Error>,
    ) -> Result<Option<T>> {
        self.cgroup.as_mut().map(act).transpose().map_err(|error| Error::new(error.to_string()))
    }

    fn attach(&mut self, pid: i32) -> Result<()> {
        let systemd = self.plan.is_some_and(|plan| matches!(plan.cgroup.driver, Driver::Systemd { .. }));
        if systemd || !self.attached {
            self.with_cgroup(|cgroup| cgroup.attach(pid))?;
        }
        match self.plan.and_then(|plan| plan.delegate_to) {
            Some(uid) if !self.job.unprivileged => self.with_cgroup(|cgroup| cgroup.delegate(uid)).map(drop),
            _ => Ok(()),
        }
    }

    fn hooks(&mut self, kind: HookKind) -> Result<()> {
        let Some(plan) = self.plan else { return Ok(()) };
        // Hooks come after the environment exists: spec: runtime.md#state and #lifecycle, step 2.
        let state = hooks::state(&plan.id, "created", self.pid(), &plan.bundle, &plan.annotations);
        hooks::run_all(kind, plan.hooks_of(kind), &state, None)
    }

    fn save(&mut self, save: &mut Save) -> Result<()> {
        let created = self.created()?;
        let result = save(Progress::Process(&created));
        let Created { pid, pidfd, cgroup, resctrl } = created;
        (self.init, self.cgroup, self.resctrl) = (Some(Child { pid, pidfd }), Some(cgroup), resctrl);
        result
    }

    fn created(&mut self) -> Result<Created> {
        let Child { pid, pidfd } = self.init.take().ok_or_else(|| Error::new("there is no process"))?;
        Ok(Created { pid, pidfd, cgroup: self.cgroup.take().unwrap_or_default(), resctrl: self.resctrl.take() })
    }

    /// Opens a source of a bind mount with the host's rights in the container's mount namespace, where earlier mounts
    /// are in place. A process of its own does it, since entering a mount namespace changes the root.
    fn source(&mut self, end: &HostEnd, index: u32) -> Result<()> {
        let plan = self.plan.ok_or_else(|| Error::new("an exec'd process has no mounts"))?;
        let Some(What::Bind(bind)) = plan.mounts.get(index as usize).map(|mount| &mount.what) else {
            return Err(Error::new("the container's process asked for a mount that is not in the plan"));
        };
        let init = &self.init.as_ref().ok_or_else(|| Error::new("there is no process"))?.pidfd;
        // Before the child enters: its /proc may not show the process that holds the map.
        let mut maps = std::mem::take(&mut self.maps);
        if let Some(map) = &bind.idmap {
            maps.prepare(map)?;
        }
        let sent = apart(|| {
            process::setns(init, libc::CLONE_NEWNS)?;
            maps.source(bind, libc::MS_SLAVE).and_then(|tree| end.send_fd(tree.as_fd()))
        });
        self.maps = maps;
        sent
    }

    /// Hands the seccomp listener to the agent. spec: config-linux.md#containerprocessstate
    fn listener(&mut self, fd: i32) -> Result<()> {
        let Some((agent, metadata)) = &self.job.process.seccomp_listener else {
            return Err(Error::new("the filter has a listener, but there is no listenerPath"));
        };
        let pid = self.pid();
        let init = &self.init.as_ref().ok_or_else(|| Error::new("there is no process"))?.pidfd;
        let listener = pidfd::getfd(init, fd).context(|| "take the seccomp listener".into())?;
        let state = match self.plan {
            Some(plan) => {
                serde_json::from_slice(&hooks::state(&plan.id, "creating", pid, &plan.bundle, &plan.annotations))
                    .unwrap_or_default()
            }
            None => self.state.clone(),
        };
        let message = serde_json::json!({
            "ociVersion": offshoot_spec::OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": metadata,
            "state": state,
        });
        send_listener(agent, message.to_string().as_bytes(), &listener)
            .map_err(|cause| Error::new(format!("failed to connect with seccomp agent {}: {cause}", agent.display())))
    }

    /// The end of the host's part: what exists, or nothing at all.
    fn finish(&mut self, result: Result<()>) -> Result<Created> {
        match result.and_then(|()| self.bury()) {
            Ok(()) => self.created(),
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    /// Takes back what was made, last first; goes on past errors, which only the first failure explains.
    fn undo(&mut self) {
        if let Some(init) = self.init.take() {
            let _ = pidfd::send_signal(&init.pidfd, libc::SIGKILL);
            let _ = fork::wait(&init.pidfd);
        }
        let _ = self.bury();
        if let Some(group) = self.resctrl.take() {
            group.remove();
        }
        // An exec'd process has made no cgroup.
        let undone = self.cgroup.as_mut().filter(|_| self.plan.is_some()).map_or(Ok(()), Cgroup::undo);
        if let Err(error) = undone {
            self.job.log.warn(error);
        }
    }
}

/// Does `work` in a process of its own, which may change what this one must not.
fn apart(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (failure, report) = offshoot_sys::event::pipe()?;
    let helper = fork::fork(0, None, || match work() {
        Ok(()) => 0,
        Err(error) => {
            let _ = path::write_all(&report, error.to_string().as_bytes());
            1
        }
    })?;
    drop(report);
    let text = path::read_to_end(&failure, 4096)?;
    match fork::wait(&helper.pidfd)? {
        exit if exit.success() => Ok(()),
        exit if text.is_empty() => Err(Error::new(format!("a helper process ended: {exit}"))),
        _ => Err(Error::new(String::from_utf8_lossy(&text).into_owned())),
    }
}

fn send_listener(agent: &Path, message: &[u8], listener: &OwnedFd) -> offshoot_sys::Result<()> {
    let socket = socket::connect_unix_soon(agent)?;
    socket::send(&socket, message, &[listener.as_fd()]).map(drop)
}

fn oom_score_adj(pid: i32, process: &Process, unprivileged: bool) -> Result<()> {
    let Some(adj) = process.oom_score_adj else { return Ok(()) };
    let what = || format!("set oom_score_adj to {adj}");
    let file = path::open(format!("/proc/{pid}/oom_score_adj"), libc::O_RDWR, 0).context(what)?;
    match path::write(&file, adj.to_string().as_bytes()) {
        // Without privilege it can only go up; a caller that asks for what is in force gets it.
        Err(error) if error.errno() == Errno::EACCES && unprivileged => {
            let now = path::read_to_end(&file, 32)?;
            match String::from_utf8_lossy(&now).trim().parse::<i32>() {
                Ok(now) if now == adj => Ok(()),
                _ => Err(error).context(what),
            }
        }
        result => result.map(drop).context(what),
    }
}

fn rlimits(pid: i32, wanted: &Process) -> Result<()> {
    let set = || {
        let set = |limit: &ResourceLimit| process::prlimit(pid, limit.resource, limit.soft, limit.hard);
        wanted.rlimits.iter().try_for_each(|limit| set(limit).map_err(|error| (limit.resource, error.errno())))
    };
    let failed = |(resource, errno)| {
        Error::new(format!("error setting rlimit type {resource}: {}", offshoot_sys::errno_text(errno)))
    };
    match set() {
        // Root without CAP_SYS_RESOURCE may change only limits of its own, and of namespaces that it owns: here it is
        // the mapped root who does. man 2 getrlimit, prlimit
        Err((_, Errno::EPERM)) => apart(|| {
            let (uid, gid) = ids(pid)?;
            crate::stage_enter::take_ids(uid, gid)?;
            set().map_err(failed)
        }),
        done => done.map_err(failed),
    }
}

/// Real user and group of a process, on the host.
fn ids(pid: i32) -> Result<(u32, u32)> {
    let file = path::open(format!("/proc/{pid}/status"), libc::O_RDONLY, 0)?;
    let text = String::from_utf8_lossy(&path::read_to_end(&file, 1 << 16)?).into_owned();
    let first = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
    };
    let found = first("Uid:").and_then(|uid| Some((uid, first("Gid:")?)));
    found.ok_or_else(|| Error::new(format!("/proc/{pid}/status has no ids")))
}
