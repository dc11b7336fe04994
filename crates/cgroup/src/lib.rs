//! Applying, reading and removing a cgroup plan: v2, systemd, v1 and hybrid, device programs.
//!
//! A cgroup is held by descriptors of its directories, one per hierarchy, and every file is opened below one of them.

#![forbid(unsafe_code)]

mod devices;
mod dir;
mod error;
mod freeze;
mod kill;
mod limits;
mod make;
mod oom;
mod probe;
mod state;
mod stats;
mod sub;
pub mod systemd;

pub use error::{Error, Result};
pub use oom::{OomEvent, OomWatch};
pub use probe::{huge_page_sizes, probe, probe_systemd};
pub use state::CgroupState;

use dir::Dir;
use make::Joined;
use offshoot_plan::cgroup::{CgroupPlan, Devices, Driver, Hierarchy, Limits};
use offshoot_sys::{Errno, path};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use systemd::Bus;

/// A container's cgroup: one directory in every hierarchy.
#[derive(Default)]
pub struct Cgroup {
    joined: Vec<Joined>,
    tasks: Vec<OwnedFd>,
    /// What is still to be done, of a cgroup that this process makes.
    plan: Option<Box<CgroupPlan>>,
    unit: Option<Unit>,
    /// Where a further process goes on cgroup2, if not into the container's own directory.
    elsewhere: Option<OwnedFd>,
    /// Where cgroup2 is mounted, of a container from an earlier call: its own directory may be gone.
    unified_mount: Option<PathBuf>,
    /// Who moves a further process in where the caller may not, and how far below the unit's cgroup.
    mover: Option<(Unit, String)>,
    rootless: bool,
    /// Whether systemd was asked to start the unit.
    started: bool,
}

/// systemd's side of it.
#[derive(Clone)]
struct Unit {
    name: String,
    user: bool,
}

impl Cgroup {
    /// Makes the directories that the plan names, ready for a process to enter. With systemd they come with the
    /// process, in [`Cgroup::attach`]. What was made before a failure is unmade.
    ///
    /// # Errors
    /// When the cgroup has processes already, is frozen, or cannot be made.
    pub fn prepare(plan: &CgroupPlan) -> Result<Cgroup> {
        let unit = match (&plan.unit, plan.driver) {
            (Some(unit), Driver::Systemd { user }) => Some(Unit { name: unit.name.clone(), user }),
            _ => None,
        };
        let plan = Box::new(plan.clone());
        let mut cgroup = Cgroup { unit, rootless: plan.rootless, plan: Some(plan), ..Cgroup::default() };
        let mut tries = 0;
        loop {
            let prepared = if cgroup.unit.is_some() { cgroup.check_existing() } else { cgroup.make() };
            let Err(e) = prepared else { return Ok(cgroup) };
            let _ = cgroup.undo();
            // A cgroup of this path was there, and another container's end took it away before it could be opened: in each
            // hierarchy once.
            if !e.is_absent() || tries == 16 {
                return Err(e);
            }
            tries += 1;
        }
    }

    /// Of a cgroup that systemd will make, what is there already must be unused.
    fn check_existing(&self) -> Result<()> {
        for hierarchy in self.plan.iter().flat_map(|plan| &plan.hierarchies) {
            if let Some(joined) = Joined::open(hierarchy)? {
                check_unused(&joined)?;
            }
        }
        Ok(())
    }

