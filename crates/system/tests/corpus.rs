//! Configurations that real engines wrote, made system containers: every one of them plans, on both kinds of host, and has
//! what a system needs and nothing of the host's.

use offshoot_plan::cgroup::{CgroupHost, HostHierarchy, Mode, SystemdHost};
use offshoot_plan::{HookKind, Host, Kind, Mount as Planned, Plan, Request, Step, Sync, What, build};
use offshoot_spec::{Mount, Namespace, Seccomp, Spec, Syscall};
use offshoot_system::{ANNOTATION, Facts, IDS, Init, PROGRAM, Wanted, brings_user_namespace, rewrite, wanted};
use std::path::Path;

const FIRST: u32 = 0x7000_0000;

fn facts() -> Facts {
    Facts { init: Some(Init::Systemd), ids: Some(FIRST), fuse: true, tun: true, capabilities: 0x1ff_ffff_ffff }
}

fn host(mode: Mode) -> Host {
    let hierarchy = |controllers: &[&str], mount_point: &str| HostHierarchy {
        controllers: controllers.iter().map(ToString::to_string).collect(),
        mount_point: mount_point.into(),
        own_path: Some("runtime/own".into()),
    };
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
    let huge_page_sizes = vec!["2MB".into()];
    Host {
        euid: 0,
        in_user_namespace: false,
        cgroup: CgroupHost { mode, hierarchies, unified: Some(unified), in_userns: false, huge_page_sizes, systemd },
        seccomp: offshoot_seccomp::Kernel { native: offshoot_seccomp::Arch::X86_64, flags: u64::MAX },
        apparmor: true,
        selinux: false,
        last_cap: 40,
        bounding: u64::MAX,
        resctrl: false,
    }
}

fn corpus(name: &str) -> Spec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plan/tests/corpus").join(name);
    offshoot_spec::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every configuration of an engine that runs as root and brings no user namespace, rewritten and planned.
fn each(mut check: impl FnMut(&str, &Spec, &Plan)) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plan/tests/corpus");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".json") || name.contains("rootless") {
            continue;
        }
        let spec = corpus(&name);
        let network = spec.linux.iter().flat_map(|linux| &linux.namespaces).any(|ns| ns.kind == "network");
        if brings_user_namespace(&spec) || !network {
            continue;
        }
        let new = rewrite(&spec, &facts()).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        for mode in [Mode::V2, Mode::Hybrid] {
            if mode != Mode::V2 && new.linux.as_ref().unwrap().resources.as_ref().is_some_and(|r| !r.unified.is_empty())
            {
                continue;
            }
            let request = Request {
                id: "x".into(),
                bundle: "/bundle".into(),
                systemd_cgroup: new.linux.as_ref().unwrap().cgroups_path.contains(':'),
                detached: true,
                console_socket: new.process.as_ref().unwrap().terminal,
                root_mount: Some("/bundle/rootfs".into()),
                root_over_host: true,
                lock_mounts: true,
                owned_by_mapped_root: true,
                map_volumes: true,
                ..Request::default()
            };
            let plan = build(&new, &request, &host(mode)).unwrap_or_else(|all| panic!("{name} {mode:?}: {all:?}"));
            check(&format!("{name} {mode:?}"), &new, &plan);
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} plans");
}

#[test]
fn all_namespaces_are_made_and_only_a_network_is_joined() {
    each(|name, _, plan| {
        for kind in [Kind::User, Kind::Cgroup, Kind::Mount, Kind::Pid, Kind::Ipc, Kind::Uts] {
            assert!(plan.namespaces.makes(kind), "{name}: {kind:?}");
        }
        assert!(plan.namespaces.joined.iter().all(|(kind, _)| *kind == Kind::Network), "{name}");
    });
}

#[test]
fn the_user_namespace_is_owned_by_the_root_it_maps() {
    each(|name, _, plan| {
        let map = plan.id_map.as_ref().unwrap();
        assert_eq!((&map.uids, &map.gids), (&vec![(0, FIRST, IDS)], &vec![(0, FIRST, IDS)]), "{name}");
        let owner = Step::Owner { uid: FIRST, gid: FIRST };
        assert!(plan.entry.launcher.as_ref().unwrap().contains(&owner), "{name}");
        assert_eq!(plan.delegate_to, Some(FIRST + plan.process.uid), "{name}: the cgroup is not handed over");
    });
}

