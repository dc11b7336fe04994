//! All namespaces; the caller's user and network namespaces are kept.

use offshoot_plan::Problem;
use offshoot_spec::{Linux, Namespace, Process};

/// Those that are the container's own in any case, whatever the caller joins.
const OWN: [&str; 5] = ["cgroup", "ipc", "mount", "pid", "uts"];

pub(crate) fn rewrite(
    linux: &mut Linux,
    hostname: &mut String,
    process: Option<&Process>,
    problems: &mut Vec<Problem>,
) {
    let made = |kind: &str, list: &[Namespace]| list.iter().any(|ns| ns.kind == kind && ns.path.is_empty());
    if hostname.is_empty() && !made("uts", &linux.namespaces) {
        // A pod's name stands in its namespace, which this container leaves; Kubernetes sets the variable, too.
        let name = process.iter().flat_map(|process| &process.env).find_map(|entry| entry.strip_prefix("HOSTNAME="));
        *hostname = name.unwrap_or_default().to_owned();
    }
    linux.namespaces.retain(|ns| !OWN.contains(&ns.kind.as_str()));
    linux.namespaces.extend(OWN.map(|kind| Namespace { kind: kind.into(), path: String::new() }));
    if !linux.namespaces.iter().any(|ns| ns.kind == "user") {
        linux.namespaces.push(Namespace { kind: "user".into(), path: String::new() });
    }
    if !linux.namespaces.iter().any(|ns| ns.kind == "network") {
        let text = "a system container cannot share the host's network (hint: leave out --network host)";
        problems.push(Problem::new("linux.namespaces", text));
    }
}
