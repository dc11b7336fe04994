//! `process`: identity, rights, limits and scheduling. spec: config.md#process

use crate::place::{self, Place, Row};
use serde_json::json;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn identity_and_surroundings() {
    let Some(place) = Place::new("identity", &[]) else { return };
    place.check(&[
        Row(
            "user",
            |c| c["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 5]}),
            "id -u; id -g; grep Groups /proc/self/status",
            "1000\n1001\nGroups:\t5 7",
        ),
        Row("no groups of the caller", |_| {}, "grep Groups /proc/self/status | tr -d ' \t'", "Groups:"),
        Row("umask", |c| c["process"]["user"]["umask"] = 0o077.into(), "umask", "0077"),
        Row("umask by default", |_| {}, "umask", "0022"),
        Row("cwd", |c| c["process"]["cwd"] = "/usr/bin".into(), "pwd -P", "/usr/bin"),
        Row(
            "a missing cwd is made",
            |c| c["process"]["cwd"] = "/made/here".into(),
            "pwd -P; stat -c %a .",
            "/made/here\n755",
        ),
        Row(
            "env",
            |c| c["process"]["env"] = json!(["A=1", "B=2\n3", "PATH=/bin", "A=4"]),
            "env -u PWD | sort",
            "3\nA=4\nB=2\nHOME=/\nPATH=/bin",
        ),
        Row("an empty HOME is filled", |c| c["process"]["env"] = json!(["PATH=/bin", "HOME="]), "echo $HOME", "/"),
        Row("hostname", |c| c["hostname"] = "leaf".into(), "cat /proc/sys/kernel/hostname", "leaf"),
        Row("domainname", |c| c["domainname"] = "tree".into(), "cat /proc/sys/kernel/domainname", "tree"),
        Row(
            "personality",
            |c| c["linux"]["personality"] = json!({"domain": "LINUX32"}),
            "cat /proc/self/personality",
            "00000008",
        ),
        Row("session", |_| {}, "set -- $(cat /proc/1/stat); echo $1 $5 $6", "1 1 1"),
        Row(
            "descriptors",
            |_| {},
            "echo /proc/self/fd/*",
            "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3",
        ),
    ]);
}

#[test]
fn a_home_is_looked_up_and_a_name_is_not() {
    let Some(place) = Place::new("home", &[]) else { return };
    fs::create_dir(place.dir.join("rootfs/etc")).unwrap();
    // CVE-2016-3697: a user whose name is a number is not that number.
    fs::write(place.dir.join("rootfs/etc/passwd"), "1000:x:0:0::/wrong:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n")
        .unwrap();
    let script = "id -u; echo $HOME";
    assert_eq!(place.prints(|c| c["process"]["user"]["uid"] = 1000.into(), script), "1000\n/home/u");
    assert_eq!(place.prints(|c| c["process"]["user"]["uid"] = 1001.into(), script), "1001\n/");
}

/// Bits: CHOWN 1, KILL 0x20, SETUID 0x80.
#[test]
fn capability_sets() {
    const SHOW: &str = "grep Cap /proc/self/status | cut -f2 | sed 's/^0*//' | tr '\n' ' '";
    let Some(place) = Place::new("sets", &[]) else { return };
    place.check(&[
        Row(
            "all five",
            |c| {
                c["process"]["user"]["uid"] = 1000.into();
                c["process"]["capabilities"] = json!({
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"], "permitted": ["CAP_KILL", "CAP_SETUID"],
                    "effective": ["CAP_SETUID"], "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL"]});
            },
            // The program is no root's and has no file capabilities: it keeps the ambient ones.
            SHOW,
            "21 20 20 a1 20",
        ),
        Row(
            "root",
            |c| {
                c["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_KILL"]})
            },
            SHOW,
            // no_new_privs keeps root from taking the rest of the bounding set at execve(2).
            " 20 20 21",
        ),
        Row("none", |c| c["process"]["capabilities"] = json!({}), SHOW, ""),
    ]);
    let printed = place.prints(|c| c["process"]["capabilities"] = json!({"bounding": ["CAP_NEXT", "CAP_KILL"]}), SHOW);
    assert!(printed.starts_with("   20") && printed.contains("capabilities: [CAP_NEXT]"), "{printed}");
    // Without the block, root has what the caller has.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapBnd")).unwrap().to_owned();
    let printed = place
        .prints(|c| _ = c["process"].as_object_mut().unwrap().remove("capabilities"), "grep CapBnd /proc/self/status");
    assert_eq!(printed, own);
}

