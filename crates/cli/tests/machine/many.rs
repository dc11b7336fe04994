//! Many at once, and what is left of commands that were killed.

use crate::farm::{Farm, text};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

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
