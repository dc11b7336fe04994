//! Namespaces, new, joined and absent; user namespaces; kernel parameters. spec: config-linux.md#namespaces

use crate::place::{self, Place, Row};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

const ALL: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

fn host(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

fn user_namespace(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
}

/// What the container's first process has as its namespaces, in the order of [`ALL`].
fn inside(place: &Place) -> Vec<String> {
    let state: Value = serde_json::from_slice(&place.output(&["state"], &[]).stdout).unwrap();
    let link = |(_, file): &(&str, &str)| fs::read_link(format!("/proc/{}/ns/{file}", state["pid"])).unwrap();
    ALL.iter().map(link).map(|link| link.to_str().unwrap().to_owned()).collect()
}

#[test]
fn each_kind_is_new_joined_or_the_host_s() {
    let Some(first) = Place::new("ns-first", &["/bin/sleep", "100"]) else { return };
    chown(first.dir.join("rootfs"), Some(100_000), Some(200_000)).unwrap();
    first.edit(|c| {
        user_namespace(c);
        for kind in ["cgroup", "time"] {
            let list = c["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != kind);
            list.push(json!({"type": kind}));
        }
    });
    first.ok(&["run", "--detach"], &[]);
    let of_first = inside(&first);
    for ((kind, file), new) in ALL.iter().zip(&of_first) {
        assert_ne!(*new, host(file), "{kind}");
    }

    // Another container joins all of them but its mounts, which would have no root of its own.
    let state: Value = serde_json::from_slice(&first.output(&["state"], &[]).stdout).unwrap();
    let second = Place::new("ns-second", &["/bin/sleep", "100"]).unwrap();
    chown(second.dir.join("rootfs"), Some(100_000), Some(200_000)).unwrap();
    second.edit(|c| {
        let join = |(kind, file): &(&str, &str)| match *kind {
            "mount" => json!({"type": "mount"}),
            _ => json!({"type": kind, "path": format!("/proc/{}/ns/{file}", state["pid"])}),
        };
        c["linux"]["namespaces"] = ALL.iter().map(join).collect();
        c["hostname"] = "".into();
    });
    second.ok(&["run", "--detach"], &[]);
    for (((kind, _), first), second) in ALL.iter().zip(&of_first).zip(inside(&second)) {
        assert_eq!(*first == second, *kind != "mount", "{kind}: {first} {second}");
    }
    // The first one's end takes the pid namespace with it.
    first.ok(&["kill"], &["KILL"]);
    second.wait_for("stopped");
    second.ok(&["delete"], &[]);
    second.assert_nothing_left();

    // Without any entry but the mounts': the host's. A bind of the host's procfs takes the place of a new one.
    let third = Place::new("ns-third", &["/bin/sleep", "100"]).unwrap();
    third.edit(|c| {
        c["linux"]["namespaces"] = json!([{"type": "mount"}]);
        c["hostname"] = "".into();
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !["mqueue", "sysfs", "cgroup"].contains(&mount["type"].as_str().unwrap()));
    });
    third.ok(&["run", "--detach"], &[]);
    for ((kind, file), link) in ALL.iter().zip(inside(&third)) {
        assert_eq!(link == host(file), *kind != "mount", "{kind}");
    }
}

#[test]
fn a_path_of_another_kind_is_refused() {
    let Some(place) = Place::new("ns-wrong", &["/bin/true"]) else { return };
    for (path, words) in
        [("/proc/self/ns/uts", "ipc"), ("/etc/passwd", "/etc/passwd"), ("/nowhere", "no such file or directory")]
    {
        let printed = place.prints(
            |c| {
                c["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .filter(|n| n["type"] == "ipc")
                    .for_each(|n| n["path"] = path.into())
            },
            "echo in",
        );
        assert!(printed.starts_with("status exit status: 1") && printed.contains(words), "{path}: {printed}");
        place.assert_nothing_left();
    }
}

#[test]
fn a_user_namespace_maps_ids() {
    let Some(place) = Place::new("ns-user", &[]) else { return };
    chown(place.dir.join("rootfs"), Some(100_000), Some(200_000)).unwrap();
    place.edit(user_namespace);
    place.edit(|c| c["root"]["readonly"] = false.into());
    place.check(&[
        Row(
            "maps",
            |_| {},
            "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map",
            " 0 100000 65536\n 0 200000 65536",
        ),
        Row("root owns what it makes", |_| {}, "echo x >/made; stat -c %u:%g /made /proc/self/", "0:0\n0:0"),
        Row(
            "another user",
            |c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [20]}),
            "id -u; id -g; grep Groups /proc/self/status",
            "1000\n1000\nGroups:\t20",
        ),
        Row(
            "devices are there",
            |_| {},
            "echo x >/dev/null; head -c1 /dev/zero | od -An -tx1; stat -c %t:%T /dev/null",
            " 00\n1:3",
        ),
        Row(
            "not the host's root",
            |_| {},
            "cat /proc/sysrq-trigger >/dev/null 2>&1 || echo no; echo 1 2>/dev/null >/proc/sys/kernel/panic || echo no",
            "no\nno",
        ),
    ]);
    let made = fs::metadata(place.dir.join("rootfs/made")).unwrap();
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&made), std::os::unix::fs::MetadataExt::gid(&made)),
        (100_000, 200_000)
    );
}

