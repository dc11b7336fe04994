//! What happens, in order, as data.

use crate::devices::Device;
use crate::mounts::Mount;
use crate::namespaces::Kind;
use crate::process::{NumaPolicy, SchedAttr};
use crate::sysctl::Sysctl;
use std::fmt;
use std::path::PathBuf;

/// A place where the container's process waits until the host has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sync {
    /// The first process exists: cgroup, and id maps if its clone made the user namespace.
    Attached,
    /// A user namespace was made after the clone: id maps.
    Mapped,
    /// The time namespace of the children is made and still empty.
    TimeOffsets,
    /// The root filesystem is complete, the old one still visible.
    Mounted,
    /// All is set but for what cannot be undone.
    Ready,
}

/// Kinds of hooks. spec: config.md#posix-platform-hooks
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookKind {
    /// The key in `hooks`.
    pub fn name(self) -> &'static str {
        match self {
            HookKind::Prestart => "prestart",
            HookKind::CreateRuntime => "createRuntime",
            HookKind::CreateContainer => "createContainer",
            HookKind::StartContainer => "startContainer",
            HookKind::Poststart => "poststart",
            HookKind::Poststop => "poststop",
        }
    }
}

/// What the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStep {
    /// Make the cgroup, without limits.
    Cgroup,
    /// Open all that the container's process finds by descriptor: namespaces, bind sources, `/dev/null`.
    Open,
    /// Mount the root filesystem on itself in the host's mount namespace, for `delete` to take away with all below it.
    MountRoot,
    /// Clone the first process, into the cgroup where the kernel can.
    Clone,
    /// Put the process into the cgroup where the clone could not.
    Attach,
    /// Set oom_score_adj, while the process is still the host's.
    OomScoreAdj,
    /// Write uid_map and gid_map.
    IdMaps,
    /// Write timens_offsets.
    TimeOffsets,
    /// Make the resctrl group and put the process in.
    IntelRdt,
    /// Move network devices.
    NetDevices,
    /// Set the limits of the cgroup and the schemata.
    Limits,
    /// Run hooks in the runtime's namespaces.
    Hooks(HookKind),
    /// Set resource limits of the process; inside, the right to raise them is gone.
    Rlimits,
    /// Write the container's state, before the process is let go.
    Save,
}

