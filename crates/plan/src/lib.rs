//! The decision: a spec, a request and a host become a plan, or all the problems at once.
//!
//! Pure and total: nothing here opens a file or makes a system call, so every rule is tested without root.

#![forbid(unsafe_code)]

pub mod attr;
pub mod cgroup;
mod clean;
mod devices;
mod exec;
mod host;
mod idmap;
mod label;
mod lock;
mod mounts;
mod namespaces;
mod order;
mod problem;
mod process;
mod request;
mod step;
mod sysctl;

pub use clean::clean;
pub use devices::Device;
pub use exec::{ExecPlan, exec};
pub use host::Host;
pub use idmap::IdMap;
pub use mounts::{Bind, Mount, New, OPTIONS as MOUNT_OPTIONS, Shift, What};
pub use namespaces::{Entry, Kind, Namespaces};
pub use problem::{Problem, Report};
pub use process::{
    CapabilitySets, MEMPOLICY_FLAGS, MEMPOLICY_MODES, NumaPolicy, ResourceLimit, SchedAttr, capability_name,
    number_list,
};
pub use request::{ExecRequest, Request};
pub use step::{HookKind, HostStep, Step, Sync};
pub use sysctl::Sysctl;

use offshoot_spec::{ConsoleSize, Hook, Hooks, IntelRdt, Linux, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything decided about a container that does not exist yet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem on the host.
    pub rootfs: PathBuf,
    /// Where it is attached until it is entered: in its own place, or over the host's root.
    pub root_at: PathBuf,
    /// Labels, as received.
    pub annotations: BTreeMap<String, String>,
    /// New and joined namespaces.
    pub namespaces: Namespaces,
    /// How the processes come to be.
    pub entry: Entry,
    /// Ids of a new user namespace.
    pub id_map: Option<IdMap>,
    /// Lines for timens_offsets.
    pub time_offsets: String,
    /// Cgroups and limits.
    pub cgroup: cgroup::CgroupPlan,
    /// The host's user id of the process, to which the cgroup is handed over.
    pub delegate_to: Option<u32>,
    /// Bind sources that the caller opens before the clone.
    pub sources: Vec<Bind>,
    /// All mounts.
    pub mounts: Vec<Mount>,
    /// All device nodes.
    pub devices: Vec<Device>,
    /// Kernel parameters.
    pub sysctls: Vec<Sysctl>,
    /// Propagation of `/`, mount(2) flags; 0 is the default.
    pub propagation: u64,
    /// Whether the launcher mounts what the container's root must not undo.
    pub locks_mounts: bool,
    /// Whether they are made in an empty mount namespace, which the caller brings, and not in a copy of the host's.
    pub enters_void: bool,
    /// Host network interfaces to move, with their new names.
    pub net_devices: Vec<(String, String)>,
    /// SELinux context of mounts; may be empty.
    pub mount_label: String,
    /// resctrl group.
    pub intel_rdt: Option<IntelRdt>,
    /// All hooks.
    pub hooks: Hooks,
    /// The process.
    pub process: Process,
    /// init's steps after the launcher's.
    pub steps: Vec<Step>,
    /// Whether the caller is not root.
    pub unprivileged: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Everything decided about a process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Whether it gets a pseudo-terminal.
    pub terminal: bool,
    /// The terminal's size.
    pub console_size: Option<ConsoleSize>,
    /// argv; empty if the configuration has no process.
    pub args: Vec<String>,
    /// Environment; of equal names the last one stands. `HOME` may still be missing.
    pub env: Vec<String>,
    /// Absolute path in the container.
    pub cwd: PathBuf,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups; `None` leaves them alone.
    pub groups: Option<Vec<u32>>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Capability sets; `None` leaves them alone.
    pub capabilities: Option<CapabilitySets>,
    /// Resource limits.
    pub rlimits: Vec<ResourceLimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// AppArmor profile; may be empty.
    pub apparmor_profile: String,
    /// SELinux label; may be empty.
    pub selinux_label: String,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<SchedAttr>,
    /// Argument of ioprio_set(2).
    pub io_priority: Option<i32>,
    /// Argument of personality(2).
    pub personality: Option<u64>,
    /// NUMA policy.
    pub memory_policy: Option<NumaPolicy>,
    /// Compiled filter.
    pub seccomp: Option<offshoot_seccomp::Filter>,
    /// Socket and metadata for a filter with `SCMP_ACT_NOTIFY`.
    pub seccomp_listener: Option<(PathBuf, String)>,
    /// Descriptors from 3 on that reach the program.
    pub preserve_fds: u32,
}

