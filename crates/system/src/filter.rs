//! The caller's system call filter, opened for what an init and a nested engine do.
//!
//! All of these act on namespaces, of which the container has its own, and are checked by the kernel against the rights
//! in them. What needs the rights of the host's root (modules, kexec, raw I/O, clocks, the kernel's log, bpf) stays as
//! the caller has it: an init asks, is refused, and goes on.

use offshoot_spec::{Seccomp, Syscall};

const OPENED: [&str; 40] = [
    // Mounts, by the old calls and the new.
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "statmount",
    "listmount",
    // Namespaces.
    "clone",
    "clone3",
    "unshare",
    "setns",
    "listns",
    "sethostname",
    "setdomainname",
    // The end: in a pid namespace it ends that.
    "reboot",
    // Keys, which are counted to the container's own ids.
    "keyctl",
    "add_key",
    "request_key",
    // What init, service managers and debuggers do with processes that are theirs.
    "kcmp",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "ptrace",
    "fanotify_init",
    "fanotify_mark",
    // Placement in memory.
    "get_mempolicy",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "mbind",
    // Device nodes can be neither made nor used by it; whiteouts (0:0), fifos and sockets can.
    "mknod",
    "mknodat",
];

/// Lets the calls through. One rule without conditions takes the place of all that name a call, but for those that ask
/// an agent: whoever set one up wants to be asked. A profile that allows what it does not name is left as it is: whoever
/// wrote it named what he wants refused, and did not leave out what an ordinary container does not need.
pub(crate) fn open(profile: &mut Seccomp) {
    const ALLOW: &str = "SCMP_ACT_ALLOW";
    if profile.default_action == ALLOW {
        return;
    }
    let asked = |name: &str, rules: &[Syscall]| {
        rules.iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY" && rule.names.iter().any(|other| other == name))
    };
    let names: Vec<String> =
        OPENED.iter().filter(|name| !asked(name, &profile.syscalls)).map(ToString::to_string).collect();
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| !names.contains(name));
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
    profile.syscalls.push(Syscall { names, action: ALLOW.into(), ..Syscall::default() });
}
