//! What becomes of machines when they reboot, and when whoever watches over them ends.

use crate::farm::{Farm, program, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

#[test]
fn machines_do_not_notice_that_their_supervisor_is_killed() {
    let Some(farm) = Farm::new("supervisor") else { return };
    let (one, two) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &one]);
    farm.types(&one, "echo $((1+1))-before\n", "2-before");
    let before = farm.show(&one)["pid"].clone();

    // Killed, it comes back by itself, and has the console.
    let supervisor = farm.supervisor();
    farm.kill(supervisor);
    farm.until("no other supervisor", || farm.supervisors(false).iter().any(|pid| *pid != supervisor));
    let socket = farm.dir.join("root.machines/supervisor.sock");
    farm.until("no socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    farm.types(&one, "echo $((2+2))-after\n", "4-after");
    assert_eq!(farm.show(&one)["pid"], before, "untouched");

    // So does what keeps the consoles meanwhile.
    let keeper = farm.supervisors(true);
    assert_eq!(keeper.len(), 1);
    farm.kill(keeper[0]);
    farm.until("no other keeper", || farm.supervisors(true).iter().any(|pid| *pid != keeper[0]));

    // Told to end, it stays away until somebody needs it.
    let supervisor = farm.supervisor();
    assert!(Command::new("kill").arg(supervisor.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    assert_eq!(farm.ok(&["machine", "exec", &one, "hostname"]).trim(), one);
    // To look at a console is to need it.
    farm.types(&one, "echo $((5+5))-there\n", "10-there");
    farm.ok(&["machine", "launch", "box", &two]);
    farm.types(&one, "echo $((3+3))-again\n", "6-again");
    // Stopping needs none, and nothing stays when no machine runs.
    let supervisor = farm.supervisor();
    assert!(Command::new("kill").arg(supervisor.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    farm.ok(&["machine", "stop", "--all", "--force"]);
    farm.until("the keeper stays", || farm.supervisors(true).is_empty());
    farm.ok(&["machine", "rm", "--all"]);
    farm.assert_nothing_left();
}

#[test]
fn a_machine_is_booting_until_its_init_says_that_it_is_ready() {
    let Some(farm) = Farm::new("ready") else { return };
    let (plain, name) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &plain]);
    assert_eq!(farm.show(&plain)["ready"], Value::Null, "busybox does not say it");
    // By its place it is systemd, by its name busybox's init; what systemd would say is said here.
    let root = farm.dir.join("image");
    fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
    fs::copy("/bin/busybox", root.join("usr/lib/systemd/systemd")).unwrap();
    fs::remove_file(root.join("sbin/init")).unwrap();
    symlink("../usr/lib/systemd/systemd", root.join("sbin/init")).unwrap();
    farm.ok(&["image", "import", "--quiet", "--name", "slow", root.to_str().unwrap()]);
    farm.ok(&["machine", "launch", "slow", &name]);
    assert_eq!(farm.show(&name)["ready"], false);
    assert!(farm.ok(&["machine", "list", &name]).contains("booting"));
    farm.fails(&["machine", "wait", "--timeout", "300ms", &name], "is still booting");

    // What it says while no supervisor is there is not lost.
    let stay = farm.supervisor();
    assert!(Command::new("kill").arg(stay.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let socket_file = farm.dir.join("root").join(&name).join("notify/notify.sock");
    socket.send_to(b"STATUS=1\n", &socket_file).unwrap();
    socket.send_to(b"READY=1\n", &socket_file).unwrap();
    assert_eq!(farm.show(&name)["ready"], false);
    farm.ok(&["machine", "launch", "box", &farm.name("c")]);
    farm.ok(&["machine", "wait", &name, &plain]);
    assert_eq!((&farm.show(&name)["ready"], &farm.show(&name)["state"]), (&true.into(), &"running".into()));
    farm.ok(&["machine", "stop", "--force", &name]);
    assert_eq!(farm.show(&name)["ready"], Value::Null);
    farm.fails(&["machine", "wait", &name], "does not run");
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

#[test]
fn a_reboot_happens_in_place_and_a_power_off_does_not() {
    let Some(farm) = Farm::new("reboot") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    let before = farm.show(&name)["pid"].clone();
    // It may be ended with the rest before it ends by itself.
    farm.run(&["machine", "exec", &name, "/sbin/reboot"]);
    farm.wait(&name, |shown| shown["state"] == "running" && shown["pid"] != before);
    farm.until("it has not booted", || farm.ok(&["machine", "logs", &name]).matches("booted").count() == 2);
    farm.run(&["machine", "exec", &name, "/sbin/poweroff"]);
    let shown = farm.wait(&name, |shown| shown["state"] == "stopped" && shown["last"]["how"] == "powered off");
    assert_eq!(shown["last"]["error"], Value::Null);
    farm.ok(&["machine", "rm", &name]);
    farm.assert_nothing_left();
}

/// Two supervisors must not take one machine for theirs, nor a command for stopped what runs under another root.
#[test]
fn a_machine_that_runs_under_another_root_is_left_alone() {
    let Some(farm) = Farm::new("roots") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    let other = farm.dir.join("other");
    let under_other = |words: &[&str]| {
        let mut command = Command::new(program());
        command.arg("--root").arg(&other).args(words).env("OFFSHOOT_STORE", farm.dir.join("store"));
        text(&command.stdin(Stdio::null()).output().unwrap())
    };
    for verb in ["start", "stop", "rm", "show"] {
        let said = under_other(&["machine", verb, &name]);
        assert!(
            said.contains("runs under another root") && said.contains(farm.dir.to_str().unwrap()),
            "{verb}: {said}"
        );
    }
    assert!(under_other(&["machine", "rollback", &name, "s"]).contains("runs under another root"));
    assert!(under_other(&["machine", "rm", "--force", &name]).contains("runs under another root"));
    assert_eq!(farm.ok(&["machine", "exec", &name, "hostname"]).trim(), name);

    // Of another store, it is another machine, but its cgroup has the same name.
    let (store, third) = (farm.dir.join("store-b"), farm.dir.join("third"));
    let of_other = |words: &[&str]| {
        let mut command = Command::new(program());
        command.arg("--root").arg(&third).args(words).env("OFFSHOOT_STORE", &store);
        text(&command.stdin(Stdio::null()).output().unwrap())
    };
    of_other(&["image", "import", "--quiet", "--name", "box", farm.dir.join("image").to_str().unwrap()]);
    let said = of_other(&["machine", "launch", "box", &name]);
    assert!(said.contains("cgroup is not empty") && said.contains("choose another name"), "{said}");
    assert!(of_other(&["machine", "rm", &name]).contains("1 machine removed"));
    assert_eq!(farm.ok(&["machine", "exec", &name, "hostname"]).trim(), name);

    farm.ok(&["machine", "stop", "--force", &name]);
    assert!(under_other(&["machine", "rm", &name]).contains("1 machine removed"));
    farm.assert_nothing_left();
}
