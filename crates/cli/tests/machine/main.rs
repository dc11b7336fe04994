//! Machines against the kernel: whole systems with busybox as init. Each test has a store and a root directory of its own.

#![forbid(unsafe_code)]

#[path = "../farm/mod.rs"]
mod farm;
#[path = "../tty/mod.rs"]
mod tty;

mod console;
mod many;
mod network;
mod watched;

use farm::{Farm, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_machine_lives_from_launch_to_removal() {
    let Some(farm) = Farm::new("life") else { return };
    let name = farm.name("a");
    assert!(farm.ok(&["machine", "launch", "box", &name, "--pids", "100"]).starts_with("1 machine started in"));
    farm.fails(&["machine", "launch", "box", &name], "already");
    let shown = farm.wait(&name, |shown| shown["processes"].as_u64().unwrap() >= 2);
    assert_eq!((&shown["state"], &shown["limits"]["pids"]), (&"running".into(), &100.into()));
    assert!(shown["pid"].as_i64().unwrap() > 0, "{shown}");
    assert!(farm.ok(&["machine", "list"]).contains(&name));
    assert_eq!(farm.ok(&["machine", "exec", &name, "hostname"]).trim(), name);
    assert_eq!(farm.run(&["machine", "exec", &name, "sh", "-c", "exit 7"]).status.code(), Some(7));
    let maps = farm.ok(&["machine", "exec", &name, "cat", "/proc/self/uid_map"]);
    let first: u32 = maps.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(maps.split_whitespace().next() == Some("0") && first > 0, "{maps}");

    // Limits change at once and stay.
    farm.ok(&["machine", "set", &name, "--memory", "64M", "--order", "3"]);
    let pid = shown["pid"].as_i64().unwrap();
    let limit = cgroup_file(pid, "memory", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(limit.trim(), "67108864");
    farm.fails(&["machine", "set", &name, "--shares", "1"], "2 to 262144");
    farm.ok(&["machine", "exec", &name, "touch", "/kept"]);
    farm.fails(&["machine", "rm", &name], "is running");
    farm.fails(&["machine", "rollback", &name, "s"], "it is running");

    assert!(farm.ok(&["machine", "stop", &name]).starts_with("1 machine stopped in"));
    assert_eq!(farm.show(&name)["state"], "stopped");
    assert!(farm.ok(&["machine", "logs", &name]).contains("bye"));
    farm.fails(&["machine", "exec", &name, "true"], "does not run");
    // Whose it is removes it.
    farm.fails(&["clone", "rm", &name], "is the file system of machine");
    farm.fails(&["clone", "rollback", &name, "s"], "is the file system of machine");
    for snapshot in ["s", "t"] {
        farm.ok(&["machine", "snapshot", &name, snapshot]);
    }
    assert_eq!(farm.show(&name)["snapshots"], serde_json::json!(["s", "t"]));
    farm.ok(&["machine", "forget", &name, "t"]);
    farm.fails(&["machine", "rollback", &name, "t"], "t");
    assert_eq!(farm.show(&name)["snapshots"], serde_json::json!(["s"]));
    farm.fails(&["machine", "set", &name], "no option says what to change");
    farm.ok(&["machine", "start", &name]);
    farm.fails(&["machine", "start", &name], "is running");
    let shown = farm.show(&name);
    assert_eq!((&shown["limits"]["memory"], &shown["order"]), (&(64 << 20).into(), &3.into()));
    farm.ok(&["machine", "exec", &name, "cat", "/kept"]);
    farm.ok(&["machine", "exec", &name, "touch", "/lost"]);
    farm.ok(&["machine", "stop", &name, "--force"]);
    farm.ok(&["machine", "rollback", &name, "s"]);

    // What a machine has become is an image for others.
    let other = farm.name("b");
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    farm.ok(&["machine", "exec", &other, "cat", "/kept"]);
    assert!(!farm.run(&["machine", "exec", &other, "cat", "/lost"]).status.success());
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    farm.assert_nothing_left();
}

/// A file of the cgroup that a process is in, of one controller.
fn cgroup_file(pid: i64, controller: &str, names: &[&str]) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |line: &str, wanted: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers == wanted).then(|| path.trim_start_matches('/').to_owned())
    };
    let v1 = all
        .lines()
        .find_map(|line| of(line, controller))
        .map(|path| Path::new("/sys/fs/cgroup").join(controller).join(path));
    let v2 = all.lines().find_map(|line| of(line, "")).map(|path| Path::new("/sys/fs/cgroup").join(path));
    // The guest's init is below what it was given.
    let dirs = v1.iter().chain(&v2).flat_map(|path| path.ancestors());
    let mut files = dirs.flat_map(|dir| names.iter().map(|name| dir.join(name)));
    let text = files.find_map(|file| fs::read_to_string(file).ok().filter(|text| text.trim() != "max"));
    text.expect("no such file in the cgroup")
}

