//! `process`: names turned into the kernel's numbers. spec: config.md#process

use crate::idmap::IdMap;
use crate::problem::Report;
use crate::{Host, Process, Request};
use offshoot_spec::{Capabilities, IoPriority, MemoryPolicy, Personality, Rlimit, Scheduler, Seccomp, Spec};
use std::path::PathBuf;
use std::str::FromStr;

/// crun's annotation for podman's `--group-add keep-groups`.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Decides the container's process.
pub fn plan(spec: &Spec, request: &Request, host: &Host, id_map: Option<&IdMap>, report: &mut Report) -> Process {
    let linux = spec.linux.as_ref();
    let mut process = match &spec.process {
        None => Process { cwd: PathBuf::from("/"), ..Process::default() },
        Some(process) => decide(process, linux.and_then(|linux| linux.seccomp.as_ref()), host, report),
    };
    if let Some(map) = id_map {
        check_mapped(&process, map, report);
    }
    if spec.annotations.get(KEEP_GROUPS).is_some_and(|value| value == "1") {
        process.groups = None;
    }
    if spec.process.is_some() {
        process.umask = process.umask.or(Some(0o022));
    }
    process.personality = linux.and_then(|linux| linux.personality.as_ref()).map(|p| personality(p, report));
    process.memory_policy = linux.and_then(|linux| linux.memory_policy.as_ref()).and_then(|p| memory_policy(p, report));
    pass_fds(&mut process, request.preserve_fds, request.listen_fds, request.listen_fd_names.as_deref());
    if request.notify_dir.is_some() {
        set_env(&mut process.env, "NOTIFY_SOCKET=/run/notify/notify.sock");
    }
    check_terminal(process.terminal, request.detached, request.console_socket, report);
    process
}

/// Checks a terminal against the way the caller wants to be connected.
pub fn check_terminal(terminal: bool, detached: bool, console_socket: bool, report: &mut Report) {
    if terminal && detached && !console_socket {
        report.problem("", "cannot allocate tty if runc will detach without setting console socket");
    }
    if console_socket && !(terminal && detached) {
        report.problem("", "cannot use console socket if runc will not detach or allocate tty");
    }
}

/// Adds what tells the program of its descriptors, man 3 sd_listen_fds.
pub fn pass_fds(process: &mut Process, preserve_fds: u32, listen_fds: u32, names: Option<&str>) {
    process.preserve_fds = preserve_fds;
    if listen_fds > 0 {
        set_env(&mut process.env, &format!("LISTEN_FDS={listen_fds}"));
        set_env(&mut process.env, "LISTEN_PID=1");
        if let Some(names) = names {
            set_env(&mut process.env, &format!("LISTEN_FDNAMES={names}"));
        }
    }
}

/// Sets one variable; of equal names the last stays.
fn set_env(env: &mut Vec<String>, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    env.retain(|old| old.split('=').next() != Some(name));
    env.push(entry.to_owned());
}

