//! What is shown and typed, and whose terminal it is.

use crate::farm::{Farm, text};
use crate::tty::Terminal;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The worker that has started a machine answers its caller without the supervisor, who may still have to hear of the machine.
#[test]
fn a_console_is_there_as_soon_as_its_machine_has_started() {
    let Some(farm) = Farm::new("prompt") else { return };
    let first = farm.name("first");
    farm.ok(&["machine", "launch", "box", &first]);
    let supervisor = farm.supervisor().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &supervisor]).status().unwrap().success());
    for round in 0..3 {
        let name = farm.name(&format!("r{round}"));
        let mut launch = farm.command(&["machine", "launch", "box", &name]).spawn().unwrap();
        // The request has been passed on.
        let state = farm.dir.join("root").join(&name);
        while !state.exists() && launch.try_wait().unwrap().is_none() {}
        signal("-STOP");
        let launched = launch.wait().unwrap();
        let mut console = farm.command(&["machine", "console", &name]);
        let console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        sleep(Duration::from_millis(200));
        signal("-CONT");
        assert!(launched.success());
        // Ctrl-] leaves it.
        console.stdin.as_ref().unwrap().write_all(&[0x1d]).unwrap();
        let output = console.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

#[test]
fn the_console_is_the_machine_s() {
    let Some(farm) = Farm::new("console") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    farm.types(&name, "echo $((6*7))-there\n", "42-there");
    assert_eq!(farm.show(&name)["state"], "running");
    // Whoever is on it can interrupt what runs there: it controls the session, and not that of the init.
    let pid = farm.show(&name)["pid"].as_i64().unwrap();
    let session = || -> Vec<String> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let terminal = |stat: String| {
            stat.rsplit(") ").next().unwrap_or_default().split(' ').nth(4).unwrap_or_default().to_owned()
        };
        children.split_whitespace().chain([pid.to_string().as_str()]).map(|pid| terminal(stat(pid))).collect()
    };
    farm.until("the shell has no terminal", || matches!(&session()[..], [shell, init] if shell != "0" && init == "0"));
    let logs = farm.ok(&["machine", "logs", "--lines", "1", &name]);
    assert!(farm.ok(&["machine", "logs", &name]).ends_with(&logs) && logs.lines().count() == 1, "{logs}");
    let mut follower = farm
        .command(&["machine", "logs", "--follow", &name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    farm.ok(&["machine", "stop", "--force", &name]);
    farm.fails(&["machine", "console", &name], "does not run");
    assert!(follower.try_wait().unwrap().is_none(), "it may start again");
    farm.ok(&["machine", "rm", &name]);
    assert_eq!(follower.wait().unwrap().code(), Some(1), "it is gone");
}

/// CVE-2016-10124: a command is the machine's own, and what it has of the caller's it can keep. With the terminal that would be
/// what is typed into the host's shell later on.
#[test]
fn a_command_in_a_machine_never_has_the_caller_s_terminal() {
    let Some(farm) = Farm::new("tty") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    let terminal = Terminal::new(24, 80);
    let script = "for n in 0 1 2; do [ -t $n ] && echo terminal $n; done; echo out; echo err >&2; \
        read line; echo got $line; busybox setsid sleep 1000 & exit 7";
    let mut child = terminal.start(farm.command(&["machine", "exec", &name, "sh", "-c", script]));
    terminal.types("typed\n");
    let (status, shown) = terminal.shows(&mut child);
    assert_eq!(status.code(), Some(7), "{shown}");
    for line in ["out\n", "err\n", "got typed\n"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!shown.contains("terminal"), "{shown}");
    assert_eq!(holders(&terminal, &farm, &name), [""; 0]);
    // A terminal of its own, and streams that are none, are as ever.
    let mut child = terminal.start(farm.command(&["machine", "exec", "--tty", &name, "sh", "-c", "stty size; exit 3"]));
    let (status, shown) = terminal.shows(&mut child);
    assert!(status.code() == Some(3) && shown.contains("24 80"), "{status} {shown}");
    assert_eq!(holders(&terminal, &farm, &name), [""; 0]);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

/// The same of the command that tells an init to stop.
#[test]
fn a_machine_that_is_stopped_by_a_command_has_nothing_of_the_caller_s() {
    let Some(farm) = Farm::new("told") else { return };
    let root = farm.dir.join("image");
    // As OpenRC, whose command is the guest's, too: it leaves something behind that keeps what it has.
    let script = |path: &str, text: &str| {
        let file = root.join(path);
        fs::remove_file(&file).unwrap_or_default();
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("sbin/openrc-init", "trap 'exit 0' USR1; while true; do sleep 1; done");
    script(
        "sbin/openrc-shutdown",
        "exec 9>/seen; (for n in 0 1 2; do busybox readlink /proc/$$/fd/$n; done) >&9; \
         busybox setsid sleep 1000 & sleep 1; [ -e /stay ] || kill -USR1 1",
    );
    fs::remove_file(root.join("sbin/init")).unwrap();
    symlink("openrc-init", root.join("sbin/init")).unwrap();
    farm.ok(&["image", "import", "--quiet", "--name", "openrc", root.to_str().unwrap()]);
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "openrc", &name]);
    farm.ok(&["machine", "exec", &name, "touch", "/stay"]);
    let terminal = Terminal::new(24, 80);
    let mut stop = terminal.start(farm.command(&["machine", "stop", "--timeout", "4s", &name]));
    farm.until("it was not told", || farm.run(&["machine", "exec", &name, "cat", "/seen"]).stdout.len() > 20);
    assert_eq!(farm.ok(&["machine", "exec", &name, "cat", "/seen"]), "/dev/null\n/dev/null\n/dev/null\n");
    assert_eq!(holders(&terminal, &farm, &name), [""; 0]);
    let (_, shown) = terminal.shows(&mut stop);
    assert!(shown.contains("stopped"), "{shown}");
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

/// Which of a machine's processes have a terminal of the host's open.
fn holders(terminal: &Terminal, farm: &Farm, name: &str) -> Vec<String> {
    let ours = terminal.peer.try_clone().map(fs::File::from).unwrap().metadata().unwrap();
    let pids = farm.ok(&["ps", "--format", "json", name]);
    let pids: Vec<u32> = serde_json::from_str(&pids).unwrap();
    assert!(pids.len() > 1, "{pids:?}");
    let mut found = Vec::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            if (meta.dev(), meta.ino()) == (ours.dev(), ours.ino()) {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.push(format!("{} {:?}", comm.trim(), entry.file_name()));
            }
        }
    }
    found
}