/// As another user, with the configuration that `spec --rootless` writes.
#[test]
fn an_unprivileged_user_runs_containers() {
    let Some(place) = Place::new("ns-rootless", &[]) else { return };
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(place.dir.join("config.json")).unwrap();
    let program = place.dir.join("offshoot");
    fs::copy(place::program(), &program).unwrap();
    let command = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=4711", "--regid=4712", "--clear-groups", "--"])
            .arg(&program)
            .arg("--root")
            .arg(place.dir.join("own"));
        command.args(words).current_dir(&place.dir).env("XDG_RUNTIME_DIR", &place.dir);
        command
    };
    let as_user = |words: &[&str]| {
        let output = command(words).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert_eq!(as_user(&["spec", "--rootless"]), "");
    chown(place.dir.join("rootfs"), Some(4711), Some(4712)).unwrap();
    place.edit(|c| {
        c["process"]["terminal"] = false.into();
        let script = "id -u; id -g; tr -s ' ' </proc/self/uid_map; echo x 2>/dev/null >/sys/fs/cgroup/x || echo no; readlink /proc/self/ns/pid";
        c["process"]["args"] = json!(["/bin/sh", "-c", script]);
        for path in ["/bin", "/lib", "/lib64", "/usr"].into_iter().filter(|path| fs::exists(path).unwrap()) {
            let mount = json!({"destination": path, "source": path, "type": "none", "options": ["rbind", "ro"]});
            c["mounts"].as_array_mut().unwrap().push(mount);
        }
    });
    let printed = as_user(&["run", &place.id]);
    if printed.contains("mount procfs") || printed.contains("Operation not permitted") && !printed.starts_with("0\n0\n")
    {
        // A host whose own /proc is covered (a container) lets no user namespace mount another.
        println!("skipped: {printed}");
        return;
    }
    assert!(printed.starts_with("0\n0\n 0 4711 1\nno\npid:["), "{printed}");
    assert!(!printed.contains(&host("pid")));
    place.edit(|c| c["process"]["args"] = json!(["/bin/sleep", "100"]));
    let errors = fs::File::create(place.dir.join("errors")).unwrap();
    let status = command(&["run", "--detach", &place.id]).stdout(Stdio::null()).stderr(errors).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(place.dir.join("errors")).unwrap());
    assert_eq!(as_user(&["exec", &place.id, "/bin/sh", "-c", "id -u"]), "0\n");
    assert_eq!(as_user(&["delete", "--force", &place.id]), "");
    assert!(as_user(&["state", &place.id]).contains("does not exist"));
}

#[test]
fn an_exec_joins_a_user_and_a_time_namespace() {
    let Some(place) = Place::new("ns-exec", &["/bin/sleep", "100"]) else { return };
    chown(place.dir.join("rootfs"), Some(100_000), Some(200_000)).unwrap();
    place.edit(user_namespace);
    place.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 3_000_000}});
    });
    place.ok(&["run", "--detach"], &[]);
    let script = "id -u; id -g; tr -s ' ' </proc/self/uid_map; read up rest </proc/uptime; test ${up%.*} -ge 3000000 && echo later; \
        for kind in user time mnt pid; do readlink /proc/self/ns/$kind; done";
    let output = place.output(&["exec", "--user", "7:8"], &["/bin/sh", "-c", script]);
    let links = inside(&place);
    let expected = format!("7\n8\n 0 100000 65536\nlater\n{}\n{}\n{}\n{}\n", links[6], links[5], links[2], links[4]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
}

#[test]
fn what_the_container_s_root_cannot_reach_is_opened_before() {
    let Some(place) = Place::new("ns-reach", &[]) else { return };
    chown(place.dir.join("rootfs"), Some(100_000), Some(200_000)).unwrap();
    let closed = place.dir.join("closed");
    fs::create_dir_all(closed.join("deep")).unwrap();
    fs::write(closed.join("deep/file"), "reached").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    place.edit(user_namespace);
    let mount = json!({"destination": "/m", "type": "none", "source": closed.join("deep"), "options": ["bind"]});
    let printed = place.prints(|c| c["mounts"].as_array_mut().unwrap().push(mount), "cat /m/file; stat -c %u /m/file");
    assert_eq!(printed, "reached65534");
    // With the container's own map, root of the host is root of the container.
    let mount =
        json!({"destination": "/m", "type": "none", "source": closed.join("deep"), "options": ["bind", "idmap"]});
    let printed = place.prints(|c| c["mounts"].as_array_mut().unwrap().push(mount), "stat -c %u:%g /m/file");
    assert!(
        printed == "0:0" || printed.contains("Invalid argument") || printed.contains("invalid argument"),
        "{printed}"
    );
    place.assert_nothing_left();
}