#[test]
fn limits_and_scheduling() {
    let Some(place) = Place::new("limits", &[]) else { return };
    place.check(&[
        Row(
            "rlimits",
            |c| {
                c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_STACK", "soft": 4194304, "hard": 8388608}]);
            },
            "ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -Ss; ulimit -Hs",
            "100\n200\n0\n4096\n8192",
        ),
        Row("no_new_privs", |c| c["process"]["noNewPrivileges"] = true.into(), "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        Row("new privs", |c| c["process"]["noNewPrivileges"] = false.into(), "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0"),
        Row("oomScoreAdj", |c| c["process"]["oomScoreAdj"] = 500.into(), "cat /proc/self/oom_score_adj", "500"),
        Row(
            "batch",
            |c| c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7}),
            "set -- $(cat /proc/self/stat); echo ${41} ${19}",
            "3 7",
        ),
        Row("idle", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_IDLE"}), "set -- $(cat /proc/self/stat); echo ${41}", "5"),
        Row(
            "reset on fork",
            |c| c["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "set -- $(cat /proc/1/stat); echo ${19}; set -- $(cat /proc/self/stat); echo ${19}",
            "-5\n0",
        ),
        Row("io", |c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6}), "ionice", "best-effort: prio 6"),
        Row("io idle", |c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}), "ionice", "idle"),
    ]);
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(
        place.prints(
            |c| _ = c["process"].as_object_mut().unwrap().remove("oomScoreAdj"),
            "cat /proc/self/oom_score_adj"
        ),
        own.trim()
    );
}

#[test]
fn memory_policy() {
    if !fs::exists("/proc/self/numa_maps").unwrap() {
        println!("skipped: the kernel has no NUMA");
        return;
    }
    let Some(place) = Place::new("numa", &[]) else { return };
    const SHOW: &str = "head -n1 /proc/self/numa_maps | cut -d' ' -f2";
    place.check(&[
        Row("bind", |c| c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"}), SHOW, "bind:0"),
        Row(
            "flags",
            |c| {
                c["linux"]["memoryPolicy"] =
                    json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]})
            },
            SHOW,
            "interleave=static:0",
        ),
        Row("local", |c| c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL"}), SHOW, "local"),
        Row("none", |_| {}, SHOW, "default"),
    ]);
}