impl Plan {
    /// Whether the process is told of a socket on which it reports readiness.
    pub fn has_notify_socket(&self) -> bool {
        self.process.env.iter().any(|entry| entry.starts_with("NOTIFY_SOCKET=/run/notify/"))
    }

    /// Propagation of the host's mounts and of bind sources while the root filesystem is made, mount(2) flags.
    pub fn early_propagation(&self) -> u64 {
        use mounts::propagation::{REC, SHARED, SLAVE, UNBINDABLE};
        match self.propagation & !REC {
            // Of an unbindable tree no root filesystem can be cloned: that comes when it is done.
            0 | UNBINDABLE => SLAVE | REC,
            // The host's root mounts what is to be locked: where he is the host's peer, he mounts it there as well. What the user
            // namespace's root mounts reaches the host in no case.
            kind if self.locks_mounts && (kind == SHARED || self.propagation & REC == 0) => SLAVE | REC,
            _ => self.propagation,
        }
    }

    /// The hooks of one kind.
    pub fn hooks_of(&self, kind: HookKind) -> &[Hook] {
        hooks_of(&self.hooks, kind)
    }

    /// What the host does before the first process exists.
    pub fn prepare(&self) -> Vec<HostStep> {
        order::prepare(self)
    }

    /// Whether there is something to mount, but no mount namespace to do it in.
    pub fn mounts_on_host(&self) -> bool {
        !self.namespaces.has(Kind::Mount) && !self.mounts.is_empty()
    }

    /// What the host does while the container's process waits at `point`.
    pub fn host(&self, point: Sync) -> Vec<HostStep> {
        order::host(point, self)
    }
}

/// The hooks of one kind.
pub fn hooks_of(hooks: &Hooks, kind: HookKind) -> &[Hook] {
    match kind {
        HookKind::Prestart => &hooks.prestart,
        HookKind::CreateRuntime => &hooks.create_runtime,
        HookKind::CreateContainer => &hooks.create_container,
        HookKind::StartContainer => &hooks.start_container,
        HookKind::Poststart => &hooks.poststart,
        HookKind::Poststop => &hooks.poststop,
    }
}

