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
        let mut guards = children(child.id());
        while guards.first().is_some_and(|(_, name)| name != "offshoot-thaw") {
            guards = children(child.id());
        }
        assert_eq!(guards.len(), 1, "{guards:?}");
        if with.contains("who") {
            assert!(Command::new("kill").args(["-9", &guards[0].0.to_string()]).status().unwrap().success());
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
