//! On this host's cgroups, in cgroups of the test's own.

use offshoot_cgroup::{Cgroup, OomEvent, probe};
use offshoot_plan::cgroup::{self, CgroupHost, CgroupPlan, CgroupRequest, Driver, Mode};
use offshoot_spec::{Linux, Resources, from_slice};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A cgroup of the test's own; whatever happens, it is removed.
struct Own {
    path: String,
    host: CgroupHost,
}

impl Own {
    /// None, with the reason printed, where no cgroup can be made.
    fn new(name: &str) -> Option<Own> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let host = probe().unwrap();
        let point = host.hierarchies.iter().chain(&host.unified).next().map(|h| h.mount_point.clone());
        let Some(point) = point else {
            println!("skipped: no cgroups are mounted");
            return None;
        };
        let path = format!("offshoot-test-{}-{name}", std::process::id());
        match std::fs::create_dir(point.join(&path)) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => panic!("{path} is another test's"),
            Err(e) => {
                println!("skipped: cannot make a cgroup: {e}");
                return None;
            }
            Ok(()) => {}
        }
        std::fs::remove_dir(point.join(&path)).unwrap();
        Some(Own { path: format!("/{path}"), host })
    }

    fn plan(&self, below: &str, resources: &str) -> CgroupPlan {
        let resources: Resources = from_slice(resources.as_bytes()).unwrap();
        let cgroups_path = format!("{}{below}", self.path);
        let linux = Linux { cgroups_path, resources: Some(resources), ..Linux::default() };
        let annotations = BTreeMap::new();
        let request =
            CgroupRequest { id: "x", linux: &linux, annotations: &annotations, driver: Driver::Fs, rootless: false };
        cgroup::plan(&request, &self.host).unwrap()
    }

    fn prepare(&self, below: &str) -> Cgroup {
        Cgroup::prepare(&self.plan(below, "{}")).unwrap()
    }

    fn dirs(&self) -> Vec<PathBuf> {
        let points = self.host.hierarchies.iter().chain(&self.host.unified).map(|h| &h.mount_point);
        points.map(|point| point.join(&self.path[1..])).collect()
    }

    fn exists(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let plan = self.plan("", "{}");
        if let Ok(cgroup) = Cgroup::open(&state_of(&plan)) {
            let _ = cgroup.kill_all();
            let mut cgroup = cgroup;
            let _ = cgroup.remove();
        }
        assert!(std::thread::panicking() || !self.exists(), "the test left {} behind", self.path);
    }
}

fn state_of(plan: &CgroupPlan) -> offshoot_cgroup::CgroupState {
    offshoot_cgroup::CgroupState {
        driver: plan.driver,
        unit: None,
        hierarchies: plan.hierarchies.clone(),
        rootless: false,
    }
}

/// A shell that puts itself into the cgroup, as a container's process does, and then waits.
fn inhabitant(cgroup: &Cgroup) -> Child {
    let paths = cgroup.state().paths();
    let files = paths.iter().map(|(controller, dir)| {
        let file = if controller.is_empty() { "cgroup.procs" } else { "tasks" };
        format!("{dir}/{file}")
    });
    sleeper(files)
}

