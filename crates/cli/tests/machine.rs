//! Machines against the kernel: whole systems with busybox as init. Each test has a store and a root directory of its own.

#![forbid(unsafe_code)]

mod farm;
mod tty;

use farm::{Farm, PATIENCE, text};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tty::Terminal;

#[test]
fn a_machine_lives_from_launch_to_removal() {
    let Some(farm) = Farm::new("life") else { return };
    let name = farm.name("a");
    assert!(farm.ok(&["machine", "launch", "box", &name, "--pids", "100"]).starts_with("1 machine started in"));
    farm.fails(&["machine", "launch", "box", &name], "already");
    let shown = farm.wait(&name, |shown| shown["processes"].as_u64().unwrap() >= 2);
    assert_eq!((&shown["state"], &shown["limits"]["pids"]), (&"running".into(), &100.into()));
    assert!(shown["pid"].as_i64().unwrap() > 0, "{shown}");
    assert!(farm.ok(&["machine", "list"]).contains(&name));
    assert_eq!(farm.ok(&["machine", "exec", &name, "hostname"]).trim(), name);
    assert_eq!(farm.run(&["machine", "exec", &name, "sh", "-c", "exit 7"]).status.code(), Some(7));
    let maps = farm.ok(&["machine", "exec", &name, "cat", "/proc/self/uid_map"]);
    let first: u32 = maps.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(maps.split_whitespace().next() == Some("0") && first > 0, "{maps}");

    // Limits change at once and stay.
    farm.ok(&["machine", "set", &name, "--memory", "64M", "--order", "3"]);
    let pid = shown["pid"].as_i64().unwrap();
    let limit = cgroup_file(pid, "memory", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(limit.trim(), "67108864");
    farm.fails(&["machine", "set", &name, "--shares", "1"], "2 to 262144");
    farm.ok(&["machine", "exec", &name, "touch", "/kept"]);
    farm.fails(&["machine", "rm", &name], "is running");
    farm.fails(&["machine", "rollback", &name, "s"], "it is running");

    assert!(farm.ok(&["machine", "stop", &name]).starts_with("1 machine stopped in"));
    assert_eq!(farm.show(&name)["state"], "stopped");
    assert!(farm.ok(&["machine", "logs", &name]).contains("bye"));
    farm.fails(&["machine", "exec", &name, "true"], "does not run");
    // Whose it is removes it.
    farm.fails(&["clone", "rm", &name], "is the file system of machine");
    farm.fails(&["clone", "rollback", &name, "s"], "is the file system of machine");
    for snapshot in ["s", "t"] {
        farm.ok(&["machine", "snapshot", &name, snapshot]);
    }
    assert_eq!(farm.show(&name)["snapshots"], serde_json::json!(["s", "t"]));
    farm.ok(&["machine", "forget", &name, "t"]);
    farm.fails(&["machine", "rollback", &name, "t"], "t");
    assert_eq!(farm.show(&name)["snapshots"], serde_json::json!(["s"]));
    farm.fails(&["machine", "set", &name], "no option says what to change");
    farm.ok(&["machine", "start", &name]);
    farm.fails(&["machine", "start", &name], "is running");
    let shown = farm.show(&name);
    assert_eq!((&shown["limits"]["memory"], &shown["order"]), (&(64 << 20).into(), &3.into()));
    farm.ok(&["machine", "exec", &name, "cat", "/kept"]);
    farm.ok(&["machine", "exec", &name, "touch", "/lost"]);
    farm.ok(&["machine", "stop", &name, "--force"]);
    farm.ok(&["machine", "rollback", &name, "s"]);

    // What a machine has become is an image for others.
    let other = farm.name("b");
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    farm.ok(&["machine", "exec", &other, "cat", "/kept"]);
    assert!(!farm.run(&["machine", "exec", &other, "cat", "/lost"]).status.success());
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    farm.assert_nothing_left();
}

/// A file of the cgroup that a process is in, of one controller.
fn cgroup_file(pid: i64, controller: &str, names: &[&str]) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |line: &str, wanted: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (controllers == wanted).then(|| path.trim_start_matches('/').to_owned())
    };
    let v1 = all
        .lines()
        .find_map(|line| of(line, controller))
        .map(|path| Path::new("/sys/fs/cgroup").join(controller).join(path));
    let v2 = all.lines().find_map(|line| of(line, "")).map(|path| Path::new("/sys/fs/cgroup").join(path));
    // The guest's init is below what it was given.
    let dirs = v1.iter().chain(&v2).flat_map(|path| path.ancestors());
    let mut files = dirs.flat_map(|dir| names.iter().map(|name| dir.join(name)));
    let text = files.find_map(|file| fs::read_to_string(file).ok().filter(|text| text.trim() != "max"));
    text.expect("no such file in the cgroup")
}

