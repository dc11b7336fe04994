//! The command against the kernel: what a caller sees of a container from creation to removal.
//!
//! Needs root, and a shell with its libraries below `/usr`, which the containers borrow read-only. Every test has
//! a root directory and names of its own.

#![forbid(unsafe_code)]

mod place;

use place::Place;

use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn a_container_lives_from_create_to_delete() {
    let Some(place) = Place::new("life", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.ok(&["create"], &["--pid-file", "pid"]);
    assert_eq!(place.status(), "created");
    let pid: u32 = fs::read_to_string(place.dir.join("pid")).unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    place.ok(&["start"], &[]);
    assert_eq!(place.status(), "running");
    assert!(place.on(&["start"], &[]).1.contains("cannot start an already running container"));
    assert!(place.on(&["delete"], &[]).1.contains("that is not stopped: running"));
    place.ok(&["pause"], &[]);
    assert_eq!(place.status(), "paused");
    let (status, errors) = place.on(&["exec"], &["/bin/true"]);
    assert!(status == 255 && errors.contains("cannot exec in a paused container"), "{status} {errors}");
    place.ok(&["resume"], &[]);
    place.ok(&["exec"], &["/bin/true"]);
    let pids = place.output(&["ps", "-f", "json"], &[]);
    assert!(String::from_utf8(pids.stdout).unwrap().contains(&pid.to_string()));
    place.ok(&["kill"], &["KILL"]);
    place.wait_for("stopped");
    assert!(place.on(&["kill"], &["0"]).1.contains("container not running"));
    place.ok(&["kill", "--all"], &["0"]);
    place.ok(&["delete"], &[]);
    place.assert_nothing_left();
    assert!(place.on(&["delete"], &[]).1.contains("container does not exist"));
    place.ok(&["delete", "--force"], &[]);
}

#[test]
fn a_caller_may_ignore_what_becomes_of_its_children() {
    let Some(place) = Place::new("ignored", &["/bin/sh", "-c", "exit 7"]) else { return };
    let words = format!("trap '' CHLD; exec {} --root root run {}", place::program().display(), place.id);
    let status = Command::new("sh").args(["-c", &words]).current_dir(&place.dir).status().unwrap();
    assert_eq!(status.code(), Some(7));
    place.assert_nothing_left();
}

#[test]
fn statuses_are_the_process_s() {
    let Some(place) = Place::new("status", &["/bin/sh", "-c", "exit 7"]) else { return };
    assert_eq!(place.on(&["run"], &[]).0, 7);
    place.assert_nothing_left();
    place.edit(|config| config["process"]["args"] = json!(["/bin/sh", "-c", "kill -TERM 1; sleep 100"]));
    let mut foreground = place.start_in_background(&["run", &place.id]);
    place.wait_for("running");
    assert_eq!(place.on(&["exec"], &["/bin/sh", "-c", "exit 5"]).0, 5);
    assert_eq!(place.on(&["exec"], &["/bin/sh", "-c", "kill -9 $$"]).0, 137);
    let (status, errors) = place.on(&["exec"], &["/nope"]);
    assert!(status == 255 && errors.contains("no such file or directory"), "{status} {errors}");
    place.ok(&["kill"], &["9"]);
    assert_eq!(foreground.wait().unwrap().code(), Some(137));
    place.assert_nothing_left();
}

fn wait_for_file(file: &Path) {
    let end = Instant::now() + Duration::from_secs(10);
    while !file.exists() {
        assert!(Instant::now() < end, "{} does not come", file.display());
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn signals_reach_the_process() {
    let script = "trap 'exit 9' TERM; touch /tmp/up; while :; do sleep 0.05; done";
    let Some(place) = Place::new("signals", &["/bin/sh", "-c", script]) else { return };
    place.edit(|config| {
        let up = place.dir.join("up");
        fs::create_dir(&up).unwrap();
        let mount = json!({"destination": "/tmp", "source": up, "type": "none", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let mut foreground = place.start_in_background(&["run", &place.id]);
    wait_for_file(&place.dir.join("up/up"));
    let pid = foreground.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(foreground.wait().unwrap().code(), Some(9));
    place.assert_nothing_left();
}

#[test]
fn one_of_many_creators_wins() {
    let Some(place) = Place::new("creators", &["/bin/sh", "-c", "sleep 100"]) else { return };
    let children: Vec<_> = (0..8)
        .map(|at| {
            let errors = fs::File::create(place.dir.join(format!("errors-{at}"))).unwrap();
            place.command(&["create", &place.id]).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
        })
        .collect();
    let mut winners = 0;
    for (at, mut child) in children.into_iter().enumerate() {
        if child.wait().unwrap().success() {
            winners += 1;
        } else {
            let errors = fs::read_to_string(place.dir.join(format!("errors-{at}"))).unwrap();
            assert!(errors.contains("container with given ID already exists"), "{errors}");
        }
    }
    assert_eq!((winners, place.status().as_str()), (1, "created"));
    place.ok(&["delete", "--force"], &[]);
    place.assert_nothing_left();
}

#[test]
fn nothing_is_left_of_a_runtime_that_was_killed() {
    let Some(place) = Place::new("killed", &["/bin/sh", "-c", "sleep 100"]) else { return };
    for step in 0..60u64 {
        let mut creator = place.start_in_background(&["create", &place.id]);
        sleep(Duration::from_micros(step * 400));
        let _ = creator.kill();
        creator.wait().unwrap();
        place.ok(&["delete", "--force"], &[]);
        place.assert_nothing_left();
    }
}

#[test]
fn a_failed_create_leaves_the_cgroups_of_others_alone() {
    let Some(place) = Place::new("foreign", &["/bin/true"]) else { return };
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    let parent = if freezer.exists() { freezer } else { Path::new("/sys/fs/cgroup") };
    let foreign = parent.join(&place.id);
    fs::create_dir(&foreign).unwrap();
    let mut other = Command::new("sleep").arg("100").spawn().unwrap();
    fs::write(foreign.join("cgroup.procs"), other.id().to_string()).unwrap();
    place.edit(|config| config["linux"]["cgroupsPath"] = format!("/{}", place.id).into());
    let (status, errors) = place.on(&["run"], &[]);
    let alive = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(foreign.exists());
    fs::remove_dir(&foreign).unwrap();
    // Where another hierarchy tells which processes there are, the freezer's may be used.
    assert!(alive, "killed by {errors}");
    assert!(status == 0 || errors.contains("cgroup is not empty"), "{errors}");
}

#[test]
fn a_broken_bundle_is_told_and_leaves_nothing() {
    let Some(place) = Place::new("broken", &["/bin/true"]) else { return };
    place.edit(|config| {
        config["process"]["cwd"] = "x".into();
        config["linux"]["namespaces"][0]["type"] = "nope".into();
    });
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("Cwd must be an absolute path") && errors.contains("nope"), "{errors}");
    place.assert_nothing_left();
    fs::remove_file(place.dir.join("config.json")).unwrap();
    assert!(place.on(&["run"], &[]).1.contains("JSON specification file config.json not found"));
    place.assert_nothing_left();
}

/// What stands in for systemd knows its own signal from one that would not stop it.
#[test]
fn a_whole_system_in_the_foreground_is_told_to_stop_in_its_own_way() {
    let Some(place) = Place::new("stop", &["/sbin/systemd"]) else { return };
    place.edit(|config| {
        config["annotations"] = json!({"org.offshoot.system": "auto"});
        config["root"]["readonly"] = false.into();
        config["linux"]["cgroupsPath"] = format!("/{}", place.id).into();
    });
    let init = place.dir.join("rootfs/sbin/systemd");
    fs::create_dir(init.parent().unwrap()).unwrap();
    fs::write(&init, "#!/bin/sh\ntrap 'exit 8' TERM; trap 'exit 9' 37; touch /up; while :; do sleep 0.05; done")
        .unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = place.start_in_background(&["run", &place.id]);
    wait_for_file(&place.dir.join("rootfs/up"));
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(9));
    place.assert_nothing_left();
}

/// What stands in for runit: stage 1 ends when `init 0` has been called, and stage 2 is over when its process is.
#[test]
fn runit_is_asked_until_it_listens_and_then_told_by_the_end_of_stage_2() {
    let Some(place) = Place::new("runit", &["/sbin/runit-init"]) else { return };
    place.edit(|config| {
        config["annotations"] = json!({"org.offshoot.system": "auto"});
        config["root"]["readonly"] = false.into();
        config["linux"]["cgroupsPath"] = format!("/{}", place.id).into();
    });
    let root = place.dir.join("rootfs");
    fs::create_dir(root.join("sbin")).unwrap();
    for (name, text) in [
        ("runit-init", "until [ -e /asked ]; do sleep 0.05; done; /sbin/runsvdir & wait $!; exit 42"),
        ("runsvdir", "touch /up; while :; do sleep 1000; done"),
        ("init", "[ \"$1\" = 0 ] && touch /asked"),
    ] {
        fs::write(root.join("sbin").join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(root.join("sbin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut run = place.start_in_background(&["run", &place.id]);
    place.wait_for("running");
    place.ok(&["kill"], &["TERM"]);
    wait_for_file(&root.join("up"));
    place.ok(&["kill"], &["TERM"]);
    assert_eq!(run.wait().unwrap().code(), Some(42));
    place.assert_nothing_left();
}
