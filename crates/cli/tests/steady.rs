//! Machines go on whatever becomes of the processes around them.

#![forbid(unsafe_code)]

mod farm;

use farm::Farm;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whether the processes of a machine stand still, from the kernel: a command would let them go on.
fn stands_still(pid: i64) -> bool {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    own.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok()).any(
        |[_, name, path]: [&str; 3]| {
            let read = |file: String| fs::read_to_string(file).unwrap_or_default();
            match name {
                "" => read(format!("/sys/fs/cgroup{path}/cgroup.freeze")).trim() == "1",
                "freezer" => read(format!("/sys/fs/cgroup/freezer{path}/freezer.state")).trim() != "THAWED",
                _ => false,
            }
        },
    )
}

/// The children of a process, by their names.
fn children(pid: u32) -> Vec<(u32, String)> {
    let all = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    all.split_whitespace().filter_map(|pid| pid.parse().ok()).map(|pid| (pid, name(pid))).collect()
}

#[test]
fn a_snapshot_that_is_killed_leaves_no_machine_standing() {
    let Some(farm) = Farm::new("stands") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    let pid = farm.show(&name)["pid"].as_i64().unwrap();
    // It takes a while to copy, where it is copied.
    farm.ok(&["machine", "exec", &name, "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=400"]);
    let record = farm.dir.join(format!("root.machines/{name}.still"));
    for (round, with) in ["the command", "the command and who would thaw it", "nobody"].into_iter().enumerate() {
        let snapshot = format!("s{round}");
        let mut command = farm.command(&["machine", "snapshot", &name, &snapshot]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !stands_still(pid) {
            if child.try_wait().unwrap().is_some() {
                println!("skipped: the file system takes a snapshot in no time");
                return;
            }
            assert!(Instant::now() < end, "it does not stand still");
        }
        // Beside it is one that writes to disk.
        let guard = || children(child.id()).into_iter().find(|(_, name)| name == "offshoot-thaw");
        farm.until("nobody would thaw it", || guard().is_some());
        if with.contains("who") {
            assert!(Command::new("kill").args(["-9", &guard().unwrap().0.to_string()]).status().unwrap().success());
        }
        if with != "nobody" {
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap();
        match with {
            "the command" => farm.until("it stands still", || !stands_still(pid)),
            "nobody" => assert!(ended.success() && !stands_still(pid)),
            _ => {
                sleep(Duration::from_millis(300));
                assert!(stands_still(pid) && record.exists(), "the test shows nothing");
                // Whatever is asked for next.
                farm.ok(&["machine", "list"]);
                assert!(!stands_still(pid) && !record.exists());
            }
        }
        assert_eq!(farm.show(&name)["state"], "running", "{with}");
        assert_eq!(farm.ok(&["machine", "exec", &name, "echo", "here"]), "here\n");
    }
    farm.until("the record stays", || !record.exists());
    // Of those that were killed nothing is there, and their names are free.
    farm.ok(&["machine", "snapshot", &name, "s0"]);
    // One that was paused stays so.
    farm.ok(&["pause", &name]);
    farm.ok(&["machine", "snapshot", &name, "s3"]);
    assert!(stands_still(pid));
    farm.ok(&["resume", &name]);
    assert_eq!(farm.show(&name)["error"], Value::Null);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

/// The process that a process is the child of.
fn parent(pid: i64) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}

/// Only a parent is told how its child ended: so it has to be one that no supervisor's end concerns.
#[test]
fn a_machine_reboots_in_place_whichever_supervisor_it_was_started_under() {
    let Some(farm) = Farm::new("inplace") else { return };
    let (one, two) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &one]);
    let keeper = || match farm.supervisors(true)[..] {
        [keeper] => keeper,
        ref other => panic!("{other:?}"),
    };
    let pid = |name: &str| farm.show(name)["pid"].as_i64().unwrap_or(0);
    if fs::metadata("/run/systemd/system").is_ok() {
        // Not in the cgroup of whatever started it, which systemd may end.
        let cgroup = || fs::read_to_string(format!("/proc/{}/cgroup", keeper())).unwrap();
        farm.until("it is not apart", || cgroup().contains(&format!("/offshoot/.keeper-{}", keeper())));
    }
    // The keeper is killed: then it is the supervisor's, whose child that was, and the next start another keeper's.
    let (first, before) = (keeper(), pid(&one));
    // Whoever started it may not have ended yet.
    farm.until("its parent is not the keeper", || parent(before) == first);
    farm.kill(first);
    farm.until("no other keeper", || farm.supervisors(true).iter().any(|pid| *pid != first));
    assert_eq!(parent(before), farm.supervisor());
    farm.run(&["machine", "exec", &one, "/sbin/reboot"]);
    let keeper = keeper();
    let reboots = |name: &str, before: i64| {
        farm.wait(name, |shown| shown["state"] == "running" && shown["pid"].as_i64() != Some(before));
        farm.until("its parent is not the keeper", || parent(pid(name)) == keeper);
    };
    reboots(&one, before);
    let another = |supervisor: u32| {
        farm.until("no other supervisor", || farm.supervisors(false).iter().any(|pid| *pid != supervisor));
        let socket = farm.dir.join("root.machines/supervisor.sock");
        farm.until("no socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    };
    // The supervisor is killed, and comes back.
    let (supervisor, before) = (farm.supervisor(), pid(&one));
    farm.kill(supervisor);
    another(supervisor);
    assert_eq!(parent(before), keeper);
    farm.run(&["machine", "exec", &one, "/sbin/reboot"]);
    reboots(&one, before);
    farm.types(&one, "echo $((4+4))-reborn\n", "8-reborn");

    // The machine reboots while there is none.
    let (supervisor, before) = (farm.supervisor(), pid(&one));
    let mut reboot = farm.command(&["machine", "exec", &one, "/sbin/reboot"]).stderr(Stdio::null()).spawn().unwrap();
    farm.kill(supervisor);
    reboot.wait().unwrap();
    reboots(&one, before);

    // It was told to end, and another command starts it.
    let supervisor = farm.supervisor();
    assert!(Command::new("kill").arg(supervisor.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    farm.ok(&["machine", "launch", "box", &two]);
    for name in [&one, &two] {
        let before = pid(name);
        farm.run(&["machine", "exec", name, "/sbin/reboot"]);
        reboots(name, before);
    }
    farm.run(&["machine", "exec", &two, "/sbin/poweroff"]);
    farm.wait(&two, |shown| shown["state"] == "stopped" && shown["last"]["how"] == "powered off");
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.until("the keeper stays", || farm.supervisors(true).is_empty());
    farm.assert_nothing_left();
}

/// Whenever it is killed, there are all of its machines or none, with their clones.
#[test]
fn a_launch_that_is_killed_has_made_all_of_its_machines_or_none() {
    let Some(farm) = Farm::new("killed") else { return };
    let many = 64;
    let (template, first) = (farm.name("{}"), farm.name("1"));
    let launch = ["machine", "launch", "box", "--no-start", "--count", &many.to_string(), "--name", &template];
    let store = farm.dir.join("store");
    let signs = ["machines.making", &format!("machines/.{first}"), &format!("machines/{first}")];
    for (round, sign) in signs.into_iter().enumerate() {
        let mut command = farm.command(&launch);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !store.join(sign).exists() {
            assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "there was no {sign}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let listed = farm.ok(&["machine", "list", "--quiet"]).lines().count();
        let clones = fs::read_dir(store.join("clones")).unwrap().count();
        assert!(listed == 0 || listed == many, "{sign}: {listed} of {many}");
        assert!(round < 2 || listed == many, "{sign}: those that were there are gone");
        assert_eq!(clones, listed, "{sign}");
        if listed == 0 {
            farm.ok(&launch);
        }
        farm.ok(&["machine", "rm", "--all"]);
        farm.assert_nothing_left();
    }
}