#[test]
fn cgroups_are_the_container_s_own_and_of_the_second_version() {
    each(|name, _, plan| {
        let cgroups: Vec<_> =
            plan.mounts.iter().filter(|mount| mount.destination.starts_with("/sys/fs/cgroup")).collect();
        let [mount] = cgroups[..] else { panic!("{name}: {cgroups:?}") };
        assert!(matches!(&mount.what, What::New(new) if new.kind == "cgroup2"), "{name}: {mount:?}");
        assert_eq!(mount.attributes.set & offshoot_plan::attr::RDONLY, 0, "{name}");
        // After all cgroups are entered: its root would be another one.
        let unshare = plan.steps.iter().position(|step| *step == Step::Unshare(Kind::Cgroup.flag())).unwrap();
        assert!(plan.entry.launcher.as_ref().unwrap().contains(&Step::JoinCgroups), "{name}");
        let mounted =
            |step: &Step| matches!(step, Step::Mount(mount) if mount.destination == Path::new("/sys/fs/cgroup"));
        assert!(unshare < plan.steps.iter().position(mounted).unwrap(), "{name}");
    });
}

#[test]
fn what_is_mounted_covers_nothing_that_was_mounted_before() {
    each(|name, _, plan| {
        let places: Vec<_> = plan.mounts.iter().map(|mount| &mount.destination).collect();
        for (i, place) in places.iter().enumerate() {
            let covered = places[..i].iter().find(|earlier| earlier.starts_with(place) && *earlier != place);
            assert_eq!(covered, None, "{name}: {place:?}");
        }
        for wanted in ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/lock"] {
            assert_eq!(places.iter().filter(|place| **place == Path::new(wanted)).count(), 1, "{name}: {wanted}");
        }
    });
}

#[test]
fn volumes_get_the_container_s_ids() {
    each(|name, _, plan| {
        for mount in &plan.mounts {
            if let What::Bind(bind) = &mount.what {
                assert!(bind.idmap.is_some() && bind.idmap_or_plain, "{name}: {bind:?}");
            }
        }
    });
}

#[test]
fn volumes_and_devices_are_mounted_before_the_user_namespace_is_made() {
    each(|name, _, plan| {
        let launcher = plan.entry.launcher.as_ref().unwrap();
        // Docker's hook wants to find the root before it is entered.
        let hooks = !plan.hooks.prestart.is_empty();
        let entrance = if hooks { Step::StandInRoot } else { Step::PivotRoot };
        let at = |what: &dyn Fn(&Step) -> bool| launcher.iter().position(what).unwrap_or_else(|| panic!("{name}"));
        let order = [
            at(&|step| matches!(step, Step::Owner { .. })),
            at(&|step| *step == Step::Unshare(Kind::Mount.flag())),
            at(&|step| matches!(step, Step::HostPropagation(_))),
            at(&|step| *step == Step::BindRoot),
            at(&|step| matches!(step, Step::Mount(mount) if mount.destination == Path::new("/dev"))),
            at(&|step| matches!(step, Step::Device(_))),
            at(&|step| *step == Step::Placeholders),
            at(&|step| *step == entrance),
        ];
        assert!(order.is_sorted() && order[7] == launcher.len() - 1, "{name}: {launcher:?}");
        assert!(plan.entry.clone_flags & Kind::Mount.flag() != 0, "{name}: the mounts would not be locked");
        let mounts = |steps: &[Step]| -> Vec<Planned> {
            steps
                .iter()
                .filter_map(|step| if let Step::Mount(mount) = step { Some(mount.clone()) } else { None })
                .collect()
        };
        let (outer, inner) = (mounts(launcher), mounts(&plan.steps));
        assert_eq!(outer.len() + inner.len(), plan.mounts.len(), "{name}");
        assert!(outer.iter().all(|mount| match &mount.what {
            What::Bind(_) => true,
            What::New(new) => new.kind == "tmpfs",
            _ => false,
        }));
        // Only what goes into a file system of the container's own is left for it.
        assert!(inner.iter().all(|mount| !matches!(mount.what, What::Bind(_))), "{name}: {inner:?}");
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::BindRoot | Step::Device(_))), "{name}");
        assert_eq!(plan.steps.contains(&Step::PivotRoot), hooks, "{name}");
        assert!(plan.devices.iter().all(|device| device.owner.0 >= FIRST), "{name}: a node would be the host's root's");
    });
}

#[test]
fn hooks_that_want_the_host_s_root_beside_the_container_s_get_it() {
    let mut spec = corpus("docker.json");
    let hook = offshoot_spec::Hook { path: "/x".into(), ..offshoot_spec::Hook::default() };
    spec.hooks.get_or_insert_default().create_container.push(hook);
    let request = Request {
        lock_mounts: true,
        owned_by_mapped_root: true,
        root_mount: Some("/b/rootfs".into()),
        root_over_host: true,
        bundle: "/b".into(),
        ..Request::default()
    };
    let plan = build(&rewrite(&spec, &facts()).unwrap(), &request, &host(Mode::V2)).unwrap();
    assert!(plan.locks_mounts && plan.root_at == Path::new("/b/rootfs"));
    let launcher = plan.entry.launcher.as_ref().unwrap();
    assert!(launcher.last() == Some(&Step::StandInRoot) && !launcher.contains(&Step::PivotRoot));
    let at = |wanted: &Step| plan.steps.iter().position(|step| step == wanted).unwrap_or_else(|| panic!("{wanted}"));
    let order =
        [&Step::FreeRoot, &Step::Sync(Sync::Mounted), &Step::Hooks(HookKind::CreateContainer), &Step::PivotRoot];
    assert!(order.map(at).is_sorted());
    let mounts = plan.steps.iter().rposition(|step| matches!(step, Step::Mount(_))).unwrap();
    assert!(at(&Step::FreeRoot) < mounts && mounts < at(&Step::Sync(Sync::Mounted)), "mounts go where init finds them");
}

