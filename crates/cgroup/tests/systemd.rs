//! Against the systemd of this host; skipped where pid 1 is another.
//!
//! Each test makes a scope or a slice of its own around a `sleep` of its own, and stops it.

use offshoot_cgroup::systemd::Bus;
use offshoot_plan::cgroup::systemd::{SystemdUnit, Value};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};

fn systemd_is_here(test: &str) -> bool {
    let here = fs::metadata("/run/systemd/system").is_ok();
    if !here {
        println!("{test} skipped: systemd is not pid 1 of this host");
    }
    here
}

/// A process to put into units, killed in the end whatever happens.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").spawn().expect("sleep(1) is there"))
    }

    fn cgroup(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.0.id())).unwrap();
        // The unified hierarchy, or systemd's named one.
        let line = text.lines().find(|l| l.starts_with("0::/") || l.contains("name=systemd:")).unwrap();
        line.splitn(3, ':').nth(2).unwrap().to_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unit(path: &str, annotations: &[(&str, &str)]) -> SystemdUnit {
    let annotations: BTreeMap<String, String> =
        annotations.iter().map(|(k, v)| (format!("org.systemd.property.{k}"), (*v).to_string())).collect();
    SystemdUnit::new("unused", path, &annotations, false, false).unwrap()
}

fn show(unit: &str, property: &str) -> String {
    let out = Command::new("systemctl").args(["show", "-P", property, unit]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_scope_lives_and_dies() {
    if !systemd_is_here("a_scope_lives_and_dies") {
        return;
    }
    let sleeper = Sleeper::new();
    let mut bus = Bus::connect(false).unwrap();
    assert!(bus.version().unwrap() > 200);
    let mut unit =
        unit("offtest-a.slice:offshoot:lives", &[("TimeoutStopSec", "3"), ("CollectMode", "'inactive-or-failed'")]);
    unit.properties.push(("TasksMax".into(), Value::U64(77)));
    bus.start_unit(&unit, &[sleeper.0.id()]).unwrap();

    assert_eq!(sleeper.cgroup(), unit.cgroup_path());
    assert_eq!(bus.control_group(&unit.name).unwrap(), unit.cgroup_path());
    for (property, value) in [
        ("Description", "libcontainer container lives"),
        ("Slice", "offtest-a.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "77"),
        ("TimeoutStopUSec", "3s"),
        ("CollectMode", "inactive-or-failed"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("Transient", "yes"),
    ] {
        assert_eq!(show(&unit.name, property), value, "{property}");
    }

    let again = bus.start_unit(&unit, &[sleeper.0.id()]).unwrap_err().to_string();
    assert!(again.contains("already loaded or has a fragment file") || again.contains("already exists"), "{again}");

    let text = |name: &str, value| (name.to_string(), value);
    bus.set_properties(&unit.name, &[text("TasksMax", Value::U64(88)), text("AllowedCPUs", Value::bytes(&[1]))])
        .unwrap();
    assert_eq!((show(&unit.name, "TasksMax").as_str(), show(&unit.name, "AllowedCPUs").as_str()), ("88", "0"));
    let refused = bus.set_properties(&unit.name, &[text("NoSuchThing", Value::U64(1))]).unwrap_err().to_string();
    assert!(refused.contains("NoSuchThing"), "{refused}");

    bus.stop_unit(&unit.name).unwrap();
    assert_eq!(show(&unit.name, "LoadState"), "not-found");
    bus.stop_unit(&unit.name).unwrap();
    bus.stop_unit("offtest-a.slice").unwrap();
    bus.stop_unit("offtest.slice").unwrap();
}

#[test]
fn a_process_moves_below_the_scope() {
    if !systemd_is_here("a_process_moves_below_the_scope") {
        return;
    }
    let (first, second) = (Sleeper::new(), Sleeper::new());
    let mut bus = Bus::connect(false).unwrap();
    let unit = unit("system.slice:offshoot:attach", &[]);
    bus.start_unit(&unit, &[first.0.id()]).unwrap();
    bus.attach(&unit.name, "/", &[second.0.id()]).unwrap();
    assert_eq!(second.cgroup(), unit.cgroup_path());
    assert!(bus.attach(&unit.name, "/none/such", &[u32::MAX]).is_err());
    bus.stop_unit(&unit.name).unwrap();
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    if !systemd_is_here("a_process_that_is_gone_is_an_error") {
        return;
    }
    let mut gone = Sleeper::new();
    gone.0.kill().and_then(|()| gone.0.wait()).unwrap();
    let mut bus = Bus::connect(false).unwrap();
    let unit = unit("system.slice:offshoot:gone", &[]);
    let text = bus.start_unit(&unit, &[gone.0.id()]).unwrap_err().to_string();
    assert!(text.starts_with("failed to start systemd unit \"offshoot-gone.scope\": "), "{text}");
    bus.stop_unit(&unit.name).unwrap();
}

/// A call that reaches systemd in one read with the end of the authentication would never be answered.
#[test]
fn every_connection_is_answered() {
    if !systemd_is_here("every_connection_is_answered") {
        return;
    }
    for _ in 0..200 {
        assert!(Bus::connect(false).and_then(|mut bus| bus.version()).unwrap() > 200);
    }
}
