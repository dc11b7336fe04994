use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use offshoot_sys::fork::{CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWUTS, Exit, fork, wait};
use offshoot_sys::process::*;
use offshoot_sys::{event, memfd, mount, path};

use crate::{Test, in_namespaces, need_root, skip};

pub const TESTS: &[Test] = &[
    ("process::flags_by_prctl", flags_by_prctl),
    ("process::a_death_signal", a_death_signal),
    ("process::users_and_groups", users_and_groups),
    ("process::users_for_files", users_for_files),
    ("process::capabilities", capabilities),
    ("process::session_and_masks", session_and_masks),
    ("process::an_unreachable_directory_is_named_so", an_unreachable_directory_is_named_so),
    ("process::names_of_a_uts_namespace", names_of_a_uts_namespace),
    ("process::joining_namespaces", joining_namespaces),
    ("process::limits", limits),
    ("process::scheduling", scheduling),
    ("process::memory_policy", memory_policy),
    ("process::session_keyring", session_keyring),
    ("process::descriptors_before_exec", descriptors_before_exec),
    ("process::exec_by_path_and_descriptor", exec_by_path_and_descriptor),
    ("process::signals_are_reset", signals_are_reset),
];

fn status(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_string()
}

fn flags_by_prctl() {
    set_dumpable(false).unwrap();
    assert!(!dumpable().unwrap());
    set_dumpable(true).unwrap();
    assert!(dumpable().unwrap());
    assert!(!no_new_privs().unwrap());
    set_no_new_privs().unwrap();
    assert!(no_new_privs().unwrap());
    set_name(c"renamed").unwrap();
    assert_eq!(status("Name"), "renamed");
    assert_eq!(personality(0xffff_ffff).unwrap() & 0xff, 0);
    personality(8).unwrap();
    assert_eq!(personality(0xffff_ffff).unwrap(), 8);
}

fn a_death_signal() {
    set_subreaper(true).unwrap();
    let (reader, writer) = event::pipe().unwrap();
    let child = fork(0, None, || {
        let grandchild = fork(0, None, || {
            set_pdeathsig(libc::SIGKILL).unwrap();
            path::write_all(&writer, b"x").unwrap();
            loop {
                event::poll(&mut [], None).unwrap();
            }
        });
        path::read(&reader, &mut [0]).unwrap();
        drop(grandchild);
        0
    })
    .unwrap();
    wait(child.pidfd).unwrap();
    // The orphan came to us, its subreaper.
    loop {
        match offshoot_sys::fork::try_wait_any().unwrap() {
            Some((_, ended)) => break assert_eq!(ended, Exit::Signal(libc::SIGKILL)),
            None => std::thread::yield_now(),
        }
    }
}

fn users_and_groups() {
    need_root();
    setgroups(&[7, 8]).unwrap();
    setresgid(1001).unwrap();
    setresuid(1000).unwrap();
    assert_eq!(status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status("Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(status("Groups"), "7 8");
    assert_eq!(setresuid(0).unwrap_err().to_string(), "setresuid(0, 0, 0): operation not permitted");
    assert!(setgroups(&[]).is_err() && setresgid(0).is_err());
}

fn users_for_files() {
    need_root();
    assert_eq!(setfsgid(51).unwrap(), 0);
    assert_eq!(setfsuid(50).unwrap(), 0);
    assert_eq!(status("Uid"), "0\t0\t0\t50");
    assert_eq!(setfsuid(0).unwrap(), 50);
    setresuid(1000).unwrap();
    assert_eq!(setfsuid(50).unwrap_err().errno(), Errno::EPERM);
    assert_eq!(setfsgid(52).unwrap_err().errno(), Errno::EPERM);
}

fn capabilities() {
    need_root();
    const CHOWN: u64 = 1;
    const NET_RAW: u32 = 13;
    const SYSLOG: u32 = 34;
    set_keepcaps(true).unwrap();
    let all = capget().unwrap();
    assert_eq!(all.effective & CHOWN, CHOWN);
    capbset_drop(NET_RAW).unwrap();
    assert_eq!(capbset_drop(63).unwrap_err().errno(), Errno::EINVAL);
    set_securebits(libc::SECBIT_NO_SETUID_FIXUP as u32).unwrap();
    assert_eq!(securebits().unwrap(), libc::SECBIT_NO_SETUID_FIXUP as u32);
    let kept = CHOWN | 1 << SYSLOG;
    capset(kept, kept, kept).unwrap();
    let now = capget().unwrap();
    assert_eq!((now.effective, now.permitted, now.inheritable), (kept, kept, kept));
    assert_eq!(ambient_raise(NET_RAW).unwrap_err().errno(), Errno::EPERM);
    ambient_raise(SYSLOG).unwrap();
    assert_eq!(status("CapAmb"), format!("{:016x}", 1u64 << SYSLOG));
    assert_eq!(u64::from_str_radix(&status("CapBnd"), 16).unwrap() & 1 << NET_RAW, 0);
    ambient_clear().unwrap();
    assert_eq!(status("CapAmb"), "0".repeat(16));
    assert_eq!(capset(u64::MAX >> 24, 0, 0).unwrap_err().errno(), Errno::EPERM);
}

fn session_and_masks() {
    setsid().unwrap();
    assert_eq!(setsid().unwrap_err().to_string(), "setsid(): operation not permitted");
    umask(0o27);
    assert_eq!(umask(0o22), 0o27);
    assert_ne!(getppid(), 0);
}

fn an_unreachable_directory_is_named_so() {
    need_root();
    chdir("/proc/self").unwrap();
    chdir("/usr").unwrap();
    assert_eq!(getcwd().unwrap(), Path::new("/usr"));
    fchdir(path::open("/etc", libc::O_PATH, 0).unwrap()).unwrap();
    assert_eq!(getcwd().unwrap(), Path::new("/etc"));
    chroot("/usr").unwrap();
    assert_eq!(getcwd().unwrap(), Path::new("(unreachable)/etc"));
    assert!(chroot("/no/such").unwrap_err().to_string().starts_with("chroot(\"/no/such\"): no such"));
}

fn names_of_a_uts_namespace() {
    need_root();
    in_namespaces(CLONE_NEWUTS, || {
        sethostname("sprout").unwrap();
        setdomainname("garden").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "sprout\n");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), "garden\n");
        assert_eq!(sethostname(&"x".repeat(99)).unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(setdomainname(&"x".repeat(99)).unwrap_err().errno(), Errno::EINVAL);
    });
}

