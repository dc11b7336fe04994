//! The container's first processes: they go on from the clone with the plan they inherited, one function a step.

use crate::error::{Error, Kind as Of, Result};
use crate::inherit::Opened;
use crate::log::Log;
use crate::protocol::{ChildEnd, Report};
use offshoot_plan::{Kind, Plan, Process, Step};
use offshoot_sys::{event, fork, libc, path, process};
use std::ffi::CString;
use std::fmt::Display;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// What a container or an exec'd process is made from: a view of a plan.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The launcher's steps, if there is one.
    pub launcher: Option<&'a [Step]>,
    /// Flags of the clone that makes the process (by the launcher, or by the host).
    pub clone_flags: u64,
    /// The process's steps.
    pub steps: &'a [Step],
    /// The process.
    pub process: &'a Process,
    /// The container, if it is being made.
    pub plan: Option<&'a Plan>,
    /// Where messages go.
    pub log: &'a Log,
    /// Whether the caller lacks root's rights on the host.
    pub unprivileged: bool,
    /// What the host ignores of signals, as a mask: all that a program would inherit of how they are handled.
    pub ignored_signals: u64,
}

/// The state of a process on its way to its program.
pub(crate) struct Stage<'a> {
    pub job: Job<'a>,
    pub opened: Opened,
    pub host: ChildEnd,
    /// This process's id on the host.
    pub pid: i32,
    /// The container's root, once it is a mount.
    pub root: Option<OwnedFd>,
    /// A procfs that this process mounted itself, so that nobody can have put anything over it.
    pub procfs: Option<OwnedFd>,
    /// The container's directory in which the last device was made, by its path.
    pub device_dir: Option<(PathBuf, OwnedFd)>,
    /// Whether the host has `/proc/kcore`, of a process that does not see it any more.
    pub kcore: Option<bool>,
    /// Whether the process is in a user namespace that it does not share with the host.
    pub in_userns: bool,
    /// Whether the working directory could be entered with root's rights.
    pub entered_cwd: bool,
    /// The program's path, once found.
    pub program: Option<CString>,
    /// The program's environment.
    pub env: Vec<String>,
}

/// Exit status of a process that could not become its program.
const FAILED: i32 = 255;

/// The child's main function; its value is an exit status.
pub(crate) fn main(job: Job, opened: Opened, host: ChildEnd) -> i32 {
    let env = job.process.env.clone();
    let mut stage = Stage {
        job,
        opened,
        host,
        pid: 0,
        root: None,
        procfs: None,
        device_dir: None,
        kcore: None,
        in_userns: false,
        entered_cwd: false,
        program: None,
        env,
    };
    // Debug messages in runc's words, which its tests and its users' eyes look for.
    stage.debug("nsexec container setup");
    let result = match job.launcher {
        Some(steps) => stage.run(steps).and_then(|()| stage.launch()),
        None => stage.run_process(),
    };
    stage.end(result)
}

