//! `linux.sysctl`: only parameters that a namespace of the container keeps to itself.

use crate::namespaces::{Kind, Namespaces};
use crate::problem::Report;
use std::collections::BTreeMap;

/// A parameter: its path below `/proc/sys`, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sysctl {
    pub path: String,
    pub value: String,
}

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// As sysctl(8): where the first separator is a slash, dots are part of names; else the two change places.
fn normalise(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key.as_bytes()[first] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Reads `linux.sysctl`.
pub fn plan(
    sysctl: &BTreeMap<String, String>,
    ns: &Namespaces,
    joins_own_network: bool,
    hostname: &str,
    report: &mut Report,
) -> Vec<Sysctl> {
    let mut list = Vec::new();
    for (key, value) in sysctl {
        let path = normalise(key);
        let at = format!("linux.sysctl.{key:?}");
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || path.contains('\0') {
            report.problem(at, format!("sysctl {key:?} is not a name of a kernel parameter"));
            continue;
        }
        let own_ipc = ns.has(Kind::Ipc);
        let refused = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
            (!own_ipc).then(|| format!("sysctl {key:?} is not allowed in the hosts ipc namespace"))
        } else if path.starts_with("net/") {
            (!ns.has(Kind::Network) || joins_own_network)
                .then(|| format!("sysctl {key:?} not allowed in host network namespace"))
        } else if path == "kernel/domainname" {
            (!ns.has(Kind::Uts)).then(|| format!("sysctl {key:?} is not allowed without a UTS namespace"))
        } else if path == "kernel/hostname" {
            Some(match hostname {
                "" => format!("sysctl {key:?} is not allowed, use the `hostname` property of the OCI spec"),
                _ => format!("sysctl {key:?} conflicts with the OCI `hostname` field"),
            })
        } else if path.starts_with("user/") {
            (!ns.has(Kind::User)).then(|| format!("sysctl {key:?} is not in a separate kernel namespace"))
        } else {
            Some(format!("sysctl {key:?} is not in a separate kernel namespace"))
        };
        match refused {
            Some(message) => report.problem(at, message),
            None => list.push(Sysctl { path, value: value.clone() }),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, kinds: &[Kind]) -> bool {
        let ns = Namespaces { new: kinds.to_vec(), joined: vec![] };
        let mut report = Report::default();
        plan(&BTreeMap::from([(key.to_owned(), "1".to_owned())]), &ns, false, "", &mut report);
        !report.problems.is_empty()
    }

    #[test]
    fn a_parameter_needs_the_namespace_that_keeps_it() {
        for (key, kind) in [
            ("net.ipv4.ip_forward", Kind::Network),
            ("kernel.shmmax", Kind::Ipc),
            ("fs.mqueue.msg_max", Kind::Ipc),
            ("kernel/domainname", Kind::Uts),
            ("user.max_pid_namespaces", Kind::User),
        ] {
            assert!(!refused(key, &[kind]), "{key}");
            assert!(refused(key, &Kind::ALL.into_iter().filter(|k| *k != kind).collect::<Vec<_>>()), "{key}");
        }
    }

    #[test]
    fn nothing_of_the_host_is_reached() {
        for key in
            ["kernel.core_pattern", "kernel.hostname", "vm.swappiness", "net/../kernel/core_pattern", "net..x", ""]
        {
            assert!(refused(key, &Kind::ALL), "{key}");
        }
    }

    #[test]
    fn separators_as_in_sysctl_8() {
        assert_eq!(normalise("net.ipv4.conf.eno2/100.rp_filter"), "net/ipv4/conf/eno2.100/rp_filter");
        assert_eq!(normalise("net/ipv4/conf/eno2.100/rp_filter"), "net/ipv4/conf/eno2.100/rp_filter");
    }
}