    fn make(&mut self) -> Result<()> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let made = plan.hierarchies.iter().try_for_each(|hierarchy| self.make_one(hierarchy, &plan));
        let made = made.and_then(|()| self.write_all(&plan.before_join));
        self.plan = Some(plan);
        made?;
        self.tasks = self.open_tasks()?;
        Ok(())
    }

    fn make_one(&mut self, hierarchy: &Hierarchy, plan: &CgroupPlan) -> Result<()> {
        match Joined::make(hierarchy, plan) {
            Ok(joined) => {
                if !joined.made && self.unit.is_none() {
                    check_unused(&joined)?;
                }
                self.joined.push(joined);
                Ok(())
            }
            Err(_) if hierarchy.optional => Ok(()),
            Err(e) if plan.rootless && !plan.path_given && e.is_permission() => {
                if hierarchy.is_unified() && plan.needs_controllers {
                    return Err(e.while_doing(
                        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
                    ));
                }
                Ok(())
            }
            Err(e) => Err(e.while_doing("unable to apply cgroup configuration")),
        }
    }

    /// The v1 `tasks` files.
    fn open_tasks(&mut self) -> Result<Vec<OwnedFd>> {
        let (rootless, mut files) = (self.rootless, Vec::new());
        let mut failure = None;
        self.joined.retain(|joined| {
            if joined.hierarchy.is_unified() {
                return true;
            }
            match joined.dir.open("tasks", libc::O_WRONLY) {
                Ok(file) => files.push(file),
                Err(e) if joined.hierarchy.optional || (rootless && e.is_permission()) => return false,
                Err(e) => failure = Some(e),
            }
            true
        });
        match failure {
            Some(e) => Err(e.while_doing("unable to apply cgroup configuration")),
            None => Ok(files),
        }
    }

    /// The directory for `CLONE_INTO_CGROUP`: the unified hierarchy's, once it is made.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.hierarchy("").map(|joined| joined.dir.as_fd())
    }

    /// The directory for `CLONE_INTO_CGROUP` when the kernel lets no process into [`Cgroup::fd`].
    #[must_use]
    pub fn other_fd(&self) -> Option<BorrowedFd<'_>> {
        self.elsewhere.as_ref().map(AsFd::as_fd)
    }

    /// With [`Cgroup::other_fd`] where the process `pid` is by now: an init that manages cgroups has moved, and may
    /// have given controllers to those below, which closes the one above (EBUSY).
    #[must_use]
    pub fn or_where(mut self, pid: i32) -> Cgroup {
        if pid > 0 && self.tasks.is_empty() {
            self.elsewhere = self.fd_of(pid).ok();
        }
        self
    }

    /// The directories, to mount them or to look into them.
    pub fn directories(&self) -> impl Iterator<Item = (&Hierarchy, BorrowedFd<'_>)> {
        self.joined.iter().map(|joined| (&joined.hierarchy, joined.dir.as_fd()))
    }

    /// The v1 `tasks` files, one per hierarchy; a single-threaded process that writes `0` into each enters the
    /// cgroup. Written by the process itself this takes 33 µs, where a pid written to `cgroup.procs` by somebody
    /// else waits for a grace period, 5 to 21 ms.
    #[must_use]
    pub fn task_files(&self) -> &[OwnedFd] {
        &self.tasks
    }

    /// Hands out [`Cgroup::task_files`], for the one process that is to enter.
    #[must_use]
    pub fn take_task_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.tasks)
    }

    /// One of [`Cgroup::task_files`] anew. Somebody removed the cgroup while it was empty, before the process came: another
    /// container of that path has ended, say.
    ///
    /// # Errors
    /// When it cannot be made again, or is not this one's to make.
    pub fn task_file_again(&mut self, index: usize) -> Result<OwnedFd> {
        let v1 = self.joined.iter().enumerate().filter(|(_, joined)| !joined.hierarchy.is_unified());
        let at = v1.map(|(at, _)| at).nth(index).ok_or_else(|| Error::new("there is no such hierarchy"))?;
        let opened = self.make_again(at).and_then(|()| self.joined[at].dir.open("tasks", libc::O_WRONLY));
        opened.map_err(|e| e.while_doing("unable to apply cgroup configuration"))
    }

    fn make_again(&mut self, at: usize) -> Result<()> {
        // A unit's is systemd's to make, an exec'd process's its container's.
        let plan = if self.unit.is_none() { self.plan.take() } else { None };
        let Some(plan) = plan else {
            return Err(Error::new("the container's cgroup is gone"));
        };
        let joined = &mut self.joined[at];
        let made = joined.make_again(&plan).and_then(|()| if joined.made { Ok(()) } else { check_unused(joined) });
        let mine = plan.before_join.iter().filter(|write| joined.hierarchy.controllers.contains(&write.controller));
        let mine: Vec<_> = mine.cloned().collect();
        self.plan = Some(plan);
        made.and_then(|()| self.write_all(&mine))
    }

    /// Moves a process in: with systemd by starting the unit around it, with the limits that systemd knows; else by
    /// its number, for a process that could not be created inside.
    ///
    /// # Errors
    /// When systemd or the kernel refuses.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        let starting = self.unit.as_ref().filter(|_| !self.started).map(|unit| unit.user);
        if let (Some(user), Some(plan)) = (starting, self.plan.as_mut())
            && let Some(unit) = &mut plan.unit
        {
            // With its limits: another call for them would cost as much again.
            unit.properties.append(&mut plan.limits.properties);
            Bus::connect(user)?
                .start_unit(unit, &[pid.unsigned_abs()])
                .map_err(|e| e.while_doing("unable to apply cgroup configuration"))?;
            self.started = true;
            self.make()?;
            // systemd joins what it knows; the rest is ours.
            return self.write_pid(pid, |joined| {
                !joined.hierarchy.is_unified() && joined.hierarchy.controllers != ["name=systemd"]
            });
        }
        self.write_pid(pid, |_| true)
    }

    fn write_pid(&mut self, pid: i32, which: impl Fn(&Joined) -> bool) -> Result<()> {
        let lenient = self.rootless && self.plan.as_ref().is_none_or(|plan| !plan.path_given);
        for at in 0..self.joined.len() {
            if !which(&self.joined[at]) {
                continue;
            }
            let mut written = write_pid(&self.joined[at].dir, pid);
            if written.as_ref().is_err_and(Error::is_absent) && self.make_again(at).is_ok() {
                written = write_pid(&self.joined[at].dir, pid);
            }
            match written {
                Err(_) if self.joined[at].hierarchy.optional => {}
                Err(e) if e.is_permission() && self.mover.is_some() => self.ask_mover(pid)?,
                Err(e) if lenient && e.is_permission() => {}
                Err(e) => return Err(e.while_doing(format_args!("error adding pid {pid} to cgroups"))),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// A user may move a process only within cgroups of their own, and this one comes from a login session: systemd
    /// is above both. man 7 cgroups, "Cgroups delegation"
    fn ask_mover(&self, pid: i32) -> Result<()> {
        let Some((unit, below)) = &self.mover else { return Ok(()) };
        Bus::connect(unit.user)?.attach(&unit.name, below, &[pid.unsigned_abs()])
    }

    /// Sets limits and device access.
    ///
    /// # Errors
    /// When the kernel or systemd refuses a value.
    pub fn apply(&mut self) -> Result<()> {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let done = self.set(&plan.limits).and_then(|()| self.restrict_devices(plan.devices.as_ref()));
        self.plan = Some(plan);
        done
    }

    /// Changes limits; devices stay as they are.
    ///
    /// # Errors
    /// When the kernel or systemd refuses a value; what was written before it stays.
    pub fn update(&self, limits: &Limits) -> Result<()> {
        // On v1, systemd empties the device list for a moment whenever it sets properties.
        let v1 = self.hierarchy("freezer").is_some() && self.unit.is_some();
        let thaw = v1 && !self.frozen()?;
        if thaw {
            self.freeze()?;
        }
        let done = self.set(limits);
        if thaw {
            self.thaw()?;
        }
        done
    }

    fn set(&self, limits: &Limits) -> Result<()> {
        self.check_memory(limits.memory_check.as_ref())?;
        if let Some(unit) = self.unit.as_ref().filter(|_| !limits.properties.is_empty()) {
            Bus::connect(unit.user)?.set_properties(&unit.name, &limits.properties)?;
        }
        self.write_all(&limits.writes)
    }

    fn restrict_devices(&self, devices: Option<&Devices>) -> Result<()> {
        let Some(devices) = devices else { return Ok(()) };
        let Some(joined) = self.hierarchy(&devices.controller) else {
            return if devices.failure_ok { Ok(()) } else { Err(Error::new("cgroup: subsystem does not exist")) };
        };
        let done = if devices.controller.is_empty() {
            devices::program::attach(&joined.dir, &devices.list)
        } else {
            devices::v1(&joined.dir, &devices.list)
        };
        if devices.failure_ok { Ok(()) } else { done }
    }

    /// What finds the cgroup again.
    #[must_use]
    pub fn state(&self) -> CgroupState {
        let user = self.unit.as_ref().map(|unit| unit.user);
        CgroupState {
            driver: user.map_or(Driver::Fs, |user| Driver::Systemd { user }),
            unit: self.unit.as_ref().map(|unit| unit.name.clone()),
            hierarchies: self.joined.iter().map(|joined| joined.hierarchy.clone()).collect(),
            rootless: self.rootless,
        }
    }

    /// The cgroup of a container from an earlier call. Directories that are gone are left out.
    ///
    /// # Errors
    /// When a directory cannot be opened.
    pub fn open(state: &CgroupState) -> Result<Cgroup> {
        let mut joined = Vec::new();
        for hierarchy in &state.hierarchies {
            joined.extend(Joined::open(hierarchy)?);
        }
        let unit = match (&state.unit, state.driver) {
            (Some(name), Driver::Systemd { user }) => Some(Unit { name: name.clone(), user }),
            _ => None,
        };
        let unified = state.hierarchies.iter().find(|hierarchy| hierarchy.is_unified());
        let unified_mount = unified.map(|hierarchy| hierarchy.mount_point.clone());
        Ok(Cgroup { joined, unit, unified_mount, rootless: state.rootless, started: true, ..Cgroup::default() })
    }

    /// Whether the cgroup is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.main().is_some_and(|joined| joined.dir.open("cgroup.procs", libc::O_PATH).is_ok())
    }

    /// Removes the cgroup and every cgroup in it. It must have no processes but dying ones. Again is fine.
    ///
    /// # Errors
    /// When processes stay, or systemd does not answer; the other directories are gone nevertheless.
    pub fn remove(&mut self) -> Result<()> {
        let stopped = match &self.unit {
            Some(unit) => Bus::connect(unit.user).and_then(|mut bus| bus.stop_unit(&unit.name)),
            None => Ok(()),
        };
        self.tasks.clear();
        let mut removed = Ok(());
        self.joined.retain(|joined| match joined.parent.remove(&joined.name) {
            Ok(()) => false,
            Err(_) if joined.hierarchy.optional => true,
            Err(e) => {
                removed = Err(e.while_doing("failed to remove cgroup"));
                true
            }
        });
        removed.and(stopped)
    }

    /// Removes the directory above the cgroup in each hierarchy where nothing else is in it. For a caller that made it; another
    /// that is about to use it makes it again.
    pub fn remove_parent(&self) {
        for joined in &self.joined {
            let Some(parent) = joined.hierarchy.path.parent().filter(|path| !path.as_os_str().is_empty()) else {
                continue;
            };
            let above = parent.parent().unwrap_or(Path::new(""));
            let removed = Dir::mounted(&joined.hierarchy.mount_point)
                .and_then(|root| root.child(above))
                .and_then(|above| above.unmake(parent.file_name().unwrap_or_default()));
            // It is in use.
            drop(removed);
        }
    }

    /// Takes back what [`Cgroup::prepare`] and [`Cgroup::attach`] made, and nothing else. Again is fine.
    ///
    /// # Errors
    /// As for [`Cgroup::remove`].
    pub fn undo(&mut self) -> Result<()> {
        self.tasks.clear();
        let mut undone = Ok(());
        if let Some(unit) = self.unit.as_ref().filter(|_| self.started) {
            undone = Bus::connect(unit.user).and_then(|mut bus| bus.stop_unit(&unit.name));
            self.started = false;
        }
        for joined in &mut self.joined {
            undone = undone.and(joined.unmake());
        }
        self.joined.clear();
        undone
    }

    /// Gives the cgroup to `uid`, for a container that manages cgroups itself: the unified directory and the files
    /// that the kernel names for it, never one that sets a limit. man 7 cgroups, "Cgroups delegation"
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(joined) = self.hierarchy("") else { return Ok(()) };
        let failed = |file: &str, errno| {
            Error::system(format_args!("failed to chown {} to {uid}", joined.dir.path().join(file).display()), errno)
        };
        path::fchown(&joined.dir, uid, u32::MAX).map_err(|e| failed("", e.errno()))?;
        let listed = path::open("/sys/kernel/cgroup/delegate", libc::O_RDONLY, 0)
            .and_then(|fd| path::read_to_end(fd, 1 << 16))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // Before Linux 4.15 there is no such list; these are cgroups(7)'s.
        let listed = listed.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        for file in listed.lines().filter(|file| !file.contains('/')) {
            let dir = Some(joined.dir.as_fd());
            match path::fchownat(dir, std::path::Path::new(file), uid, u32::MAX, libc::AT_SYMLINK_NOFOLLOW) {
                Err(e) if e.errno() != Errno::ENOENT => return Err(failed(file, e.errno())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The hierarchy of a v1 controller; of the empty name, the unified one.
    fn hierarchy(&self, controller: &str) -> Option<&Joined> {
        self.joined.iter().find(|joined| {
            let hierarchy = &joined.hierarchy;
            hierarchy.controllers.iter().any(|c| c == controller) || (controller.is_empty() && hierarchy.is_unified())
        })
    }

    /// The hierarchy that tells which processes there are. On v1 it is that of the devices, as with runc: every
    /// container is in it, and moving out of it takes privileges.
    fn main(&self) -> Option<&Joined> {
        let v1 = self.joined.iter().find(|joined| !joined.hierarchy.is_unified());
        self.hierarchy("devices").or(v1).or_else(|| self.hierarchy(""))
    }
}

/// A directory that was there before must have no processes, and must let them run.
fn check_unused(joined: &Joined) -> Result<()> {
    let hierarchy = &joined.hierarchy;
    // As with runc, one hierarchy speaks for all: a walk through each would be slow.
    if (hierarchy.is_unified() && !hierarchy.optional) || hierarchy.controllers.iter().any(|c| c == "devices") {
        match joined.dir.all_pids() {
            Ok(pids) if !pids.is_empty() => {
                let message = format!("container's cgroup is not empty: {} process(es) found", pids.len());
                return Err(Error::new(message));
            }
            Err(e) if !e.is_absent() => return Err(e.while_doing("unable to get cgroup PIDs")),
            _ => {}
        }
    }
    if freeze::is_frozen(joined).map_err(|e| e.while_doing("unable to get cgroup freezer state"))? {
        return Err(Error::new("container's cgroup unexpectedly frozen"));
    }
    Ok(())
}

/// A process that was cloned a moment ago may not be movable yet (EINVAL).
fn write_pid(dir: &Dir, pid: i32) -> Result<()> {
    let mut tries = 0;
    loop {
        match dir.write("cgroup.procs", &pid.to_string()) {
            Err(e) if e.errno() == Some(Errno::EINVAL) && tries < 5 => std::thread::sleep(Duration::from_millis(30)),
            done => return done.map_err(|e| e.while_doing(format_args!("failed to write {pid}"))),
        }
        tries += 1;
    }
}
