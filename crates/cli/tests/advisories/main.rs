//! The attacks of past advisories on container runtimes, one test each.

#![forbid(unsafe_code)]

#[path = "../place/mod.rs"]
mod place;

mod inside;
mod races;

use place::Place;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

/// A directory beside the root filesystem that nothing in a container may touch.
fn outside(place: &Place) -> std::path::PathBuf {
    let dir = place.dir.join("outside");
    fs::create_dir(&dir).unwrap();
    dir
}

fn assert_empty(dir: &std::path::Path) {
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something was made in {}", dir.display());
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// CVE-2024-21626: a working directory that a leaked descriptor of the host leads to.
#[test]
fn a_working_directory_never_leads_out() {
    let Some(place) = Place::new("cwd", &["/bin/sh", "-c", "ls ..; ls ../.."]) else { return };
    for number in 0..64 {
        place.edit(|config| config["process"]["cwd"] = format!("/proc/self/fd/{number}").into());
        let output = place.output(&["run"], &[]);
        assert!(!output.status.success(), "fd {number}: {}", text(&output));
        place.assert_nothing_left();
    }
    place.edit(|config| {
        config["process"]["cwd"] = "/".into();
        config["process"]["args"] = json!(["/bin/sleep", "100"]);
    });
    place.ok(&["run", "--detach"], &[]);
    for number in 0..64 {
        let (status, errors) = place.on(&["exec", "--cwd", &format!("/proc/self/fd/{number}")], &["/bin/ls"]);
        assert_eq!(status, 255, "fd {number}: {errors}");
    }
}

/// CVE-2024-45310, CVE-2021-30465: mount points below a link that leads to the host.
#[test]
fn mount_points_are_made_inside_the_root() {
    let Some(place) = Place::new("mkdir", &["/bin/true"]) else { return };
    let outside = outside(&place);
    symlink(&outside, place.dir.join("rootfs/absolute")).unwrap();
    symlink("../outside", place.dir.join("rootfs/relative")).unwrap();
    place.edit(|config| {
        for target in ["/absolute/a/b", "/relative/c/d"] {
            let mount = json!({"destination": target, "type": "tmpfs", "source": "tmpfs"});
            config["mounts"].as_array_mut().unwrap().push(mount);
        }
        let file = json!({"destination": "/absolute/file", "source": "/etc/hostname", "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(file);
    });
    let output = place.output(&["run"], &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_empty(&outside);
}

/// CVE-2026-41579, CVE-2026-47766: `/dev` of the image is a link to the host.
#[test]
fn devices_are_made_inside_the_root() {
    let Some(place) = Place::new("dev", &["/bin/true"]) else { return };
    let outside = outside(&place);
    place.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    for target in [outside.to_str().unwrap(), "../outside", "/../../../outside"] {
        let _ = fs::remove_file(place.dir.join("rootfs/dev"));
        symlink(target, place.dir.join("rootfs/dev")).unwrap();
        // Whether it runs with a /dev inside or fails: the host's directory stays as it was.
        place.output(&["run"], &[]);
        assert_empty(&outside);
        place.assert_nothing_left();
    }
}

/// CVE-2025-31133: the image's `/dev/null` is something else, and would be bound over masked paths.
#[test]
fn masks_come_from_a_real_null() {
    let Some(place) = Place::new("null", &["/bin/true"]) else { return };
    fs::create_dir(place.dir.join("rootfs/dev")).unwrap();
    fs::write(place.dir.join("rootfs/secret"), "").unwrap();
    symlink("/secret", place.dir.join("rootfs/dev/null")).unwrap();
    place.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    let output = place.output(&["run"], &[]);
    assert!(!output.status.success() && text(&output).contains("/dev/null"), "{}", text(&output));
    place.assert_nothing_left();
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: procfs and sysfs through a link.
#[test]
fn kernel_file_systems_need_ordinary_directories() {
    for name in ["proc", "sys"] {
        let Some(place) = Place::new(&format!("link-{name}"), &["/bin/true"]) else { return };
        let outside = outside(&place);
        symlink(&outside, place.dir.join("rootfs").join(name)).unwrap();
        let output = place.output(&["run"], &[]);
        assert!(text(&output).contains("must be mounted on ordinary directory"), "{}", text(&output));
        assert_empty(&outside);
        place.assert_nothing_left();
    }
}

/// CVE-2019-16884, CVE-2025-52881: a file system of the container's choice in the place of procfs.
#[test]
fn nothing_but_procfs_is_mounted_on_proc() {
    for (target, kind) in [("/proc", "tmpfs"), ("/proc/self/attr", "tmpfs"), ("/proc/sys", "tmpfs")] {
        let Some(place) = Place::new("over-proc", &["/bin/true"]) else { return };
        place.edit(|config| {
            let mount = json!({"destination": target, "type": kind, "source": kind});
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let output = place.output(&["run"], &[]);
        assert!(text(&output).contains("cannot be mounted"), "{target}: {}", text(&output));
        place.assert_nothing_left();
    }
}

/// CVE-2022-29162, CVE-2025-27612: capabilities that an exec must not make inheritable.
#[test]
fn exec_adds_nothing_to_the_inheritable_set() {
    let Some(place) = Place::new("caps", &["/bin/sleep", "100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    let output =
        place.output(&["exec", "--cap", "CAP_SYS_ADMIN"], &["/bin/grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"]);
    let zero = "0000000000000000";
    assert_eq!(text(&output), format!("CapInh:\t{zero}\nCapAmb:\t{zero}\n"));
}

/// CVE-2026-30892: a user that is not quite a number.
#[test]
fn a_user_is_a_number() {
    let Some(place) = Place::new("user", &["/bin/sleep", "100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    for wrong in ["1:", ":1", "a", "+1", "-1", "1a", "4294967296", "0x1", " 1"] {
        let (status, errors) = place.on(&["exec", "--user", wrong], &["/bin/true"]);
        assert_eq!(status, 255, "{wrong:?}: {errors}");
    }
    place.ok(&["exec", "--user", "65534:65534"], &["/bin/true"]);
}

/// CVE-2024-21626, the other half: descriptors of the caller that nobody meant to pass on.
#[test]
fn descriptors_of_the_caller_stay_outside() {
    let Some(place) = Place::new("fds", &["/bin/ls", "/proc/self/fd"]) else { return };
    let program = place::program();
    let program = program.display();
    let script = format!("exec 100</etc/passwd; exec {program} --root root run {}", place.id);
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(&place.dir).output().unwrap();
    assert_eq!(text(&output), "0\n1\n2\n3\n", "3 is the directory that ls reads");
}

/// Names of cgroup files, container ids and bundles that would lead somewhere else.
#[test]
fn names_lead_nowhere() {
    let Some(place) = Place::new("names", &["/bin/true"]) else { return };
    for id in ["..", ".", "a/b", "../x", "a b", "a\n", "ä"] {
        let output = place.command(&["run", id]).output().unwrap();
        assert!(text(&output).contains("invalid container ID format"), "{id:?}: {}", text(&output));
    }
    for key in ["../outside", "a/b", "/etc/x"] {
        place.edit(|config| config["linux"]["resources"] = json!({"unified": {key: "1"}}));
        assert!(!place.output(&["run"], &[]).status.success(), "{key}");
        place.assert_nothing_left();
    }
    assert!(!place.dir.join("outside").exists());
}
