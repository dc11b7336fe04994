//! Every step of a create fails once, on purpose: nothing of the container may be left on the host.
//!
//! The debug build takes the place from `OFFSHOOT_FAIL` (`host:3`, `stage:7`); a release build has no such thing.

#![forbid(unsafe_code)]

mod place;

use place::Place;
use serde_json::json;
use std::fs;

/// Mounts below the test's directory, in this mount namespace.
fn mounts(place: &Place) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|line| line.contains(place.dir.to_str().unwrap())).count()
}

/// Processes that were started for the test's container.
fn processes(place: &Place) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let texts =
        entries.filter(|path| !path.ends_with(&own)).filter_map(|path| fs::read_to_string(path.join("cmdline")).ok());
    texts.filter(|text| text.contains(&place.id)).collect()
}

fn every_step(name: &str, user_namespace: bool) {
    let Some(place) = Place::new(name, &["/bin/true"]) else { return };
    if user_namespace {
        std::os::unix::fs::chown(place.dir.join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    }
    place.edit(|config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 50}, "memory": {"limit": 256 << 20}});
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        let hook = json!([{"path": "/bin/true"}]);
        config["hooks"] = json!({"createRuntime": hook, "createContainer": hook});
        if user_namespace {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
    });
    let mut failed = 0;
    for side in ["host", "stage"] {
        for index in 0.. {
            let point = format!("{side}:{index}");
            let Some(mut command) = place.failing(&point, &["run", &place.id]) else { return };
            let output = command.output().unwrap();
            place.assert_nothing_left();
            assert_eq!(mounts(&place), 0, "{point}");
            assert_eq!(processes(&place), Vec::<String>::new(), "{point}");
            let text = String::from_utf8_lossy(&output.stderr);
            if !text.contains("failed on purpose") {
                // Past the last step: the container ran.
                assert!(output.status.success(), "{point}: {text}");
                break;
            }
            // After `start` the process has nobody to tell and ends with a status of its own.
            assert!(matches!(output.status.code(), Some(1 | 255)), "{point}: {text}");
            failed += 1;
        }
    }
    assert!(failed > 40, "only {failed} steps could fail");
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    every_step("fail", false);
}

#[test]
fn nor_with_a_user_namespace() {
    every_step("fail-user", true);
}