/// Decides a container.
///
/// # Errors
/// Every problem of the configuration, the request and the host's abilities, each with its JSON path.
pub fn build(spec: &Spec, request: &Request, host: &Host) -> Result<Plan, Vec<Problem>> {
    let mut report = Report::default();
    let linux = &spec.linux.clone().unwrap_or_default();
    let report_to = &mut report;
    let namespaces = Namespaces::read(linux, report_to);
    let unprivileged = host.euid != 0 || host.in_user_namespace;
    let rootfs = rootfs(spec, request, report_to);
    let id_map = id_map(linux, &namespaces, host, report_to);
    let mut sources = Vec::new();
    let extra = notify_mount(request);
    let label = label::plan(spec, host.selinux, report_to);
    let mounts = mounts::plan(
        spec,
        &extra,
        &request.bundle,
        &rootfs,
        &namespaces,
        host.euid == 0 && !host.in_user_namespace,
        id_map.as_ref().filter(|_| request.map_volumes),
        &label.option,
        &mut sources,
        report_to,
    );
    check_namespaces(spec, linux, &namespaces, report_to);
    if request.root_mount.is_some() {
        check_root_mount(&namespaces, id_map.as_ref(), report_to);
    }
    let process = process::plan(spec, request, host, id_map.as_ref(), report_to);
    let cgroup = cgroup_plan(spec, linux, request, host, report_to);
    let time_offsets = time_offsets(linux, &namespaces, report_to);
    let devices = devices::plan(&linux.devices, report_to);
    let sysctls = sysctl::plan(&linux.sysctl, &namespaces, request.joins_own_network, &spec.hostname, report_to);
    let propagation = propagation(linux, report_to);
    let net_devices = net_devices(linux, &namespaces, unprivileged, report_to);
    let intel_rdt = intel_rdt(linux, host, report_to);
    let hooks = hooks(spec, report_to);
    if spec.annotations.keys().any(String::is_empty) {
        report_to.problem("annotations", "a key must not be empty");
    }
    let cgroup = match cgroup {
        Some(cgroup) if report.problems.is_empty() => cgroup,
        _ => return Err(report.problems),
    };
    let mut plan = Plan {
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        root_at: if request.root_over_host && !request.no_pivot { "/".into() } else { rootfs.clone() },
        rootfs,
        annotations: spec.annotations.clone(),
        entry: namespaces::entry(&namespaces, !time_offsets.is_empty(), owner(request, id_map.as_ref())),
        time_offsets,
        delegate_to: delegate_to(spec, request, &namespaces, id_map.as_ref()),
        id_map,
        cgroup,
        sources,
        mounts,
        devices,
        sysctls,
        propagation,
        locks_mounts: false,
        enters_void: false,
        net_devices,
        mount_label: label.label,
        intel_rdt,
        hooks,
        process,
        steps: Vec::new(),
        unprivileged,
        warnings: report.warnings,
        namespaces,
    };
    if request.lock_mounts && lock::possible(&plan, request) {
        lock::apply(&mut plan, request.has_void);
    }
    plan.steps = order::init(&plan.entry, spec, linux, &plan, request);
    plan.warnings.extend(plan.cgroup.warnings.iter().cloned());
    Ok(plan)
}

/// The directory of the socket that stands for `$NOTIFY_SOCKET`, man 3 sd_notify.
fn notify_mount(request: &Request) -> Vec<offshoot_spec::Mount> {
    let mount = |dir: &PathBuf| offshoot_spec::Mount {
        destination: "/run/notify".into(),
        source: dir.to_string_lossy().into_owned(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec(),
        ..Default::default()
    };
    request.notify_dir.iter().map(mount).collect()
}

fn cgroup_plan(
    spec: &Spec,
    linux: &Linux,
    request: &Request,
    host: &Host,
    report: &mut Report,
) -> Option<cgroup::CgroupPlan> {
    let driver = match request.systemd_cgroup {
        true => cgroup::Driver::Systemd { user: request.rootless },
        false => cgroup::Driver::Fs,
    };
    let asked = cgroup::CgroupRequest {
        id: &request.id,
        linux,
        annotations: &spec.annotations,
        driver,
        rootless: request.rootless,
    };
    // The hierarchy exists all the same: without a directory in it the container would see the host's cgroups.
    if request.owned_by_mapped_root && host.cgroup.unified.is_none() {
        let text = "no cgroup2 file system is mounted, in which a system container has its own cgroups (hint: \
                    mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)";
        report.problem("linux.cgroupsPath", text);
    }
    cgroup::plan(&asked, &host.cgroup).map_err(|problems| report.problems.extend(problems)).ok()
}

fn rootfs(spec: &Spec, request: &Request, report: &mut Report) -> PathBuf {
    if let Some(mount_point) = &request.root_mount {
        return mount_point.clone();
    }
    match &spec.root {
        None => report.problem("root", "root must be specified"),
        Some(root) if root.path.is_empty() => report.problem("root.path", "must not be empty"),
        Some(root) if root.path.contains('\0') => report.problem("root.path", "contains a NUL byte"),
        Some(root) => return clean(request.bundle.join(&root.path)),
    }
    PathBuf::new()
}

/// A container that sees its cgroup as the root of a writable hierarchy manages it itself. As runc, only a mount of
/// the source `cgroup` counts.
fn delegate_to(spec: &Spec, request: &Request, ns: &Namespaces, map: Option<&IdMap>) -> Option<u32> {
    let writable = |mount: &offshoot_spec::Mount| {
        let ro = mount.options.iter().rev().find(|word| matches!(word.as_str(), "ro" | "rw"));
        mount.source == "cgroup"
            && clean(&mount.destination) == Path::new("/sys/fs/cgroup")
            && ro.is_none_or(|word| word == "rw")
    };
    if !ns.makes(Kind::Cgroup) || !spec.mounts.iter().any(writable) {
        return None;
    }
    let uid = spec.process.as_ref().map_or(0, |process| process.user.uid);
    if !ns.joins(Kind::User) {
        return IdMap::outside(&map?.uids, uid);
    }
    // Of a user namespace that the engine made: its word, or what the namespace itself says.
    let sent = spec.linux.iter().flat_map(|linux| &linux.uid_mappings);
    let sent: Vec<_> = sent.map(|map| (map.container_id, map.host_id, map.size)).collect();
    IdMap::outside(if sent.is_empty() { &request.joined_uids } else { &sent }, uid)
}

fn id_map(linux: &Linux, ns: &Namespaces, host: &Host, report: &mut Report) -> Option<IdMap> {
    let given = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if ns.makes(Kind::User) {
        if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
            let text = "user namespaces enabled, but no namespace path to join nor mappings to apply specified";
            report.problem("linux.uidMappings", text);
        }
    } else if given && !ns.joins(Kind::User) {
        report.warn("linux.uidMappings is ignored: there is no user namespace");
    } else if given {
        // containerd and CRI-O send both the path and the mappings; the joined namespace has its own, and the mappings
        // only tell whose the cgroup is to be.
        report.warn("linux.uidMappings only tells whose the cgroup is: the user namespace is joined by path");
    }
    if host.euid != 0 && !ns.has(Kind::User) {
        report.problem("linux.namespaces", "rootless container requires user namespaces");
    }
    ns.makes(Kind::User).then(|| idmap::read(&linux.uid_mappings, &linux.gid_mappings, "linux", report))
}

