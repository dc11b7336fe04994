//! The systemd driver as a whole, against the systemd of this host; skipped where pid 1 is another.

use offshoot_cgroup::{Cgroup, probe, probe_systemd};
use offshoot_plan::cgroup::{self, CgroupHost, CgroupPlan, CgroupRequest, Driver, Mode};
use offshoot_spec::{Linux, Resources, from_slice};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};

const DRIVER: Driver = Driver::Systemd { user: false };

fn host() -> Option<CgroupHost> {
    if !Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd is not pid 1 of this host");
        return None;
    }
    Some(CgroupHost { systemd: Some(probe_systemd(false).unwrap()), ..probe().unwrap() })
}

fn plan(name: &str, resources: &str, host: &CgroupHost) -> CgroupPlan {
    let resources: Resources = from_slice(resources.as_bytes()).unwrap();
    let cgroups_path = format!("system.slice:offshoot-test-{}:{name}", std::process::id());
    let linux = Linux { cgroups_path, resources: Some(resources), ..Linux::default() };
    let annotations = BTreeMap::from([("org.systemd.property.TimeoutStopSec".to_string(), "7".to_string())]);
    let request = CgroupRequest { id: "x", linux: &linux, annotations: &annotations, driver: DRIVER, rootless: false };
    cgroup::plan(&request, host).unwrap()
}

fn show(unit: &str, property: &str) -> String {
    let out = Command::new("systemctl").args(["show", "-P", property, unit]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

#[test]
fn a_scope_has_the_limits_in_both_places() {
    let Some(host) = host() else { return };
    let resources = r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":20},"cpu":{"shares":512,
        "quota":5000,"period":10000,"cpus":"0"}}"#;
    let plan = plan("limits", resources, &host);
    let mut cgroup = Cgroup::prepare(&plan).unwrap();
    assert!(cgroup.fd().is_none() && cgroup.task_files().is_empty());
    let mut child = sleeper();
    cgroup.attach(i32::try_from(child.id()).unwrap()).unwrap();
    let unit = cgroup.state().unit.unwrap();
    // systemd has its limits from the start, and keeps them.
    for what in ["started", "limited"] {
        assert_eq!(show(&unit, "TasksMax"), "20", "{what}");
        assert_eq!(show(&unit, "DevicePolicy"), "strict", "{what}");
        cgroup.apply().unwrap();
    }
    assert_eq!(show(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(cgroup.pids().unwrap(), [i32::try_from(child.id()).unwrap()]);
    if host.mode == Mode::V2 {
        assert_eq!(show(&unit, "MemoryMax"), "67108864");
        assert_eq!(show(&unit, "MemorySwapMax"), "0");
        let dir = cgroup.state().paths().remove("").unwrap();
        let file = |name: &str| std::fs::read_to_string(Path::new(&dir).join(name)).unwrap().trim().to_string();
        assert_eq!((file("memory.max"), file("cpu.max")), ("67108864".into(), "5000 10000".into()));
        assert_eq!(file("cpuset.cpus"), "0");
    }
    let json = r#"{"pids":{"limit":-1}}"#;
    let (limits, _) = cgroup::update(&from_slice(json.as_bytes()).unwrap(), DRIVER, &host).unwrap();
    let mut again = Cgroup::open(&cgroup.state()).unwrap();
    again.update(&limits).unwrap();
    assert_eq!(show(&unit, "TasksMax"), "infinity");
    again.kill_all().unwrap();
    child.wait().unwrap();
    again.remove().unwrap();
    again.remove().unwrap();
    assert!(!cgroup.exists());
    assert_ne!(show(&unit, "ActiveState"), "active");
}

#[test]
fn undo_stops_the_unit() {
    let Some(host) = host() else { return };
    let plan = plan("undo", "{}", &host);
    // Before a process is in it, there is nothing to undo.
    Cgroup::prepare(&plan).unwrap().undo().unwrap();
    let mut cgroup = Cgroup::prepare(&plan).unwrap();
    let mut child = sleeper();
    cgroup.attach(i32::try_from(child.id()).unwrap()).unwrap();
    let refused = Cgroup::prepare(&plan).map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "container's cgroup is not empty: 1 process(es) found");
    assert!(cgroup.exists());
    cgroup.undo().unwrap();
    child.wait().unwrap();
    assert!(!cgroup.exists());
}
