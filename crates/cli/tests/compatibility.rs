//! `docs/compatibility.md` against the command table, and the command table against runc's.

#![forbid(unsafe_code)]

use offshoot_cli::command::{Command, Flag, find};
use offshoot_cli::table::{COMMANDS, GLOBAL};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// runc 1.5.1's commands and options, as its help shows them; the first line are the global ones.
const RUNC: [(&str, &str); 18] = [
    ("", "debug log log-format root systemd-cgroup rootless"),
    (
        "checkpoint",
        "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap ext-unix-sk \
         shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns auto-dedup",
    ),
    ("create", "bundle b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds"),
    ("delete", "force f"),
    ("events", "interval stats"),
    (
        "exec",
        "console-socket pidfd-socket cwd env e tty t user u additional-gids g process p detach d pid-file \
         process-label apparmor no-new-privs cap c preserve-fds cgroup ignore-paused",
    ),
    ("features", ""),
    ("kill", "all a"),
    ("list", "format f quiet q"),
    ("pause", ""),
    ("ps", "format f"),
    (
        "restore",
        "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode \
         bundle b detach d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile \
         lsm-mount-context",
    ),
    ("resume", ""),
    (
        "run",
        "bundle b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds detach d keep no-subreaper",
    ),
    ("spec", "bundle b rootless"),
    ("start", ""),
    ("state", ""),
    (
        "update",
        "resources r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus \
         cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap pids-limit \
         l3-cache-schema mem-bw-schema",
    ),
];

fn flags(name: &str) -> &'static [Flag] {
    if name.is_empty() { GLOBAL } else { find(COMMANDS, name).map_or(&[], |command: &Command| command.flags) }
}

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md")).unwrap()
}

#[test]
fn every_option_of_runc_is_there() {
    for (name, options) in RUNC {
        assert!(name.is_empty() || find(COMMANDS, name).is_some(), "no command {name}");
        let ours: BTreeSet<&str> = flags(name).iter().flat_map(|flag| [flag.name, flag.short]).collect();
        for option in options.split_whitespace() {
            assert!(ours.contains(option), "{name} has no option {option}");
        }
    }
}

/// The table that the document has to have: what runc has, as this program takes it.
fn table() -> String {
    let mut table = String::from("| command | options | accepted, not shown |\n|---|---|---|\n");
    for (name, options) in RUNC {
        let runc: BTreeSet<&str> = options.split_whitespace().collect();
        let mut columns = [Vec::new(), Vec::new()];
        for flag in flags(name).iter().filter(|flag| flag.hidden || runc.contains(flag.name)) {
            columns[usize::from(flag.hidden)].push(format!("`--{}`", flag.name));
            columns[usize::from(flag.hidden)].extend((!flag.short.is_empty()).then(|| format!("`-{}`", flag.short)));
        }
        let [shown, hidden] = columns.map(|list| if list.is_empty() { "–".to_owned() } else { list.join(" ") });
        let name = if name.is_empty() { "(before the command)".to_owned() } else { format!("`{name}`") };
        writeln!(table, "| {name} | {shown} | {hidden} |").unwrap();
    }
    table
}

#[test]
fn the_document_lists_the_options() {
    let table = table();
    assert!(document().contains(&table), "docs/compatibility.md should have this table:\n{table}");
}

/// Keys of a configuration, except those that its writer makes up.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    const FREE: [&str; 5] = ["annotations", "sysctl", "unified", "netDevices", "timeOffsets"];
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                if !FREE.contains(&key.as_str()) {
                    keys(value, found);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_lists_the_fields_that_callers_send() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plan/tests/corpus");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            keys(&serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(), &mut found);
        }
    }
    assert!(found.len() > 50, "{found:?}");
    let document = document();
    let missing: Vec<_> = found.iter().filter(|key| !document.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/compatibility.md says nothing about {missing:?}");
}