impl Stage<'_> {
    fn end(&self, result: Result<()>) -> i32 {
        match result {
            Ok(()) => 0,
            // It failed and says so itself, on the same standard error.
            Err(error) if error.kind() == Of::Gone => FAILED,
            Err(error) => {
                // After `start` nobody listens but who reads the container's own standard error.
                if self.host.tell(&Report::Failed(error.to_string())).is_err() {
                    let _ = writeln!(std::io::stderr(), "{error}");
                }
                FAILED
            }
        }
    }

    /// Clones the process proper as a child of the host's, and is done.
    fn launch(&mut self) -> Result<()> {
        let flags = self.job.clone_flags | libc::CLONE_PARENT as u64;
        // One that enters a time namespace has memory of its own. man 7 time_namespaces
        if self.job.plan.is_some_and(|plan| !plan.namespaces.has(Kind::Time)) {
            let child = |pid| {
                let result = self.host.tell(&Report::Forked(pid)).and_then(|()| self.run_process());
                self.end(result)
            };
            return Err(fork::hand_over(flags, child).into());
        }
        let (wait, go) = event::pipe()?;
        let child = fork::fork(flags, None, || {
            // The host must hear of this process before it hears from it.
            let mut byte = [0];
            let _ = path::read(&wait, &mut byte);
            let result = self.run_process();
            self.end(result)
        })?;
        self.host.tell(&Report::Forked(child.pid))?;
        path::write_all(&go, b"x")?;
        Ok(())
    }

    fn run_process(&mut self) -> Result<()> {
        self.debug("child process in init()");
        self.run(self.job.steps)
    }

    fn run(&mut self, steps: &[Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            crate::failpoint::check("stage", index)?;
            self.step(step)?;
        }
        Ok(())
    }

    #[rustfmt::skip]
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::JoinCgroups => self.join_cgroups(),
            Step::Sync(point) => self.sync(*point),
            Step::BecomeRoot => self.become_root(),
            Step::Owner { uid, gid } => self.own(*uid, *gid),
            Step::Join(kinds) => self.join(kinds),
            Step::Unshare(flags) => self.unshare(*flags),
            Step::NewSession => self.new_session(),
            Step::Affinity(cpus) => self.affinity(cpus.as_deref()),
            Step::Keyring { name, label } => self.keyring(name, label),
            Step::Loopback => self.loopback(),
            Step::HostPropagation(flags) => self.host_propagation(*flags),
            Step::BindRoot => self.bind_root(),
            Step::HoldRoot => self.hold_root(),
            Step::Mount(mount) => self.mount(mount),
            Step::EnterVoid => self.enter_void(),
            Step::Placeholders => self.placeholders(),
            Step::TakeRoot => self.take_root(),
            Step::StandInRoot => self.stand_in_root(),
            Step::FreeRoot => self.free_root(),
            Step::Device(device) => self.device(device),
            Step::DeviceLinks => self.device_links(),
            Step::Hooks(kind) => self.hooks(*kind),
            Step::PivotRoot => self.pivot_root(),
            Step::MoveRoot => self.move_root(),
            Step::Chroot => self.chroot(),
            Step::RootPropagation(flags) => self.root_propagation(*flags),
            Step::ReopenNull => self.reopen_null(),
            Step::MakeCwd => self.make_cwd(),
            Step::Console { mount, control } => self.console(*mount, *control),
            Step::Readonly(path) => self.readonly(path),
            Step::RootReadonly => self.root_readonly(),
            Step::Umask(mask) => self.umask(*mask),
            Step::Hostname(name) => self.hostname(name),
            Step::Domainname(name) => self.domainname(name),
            Step::AppArmor(profile) => self.apparmor(profile),
            Step::Sysctl(sysctl) => self.sysctl(sysctl),
            Step::ReadonlyPath(path) => self.readonly_path(path),
            Step::MaskedPaths(paths) => self.masked_paths(paths),
            Step::NoNewPrivileges => self.no_new_privileges(),
            Step::Scheduler(attr) => self.scheduler(attr),
            Step::IoPriority(value) => self.io_priority(*value),
            Step::Personality(domain) => self.personality(*domain),
            Step::MemoryPolicy(policy) => self.memory_policy(policy),
            Step::CloseDescriptors => self.close_descriptors(),
            Step::SelinuxLabel(label) => self.selinux_label(label),
            Step::Seccomp => self.seccomp(),
            Step::EnterCwd => self.enter_cwd(),
            Step::BoundingSet(mask) => self.bounding_set(*mask),
            Step::SwitchUser => self.switch_user(),
            Step::Capabilities => self.capabilities(),
            Step::VerifyCwd => self.verify_cwd(),
            Step::FindProgram => self.find_program(),
            Step::WaitStart => self.wait_start(),
            Step::Exec => self.exec(),
        }
    }

    /// Tells the log, by way of the host, how something was done. A host that is gone has no log.
    pub fn debug(&self, message: impl Display) {
        if self.job.log.is_debug() {
            let _ = self.host.tell(&Report::Debug(message.to_string()));
        }
    }

    /// Tells the log, by way of the host, of something that does not stop this process.
    pub fn warn(&self, message: impl Display) {
        let _ = self.host.tell(&Report::Warning(message.to_string()));
    }

    /// The container that is being made.
    pub fn plan(&self) -> Result<&Plan> {
        self.job.plan.ok_or_else(|| Error::new("this step belongs to the making of a container"))
    }

    /// The container's root.
    pub fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| Error::new("the root filesystem is not mounted yet"))
    }

    fn sync(&mut self, point: offshoot_plan::Sync) -> Result<()> {
        // Files in /proc/PID belong to the real root while a process is not dumpable; an unprivileged host
        // could not write the maps. No process of the container exists yet that could look.
        if self.job.unprivileged
            && matches!(
                point,
                offshoot_plan::Sync::Attached | offshoot_plan::Sync::Mapped | offshoot_plan::Sync::TimeOffsets
            )
        {
            process::set_dumpable(true)?;
        }
        self.pid = self.host.ask(&Report::At(point))?;
        if self.job.unprivileged {
            process::set_dumpable(false)?;
        }
        Ok(())
    }

    /// Closes every descriptor but standard streams, those passed on, and `keep`.
    pub fn close_all_but(&self, keep: &[RawFd]) -> Result<()> {
        crate::inherit::close_all_but(self.job.process.preserve_fds, keep)
    }
}
