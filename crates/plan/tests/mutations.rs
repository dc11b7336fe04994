//! Damaged configurations, processes and resources: each is planned or refused with sentences, and nothing panics.

#![forbid(unsafe_code)]

#[path = "../../spec/tests/mutate/mod.rs"]
mod mutate;

use mutate::Random;
use offshoot_plan::cgroup::{self, CgroupHost, Driver, HostHierarchy, Mode, SystemdHost};
use offshoot_plan::{ExecRequest, Host, Problem, Request, build, exec};
use offshoot_spec::{Process, Resources, Spec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn host(mode: Mode) -> Host {
    let hierarchy = |controllers: &[&str], mount_point: &str| HostHierarchy {
        controllers: controllers.iter().map(ToString::to_string).collect(),
        mount_point: mount_point.into(),
        own_path: Some(PathBuf::from("runtime/own")),
    };
    let v1 = ["cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];
    let hierarchies = v1.iter().map(|name| hierarchy(&[name], &format!("/sys/fs/cgroup/{name}"))).collect();
    Host {
        euid: 0,
        in_user_namespace: false,
        cgroup: CgroupHost {
            mode,
            hierarchies: if mode == Mode::V2 { Vec::new() } else { hierarchies },
            unified: Some(hierarchy(&["cpuset", "cpu", "io", "memory", "pids", "hugetlb"], "/sys/fs/cgroup")),
            in_userns: false,
            huge_page_sizes: vec!["2MB".into()],
            systemd: Some(SystemdHost { version: 257, control_group: "/".into() }),
        },
        seccomp: offshoot_seccomp::Kernel { native: offshoot_seccomp::Arch::X86_64, flags: u64::MAX },
        apparmor: true,
        selinux: true,
        last_cap: 40,
        bounding: u64::MAX,
        resctrl: true,
    }
}

fn corpus() -> Vec<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    files.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

/// What a person can do something with.
fn assert_sentence(text: &str, about: impl FnOnce() -> String) {
    let spoken =
        text.chars().filter(|c| c.is_alphabetic()).count() > 5 && !text.ends_with('.') && !text.contains("Error {");
    assert!(spoken, "{text:?} about {}", about());
}

fn judge<T>(result: Result<T, Vec<Problem>>, tree: &Value) -> bool {
    let Err(problems) = result else { return true };
    assert!(!problems.is_empty());
    problems.iter().for_each(|problem| assert_sentence(&problem.message, || tree.to_string()));
    false
}

/// Damages `trees` seed by seed, and counts what was planned, refused by the plan, and refused by the parser.
fn damage(
    trees: &[Value],
    seeds: u64,
    mut plan: impl FnMut(&[u8], &mut Random) -> Result<Result<(), Vec<Problem>>, String>,
) {
    let (mut good, mut refused, mut unread) = (0, 0, 0);
    for seed in 0..seeds {
        let mut random = Random(seed);
        let mut tree = random.of(trees);
        let text = if random.below(8) == 0 {
            mutate::bytes(tree.to_string().as_bytes(), &mut random)
        } else {
            mutate::tree(&mut tree, &mut random);
            tree.to_string().into_bytes()
        };
        match plan(&text, &mut random) {
            Err(message) => {
                assert_sentence(&message, || tree.to_string());
                unread += 1;
            }
            Ok(result) => *if judge(result, &tree) { &mut good } else { &mut refused } += 1,
        }
    }
    println!("{good} planned, {refused} refused, {unread} not read");
    assert!(good.min(refused).min(unread) > seeds / 50, "{good} {refused} {unread}");
}

#[test]
fn configurations() {
    let hosts = [host(Mode::V2), host(Mode::Hybrid)];
    damage(&corpus(), 2000, |text, random| {
        let spec: Spec = offshoot_spec::from_slice(text).map_err(|error| error.to_string())?;
        let request = Request {
            id: "x".into(),
            bundle: "/bundle".into(),
            systemd_cgroup: random.below(2) == 0,
            detached: true,
            console_socket: spec.process.as_ref().is_some_and(|process| process.terminal),
            preserve_fds: 2,
            ..Request::default()
        };
        Ok(build(&spec, &request, random.of(&hosts.each_ref())).map(drop))
    });
}

#[test]
fn processes() {
    let all = corpus();
    let processes: Vec<Value> = all.iter().map(|config| config["process"].clone()).collect();
    let host = host(Mode::V2);
    damage(&processes, 2000, |text, random| {
        let process: Process = offshoot_spec::from_slice(text).map_err(|error| error.to_string())?;
        let spec: Spec = offshoot_spec::from_slice(random.of(&all).to_string().as_bytes()).unwrap();
        let request = ExecRequest { detached: true, console_socket: process.terminal, ..ExecRequest::default() };
        Ok(exec(&spec, &process, "x", &request, &host).map(drop))
    });
}

#[test]
fn updates() {
    let full = json!({
        "memory": {"limit": 1 << 30, "reservation": 1 << 29, "swap": -1, "swappiness": 10, "disableOOMKiller": true},
        "cpu": {"shares": 100, "quota": 10000, "period": 20000, "burst": 5, "idle": 1, "cpus": "0-1,3", "mems": "0", "realtimeRuntime": 1},
        "pids": {"limit": 10}, "hugepageLimits": [{"pageSize": "2MB", "limit": 5}], "unified": {"cpu.weight": "5", "io.max": "8:0 rbps=1"},
        "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}], "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]}, "rdma": {"mlx": {"hcaHandles": 1}},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}]});
    let stored: Resources = offshoot_spec::from_slice(full.to_string().as_bytes()).unwrap();
    let hosts = [host(Mode::V2), host(Mode::Hybrid)];
    damage(&[full, json!({})], 2000, |text, random| {
        let resources: Resources = offshoot_spec::from_slice(text).map_err(|error| error.to_string())?;
        let driver = random.of(&[Driver::Fs, Driver::Systemd { user: false }]);
        let host = random.of(&hosts.each_ref());
        Ok(cgroup::update(&cgroup::merge(&stored, &resources), driver, &host.cgroup).map(drop))
    });
}

#[test]
fn mount_options() {
    let host = host(Mode::V2);
    let mut good = 0;
    for seed in 0..2000 {
        let mut random = Random(seed);
        let options: Vec<String> = (0..random.below(5))
            .map(|_| match random.below(3) {
                0 => mutate::text(random.of(&offshoot_plan::MOUNT_OPTIONS), &mut random),
                1 => mutate::text("size=64k,mode=755,context=\"a:b,c\"", &mut random),
                _ => random.of(&offshoot_plan::MOUNT_OPTIONS).to_owned(),
            })
            .collect();
        let kind = random.of(&["tmpfs", "bind", "none", "", "cgroup", "proc", "devpts", "overlay"]);
        let destination = mutate::text("/mnt/x", &mut random);
        let spec = json!({"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["x"]},
            "linux": {"namespaces": [{"type": "mount"}]},
            "mounts": [{"destination": destination, "type": kind, "source": "s", "options": options}]});
        let parsed: Spec = offshoot_spec::from_slice(spec.to_string().as_bytes()).unwrap();
        let request = Request { id: "x".into(), bundle: "/bundle".into(), ..Request::default() };
        good += usize::from(judge(build(&parsed, &request, &host).map(drop), &spec));
    }
    assert!((250..1950).contains(&good), "{good} of 2000 were planned");
}
