//! `create`

use crate::bundle::Bundle;
use crate::connect::{Console, receive_master};
use crate::container::CONFIG;
use crate::descriptors::Descriptors;
use crate::joined;
use crate::launch::Launch;
use crate::ranges::{self, Claim};
use crate::rootfs::{self, Look, Refusal, Rootfs};
use crate::state::{ConfigView, VERSION};
use crate::system::{System, Take};
use crate::{Container, Error, Kind, Result, Runtime, State, notify, process};
use offshoot_cgroup::CgroupState;
use offshoot_engine::{Created, Hollow, Io, Progress};
use offshoot_plan::{Kind as Namespace, Plan, Problem, Request};
use offshoot_sys::{libc, path};
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A container whose process waits for `start`.
pub struct New {
    /// Its record, locked.
    pub container: Container,
    /// The process's descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, of a process that the caller waits for.
    pub master: Option<OwnedFd>,
}

/// What `create` is to do.
pub(crate) struct Decision {
    pub plan: Plan,
    /// The clone that is to be its root filesystem.
    pub rootfs: Option<Rootfs>,
}

/// The plan and the clone, or all that is wrong with either.
pub(crate) fn both<T>(plan: Result<Plan, Vec<Problem>>, asked: Result<T, Refusal>) -> Result<(Plan, T)> {
    let (mut problems, refusal) = match (plan, asked) {
        (Ok(plan), Ok(asked)) => return Ok((plan, asked)),
        (plan, asked) => (plan.err().unwrap_or_default(), asked.err().unwrap_or_default()),
    };
    problems.extend(refusal.problems());
    Err(Error::problems(&problems).with_hint(refusal.hint))
}

impl Runtime {
    /// Makes a container; its process waits for [`Runtime::start`].
    ///
    /// # Errors
    /// What is wrong with the bundle, all at once, or what failed. Nothing is left on the host then.
    pub fn create(&self, wanted: &Launch) -> Result<New> {
        let bundle = self.bundle(wanted)?;
        self.create_from(wanted, &bundle)
    }

    /// As [`Runtime::create`], from a bundle that is open already.
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub fn create_from(&self, wanted: &Launch, bundle: &Bundle) -> Result<New> {
        self.check_free(&wanted.id)?;
        let (system, ids) = self.system(bundle, self.look(wanted, false), Take::For(&self.dir(&wanted.id)?))?;
        let system = system.as_ref();
        let bundle = system.map_or(bundle, |system| &system.bundle);
        let Decision { plan, mut rootfs } = self.decide(wanted, bundle, system)?;
        let socket = wanted.connections.console_socket.as_deref();
        let (theirs, ours) = Console::open(plan.process.terminal, wanted.detached, socket)?.split();
        ranges::step(3)?;
        let mut container = self.reserve(record(&plan, bundle, rootfs.as_ref(), system))?;
        ids.into_iter().for_each(Claim::keep);
        let root = match &mut rootfs {
            None => system.and_then(|system| system.map_root(&plan)).transpose(),
            clone => self.mount_clone(clone.as_mut(), &plan),
        };
        let made = root.and_then(|root| self.make(&mut container, bundle, &plan, root, theirs, wanted));
        match made.and_then(|created| Ok((ours.map(receive_master).transpose()?, created))) {
            Ok((master, created)) => Ok(New { container, pidfd: created.pidfd, master }),
            Err(error) => {
                self.abandon(&mut container);
                self.take_back(rootfs);
                Err(error)
            }
        }
    }

    /// Where the store is that the root filesystem may be cloned from.
    pub(crate) fn look<'a>(&'a self, wanted: &'a Launch, closely: bool) -> Look<'a> {
        let opened = self.common.as_ref().map(|common| &common.opened);
        Look { id: &wanted.id, store: wanted.store.as_deref(), closely, opened }
    }

    /// The root filesystem of a container that has a clone, as a detached mount.
    pub(crate) fn mount_clone(&self, rootfs: Option<&mut Rootfs>, plan: &Plan) -> Result<Option<OwnedFd>> {
        let Some(rootfs) = rootfs else { return Ok(None) };
        self.make_mount_point(&plan.rootfs)?;
        rootfs.mount(plan).map(Some)
    }

