//! Cgroups: which directories, which files get which values, which devices, which systemd unit.
//!
//! All of it is decided here from plain data; `offshoot-cgroup` only does it.

mod convert;
pub mod devices;
pub mod host;
mod merge;
mod path;
mod properties;
pub mod systemd;
mod v1;
mod v2;

pub use devices::DeviceList;
pub use host::{CgroupHost, HostHierarchy, Mode, SystemdHost};
pub use merge::merge;
pub use systemd::{SystemdUnit, Value};

use crate::Problem;
use offshoot_spec::{Device, Linux, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Who makes the container's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// The runtime itself, in the cgroup file systems.
    Fs,
    /// systemd, asked for a transient unit.
    Systemd {
        /// The user's instance, not the system's.
        user: bool,
    },
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct CgroupRequest<'a> {
    /// The container's id: its cgroup's name when the config gives no path.
    pub id: &'a str,
    /// The config's `linux` part.
    pub linux: &'a Linux,
    /// The config's annotations; `org.systemd.property.*` are properties of the unit.
    pub annotations: &'a BTreeMap<String, String>,
    /// Who makes the cgroup.
    pub driver: Driver,
    /// Whether missing permissions are to be expected (`--rootless`).
    pub rootless: bool,
}

/// Everything that is to be done about the container's cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Who makes the cgroup.
    pub driver: Driver,
    /// The directories, in the order in which they are made and joined.
    pub hierarchies: Vec<Hierarchy>,
    /// Values that must stand before a process comes in.
    pub before_join: Vec<Write>,
    /// Limits.
    pub limits: Limits,
    /// Device access; none when this host leaves it to others.
    pub devices: Option<Devices>,
    /// The unit to start; only with the systemd driver.
    pub unit: Option<SystemdUnit>,
    /// Whether a limit needs a controller at all.
    pub needs_controllers: bool,
    /// Whether a limit needs a controller that a threaded cgroup cannot have.
    pub needs_domain: bool,
    /// Whether missing permissions are to be expected.
    pub rootless: bool,
    /// Whether the config asks for this very cgroup, so that going without is an error.
    pub path_given: bool,
    /// What the user should know: one sentence each.
    pub warnings: Vec<String>,
}

/// One directory in one cgroup file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// v1: the controllers mounted here (`name=systemd`); empty for cgroup2.
    pub controllers: Vec<String>,
    /// Where the file system is mounted.
    pub mount_point: PathBuf,
    /// The cgroup, relative to the mount point.
    pub path: PathBuf,
    /// cgroup2: controllers to enable on the way down.
    pub enable: Vec<String>,
    /// Whether doing without is fine: nothing is limited here.
    pub optional: bool,
}

impl Hierarchy {
    /// Whether this is the cgroup2 file system.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// One value for one file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The v1 controller whose hierarchy has the file; empty for cgroup2.
    pub controller: String,
    /// File name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// File and value where the first file does not exist.
    pub instead: Option<(String, String)>,
    /// Whether a file that does not exist is passed over.
    pub absent_ok: bool,
    /// Whether EINVAL means: again, after the controller's other writes. Values that bound each other (memory
    /// and memory+swap, period and quota) can only be changed in the order that keeps them consistent.
    pub retry: bool,
    /// Whether the value is from `unified`, where the caller chose the file.
    pub unified: bool,
}

/// Limits to write, for `create` and for `update`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Refuse memory limits that are in use already, in bytes.
    pub memory_check: Option<MemoryCheck>,
    /// `SetUnitProperties`; only with the systemd driver.
    pub properties: Vec<(String, Value)>,
    /// Files, in order.
    pub writes: Vec<Write>,
}

/// `checkBeforeUpdate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCheck {
    /// Memory limit, if one is set.
    pub limit: Option<u64>,
    /// Memory+swap limit, if one is set.
    pub swap: Option<u64>,
}

/// Which devices may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// `devices` for the v1 controller, empty for a program on the cgroup2 directory.
    pub controller: String,
    /// The list.
    pub list: DeviceList,
    /// Whether failing is fine: without privileges neither way is open, nor is making device nodes.
    pub failure_ok: bool,
}

/// The limits that `update` writes: those of `merged` (see [`merge`]), without devices.
///
/// # Errors
/// All values that cannot be.
pub fn update(merged: &Resources, driver: Driver, host: &CgroupHost) -> Result<(Limits, Vec<String>), Vec<Problem>> {
    let mut out = Decisions::default();
    let limits = limits(merged, driver, host, &mut out);
    if out.problems.is_empty() { Ok((limits, out.warnings)) } else { Err(out.problems) }
}

