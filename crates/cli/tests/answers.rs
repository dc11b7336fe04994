//! Answers of runc's that callers and its test suite count on, each once got wrong here.

#![forbid(unsafe_code)]

mod place;

use place::Place;
use serde_json::json;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

#[test]
fn a_profile_need_not_allow_what_the_runtime_does_before_the_program() {
    let Some(place) = Place::new("faccessat", &["true"]) else { return };
    place.edit(|config| {
        config["process"]["noNewPrivileges"] = false.into();
        let calls = ["faccessat2", "chdir", "getcwd"];
        let refused = json!([{"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused});
    });
    place.ok(&["run"], &[]);
    place.edit(|config| config["process"]["args"] = json!(["/etc/passwd"]));
    fs::create_dir(place.dir.join("rootfs/etc")).unwrap();
    fs::write(place.dir.join("rootfs/etc/passwd"), "").unwrap();
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("exec: \\\"/etc/passwd\\\": operation not permitted"), "{status} {errors}");
}

/// Engines read the messages of runc's commands; those of the others are for people, unless they say how they want them.
#[test]
fn messages_are_for_whom_reads_them() {
    let says = |words: &[&str]| {
        let store = ("OFFSHOOT_STORE", "/nowhere/at/all");
        let output = Command::new(env!("CARGO_BIN_EXE_offshoot")).args(words).envs([store]).output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(says(&["machine", "show", "nope"]).lines().next(), Some("error: there is no machine \"nope\""));
    assert!(says(&["--log-format", "json", "machine", "show", "nope"]).starts_with("{\"level\":\"error\""));
    assert!(says(&["--log-format", "text", "machine", "show", "nope"]).starts_with("time=\""));
    let root = format!("/tmp/offshoot-answers-{}", std::process::id());
    assert!(says(&["--root", &root, "state", "nope"]).starts_with("time=\""));
}

#[test]
fn kernel_memory_is_ignored_with_one_warning() {
    let Some(place) = Place::new("kmem", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.ok(&["create"], &[]);
    let warnings = |options: &[&str]| {
        let (status, errors) = place.on(&["update"], options);
        assert_eq!(status, 0, "{errors}");
        errors.matches("Kernel memory settings are ignored").count()
    };
    assert_eq!(warnings(&["--kernel-memory", "50M"]), 1);
    assert_eq!(warnings(&["--pids-limit", "20"]), 0);
}

#[test]
fn an_update_that_cannot_set_schemata_sets_no_limit() {
    let Some(place) = Place::new("rdt", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.ok(&["create"], &[]);
    place.ok(&["update"], &["--pids-limit", "20"]);
    let (status, errors) = place.on(&["update"], &["--pids-limit", "30", "--l3-cache-schema", "L3:0=f"]);
    assert!(status == 1 && errors.contains("Intel RDT"), "{status} {errors}");
    let limits: Vec<_> =
        place.cgroups().iter().filter_map(|dir| fs::read_to_string(dir.join("pids.max")).ok()).collect();
    if limits.is_empty() {
        println!("skipped: no pids controller for this process");
    }
    assert!(limits.iter().all(|limit| limit == "20\n"), "{limits:?}");
}

/// The filter is in force before the user changes; the host has no rights over the process but those of its owner.
#[test]
fn without_root_a_seccomp_agent_gets_its_listener() {
    const USER: u32 = 65_533;
    let Some(place) = Place::new("agent", &["/bin/sh", "-c", "! mkdir /dev/shm/x"]) else { return };
    let program = place.dir.join("offshoot");
    fs::copy(place.command(&[]).get_program(), &program).unwrap();
    for path in [&place.dir, &place.dir.join("rootfs")] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let rootless = |words: &[&str]| {
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&program);
        command.arg("--root").arg(place.dir.join("rootless")).args(words);
        command.current_dir(&place.dir).stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap()
    };
    let own = fs::read(place.dir.join("config.json")).unwrap();
    fs::remove_file(place.dir.join("config.json")).unwrap();
    assert!(rootless(&["spec", "--rootless"]).status.success());
    let own: serde_json::Value = serde_json::from_slice(&own).unwrap();
    let borrowed = own["mounts"].as_array().unwrap().iter().filter(|mount| mount["source"] == mount["destination"]);
    let socket = place.dir.join("agent");
    place.edit(|config| {
        config["process"] = own["process"].clone();
        config["process"]["noNewPrivileges"] = false.into();
        config["mounts"].as_array_mut().unwrap().extend(borrowed.cloned());
        let traps = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
        config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "syscalls": traps});
    });
    let agent = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    // It reads the message and lets the listener go, so that the calls fail.
    let message = std::thread::spawn(move || {
        let mut text = [0; 4096];
        let length = agent.accept().unwrap().0.read(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    });
    let output = rootless(&["run", &place.id]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && errors.contains("clone") {
        println!("skipped: no user namespaces for ordinary users: {errors}");
        return;
    }
    assert!(output.status.success() && errors.contains("Function not implemented"), "{errors}");
    assert!(message.join().unwrap().contains("seccompFd"));
}

#[test]
fn the_highest_id_is_refused_and_does_not_mean_root() {
    let Some(place) = Place::new("maxid", &["/bin/true"]) else { return };
    for field in ["uid", "gid"] {
        place.edit(|config| config["process"]["user"][field] = u32::MAX.into());
        let (status, errors) = place.on(&["run"], &[]);
        assert!(status == 1 && errors.contains(&format!("cannot set {field}")), "{status} {errors}");
        place.edit(|config| config["process"]["user"][field] = 0.into());
    }
    place.edit(|config| config["process"]["args"] = json!(["/bin/sh", "-c", "sleep 100"]));
    place.ok(&["run", "--detach"], &[]);
    let (status, _) = place.on(&["exec", "--user", "4294967295"], &["/bin/true"]);
    assert_eq!(status, 255);
}

#[test]
fn ps_repeats_what_ps_says() {
    let Some(place) = Place::new("ps", &["/bin/sh", "-c", "sleep 100"]) else { return };
    if Command::new("ps").arg("--version").output().is_err() {
        println!("skipped: there is no ps");
        return;
    }
    place.ok(&["create"], &[]);
    let (status, errors) = place.on(&["ps"], &["--bogus"]);
    assert!(status == 1 && errors.contains("exit status 1: "), "{status} {errors}");
}

#[test]
fn a_failure_is_one_line() {
    let Some(place) = Place::new("oneline", &["/bin/true"]) else { return };
    place.edit(|config| config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}));
    for _ in 0..5 {
        let (status, errors) = place.on(&["run"], &[]);
        assert_eq!((status, errors.lines().count()), (1, 1), "{errors}");
    }
}

#[test]
fn id_maps_without_a_user_namespace_are_passed_over() {
    let Some(place) = Place::new("idlemap", &["/bin/true"]) else { return };
    place.edit(|config| {
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    });
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 0 && errors.contains("uidMappings is ignored"), "{status} {errors}");
}

#[test]
fn who_waits_until_a_container_is_ready_leaves_it_in_the_background() {
    let Some(place) = Place::new("ready", &["/bin/true"]) else { return };
    let (status, errors) = place.on(&["run", "--ready", "1s"], &[]);
    assert!(
        status == 1 && errors.contains("--ready is for a container that runs in the background"),
        "{status} {errors}"
    );
    place.assert_nothing_left();
}

#[test]
fn rootless_is_read_where_a_container_is_made_and_nowhere_else() {
    let Some(place) = Place::new("maybe", &["/bin/sh", "-c", "sleep 100"]) else { return };
    let maybe = |verb: &str| place.on(&["--rootless", "maybe", verb], &[]);
    for verb in ["create", "run"] {
        let (status, errors) = maybe(verb);
        let words = format!("runc {verb} failed: strconv.ParseBool: parsing \\\"maybe\\\": invalid syntax");
        assert!(status == 1 && errors.contains(&words), "{status} {errors}");
    }
    assert_eq!(place.on(&["--rootless", "tRUE", "create"], &[]).0, 1);
    place.ok(&["--rootless", "False", "create"], &[]);
    for verb in ["state", "start", "pause", "resume"] {
        assert_eq!(maybe(verb), (0, String::new()), "{verb}");
    }
    let list = place.command(&["--rootless", "maybe", "list", "-q"]).output().unwrap();
    assert!(list.status.success() && String::from_utf8_lossy(&list.stdout).contains(&place.id));
    place.ok(&["--rootless", "maybe", "delete", "--force"], &[]);
}

#[test]
fn a_list_is_no_object_for_any_command() {
    let Some(place) = Place::new("list", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    let file = place.dir.join("file");
    for (text, what) in [("[]", "invalid type: sequence"), (r#"{"memory":[1]}"#, "memory: invalid type: sequence")] {
        fs::write(&file, text).unwrap();
        let (status, errors) = place.on(&["update", "--resources", "file"], &[]);
        assert!(status == 1 && errors.contains(what), "{text}: {status} {errors}");
    }
    fs::write(&file, r#"{"args":["true"],"cwd":"/","user":[0,0]}"#).unwrap();
    let (status, errors) = place.on(&["exec", "--process", "file"], &[]);
    assert!(status != 0 && errors.contains("user: invalid type: sequence"), "{status} {errors}");
    fs::write(&file, r#"{"Args":["/bin/true"],"cwd":"/","user":null}"#).unwrap();
    place.ok(&["exec", "--process", "file"], &[]);
    place.edit(|config| config["root"] = json!(["rootfs"]));
    assert_eq!(place.on(&["run"], &[]).0, 1);
}

#[test]
fn a_working_directory_that_is_not_there_is_named_in_runc_s_words() {
    let Some(place) = Place::new("cwd", &["/bin/sh", "-c", "sleep 100"]) else { return };
    place.ok(&["run", "--detach"], &[]);
    let (status, errors) = place.on(&["exec", "--cwd", "/nope"], &["/bin/true"]);
    let words = "chdir to cwd (\\\"/nope\\\") set in config.json failed: no such file or directory";
    assert!(status == 255 && errors.contains(words), "{status} {errors}");
}

#[test]
fn a_restore_without_images_says_so_and_makes_nothing() {
    let Some(place) = Place::new("noimages", &["/bin/true"]) else { return };
    let (status, errors) = place.on(&["restore", "--image-path", "none"], &[]);
    assert!(status == 1 && errors.contains("none/descriptors.json: no such file or directory"), "{status} {errors}");
    assert!(!errors.contains("criu") && errors.lines().count() == 1, "{errors}");
    assert_eq!(place.status(), "none");
    assert!(place.cgroups().is_empty());
}
