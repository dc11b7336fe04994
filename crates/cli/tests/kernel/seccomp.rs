//! Filters as a process feels them. spec: config-linux.md#seccomp

use crate::place::{Place, Row};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

const MKDIR: &str = "mkdir /dev/shm/x 2>&1; echo $?";

/// All is allowed but mkdir.
fn deny(config: &mut Value, action: &str, more: Value) {
    let mut rule = json!({"names": ["mkdir", "mkdirat", "no_such_call"], "action": action});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
}

#[test]
fn every_action() {
    let Some(place) = Place::new("actions", &[]) else { return };
    place.check(&[
        Row("no filter", |_| {}, "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
        Row("a filter", |c| deny(c, "SCMP_ACT_LOG", json!({})), "grep Seccomp: /proc/self/status", "Seccomp:\t2"),
        Row("allow", |c| deny(c, "SCMP_ACT_ALLOW", json!({})), MKDIR, "0"),
        Row("log", |c| deny(c, "SCMP_ACT_LOG", json!({})), MKDIR, "0"),
        Row(
            "errno",
            |c| deny(c, "SCMP_ACT_ERRNO", json!({})),
            MKDIR,
            "mkdir: cannot create directory '/dev/shm/x': Operation not permitted\n1",
        ),
        Row(
            "errnoRet",
            |c| deny(c, "SCMP_ACT_ERRNO", json!({"errnoRet": 28})),
            MKDIR,
            "mkdir: cannot create directory '/dev/shm/x': No space left on device\n1",
        ),
        Row("kill", |c| deny(c, "SCMP_ACT_KILL", json!({})), MKDIR, "Bad system call\n159"),
        Row("kill thread", |c| deny(c, "SCMP_ACT_KILL_THREAD", json!({})), MKDIR, "Bad system call\n159"),
        Row("kill process", |c| deny(c, "SCMP_ACT_KILL_PROCESS", json!({})), MKDIR, "Bad system call\n159"),
        Row("trap", |c| deny(c, "SCMP_ACT_TRAP", json!({})), MKDIR, "Bad system call\n159"),
        Row(
            "trace without a tracer",
            |c| deny(c, "SCMP_ACT_TRACE", json!({"errnoRet": 7})),
            MKDIR,
            "mkdir: cannot create directory '/dev/shm/x': Function not implemented\n1",
        ),
        Row(
            "with an argument",
            |c| {
                deny(c, "SCMP_ACT_ERRNO", json!({"args": [{"index": 0, "value": 0x20, "op": "SCMP_CMP_EQ"}]}));
                c["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["umask"]);
            },
            // The call cannot fail, so the shell takes the errno for the old mask.
            "umask 0022; umask 0040; umask 0044; umask",
            "0044",
        ),
    ]);
}

#[test]
fn flags_and_privileges() {
    let Some(place) = Place::new("flags", &[]) else { return };
    const SPECULATION: &str = "grep Speculation_Store_Bypass /proc/self/status | cut -f2";
    let with = |flags: Value| {
        place.prints(
            |c| {
                deny(c, "SCMP_ACT_ERRNO", json!({}));
                c["linux"]["seccomp"]["flags"] = flags;
            },
            SPECULATION,
        )
    };
    for flags in [
        json!(null),
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
    ] {
        let printed = with(flags.clone());
        assert!(!printed.starts_with("status"), "{flags}: {printed}");
        // Where the processor has a mitigation by seccomp, only a filter without the flag turns it on.
        if flags.is_null() || flags.to_string().contains("SPEC_ALLOW") {
            assert!(!printed.contains("force mitigated"), "{flags}: {printed}");
        }
    }
    assert!(with(json!(["SECCOMP_FILTER_FLAG_NOPE"])).contains("seccomp flag SECCOMP_FILTER_FLAG_NOPE is not known"));
    place.assert_nothing_left();
    // With and without no_new_privs; the filter may forbid what its own loading and the change of user need.
    for nnp in [false, true] {
        let printed = place.prints(
            |c| {
                let names = ["setuid", "setgid", "setgroups", "capset", "prctl", "seccomp", "chdir", "setresuid", "setresgid", "mkdir", "mkdirat"];
                c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_KILL"}]});
                c["process"]["noNewPrivileges"] = nnp.into();
                if !nnp {
                    c["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["mkdir", "mkdirat", "mount", "pivot_root", "unshare", "setns", "sethostname"]);
                }
            },
            "mkdir /dev/shm/x; echo $?; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
        );
        assert_eq!(printed, format!("159\nNoNewPrivs:\t{}\nSeccomp:\t2\nBad system call", u8::from(nnp)), "{nnp}");
    }
}

/// An agent that answers with an errno of its own: EXDEV.
const AGENT: &str = "import fcntl, json, os, socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.bind('agent.sock'); s.listen(4)
while True:
    c, _ = s.accept(); data, fds, _, _ = socket.recv_fds(c, 65536, 4)
    open('received', 'wb').write(data)
    if os.fork() == 0:
        while True:
            try:
                b = bytearray(80); fcntl.ioctl(fds[0], 0xc0502100, b)
                fcntl.ioctl(fds[0], 0xc0182101, struct.pack('=QqiI', struct.unpack('=Q', b[:8])[0], 0, -18, 0))
            except OSError: os._exit(0)
";

#[test]
fn an_agent_answers() {
    let Some(place) = Place::new("agent", &[]) else { return };
    let script = place.dir.join("agent.py");
    fs::write(&script, AGENT).unwrap();
    let agent = Command::new("python3").arg(&script).current_dir(&place.dir).stdin(Stdio::null()).spawn();
    let Ok(mut agent) = agent else {
        println!("skipped: needs python3");
        return;
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !place.dir.join("agent.sock").exists() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let socket = place.dir.join("agent.sock");
    let notify = |c: &mut Value| {
        deny(c, "SCMP_ACT_NOTIFY", json!({}));
        c["linux"]["seccomp"]["listenerPath"] = socket.to_str().unwrap().into();
        c["linux"]["seccomp"]["listenerMetadata"] = "of the test".into();
        c["linux"]["seccomp"]["flags"] = json!([]);
    };
    let printed = place.prints(notify, MKDIR);
    let words = "mkdir: cannot create directory '/dev/shm/x': Invalid cross-device link\n1";
    let state: Value = serde_json::from_slice(&fs::read(place.dir.join("received")).unwrap()).unwrap();
    place.edit(notify);
    place.edit(|c| c["process"]["args"] = json!(["/bin/sleep", "100"]));
    place.ok(&["run", "--detach"], &[]);
    let exec = place.output(&["exec"], &["/bin/sh", "-c", MKDIR]);
    place.ok(&["delete", "--force"], &[]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(printed, words);
    assert_eq!(String::from_utf8_lossy(&exec.stdout).trim_end(), words);
    assert_eq!(state["metadata"], "of the test");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["state"]["id"], *place.id);
    assert!(state["pid"].as_u64().unwrap() > 1, "{state}");
    // Nobody listens any more.
    let printed = place.prints(notify, MKDIR);
    assert!(
        printed.starts_with("status exit status: 1") && printed.contains("failed to connect with seccomp agent"),
        "{printed}"
    );
    place.assert_nothing_left();
}