#[test]
fn a_snapshot_of_a_running_machine_is_of_one_moment() {
    let Some(farm) = Farm::new("moment") else { return };
    let (name, other) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &name]);
    let sh = |name: &str, script: &str| farm.ok(&["machine", "exec", name, "sh", "-c", script]);
    // A whiteout, and a directory that hides the image's.
    sh(&name, "echo one > /kept; busybox rm /bin/nc; busybox rm -r /root; busybox mkdir /root; touch /root/new");
    // Nothing is written between two numbers of the one that counts.
    sh(
        &name,
        "(i=0; while true; do i=$((i+1)); echo $i > /first; echo $i > /second; done) </dev/null >/dev/null 2>&1 &",
    );
    sleep(Duration::from_millis(300));
    farm.ok(&["machine", "snapshot", &name, "s"]);
    farm.fails(&["machine", "snapshot", &name, "s"], "exists already");
    assert_eq!(farm.show(&name)["state"], "running");
    let then: u64 = sh(&name, "cat /first").trim().parse().unwrap_or(0);
    sleep(Duration::from_millis(300));
    assert!(sh(&name, "cat /first").trim().parse::<u64>().unwrap_or(u64::MAX) > then, "it stands still");
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    assert_eq!(sh(&other, "cat /kept; ls /root 2>/dev/null || busybox ls /root"), "one\nnew\n");
    assert!(!farm.run(&["machine", "exec", &other, "busybox", "test", "-e", "/bin/nc"]).status.success());

    sh(&name, "echo two > /kept; echo > /bin/nc");
    farm.ok(&["machine", "stop", &name]);
    farm.ok(&["machine", "rollback", &name, "s"]);
    farm.ok(&["machine", "start", &name]);
    assert_eq!(sh(&name, "cat /kept; busybox ls /root"), "one\nnew\n");
    assert!(!farm.run(&["machine", "exec", &name, "busybox", "test", "-e", "/bin/nc"]).status.success());
    let number = |file: &str| sh(&name, &format!("cat {file}")).trim().parse::<u64>().unwrap_or(0);
    let (first, second) = (number("/first"), number("/second"));
    // Empty while the shell has it open.
    assert!(first == 0 || second == 0 || first == second || first == second + 1, "{first} {second}");
    assert!(first + second > 0);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}