fn joining_namespaces() {
    need_root();
    let ino = || std::fs::read_link("/proc/self/ns/uts").unwrap();
    let before = ino();
    let old = path::open("/proc/self/ns/uts", libc::O_RDONLY, 0).unwrap();
    unshare(CLONE_NEWUTS | CLONE_NEWNS).unwrap();
    assert_ne!(ino(), before);
    let error = setns(&old, CLONE_NEWNS).unwrap_err();
    assert!(error.to_string().ends_with(", CLONE_NEWNS): invalid argument"), "{error}");
    setns(&old, CLONE_NEWUTS).unwrap();
    assert_eq!(ino(), before);
    // A process in a user namespace can be joined by its pidfd.
    let (reader, writer) = event::pipe().unwrap();
    let holder = fork((CLONE_NEWUSER | CLONE_NEWUTS) as u64, None, || path::read(&reader, &mut [0]).map_or(1, |_| 0));
    let holder = holder.unwrap();
    setns(&holder.pidfd, CLONE_NEWUTS).unwrap();
    assert_ne!(ino(), before);
    path::write_all(&writer, b"x").unwrap();
    wait(holder.pidfd).unwrap();
}

fn limits() {
    // RLIMIT_NOFILE, to which each C library gives another type.
    const NOFILE: u32 = 7;
    let (_, hard) = getrlimit(0, NOFILE).unwrap();
    prlimit(0, NOFILE, 99, hard).unwrap();
    assert_eq!(getrlimit(getpid(), NOFILE).unwrap(), (99, hard));
    assert_eq!(prlimit(0, NOFILE, 2, 1).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(prlimit(0, 99, 1, 1).unwrap_err().errno(), Errno::EINVAL);
}

fn scheduling() {
    sched_setattr(0, &SchedAttr { policy: libc::SCHED_BATCH as u32, nice: 5, ..SchedAttr::default() }).unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Fields 19 and 41 of proc(5), counted after the name.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!((fields[16], fields[38]), ("5", "3"));
    assert_eq!(sched_setattr(0, &SchedAttr { policy: 99, ..SchedAttr::default() }).unwrap_err().errno(), Errno::EINVAL);
    let mut mask = sched_getaffinity(0).unwrap();
    let first = mask.iter().position(|word| *word != 0).unwrap();
    mask.resize(40, 0);
    // Bits of processors that do not exist are ignored, also far beyond 1024.
    let only = mask[first] & mask[first].wrapping_neg();
    mask.fill(0);
    mask[first] = only;
    mask[39] = 1;
    sched_setaffinity(0, &mask).unwrap();
    assert_eq!(sched_getaffinity(0).unwrap()[first], only);
    assert_eq!(sched_setaffinity(0, &[0]).unwrap_err().errno(), Errno::EINVAL);
    // Best effort class, level 7.
    ioprio_set(1, 0, 2 << 13 | 7).unwrap();
    assert_eq!(ioprio_set(9, 0, 0).unwrap_err().errno(), Errno::EINVAL);
}

fn memory_policy() {
    match set_mempolicy(libc::MPOL_BIND, &[1]) {
        Err(error) if error.errno() == Errno::ENOSYS => skip("this kernel has no NUMA"),
        result => result.unwrap(),
    }
    assert_eq!(get_mempolicy().unwrap(), libc::MPOL_BIND);
    set_mempolicy(libc::MPOL_DEFAULT, &[]).unwrap();
    assert_eq!(get_mempolicy().unwrap(), libc::MPOL_DEFAULT);
    assert_eq!(set_mempolicy(libc::MPOL_BIND, &[]).unwrap_err().errno(), Errno::EINVAL);
    // Node 63 does not exist; its bit must be seen nevertheless.
    assert_eq!(set_mempolicy(libc::MPOL_BIND, &[1 << 63]).unwrap_err().errno(), Errno::EINVAL);
}

fn session_keyring() {
    let serial = match join_session_keyring(Some("_offshoot.test")) {
        Err(error) if matches!(error.errno(), Errno::ENOSYS | Errno::EPERM) => skip(&error.to_string()),
        result => result.unwrap(),
    };
    assert_eq!(keyring_id().unwrap(), serial);
    let text = describe_key(serial).unwrap();
    assert!(text.starts_with("keyring;") && text.ends_with(";_offshoot.test"), "{text}");
    let permissions = u32::from_str_radix(text.split(';').nth(3).unwrap(), 16).unwrap();
    set_key_permissions(serial, permissions | 0x8_0000).unwrap();
    assert!(describe_key(serial).unwrap().contains(&format!("{:08x}", permissions | 0x8_0000)));
    assert_eq!(describe_key(i32::MAX).unwrap_err().errno(), Errno::ENOKEY);
    assert_ne!(join_session_keyring(None).unwrap(), serial);
}

fn descriptors_before_exec() {
    let (reader, writer) = event::pipe().unwrap();
    dup2(&writer, 100).unwrap();
    dup3(&reader, 101, libc::O_CLOEXEC).unwrap();
    assert_eq!(dup3(&reader, reader.as_raw_fd(), 0).unwrap_err().errno(), Errno::EINVAL);
    let flags =
        |fd: i32| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).map(|info| info.contains("02000001"));
    assert!(!flags(100).unwrap());
    set_cloexec(&writer, false).unwrap();
    assert!(!flags(writer.as_raw_fd()).unwrap());
    close_range(100, 100, CLOSE_RANGE_CLOEXEC).unwrap();
    assert!(flags(100).unwrap());
    close_range(100, u32::MAX, 0).unwrap();
    assert!(flags(100).is_err() && flags(101).is_err());
    assert_eq!(close_range(5, 4, 0).unwrap_err().errno(), Errno::EINVAL);
}

