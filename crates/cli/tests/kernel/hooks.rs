//! The six kinds of hooks: when, where and with what they run. spec: config.md#posix-platform-hooks

use crate::place::Place;
use serde_json::{Value, json};
use std::fs;

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Hooks that write a line each to `log` in the bundle, which the container sees as `/bundle`.
fn logging(place: &Place, config: &mut Value) {
    let dir = place.dir.to_str().unwrap();
    let mount = json!({"destination": "/bundle", "type": "none", "source": dir, "options": ["bind"]});
    config["mounts"].as_array_mut().unwrap().push(mount);
    config["annotations"] = json!({"org.example.key": "value"});
    for kind in KINDS {
        let bundle = if kind == "startContainer" { "/bundle" } else { dir };
        let script = format!(
            "cat >>{bundle}/log.{kind}; printf '%s %s %s\\n' {kind} \"$X\" $(readlink /proc/self/ns/mnt) >>{bundle}/log; \
             test -e /proc/self/fd/3 && ls -l /proc/self/fd >>{bundle}/leak; true"
        );
        let hook = |n: u32| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": [format!("X={n}"), "PATH=/bin:/usr/bin"]});
        config["hooks"][kind] = json!([hook(1), hook(2)]);
    }
    config["process"]["args"] = json!(["/bin/sh", "-c", "echo process >>/bundle/log; sleep 100"]);
}

fn log(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.dir.join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn all_six_in_their_order() {
    let Some(place) = Place::new("hooks", &[]) else { return };
    place.edit(|c| logging(&place, c));
    let steps =
        || log(&place).iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    place.ok(&["create"], &["--pid-file", "pid"]);
    let created =
        ["prestart 1", "prestart 2", "createRuntime 1", "createRuntime 2", "createContainer 1", "createContainer 2"];
    assert_eq!(steps(), created);
    place.ok(&["start"], &[]);
    place.wait_for("running");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !log(&place).contains(&"process".to_owned()) {
        assert!(std::time::Instant::now() < end, "{:?}", log(&place));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The process and the poststart hooks run at the same time: either may write first.
    let started = steps();
    assert_eq!(started[6..8], ["startContainer 1", "startContainer 2"]);
    assert!(
        started[8..].contains(&"poststart 1".to_owned()) && started[8..].contains(&"poststart 2".to_owned()),
        "{started:?}"
    );
    place.ok(&["kill"], &["KILL"]);
    place.wait_for("stopped");
    place.ok(&["delete"], &[]);
    assert_eq!(steps()[11..], ["poststop 1", "poststop 2"]);
    place.assert_nothing_left();

    // Where they ran: the host's mounts, or the container's.
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    for line in log(&place).iter().filter(|line| *line != "process") {
        let inside = line.starts_with("createContainer") || line.starts_with("startContainer");
        assert_eq!(!line.ends_with(host.to_str().unwrap()), inside, "{line}");
    }
    // What they were told.
    let pid: u32 = fs::read_to_string(place.dir.join("pid")).unwrap().parse().unwrap();
    for (kind, status) in KINDS.iter().zip(["created", "created", "created", "created", "running", "stopped"]) {
        let text = fs::read_to_string(place.dir.join(format!("log.{kind}"))).unwrap();
        let state: Value = serde_json::Deserializer::from_str(&text).into_iter().next().unwrap().unwrap();
        let status = if *kind == "poststart" && state["status"] == "created" { "created" } else { status };
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], *place.id, "{kind}");
        assert_eq!(state["bundle"], place.dir.to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
        match *kind {
            "startContainer" => assert!(state["pid"] == 1 || state["pid"] == pid, "{state}"),
            "poststop" => assert!(state.get("pid").is_none_or(|gone| *gone == 0), "{state}"),
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
    }
    assert!(!place.dir.join("leak").exists(), "{}", fs::read_to_string(place.dir.join("leak")).unwrap());
}

#[test]
fn a_failing_hook_ends_the_container() {
    let Some(place) = Place::new("hooks-fail", &["/bin/sleep", "100"]) else { return };
    let gone = place.dir.join("gone");
    for kind in &KINDS[..5] {
        place.edit(|c| {
            c["hooks"] = json!({"poststop": [{"path": "/bin/touch", "args": ["touch", gone]}]});
            c["hooks"][kind] = json!([{"path": "/bin/true"}, {"path": "/bin/sh", "args": ["sh", "-c", "echo its own words >&2; exit 3"]}]);
        });
        // When the container has been started, nobody but its own standard error hears of the hooks that it runs.
        let inside = *kind == "startContainer";
        let (status, errors) = place.on(if inside { &["run"] } else { &["run", "--detach"] }, &[]);
        let expected = if inside { 255 } else { 1 };
        assert!(status == expected && errors.contains(&format!("error running {kind} hook #1")), "{status} {errors}");
        assert!(errors.contains("exit status 3") && errors.contains("its own words"), "{kind}: {errors}");
        place.assert_nothing_left();
        assert!(gone.exists(), "{kind}: poststop was not run");
        fs::remove_file(&gone).unwrap();
    }
    // A poststop hook that fails is a warning, and the next one runs.
    place.edit(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        c["hooks"] = json!({"poststop": [{"path": "/bin/false"}, {"path": "/bin/touch", "args": ["touch", gone]}]});
    });
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 0 && errors.contains("poststop hook #0") && gone.exists(), "{status} {errors}");
    place.assert_nothing_left();
}

#[test]
fn a_slow_hook_is_killed() {
    let Some(place) = Place::new("hooks-slow", &["/bin/true"]) else { return };
    let start = std::time::Instant::now();
    place.edit(|c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "77"], "timeout": 1}]})
    });
    let (status, errors) = place.on(&["run"], &[]);
    assert!(status == 1 && errors.contains("createRuntime hook #0"), "{status} {errors}");
    assert!((1..10).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    place.assert_nothing_left();
}

#[test]
fn the_environment_of_hooks() {
    let Some(place) = Place::new("hooks-env", &["/bin/true"]) else { return };
    let out = place.dir.join("env");
    let hook =
        |env: Value| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("env >{}", out.display())], "env": env}]);
    let run = |hooks: Value| {
        place.edit(|c| c["hooks"] = hooks);
        let output = place.command(&["run", &place.id]).env("OF_THE_CALLER", "yes").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(&out).unwrap()
    };
    assert!(run(json!({"createRuntime": hook(json!(["A=b"]))})).contains("A=b\n"));
    assert!(!run(json!({"createRuntime": hook(json!(["A=b"]))})).contains("OF_THE_CALLER"));
    // Without one it is the runtime's.
    let mut hooks = json!({"createRuntime": hook(Value::Null)});
    hooks["createRuntime"][0].as_object_mut().unwrap().remove("env");
    assert!(run(hooks).contains("OF_THE_CALLER=yes\n"));
}