#[test]
fn volumes_belong_to_whom_they_belong_to_on_the_host() {
    let Some(farm) = Farm::new("volumes") else { return };
    let (name, other, shared, fixed) =
        (farm.name("a"), farm.name("b"), farm.dir.join("shared"), farm.dir.join("fixed"));
    for dir in [&shared, &fixed] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("old"), "of the host\n").unwrap();
    }
    std::os::unix::fs::chown(fixed.join("old"), Some(1000), Some(1000)).unwrap();
    let (writable, readable) =
        (format!("{}:/srv/shared", shared.display()), format!("{}:/srv/fixed:ro", fixed.display()));
    for (bad, why) in
        [("/nowhere:/srv", "No such file"), ("/etc:/", "a path below /"), ("/etc", "it is SOURCE:DESTINATION")]
    {
        farm.fails(&["machine", "launch", "box", &name, "--volume", bad], why);
        farm.fails(&["machine", "show", &name], "there is no machine");
    }
    farm.ok(&["machine", "launch", "box", &name, "-v", &writable, "-v", &readable]);
    let sh = |name: &str, script: &str| farm.run(&["machine", "exec", name, "busybox", "sh", "-c", script]);
    let said =
        text(&sh(&name, "cat /srv/shared/old && echo new > /srv/shared/new && busybox stat -c %u:%g /srv/fixed/old"));
    assert_eq!(said, "of the host\n1000:1000\n");
    let new = fs::metadata(shared.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
    for refused in ["echo > /srv/fixed/old", "busybox umount /srv/fixed", "busybox mount -o remount,rw /srv/fixed"] {
        assert!(!sh(&name, refused).status.success(), "{refused}");
    }
    // Neither in a snapshot nor gone with the machine, and a clone has them, too.
    farm.ok(&["machine", "clone", "--start", &name, &other]);
    assert_eq!(text(&sh(&other, "cat /srv/shared/new")), "new\n");
    assert_eq!(farm.show(&other)["volumes"][1]["readOnly"], true);
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    assert!(shared.join("new").exists());
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
fn many_come_and_go_at_once_and_one_that_fails_keeps_no_other() {
    let Some(farm) = Farm::new("many") else { return };
    let template = farm.name("w{}");
    let said = farm.ok(&["machine", "launch", "box", "--count", "6", "--name", &template]);
    assert!(said.starts_with("6 machines started in"), "{said}");
    let pattern = farm.name("w?");
    assert_eq!(farm.ok(&["machine", "exec", &pattern, "hostname"]).matches("==> ").count(), 6);
    let list: Value = serde_json::from_str(&farm.ok(&["machine", "list", "--format", "json"])).unwrap();
    assert!(list.as_array().unwrap().iter().all(|one| one["state"] == "running"));
    let since = Instant::now();
    assert!(farm.ok(&["machine", "stop", &pattern]).starts_with("6 machines stopped in"));
    // One after the other they would take 2 s each, which busybox's init sleeps.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let broken = farm.name("w3");
    fs::write(farm.dir.join("store/machines").join(&broken).join("config.json"), "{").unwrap();
    let output = farm.run(&["machine", "start", "--all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("5 machines started in") && text(&output).contains("1 failed"), "{}", text(&output));
    assert!(text(&output).contains(&format!("{broken}: failed to read")), "{}", text(&output));
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
    farm.fails(&["machine", "launch", "none", "--count", "2", "--name", &template], "no image");
    farm.fails(&["machine", "launch", "box"], "named either");
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

/// The definition of a machine, changed as by hand.
fn edit(farm: &Farm, name: &str, change: impl FnOnce(&mut Value)) {
    let file = farm.dir.join("store/machines").join(name).join("machine.json");
    let mut machine: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut machine);
    // Editors need longer than the kernel's clock of files ticks.
    sleep(Duration::from_millis(20));
    fs::write(&file, machine.to_string()).unwrap();
}

#[test]
fn a_definition_that_was_changed_by_hand_is_what_starts() {
    let Some(farm) = Farm::new("edit") else { return };
    let (name, other) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &name, &other, "--no-start", "--autostart"]);
    edit(&farm, &name, |machine| {
        machine["limits"]["memory"] = (48 << 20).into();
        machine["env"] = serde_json::json!(["WHO=me"]);
    });
    farm.ok(&["machine", "start", &name]);
    let pid = farm.show(&name)["pid"].as_i64().unwrap();
    assert_eq!(cgroup_file(pid, "memory", &["memory.limit_in_bytes", "memory.max"]).trim(), "50331648");
    assert!(farm.ok(&["machine", "exec", &name, "cat", "/proc/1/environ"]).contains("WHO=me"));
    farm.ok(&["machine", "stop", "--force", &name]);
    for (wrong, says) in [("memroy", "unknown field `memroy`"), ("pids", "it is 1 to")] {
        edit(&farm, &name, |machine| machine["limits"][wrong] = 0.into());
        farm.fails(&["machine", "start", &name], says);
        edit(&farm, &name, |machine| drop(machine["limits"].as_object_mut().unwrap().remove(wrong)));
    }
    // A copy is not another machine.
    let (from, to) =
        (farm.dir.join("store/machines").join(&name), farm.dir.join("store/machines").join(farm.name("copy")));
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("machine.json"), to.join("machine.json")).unwrap();
    farm.fails(&["machine", "start", &farm.name("copy")], "it is of machine");
    fs::remove_dir_all(&to).unwrap();

    // One that cannot be read keeps no other from anything, and can be stopped and removed.
    farm.ok(&["machine", "start", &name]);
    fs::write(from.join("machine.json"), "{").unwrap();
    let supervisor = farm.supervisor();
    farm.kill(supervisor);
    farm.until("no other supervisor", || farm.supervisors(false).iter().any(|pid| *pid != supervisor));
    let started = farm.run(&["machine", "start", "--autostart"]);
    assert!(
        !started.status.success() && text(&started).contains(&format!("{name}: failed to read")),
        "{}",
        text(&started)
    );
    assert_eq!(farm.show(&other)["state"], "running");
    assert!(farm.ok(&["machine", "list"]).contains(&other));
    assert!(text(&farm.run(&["machine", "show", "--all"])).contains(&other));
    farm.ok(&["machine", "stop", "--force", &name]);
    farm.ok(&["machine", "rm", "--force", &name, &other]);
    farm.assert_nothing_left();
}

