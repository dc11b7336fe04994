//! The order of steps: the one place that knows what must come before what, and why.
//!
//! The order is runc's, on which callers rely (hooks see what they expect to see), with the security rules
//! of each step written beside it.

use crate::mounts::{What, is_dev};
use crate::namespaces::{Entry, Kind, Namespaces};
use crate::step::{HookKind, HostStep, Step, Sync};
use crate::{Plan, Process};
use offshoot_spec::{Linux, Spec};
use std::path::{Path, PathBuf};

/// What the host does before the first process exists.
pub fn prepare(plan: &Plan) -> Vec<HostStep> {
    let mut steps = vec![HostStep::Cgroup, HostStep::Save, HostStep::Open];
    if plan.mounts_on_host() {
        steps.push(HostStep::MountRoot);
    }
    steps.push(HostStep::Clone);
    steps
}

/// What the host does while the container's process waits at `point`.
pub fn host(point: Sync, plan: &Plan) -> Vec<HostStep> {
    let mut steps = Vec::new();
    let makes_user = plan.namespaces.makes(Kind::User);
    match point {
        Sync::Attached => {
            steps.push(HostStep::Attach);
            if plan.process.oom_score_adj.is_some() {
                steps.push(HostStep::OomScoreAdj);
            }
            if plan.intel_rdt.is_some() {
                steps.push(HostStep::IntelRdt);
            }
            if makes_user && plan.entry.launcher.is_none() {
                steps.push(HostStep::IdMaps);
            }
        }
        Sync::Mapped => steps.push(HostStep::IdMaps),
        Sync::TimeOffsets => steps.push(HostStep::TimeOffsets),
        Sync::Mounted => {
            if !plan.net_devices.is_empty() {
                steps.push(HostStep::NetDevices);
            }
            // Limits only now, so that a tight memory limit does not have to pay for the mounts, and
            // before the hooks, which may adjust them.
            steps.push(HostStep::Limits);
            for kind in [HookKind::Prestart, HookKind::CreateRuntime] {
                if !plan.hooks_of(kind).is_empty() {
                    steps.push(HostStep::Hooks(kind));
                }
            }
        }
        Sync::Ready => {
            if !plan.process.rlimits.is_empty() {
                steps.push(HostStep::Rlimits);
            }
            steps.push(HostStep::Save);
        }
    }
    steps
}

/// What init does, from the clone to the exec.
pub fn init(entry: &Entry, spec: &Spec, linux: &Linux, plan: &Plan, request: &crate::Request) -> Vec<Step> {
    let ns = &plan.namespaces;
    let mut steps = entry.init.clone();
    steps.push(Step::NewSession);
    if !request.no_new_keyring {
        let name = format!("_ses.{}", plan.id);
        steps.push(Step::Keyring { name, label: plan.process.selinux_label.clone() });
    }
    if ns.makes(Kind::Network) {
        steps.push(Step::Loopback);
    }
    if plan.locks_mounts {
        let late = crate::lock::enters_late(plan);
        steps.push(if late { Step::FreeRoot } else { Step::TakeRoot });
        steps.extend(crate::lock::inner(plan).map(Step::Mount));
        steps.push(Step::Sync(Sync::Mounted));
        hooks(&mut steps, plan, HookKind::CreateContainer);
        steps.extend(late.then_some(Step::PivotRoot));
        root_propagation(&mut steps, plan);
        steps.push(Step::ReopenNull);
    } else if ns.has(Kind::Mount) {
        steps.extend(root(plan));
        fill_root(&mut steps, plan);
        steps.push(Step::Sync(Sync::Mounted));
        hooks(&mut steps, plan, HookKind::CreateContainer);
        steps.push(if request.no_pivot { Step::MoveRoot } else { Step::PivotRoot });
        root_propagation(&mut steps, plan);
        steps.push(Step::ReopenNull);
    } else {
        if plan.mounts_on_host() {
            steps.push(Step::HoldRoot);
            fill_root(&mut steps, plan);
        }
        steps.push(Step::Sync(Sync::Mounted));
        hooks(&mut steps, plan, HookKind::CreateContainer);
        steps.push(Step::Chroot);
    }
    steps.push(Step::MakeCwd);
    if plan.process.terminal {
        steps.push(Step::Console { mount: ns.has(Kind::Mount) || plan.mounts_on_host(), control: !request.is_init });
    }
    finish_root(&mut steps, spec, linux, plan);
    attributes(&mut steps, &plan.process);
    steps.push(Step::Sync(Sync::Ready));
    identity(&mut steps, &plan.process);
    steps.push(Step::WaitStart);
    hooks(&mut steps, plan, HookKind::StartContainer);
    steps.push(Step::Exec);
    steps
}

fn hooks(steps: &mut Vec<Step>, plan: &Plan, kind: HookKind) {
    if !plan.hooks_of(kind).is_empty() {
        steps.push(Step::Hooks(kind));
    }
}

fn root_propagation(steps: &mut Vec<Step>, plan: &Plan) {
    if plan.propagation != 0 {
        steps.push(Step::RootPropagation(plan.propagation));
    }
}

