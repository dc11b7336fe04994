//! The root of a system container, with all rights in its user namespace, against what is not its own.

#![forbid(unsafe_code)]

#[path = "../place/mod.rs"]
mod place;

mod filtered;
mod host;
mod joined;
mod mounts;

use offshoot_sys::libc;
use place::Place;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A bundle of a system container, with the host's programs.
fn system(name: &str) -> Option<Place> {
    if !Path::new("/usr/bin/perl").exists() {
        println!("skipped: no perl, which makes the guest's system calls");
        return None;
    }
    let place = Place::new(name, &[])?;
    place.edit(|config| {
        config["annotations"] = json!({"org.offshoot.system": "true"});
        config["root"]["readonly"] = false.into();
        config["linux"]["cgroupsPath"] = format!("/{}", place.id).into();
    });
    Some(place)
}

/// Adds a mount to a configuration.
fn mount(config: &mut Value, destination: &str, source: &Path, options: &[&str]) {
    let mount = json!({"destination": destination, "type": "none", "source": source, "options": options});
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Numbers of system calls, and a function that makes one and says with which error it ended; 0 is none. What the kernel
/// has written is in the arguments that it leaves.
fn prelude() -> String {
    let calls = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("pivot_root", libc::SYS_pivot_root),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("init_module", libc::SYS_init_module),
        ("delete_module", libc::SYS_delete_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("settimeofday", libc::SYS_settimeofday),
        ("clock_settime", libc::SYS_clock_settime),
        ("clock_adjtime", libc::SYS_clock_adjtime),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("acct", libc::SYS_acct),
        ("syslog", libc::SYS_syslog),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("prlimit64", libc::SYS_prlimit64),
        ("quotactl", libc::SYS_quotactl),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("kill", libc::SYS_kill),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("setpriority", libc::SYS_setpriority),
        ("sched_setaffinity", libc::SYS_sched_setaffinity),
        ("openat", libc::SYS_openat),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("mknod", libc::SYS_mknod),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("socket", libc::SYS_socket),
        ("sendto", libc::SYS_sendto),
        ("recvfrom", libc::SYS_recvfrom),
        ("bind", libc::SYS_bind),
        ("setns", libc::SYS_setns),
        ("sethostname", libc::SYS_sethostname),
        ("setdomainname", libc::SYS_setdomainname),
        ("add_key", libc::SYS_add_key),
        ("keyctl", libc::SYS_keyctl),
    ];
    let calls: Vec<String> = calls.iter().map(|(name, number)| format!("{name} => {number}")).collect();
    let own = "sub call { my $name = shift; @args = @_; $! = 0; my $got = syscall($call{$name}, @args); $result = $got; $got == -1 ? $! + 0 : 0 }\n\
        sub within { my $code = shift; my $pid = fork; if (!$pid) { call('unshare', 0x20000) == 0 or exit 250; exit $code->() } \
        waitpid $pid, 0; $? & 127 ? 251 : $? >> 8 }\n";
    format!("use strict; our ($result, $errno, @args, %call); %call = ({});\n{own}", calls.join(", "))
}

/// What a program in Perl prints in the container, as its root.
fn perl(place: &Place, change: impl FnOnce(&mut Value), program: &str) -> String {
    fs::write(place.dir.join("rootfs/program"), prelude() + program).unwrap();
    place.prints(change, "exec perl /program")
}
