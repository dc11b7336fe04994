//! Ranges of ids of system containers, of a pool with room for two: whoever is killed, and whenever, no range is lost and
//! none is given to two.

#![forbid(unsafe_code)]

mod place;

use place::Place;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where the host keeps the records, and what gives ids to it.
const RECORDS: &str = "/run/offshoot-ids";
const GIVEN: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

struct Pool {
    place: Place,
}

impl Pool {
    fn new(name: &str, first: u32) -> Option<Pool> {
        let place = Place::new(name, &["/bin/sleep", "100"])?;
        if !Path::new(env!("CARGO_BIN_EXE_offshoot")).exists() {
            println!("skipped: only a debug build is killed on purpose");
            return None;
        }
        if GIVEN.iter().any(|file| !Path::new(file).exists()) {
            println!("skipped: there is no /etc/subuid to cover");
            return None;
        }
        fs::create_dir_all(RECORDS).unwrap();
        fs::create_dir(place.dir.join("ids")).unwrap();
        // Far above all that another process could have here.
        fs::write(place.dir.join("given"), format!("offshoot:{first}:131072\n")).unwrap();
        place.edit(|config| {
            config["annotations"] = json!({"org.offshoot.system": "true"});
            config["root"]["readonly"] = false.into();
        });
        Some(Pool { place })
    }

    /// With records and ids of its own, in a mount namespace of its own; killed at `point`, where there is one.
    fn run(&self, point: Option<&str>, words: &[&str]) -> Output {
        let script = "mount --bind ids /run/offshoot-ids && for file in subuid subgid; do mount --bind given /etc/$file || exit 99; done; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_offshoot"), "--root", "root"]);
        command.args(words).current_dir(&self.place.dir).stdin(Stdio::null());
        // The container would keep pipes open.
        let file = |name: &str| fs::File::create(self.place.dir.join(name)).unwrap();
        command.stdout(file("out")).stderr(file("errors")).envs(point.map(|point| ("OFFSHOOT_KILL", point)));
        let status = command.status().unwrap();
        let read = |name: &str| fs::read(self.place.dir.join(name)).unwrap();
        Output { status, stdout: read("out"), stderr: read("errors") }
    }

    fn ok(&self, what: &str, words: &[&str]) {
        let output = self.run(None, words);
        assert!(output.status.success(), "{what}, {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn create(&self, what: &str, name: &str) -> u64 {
        // One configuration for all, and a cgroup for each.
        self.place.edit(|config| config["linux"]["cgroupsPath"] = format!("/{}-{name}", self.place.id).into());
        // A process of the last one with these ids that nobody has reaped yet still has them.
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.run(None, &["create", name]);
            let errors = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                break;
            }
            assert!(errors.contains("no range of 65536 ids is free") && Instant::now() < end, "{what}: {errors}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.first_id(name).unwrap_or_else(|| panic!("{what}: {name} has no ids"))
    }

    /// As its record says.
    fn first_id(&self, name: &str) -> Option<u64> {
        let text = fs::read(self.place.dir.join("root").join(name).join("state.json")).ok()?;
        serde_json::from_slice::<Value>(&text).unwrap()["first_id"].as_u64()
    }

    fn records(&self) -> usize {
        fs::read_dir(self.place.dir.join("ids")).unwrap().count()
    }

    /// After `what` nothing is lost: with the one that was killed removed, there is room for two, and for no third.
    fn check(&self, what: &str) {
        // As long as something of it is there, what it has is nobody else's.
        let left = self.first_id("killed");
        let other = self.create(what, "one");
        assert!(left != Some(other), "{what}: {other} is shared");
        self.ok(what, &["delete", "--force", "killed"]);
        let another = self.create(what, "two");
        assert!(other != another, "{what}: {other} is shared");
        let third = self.run(None, &["create", "three"]);
        let errors = String::from_utf8_lossy(&third.stderr).into_owned();
        assert!(!third.status.success() && errors.contains("no range of 65536 ids is free"), "{what}: {errors}");
        self.ok(what, &["delete", "--force", "one"]);
        self.ok(what, &["delete", "--force", "two"]);
        assert_eq!(self.records(), 0, "{what}");
        assert_eq!(fs::read_dir(self.place.dir.join("root")).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn a_create_that_is_killed_at_any_step_keeps_no_ids() {
    let Some(pool) = Pool::new("ids-create", 0xe000_0000) else { return };
    let mut killed = 0;
    for side in ["ids", "host"] {
        for index in 0.. {
            let point = format!("{side}:{index}");
            pool.place.edit(|config| config["linux"]["cgroupsPath"] = format!("/{}-killed", pool.place.id).into());
            let output = pool.run(Some(&point), &["create", "killed"]);
            if output.status.success() {
                pool.ok(&point, &["delete", "--force", "killed"]);
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&output.stderr));
            killed += 1;
            pool.check(&point);
        }
    }
    assert!(killed > 10, "{killed}");
}

#[test]
fn a_delete_that_is_killed_at_any_step_keeps_no_ids() {
    let Some(pool) = Pool::new("ids-delete", 0xe010_0000) else { return };
    let mut killed = 0;
    for index in 0.. {
        let point = format!("teardown:{index}");
        pool.create(&point, "killed");
        let output = pool.run(Some(&point), &["delete", "--force", "killed"]);
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&output.stderr));
        killed += 1;
        pool.check(&point);
    }
    assert_eq!(killed, 7);
}
