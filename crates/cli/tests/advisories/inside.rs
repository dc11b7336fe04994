//! Attacks by what runs inside, by what a caller passes on, and on what the runtime keeps.

use crate::place::{self, Place};
use crate::{assert_empty, outside, text};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// CVE-2019-5736: the runtime's own program, by the link to it in procfs.
#[test]
fn the_program_cannot_be_written() {
    let Some(place) = Place::new("own-exe", &["/proc/self/exe", "--version"]) else { return };
    let program = place.dir.join("offshoot");
    fs::copy(place::program(), &program).unwrap();
    let before = fs::read(&program).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(place.dir.join("root")).args(words).current_dir(&place.dir);
        command.output().unwrap()
    };
    // As the container's program, and as the interpreter of a script.
    run(&["run", &place.id]);
    fs::write(place.dir.join("rootfs/script"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(place.dir.join("rootfs/script"), fs::Permissions::from_mode(0o755)).unwrap();
    place.edit(|config| config["process"]["args"] = json!(["/script"]));
    run(&["run", &place.id]);
    assert!(fs::read(&program).unwrap() == before);
    // A container's root that tries to open it while others exec.
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); for exe in /proc/[0-9]*/exe; do \
        case $(readlink $exe) in *busybox*|*/sh|*/dash|*/bash|*/readlink|*/true|*/coreutils|'') ;; \
        *) (echo x >>$exe) 2>/dev/null && echo hit ;; esac; done; done";
    place.edit(|config| {
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["process"].as_object_mut().unwrap().remove("capabilities");
    });
    let log = fs::File::create(place.dir.join("log")).unwrap();
    let mut container = Command::new(&program)
        .arg("--root")
        .arg(place.dir.join("root"))
        .args(["run", &place.id])
        .current_dir(&place.dir)
        .stdin(std::process::Stdio::null())
        .stdout(log)
        .spawn()
        .unwrap();
    place.wait_for("running");
    for _ in 0..20 {
        run(&["exec", &place.id, "/bin/true"]);
    }
    run(&["delete", "--force", &place.id]);
    container.wait().unwrap();
    assert_eq!(fs::read_to_string(place.dir.join("log")).unwrap(), "");
    assert!(fs::read(&program).unwrap() == before);
}