#[test]
fn exec_gets_what_its_process_says() {
    let Some(place) = Place::new("exec", &["/bin/sleep", "100"]) else { return };
    place.edit(|c| {
        c["hostname"] = "stem".into();
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]);
    });
    place.ok(&["run", "--detach"], &[]);
    let exec = |options: &[&str], script: &str| {
        let output = place.output(&[&["exec"], options].concat(), &["/bin/sh", "-c", script]);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
            .trim_end()
            .to_owned()
    };
    assert_eq!(exec(&[], "ulimit -Sn; ulimit -Hn; id -u; pwd; cat /proc/sys/kernel/hostname"), "64\n128\n0\n/\nstem");
    assert_eq!(
        exec(
            &["--user", "7:8", "-g", "9", "-g", "10", "--cwd", "/usr"],
            "id -u; id -g; grep Groups /proc/self/status; pwd"
        ),
        "7\n8\nGroups:\t9 10 \n/usr"
    );
    assert_eq!(exec(&["--env", "X=1", "--env", "X=2"], "echo $X"), "2");
    assert_eq!(exec(&["--no-new-privs"], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1");
    assert_eq!(exec(&["--cap", "CAP_SYS_TIME"], "grep CapPrm /proc/self/status"), "CapPrm:\t0000000022000420");
    // All namespaces and the cgroups are init's.
    let namespaces = "for kind in cgroup ipc mnt net pid uts; do readlink /proc/$1/ns/$kind; done; cat /proc/$1/cgroup";
    let (of_init, of_exec) = (format!("set -- 1; {namespaces}"), format!("set -- self; {namespaces}"));
    assert_eq!(exec(&["--cap", "CAP_SYS_PTRACE"], &of_init), exec(&[], &of_exec));

    let process = json!({"args": ["/bin/sh", "-c", "id -u; echo $Y; pwd; umask; ulimit -n; set -- $(cat /proc/self/stat); echo ${19} ${41}; grep CapEff /proc/self/status; cat /proc/self/oom_score_adj"],
        "cwd": "/usr/lib", "env": ["PATH=/bin", "Y=z"], "user": {"uid": 3, "gid": 4, "umask": 0o27},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 33}], "oomScoreAdj": 700,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}});
    fs::write(place.dir.join("process.json"), process.to_string()).unwrap();
    let output = place.output(&["exec", "--process", "process.json"], &[]);
    assert_eq!(
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        "3\nz\n/usr/lib\n0027\n32\n3 3\nCapEff:\t0000000000000020\n700\n"
    );
    place.ok(&["exec", "--detach", "--pid-file", "exec.pid"], &["/bin/sleep", "50"]);
    let pid = fs::read_to_string(place.dir.join("exec.pid")).unwrap();
    // The kernel closes descriptors, by which the command knows of the execution, before it shows the new words.
    let words = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !words().contains("sleep\x0050") {
        assert!(Instant::now() < end, "{:?}", words());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn exec_runs_on_its_processors() {
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned();
    let Some(last) = all.rsplit([',', '-']).next().filter(|last| *last != all) else {
        println!("skipped: one processor");
        return;
    };
    let Some(place) = Place::new("cpus", &["/bin/sleep", "100"]) else { return };
    place.edit(|c| c["process"]["execCPUAffinity"] = json!({"initial": all, "final": last}));
    place.ok(&["run", "--detach"], &[]);
    let output = place.output(&["exec"], &["/bin/grep", "Cpus_allowed_list", "/proc/self/status", "/proc/1/status"]);
    let expected = format!("/proc/self/status:Cpus_allowed_list:\t{last}\n/proc/1/status:Cpus_allowed_list:\t{all}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    // The mask of the one who calls reaches neither.
    place.ok(&["delete", "--force"], &[]);
    let script = format!("exec taskset -c {last} {} --root root run {}", place::program().display(), place.id);
    place.edit(|c| c["process"]["args"] = json!(["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]));
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(&place.dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("Cpus_allowed_list:\t{all}\n"));
}

/// spec: runtime.md#lifecycle: what is changed after `create` has no effect.
#[test]
fn the_configuration_is_that_of_create() {
    let Some(place) = Place::new("kept", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.edit(|c| c["process"]["env"] = json!(["PATH=/bin:/usr/bin", "WHEN=then"]));
    place.ok(&["create"], &["--pid-file", "pid"]);
    place.edit(|c| {
        c["process"]["args"] = json!(["/bin/false"]);
        c["process"]["env"] = json!(["PATH=/bin", "WHEN=now"]);
        c["process"]["user"]["uid"] = 77.into();
    });
    place.ok(&["start"], &[]);
    place.wait_for("running");
    let pid = fs::read_to_string(place.dir.join("pid")).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !fs::read_to_string(format!("/proc/{pid}/environ")).unwrap().contains("WHEN=then") {
        assert!(std::time::Instant::now() < end);
    }
    let output = place.output(&["exec"], &["/bin/sh", "-c", "echo $WHEN; id -u"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "then\n0\n", "{output:?}");
}

#[test]
fn a_container_without_a_process_ends_when_it_is_started() {
    let Some(place) = Place::new("no-process", &[]) else { return };
    place.edit(|c| _ = c.as_object_mut().unwrap().remove("process"));
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("without a process"), "{errors}");
    place.ok(&["create"], &[]);
    assert_eq!(place.status(), "created");
    let (status, errors) = place.on(&["start"], &[]);
    assert!(
        status == 0 && errors.contains("level=warning") && errors.contains("config.json has no process"),
        "{errors}"
    );
    place.wait_for("stopped");
    place.ok(&["delete"], &[]);
    place.assert_nothing_left();
}