    /// Takes back a clone that was made for a container that could not be made, and is not the container's to remove.
    pub(crate) fn take_back(&self, rootfs: Option<Rootfs>) {
        if let Some(Err(error)) = rootfs.map(Rootfs::undo) {
            self.log.warn(error);
        }
    }

    /// Before anything else is looked at: the answer that callers expect. `reserve` decides for good.
    fn check_free(&self, id: &str) -> Result<()> {
        match self.dir(id)?.exists() {
            true => Err(Error::new(Kind::Exists, "container with given ID already exists")),
            false => Ok(()),
        }
    }

    /// What `create`, `run` and `restore` are to do.
    pub(crate) fn decide(&self, wanted: &Launch, bundle: &Bundle, system: Option<&System>) -> Result<Decision> {
        self.check_free(&wanted.id)?;
        let dir = self.dir(&wanted.id)?;
        let asked = rootfs::request(&bundle.spec)
            .and_then(|request| request.map(|request| Rootfs::find(&request, self.look(wanted, true))).transpose());
        let descriptors = Descriptors::inherited(wanted.connections.preserve_fds)?;
        let notifies = wanted.ready.is_some() || notify::is_wanted();
        let request = Request {
            id: wanted.id.clone(),
            bundle: bundle.path.clone(),
            systemd_cgroup: self.systemd_cgroup,
            rootless: self.is_rootless(),
            no_pivot: wanted.no_pivot,
            no_new_keyring: wanted.no_new_keyring,
            preserve_fds: descriptors.total,
            listen_fds: descriptors.listen,
            listen_fd_names: descriptors.names,
            notify_dir: notifies.then(|| dir.join("notify")),
            detached: wanted.detached,
            console_socket: wanted.connections.console_socket.is_some(),
            joins_own_network: joined::is_own_network(&bundle.spec),
            joined_uids: joined::uids(&bundle.spec)?,
            root_mount: self.root_mount(&asked, bundle),
            has_void: self.common.as_ref().and_then(|common| common.hollow.as_ref()).is_some_and(Hollow::has_void),
            ..Request::default()
        };
        let request = system.map_or(request.clone(), |system| system.request(request));
        let (plan, rootfs) = both(offshoot_plan::build(&bundle.spec, &request, &self.host_for(&bundle.spec)?), asked)?;
        for warning in &plan.warnings {
            self.log.warn(warning);
        }
        Ok(Decision { plan, rootfs })
    }

    /// Where the root filesystem goes, if the bundle asks for a clone.
    pub(crate) fn root_mount<T>(&self, asked: &Result<Option<T>, Refusal>, bundle: &Bundle) -> Option<PathBuf> {
        match asked {
            Ok(None) => None,
            _ => Some(self.mount_point(&bundle.spec, &bundle.path)),
        }
    }

    fn make(
        &self,
        container: &mut Container,
        bundle: &Bundle,
        plan: &Plan,
        root: Option<OwnedFd>,
        console: Option<OwnedFd>,
        wanted: &Launch,
    ) -> Result<Created> {
        keep(&container.dir.join(CONFIG), &bundle.text).map_err(|error| Error::io("keep config.json", &error))?;
        if plan.has_notify_socket() {
            notify::make_directory(&container.dir)?;
        }
        let fifo = container.fifo();
        path::mkfifoat(None, &fifo, 0o622).map_err(|e| Error::io("make the start fifo", &e.into()))?;
        // For reading and writing: the process that inherits it neither waits to open it nor meets its end.
        let fifo = path::open(&fifo, libc::O_RDWR, 0).map_err(|e| Error::io("open the start fifo", &e.into()))?;
        let hollow = self.common.as_ref().and_then(|common| common.hollow.as_ref());
        let io = Io { fifo: Some(fifo), console, root, hollow, streams: Default::default(), log: &self.log };
        let created = offshoot_engine::create(plan, io, &mut |progress| {
            note(container, progress);
            container.save().map_err(|error| offshoot_engine::Error::new(error.to_string()))
        })
        .map_err(|error| started(&error))?;
        if container.state.is_scattered() {
            self.log.warn(
                "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
                 strongly discouraged: there is no way to find all of the container's processes",
            );
        }
        wanted.connections.announce(created.pid, created.pidfd.as_fd(), "standard")?;
        Ok(created)
    }

