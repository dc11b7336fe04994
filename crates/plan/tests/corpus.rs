//! Configurations that real engines wrote (Docker, Podman, containerd, Kubernetes; captured by a wrapper runtime, paths
//! and ids made neutral): every one of them plans without a problem, and its steps keep the order that is safe.

use offshoot_plan::cgroup::{CgroupHost, HostHierarchy, Mode, SystemdHost};
use offshoot_plan::{Host, HostStep, Kind, Plan, Request, Step, Sync, build};
use offshoot_spec::Spec;
use std::path::{Path, PathBuf};

fn hierarchy(controllers: &[&str], mount_point: &str) -> HostHierarchy {
    let controllers = controllers.iter().map(ToString::to_string).collect();
    HostHierarchy { controllers, mount_point: mount_point.into(), own_path: Some(PathBuf::from("runtime/own")) }
}

fn host(mode: Mode) -> Host {
    let v1 = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "name=systemd"];
    let all = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
    let (hierarchies, unified) = match mode {
        Mode::V2 => (Vec::new(), hierarchy(&all, "/sys/fs/cgroup")),
        _ => (
            v1.iter().map(|name| hierarchy(&[name], &format!("/sys/fs/cgroup/{name}"))).collect(),
            hierarchy(&[], "/sys/fs/cgroup/unified"),
        ),
    };
    let systemd = Some(SystemdHost { version: 257, control_group: "/".into() });
    let (in_userns, huge_page_sizes) = (false, vec!["2MB".into()]);
    Host {
        euid: 0,
        in_user_namespace: false,
        cgroup: CgroupHost { mode, hierarchies, unified: Some(unified), in_userns, huge_page_sizes, systemd },
        seccomp: offshoot_seccomp::Kernel { native: offshoot_seccomp::Arch::X86_64, flags: u64::MAX },
        apparmor: true,
        selinux: false,
        last_cap: 40,
        bounding: u64::MAX,
        resctrl: false,
    }
}

/// Every configuration on every kind of host that it can be meant for.
fn each(mut check: impl FnMut(&str, &Plan)) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let spec: Spec = offshoot_spec::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let linux = spec.linux.as_ref().unwrap();
        let systemd_cgroup = linux.cgroups_path.contains(':');
        for mode in [Mode::V2, Mode::Hybrid] {
            let unified = linux.resources.as_ref().is_some_and(|resources| !resources.unified.is_empty());
            // A user has no say over v1 cgroups.
            let needs_v2 = unified || name.contains("rootless");
            if needs_v2 && mode != Mode::V2 {
                continue;
            }
            let request = Request {
                id: "x".into(),
                bundle: "/bundle".into(),
                systemd_cgroup,
                detached: true,
                console_socket: spec.process.as_ref().unwrap().terminal,
                ..Request::default()
            };
            let mut host = host(mode);
            // A user's engine runs in a user namespace; its files are the user's.
            host.in_user_namespace = name.contains("rootless");
            host.cgroup.in_userns = host.in_user_namespace;
            let plan = build(&spec, &request, &host).unwrap_or_else(|problems| panic!("{name} {mode:?}: {problems:?}"));
            check(&format!("{name} {mode:?}"), &plan);
            seen += 1;
        }
    }
    assert!(seen >= 30, "only {seen} plans");
}

fn position(name: &str, steps: &[Step], what: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(what).unwrap_or_else(|| panic!("{name}: a step is missing"))
}

#[test]
fn every_engine_s_configuration_plans() {
    each(|name, plan| assert!(!plan.steps.is_empty(), "{name}"));
}

#[test]
fn mounts_come_before_the_pivot_and_masks_after_it() {
    each(|name, plan| {
        let pivot = position(name, &plan.steps, |step| *step == Step::PivotRoot);
        for (at, step) in plan.steps.iter().enumerate() {
            match step {
                Step::Mount(_) | Step::Device(_) | Step::DeviceLinks => assert!(at < pivot, "{name}: {step}"),
                Step::MaskedPaths(_) | Step::ReadonlyPath(_) | Step::RootReadonly => {
                    assert!(at > pivot, "{name}: {step}")
                }
                _ => {}
            }
        }
    });
}

#[test]
fn rights_go_last_and_nothing_follows_the_exec() {
    each(|name, plan| {
        let steps = &plan.steps;
        let user = position(name, steps, |step| *step == Step::SwitchUser);
        let caps = position(name, steps, |step| *step == Step::Capabilities);
        let bounding = position(name, steps, |step| matches!(step, Step::BoundingSet(_)));
        assert!(bounding < user && user < caps, "{name}");
        for (at, step) in steps.iter().enumerate() {
            if matches!(step, Step::Mount(_) | Step::Hostname(_) | Step::Sysctl(_) | Step::AppArmor(_)) {
                assert!(at < bounding, "{name}: {step}");
            }
        }
        assert_eq!(steps.last(), Some(&Step::Exec), "{name}");
    });
}

#[test]
fn the_filter_is_at_its_last_legal_place() {
    each(|name, plan| {
        if plan.process.seccomp.is_none() {
            return;
        }
        let seccomp = position(name, &plan.steps, |step| *step == Step::Seccomp);
        let user = position(name, &plan.steps, |step| *step == Step::SwitchUser);
        // With no_new_privs anyone may load it; without, only while root's rights are there.
        assert_eq!(seccomp > user, plan.process.no_new_privileges, "{name}");
    });
}

#[test]
fn what_exists_is_written_down_before_the_process_is_let_go() {
    each(|name, plan| {
        assert_eq!(plan.host(Sync::Ready).last(), Some(&HostStep::Save), "{name}");
        let prepare = plan.prepare();
        let save = prepare.iter().position(|step| *step == HostStep::Save);
        assert!(save < prepare.iter().position(|step| *step == HostStep::Clone), "{name}");
    });
}

#[test]
fn engines_containers_take_one_clone_unless_they_join_a_user_namespace() {
    each(|name, plan| {
        let ns = &plan.namespaces;
        let joins = ns.joins(Kind::User) || ns.joins(Kind::Pid) || ns.makes(Kind::User) && !ns.joined.is_empty();
        assert_eq!(plan.entry.launcher.is_some(), joins, "{name}");
    });
}
