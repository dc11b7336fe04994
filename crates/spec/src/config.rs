//! `config.json` but for its `linux` part. spec: config.md, config-linux.md#…

use crate::Linux;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

macro_rules! json {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name { $($(#[$fm])* pub $field: $ty,)* }
    };
}
pub(crate) use json;

json! {
/// The whole of `config.json`, as received.
pub struct Spec {
    /// The version of the specification that the bundle was written for.
    pub oci_version: String,
    /// The program to run; may be absent until `start`.
    pub process: Option<Process>,
    /// The root filesystem.
    pub root: Option<Root>,
    /// The host name, set when not empty.
    pub hostname: String,
    /// The NIS domain name, set when not empty.
    pub domainname: String,
    /// Mounts below the root, in order.
    pub mounts: Vec<Mount>,
    /// The six kinds of hooks.
    pub hooks: Option<Hooks>,
    /// Labels; some are instructions (`org.systemd.property.*`, `org.offshoot.*`).
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    pub linux: Option<Linux>,
}}

json! {
/// spec: config.md#process; also the file of `exec --process`.
pub struct Process {
    /// Whether a pseudo-terminal is attached.
    pub terminal: bool,
    /// The terminal's size in characters.
    pub console_size: Option<ConsoleSize>,
    /// Numeric ids in the container.
    pub user: User,
    /// argv.
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// An absolute path in the container.
    pub cwd: String,
    /// The five sets.
    pub capabilities: Option<Capabilities>,
    /// Resource limits by `RLIMIT_` name.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// AppArmor profile for the next exec.
    pub apparmor_profile: String,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// SELinux label of the process.
    pub selinux_label: String,
    /// I/O class and priority.
    pub io_priority: Option<IoPriority>,
    /// Scheduling policy and its parameters.
    pub scheduler: Option<Scheduler>,
    /// CPUs of `exec` before and after it enters the container's cgroup.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}}

json! {
/// Terminal size in characters.
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}}

json! {
/// spec: config.md#posix-platform-user
pub struct User {
    /// User id in the container's user namespace.
    pub uid: u32,
    /// Group id in the container's user namespace.
    pub gid: u32,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}}

json! {
/// Capability names, `CAP_…`; a set that is absent is empty.
pub struct Capabilities {
    /// Limits what exec can gain.
    pub bounding: Vec<String>,
    /// In force.
    pub effective: Vec<String>,
    /// Kept over exec of files with matching inheritable bits.
    pub inheritable: Vec<String>,
    /// May be put in force.
    pub permitted: Vec<String>,
    /// Kept over exec of ordinary files.
    pub ambient: Vec<String>,
}}

json! {
/// One resource limit, in the limit's own unit (`man 2 setrlimit`).
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ceiling for the soft limit.
    pub hard: u64,
    /// The limit in force.
    pub soft: u64,
}}

json! {
/// `man 2 ioprio_set`
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0 (highest) to 7.
    pub priority: i64,
}}

json! {
/// `man 2 sched_setattr`
pub struct Scheduler {
    /// `SCHED_OTHER` and so on.
    pub policy: String,
    /// -20 to 19, for OTHER and BATCH.
    pub nice: i32,
    /// 1 to 99, for FIFO and RR.
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    pub flags: Vec<String>,
    /// Nanoseconds, DEADLINE only.
    pub runtime: u64,
    /// Nanoseconds, DEADLINE only.
    pub deadline: u64,
    /// Nanoseconds, DEADLINE only.
    pub period: u64,
}}

json! {
/// CPU lists (`0-3,7`).
pub struct CpuAffinity {
    /// Before the process joins the container's cgroup.
    pub initial: String,
    /// After.
    pub r#final: String,
}}

json! {
/// spec: config.md#root
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: String,
    /// Whether the root is mounted read-only.
    pub readonly: bool,
}}

json! {
/// spec: config.md#mounts
pub struct Mount {
    /// Where, in the container.
    pub destination: String,
    /// File system type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Device, directory or label.
    pub source: String,
    /// Flags and file system data.
    pub options: Vec<String>,
    /// For id-mapped mounts.
    pub uid_mappings: Vec<IdMapping>,
    /// For id-mapped mounts.
    pub gid_mappings: Vec<IdMapping>,
}}

json! {
/// `size` consecutive ids from `container_id` are `host_id…` outside.
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}}

json! {
/// spec: config.md#posix-platform-hooks
pub struct Hooks {
    /// Deprecated; runs with `createRuntime`, before it.
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the container's were made, before pivot_root.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<Hook>,
    /// In the container, before the program.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program started.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container was deleted.
    pub poststop: Vec<Hook>,
}}

json! {
/// One program; its standard input is the container's state.
pub struct Hook {
    /// Absolute path.
    pub path: String,
    /// argv, including argv[0].
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<i64>,
}}