/// What `create` and `exec` have in common.
pub fn decide(
    process: &offshoot_spec::Process,
    seccomp: Option<&Seccomp>,
    host: &Host,
    report: &mut Report,
) -> Process {
    if process.cwd.is_empty() {
        report.problem("process.cwd", "Cwd property must not be empty");
    } else if !process.cwd.starts_with('/') {
        report.problem("process.cwd", "Cwd must be an absolute path");
    }
    if process.args.is_empty() {
        report.problem("process.args", "args must not be empty");
    }
    let lists = [("args", &process.args), ("env", &process.env)];
    for (name, list) in lists {
        if let Some(i) = list.iter().position(|text| text.contains('\0')) {
            report.problem(format!("process.{name}[{i}]"), "contains a NUL byte");
        }
    }
    if !process.apparmor_profile.is_empty() && !host.apparmor {
        report.problem(
            "process.apparmorProfile",
            "apparmor profile is specified in config, but AppArmor is disabled or not supported",
        );
    }
    if !process.selinux_label.is_empty() && !host.selinux {
        let text = "selinux label is specified in config, but selinux is disabled or not supported";
        report.problem("process.selinuxLabel", text);
    }
    // setresuid(2) takes it for "unchanged", which is root.
    let nobody = |id: &u32| *id == u32::MAX;
    let user = &process.user;
    for (field, found) in [
        ("uid", nobody(&user.uid)),
        ("gid", nobody(&user.gid)),
        ("additionalGids", user.additional_gids.iter().any(nobody)),
    ] {
        if found {
            let text = format!("cannot set {field} to unmapped id {} in user namespace", u32::MAX);
            report.problem(format!("process.user.{field}"), text);
        }
    }
    // An unprivileged caller has no right to setgroups(2) since Linux 3.19.
    let rootless = host.euid != 0;
    if rootless && !process.user.additional_gids.is_empty() {
        report.problem("process.user.additionalGids", "cannot set any additional groups in a rootless container");
    }
    let (filter, listener) = filter(seccomp, host, report);
    Process {
        terminal: process.terminal,
        console_size: process.console_size.clone(),
        args: process.args.clone(),
        env: deduplicated(&process.env, report),
        cwd: PathBuf::from(&process.cwd),
        uid: process.user.uid,
        gid: process.user.gid,
        groups: (!rootless).then(|| process.user.additional_gids.clone()),
        umask: process.user.umask.map(|mask| mask & 0o777),
        capabilities: process.capabilities.as_ref().map(|caps| capabilities(caps, host.bounding, report)),
        rlimits: rlimits(&process.rlimits, report),
        no_new_privileges: process.no_new_privileges,
        apparmor_profile: process.apparmor_profile.clone(),
        selinux_label: process.selinux_label.clone(),
        oom_score_adj: process.oom_score_adj.map(|adj| oom_score_adj(adj, report)),
        scheduler: process.scheduler.as_ref().map(|s| scheduler(s, report)),
        io_priority: process.io_priority.as_ref().map(|p| io_priority(p, report)),
        personality: None,
        memory_policy: None,
        seccomp: filter,
        seccomp_listener: listener,
        preserve_fds: 0,
    }
}

fn oom_score_adj(adj: i64, report: &mut Report) -> i32 {
    if !(-1000..=1000).contains(&adj) {
        report.problem("process.oomScoreAdj", format!("{adj} is not within -1000 to 1000"));
    }
    adj.clamp(-1000, 1000) as i32
}

fn check_mapped(process: &Process, map: &IdMap, report: &mut Report) {
    if IdMap::outside(&map.uids, process.uid).is_none() {
        report.problem("process.user.uid", "cannot set uid to unmapped user in user namespace");
    }
    if IdMap::outside(&map.gids, process.gid).is_none() {
        report.problem("process.user.gid", "cannot set gid to unmapped user in user namespace");
    }
    for gid in process.groups.iter().flatten().filter(|gid| IdMap::outside(&map.gids, **gid).is_none()) {
        report.problem(
            "process.user.additionalGids",
            format!("cannot set additional gid {gid} to unmapped group in user namespace"),
        );
    }
}

/// Of equal names the last one stands, at the place of the first.
fn deduplicated(env: &[String], report: &mut Report) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(env.len());
    for (i, entry) in env.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            report.problem(
                format!("process.env[{i}]"),
                format!("invalid environment variable: {entry:?} has no name or no '='"),
            );
            continue;
        };
        match out.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => entry.clone_into(old),
            None => out.push(entry.clone()),
        }
    }
    out
}

type Filter = (Option<offshoot_seccomp::Filter>, Option<(PathBuf, String)>);

fn filter(seccomp: Option<&Seccomp>, host: &Host, report: &mut Report) -> Filter {
    let Some(profile) = seccomp else { return (None, None) };
    let filter = match offshoot_seccomp::compile(profile, &host.seccomp) {
        Ok(filter) => filter,
        Err(problems) => {
            for problem in problems {
                let dot = if problem.path.is_empty() { "" } else { "." };
                report.problem(format!("linux.seccomp{dot}{}", problem.path), problem.message);
            }
            return (None, None);
        }
    };
    if profile.listener_path.is_empty() && (filter.notify || !profile.listener_metadata.is_empty()) {
        report.problem("linux.seccomp.listenerPath", "must be set for SCMP_ACT_NOTIFY and for listenerMetadata");
    }
    let listener = filter.notify.then(|| (PathBuf::from(&profile.listener_path), profile.listener_metadata.clone()));
    (Some(filter), listener)
}