/// The first steps in a new mount namespace.
pub fn root(plan: &Plan) -> [Step; 2] {
    [Step::HostPropagation(plan.early_propagation()), Step::BindRoot]
}

fn fill_root(steps: &mut Vec<Step>, plan: &Plan) {
    steps.extend(plan.mounts.iter().cloned().map(Step::Mount));
    // A /dev that comes from outside is complete, and not ours to write to.
    let foreign_dev = plan.mounts.iter().any(|mount| is_dev(&mount.destination) && matches!(mount.what, What::Bind(_)));
    if !foreign_dev {
        steps.extend(plan.devices.iter().cloned().map(Step::Device));
        steps.push(Step::DeviceLinks);
    }
}

/// What must wait until the container's root is `/` and filled.
fn finish_root(steps: &mut Vec<Step>, spec: &Spec, linux: &Linux, plan: &Plan) {
    for mount in plan.mounts.iter().filter(|mount| mount.late_readonly) {
        steps.push(Step::Readonly(mount.destination.clone()));
    }
    if spec.root.as_ref().is_some_and(|root| root.readonly) {
        steps.push(Step::RootReadonly);
    }
    if let Some(mask) = plan.process.umask {
        steps.push(Step::Umask(mask));
    }
    if !spec.hostname.is_empty() {
        steps.push(Step::Hostname(spec.hostname.clone()));
    }
    if !spec.domainname.is_empty() {
        steps.push(Step::Domainname(spec.domainname.clone()));
    }
    if !plan.process.apparmor_profile.is_empty() {
        steps.push(Step::AppArmor(plan.process.apparmor_profile.clone()));
    }
    // Sysctls first: /proc/sys is usually among the read-only paths.
    steps.extend(plan.sysctls.iter().cloned().map(Step::Sysctl));
    steps.extend(linux.readonly_paths.iter().map(|path| Step::ReadonlyPath(Path::new("/").join(path))));
    if !linux.masked_paths.is_empty() {
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in linux.masked_paths.iter().map(|path| Path::new("/").join(path)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        steps.push(Step::MaskedPaths(paths));
    }
}

/// What needs root's rights but does not take any away.
fn attributes(steps: &mut Vec<Step>, process: &Process) {
    if process.no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    }
    if let Some(attr) = process.scheduler {
        steps.push(Step::Scheduler(attr));
    }
    if let Some(value) = process.io_priority {
        steps.push(Step::IoPriority(value));
    }
    if let Some(domain) = process.personality {
        steps.push(Step::Personality(domain));
    }
    if let Some(policy) = &process.memory_policy {
        steps.push(Step::MemoryPolicy(policy.clone()));
    }
}

/// From root to the process's own identity.
fn identity(steps: &mut Vec<Step>, process: &Process) {
    if !process.selinux_label.is_empty() {
        steps.push(Step::SelinuxLabel(process.selinux_label.clone()));
    }
    // Before the filter, which may know nothing of close_range(2).
    steps.push(Step::CloseDescriptors);
    // Without no_new_privs only CAP_SYS_ADMIN may load a filter; with it, the filter comes last, so that the
    // profile need not allow what the steps between use.
    let filter_early = process.seccomp.is_some() && !process.no_new_privileges;
    let filter_late = process.seccomp.is_some() && process.no_new_privileges;
    // Before the filter, which may know nothing of chdir(2) and getcwd(2).
    steps.push(Step::EnterCwd);
    if filter_early {
        steps.push(Step::Seccomp);
    }
    if let Some(caps) = process.capabilities {
        steps.push(Step::BoundingSet(caps.bounding));
    }
    steps.extend([Step::SwitchUser, Step::VerifyCwd]);
    if process.capabilities.is_some() {
        steps.push(Step::Capabilities);
    }
    steps.push(Step::FindProgram);
    if filter_late {
        steps.push(Step::Seccomp);
    }
}

/// What an `exec`'d process does after it has joined.
pub fn exec(ns: &Namespaces, id: &str, process: &Process, keyring: bool) -> (Vec<Step>, Vec<Step>) {
    let mut launcher = vec![Step::JoinCgroups, Step::Sync(Sync::Attached)];
    if !ns.joined.is_empty() {
        launcher.push(Step::Join(ns.joined.iter().map(|(kind, _)| *kind).collect()));
    }
    if ns.joins(Kind::User) {
        launcher.push(Step::BecomeRoot);
    }
    let mut steps = vec![Step::NewSession];
    if keyring {
        steps.push(Step::Keyring { name: format!("_ses.{id}"), label: process.selinux_label.clone() });
    }
    if process.terminal {
        steps.push(Step::Console { mount: false, control: true });
    }
    steps.extend(process.umask.map(Step::Umask));
    attributes(&mut steps, process);
    steps.push(Step::Sync(Sync::Ready));
    if !process.apparmor_profile.is_empty() {
        steps.push(Step::AppArmor(process.apparmor_profile.clone()));
    }
    identity(&mut steps, process);
    steps.push(Step::Exec);
    (launcher, steps)
}