/// Who is to own the user namespace, on the host.
fn owner(request: &Request, map: Option<&IdMap>) -> Option<(u32, u32)> {
    let map = map.filter(|_| request.owned_by_mapped_root)?;
    Some((IdMap::outside(&map.uids, 0)?, IdMap::outside(&map.gids, 0)?))
}

fn check_namespaces(spec: &Spec, linux: &Linux, ns: &Namespaces, report: &mut Report) {
    if !spec.hostname.is_empty() && !ns.has(Kind::Uts) {
        report.problem("hostname", "unable to set hostname without a private UTS namespace");
    }
    if !spec.domainname.is_empty() && !ns.has(Kind::Uts) {
        report.problem("domainname", "unable to set domainname without a private UTS namespace");
    }
    let lists = [("linux.maskedPaths", &linux.masked_paths), ("linux.readonlyPaths", &linux.readonly_paths)];
    for (path, list) in lists {
        if !list.is_empty() && !ns.has(Kind::Mount) {
            report.problem(path, "unable to restrict sys entries without a private MNT namespace");
        }
        for (i, entry) in list.iter().enumerate() {
            if entry.is_empty() || entry.contains('\0') {
                report.problem(format!("{path}[{i}]"), format!("{entry:?} is not a path"));
            } else if !entry.starts_with('/') {
                report.warn(format!(
                    "{path}[{i}]: {entry:?} is taken as /{entry}: the specification requires an absolute path, and later versions may refuse it"
                ));
            }
        }
    }
}

/// A root filesystem that is a mount belongs to the container alone, and its files mostly to root.
fn check_root_mount(ns: &Namespaces, map: Option<&IdMap>, report: &mut Report) {
    if !ns.has(Kind::Mount) {
        report.problem("linux.namespaces", "a cloned root filesystem needs a mount namespace");
    }
    let Some(map) = map else { return };
    for (name, ranges) in [("uidMappings", &map.uids), ("gidMappings", &map.gids)] {
        if !ranges.is_empty() && IdMap::outside(ranges, 0).is_none() {
            let text = "maps no id 0, to which most files of a cloned root filesystem belong";
            report.problem(format!("linux.{name}"), text);
        }
    }
}