fn exec_by_path_and_descriptor() {
    let words = |list: &[&str]| list.iter().map(|word| CString::new(*word).unwrap()).collect::<Vec<_>>();
    let (argv, envp) = (words(&["sh", "-c", "exit $CODE"]), words(&["CODE=42"]));
    let child = fork(0, None, || execve(c"/bin/sh", &argv, &envp).map_or(1, |_| 2)).unwrap();
    assert_eq!(wait(child.pidfd).unwrap(), Exit::Code(42));
    let shell = path::open("/bin/sh", libc::O_PATH, 0).unwrap();
    let child = fork(0, None, || execveat(&shell, c"", &argv, &envp, libc::AT_EMPTY_PATH).map_or(1, |_| 2)).unwrap();
    assert_eq!(wait(child.pidfd).unwrap(), Exit::Code(42));
    let error = execve(c"/no/such", &argv, &envp).unwrap_err();
    assert_eq!(error.to_string(), "execve(\"/no/such\"): no such file or directory");
    let text = memfd::memfd("text", 0).unwrap();
    path::write_all(&text, b"not a program").unwrap();
    let error = execveat(&text, c"", &argv, &envp, libc::AT_EMPTY_PATH).unwrap_err();
    assert!(matches!(error.errno(), Errno::ENOEXEC | Errno::EACCES), "{error}");
    assert_eq!(mount::fstatfs_magic(text.as_fd()).unwrap(), libc::TMPFS_MAGIC as u64);
}

fn signals_are_reset() {
    event::block_signals(&[libc::SIGUSR1, 35]).unwrap();
    // Rust ignores SIGPIPE at start; a program must not inherit that.
    assert_ne!(status("SigIgn"), "0".repeat(16));
    assert_eq!(format!("{:016x}", ignored_signals()), status("SigIgn"));
    reset_signals(ignored_signals()).unwrap();
    for field in ["SigBlk", "SigIgn"] {
        assert_eq!(status(field), "0".repeat(16), "{field}");
    }
    reset_signals(ALL_SIGNALS).unwrap();
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status(field), "0".repeat(16), "{field}");
    }
}
