//! Decisions on made-up hosts.

use super::*;
use offshoot_spec::from_slice;
use std::path::Path;

fn hierarchy(controllers: &str, mount_point: &str, own: &str) -> HostHierarchy {
    HostHierarchy {
        controllers: controllers.split_whitespace().map(Into::into).collect(),
        mount_point: mount_point.into(),
        own_path: Some(own.into()),
    }
}

fn v2() -> CgroupHost {
    CgroupHost {
        mode: Mode::V2,
        hierarchies: vec![],
        unified: Some(hierarchy(
            "cpuset cpu io memory hugetlb pids rdma",
            "/sys/fs/cgroup",
            "user.slice/session.scope",
        )),
        in_userns: false,
        huge_page_sizes: vec!["2MB".into(), "1GB".into()],
        systemd: Some(SystemdHost { version: 252, control_group: "/".into() }),
    }
}

fn hybrid() -> CgroupHost {
    let v1 = |name: &str, own: &str| hierarchy(name, &format!("/sys/fs/cgroup/{name}"), own);
    let mut hierarchies: Vec<_> =
        ["cpuset", "devices", "freezer", "pids", "blkio", "hugetlb"].iter().map(|name| v1(name, "")).collect();
    hierarchies.push(v1("memory", "jobs/1"));
    hierarchies.push(hierarchy("cpu cpuacct", "/sys/fs/cgroup/cpu,cpuacct", ""));
    hierarchies.push(hierarchy("name=systemd", "/sys/fs/cgroup/systemd", ""));
    hierarchies.push(hierarchy("name=other", "/sys/fs/cgroup/other", ""));
    let unified = Some(hierarchy("", "/sys/fs/cgroup/unified", "somewhere/else"));
    CgroupHost { mode: Mode::Hybrid, hierarchies, unified, ..v2() }
}

fn linux(json: &str) -> Linux {
    from_slice(json.as_bytes()).unwrap()
}

fn plan_of(json: &str, host: &CgroupHost, driver: Driver) -> Result<CgroupPlan, Vec<Problem>> {
    let annotations = BTreeMap::new();
    plan(&CgroupRequest { id: "c1", linux: &linux(json), annotations: &annotations, driver, rootless: false }, host)
}

fn resources(json: &str, host: &CgroupHost) -> Vec<String> {
    let plan = plan_of(&format!("{{\"resources\":{json}}}"), host, Driver::Fs).unwrap();
    plan.limits.writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
}

