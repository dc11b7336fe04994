//! A bundle and a root directory for one test, and what a caller does with them.

#![allow(dead_code)] // Each test file uses a part of it.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const BUILT: &str = env!("CARGO_BIN_EXE_offshoot");

/// The command under test: the one named by `OFFSHOOT`, or that of this build.
pub fn program() -> PathBuf {
    std::env::var_os("OFFSHOOT").unwrap_or_else(|| BUILT.into()).into()
}

/// A change of the configuration, and what a script must print under it: name, change, script, expected.
pub struct Row(pub &'static str, pub fn(&mut Value), pub &'static str, pub &'static str);

/// A configuration that cannot be: name, change, words of the message.
pub type Broken = (&'static str, fn(&mut Value), &'static str);

/// A bundle and a root directory for one test.
pub struct Place {
    pub dir: PathBuf,
    pub id: String,
    /// Where images and clones are.
    pub store: Option<PathBuf>,
}

impl Place {
    /// `None`, with a word why, where there are no rights.
    pub fn new(name: &str, args: &[&str]) -> Option<Place> {
        if fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).ok() != Some(0) {
            println!("skipped: needs root");
            return None;
        }
        let id = format!("offshoot-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(dir.join("rootfs")).unwrap();
        let place = Place { dir, id, store: None };
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

    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        self.command_of(&program(), words)
    }

    fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.dir.join("root")).args(words).current_dir(&self.dir).stdin(Stdio::null());
        command.envs(self.store.iter().map(|store| ("OFFSHOOT_STORE", store)));
        command
    }

    /// The same, failing at a step; `None`, with a word why, where only a release build is at hand.
    pub fn failing(&self, point: &str, words: &[&str]) -> Option<Command> {
        if !Path::new(BUILT).exists() {
            println!("skipped: only a debug build fails on purpose");
            return None;
        }
        let mut command = self.command_of(Path::new(BUILT), words);
        command.env("OFFSHOOT_FAIL", point);
        Some(command)
    }

    /// A verb on the container, with what comes after its id. No pipe reaches the container: it would keep it open.
    pub fn on(&self, verb: &[&str], rest: &[&str]) -> (i32, String) {
        let errors = fs::File::create(self.dir.join("errors")).unwrap();
        let mut command = self.command(&[verb, &[&self.id], rest].concat());
        let status = command.stdout(Stdio::null()).stderr(errors).status().unwrap();
        (status.code().unwrap(), fs::read_to_string(self.dir.join("errors")).unwrap())
    }

    pub fn ok(&self, verb: &[&str], rest: &[&str]) {
        let (status, errors) = self.on(verb, rest);
        assert_eq!(status, 0, "{verb:?} {rest:?}: {errors}");
    }

    pub fn output(&self, verb: &[&str], rest: &[&str]) -> Output {
        self.command(&[verb, &[&self.id], rest].concat()).output().unwrap()
    }

    pub fn status(&self) -> String {
        let output = self.output(&["state"], &[]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }

    pub fn wait_for(&self, status: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.status() != status {
            assert!(Instant::now() < end, "still {}, not {status}", self.status());
            sleep(Duration::from_millis(10));
        }
    }

    pub fn start_in_background(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What a shell prints in a container with the changed configuration, which is as before afterwards; its errors if
    /// it fails.
    pub fn prints(&self, change: impl FnOnce(&mut Value), script: &str) -> String {
        let path = self.dir.join("config.json");
        let before = fs::read(&path).unwrap();
        self.edit(|config| {
            config["process"]["args"] = json!(["/bin/sh", "-c", script]);
            change(config);
        });
        let output = self.output(&["run"], &[]);
        fs::write(path, before).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let status = if output.status.success() { String::new() } else { format!("status {}: ", output.status) };
        format!("{status}{}{errors}", String::from_utf8_lossy(&output.stdout)).trim_end().to_owned()
    }

    /// Runs all rows and tells of all that print something else.
    pub fn check(&self, rows: &[Row]) {
        let mut wrong = Vec::new();
        for Row(name, change, script, expected) in rows {
            let printed = self.prints(change, script);
            if printed != *expected {
                wrong.push(format!("{name}: printed {printed:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.assert_nothing_left();
    }

    /// Cgroups of the container that are still there, in any hierarchy and at any depth that a caller may be at.
    pub fn cgroups(&self) -> Vec<PathBuf> {
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

    pub fn assert_nothing_left(&self) {
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
