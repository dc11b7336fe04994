//! Bad input to `machine` and `network`: each flag with values that cannot be. What is refused leaves nothing behind, and
//! changes nothing.

#![forbid(unsafe_code)]

mod farm;

use farm::{Farm, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A flag, a value that is refused, and words of the message.
type Bad = (&'static str, &'static str, &'static str);

/// Of `launch` and `set`.
const LIMITS: &[Bad] = &[
    ("--memory", "", "memory"),
    ("--memory", "x", "size"),
    ("--memory", "0", "size"),
    ("--memory", "-5", "size"),
    ("--memory", "5X", "size"),
    ("--memory", "17", "memory"),
    ("--memory", "99999999999999999999", "size"),
    ("--cpuset", "", "cpuset"),
    ("--cpuset", "x", "cpuset"),
    ("--cpuset", "3-1", "cpuset"),
    ("--cpuset", "0-65000", "cpuset"),
    ("--cpuset", "99999999999", "cpuset"),
    ("--cpus", "", "cpus"),
    ("--cpus", "0", "cpus"),
    ("--cpus", "-1", "cpus"),
    ("--cpus", "many", "cpus"),
    ("--shares", "1", "shares"),
    ("--shares", "x", "shares"),
    ("--shares", "999999999", "shares"),
    ("--pids", "0", "pids"),
    ("--pids", "-1", "pids"),
    ("--pids", "99999999", "pids"),
    ("--pids", "x", "pids"),
    ("--io", "9", "io"),
    ("--io", "1001", "io"),
    ("--io", "x", "io"),
    ("--order", "x", "order"),
    ("--order", "99999999999999999999", "order"),
    ("--nonsense", "x", "nonsense"),
];

/// Of `launch` alone.
const LAUNCH: &[Bad] = &[
    ("--network", "missing", "missing"),
    ("--network", "Bad_Name", "network"),
    ("--network", "", "network"),
    ("--network", "none,n", "none"),
    ("--network", "n,n", "twice"),
    ("--network", "macvlan:", "network"),
    ("--network", "macvlan:nowhere0", "nowhere0"),
    ("--network", "device:nowhere0", "nowhere0"),
    ("--network", "device:lo", "lo"),
    ("--network", "macvlan:../../etc", "network"),
    ("--network", "device:a-name-that-is-too-long", "network"),
    ("--network", "bridge:x", "network"),
    ("--address", "x", "address"),
    ("--address", "10.94.0.1", "10.94.0.1"),
    ("--address", "10.94.0.15", "10.94.0.15"),
    ("--address", "10.95.0.2", "10.95.0.2"),
    ("--address", "::1", "address"),
    ("--env", "x", "env"),
    ("--env", "=x", "env"),
    ("--device", "/dev/nowhere", "/dev/nowhere"),
    ("--device", "/etc/passwd", "device"),
    ("--device", "", "device"),
    ("--init", "", "init"),
    ("--init", "/nowhere", "/nowhere"),
    ("--init", "nowhere", "nowhere"),
    ("--driver", "floppy", "floppy"),
    ("--driver", "lvm-thin", ""),
    ("--count", "2", "--name"),
    ("--store", "/proc/nowhere", ""),
];

/// Everything that could have been left, by path; directories that are always there are not counted.
fn found(farm: &Farm) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs =
        ["root", "root.machines", "root.networks", "store/machines", "store/clones", "store/networks", "store/images"]
            .map(|dir| farm.dir.join(dir))
            .to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => {
                    all.insert(entry.path(), Vec::new());
                    // What a running system writes is its own.
                    if dir != farm.dir.join("store/clones") {
                        dirs.push(entry.path());
                    }
                }
                false => drop(all.insert(entry.path(), fs::read(entry.path()).unwrap_or_default())),
            }
        }
    }
    all.retain(|path, _| {
        !path.to_string_lossy().contains("/console.log") && path.extension().is_none_or(|end| end != "log")
    });
    all.extend(
        fs::metadata(farm.dir.join("store/machines.making")).ok().map(|_| ("machines.making".into(), Vec::new())),
    );
    all
}