#[test]
fn clocks_are_shifted() {
    let Some(place) = Place::new("ns-time", &[]) else { return };
    place.edit(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        c["linux"]["timeOffsets"] =
            json!({"monotonic": {"secs": 1_000_000, "nanosecs": 5}, "boottime": {"secs": 2_000_000}});
    });
    place.check(&[
        Row("offsets", |_| {}, "tr -s ' ' </proc/self/timens_offsets", "monotonic 1000000 5\nboottime 2000000 0"),
        Row("felt", |_| {}, "read up rest </proc/uptime; test ${up%.*} -ge 2000000 && echo yes", "yes"),
    ]);
}

#[test]
fn a_network_of_its_own_and_a_keyring() {
    let Some(place) = Place::new("ns-net", &[]) else { return };
    place.check(&[
        Row("loopback is up", |_| {}, "cat /sys/class/net/lo/flags", "0x9"),
        Row("nothing else is there", |_| {}, "ls /sys/class/net", "lo"),
    ]);
    let printed = place.prints(|c| c["linux"]["maskedPaths"] = json!([]), "cat /proc/keys");
    if printed.contains("No such file") {
        println!("skipped: the kernel shows no keys");
    } else {
        assert!(printed.contains(&format!("_ses.{}", place.id)), "{printed}");
    }
}

#[test]
fn all_processes_end_where_the_pid_namespace_is_the_host_s() {
    let Some(place) = Place::new("ns-pid", &["/bin/sh", "-c", "sleep 4711 & sleep 4712 & exec sleep 4713"]) else {
        return;
    };
    place.edit(|c| c["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid"));
    let pids =
        || -> Vec<u32> { serde_json::from_slice(&place.output(&["ps", "-f", "json"], &[]).stdout).unwrap_or_default() };
    for end in ["kill", "delete"] {
        place.ok(&["run", "--detach"], &[]);
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while pids().len() < 3 {
            assert!(std::time::Instant::now() < limit, "{:?}", pids());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let all = pids();
        match end {
            "kill" => place.ok(&["kill"], &["KILL"]),
            _ => place.ok(&["delete", "--force"], &[]),
        }
        let alive = |pid: &u32| {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.contains("(sleep)") && !state.contains(") Z ")
        };
        while all.iter().any(alive) {
            assert!(std::time::Instant::now() < limit, "{end}: {all:?}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        place.ok(&["delete", "--force"], &[]);
        place.assert_nothing_left();
    }
}

#[test]
fn kernel_parameters_of_its_namespaces() {
    let Some(place) = Place::new("ns-sysctl", &[]) else { return };
    place.check(&[
        Row(
            "all kinds",
            |c| {
                c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "net/ipv4/ip_default_ttl": "33",
                    "kernel.msgmax": "9000", "kernel.sem": "250 32000 100 128", "kernel/domainname": "forest",
                    "fs.mqueue.msg_max": "20", "net.ipv4.ping_group_range": "0 7"});
            },
            "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ip_default_ttl kernel/msgmax kernel/domainname fs/mqueue/msg_max; tr '\t' ' ' <kernel/sem",
            "1\n33\n9000\nforest\n20\n250 32000 100 128",
        ),
        Row("the host's are as before", |_| {}, "cat /proc/sys/kernel/domainname", "(none)"),
    ]);
    for (key, value, words) in [
        ("kernel.core_pattern", "|/x", "not in a separate kernel namespace"),
        ("net.ipv4.no_such_parameter", "1", "no_such_parameter"),
        ("net.ipv4.ip_forward", "x", "ip_forward"),
        // CVE-2022-0811: more than one value is no value.
        ("net.ipv4.ip_default_ttl", "64+kernel.core_pattern=|/x", "ip_default_ttl"),
        ("net.ipv4.ip_default_ttl", "x\nkernel.core_pattern=|/x", "ip_default_ttl"),
    ] {
        let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let printed = place.prints(|c| c["linux"]["sysctl"] = json!({key: value}), "echo in");
        assert!(printed.starts_with("status exit status: 1") && printed.contains(words), "{key}: {printed}");
        assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
        place.assert_nothing_left();
    }
}