#[test]
fn interfaces_of_the_host_come_back() {
    let Some(mut farm) = Farm::new("device") else { return };
    farm.go_apart();
    let network = farm.network();
    let ip = |words: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={network}")).arg("ip").args(words.split(' '));
        command.output().unwrap()
    };
    assert!(ip("link add v0 type veth peer name v1").status.success());
    assert!(ip("link set v1 up").status.success());
    let name = farm.name("a");
    let here = || ip("link show v0").status.success();
    let there = || text(&farm.run(&["machine", "exec", &name, "ip", "link"])).contains("v0@");
    farm.ok(&["machine", "launch", "box", &name, "--network", "device:v0,macvlan:v1"]);
    assert!(there() && !here());
    assert!(text(&farm.run(&["machine", "exec", &name, "ip", "link"])).contains("eth1@"));
    let before = farm.show(&name)["pid"].clone();
    farm.run(&["machine", "exec", &name, "/sbin/reboot"]);
    farm.wait(&name, |shown| shown["state"] == "running" && shown["pid"] != before);
    assert!(there() && !here());
    farm.ok(&["machine", "restart", "--force", &name]);
    assert!(there());
    farm.ok(&["machine", "stop", "--force", &name]);
    assert!(here());
    // Without a supervisor, too.
    farm.ok(&["machine", "start", &name]);
    let supervisor = farm.supervisor();
    assert!(Command::new("kill").arg(supervisor.to_string()).status().unwrap().success());
    farm.until("it does not end", || farm.supervisors(false).is_empty());
    assert!(!here());
    farm.ok(&["machine", "rm", "--force", &name]);
    assert!(here());
    farm.assert_nothing_left();
}