#[test]
fn a_snapshot_of_a_running_machine_is_of_one_moment() {
    let Some(farm) = Farm::new("moment") else { return };
    let (name, other) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &name]);
    let sh = |name: &str, script: &str| farm.ok(&["machine", "exec", name, "sh", "-c", script]);
    // A whiteout, and a directory that hides the image's.
    sh(&name, "echo one > /kept; busybox rm /bin/nc; busybox rm -r /root; busybox mkdir /root; touch /root/new");
    // Nothing is written between two numbers of the one that counts.
    sh(
        &name,
        "(i=0; while true; do i=$((i+1)); echo $i > /first; echo $i > /second; done) </dev/null >/dev/null 2>&1 &",
    );
    sleep(Duration::from_millis(300));
    farm.ok(&["machine", "snapshot", &name, "s"]);
    farm.fails(&["machine", "snapshot", &name, "s"], "exists already");
    assert_eq!(farm.show(&name)["state"], "running");
    let then: u64 = sh(&name, "cat /first").trim().parse().unwrap_or(0);
    sleep(Duration::from_millis(300));
    assert!(sh(&name, "cat /first").trim().parse::<u64>().unwrap_or(u64::MAX) > then, "it stands still");
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    assert_eq!(sh(&other, "cat /kept; ls /root 2>/dev/null || busybox ls /root"), "one\nnew\n");
    assert!(!farm.run(&["machine", "exec", &other, "busybox", "test", "-e", "/bin/nc"]).status.success());

    sh(&name, "echo two > /kept; echo > /bin/nc");
    farm.ok(&["machine", "stop", &name]);
    farm.ok(&["machine", "rollback", &name, "s"]);
    farm.ok(&["machine", "start", &name]);
    assert_eq!(sh(&name, "cat /kept; busybox ls /root"), "one\nnew\n");
    assert!(!farm.run(&["machine", "exec", &name, "busybox", "test", "-e", "/bin/nc"]).status.success());
    let number = |file: &str| sh(&name, &format!("cat {file}")).trim().parse::<u64>().unwrap_or(0);
    let (first, second) = (number("/first"), number("/second"));
    // Empty while the shell has it open.
    assert!(first == 0 || second == 0 || first == second || first == second + 1, "{first} {second}");
    assert!(first + second > 0);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

#[test]
fn volumes_belong_to_whom_they_belong_to_on_the_host() {
    let Some(farm) = Farm::new("volumes") else { return };
    let (name, other, shared, fixed) =
        (farm.name("a"), farm.name("b"), farm.dir.join("shared"), farm.dir.join("fixed"));
    for dir in [&shared, &fixed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("old"), "of the host\n").unwrap();
    }
    std::os::unix::fs::chown(fixed.join("old"), Some(1000), Some(1000)).unwrap();
    let (writable, readable) =
        (format!("{}:/srv/shared", shared.display()), format!("{}:/srv/fixed:ro", fixed.display()));
    for (bad, why) in
        [("/nowhere:/srv", "No such file"), ("/etc:/", "a path below /"), ("/etc", "it is SOURCE:DESTINATION")]
    {
        farm.fails(&["machine", "launch", "box", &name, "--volume", bad], why);
        farm.fails(&["machine", "show", &name], "there is no machine");
    }
    farm.ok(&["machine", "launch", "box", &name, "-v", &writable, "-v", &readable]);
    let sh = |name: &str, script: &str| farm.run(&["machine", "exec", name, "busybox", "sh", "-c", script]);
    let said =
        text(&sh(&name, "cat /srv/shared/old && echo new > /srv/shared/new && busybox stat -c %u:%g /srv/fixed/old"));
    assert_eq!(said, "of the host\n1000:1000\n");
    let new = fs::metadata(shared.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
    for refused in ["echo > /srv/fixed/old", "busybox umount /srv/fixed", "busybox mount -o remount,rw /srv/fixed"] {
        assert!(!sh(&name, refused).status.success(), "{refused}");
    }
    // Neither in a snapshot nor gone with the machine, and a clone has them, too.
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    assert_eq!(text(&sh(&other, "cat /srv/shared/new")), "new\n");
    assert_eq!(farm.show(&other)["volumes"][1]["readOnly"], true);
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    assert!(shared.join("new").exists());
    farm.assert_nothing_left();
}