/// The plan, or all problems.
///
/// # Errors
/// Everything that cannot be done as asked.
pub fn plan(request: &CgroupRequest, host: &CgroupHost) -> Result<CgroupPlan, Vec<Problem>> {
    let mut out = Decisions::default();
    let none = Resources::default();
    let resources = request.linux.resources.as_ref().unwrap_or(&none);
    let (hierarchies, unit) = path::hierarchies(request, host, &mut out);
    let mut limits = limits(resources, request.driver, host, &mut out);
    if !hierarchies.is_empty() {
        require_hierarchies(&limits.writes, &hierarchies, &mut out);
    }
    let devices = devices(request, resources, host, &mut out);
    if let (Some(devices), Some(systemd), Driver::Systemd { .. }) = (&devices, &host.systemd, request.driver) {
        let known = properties::devices(&devices.list, systemd.version, &mut out.warnings);
        limits.properties.splice(0..0, known);
    }
    let v2 = host.mode == Mode::V2;
    let plan = CgroupPlan {
        driver: request.driver,
        before_join: if v2 { Vec::new() } else { v1::before_join(&limits.writes) },
        needs_controllers: v2 && v2::needs_controllers(resources),
        needs_domain: v2 && v2::needs_domain(resources),
        hierarchies,
        limits,
        devices,
        unit,
        rootless: request.rootless,
        path_given: !request.linux.cgroups_path.is_empty(),
        warnings: out.warnings,
    };
    if out.problems.is_empty() { Ok(plan) } else { Err(out.problems) }
}

fn limits(resources: &Resources, driver: Driver, host: &CgroupHost, out: &mut Decisions) -> Limits {
    let mut resources = resources.clone();
    let properties = match driver {
        Driver::Fs => Vec::new(),
        Driver::Systemd { .. } => properties::limits(&mut resources, host, out),
    };
    convert::check(&resources, host, out);
    match host.mode {
        Mode::V2 => v2::writes(&resources, out),
        Mode::V1 | Mode::Hybrid => v1::writes(&resources, out),
    }
    let memory = resources.memory.as_ref().filter(|m| host.mode == Mode::V2 && m.check_before_update == Some(true));
    let positive = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0);
    let memory_check = memory.map(|m| MemoryCheck { limit: positive(m.limit), swap: positive(m.swap) });
    Limits { memory_check, properties, writes: std::mem::take(&mut out.writes) }
}

/// A limit without its hierarchy is an error before anything is made.
fn require_hierarchies(writes: &[Write], hierarchies: &[Hierarchy], out: &mut Decisions) {
    let mut missing: Vec<&str> = writes.iter().map(|w| w.controller.as_str()).collect();
    missing.dedup();
    missing.retain(|c| !c.is_empty() && !hierarchies.iter().any(|h| h.controllers.iter().any(|have| have == c)));
    for controller in missing {
        let message = format!("cannot set {controller} limit: container could not join or create cgroup");
        out.problem("linux.resources", message);
    }
}

fn devices(request: &CgroupRequest, resources: &Resources, host: &CgroupHost, out: &mut Decisions) -> Option<Devices> {
    let nodes: &[Device] = &request.linux.devices;
    let list = devices::list(&resources.devices, nodes, &mut out.problems);
    let failure_ok = request.rootless || host.in_userns;
    let v1 = host.hierarchies.iter().any(|h| h.controllers.iter().any(|c| c == "devices"));
    let controller = match (v1, &host.unified) {
        // The v1 controller lets nobody but the first user namespace's root change a list.
        (true, _) if host.in_userns => return None,
        (true, _) => "devices",
        (false, Some(_)) => "",
        (false, None) if failure_ok => return None,
        (false, None) => {
            out.problem("linux.resources.devices", "cgroup: subsystem does not exist");
            return None;
        }
    };
    Some(Devices { controller: controller.into(), list, failure_ok })
}

/// What the parts of the decision leave behind.
#[derive(Default)]
struct Decisions {
    writes: Vec<Write>,
    warnings: Vec<String>,
    problems: Vec<Problem>,
}

impl Decisions {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Adds a write and hands it out, so that the caller can say what is special about it.
    fn write(&mut self, controller: &str, file: impl Into<String>, value: impl fmt::Display) -> &mut Write {
        self.writes.push(Write {
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            instead: None,
            absent_ok: false,
            retry: false,
            unified: false,
        });
        let last = self.writes.len() - 1;
        &mut self.writes[last]
    }
}

#[cfg(test)]
mod tests;