/// What the container's process does.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Enter v1 cgroups by writing to their open `tasks` files.
    JoinCgroups,
    /// Tell the host where this process is, and wait for it.
    Sync(Sync),
    /// Become root of the user namespace.
    BecomeRoot,
    /// Take the ids of a user namespace's owner, keeping all rights, so that it is the one who makes it.
    Owner {
        /// On the host.
        uid: u32,
        /// On the host.
        gid: u32,
    },
    /// Enter existing namespaces.
    Join(Vec<Kind>),
    /// Make namespaces.
    Unshare(u64),
    /// Become leader of a new session.
    NewSession,
    /// Set the CPUs of the process; `None` is all of them.
    Affinity(Option<Vec<u32>>),
    /// Join a new session keyring.
    Keyring {
        /// Its name.
        name: String,
        /// SELinux label of the key; may be empty.
        label: String,
    },
    /// Bring up `lo`.
    Loopback,
    /// Set propagation of the whole tree, so that nothing done here reaches the host.
    HostPropagation(u64),
    /// Make the root filesystem a mount of its own and hold it.
    BindRoot,
    /// Hold the mount of the root filesystem that the host made.
    HoldRoot,
    /// Mount something below the root.
    Mount(Mount),
    /// Enter an empty mount namespace, and make a copy of it: there is nothing to be left behind, and what covers its root is the
    /// root as if the host had been left by `pivot_root`, for which the kernel looks at every process there is.
    EnterVoid,
    /// Mount a procfs and a sysfs of namespaces that have ended: before root of a user namespace may mount its own, the
    /// kernel wants to see one that hides nothing, and the host's could be uncovered.
    Placeholders,
    /// Hold the root that another process has entered.
    TakeRoot,
    /// Have the root as working directory, so that a child finds it in a mount namespace of its own.
    StandInRoot,
    /// Cover the root, found as working directory and locked in its place, with a copy that can be entered, and hold that.
    FreeRoot,
    /// Make a device node.
    Device(Device),
    /// Make `/dev/ptmx`, `/dev/fd`, `/dev/std*`, `/dev/core`.
    DeviceLinks,
    /// Run hooks in the container's namespaces.
    Hooks(HookKind),
    /// Change the root by pivot_root.
    PivotRoot,
    /// Change the root by moving the mount over `/`.
    MoveRoot,
    /// Change the root by chroot, where there is no mount namespace.
    Chroot,
    /// Set propagation of the container's `/`.
    RootPropagation(u64),
    /// Replace stdio that is the host's `/dev/null` by the container's.
    ReopenNull,
    /// Make the working directory.
    MakeCwd,
    /// Make and enter the terminal.
    Console {
        /// Bind it over `/dev/console`.
        mount: bool,
        /// Make it the controlling one of the process's session.
        control: bool,
    },
    /// Make a mount read-only now that it is filled.
    Readonly(PathBuf),
    /// Make `/` read-only.
    RootReadonly,
    /// Set the file mode creation mask.
    Umask(u32),
    /// Set the host name.
    Hostname(String),
    /// Set the NIS domain name.
    Domainname(String),
    /// Name the AppArmor profile of the next exec.
    AppArmor(String),
    /// Set a kernel parameter.
    Sysctl(Sysctl),
    /// Make a path read-only, if it is there.
    ReadonlyPath(PathBuf),
    /// Hide paths, those that are there.
    MaskedPaths(Vec<PathBuf>),
    /// No new privileges by exec.
    NoNewPrivileges,
    /// Set the scheduling policy.
    Scheduler(SchedAttr),
    /// Set the I/O priority.
    IoPriority(i32),
    /// Set the execution domain.
    Personality(u64),
    /// Set the NUMA memory policy.
    MemoryPolicy(NumaPolicy),
    /// Close every descriptor that neither the program gets nor a later step needs, and reset signals.
    CloseDescriptors,
    /// Name the SELinux label of the next exec.
    SelinuxLabel(String),
    /// Load the system call filter.
    Seccomp,
    /// Change into the working directory and verify that it is inside the root, if it can be done with root's rights.
    EnterCwd,
    /// Drop from the bounding set all but this mask.
    BoundingSet(u64),
    /// Change to the process's user and groups; capabilities stay.
    SwitchUser,
    /// Set effective, permitted, inheritable and ambient sets.
    Capabilities,
    /// Else do it as the user.
    VerifyCwd,
    /// Look up the program; an error belongs to `create`.
    FindProgram,
    /// Wait for `start`.
    WaitStart,
    /// Close every descriptor the program is not meant to have, and become it.
    Exec,
}

impl fmt::Display for HostStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostStep::Cgroup => f.write_str("make the cgroup"),
            HostStep::Open => f.write_str("open namespaces to join, sources of mounts, /dev/null"),
            HostStep::MountRoot => f.write_str("mount the root filesystem on the host"),
            HostStep::Clone => f.write_str("clone the first process into its namespaces and cgroup"),
            HostStep::Attach => f.write_str("put the process into its cgroup"),
            HostStep::OomScoreAdj => f.write_str("set oom_score_adj"),
            HostStep::IdMaps => f.write_str("write uid_map and gid_map"),
            HostStep::TimeOffsets => f.write_str("write timens_offsets"),
            HostStep::IntelRdt => f.write_str("make the resctrl group"),
            HostStep::NetDevices => f.write_str("move network devices"),
            HostStep::Limits => f.write_str("set the limits of the cgroup"),
            HostStep::Hooks(kind) => write!(f, "run {} hooks", kind.name()),
            HostStep::Rlimits => f.write_str("set rlimits"),
            HostStep::Save => f.write_str("save the state"),
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sync::Attached => "attached",
            Sync::Mapped => "mapped",
            Sync::TimeOffsets => "time offsets",
            Sync::Mounted => "mounted",
            Sync::Ready => "ready",
        })
    }
}