/// Runs each and tells of all that are not refused, or leave something.
fn refused(farm: &Farm, tries: &[(Vec<&str>, &str)]) {
    let mut wrong = Vec::new();
    let mut before = found(farm);
    for (words, says) in tries {
        let output = farm.run(words);
        let said = text(&output);
        if output.status.code() != Some(1) || !said.contains(says) {
            wrong.push(format!("{words:?}: {}, {said}", output.status));
        }
        let after = found(farm);
        let differ = |path: &&PathBuf| before.get(*path) != after.get(*path);
        let left: Vec<_> = after.keys().chain(before.keys()).filter(differ).collect();
        if !left.is_empty() {
            wrong.push(format!("{words:?}: has changed {left:?}"));
        }
        before = after;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_with_a_machine_is_said_before_any_of_it_is_made() {
    let Some(mut farm) = Farm::new("refused") else { return };
    farm.go_apart();
    farm.ok(&["network", "create", "n", "--range", "10.94.0.0/28", "--no-nat", "--no-names"]);
    let (name, other) = (farm.name("a"), farm.name("b"));
    let mut tries: Vec<(Vec<&str>, &str)> = Vec::new();
    for (flag, value, says) in LIMITS.iter().chain(LAUNCH) {
        let network: &[&str] = if *flag == "--network" { &[] } else { &["-n", "n"] };
        tries.push(([&["machine", "launch", "box", &name, flag, value], network].concat(), says));
    }
    let template = farm.name("w{}");
    let long = "x".repeat(64);
    for (words, says) in [
        (vec!["launch", "nothing", &name], "nothing"),
        (vec!["launch", "../box", &name], ""),
        (vec!["launch", "box"], "named"),
        (vec!["launch", "box", "Bad_Name"], "Bad_Name"),
        (vec!["launch", "box", &long], "63"),
        (vec!["launch", "box", &name, &name], "is named twice"),
        (vec!["launch", "box", &name, "--name", &template, "--count", "2"], "either"),
        (vec!["launch", "box", "--name", &template, "--count", "0"], "count"),
        (vec!["launch", "box", "--name", &template, "--count", "-1"], "count"),
        (vec!["launch", "box", "--name", &template, "--count", "100000000"], "count"),
        (vec!["launch", "box", "--name", &template, "--count", "2", "--first", "-1"], "first"),
        (vec!["launch", "box", "--name", "a{}{}", "--count", "2"], "once"),
        (vec!["launch", "box", "--name", &template, "--count", "2", "-n", "n", "--address", "10.94.0.3"], "address"),
        (vec!["launch", "box", "--name", &template, "--count", "14", "-n", "n"], "address"),
        (vec!["launch", "box", "--name", &template, "--count", "2", "-n", "device:nowhere0"], ""),
        (vec!["launch", "box", &name, "-n", "none", "--address", "10.94.0.3"], "address"),
        (vec!["clone", &name, &other], &name),
        (vec!["set", &name, "--pids", "5"], &name),
    ] {
        tries.push(([&["machine"], &words[..]].concat(), says));
    }
    for (words, says) in [
        (vec!["create", "m", "--range", ""], "range"),
        (vec!["create", "m", "--range", "x"], "range"),
        (vec!["create", "m", "--range", "10.94.0.0/33"], "range"),
        (vec!["create", "m", "--range", "10.94.0.0/31"], "range"),
        (vec!["create", "m", "--range", "10.94.0.8/29"], "10.94.0"),
        (vec!["create", "m", "--range", "10.94.0.1/24"], ""),
        (vec!["create", "n"], "there is one of that name"),
        (vec!["create", "Bad_Name"], "Bad_Name"),
        (vec!["create", "a-name-that-is-too-long-for-an-interface"], "name"),
        (vec!["rm", "missing"], "missing"),
        (vec!["show", "missing"], "missing"),
    ] {
        tries.push(([&["network"], &words[..]].concat(), says));
    }
    refused(&farm, &tries);
    farm.ok(&["network", "rm", "n"]);
    farm.assert_nothing_left();
}

#[test]
fn what_is_refused_changes_no_machine() {
    let Some(farm) = Farm::new("unchanged") else { return };
    let (runs, rests, other) = (farm.name("a"), farm.name("b"), farm.name("c"));
    farm.ok(&["machine", "launch", "box", &runs, "--pids", "100"]);
    farm.ok(&["machine", "launch", "box", &rests, "--no-start", "--memory", "90M"]);
    let shown = || [&runs, &rests].map(|name| farm.show(name)["limits"].clone());
    let before: [Value; 2] = shown();
    let mut tries: Vec<(Vec<&str>, &str)> = Vec::new();
    for (flag, value, says) in LIMITS {
        for name in [&runs, &rests] {
            tries.push((vec!["machine", "set", name, flag, value], says));
        }
    }
    for name in [&runs, &rests] {
        tries.push((vec!["machine", "clone", name, &runs], "already"));
        tries.push((vec!["machine", "clone", name, &other, "Bad_Name"], "Bad_Name"));
        tries.push((vec!["machine", "clone", name, &other, &other], "is named twice"));
        tries.push((vec!["machine", "rollback", name, "missing"], ""));
        tries.push((vec!["machine", "launch", "box", name], "already"));
    }
    refused(&farm, &tries);
    assert_eq!(shown(), before);
    assert!(Path::new(&farm.dir.join("store/machines").join(&rests)).exists());
    farm.ok(&["machine", "start", &rests]);
    farm.ok(&["machine", "rm", "--all", "--force"]);
    farm.assert_nothing_left();
}
