//! The command against the kernel: what a caller sees of a container from creation to removal.
//!
//! Needs root, and a shell with its libraries below `/usr`, which the containers borrow read-only. Every test has
//! a root directory and names of its own.

#![forbid(unsafe_code)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_offshoot");

/// A bundle and a root directory for one test.
struct Place {
    dir: PathBuf,
    id: String,
}

impl Place {
    /// `None`, with a word why, where there are no rights.
    fn new(name: &str, args: &[&str]) -> Option<Place> {
        if fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).ok() != Some(0) {
            println!("skipped: needs root");
            return None;
        }
        let id = format!("offshoot-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(dir.join("rootfs")).unwrap();
        let place = Place { dir, id };
        assert!(place.command(&["spec", "--bundle", place.dir.to_str().unwrap()]).status().unwrap().success());
        place.edit(|config| {
            config["process"]["terminal"] = false.into();
            config["process"]["args"] = json!(args);
            for path in ["/bin", "/lib", "/lib64", "/usr"].into_iter().filter(|path| Path::new(path).exists()) {
                let mount = json!({"destination": path, "source": path, "type": "none", "options": ["rbind", "ro"]});
                config["mounts"].as_array_mut().unwrap().push(mount);
            }
        });
        Some(place)
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.dir.join("root")).args(words).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// A verb on the container, with what comes after its id. No pipe reaches the container: it would keep it open.
    fn on(&self, verb: &[&str], rest: &[&str]) -> (i32, String) {
        let errors = fs::File::create(self.dir.join("errors")).unwrap();
        let mut command = self.command(&[verb, &[&self.id], rest].concat());
        let status = command.stdout(Stdio::null()).stderr(errors).status().unwrap();
        (status.code().unwrap(), fs::read_to_string(self.dir.join("errors")).unwrap())
    }

    fn ok(&self, verb: &[&str], rest: &[&str]) {
        let (status, errors) = self.on(verb, rest);
        assert_eq!(status, 0, "{verb:?} {rest:?}: {errors}");
    }

    fn output(&self, verb: &[&str], rest: &[&str]) -> Output {
        self.command(&[verb, &[&self.id], rest].concat()).output().unwrap()
    }

    fn status(&self) -> String {
        let output = self.output(&["state"], &[]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }

    fn wait_for(&self, status: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.status() != status {
            assert!(Instant::now() < end, "still {}, not {status}", self.status());
            sleep(Duration::from_millis(10));
        }
    }

    fn start_in_background(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Cgroups of the container that are still there, in any hierarchy and at any depth that a caller may be at.
    fn cgroups(&self) -> Vec<PathBuf> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let above = own.lines().filter_map(|line| line.rsplit(':').next()).map(|path| path.trim_start_matches('/'));
        let mut places: Vec<&str> = above.chain([""]).collect();
        places.sort_unstable();
        places.dedup();
        let mounts = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let mounts: Vec<_> = mounts.chain([PathBuf::from("/sys/fs/cgroup")]).collect();
        let below = |mount: &PathBuf| places.iter().map(|path| mount.join(path).join(&self.id)).collect::<Vec<_>>();
        mounts.iter().flat_map(below).filter(|path| path.exists()).collect()
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.status(), "none");
        assert!(!self.dir.join("root").join(&self.id).exists());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.on(&["delete", "--force"], &[]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

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
    let end = Instant::now() + Duration::from_secs(10);
    while !place.dir.join("up/up").exists() {
        assert!(Instant::now() < end, "the process did not start");
        sleep(Duration::from_millis(10));
    }
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
