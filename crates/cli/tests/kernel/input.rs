//! Configurations that cannot be: every problem is told with its path, and the host is as before.

use crate::place::{Broken, Place};
use serde_json::{Value, json};
use std::fs;

/// One change each; the words must be in the message.
const BROKEN: &[Broken] = &[
    ("no root", |c| _ = c.as_object_mut().unwrap().remove("root"), "root must be specified"),
    ("no such root", |c| c["root"]["path"] = "nowhere".into(), "nowhere"),
    ("a file as root", |c| c["root"]["path"] = "config.json".into(), "config.json"),
    ("empty args", |c| c["process"]["args"] = json!([]), "process.args: args must not be empty"),
    ("empty cwd", |c| c["process"]["cwd"] = "".into(), "process.cwd: Cwd property must not be empty"),
    ("relative cwd", |c| c["process"]["cwd"] = "x".into(), "process.cwd: Cwd must be an absolute path"),
    ("NUL in args", |c| c["process"]["args"] = json!(["a\0b"]), "process.args[0]: contains a NUL byte"),
    ("env without =", |c| c["process"]["env"] = json!(["A"]), "process.env[0]"),
    (
        "unknown rlimit",
        |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
        "process.rlimits[0].type: wrong rlimit value: RLIMIT_X",
    ),
    (
        "double rlimit",
        |c| {
            c["process"]["rlimits"] =
                json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}])
        },
        "process.rlimits[1]",
    ),
    ("oom score", |c| c["process"]["oomScoreAdj"] = 1001.into(), "process.oomScoreAdj"),
    ("scheduler", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_X"}), "process.scheduler.policy"),
    ("nice", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice"),
    (
        "deadline elsewhere",
        |c| c["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 1, "runtime": 5}),
        "process.scheduler.runtime",
    ),
    ("io class", |c| c["process"]["ioPriority"] = json!({"class": "X", "priority": 1}), "process.ioPriority.class"),
    (
        "io priority",
        |c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
        "process.ioPriority.priority",
    ),
    ("apparmor", |c| c["process"]["apparmorProfile"] = "no-such-profile".into(), "AppArmor"),
    ("selinux", |c| c["process"]["selinuxLabel"] = "a:b:c:d".into(), "selinux"),
    (
        "namespace twice",
        |c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"})),
        "duplicated ns",
    ),
    ("unknown namespace", |c| c["linux"]["namespaces"][0]["type"] = "x".into(), "linux.namespaces[0]"),
    ("relative namespace path", |c| c["linux"]["namespaces"][0]["path"] = "x".into(), "linux.namespaces[0]"),
    ("hostname without uts", |c| without(c, "uts"), "unable to set hostname without a private UTS namespace"),
    (
        "masks without mount",
        |c| without(c, "mount"),
        "linux.maskedPaths: unable to restrict sys entries without a private MNT namespace",
    ),
    (
        "user without maps",
        |c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"})),
        "user namespaces enabled, but no namespace path to join nor mappings",
    ),
    (
        "offsets without time",
        |c| c["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}}),
        "linux.timeOffsets: time namespace offsets specified",
    ),
    ("sysctl", |c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"}), "is not in a separate kernel namespace"),
    (
        "sysctl of the host's network",
        |c| {
            without(c, "network");
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        },
        "not allowed in host network namespace",
    ),
    ("propagation", |c| c["linux"]["rootfsPropagation"] = "x".into(), "linux.rootfsPropagation"),
    ("personality", |c| c["linux"]["personality"] = json!({"domain": "X"}), "linux.personality.domain"),
    ("memory policy", |c| c["linux"]["memoryPolicy"] = json!({"mode": "X"}), "linux.memoryPolicy"),
    ("masked path", |c| c["linux"]["maskedPaths"] = json!(["a\0b"]), "linux.maskedPaths[0]"),
    ("read-only path", |c| c["linux"]["readonlyPaths"] = json!([""]), "linux.readonlyPaths[0]"),
    ("device type", |c| c["linux"]["devices"] = json!([{"path": "/dev/x", "type": "x"}]), "linux.devices[0].type"),
    ("device path", |c| c["linux"]["devices"] = json!([{"path": "x", "type": "c"}]), "linux.devices[0].path"),
    (
        "device rule",
        |c| c["linux"]["resources"]["devices"] = json!([{"allow": true, "type": "x", "access": "r"}]),
        "linux.resources.devices[0]",
    ),
    ("memory", |c| c["linux"]["resources"]["memory"] = json!({"limit": -2}), "linux.resources.memory.limit"),
    ("cgroupsPath", |c| c["linux"]["cgroupsPath"] = "/a/../../b\0".into(), "linux.cgroupsPath: contains a NUL byte"),
    ("net device", |c| c["linux"]["netDevices"] = json!({"a/b": {}}), "linux.netDevices"),
    ("resctrl", |c| c["linux"]["intelRdt"] = json!({"closID": "../x"}), "linux.intelRdt"),
    ("mount destination", |c| mount(c, json!({"destination": "", "type": "tmpfs"})), "destination: must not be empty"),
    ("mount type", |c| mount(c, json!({"destination": "/x"})), "type: must not be empty"),
    (
        "bind data",
        |c| mount(c, json!({"destination": "/x", "source": "/", "options": ["bind", "size=1", "noexce"]})),
        "bind mounts cannot have any filesystem-specific options applied: noexce",
    ),
    (
        "idmap of no bind",
        |c| mount(c, json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"]})),
        "id-mapped mounts are only supported for bind-mounts",
    ),
    (
        "half an idmap",
        |c| {
            mount(
                c,
                json!({"destination": "/x", "source": "/", "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            )
        },
        "both uidMappings and gidMappings",
    ),
    ("hook path", |c| c["hooks"] = json!({"poststop": [{"path": "x"}]}), "hooks.poststop[0]"),
    ("hook timeout", |c| c["hooks"] = json!({"prestart": [{"path": "/x", "timeout": 0}]}), "hooks.prestart[0]"),
    ("annotation", |c| c["annotations"] = json!({"": "x"}), "annotations"),
    ("seccomp action", |c| c["linux"]["seccomp"] = json!({"defaultAction": "X"}), "linux.seccomp.defaultAction"),
    (
        "seccomp arch",
        |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]}),
        "linux.seccomp.architectures[0]",
    ),
    (
        "seccomp operator",
        |c| {
            seccomp(
                c,
                json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "X"}]}),
            )
        },
        "linux.seccomp.syscalls[0].args[0].op",
    ),
    (
        "seccomp argument",
        |c| {
            seccomp(
                c,
                json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}),
            )
        },
        "linux.seccomp.syscalls[0].args[0].index",
    ),
    (
        "notify without an agent",
        |c| seccomp(c, json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
        "linux.seccomp.listenerPath",
    ),
    (
        "notify write",
        |c| seccomp(c, json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
];

fn without(config: &mut Value, kind: &str) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn seccomp(config: &mut Value, rule: Value) {
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
}

fn mounts_and_processes() -> (usize, usize) {
    let own = std::process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    (fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), children.split_whitespace().count())
}

#[test]
fn each_problem_is_told() {
    let Some(place) = Place::new("input", &["/bin/true"]) else { return };
    let before = mounts_and_processes().0;
    let mut wrong = Vec::new();
    for (name, change, words) in BROKEN {
        let printed = place.prints(change, "echo it ran");
        if !printed.starts_with("status exit status: 1: ") || !printed.contains(words) || printed.contains("it ran") {
            wrong.push(format!("{name}: {printed}"));
        }
        place.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(mounts_and_processes().0, before);
}

#[test]
fn all_problems_are_told_at_once() {
    let Some(place) = Place::new("input-all", &["/bin/true"]) else { return };
    // Those that only change their own field.
    let own = [
        "relative cwd",
        "unknown rlimit",
        "oom score",
        "scheduler",
        "io class",
        "unknown namespace",
        "propagation",
        "personality",
        "masked path",
        "device type",
        "mount destination",
        "hook path",
        "annotation",
        "seccomp action",
        "net device",
    ];
    let rows: Vec<_> = BROKEN.iter().filter(|(name, ..)| own.contains(name)).collect();
    assert_eq!(rows.len(), own.len());
    let printed = place.prints(|c| rows.iter().for_each(|(_, change, _)| change(c)), "echo it ran");
    for (name, _, words) in rows {
        assert!(printed.contains(words), "{name}: {printed}");
    }
    place.assert_nothing_left();
}

#[test]
fn a_file_that_is_no_configuration() {
    let Some(place) = Place::new("input-json", &["/bin/true"]) else { return };
    let good = fs::read_to_string(place.dir.join("config.json")).unwrap();
    for (text, words) in [
        ("", "config.json"),
        ("{", "config.json"),
        ("null", "config.json"),
        ("{\"ociVersion\": 1}", "ociVersion: invalid type: integer `1`, expected a string"),
        (&good.replace("\"args\":[", "\"args\":[7,"), "process.args[0]: invalid type: integer `7`, expected a string"),
        (
            &good.replace("\"terminal\":false", "\"terminal\":\"no\""),
            "process.terminal: invalid type: string \\\"no\\\", expected a boolean",
        ),
        (
            &good.replace("\"readonly\":true", "\"readonly\":1"),
            "root.readonly: invalid type: integer `1`, expected a boolean",
        ),
        (&(good.clone() + "x"), "config.json"),
    ] {
        fs::write(place.dir.join("config.json"), text).unwrap();
        let (status, errors) = place.on(&["run"], &[]);
        assert!(status == 1 && errors.contains(words) && !errors.contains("panicked"), "{text}: {status} {errors}");
        place.assert_nothing_left();
    }
}