fn time_offsets(linux: &Linux, ns: &Namespaces, report: &mut Report) -> String {
    if linux.time_offsets.is_empty() {
        return String::new();
    }
    if !ns.has(Kind::Time) {
        let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
        report.problem("linux.timeOffsets", text);
    } else if ns.joins(Kind::Time) {
        let text =
            "time namespace enabled, but both namespace path and time offsets specified - you may only provide one";
        report.problem("linux.timeOffsets", text);
    }
    let mut text = String::new();
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            report.problem(format!("linux.timeOffsets.{clock}"), "is neither \"monotonic\" nor \"boottime\"");
        } else if offset.nanosecs >= 1_000_000_000 {
            report.problem(format!("linux.timeOffsets.{clock}.nanosecs"), "must be below 1000000000");
        } else {
            text += &format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
        }
    }
    text
}

fn propagation(linux: &Linux, report: &mut Report) -> u64 {
    match linux.rootfs_propagation.as_str() {
        "" => 0,
        name => mounts::propagation::from_name(name).unwrap_or_else(|| {
            report.problem("linux.rootfsPropagation", format!("rootfsPropagation={name} is not supported"));
            0
        }),
    }
}

fn net_devices(linux: &Linux, ns: &Namespaces, unprivileged: bool, report: &mut Report) -> Vec<(String, String)> {
    if linux.net_devices.is_empty() {
        return Vec::new();
    }
    if !ns.has(Kind::Network) {
        report.problem("linux.netDevices", "unable to move network devices without a NET namespace");
    }
    if unprivileged {
        report.problem("linux.netDevices", "network devices are not supported for rootless containers");
    }
    let valid = |name: &str| {
        !name.is_empty()
            && name.len() <= 15
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
    };
    let mut list = Vec::new();
    for (name, device) in &linux.net_devices {
        let renamed = if device.name.is_empty() { name } else { &device.name };
        for name in [name, renamed] {
            if !valid(name) {
                report.problem("linux.netDevices", format!("invalid network device name {name:?}"));
            }
        }
        list.push((name.clone(), renamed.clone()));
    }
    list
}

fn intel_rdt(linux: &Linux, host: &Host, report: &mut Report) -> Option<IntelRdt> {
    let rdt = linux.intel_rdt.clone()?;
    if !host.resctrl {
        report.problem("linux.intelRdt", "intelRdt is specified in config, but Intel RDT is not enabled");
    }
    if matches!(rdt.clos_id.as_str(), "." | "..") || rdt.clos_id.len() > 1 && rdt.clos_id.contains('/') {
        report.problem("linux.intelRdt.closID", format!("invalid intelRdt.ClosID {:?}", rdt.clos_id));
    }
    let lines = rdt.schemata.iter().flatten().chain([&rdt.l3_cache_schema, &rdt.mem_bw_schema]);
    if lines.into_iter().any(|line| line.contains('\n')) {
        report.problem("linux.intelRdt", "a schema must not contain a line break");
    }
    Some(rdt)
}

fn hooks(spec: &Spec, report: &mut Report) -> Hooks {
    let hooks = spec.hooks.clone().unwrap_or_default();
    for kind in [
        HookKind::Prestart,
        HookKind::CreateRuntime,
        HookKind::CreateContainer,
        HookKind::StartContainer,
        HookKind::Poststart,
        HookKind::Poststop,
    ] {
        for (i, hook) in hooks_of(&hooks, kind).iter().enumerate() {
            let path = format!("hooks.{}[{i}]", kind.name());
            if !hook.path.starts_with('/') {
                report.problem(format!("{path}.path"), format!("hook path {:?} is not absolute", hook.path));
            }
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                report.problem(format!("{path}.timeout"), "must be greater than 0");
            }
            if [&hook.path].into_iter().chain(&hook.args).chain(&hook.env).any(|text| text.contains('\0')) {
                report.problem(path, "contains a NUL byte");
            }
        }
    }
    hooks
}