#[test]
fn nothing_of_proc_and_sys_is_hidden_from_a_nested_engine() {
    each(|name, _, plan| {
        let hides = |step: &Step| match step {
            Step::MaskedPaths(paths) => paths.iter().any(|path| path.starts_with("/proc") || path.starts_with("/sys")),
            Step::ReadonlyPath(path) => path.starts_with("/proc") || path.starts_with("/sys"),
            _ => false,
        };
        assert!(!plan.steps.iter().any(hides), "{name}");
    });
}

#[test]
fn root_has_all_rights_but_those_of_hardware_and_modules() {
    each(|name, _, plan| {
        let caps = plan.process.capabilities.unwrap();
        let all = 0x1ff_ffff_ffff & !(1 << 16) & !(1 << 17);
        assert_eq!(caps.bounding, all, "{name}");
        assert_eq!((caps.inheritable, caps.ambient), (0, 0), "{name}");
        if plan.process.uid == 0 {
            assert_eq!((caps.effective, caps.permitted), (all, all), "{name}");
        }
        assert!(!plan.process.no_new_privileges, "{name}");
        assert_eq!(plan.process.apparmor_profile, "", "{name}");
        assert!(plan.process.env.iter().any(|entry| entry.starts_with("container=")), "{name}");
    });
}

#[test]
fn a_further_process_has_the_rights_that_its_engine_does_not_know_of() {
    let mut process = corpus("docker.json").process.unwrap();
    process.no_new_privileges = true;
    offshoot_system::rewrite_further(&mut process, &facts());
    let caps = process.capabilities.unwrap();
    assert!(caps.effective.contains(&"CAP_SYS_ADMIN".to_owned()) && !process.no_new_privileges);
    assert!(!caps.bounding.contains(&"CAP_SYS_MODULE".to_owned()) && caps.inheritable.is_empty());
}

#[test]
fn the_filter_lets_an_init_mount_and_still_no_module_in() {
    let new = rewrite(&corpus("docker.json"), &facts()).unwrap();
    let filter = new.linux.unwrap().seccomp.unwrap();
    let allowed = |name: &str| {
        let rules: Vec<&Syscall> = filter.syscalls.iter().filter(|rule| rule.names.iter().any(|n| n == name)).collect();
        matches!(rules[..], [rule] if rule.action == "SCMP_ACT_ALLOW" && rule.args.is_empty())
    };
    for name in ["mount", "umount2", "clone", "clone3", "unshare", "setns", "pivot_root", "keyctl", "fsopen", "reboot"]
    {
        assert!(allowed(name), "{name}");
    }
    for name in ["init_module", "finit_module", "kexec_load", "bpf", "open_by_handle_at", "settimeofday", "iopl"] {
        assert!(!allowed(name), "{name}");
    }
}

#[test]
fn an_agent_that_wants_to_be_asked_about_a_call_still_is() {
    let ask = Syscall { names: vec!["mount".into()], action: "SCMP_ACT_NOTIFY".into(), ..Syscall::default() };
    let mut spec = corpus("docker.json");
    let seccomp =
        Seccomp { default_action: "SCMP_ACT_ERRNO".into(), syscalls: vec![ask.clone()], ..Seccomp::default() };
    spec.linux.as_mut().unwrap().seccomp = Some(seccomp);
    let rules = rewrite(&spec, &facts()).unwrap().linux.unwrap().seccomp.unwrap().syscalls;
    assert_eq!(rules[0], ask);
    assert!(!rules[1].names.contains(&"mount".to_owned()));
}

#[test]
fn a_caller_s_user_namespace_keeps_its_ids() {
    let spec = corpus("docker-userns-remap.json");
    assert!(brings_user_namespace(&spec));
    let new = rewrite(&spec, &Facts { ids: None, ..facts() }).unwrap();
    let (old, new) = (spec.linux.unwrap(), new.linux.unwrap());
    assert_eq!((old.uid_mappings, old.gid_mappings), (new.uid_mappings, new.gid_mappings));
    assert_eq!(new.namespaces.iter().filter(|ns| ns.kind == "user").count(), 1);
}

