//! `linux.resources` and `cgroupsPath`: what stands in the cgroup's files. spec: config-linux.md#control-groups

use crate::place::Place;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The container's cgroup of a v1 controller, or the one of v2.
fn cgroup(place: &Place, controller: &str) -> Option<PathBuf> {
    let state: Value = serde_json::from_slice(&place.output(&["state"], &[]).stdout).ok()?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let mut lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    if v2() {
        let line = lines.find(|parts| parts[0] == "0")?;
        return Some(Path::new("/sys/fs/cgroup").join(line[2].trim_start_matches('/')));
    }
    let line = lines.find(|parts| parts[1].split(',').any(|name| name == controller))?;
    let dir =
        Path::new("/sys/fs/cgroup").join(line[1].trim_start_matches("name=")).join(line[2].trim_start_matches('/'));
    dir.exists().then_some(dir)
}

/// (controller, v1 file, v1 value, v2 file, v2 value)
type Limit = (&'static str, &'static str, &'static str, &'static str, &'static str);

#[test]
fn limits_stand_in_the_files() {
    let Some(place) = Place::new("limits-files", &["/bin/sleep", "100"]) else { return };
    place.edit(|c| {
        let devices = c["linux"]["resources"]["devices"].take();
        c["linux"]["resources"] = json!({
            "devices": devices,
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 77},
        });
    });
    place.ok(&["create"], &[]);
    const LIMITS: [Limit; 8] = [
        ("memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
        ("cpu", "cpu.shares", "512", "cpu.weight", "59"),
        ("cpu", "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000"),
        ("cpu", "cpu.cfs_period_us", "50000", "cpu.max", "20000 50000"),
        ("cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0", "cpuset.mems", "0"),
        ("pids", "pids.max", "77", "pids.max", "77"),
    ];
    let check = |limits: &[Limit]| {
        for (controller, file, value, file2, value2) in limits {
            let Some(dir) = cgroup(&place, controller) else {
                println!("skipped: this host has no {controller} controller");
                continue;
            };
            let (file, value) = if v2() { (file2, value2) } else { (file, value) };
            let Ok(text) = fs::read_to_string(dir.join(file)) else {
                println!("skipped: no {file}");
                continue;
            };
            assert_eq!(text.trim(), *value, "{file}");
        }
    };
    check(&LIMITS);
    place.ok(&["start"], &[]);
    place.ok(&["update", "--memory", "80M", "--pids-limit", "33", "--cpu-quota", "30000", "--cpu-share", "256"], &[]);
    check(&[
        ("memory", "memory.limit_in_bytes", "83886080", "memory.max", "83886080"),
        ("pids", "pids.max", "33", "pids.max", "33"),
        ("cpu", "cpu.cfs_quota_us", "30000", "cpu.max", "30000 50000"),
        ("cpu", "cpu.shares", "256", "cpu.weight", "35"),
    ]);
    place.ok(&["delete", "--force"], &[]);
    place.assert_nothing_left();
}

#[test]
fn limits_are_felt() {
    let Some(place) = Place::new("limits-felt", &[]) else { return };
    // Three processes: the shell, and two more.
    let printed = place.prints(
        |c| c["linux"]["resources"]["pids"] = json!({"limit": 3}),
        "sleep 1 & sleep 1 & (sleep 1 &) 2>&1; wait",
    );
    assert!(printed.contains("fork"), "{printed}");
    let printed = place.prints(
        |c| c["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20}),
        "head -c 64000000 /dev/zero | tail -c 63000000 | wc -c; echo alive",
    );
    assert!(printed.contains("0\nalive") && !printed.contains("63000000"), "{printed}");
    let printed = place
        .prints(|c| c["linux"]["resources"]["cpu"] = json!({"cpus": "0"}), "grep Cpus_allowed_list /proc/self/status");
    assert_eq!(printed, "Cpus_allowed_list:\t0");
    place.assert_nothing_left();
}

#[test]
fn block_devices_and_huge_pages() {
    let Some(place) = Place::new("limits-block", &["/bin/sleep", "100"]) else { return };
    let disk = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !["loop", "ram", "dm-", "zram", "nbd", "sr"].iter().any(|prefix| name.starts_with(prefix))
    });
    if let Some(disk) = disk {
        let number = fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned();
        let (major, minor) = number.split_once(':').unwrap();
        let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
        place.edit(|c| {
            let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
            c["linux"]["resources"]["blockIO"] =
                json!({"throttleReadBpsDevice": rate(1 << 20), "throttleWriteIOPSDevice": rate(500)});
        });
        place.ok(&["run", "--detach"], &[]);
        let dir = cgroup(&place, "blkio").unwrap();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
        if v2() {
            assert_eq!(read("io.max"), format!("{number} rbps=1048576 wbps=max riops=max wiops=500"));
        } else {
            assert_eq!(read("blkio.throttle.read_bps_device"), format!("{number} 1048576"));
            assert_eq!(read("blkio.throttle.write_iops_device"), format!("{number} 500"));
        }
        place.ok(&["delete", "--force"], &[]);
    } else {
        println!("skipped: no disk");
    }
    place.edit(|c| c["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    let (status, errors) = place.on(&["run", "--detach"], &[]);
    match cgroup(&place, "hugetlb").filter(|_| status == 0) {
        Some(dir) => {
            let file = if v2() { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
            assert_eq!(fs::read_to_string(dir.join(file)).unwrap().trim(), "4194304");
        }
        None => {
            assert!(errors.contains("hugetlb") || errors.contains("huge pages"), "{errors}");
            place.assert_nothing_left();
        }
    }
}

#[test]
fn paths_are_absolute_or_beside_the_caller() {
    let Some(place) = Place::new("path", &["/bin/sleep", "100"]) else { return };
    let below = |path: &str, made_above: bool| {
        place.edit(|c| c["linux"]["cgroupsPath"] = path.into());
        place.ok(&["run", "--detach"], &[]);
        let dir = cgroup(&place, "pids").unwrap();
        place.ok(&["delete", "--force"], &[]);
        assert!(!dir.exists());
        // Levels above the container's are the caller's to remove, in every hierarchy.
        if made_above {
            let top = dir.parent().unwrap().file_name().unwrap();
            let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
            let tops = mounts.chain([PathBuf::from("/sys/fs/cgroup")]).map(|mount| mount.join(top));
            tops.filter(|top| top.exists()).for_each(|top| fs::remove_dir(top).unwrap());
        }
        dir
    };
    let dir = below(&format!("/{}-top/{}", place.id, place.id), true);
    assert!(dir.ends_with(format!("{}-top/{}", place.id, place.id)), "{}", dir.display());
    let hierarchy = if v2() { PathBuf::from("/sys/fs/cgroup") } else { Path::new("/sys/fs/cgroup").join("pids") };
    assert_eq!(dir, hierarchy.join(format!("{}-top/{}", place.id, place.id)));
    let dir = below(&place.id, false);
    assert!(dir.ends_with(&place.id), "{}", dir.display());
    place.assert_nothing_left();
}

#[test]
fn a_cgroup_namespace_hides_what_is_above() {
    let Some(place) = Place::new("cgroupns", &[]) else { return };
    place.edit(|c| {
        let list = c["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "cgroup");
        list.push(json!({"type": "cgroup"}));
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}));
    });
    let printed = place.prints(|_| {}, "cut -d: -f3 /proc/self/cgroup | sort -u; (mkdir /sys/fs/cgroup/x /sys/fs/cgroup/pids/x) 2>&1 | grep -c 'Read-only\\|No such'; ls /sys/fs/cgroup | grep -c .");
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!((lines[0], lines[1]), ("/", "2"), "{printed}");
    assert_ne!(lines[2], "0", "{printed}");
}