/// A shell that writes `0` into files, and then waits.
fn sleeper(files: impl Iterator<Item = String>) -> Child {
    let enter = files.map(|file| format!("echo 0 > {file}\n"));
    let script: String = enter.chain(["echo ready; exec sleep 1000".to_string()]).collect();
    let mut child = Command::new("sh").args(["-ec", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn reap(mut child: Child) {
    child.wait().unwrap();
}

fn file(cgroup: &Cgroup, controller: &str, name: &str) -> String {
    let paths = cgroup.state().paths();
    let dir = paths.get(controller).or_else(|| paths.get("")).unwrap();
    std::fs::read_to_string(Path::new(dir).join(name)).unwrap().trim().to_string()
}

#[test]
fn one_that_is_taken_away_before_a_process_comes_is_made_again() {
    let Some(own) = Own::new("again") else { return };
    let mut cgroup = own.prepare("/deep/c1");
    let gone = || own.dirs().iter().for_each(|dir| drop(std::fs::remove_dir(dir.join("deep/c1"))));
    let files = cgroup.take_task_files();
    gone();
    for (index, old) in files.iter().enumerate() {
        use nix::errno::Errno;
        assert_eq!(nix::unistd::write(old, b"0"), Err(Errno::ENODEV));
        let new = cgroup.task_file_again(index).unwrap();
        let new = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&new));
        let mut child = sleeper([new].into_iter());
        child.kill().unwrap();
        reap(child);
    }
    assert!(cgroup.task_file_again(files.len()).is_err());
    // The same for who is moved by number.
    gone();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let attached = cgroup.attach(child.id().try_into().unwrap());
    let pids = cgroup.all_pids();
    child.kill().unwrap();
    reap(child);
    attached.unwrap();
    assert_eq!(pids.unwrap().len(), 1);
    cgroup.undo().unwrap();
    assert!(!own.exists());
}

#[test]
fn a_process_lives_in_it_and_dies_with_it() {
    let Some(own) = Own::new("life") else { return };
    let mut cgroup = own.prepare("/deep/c1");
    let v1 = cgroup.state().hierarchies.iter().filter(|h| !h.is_unified()).count();
    assert_eq!(cgroup.task_files().len(), v1);
    assert_eq!(cgroup.fd().is_some(), own.host.unified.is_some());
    assert!(cgroup.exists() && cgroup.pids().unwrap().is_empty());
    let child = inhabitant(&cgroup);
    assert_eq!(cgroup.pids().unwrap(), [i32::try_from(child.id()).unwrap()]);

    let again = Cgroup::open(&cgroup.state()).unwrap();
    assert_eq!(again.all_pids().unwrap().len(), 1);
    assert!(!again.frozen().unwrap());
    again.freeze().unwrap();
    assert!(again.frozen().unwrap());
    again.kill_all().unwrap();
    reap(child);
    again.thaw().unwrap();
    cgroup.remove().unwrap();
    assert!(!again.exists() && again.pids().unwrap().is_empty());
    cgroup.remove().unwrap();
    again.kill_all().unwrap();
}

#[test]
fn a_process_is_moved_in_by_number() {
    let Some(own) = Own::new("attach") else { return };
    let mut cgroup = own.prepare("");
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    cgroup.attach(i32::try_from(child.id()).unwrap()).unwrap();
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let joined = text.lines().filter(|line| line.ends_with(&own.path)).count();
    assert_eq!(joined, cgroup.state().hierarchies.len(), "{text}");
    cgroup.signal_all(libc::SIGKILL).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn undo_takes_back_what_was_made_and_no_more() {
    let Some(own) = Own::new("undo") else { return };
    let mut first = own.prepare("/a/b");
    let mut second = own.prepare("/a/c/d");
    second.undo().unwrap();
    assert!(own.dirs().iter().all(|dir| dir.join("a/b").exists() && !dir.join("a/c").exists()));
    second.undo().unwrap();
    // A directory that was there before stays.
    own.prepare("/a/b").undo().unwrap();
    assert!(own.dirs().iter().all(|dir| dir.join("a/b").exists()));
    first.undo().unwrap();
    assert!(!own.exists());
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let Some(own) = Own::new("half") else { return };
    let mut plan = own.plan("/a/b", "{}");
    let broken = plan.hierarchies.len() / 2;
    plan.hierarchies[broken].mount_point = "/nonexistent".into();
    plan.hierarchies[broken].optional = false;
    let error = Cgroup::prepare(&plan).map(drop).unwrap_err().to_string();
    assert_eq!(error, "unable to apply cgroup configuration: open /nonexistent: no such file or directory");
    assert!(!own.exists());
    // A value that is refused before the process comes in, too.
    if own.host.mode != Mode::V2 {
        let plan = own.plan("/a/b", r#"{"cpu":{"cpus":"4096"}}"#);
        assert!(Cgroup::prepare(&plan).is_err());
        assert!(!own.exists());
    }
}

/// Containers that share a parent come and go at the same time: one takes away what another is about to use.
#[test]
fn siblings_do_not_get_in_each_others_way() {
    let Some(own) = Own::new("siblings") else { return };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let own = &own;
            scope.spawn(move || {
                for round in 0..20 {
                    own.prepare(&format!("/shared/{thread}-{round}")).undo().unwrap();
                }
            });
        }
    });
    // A parent that its maker found in use stays, as a parent that was there before does.
}