/// The definition of a machine, changed as by hand.
fn edit(farm: &Farm, name: &str, change: impl FnOnce(&mut Value)) {
    let file = farm.dir.join("store/machines").join(name).join("machine.json");
    let mut machine: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut machine);
    // Editors need longer than the kernel's clock of files ticks.
    sleep(Duration::from_millis(20));
    fs::write(&file, machine.to_string()).unwrap();
}

#[test]
fn a_definition_that_was_changed_by_hand_is_what_starts() {
    let Some(farm) = Farm::new("edit") else { return };
    let (name, other) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &name, &other, "--no-start", "--autostart"]);
    edit(&farm, &name, |machine| {
        machine["limits"]["memory"] = (48 << 20).into();
        machine["env"] = serde_json::json!(["WHO=me"]);
    });
    farm.ok(&["machine", "start", &name]);
    let pid = farm.show(&name)["pid"].as_i64().unwrap();
    assert_eq!(cgroup_file(pid, "memory", &["memory.limit_in_bytes", "memory.max"]).trim(), "50331648");
    assert!(farm.ok(&["machine", "exec", &name, "cat", "/proc/1/environ"]).contains("WHO=me"));
    farm.ok(&["machine", "stop", "--force", &name]);
    for (wrong, says) in [("memroy", "unknown field `memroy`"), ("pids", "it is 1 to")] {
        edit(&farm, &name, |machine| machine["limits"][wrong] = 0.into());
        farm.fails(&["machine", "start", &name], says);
        edit(&farm, &name, |machine| drop(machine["limits"].as_object_mut().unwrap().remove(wrong)));
    }
    let volume = |more: Value| {
        let mut volume = serde_json::json!({"source": "/etc", "destination": "/srv"});
        volume.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::json!([volume])
    };
    for (wrong, says) in [
        (serde_json::json!({"readonly": true}), "unknown field `readonly`"),
        (serde_json::json!({"destination": "/"}), "a path below /"),
        (serde_json::json!({"source": "/nowhere/at/all"}), "No such file"),
    ] {
        edit(&farm, &name, |machine| machine["volumes"] = volume(wrong));
        farm.fails(&["machine", "start", &name], says);
    }
    edit(&farm, &name, |machine| drop(machine.as_object_mut().unwrap().remove("volumes")));
    // A copy is not another machine.
    let (from, to) =
        (farm.dir.join("store/machines").join(&name), farm.dir.join("store/machines").join(farm.name("copy")));
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("machine.json"), to.join("machine.json")).unwrap();
    farm.fails(&["machine", "start", &farm.name("copy")], "it is of machine");
    fs::remove_dir_all(&to).unwrap();

    // One that cannot be read keeps no other from anything, and can be stopped and removed.
    farm.ok(&["machine", "start", &name]);
    fs::write(from.join("machine.json"), "{").unwrap();
    let supervisor = farm.supervisor();
    farm.kill(supervisor);
    farm.until("no other supervisor", || farm.supervisors(false).iter().any(|pid| *pid != supervisor));
    let started = farm.run(&["machine", "start", "--autostart"]);
    assert!(
        !started.status.success() && text(&started).contains(&format!("{name}: failed to read")),
        "{}",
        text(&started)
    );
    assert_eq!(farm.show(&other)["state"], "running");
    assert!(farm.ok(&["machine", "list"]).contains(&other));
    assert!(text(&farm.run(&["machine", "show", "--all"])).contains(&other));
    farm.ok(&["machine", "stop", "--force", &name]);
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    farm.assert_nothing_left();
}
