//! A further process in a container that runs.

use crate::namespaces::{Kind, Namespaces};
use crate::problem::{Problem, Report};
use crate::step::Step;
use crate::{ExecRequest, Host, Process, order, process};
use offshoot_spec::{CpuAffinity, Spec};

/// Everything decided about a further process.
#[derive(Clone, Debug)]
pub struct ExecPlan {
    /// The namespaces to join, all of them init's.
    pub namespaces: Namespaces,
    /// What the launcher does: it joins, then clones the process, since a pid namespace takes children only.
    pub launcher: Vec<Step>,
    /// What the process does.
    pub steps: Vec<Step>,
    /// The process.
    pub process: Process,
    /// CPUs before the process joins the container's cgroup.
    pub initial_affinity: Option<Vec<u32>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Decides a further process. `spec` is the configuration as it was at `create`.
///
/// # Errors
/// Every problem, each with its JSON path.
pub fn exec(
    spec: &Spec,
    wanted: &offshoot_spec::Process,
    id: &str,
    request: &ExecRequest,
    host: &Host,
) -> Result<ExecPlan, Vec<Problem>> {
    let mut report = Report::default();
    let linux = spec.linux.clone().unwrap_or_default();
    let made = Namespaces::read(&linux, &mut report);
    let seccomp = linux.seccomp.as_ref();
    let mut decided = process::decide(wanted, seccomp, host, &mut report);
    decided.personality = linux.personality.as_ref().map(|p| process::personality(p, &mut report));
    decided.memory_policy = linux.memory_policy.as_ref().and_then(|p| process::memory_policy(p, &mut report));
    process::pass_fds(&mut decided, request.preserve_fds, request.listen_fds, request.listen_fd_names.as_deref());
    process::check_terminal(decided.terminal, request.detached, request.console_socket, &mut report);
    let (initial, last) = affinity(wanted.exec_cpu_affinity.as_ref(), &mut report);
    if !report.problems.is_empty() {
        return Err(report.problems);
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| made.has(*kind)).collect();
    let namespaces = Namespaces { new: Vec::new(), joined: kinds.into_iter().map(|kind| (kind, "".into())).collect() };
    let (mut launcher, steps) = order::exec(&namespaces, id, &decided, true);
    // Without any affinity the process must not inherit the caller's; with only an initial one the kernel,
    // which widens it at the entry into the cgroup, has the last word.
    match (&initial, last) {
        (_, Some(cpus)) => launcher.insert(2, Step::Affinity(Some(cpus))),
        (None, None) => launcher.insert(2, Step::Affinity(None)),
        (Some(_), None) => {}
    }
    Ok(ExecPlan { namespaces, launcher, steps, process: decided, initial_affinity: initial, warnings: report.warnings })
}

fn affinity(affinity: Option<&CpuAffinity>, report: &mut Report) -> (Option<Vec<u32>>, Option<Vec<u32>>) {
    let Some(affinity) = affinity else { return (None, None) };
    let mut read = |name: &str, text: &str| {
        if text.is_empty() {
            return None;
        }
        // The kernel's largest build has 8192 CPUs.
        process::number_list(text, 8191)
            .map_err(|message| report.problem(format!("process.execCPUAffinity.{name}"), message))
            .ok()
    };
    (read("initial", &affinity.initial), read("final", &affinity.r#final))
}