#[test]
fn a_pod_s_network_is_joined_and_its_other_namespaces_are_not() {
    let spec = corpus("kubernetes-container.json");
    let new = rewrite(&spec, &facts()).unwrap().linux.unwrap();
    let joined: Vec<&Namespace> = new.namespaces.iter().filter(|ns| !ns.path.is_empty()).collect();
    assert!(joined.iter().all(|ns| ns.kind == "network") && joined.len() == 1, "{joined:?}");
}

#[test]
fn the_host_s_network_is_refused() {
    let problems = rewrite(&corpus("docker-host.json"), &facts()).unwrap_err();
    assert!(problems[0].to_string().contains("cannot share the host's network"), "{problems:?}");
}

#[test]
fn only_groups_of_the_range_may_ping() {
    let mut spec = corpus("docker.json");
    let sysctl = &mut spec.linux.as_mut().unwrap().sysctl;
    sysctl.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    let new = rewrite(&spec, &facts()).unwrap().linux.unwrap();
    assert_eq!(new.sysctl["net.ipv4.ping_group_range"], "0 65535");
}

#[test]
fn the_caller_s_mount_stands_in_the_place_of_ours() {
    let mut spec = corpus("docker.json");
    let mount = |destination: &str| Mount {
        destination: destination.into(),
        kind: "tmpfs".into(),
        source: "theirs".into(),
        ..Mount::default()
    };
    spec.mounts.extend([mount("/run/x"), mount("/run/")]);
    let new = rewrite(&spec, &facts()).unwrap();
    let at = |place: &str| new.mounts.iter().position(|mount| mount.destination == place);
    assert!(
        at("/run/") < at("/run/lock") && at("/run/lock") < at("/run/x") && at("/run").is_none(),
        "{:?}",
        new.mounts
    );
}

#[test]
fn who_asks_gets_a_system_container() {
    let with = |value: &str| {
        let mut spec = Spec::default();
        spec.annotations.insert(ANNOTATION.into(), value.into());
        spec
    };
    assert_eq!(wanted(&Spec::default(), "offshoot").unwrap(), Wanted::No);
    assert_eq!(wanted(&Spec::default(), PROGRAM).unwrap(), Wanted::Yes);
    assert_eq!(wanted(&with("true"), "offshoot").unwrap(), Wanted::Yes);
    assert_eq!(wanted(&with("auto"), PROGRAM).unwrap(), Wanted::IfInit);
    assert_eq!(wanted(&with("false"), PROGRAM).unwrap(), Wanted::No);
    assert!(wanted(&with("yes"), "offshoot").unwrap_err().to_string().contains(ANNOTATION));
    let mut sandbox = with("true");
    sandbox.annotations.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
    assert_eq!(wanted(&sandbox, PROGRAM).unwrap(), Wanted::No);
}

#[test]
fn the_cgroup_is_handed_to_root_of_a_user_namespace_that_the_engine_made() {
    let mut spec = corpus("docker.json");
    let linux = spec.linux.as_mut().unwrap();
    let network = |ns: &mut Namespace| ns.path = "/proc/1/ns/net".into();
    linux.namespaces.iter_mut().filter(|ns| ns.kind == "network").for_each(network);
    linux.namespaces.push(Namespace { kind: "user".into(), path: "/proc/1/ns/user".into() });
    linux.uid_mappings = vec![offshoot_spec::IdMapping { container_id: 0, host_id: 5_000_000, size: IDS }];
    linux.gid_mappings = linux.uid_mappings.clone();
    let new = rewrite(&spec, &Facts { ids: None, ..facts() }).unwrap();
    let request =
        Request { id: "x".into(), bundle: "/bundle".into(), owned_by_mapped_root: true, ..Request::default() };
    let plan = build(&new, &request, &host(Mode::V2)).unwrap();
    assert_eq!(plan.delegate_to, Some(5_000_000));
    // One who does not send the map along: that of the namespace.
    let mut bare = new;
    let linux = bare.linux.as_mut().unwrap();
    (linux.uid_mappings, linux.gid_mappings) = Default::default();
    let request = Request { joined_uids: vec![(0, 6_000_000, IDS)], ..request };
    assert_eq!(build(&bare, &request, &host(Mode::V2)).unwrap().delegate_to, Some(6_000_000));
}

#[test]
fn without_cgroup2_it_is_refused_and_told_how_to_mount_it() {
    let new = rewrite(&corpus("docker.json"), &facts()).unwrap();
    let request =
        Request { id: "x".into(), bundle: "/bundle".into(), owned_by_mapped_root: true, ..Request::default() };
    let mut host = host(Mode::V1);
    host.cgroup.unified = None;
    let problems = build(&new, &request, &host).unwrap_err();
    assert!(problems.iter().any(|problem| problem.to_string().contains("mount -t cgroup2")), "{problems:?}");
}