/// CVE-2016-9962: what a container sees of a process that is on its way in.
#[test]
fn a_joining_process_shows_nothing() {
    let Some(place) = Place::new("joining", &[]) else { return };
    let found = place.dir.join("found");
    fs::create_dir(&found).unwrap();
    place.edit(|config| {
        let script = "while :; do for d in /proc/[0-9]*; do readlink $d/fd/* $d/cwd $d/exe; cat $d/environ | tr '\\0' '\\n'; done; done >>/found/log 2>/dev/null";
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["process"]["env"] = json!(["PATH=/bin:/usr/bin"]);
        let mount = json!({"destination": "/found", "type": "none", "source": found, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    place.ok(&["run", "--detach"], &[]);
    for _ in 0..60 {
        let mut command = place.command(&["exec", &place.id, "/bin/true"]);
        assert!(command.env("SECRET_OF_THE_CALLER", "offshoot-secret").output().unwrap().status.success());
    }
    place.ok(&["delete", "--force"], &[]);
    let log = fs::read_to_string(found.join("log")).unwrap();
    assert!(log.lines().count() > 100, "the container saw little: {}", log.len());
    // Its own standard error is a file of the test.
    let own = place.dir.join("errors");
    let foreign = |line: &&str| (line.contains("offshoot") || line.contains("SECRET")) && Path::new(line) != own;
    let leaks: Vec<_> = log.lines().filter(foreign).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

/// CVE-2024-21626: a program, and a directory for it, by descriptors of the host.
#[test]
fn programs_are_found_inside_only() {
    let Some(place) = Place::new("fd-program", &["/bin/sleep", "100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    for number in 3..24 {
        let program = format!("/proc/self/fd/{number}/../../../../../../../bin/true");
        let (status, errors) = place.on(&["exec"], &[&program]);
        assert_eq!(status, 255, "fd {number}: {errors}");
    }
}

/// CVE-2026-55686: a working directory through links of the image.
#[test]
fn a_working_directory_is_made_inside() {
    let Some(place) = Place::new("cwd-link", &["/bin/pwd"]) else { return };
    let outside = outside(&place);
    symlink(&outside, place.dir.join("rootfs/absolute")).unwrap();
    symlink("../outside", place.dir.join("rootfs/relative")).unwrap();
    for cwd in ["/absolute/made", "/relative/made", "/relative/../../made"] {
        place.edit(|config| config["process"]["cwd"] = cwd.into());
        place.output(&["run"], &[]);
        assert_empty(&outside);
        place.assert_nothing_left();
    }
    assert!(!place.dir.join("made").exists());
}

/// As runc 1.5.2 mends it: another container's cgroup whose name begins with this one's.
#[test]
fn exec_stays_in_the_container_s_cgroups() {
    let Some(place) = Place::new("sibling", &["/bin/sleep", "100"]) else { return };
    place.edit(|config| config["linux"]["cgroupsPath"] = format!("/{}", place.id).into());
    place.ok(&["run", "--detach"], &[]);
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let top = if v2 { Path::new("/sys/fs/cgroup").to_owned() } else { Path::new("/sys/fs/cgroup").join("pids") };
    let (sibling, below) = (top.join(format!("{}-b", place.id)), top.join(&place.id).join("below"));
    fs::create_dir(&sibling).unwrap();
    fs::create_dir(&below).unwrap();
    let prefix = if v2 { "" } else { "pids:" };
    let mut results = Vec::new();
    for path in [
        format!("../{}-b", place.id),
        format!("/../{}-b", place.id),
        "..".into(),
        "below/../..".into(),
        "nowhere".into(),
    ] {
        let (status, errors) = place.on(&["exec", "--cgroup", &format!("{prefix}{path}")], &["/bin/true"]);
        results.push((path, status, errors));
    }
    let inside = place.output(&["exec", "--cgroup", &format!("{prefix}below")], &["/bin/cat", "/proc/self/cgroup"]);
    let (members, _) = (fs::read_to_string(sibling.join("cgroup.procs")), fs::remove_dir(&sibling).unwrap());
    assert_eq!(members.unwrap(), "");
    for (path, status, errors) in results {
        assert_eq!(status, 255, "{path}: {errors}");
    }
    assert!(text(&inside).contains("/below\n"), "{}", text(&inside));
}

/// A process number that has come to mean another process.
#[test]
fn a_reused_process_number_gets_no_signal() {
    let Some(place) = Place::new("reuse", &["/bin/sleep", "100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    // The kernel counts the time of a start in hundredths of a second.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut bystander = Command::new("sleep").arg("100").spawn().unwrap();
    let file = place.dir.join("root").join(&place.id).join("state.json");
    let text = fs::read_to_string(&file).unwrap();
    let state: Value = serde_json::from_slice(&place.output(&["state"], &[]).stdout).unwrap();
    place.ok(&["kill"], &["KILL"]);
    place.wait_for("stopped");
    // The record now names a process that lives, but started at another time.
    fs::write(&file, text.replace(&state["pid"].to_string(), &bystander.id().to_string())).unwrap();
    assert_eq!(place.status(), "stopped");
    let (status, errors) = place.on(&["kill"], &["KILL"]);
    assert!(status == 1 && errors.contains("container not running"), "{errors}");
    assert!(place.on(&["exec"], &["/bin/true"]).1.contains("stopped"));
    place.ok(&["delete", "--force"], &[]);
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// CVE-2021-41103, CVE-2024-25621: who may look into what the runtime keeps, whatever the caller's umask.
#[test]
fn what_is_kept_is_closed_to_others() {
    let Some(place) = Place::new("modes", &["/bin/sleep", "100"]) else { return };
    let script = format!(
        "umask 0; exec {} --root root create --pid-file pid {} >log 2>&1 </dev/null",
        place::program().display(),
        place.id
    );
    assert!(Command::new("sh").args(["-c", &script]).current_dir(&place.dir).status().unwrap().success());
    let root = place.dir.join("root");
    let mut stack = vec![root.clone()];
    let mut files = 0;
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mode = meta.mode() & 0o7777;
        // The container's root has to come through to the start fifo, and others to write to it.
        let most = match (meta.is_dir(), path.file_name().unwrap().to_str().unwrap()) {
            (true, _) if path == root => 0o700,
            (true, _) => 0o711,
            (_, "exec.fifo") => 0o622,
            _ => 0o600,
        };
        assert_eq!(mode & !most, 0, "{}: {mode:o}", path.display());
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{}", path.display());
        files += 1;
        if meta.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(files > 3, "{files}");
}

/// A link where the record of a container would be.
#[test]
fn a_link_is_no_state_directory() {
    let Some(place) = Place::new("state-link", &["/bin/true"]) else { return };
    let outside = outside(&place);
    fs::create_dir(place.dir.join("root")).unwrap();
    symlink(&outside, place.dir.join("root").join(&place.id)).unwrap();
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("already exists"), "{errors}");
    assert_empty(&outside);
    fs::write(outside.join("kept"), "").unwrap();
    place.on(&["delete", "--force"], &[]);
    assert!(outside.join("kept").exists());
}

/// CVE-2026-41579: links in the place of single entries of `/dev`.
#[test]
fn entries_of_dev_are_made_inside() {
    let Some(place) = Place::new("dev-links", &["/bin/true"]) else { return };
    let outside = outside(&place);
    let dev = place.dir.join("rootfs/dev");
    fs::create_dir(&dev).unwrap();
    place.edit(|config| config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev"));
    for name in ["pts", "shm", "mqueue", "fd", "null", "console", "ptmx", "stdin"] {
        // What the last run made is no link to the outside.
        fs::remove_dir_all(&dev).unwrap();
        fs::create_dir(&dev).unwrap();
        symlink(outside.join(name), dev.join(name)).unwrap();
        place.output(&["run"], &[]);
        assert_empty(&outside);
        place.assert_nothing_left();
    }
}

/// Words that go into option lists of file systems and into files that take one line.
#[test]
fn one_word_is_one_word() {
    let Some(place) = Place::new("words", &["/bin/true"]) else { return };
    for option in ["size=1m\nmode=777", "mode=700\0x", "size=1m,nosuch"] {
        place.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/m");
            mounts.push(json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": [option]}));
        });
        let output = place.output(&["run"], &[]);
        assert_eq!(output.status.code(), Some(1), "{option:?}: {}", text(&output));
        place.assert_nothing_left();
    }
}
