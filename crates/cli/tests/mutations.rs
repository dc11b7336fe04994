//! Damaged command lines and files against the command itself: it never panics, and always says what is wrong.

#![forbid(unsafe_code)]

#[path = "../../spec/tests/mutate/mod.rs"]
mod mutate;
mod place;

use mutate::Random;
use place::Place;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Output, Stdio};

/// A panic aborts the program, and says so; a failure is told in words and by its status.
fn judge(output: &Output, about: &dyn std::fmt::Debug) -> bool {
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!errors.contains("panicked") && output.status.code().is_some(), "{about:?}: {output:?}");
    let good = output.status.success();
    assert!(good || errors.trim().len() > 10 || printed.trim().len() > 10, "{about:?}: {output:?}");
    good
}

#[test]
fn command_lines() {
    let Some(place) = Place::new("argv", &["/bin/true"]) else { return };
    // Nothing here can be made: there is no bundle in this directory.
    let empty = place.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    const VERBS: &[&str] = &[
        "create",
        "start",
        "run",
        "state",
        "list",
        "kill",
        "delete",
        "exec",
        "ps",
        "pause",
        "resume",
        "update",
        "events",
        "features",
        "checkpoint",
        "restore",
        "plan",
        "help",
    ];
    const WORDS: &[&str] = &[
        "--bundle",
        "-b",
        "--pid-file",
        "--console-socket",
        "--detach",
        "-d",
        "--keep",
        "--preserve-fds",
        "--no-pivot",
        "--format",
        "-f",
        "json",
        "table",
        "--force",
        "--all",
        "-a",
        "--user",
        "1:2",
        "--env",
        "A=b",
        "--tty",
        "--cwd",
        "--process",
        "--cap",
        "CAP_KILL",
        "--cgroup",
        "pids:x",
        "--stats",
        "--interval",
        "1ms",
        "--memory",
        "50M",
        "--pids-limit",
        "-1",
        "--resources",
        "-",
        "--image-path",
        "--quiet",
        "-q",
        "--help",
        "-h",
        "--version",
        "--",
        "id",
        "../id",
        "KILL",
        "9",
        "--detach=false",
        "--preserve-fds=x",
        "--interval=",
        "--user=",
        "-e",
    ];
    let mut good = 0;
    const SEEDS: u64 = 300;
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut words: Vec<OsString> = vec![random.of(VERBS).into()];
        for _ in 0..random.below(6) {
            words.push(match random.below(6) {
                0 => mutate::text(random.of(WORDS), &mut random).replace('\0', "").into(),
                1 => OsString::from_vec(
                    mutate::bytes(b"--name=value", &mut random).into_iter().filter(|b| *b != 0).collect(),
                ),
                _ => random.of(WORDS).into(),
            });
        }
        let mut command = place.command(&[]);
        command.args(&words).current_dir(&empty).stdin(Stdio::null());
        good += u64::from(judge(&command.output().unwrap(), &words));
    }
    println!("{good} of {SEEDS} command lines were good");
    assert!(good > 4 && good < SEEDS / 2, "{good}");
    place.assert_nothing_left();
}

/// What the parser or the plan does not find must come to a good end, too.
#[test]
fn configurations_that_run_or_not() {
    let Some(place) = Place::new("configs", &["/bin/true"]) else { return };
    let path = place.dir.join("config.json");
    let base: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut good = 0;
    const SEEDS: u64 = 150;
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut tree = base.clone();
        mutate::tree(&mut tree, &mut random);
        // Cgroups of the host and its namespaces are not for this; hooks are programs of the host.
        for key in ["cgroupsPath", "hooks"] {
            tree.get_mut("linux").and_then(Value::as_object_mut).map(|linux| linux.remove(key));
            tree.as_object_mut().map(|config| config.remove(key));
        }
        fs::write(&path, tree.to_string()).unwrap();
        // A damaged mount may name any directory of the host: all but the test's own are read-only meanwhile.
        let dir = place.dir.display();
        let script = format!(
            "mount --make-rprivate / && mount --bind {dir} {dir} && mount -o remount,bind,ro / && cd {dir} && \
             exec {} --root root run {}",
            place::program().display(),
            place.id
        );
        let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
        good += u64::from(judge(&output, &tree.to_string()));
        judge(&place.output(&["delete", "--force"], &[]), &seed);
        place.assert_nothing_left();
    }
    println!("{good} of {SEEDS} configurations ran");
    assert!(good > 5 && good < SEEDS * 3 / 4, "{good}");
}

/// The container's own files: they are read with the runtime's rights, and are no more than text.
#[test]
fn a_passwd_of_the_container() {
    let Some(place) = Place::new("passwd", &["/bin/sh", "-c", "echo $HOME"]) else { return };
    fs::create_dir(place.dir.join("rootfs/etc")).unwrap();
    for seed in 0..40 {
        let mut random = Random(seed);
        let text = mutate::bytes(b"root:x:0:0:root:/root:/bin/sh\nu:x:1:1::/home/u:\n", &mut random);
        fs::write(place.dir.join("rootfs/etc/passwd"), &text).unwrap();
        assert!(judge(&place.output(&["run"], &[]), &text));
    }
    // Neither a pipe nor a link to a device, nor a very long file holds it up.
    let passwd = place.dir.join("rootfs/etc/passwd");
    for kind in ["fifo", "link", "long"] {
        fs::remove_file(&passwd).unwrap();
        match kind {
            "fifo" => assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success()),
            "link" => std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap(),
            _ => fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap(),
        }
        let start = std::time::Instant::now();
        let output = place.output(&["run"], &[]);
        assert!(judge(&output, &kind) && start.elapsed().as_secs() < 5, "{kind}");
        assert_eq!(output.stdout, b"/\n", "{kind}");
    }
}
