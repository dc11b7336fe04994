//! The profile's words turned into numbers, with every problem found on the way.

use crate::arch::Arch;
use crate::calls::Call;
use crate::{Kernel, Problem, flag};
use offshoot_spec::{Arg, Seccomp, Syscall};

/// Return values of a filter, linux/seccomp.h.
pub(crate) const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u16 = 1;
/// What a call that the kernel does not have returns.
pub(crate) const RETURN_ENOSYS: u32 = ERRNO | 38;

/// Actions, sorted as `runc features` prints them.
const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_KILL", KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_TRAP", TRAP),
];

const OPERATORS: [(&str, Operator); 7] = [
    ("SCMP_CMP_EQ", Operator::Eq),
    ("SCMP_CMP_GE", Operator::Ge),
    ("SCMP_CMP_GT", Operator::Gt),
    ("SCMP_CMP_LE", Operator::Le),
    ("SCMP_CMP_LT", Operator::Lt),
    ("SCMP_CMP_MASKED_EQ", Operator::MaskedEq),
    ("SCMP_CMP_NE", Operator::Ne),
];

/// Flags in runc's order. TSYNC says nothing to a process with one thread, so it sets no bit.
const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", flag::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", flag::LOG),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", flag::WAIT_KILLABLE_RECV),
];

/// The `SCMP_ACT_…` names, sorted.
#[must_use]
pub fn action_names() -> Vec<&'static str> {
    ACTIONS.map(|(name, _)| name).to_vec()
}

/// The `SCMP_CMP_…` names, sorted.
#[must_use]
pub fn operator_names() -> Vec<&'static str> {
    OPERATORS.map(|(name, _)| name).to_vec()
}

/// The `SECCOMP_FILTER_FLAG_…` names that a profile may use, in runc's order.
#[must_use]
pub fn flag_names() -> Vec<&'static str> {
    FLAGS.map(|(name, _)| name).to_vec()
}

/// Those of [`flag_names`] that a kernel with these flag bits accepts.
#[must_use]
pub fn supported_flag_names(kernel_flags: u64) -> Vec<&'static str> {
    FLAGS.iter().filter(|(_, bit)| bit & !kernel_flags == 0).map(|(name, _)| *name).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    MaskedEq,
}

/// One comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) index: u8,
    pub(crate) operator: Operator,
    /// All ones but for MASKED_EQ.
    pub(crate) mask: u64,
    pub(crate) value: u64,
}

/// One entry of `syscalls`.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) calls: Vec<Call>,
    /// What the filter returns.
    pub(crate) action: u32,
    /// Conditions within a list are ANDed, the lists ORed; one empty list is a rule without conditions.
    pub(crate) any_of: Vec<Vec<Condition>>,
}

/// The whole profile in numbers.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) default: u32,
    pub(crate) rules: Vec<Rule>,
    /// Whether calls newer than the profile get ENOSYS instead of the default action.
    pub(crate) enosys: bool,
    /// The native architecture first.
    pub(crate) arches: Vec<Arch>,
    pub(crate) flags: u64,
    pub(crate) notes: Vec<String>,
}

/// Problems and notes while they are collected.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Findings {
    fn problem(&mut self, path: String, message: impl Into<String>) {
        self.problems.push(Problem { path, message: message.into() });
    }
}

impl Policy {
    pub(crate) fn new(profile: &Seccomp, kernel: &Kernel) -> Result<Policy, Vec<Problem>> {
        let mut findings = Findings::default();
        let default = action(&profile.default_action, profile.default_errno_ret, "defaultAction", &mut findings);
        let arches = arches(&profile.architectures, kernel, &mut findings);
        let rules: Vec<Rule> =
            profile.syscalls.iter().enumerate().map(|(at, entry)| rule(entry, at, &mut findings)).collect();
        let notify = profile.syscalls.iter().any(|e| e.action == "SCMP_ACT_NOTIFY" && !e.names.is_empty());
        if default == NOTIFY {
            findings.problem("defaultAction".into(), "SCMP_ACT_NOTIFY cannot be used as default action");
        }
        if notify && profile.listener_path.is_empty() {
            findings.problem("listenerPath".into(), "seccomp listenerPath is not set");
        }
        if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
            findings.problem("listenerMetadata".into(), "seccomp listenerMetadata is set without listenerPath");
        }
        let flags = flags(profile.flags.as_deref(), notify, kernel, &mut findings);
        if !findings.problems.is_empty() {
            return Err(findings.problems);
        }
        // A permissive default and a tracer are trusted to handle new calls; for the rest, as in runc.
        let enosys = !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
        Ok(Policy { default, rules, enosys, arches, flags, notes: findings.notes })
    }
}