/// Names of namespaces in clone flags.
fn flag_names(flags: u64) -> String {
    let names: Vec<_> = Kind::ALL.into_iter().filter(|kind| flags & kind.flag() != 0).map(Kind::name).collect();
    names.join(" ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::JoinCgroups => f.write_str("enter v1 cgroups"),
            Step::Sync(point) => write!(f, "wait for the host ({point})"),
            Step::EnterVoid => f.write_str("enter an empty mount namespace"),
            Step::Placeholders => f.write_str("mount an empty procfs and sysfs, for the kernel to see"),
            Step::TakeRoot => f.write_str("hold the root"),
            Step::StandInRoot => f.write_str("stand in the root"),
            Step::FreeRoot => f.write_str("hold a copy of the root that is not locked in its place"),
            Step::BecomeRoot => f.write_str("become root of the user namespace"),
            Step::Owner { uid, gid } => write!(f, "become {uid}:{gid}, the owner of the user namespace to be made"),
            Step::Join(kinds) => {
                write!(f, "join namespaces: {}", kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" "))
            }
            Step::Unshare(flags) => write!(f, "make namespaces: {}", flag_names(*flags)),
            Step::NewSession => f.write_str("start a new session"),
            Step::Affinity(None) => f.write_str("run on all CPUs"),
            Step::Affinity(Some(cpus)) => write!(f, "run on CPUs {cpus:?}"),
            Step::Keyring { name, .. } => write!(f, "join the session keyring {name}"),
            Step::Loopback => f.write_str("bring up lo"),
            Step::HostPropagation(flags) => write!(f, "cut mount propagation to the host ({flags:#x})"),
            Step::BindRoot => f.write_str("make the root filesystem a mount"),
            Step::HoldRoot => f.write_str("hold the mount of the root filesystem"),
            Step::Mount(mount) => write!(f, "mount {mount}"),
            Step::Device(device) => {
                write!(f, "make {} ({}:{} {:o})", device.path.display(), device.number.0, device.number.1, device.mode)
            }
            Step::DeviceLinks => f.write_str("make links in /dev"),
            Step::Hooks(kind) => write!(f, "run {} hooks", kind.name()),
            Step::PivotRoot => f.write_str("change the root by pivot_root"),
            Step::MoveRoot => f.write_str("change the root by moving the mount"),
            Step::Chroot => f.write_str("change the root by chroot"),
            Step::RootPropagation(flags) => write!(f, "set propagation of / ({flags:#x})"),
            Step::ReopenNull => f.write_str("use the container's /dev/null for stdio"),
            Step::MakeCwd => f.write_str("make the working directory"),
            Step::Console { .. } => f.write_str("make the terminal"),
            Step::Readonly(path) => write!(f, "make {} read-only", path.display()),
            Step::RootReadonly => f.write_str("make / read-only"),
            Step::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Step::Hostname(name) => write!(f, "set hostname {name}"),
            Step::Domainname(name) => write!(f, "set domainname {name}"),
            Step::AppArmor(profile) => write!(f, "set AppArmor profile {profile}"),
            Step::Sysctl(sysctl) => write!(f, "set sysctl {} = {}", sysctl.path, sysctl.value),
            Step::ReadonlyPath(path) => write!(f, "make {} read-only", path.display()),
            Step::MaskedPaths(paths) => {
                write!(f, "mask {}", paths.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join(" "))
            }
            Step::NoNewPrivileges => f.write_str("set no_new_privs"),
            Step::Scheduler(attr) => write!(f, "set scheduler policy {}", attr.policy),
            Step::IoPriority(value) => write!(f, "set I/O priority {value:#x}"),
            Step::Personality(domain) => write!(f, "set personality {domain:#x}"),
            Step::MemoryPolicy(policy) => write!(f, "set memory policy {:#x} on nodes {:?}", policy.mode, policy.nodes),
            Step::CloseDescriptors => f.write_str("close what the program does not get"),
            Step::SelinuxLabel(label) => write!(f, "set SELinux label {label}"),
            Step::Seccomp => f.write_str("load the seccomp filter"),
            Step::EnterCwd => f.write_str("enter the working directory"),
            Step::BoundingSet(mask) => write!(f, "limit the bounding set to {mask:#x}"),
            Step::SwitchUser => f.write_str("switch to the user and groups"),
            Step::Capabilities => f.write_str("set capabilities"),
            Step::VerifyCwd => f.write_str("verify that the working directory is inside"),
            Step::FindProgram => f.write_str("find the program"),
            Step::WaitStart => f.write_str("wait for start"),
            Step::Exec => f.write_str("exec the program"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::mounts::What;
        match &self.what {
            What::Bind(bind) => {
                let kind = if bind.recursive { "rbind" } else { "bind" };
                write!(f, "{kind} {} on ", bind.source.display())?;
            }
            What::New(new) => write!(f, "{} ({}) on ", new.kind, new.data.join(","))?,
            What::Cgroup { writable } => write!(f, "cgroup ({}) on ", if *writable { "rw" } else { "ro" })?,
            What::Remount => f.write_str("again ")?,
        }
        write!(f, "{}", self.destination.display())
    }
}