    /// Takes back a container that could not be made. Its hooks may have been told of it, so poststop hooks are, too.
    pub(crate) fn abandon(&self, container: &mut Container) {
        if !container.state.cgroup_made {
            // The engine took back what it had made of it; what is there now was there before.
            container.state.cgroup = None;
        }
        for error in container.teardown() {
            self.log.warn(error);
        }
        container.poststop(&self.log);
    }
}

/// The environment of a process may hold secrets, and the state directory has to be open to root of user namespaces.
fn keep(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text)
}

/// The words around what kept a process from starting.
pub(crate) fn started(error: &offshoot_engine::Error) -> Error {
    let text = match error.kind() {
        offshoot_engine::Kind::Container => {
            format!("unable to start container process: error during container init: {error}")
        }
        _ => format!("unable to start container process: {error}"),
    };
    Error::new(Kind::System, text)
}

/// The first record: all that a later `delete` needs, wherever this process is killed.
pub(crate) fn record(plan: &Plan, bundle: &Bundle, rootfs: Option<&Rootfs>, system: Option<&System>) -> State {
    let resources = bundle.spec.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    let labels = plan.annotations.iter().map(|(key, value)| format!("{key}={value}"));
    let streams = (0..3).map(|number| fs::read_link(format!("/proc/self/fd/{number}")));
    State {
        id: plan.id.clone(),
        created: offshoot_spec::time::rfc3339_nano(SystemTime::now()),
        config: ConfigView {
            rootfs: plan.rootfs.clone(),
            labels: labels.chain([format!("bundle={}", bundle.path.display())]).collect(),
        },
        rootless: plan.cgroup.rootless,
        external_descriptors: streams.map(|link| link.unwrap_or_default().to_string_lossy().into_owned()).collect(),
        version: VERSION,
        oci_version: bundle.spec.oci_version.clone(),
        bundle: bundle.path.clone(),
        annotations: plan.annotations.clone(),
        own_pid_namespace: plan.namespaces.makes(Namespace::Pid),
        cgroup: Some(CgroupState {
            driver: plan.cgroup.driver,
            unit: plan.cgroup.unit.as_ref().map(|unit| unit.name.clone()),
            hierarchies: plan.cgroup.hierarchies.clone(),
            rootless: plan.cgroup.rootless,
        }),
        resources,
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        has_process: !plan.process.args.is_empty(),
        clone: rootfs.map(|rootfs| rootfs.view.clone()),
        is_system: system.is_some(),
        init: system.and_then(|system| system.init),
        first_id: system.and_then(|system| system.first_id),
        ..State::default()
    }
}

/// Adds what exists now to the record.
pub(crate) fn note(container: &mut Container, progress: Progress) {
    let state = &mut container.state;
    match progress {
        Progress::Cgroup(_) => state.cgroup_made = true,
        Progress::Root(id) => state.root_mount = Some(id),
        Progress::Process(created) => {
            state.init_process_pid = created.pid;
            state.init_process_start = process::stat(created.pid).map_or(0, |stat| stat.start);
            state.cgroup_made = true;
            let cgroup = created.cgroup.state();
            state.cgroup_paths = cgroup.paths().into_iter().map(|(name, path)| (name, path.into())).collect();
            state.cgroup = Some(cgroup);
            let file = |kind: Namespace| PathBuf::from(format!("/proc/{}/ns/{}", created.pid, kind.file()));
            state.namespace_paths =
                Namespace::ALL.iter().map(|kind| (kind.runc_key().to_owned(), file(*kind))).collect();
            if let Some(group) = &created.resctrl {
                state.intel_rdt_path = group.dir().to_owned();
                state.owns_intel_rdt = group.is_own();
                state.intel_rdt_mon_path = group.monitor().cloned().unwrap_or_default();
            }
        }
    }
}