/// Whatever command is killed, and whenever: `rm` removes what is left, and the names can be used again.
#[test]
fn a_command_that_is_killed_leaves_nothing_that_rm_does_not_remove() {
    let Some(mut farm) = Farm::new("killed") else { return };
    farm.go_apart();
    farm.ok(&["network", "create", "n", "--range", "10.97.0.0/28", "--no-nat", "--no-names"]);
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut random = seed | 1;
    let mut below = |limit: u64| {
        // Marsaglia's xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % limit
    };
    let (template, all, other) = (farm.name("w{}"), farm.name("w*"), farm.name("copy"));
    let one = farm.name("w1");
    let launch = ["machine", "launch", "box", "--count", "5", "--name", &template, "-n", "n"];
    let verbs: [&[&str]; 7] = [
        &launch,
        &["machine", "rm", "--force", &all],
        &["machine", "stop", "--force", &all],
        &["machine", "restart", "--force", &all],
        &["machine", "snapshot", &one, "s"],
        &["machine", "clone", &one, &other],
        &["machine", "set", &all, "--memory", "90M"],
    ];
    for round in 0..14 {
        let verb = verbs[round % verbs.len()];
        if round % verbs.len() != 0 {
            farm.ok(&launch);
        }
        let mut child = farm.command(verb).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_micros(below(150_000)));
        let _ = child.kill();
        child.wait().unwrap();
        let output = farm.run(&["machine", "rm", "--all", "--force"]);
        assert!(output.status.success(), "round {round}, {verb:?}: {}", text(&output));
        // A start that the supervisor was told of goes on after its caller's end, and finds its machine gone.
        farm.until("something is left", || {
            let empty = |dir: &str| fs::read_dir(farm.dir.join(dir)).map_or(0, Iterator::count) == 0;
            empty("root") && empty("store/machines") && empty("store/clones")
        });
        let shown: Value = serde_json::from_str(&farm.ok(&["network", "show", "n"])).unwrap();
        assert_eq!(shown["leases"], serde_json::json!({}), "round {round}, {verb:?}");
    }
    farm.ok(&launch);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.ok(&["network", "rm", "n"]);
    farm.assert_nothing_left();
}

#[test]
fn machines_of_a_network_know_each_other() {
    let Some(mut farm) = Farm::new("net") else { return };
    farm.go_apart();
    let nat: &[&str] = if Command::new("nft").arg("--version").output().is_ok() { &[] } else { &["--no-nat"] };
    farm.ok(&[&["network", "create", "default", "--range", "10.98.0.0/24"], nat].concat());
    let (one, two) = (farm.name("a"), farm.name("b"));
    farm.ok(&["machine", "launch", "box", &one, &two]);
    assert_eq!(farm.show(&two)["addresses"], serde_json::json!(["10.98.0.3"]));
    let shown = farm.ok(&["machine", "exec", &two, "ip", "address", "show", "eth0"]);
    assert!(shown.contains("10.98.0.3/24"), "{shown}");
    let server = "nc -l -p 7 -e echo here </dev/null >/dev/null 2>&1 &";
    farm.ok(&["machine", "exec", &one, "sh", "-c", server]);
    let target = if Command::new("dnsmasq").arg("--version").output().is_ok() { one.as_str() } else { "10.98.0.2" };
    let end = Instant::now() + PATIENCE;
    loop {
        let output = farm.run(&["machine", "exec", &two, "nc", target, "7"]);
        if text(&output).trim() == "here" {
            break;
        }
        assert!(Instant::now() < end, "{}", text(&output));
    }
    // A name server that ends comes back, even if some machine always has something to say.
    let server = || fs::read_to_string(farm.dir.join("root.networks/default/pid")).ok()?.trim().parse::<u32>().ok();
    if let Some(before) = server() {
        let talks = "while true; do echo x; busybox usleep 500000; done >/dev/console 2>&1 </dev/null &";
        farm.ok(&["machine", "exec", &one, "sh", "-c", talks]);
        farm.kill(before);
        farm.until("no name server", || server().is_some_and(|now| now != before));
        let status = fs::read_to_string(format!("/proc/{}/status", server().unwrap())).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "it could not be told to end: {status}");
    }
    // An address that is changed by hand is the machine's, for others too.
    farm.ok(&["machine", "stop", "--force", &two]);
    edit(&farm, &two, |machine| machine["networks"][0]["address"] = "10.98.0.2".into());
    farm.fails(&["machine", "start", &two], "is that of");
    edit(&farm, &two, |machine| machine["networks"][0]["address"] = "10.98.0.77".into());
    farm.ok(&["machine", "start", &two]);
    assert!(farm.ok(&["machine", "exec", &two, "ip", "address", "show", "eth0"]).contains("10.98.0.77/24"));
    let leases = farm.ok(&["network", "show", "default"]);
    assert!(leases.contains("10.98.0.77") && !leases.contains("10.98.0.3\""), "{leases}");
    // A network that does not come up keeps no machine of another from starting.
    let three = farm.name("c");
    farm.ok(&["network", "create", "other", "--no-nat", "--no-names"]);
    farm.ok(&["machine", "launch", "box", &three, "-n", "other", "--no-start"]);
    let file = farm.dir.join("store/networks/other/network.json");
    let network = fs::read(&file).unwrap();
    fs::write(&file, "{").unwrap();
    farm.ok(&["machine", "stop", "--force", &two]);
    let output = farm.run(&["machine", "start", &two, &three]);
    assert!(text(&output).contains("1 machine started in") && text(&output).contains("1 failed"), "{}", text(&output));
    fs::write(&file, network).unwrap();
    farm.fails(&["network", "rm", "default"], "2 machines are in it");
    // Of a machine in several networks one server is asked, which knows the names of all.
    if server().is_some() {
        farm.ok(&["network", "create", "third", "--no-nat"]);
        let [both, there] = ["d", "e"].map(|name| farm.name(name));
        farm.ok(&["machine", "launch", "box", &both, "-n", "default,third"]);
        farm.ok(&["machine", "launch", "box", &there, "-n", "third"]);
        for wanted in [&there, &one] {
            let end = Instant::now() + PATIENCE;
            // A server has not read the new names as soon as it is told of them.
            while !farm
                .run(&["machine", "exec", &both, "busybox", "ping", "-c", "1", "-W", "5", wanted])
                .status
                .success()
            {
                assert!(Instant::now() < end, "{}", text(&farm.run(&["machine", "exec", &both, "nslookup", wanted])));
            }
        }
    }
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.run(&["network", "rm", "third"]);
    farm.ok(&["network", "rm", "default", "other"]);
    farm.assert_nothing_left();
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