fn messages(json: &str, host: &CgroupHost) -> Vec<String> {
    let problems = plan_of(&format!("{{\"resources\":{json}}}"), host, Driver::Fs).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn fs_paths_start_where_runc_starts_them() {
    let path = |json: &str, host: &CgroupHost, controller: &str| {
        let plan = plan_of(json, host, Driver::Fs).unwrap();
        let of =
            |h: &&Hierarchy| h.controllers.iter().any(|c| c == controller) || controller.is_empty() && h.is_unified();
        plan.hierarchies.iter().find(of).unwrap().path.clone()
    };
    assert_eq!(path("{}", &v2(), ""), Path::new("user.slice/c1"));
    assert_eq!(path(r#"{"cgroupsPath":"a/../../../b"}"#, &v2(), ""), Path::new("user.slice/b"));
    assert_eq!(path(r#"{"cgroupsPath":"/a//./b"}"#, &v2(), ""), Path::new("a/b"));
    assert_eq!(path("{}", &hybrid(), "memory"), Path::new("jobs/1/c1"));
    assert_eq!(path(r#"{"cgroupsPath":"/x"}"#, &hybrid(), "memory"), Path::new("x"));
    assert_eq!(path("{}", &hybrid(), ""), Path::new("c1"));
    assert!(plan_of(r#"{"cgroupsPath":"/"}"#, &v2(), Driver::Fs).is_err());
}

#[test]
fn hybrid_joins_every_known_hierarchy_once() {
    let plan = plan_of("{}", &hybrid(), Driver::Fs).unwrap();
    let joined: Vec<String> = plan.hierarchies.iter().map(|h| h.controllers.join(",")).collect();
    let expected =
        ["cpuset", "devices", "memory", "cpu,cpuacct", "pids", "blkio", "hugetlb", "freezer", "name=systemd", ""];
    assert_eq!(joined, expected);
    assert_eq!(plan.hierarchies.iter().filter(|h| h.optional).count(), 2);
    assert_eq!(plan.devices.unwrap().controller, "devices");
}

#[test]
fn a_host_without_the_devices_controller_gets_a_program_on_the_unified_directory() {
    let mut host = hybrid();
    host.hierarchies.retain(|h| h.controllers != ["devices"]);
    assert_eq!(plan_of("{}", &host, Driver::Fs).unwrap().devices.unwrap().controller, "");
    host.unified = None;
    let problems = plan_of("{}", &host, Driver::Fs).unwrap_err();
    assert_eq!(problems[0].message, "cgroup: subsystem does not exist");
}

#[test]
fn memory_and_swap_on_v2() {
    let write = |json: &str| resources(&format!("{{\"memory\":{json}}}"), &v2());
    assert_eq!(
        write(r#"{"limit":100,"swap":300,"reservation":-1}"#),
        ["memory.swap.max=200", "memory.max=100", "memory.low=max"]
    );
    assert_eq!(write(r#"{"limit":100,"swap":100}"#), ["memory.swap.max=0", "memory.max=100"]);
    assert_eq!(write(r#"{"limit":-1}"#), ["memory.swap.max=max", "memory.max=max"]);
    assert_eq!(write(r#"{"limit":-1,"swap":100}"#), ["memory.swap.max=100", "memory.max=max"]);
    assert_eq!(write(r#"{"limit":0,"swap":0}"#), Vec::<String>::new());
    assert_eq!(
        messages(r#"{"memory":{"swap":5}}"#, &v2()),
        ["linux.resources.memory.swap: unable to set swap limit without memory limit"]
    );
    assert_eq!(
        messages(r#"{"memory":{"limit":9,"swap":5}}"#, &v2()),
        ["linux.resources.memory.swap: memory+swap limit should be >= memory limit"]
    );
}

#[test]
fn cpu_on_both() {
    let json = r#"{"cpu":{"shares":1024,"quota":5000,"burst":7,"cpus":"0-1","mems":"0"}}"#;
    assert_eq!(
        resources(json, &v2()),
        ["cpu.weight=100", "cpu.max.burst=7", "cpu.max=5000 100000", "cpuset.cpus=0-1", "cpuset.mems=0"]
    );
    assert_eq!(
        resources(json, &hybrid()),
        ["cpuset.cpus=0-1", "cpuset.mems=0", "cpu.shares=1024", "cpu.cfs_burst_us=7", "cpu.cfs_quota_us=5000"]
    );
    assert_eq!(resources(r#"{"cpu":{"period":1000,"quota":-1}}"#, &v2()), ["cpu.max=max 1000"]);
    assert_eq!(resources(r#"{"cpu":{"idle":1,"shares":5}}"#, &v2()), ["cpu.idle=1"]);
    assert_eq!(
        messages(r#"{"cpu":{"shares":1}}"#, &hybrid()),
        ["linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"]
    );
}

#[test]
fn weights() {
    let weights = [1, 2, 3, 10, 100, 1024, 2048, 262_143, 262_144, u64::MAX].map(convert::cpu_weight);
    assert_eq!(weights, [1, 1, 2, 4, 17, 100, 174, 10_000, 10_000, 10_000]);
    assert_eq!([10, 100, 500, 750, 1000].map(convert::io_weight), [1, 910, 4950, 7475, 10_000]);
}

#[test]
fn pids_limit_zero_is_one() {
    for (limit, expected) in [("0", "pids.max=1"), ("-1", "pids.max=max"), ("7", "pids.max=7")] {
        for host in [v2(), hybrid()] {
            assert_eq!(resources(&format!("{{\"pids\":{{\"limit\":{limit}}}}}"), &host), [expected]);
        }
    }
    assert!(resources(r#"{"pids":{}}"#, &v2()).is_empty());
}

#[test]
fn block_io() {
    let json = r#"{"blockIO":{"weight":750,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":9}]}}"#;
    assert_eq!(resources(json, &v2()), ["io.bfq.weight=750", "io.max=8:0 rbps=max", "io.max=8:1 wiops=9"]);
    assert_eq!(
        resources(json, &hybrid()),
        ["blkio.weight=750", "blkio.throttle.read_bps_device=8:0 0", "blkio.throttle.write_iops_device=8:1 9"]
    );
}

#[test]
fn unified_names_a_file_of_the_cgroup_and_nothing_else() {
    assert_eq!(
        resources(r#"{"unified":{"io.max":"8:0 riops=1\n8:1 riops=2\n"}}"#, &v2()),
        ["io.max=8:0 riops=1", "io.max=8:1 riops=2"]
    );
    let bad = r#"{"unified":{"../x.y":"1","a/b.c":"1","..":"1","memory":"1",".x":"1"}}"#;
    assert_eq!(messages(bad, &v2()).len(), 5);
    assert_eq!(
        messages(r#"{"unified":{"memory.min":"1"}}"#, &hybrid()),
        ["linux.resources.unified: invalid configuration: cannot use unified on cgroup v1"]
    );
}

#[test]
fn a_limit_without_its_controller_is_a_problem() {
    assert_eq!(
        messages(r#"{"network":{"classID":5}}"#, &hybrid()),
        ["linux.resources: cannot set net_cls limit: container could not join or create cgroup"]
    );
    assert_eq!(messages(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#, &v2()).len(), 1);
}

#[test]
fn all_problems_at_once() {
    let json = r#"{"memory":{"limit":-5,"swap":3},"cpu":{"idle":3,"realtimePeriod":1},"unified":{"a/b":"c"},
        "devices":[{"allow":true,"type":"x","access":"r"},{"allow":true},{"allow":true,"access":"q"}]}"#;
    assert_eq!(messages(json, &v2()).len(), 6);
}

#[test]
fn systemd_gets_a_unit_and_properties() {
    let json = r#"{"cgroupsPath":"machine-a.slice:libpod:x","resources":{"memory":{"limit":100,"swap":100},
        "cpu":{"shares":1024,"quota":33333,"period":100000,"cpus":"0,9"},"pids":{"limit":-1}}}"#;
    let plan = plan_of(json, &v2(), Driver::Systemd { user: false }).unwrap();
    assert_eq!(plan.hierarchies[0].path, Path::new("machine.slice/machine-a.slice/libpod-x.scope"));
    assert_eq!(plan.unit.unwrap().name, "libpod-x.scope");
    let get = |name: &str| plan.limits.properties.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    assert_eq!(get("MemoryMax"), Some(Value::U64(100)));
    assert_eq!(get("MemorySwapMax"), Some(Value::U64(0)));
    assert_eq!(get("CPUWeight"), Some(Value::U64(100)));
    assert_eq!(get("CPUQuotaPerSecUSec"), Some(Value::U64(340_000)));
    assert_eq!(get("AllowedCPUs"), Some(Value::bytes(&[1, 2])));
    assert_eq!(get("TasksMax"), Some(Value::U64(u64::MAX)));
    assert_eq!(get("DevicePolicy"), Some(Value::str("strict")));
    // The file gets the rounded value, too.
    assert!(plan.limits.writes.iter().any(|w| w.file == "cpu.max" && w.value == "34000 100000"));
    let user = CgroupHost {
        systemd: Some(SystemdHost { version: 252, control_group: "/user.slice/user@1.service".into() }),
        ..v2()
    };
    let plan = plan_of("{}", &user, Driver::Systemd { user: true }).unwrap();
    assert_eq!(plan.hierarchies[0].path, Path::new("user.slice/user@1.service/user.slice/runc-c1.scope"));
}

#[test]
fn rootless_without_a_path_needs_no_cgroups() {
    let host = CgroupHost { mode: Mode::V1, hierarchies: vec![], unified: None, ..v2() };
    let (linux, annotations) = (Linux::default(), BTreeMap::new());
    let request =
        CgroupRequest { id: "c1", linux: &linux, annotations: &annotations, driver: Driver::Fs, rootless: true };
    assert!(plan(&request, &host).unwrap().hierarchies.is_empty());
    assert!(plan(&CgroupRequest { rootless: false, ..request }, &host).is_err());
}

#[test]
fn a_plan_survives_json() {
    let json = r#"{"resources":{"memory":{"limit":100},"pids":{"limit":1}}}"#;
    let plan = plan_of(json, &hybrid(), Driver::Fs).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<CgroupPlan>(&text).unwrap(), plan);
}

mod updates {
    use super::*;

    fn merged(stored: &str, update: &str) -> Resources {
        merge(&from_slice(stored.as_bytes()).unwrap(), &from_slice(update.as_bytes()).unwrap())
    }

    #[test]
    fn quota_and_period_are_a_pair() {
        let pair = |update: &str| {
            let cpu = merged(r#"{"cpu":{"quota":5,"period":7}}"#, update).cpu.unwrap();
            (cpu.quota, cpu.period)
        };
        assert_eq!(pair(r#"{"cpu":{"quota":6}}"#), (Some(6), Some(7)));
        assert_eq!(pair(r#"{"cpu":{"period":6}}"#), (Some(5), Some(6)));
        assert_eq!(pair(r#"{"cpu":{"quota":1,"period":2}}"#), (Some(1), Some(2)));
        assert_eq!(pair("{}"), (None, None));
        assert_eq!(pair(r#"{"cpu":{"quota":0,"period":0}}"#), (None, None));
    }

    #[test]
    fn unlimited_memory_forgets_swap_and_idle_forgets_shares() {
        let resources = merged(
            r#"{"memory":{"limit":5,"swap":6},"cpu":{"shares":9}}"#,
            r#"{"memory":{"limit":-1},"cpu":{"idle":1}}"#,
        );
        let memory = resources.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(-1), Some(0)));
        assert_eq!(resources.cpu.unwrap().shares, Some(0));
    }

    #[test]
    fn some_fields_are_replaced_and_some_kept() {
        let stored = r#"{"memory":{"limit":5,"checkBeforeUpdate":true},"pids":{"limit":3},"unified":{"a.b":"c"},
            "cpu":{"cpus":"0","burst":1,"shares":4},"devices":[{"allow":true,"access":"r"}]}"#;
        let resources = merged(stored, "{}");
        assert_eq!(resources.memory.unwrap().limit, Some(5));
        assert_eq!(resources.pids.unwrap().limit, None);
        assert!(resources.unified.is_empty());
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.cpus.as_str(), cpu.burst, cpu.shares), ("", None, Some(4)));
        assert_eq!(resources.devices.len(), 1);
    }

    #[test]
    fn throttles_are_upserted() {
        let stored = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":1,"minor":1,"rate":1}]}}"#;
        let update =
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":1,"minor":1,"rate":2},{"major":1,"minor":2,"rate":3}]}}"#;
        let devices = merged(stored, update).block_io.unwrap().throttle_read_bps_device;
        assert_eq!(devices.iter().map(|d| d.rate).collect::<Vec<_>>(), [2, 3]);
    }
}