/// Five capability masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CapabilitySets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// Reads the five sets. A name that the kernel or this program does not know, or that the caller cannot
/// grant, is a warning (spec: config.md#linux-process).
pub fn capabilities(caps: &Capabilities, grantable: u64, report: &mut Report) -> CapabilitySets {
    let mut ignored: Vec<&str> = Vec::new();
    let sets = [&caps.bounding, &caps.effective, &caps.inheritable, &caps.permitted, &caps.ambient];
    let [bounding, effective, inheritable, permitted, ambient] = sets.map(|names| {
        names.iter().fold(0, |mask, name| match caps::Capability::from_str(name) {
            Ok(cap) if grantable & cap.bitmask() != 0 => mask | cap.bitmask(),
            _ => {
                if !ignored.contains(&name.as_str()) {
                    ignored.push(name);
                }
                mask
            }
        })
    });
    if !ignored.is_empty() {
        report.warn(format!("ignoring unknown or unavailable capabilities: [{}]", ignored.join(" ")));
    }
    CapabilitySets { bounding, effective, inheritable, permitted, ambient }
}

/// The name of a capability: `CAP_KILL`.
pub fn capability_name(number: u32) -> String {
    let known = caps::all().into_iter().find(|cap| u32::from(cap.index()) == number);
    known.map_or_else(|| format!("CAP_{number}"), |cap| cap.to_string())
}

/// A limit by number, man 2 prlimit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ResourceLimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// Names of limits, at the place of their number on x86, arm and RISC-V.
const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Reads `process.rlimits`.
pub fn rlimits(limits: &[Rlimit], report: &mut Report) -> Vec<ResourceLimit> {
    let mut list: Vec<ResourceLimit> = Vec::new();
    for (i, limit) in limits.iter().enumerate() {
        let path = format!("process.rlimits[{i}]");
        let number =
            limit.kind.strip_prefix("RLIMIT_").and_then(|name| RLIMITS.iter().position(|known| *known == name));
        let Some(number) = number else {
            report.problem(format!("{path}.type"), format!("wrong rlimit value: {}", limit.kind));
            continue;
        };
        let resource = number as u32;
        if list.iter().any(|seen| seen.resource == resource) {
            report.problem(path, format!("duplicate rlimit {}", limit.kind));
        } else if limit.soft > limit.hard {
            report.problem(path, format!("the soft limit {} is above the hard limit {}", limit.soft, limit.hard));
        } else {
            list.push(ResourceLimit { resource, soft: limit.soft, hard: limit.hard });
        }
    }
    list
}

/// `struct sched_attr`, man 2 sched_setattr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SchedAttr {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Reads `process.scheduler`.
pub fn scheduler(scheduler: &Scheduler, report: &mut Report) -> SchedAttr {
    let path = |field: &str| format!("process.scheduler.{field}");
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => {
            report.problem(path("policy"), format!("invalid scheduler policy: {other:?}"));
            0
        }
    };
    let known = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let mut flags = 0;
    for name in &scheduler.flags {
        match known.iter().find(|(flag, _)| flag == name) {
            Some((_, bit)) => flags |= bit,
            None => report.problem(path("flags"), format!("invalid scheduler flag: {name:?}")),
        }
    }
    if !(-20..=19).contains(&scheduler.nice) {
        report.problem(path("nice"), format!("invalid scheduler.nice: {}", scheduler.nice));
    }
    let real_time = matches!(policy, 1 | 2);
    if scheduler.priority != 0 && !real_time {
        report.problem(path("priority"), "scheduler.priority can only be specified for SchedFIFO or SchedRR policy");
    }
    let deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
    if deadline && policy != 6 {
        report.problem(
            path("runtime"),
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        );
    }
    SchedAttr {
        policy,
        flags,
        nice: scheduler.nice,
        priority: scheduler.priority.max(0) as u32,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

/// Reads `process.ioPriority` into the argument of ioprio_set(2).
pub fn io_priority(priority: &IoPriority, report: &mut Report) -> i32 {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            report.problem("process.ioPriority.class", format!("invalid ioPriority.class: {other:?}"));
            0
        }
    };
    if !(0..=7).contains(&priority.priority) {
        report.problem("process.ioPriority.priority", format!("invalid ioPriority.priority: {}", priority.priority));
    }
    class << 13 | priority.priority.clamp(0, 7) as i32
}

/// Reads `linux.personality` into the argument of personality(2).
pub fn personality(personality: &Personality, report: &mut Report) -> u64 {
    if !personality.flags.is_empty() {
        report.warn("ignoring personality flags: the specification defines none");
    }
    match personality.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => {
            report.problem("linux.personality.domain", format!("invalid personality domain: {other:?}"));
            0
        }
    }
}

/// Arguments of set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaPolicy {
    /// Mode and flags.
    pub mode: i32,
    /// Nodes, ascending.
    pub nodes: Vec<u32>,
}