fn action(name: &str, errno: Option<u32>, path: &str, findings: &mut Findings) -> u32 {
    let Some((_, value)) = ACTIONS.iter().find(|(known, _)| *known == name) else {
        findings.problem(path.into(), format!("string {name} is not a valid action for seccomp"));
        return KILL_THREAD;
    };
    if !matches!(*value, ERRNO | TRACE) {
        return *value;
    }
    match u16::try_from(errno.unwrap_or(EPERM.into())) {
        Ok(data) => value | u32::from(data),
        // The kernel has 16 bits for it; cut off, 65536 would be success.
        Err(_) => {
            findings.problem(path.into(), format!("errno value {} is greater than 65535", errno.unwrap_or(0)));
            KILL_THREAD
        }
    }
}

fn arches(names: &[String], kernel: &Kernel, findings: &mut Findings) -> Vec<Arch> {
    let mut arches = vec![kernel.native];
    for (at, name) in names.iter().enumerate() {
        match Arch::from_name(name) {
            None => findings
                .problem(format!("architectures[{at}]"), format!("string {name} is not a valid arch for seccomp")),
            // The kernel can never report the others.
            Some(arch) if kernel.native.runs(arch) && !arches.contains(&arch) => arches.push(arch),
            Some(_) => {}
        }
    }
    arches
}

fn flags(names: Option<&[String]>, notify: bool, kernel: &Kernel, findings: &mut Findings) -> u64 {
    let mut flags = if notify { flag::NEW_LISTENER } else { 0 };
    let Some(names) = names else {
        // A profile that says nothing keeps speculation fast, where the kernel can (since 4.17).
        return flags | (flag::SPEC_ALLOW & kernel.flags);
    };
    for (at, name) in names.iter().enumerate() {
        let path = format!("flags[{at}]");
        match FLAGS.iter().find(|(known, _)| known == name) {
            None => findings.problem(path, format!("seccomp flag {name} is not known")),
            Some((_, bit)) if bit & !kernel.flags != 0 => {
                findings.problem(path, format!("seccomp flag {name} is not supported by this kernel"));
            }
            // seccomp(2) refuses it with EINVAL.
            Some((_, bit)) if *bit == flag::WAIT_KILLABLE_RECV && !notify => {
                findings.problem(path, format!("seccomp flag {name} needs a rule with SCMP_ACT_NOTIFY"));
            }
            Some((_, bit)) => flags |= bit,
        }
    }
    flags
}

fn rule(entry: &Syscall, at: usize, findings: &mut Findings) -> Rule {
    let action = action(&entry.action, entry.errno_ret, &format!("syscalls[{at}].action"), findings);
    let mut calls = Vec::with_capacity(entry.names.len());
    for (n, name) in entry.names.iter().enumerate() {
        if name.is_empty() {
            findings.problem(format!("syscalls[{at}].names[{n}]"), "empty string is not a valid syscall");
        } else if let Some(call) = Call::named(name) {
            calls.push(call);
        } else {
            findings.notes.push(format!("unknown seccomp syscall {name:?} ignored"));
        }
        // The container's first process writes to its parent after it loaded the filter.
        if action == NOTIFY && name == "write" {
            findings
                .problem(format!("syscalls[{at}].names[{n}]"), "SCMP_ACT_NOTIFY cannot be used for the write syscall");
        }
    }
    let conditions: Vec<Condition> = entry
        .args
        .iter()
        .enumerate()
        .filter_map(|(n, arg)| condition(arg, &format!("syscalls[{at}].args[{n}]"), findings))
        .collect();
    let repeated = conditions.iter().enumerate().any(|(n, c)| conditions[..n].iter().any(|d| d.index == c.index));
    // Two conditions on one argument are alternatives, as they have been since runc's first release.
    let any_of = if repeated { conditions.into_iter().map(|c| vec![c]).collect() } else { vec![conditions] };
    Rule { calls, action, any_of }
}

fn condition(arg: &Arg, path: &str, findings: &mut Findings) -> Option<Condition> {
    let operator = OPERATORS.iter().find(|(known, _)| *known == arg.op).map(|(_, operator)| *operator);
    if operator.is_none() {
        findings.problem(format!("{path}.op"), format!("string {} is not a valid operator for seccomp", arg.op));
    }
    if arg.index > 5 {
        let message = format!("syscalls only have up to 6 arguments ({} given)", arg.index);
        findings.problem(format!("{path}.index"), message);
    }
    let index = u8::try_from(arg.index).ok()?;
    Some(match operator? {
        // Here the specification's `value` is the mask, as in libseccomp's argument order.
        Operator::MaskedEq => {
            Condition { index, operator: Operator::MaskedEq, mask: arg.value, value: arg.value_two & arg.value }
        }
        operator => Condition { index, operator, mask: u64::MAX, value: arg.value },
    })
}