/// Two supervisors must not take one machine for theirs, nor a command for stopped what runs under another root.
#[test]
fn a_machine_that_runs_under_another_root_is_left_alone() {
    let Some(farm) = Farm::new("roots") else { return };
    let name = farm.name("a");
    farm.ok(&["machine", "launch", "box", &name]);
    let other = farm.dir.join("other");
    let under_other = |words: &[&str]| {
        let mut command = Command::new(farm::program());
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
        let mut command = Command::new(farm::program());
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

/// Who starts many makes their mounts where there are none of the host's: what a guest sees and can undo is the same.
#[test]
fn machines_that_start_together_have_the_mounts_of_one_that_starts_alone() {
    let Some(farm) = Farm::new("together") else { return };
    let names = ["a", "b", "c"].map(|name| farm.name(name));
    farm.ok(&["machine", "launch", "box", &names[0]]);
    farm.ok(&["machine", "launch", "box", &names[1], &names[2]]);
    let guest = |name: &str, script: &str| farm.ok(&["machine", "exec", name, "sh", "-c", script]);
    // Without numbers, which are each machine's own: of mounts, devices and users.
    let mounts = |name: &str| {
        let text = guest(name, "cat /proc/self/mountinfo").replace(name, "NAME");
        text.lines().map(|line| line.replace(|letter: char| letter.is_ascii_digit(), "")).collect::<Vec<_>>()
    };
    // What is locked stays.
    let undone = |name: &str| {
        let script = "busybox umount / 2>/dev/null && echo left; \
                      for at in $(busybox cut -d' ' -f5 /proc/self/mountinfo); do \
                      busybox umount -l $at 2>/dev/null && echo $at; done; \
                      busybox ls -a /..; busybox ls /dev; busybox readlink /dev/core; true";
        guest(name, script)
    };
    let (alone, first) = (mounts(&names[0]), undone(&names[0]));
    assert!(alone.len() > 10, "{alone:?}");
    for name in &names[1..] {
        assert_eq!(mounts(name), alone);
        assert_eq!(undone(name), first);
    }
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}