/// Mode names with their numbers, `linux/mempolicy.h`.
pub const MEMPOLICY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Flag names with their bits, `linux/mempolicy.h`.
pub const MEMPOLICY_FLAGS: [(&str, i32); 3] =
    [("MPOL_F_STATIC_NODES", 1 << 15), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_NUMA_BALANCING", 1 << 13)];

/// Reads `linux.memoryPolicy`.
pub fn memory_policy(policy: &MemoryPolicy, report: &mut Report) -> Option<NumaPolicy> {
    let problem = |report: &mut Report, field: &str, text: String| {
        report.problem(format!("linux.memoryPolicy.{field}"), format!("invalid memory policy {text}"));
    };
    let by_name =
        |table: &[(&str, i32)], name: &str| table.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit);
    let Some(mut mode) = by_name(&MEMPOLICY_MODES, &policy.mode) else {
        let text =
            if policy.mode.is_empty() { "mode is required".into() } else { format!("unknown mode {:?}", policy.mode) };
        problem(report, "mode", text);
        return None;
    };
    for flag in &policy.flags {
        match by_name(&MEMPOLICY_FLAGS, flag) {
            Some(bit) => mode |= bit,
            None => problem(report, "flags", format!("flag: {flag:?}")),
        }
    }
    match number_list(&policy.nodes, 1023) {
        // MPOL_DEFAULT and MPOL_LOCAL name no nodes.
        Ok(nodes) if matches!(mode & 0xfff, 0 | 4) && !nodes.is_empty() => {
            problem(report, "nodes", format!("nodes: the mode requires 0 nodes but got {}", nodes.len()));
            None
        }
        Ok(nodes) => Some(NumaPolicy { mode, nodes }),
        Err(text) => {
            problem(report, "nodes", format!("nodes: {text}"));
            None
        }
    }
}

/// Parses `0-3,7` into ascending numbers, none above `max`.
///
/// # Errors
/// What is wrong with the text.
pub fn number_list(text: &str, max: u32) -> Result<Vec<u32>, String> {
    let number = |word: &str| -> Result<u32, String> {
        let number = word.trim().parse().map_err(|_| format!("{word:?} in {text:?} is not a number"))?;
        if number > max { Err(format!("{number} in {text:?} is above {max}")) } else { Ok(number) }
    };
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("range {part:?} goes down"));
        }
        list.extend(first..=last);
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let caps = Capabilities { bounding: vec!["CAP_KILL".into(), "CAP_NEW".into()], ..Default::default() };
        let mut report = Report::default();
        let sets = capabilities(&caps, u64::MAX, &mut report);
        assert_eq!((sets.bounding, sets.effective), (1 << 5, 0));
        assert!(report.problems.is_empty() && report.warnings[0].contains("[CAP_NEW]"), "{report:?}");
    }

    #[test]
    fn a_capability_that_the_caller_lacks_is_a_warning() {
        let caps = Capabilities { ambient: vec!["CAP_SYS_RESOURCE".into()], ..Default::default() };
        let mut report = Report::default();
        assert_eq!(capabilities(&caps, !(1 << 24), &mut report).ambient, 0);
        assert_eq!(report.warnings.len(), 1);
    }

    #[test]
    fn a_limit_twice_or_upside_down_is_a_problem() {
        let limit = |kind: &str, soft, hard| Rlimit { kind: kind.into(), soft, hard };
        let mut report = Report::default();
        let list = rlimits(
            &[
                limit("RLIMIT_NOFILE", 1, 2),
                limit("RLIMIT_NOFILE", 1, 2),
                limit("RLIMIT_CPU", 2, 1),
                limit("CPU", 1, 1),
            ],
            &mut report,
        );
        assert_eq!(list, [ResourceLimit { resource: 7, soft: 1, hard: 2 }]);
        assert_eq!(report.problems.len(), 3);
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(number_list("3, 0-1,1", 7).unwrap(), [0, 1, 3]);
        assert_eq!(number_list("", 7).unwrap(), Vec::<u32>::new());
        assert!(number_list("2-1", 7).is_err() && number_list("8", 7).is_err() && number_list("a", 7).is_err());
    }

    #[test]
    fn scheduler_parameters_belong_to_their_policy() {
        let mut report = Report::default();
        let wrong = Scheduler { policy: "SCHED_OTHER".into(), priority: 3, runtime: 1, nice: 20, ..Default::default() };
        scheduler(&wrong, &mut report);
        assert_eq!(report.problems.len(), 3);
    }
}