#[test]
fn one_that_goes_does_not_stop_one_that_comes_at_its_path() {
    let Some(own) = Own::new("same-path") else { return };
    for _ in 0..400 {
        let mut goes = own.prepare("/same");
        std::thread::scope(|scope| {
            scope.spawn(|| goes.remove().unwrap());
            let plan = own.plan("/same", r#"{"pids":{"limit":7}}"#);
            Cgroup::prepare(&plan).unwrap().remove().unwrap();
        });
    }
}

#[test]
fn a_parent_goes_with_the_last_that_is_in_it() {
    let Some(own) = Own::new("parent") else { return };
    let mut one = own.prepare("/farm/one");
    let mut two = own.prepare("/farm/two");
    one.remove().unwrap();
    one = Cgroup::open(&state_of(&own.plan("/farm/two", "{}"))).unwrap();
    one.remove_parent();
    assert!(two.exists() && own.dirs().iter().any(|dir| dir.join("farm").exists()));
    two.remove().unwrap();
    one.remove_parent();
    one.remove_parent();
    assert!(own.exists() && own.dirs().iter().all(|dir| !dir.join("farm").exists()));
}

#[test]
fn a_cgroup_in_use_is_refused_and_kept() {
    let Some(own) = Own::new("used") else { return };
    let cgroup = own.prepare("");
    let child = inhabitant(&cgroup);
    let refused = |text: &str| {
        let e = Cgroup::prepare(&own.plan("", "{}")).map(|_| ()).unwrap_err();
        assert_eq!(e.to_string(), text);
        assert!(cgroup.exists());
    };
    refused("container's cgroup is not empty: 1 process(es) found");
    cgroup.kill_all().unwrap();
    reap(child);
    cgroup.freeze().unwrap();
    refused("container's cgroup unexpectedly frozen");
    cgroup.thaw().unwrap();
}

#[test]
fn limits_arrive() {
    let Some(own) = Own::new("limits") else { return };
    let plan = own.plan(
        "",
        r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":20},"cpu":{"shares":512,"quota":5000,
            "period":10000,"cpus":"0"},"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":7,"minor":9,"access":"r"}]}"#,
    );
    let mut cgroup = Cgroup::prepare(&plan).unwrap();
    cgroup.apply().unwrap();
    assert_eq!(file(&cgroup, "pids", "pids.max"), "20");
    assert_eq!(file(&cgroup, "cpuset", "cpuset.cpus"), "0");
    if own.host.mode == Mode::V2 {
        assert_eq!(file(&cgroup, "", "memory.max"), "67108864");
        assert_eq!(file(&cgroup, "", "cpu.max"), "5000 10000");
    } else {
        assert_eq!(file(&cgroup, "memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(file(&cgroup, "cpu", "cpu.cfs_quota_us"), "5000");
        let list = file(&cgroup, "devices", "devices.list");
        assert!(list.contains("c 7:9 r\n") && list.contains("c 1:3 rwm") && !list.contains("a *:*"), "{list}");
    }
}

/// Values that bound each other, raised and lowered together.
#[test]
fn memory_and_swap_move_together() {
    let Some(own) = Own::new("swap") else { return };
    let mut cgroup = own.prepare("");
    cgroup.apply().unwrap();
    let swap = if own.host.mode == Mode::V2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let paths = cgroup.state().paths();
    if !Path::new(paths.get("memory").or_else(|| paths.get("")).unwrap()).join(swap).exists() {
        println!("skipped: no swap accounting");
        return;
    }
    for (limit, both) in [(30, 50), (60, 80), (20, 20), (500, 700), (10, 11)] {
        let (limit, both) = (limit << 20, both << 20);
        let json = format!("{{\"memory\":{{\"limit\":{limit},\"swap\":{both}}}}}");
        let (limits, _) = cgroup::update(&from_slice(json.as_bytes()).unwrap(), Driver::Fs, &own.host).unwrap();
        cgroup.update(&limits).unwrap();
        let expected = if own.host.mode == Mode::V2 { both - limit } else { both };
        assert_eq!(file(&cgroup, "memory", swap), expected.to_string());
    }
}

#[test]
fn an_unknown_unified_file_is_named() {
    let Some(own) = Own::new("unified") else { return };
    if own.host.mode != Mode::V2 {
        println!("skipped: needs cgroup v2");
        return;
    }
    let set = |json: &str| {
        let mut cgroup = Cgroup::prepare(&own.plan("", json)).unwrap();
        cgroup.apply().map_err(|e| e.to_string())
    };
    assert_eq!(set(r#"{"unified":{"pids.max":"7"}}"#), Ok(()));
    let error = set(r#"{"unified":{"nosuch.max":"7"}}"#).unwrap_err();
    assert_eq!(error, r#"unified resource "nosuch.max" can't be set: controller "nosuch" not available"#);
    assert!(set(r#"{"unified":{"pids.nosuch":"7"}}"#).unwrap_err().starts_with("unable to set unified resource"));
}

#[test]
fn the_kernel_fills_cpusets_below_a_parent_of_ours() {
    let Some(own) = Own::new("cpusets") else { return };
    let Some(cpuset) = own.host.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == "cpuset")) else {
        println!("skipped: no cpusets of cgroup v1");
        return;
    };
    let mut cgroup = own.prepare("/one");
    let parent = cpuset.mount_point.join(&own.path[1..]);
    let read = |file: &str| std::fs::read_to_string(parent.join(file)).unwrap();
    assert_eq!(read("cgroup.clone_children").trim(), "1");
    std::fs::create_dir(parent.join("two")).unwrap();
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let two = read(&format!("two/{name}"));
        assert!(!two.trim().is_empty());
        assert_eq!((two, file(&cgroup, "cpuset", name)), (read(name), read(name).trim().to_owned()));
    }
    std::fs::remove_dir(parent.join("two")).unwrap();
    // One that another has made fills them from the second on.
    std::fs::write(parent.join("cgroup.clone_children"), "0").unwrap();
    let mut other = own.prepare("/other");
    assert_eq!(file(&other, "cpuset", "cpuset.cpus"), read("cpuset.cpus").trim());
    assert_eq!(read("cgroup.clone_children").trim(), "1");
    other.remove().unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn what_the_container_made_below_goes_too() {
    let Some(own) = Own::new("nested") else { return };
    let mut cgroup = own.prepare("");
    for dir in own.dirs() {
        std::fs::create_dir_all(dir.join("x/y/z")).unwrap();
        std::fs::create_dir_all(dir.join("x/w")).unwrap();
    }
    cgroup.remove().unwrap();
    assert!(!own.exists());
}

#[test]
fn sub_cgroups_stay_inside() {
    let Some(own) = Own::new("sub") else { return };
    let mut cgroup = own.prepare("/c");
    let mut sibling = own.prepare("/c-other");
    let sub = |controller: &str, path: &str| {
        let below = BTreeMap::from([(controller.to_string(), path.to_string())]);
        cgroup.sub(&below).map(|sub| sub.state().paths()).map_err(|e| e.to_string())
    };
    assert_eq!(sub("", "/").unwrap(), cgroup.state().paths());
    for path in ["..", "../c-other", "a/../../c-other", "/../c-other"] {
        assert!(sub("", path).unwrap_err().contains("bad sub cgroup path"));
    }
    assert!(sub("whaaat", "/").unwrap_err().contains("unknown controller "));
    assert!(sub("", "nonexistent").unwrap_err().ends_with("no such file or directory"));
    for dir in own.dirs() {
        std::fs::create_dir(dir.join("c/below")).unwrap();
    }
    assert!(sub("", "below").unwrap().values().all(|path| path.ends_with("/c/below")));
    if own.host.mode != Mode::V2 {
        let paths = sub("memory", "x/../below").unwrap();
        assert!(paths["memory"].ends_with("/c/below") && paths["devices"].ends_with("/c"));
    }
    sibling.undo().unwrap();
    cgroup.undo().unwrap();
}

#[test]
fn the_device_program_is_the_kernels() {
    let Some(own) = Own::new("bpf") else { return };
    // On a host whose devices are a v1 matter, the unified directory takes a program all the same.
    let mut plan = own.plan("", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    plan.hierarchies.retain(cgroup::Hierarchy::is_unified);
    plan.hierarchies.iter_mut().for_each(|h| h.optional = false);
    plan.devices.as_mut().unwrap().controller = String::new();
    if plan.hierarchies.is_empty() {
        println!("skipped: no unified hierarchy");
        return;
    }
    let mut cgroup = Cgroup::prepare(&plan).unwrap();
    for _ in 0..2 {
        match cgroup.apply() {
            Err(e) if e.errno() == Some(nix::errno::Errno::EPERM) => {
                println!("skipped: {e}");
                return;
            }
            applied => applied.unwrap(),
        }
    }
    let script = format!(
        "echo 0 > {}/cgroup.procs; true < /dev/null && ! true < /dev/kmsg && ! true < /dev/loop-control",
        cgroup.state().paths()[""]
    );
    assert!(Path::new("/dev/kmsg").exists());
    assert!(Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success());
}

#[test]
fn statistics_are_read() {
    let Some(own) = Own::new("stats") else { return };
    let cgroup = own.prepare("");
    let child = inhabitant(&cgroup);
    let stats = cgroup.stats().unwrap();
    if own.host.mode != Mode::V2 || own.host.unified.as_ref().unwrap().controllers.iter().any(|c| c == "memory") {
        assert!(stats.memory.usage.usage > 0 && !stats.memory.raw.is_empty());
    }
    assert_eq!(stats.pids.current, 1);
    cgroup.kill_all().unwrap();
    reap(child);
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(own) = Own::new("oom") else { return };
    let mut cgroup = Cgroup::prepare(&own.plan("", r#"{"memory":{"limit":8388608,"swap":8388608}}"#)).unwrap();
    cgroup.apply().unwrap();
    let mut watch = cgroup.watch_oom().unwrap();
    assert_eq!(watch.wait(Some(std::time::Duration::from_millis(10))).unwrap(), None);
    let file = if own.host.mode == Mode::V2 { "cgroup.procs" } else { "tasks" };
    let dir = cgroup.state().paths().remove(if own.host.mode == Mode::V2 { "" } else { "memory" }).unwrap();
    let script = format!("echo 0 > {dir}/{file}; exec head -c 100M /dev/zero | tail");
    let child = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    let patience = Some(std::time::Duration::from_secs(20));
    assert_eq!(watch.wait(patience).unwrap(), Some(OomEvent::Oom));
    reap(child);
    cgroup.remove().unwrap();
    while watch.wait(patience).unwrap() != Some(OomEvent::Gone) {}
}

/// Files that set limits stay with the host.
#[test]
fn the_owner_changes_for_delegated_files_only() {
    use std::os::unix::fs::MetadataExt;
    let Some(own) = Own::new("delegate") else { return };
    let cgroup = own.prepare("");
    cgroup.delegate(12345).unwrap();
    let Some(dir) = cgroup.state().paths().remove("") else { return };
    let owner = |file: &str| std::fs::metadata(Path::new(&dir).join(file)).map(|m| m.uid()).ok();
    assert_eq!(owner(""), Some(12345));
    assert_eq!(owner("cgroup.procs"), Some(12345));
    assert_eq!(owner("cgroup.type"), Some(0));
    assert!(matches!(owner("memory.max"), None | Some(0)));
}

/// A payload may nest cgroups as deep and make as many as it likes.
#[test]
fn cgroups_that_a_payload_has_nested_are_gone_through_and_removed() {
    let Some(own) = Own::new("deep") else { return };
    let mut cgroup = own.prepare("/c");
    let paths = cgroup.state().paths();
    // Where processes are listed, and what a system may make cgroups in.
    let mut tops: Vec<_> = [paths.get("devices"), paths.get("")].into_iter().flatten().map(PathBuf::from).collect();
    tops.dedup();
    let mut ends = Vec::new();
    for top in &tops {
        let mut deep = top.clone();
        for _ in 0..1200 {
            deep.push("d");
            std::fs::create_dir(&deep).unwrap();
        }
        ends.push(format!("{}/cgroup.procs", deep.display()));
        for number in 0..300 {
            std::fs::create_dir_all(top.join(format!("w{number}/in"))).unwrap();
        }
    }
    let child = sleeper(ends.into_iter());
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let pids = cgroup.all_pids();
    let since = std::time::Instant::now();
    let removed = cgroup.kill_all().and_then(|()| {
        reap(child);
        cgroup.remove()
    });
    let took = since.elapsed();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(pids.unwrap().len(), 1);
    removed.unwrap();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    assert!(!own.dirs().iter().any(|dir| dir.join("c").exists()));
}
