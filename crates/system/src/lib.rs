//! What makes a system container: a pure rewrite of a request.
//!
//! A system container boots an unmodified distribution with its own init as pid 1. The engine that asks for it knows
//! nothing of that: it sends the configuration of an ordinary container, and here that becomes one with all namespaces,
//! an exclusive range of ids, cgroups of its own to manage, and the rights of root over exactly these.
//! `docs/system.md` says why each of the choices was made.

#![forbid(unsafe_code)]

mod filter;
mod init;
mod mounts;
mod namespaces;
mod process;
mod profile;

pub use init::{Init, Stop};
pub use profile::{Strictness, profile};

use offshoot_plan::Problem;
use offshoot_spec::{Device, DeviceRule, IdMapping, Linux, Process, Spec};

/// The annotation that asks: `true`, `auto` (if the program is an init) or `false`.
pub const ANNOTATION: &str = "org.offshoot.system";

/// The name under which the program makes every container a system container, for callers who can name a runtime but
/// no annotation.
pub const PROGRAM: &str = "offshoot-system";

/// How many ids a system container gets: all that 16 bits can name, as distributions expect, and `nobody` among them.
pub const IDS: u32 = 65_536;

/// Whether a system container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An ordinary container.
    No,
    /// A system container.
    Yes,
    /// A system container if its program is an init.
    IfInit,
}

/// What the rewrite must know of the host and the root filesystem, as plain data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The init that is to be pid 1, if it is one.
    pub init: Option<Init>,
    /// The first of the [`IDS`] of the exclusive range; none if the caller brings a user namespace.
    pub ids: Option<u32>,
    /// Whether the host has `/dev/fuse`.
    pub fuse: bool,
    /// Whether the host has `/dev/net/tun`.
    pub tun: bool,
    /// The capabilities that the caller can hand out, as a mask.
    pub capabilities: u64,
}

/// Reads what `spec` asks for, of a program that was called by the name `program`.
///
/// # Errors
/// The annotation has another value.
pub fn wanted(spec: &Spec, program: &str) -> Result<Wanted, Problem> {
    // The sandbox of a pod holds its namespaces and runs nothing; a RuntimeClass names a runtime for it, too.
    let sandbox = [("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri-o.ContainerType", "sandbox")];
    if sandbox.iter().any(|(key, value)| spec.annotations.get(*key).is_some_and(|found| found == value)) {
        return Ok(Wanted::No);
    }
    match spec.annotations.get(ANNOTATION).map(String::as_str) {
        None if program == PROGRAM => Ok(Wanted::Yes),
        None | Some("false") => Ok(Wanted::No),
        Some("true") => Ok(Wanted::Yes),
        Some("auto") => Ok(Wanted::IfInit),
        Some(other) => {
            let text = format!("{other:?} is neither \"true\" nor \"auto\" nor \"false\"");
            Err(Problem::new(format!("annotations.{ANNOTATION}"), text))
        }
    }
}

/// Whether the caller brings a user namespace, made or to be made, with its own idea of ids and of who owns the files.
pub fn brings_user_namespace(spec: &Spec) -> bool {
    spec.linux.iter().flat_map(|linux| &linux.namespaces).any(|namespace| namespace.kind == "user")
}

/// The configuration of a system container.
///
/// # Errors
/// Everything in `spec` that a system container cannot have.
pub fn rewrite(spec: &Spec, facts: &Facts) -> Result<Spec, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut new = spec.clone();
    let mut linux = new.linux.take().unwrap_or_default();
    namespaces::rewrite(&mut linux, &mut new.hostname, new.process.as_ref(), &mut problems);
    if let Some(first) = facts.ids {
        let mapping = vec![IdMapping { container_id: 0, host_id: first, size: IDS }];
        (linux.uid_mappings, linux.gid_mappings) = (mapping.clone(), mapping);
        sysctls(&mut linux);
    }
    let read_only = new.root.as_ref().is_some_and(|root| root.readonly);
    new.mounts = mounts::rewrite(std::mem::take(&mut new.mounts), read_only);
    devices(&mut linux, facts);
    // The kernel shows a new procfs or sysfs to a namespace within only if the one that is there hides nothing; and what
    // is hidden or read-only here for the host's sake belongs to the host's root, whom no id of the range is.
    for list in [&mut linux.masked_paths, &mut linux.readonly_paths] {
        list.retain(|path| !below(path, "/proc") && !below(path, "/sys"));
    }
    if let Some(profile) = &mut linux.seccomp {
        filter::open(profile);
    }
    if let Some(process) = &mut new.process {
        process::rewrite(process, facts);
    }
    new.linux = Some(linux);
    if problems.is_empty() { Ok(new) } else { Err(problems) }
}

/// A further process in a system container: engines send the rights of an ordinary container's with it.
pub fn rewrite_further(process: &mut Process, facts: &Facts) {
    process::rewrite(process, facts);
}

/// Whether a path, seen from `/`, is `dir` or something in it.
fn below(path: &str, dir: &str) -> bool {
    std::path::Path::new("/").join(path).starts_with(dir)
}

/// `net.ipv4.ping_group_range` may only name groups that the container has.
fn sysctls(linux: &mut Linux) {
    for (key, value) in &mut linux.sysctl {
        if key.replace('/', ".") != "net.ipv4.ping_group_range" {
            continue;
        }
        let bounds: Vec<&str> = value.split_whitespace().collect();
        if let [low, high] = bounds[..]
            && high.parse::<u64>().is_ok_and(|high| high >= u64::from(IDS))
        {
            *value = format!("{low} {}", IDS - 1);
        }
    }
}

/// What a nested engine or a VPN needs, where the host has it: both are safe in a user namespace, and world-writable.
fn devices(linux: &mut Linux, facts: &Facts) {
    for (there, path, major, minor) in [(facts.fuse, "/dev/fuse", 10, 229), (facts.tun, "/dev/net/tun", 10, 200)] {
        if !there || linux.devices.iter().any(|device| device.path == path) {
            continue;
        }
        linux.devices.push(Device {
            kind: "c".into(),
            path: path.into(),
            major,
            minor,
            file_mode: Some(0o666),
            ..Device::default()
        });
        linux.resources.get_or_insert_default().devices.push(DeviceRule {
            allow: true,
            kind: "c".into(),
            major: Some(major),
            minor: Some(minor),
            access: "rwm".into(),
        });
    }
}
