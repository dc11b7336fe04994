//! Containers without a mount namespace: what they mount on the host goes with them, and nothing else does.
//!
//! "The host" is a mount namespace of each command's own, with shared propagation, as systemd sets it up.

#![forbid(unsafe_code)]

mod place;

use place::Place;
use serde_json::json;
use std::fs;
use std::process::{Command, Output};

/// Runs a shell script with `$O` as the command, on a host with a shared mount that has another below it.
fn on_a_host(place: &Place, command: &Command, script: &str) -> Output {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let prepare =
        "mount --make-rshared / && mount -t tmpfs outer outer && mkdir outer/inner && mount -t tmpfs inner outer/inner";
    let script = format!("set -e; {prepare}; O='{}'; ID={}; {script}", line.join(" "), place.id);
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(&place.dir);
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    unshare.output().unwrap()
}

fn place(name: &str, args: &[&str]) -> Option<Place> {
    let place = Place::new(name, args)?;
    fs::create_dir(place.dir.join("outer")).unwrap();
    place.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "mount");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        let outer = place.dir.join("outer");
        let bind = json!({"destination": "/mnt", "source": outer, "type": "none", "options": ["rbind"]});
        config["mounts"].as_array_mut().unwrap().push(bind);
    });
    Some(place)
}

/// How many mounts there are at and below the root filesystem; and the host's own are untouched.
const LOOK: &str = "grep -c ' '$PWD/rootfs /proc/self/mountinfo || true; mountpoint -q outer/inner";

#[test]
fn mounts_on_the_host_last_until_delete() {
    let Some(place) = place("hostmounts", &["/bin/sh", "-c", "test -e /mnt/inner && test -r /proc/self/status"]) else {
        return;
    };
    let script = format!("$O run $ID 2>warning; {LOOK}; $O create $ID >/dev/null 2>&1; {LOOK}; $O delete $ID; {LOOK}");
    let output = on_a_host(&place, &place.command(&[]), &script);
    let text = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(matches!(counts[..], [0, while_there, 0] if while_there > 5), "{counts:?}");
    assert!(fs::read_to_string(place.dir.join("warning")).unwrap().contains("mounts are made on the host"));
    assert!(place.dir.join("rootfs/mnt").exists() && !place.dir.join("rootfs/mnt/inner").exists());
    place.assert_nothing_left();
}

#[test]
fn a_failed_create_leaves_no_mounts_on_the_host() {
    let Some(place) = place("hostmountsfail", &["/bin/true"]) else { return };
    let mut failed = 0;
    for side in ["host", "stage"] {
        for index in 0.. {
            let point = format!("{side}:{index}");
            let Some(command) = place.failing(&point, &[]) else { return };
            let output = on_a_host(&place, &command, &format!("$O run $ID || true; {LOOK}"));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{point}: {errors}");
            assert!(output.status.success(), "{point}: {errors}");
            if !errors.contains("failed on purpose") {
                break;
            }
            failed += 1;
        }
    }
    assert!(failed > 30, "only {failed} steps could fail");
    place.assert_nothing_left();
}

#[test]
fn a_user_namespace_cannot_mount_on_the_host() {
    let Some(place) = place("hostmountsuser", &["/bin/true"]) else { return };
    place.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("may only mount in a mount namespace"), "{status} {errors}");
    place.assert_nothing_left();
}
