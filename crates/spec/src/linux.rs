//! The `linux` part of `config.json`. spec: config-linux.md

use crate::config::json;
use crate::{IdMapping, Resources, Seccomp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

json! {
/// spec: config-linux.md
pub struct Linux {
    /// User ids inside to outside.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids inside to outside.
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters by dotted (or slashed) name.
    pub sysctl: BTreeMap<String, String>,
    /// Limits and device rules.
    pub resources: Option<Resources>,
    /// Absolute, relative, or `slice:prefix:name` with the systemd driver.
    pub cgroups_path: String,
    /// New or joined namespaces.
    pub namespaces: Vec<Namespace>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Host network interfaces to move in, by name.
    pub net_devices: BTreeMap<String, NetDevice>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// Propagation of `/`.
    pub rootfs_propagation: String,
    /// Paths made unreadable.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// SELinux context of mounts.
    pub mount_label: String,
    /// Cache and memory bandwidth allocation.
    pub intel_rdt: Option<IntelRdt>,
    /// Execution domain.
    pub personality: Option<Personality>,
    /// Offsets of clocks, by `monotonic` and `boottime`.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// NUMA memory policy.
    pub memory_policy: Option<MemoryPolicy>,
}}

json! {
/// spec: config-linux.md#namespaces
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// An existing namespace to join; empty for a new one.
    pub path: String,
}}

json! {
/// spec: config-linux.md#devices
pub struct Device {
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Path in the container.
    pub path: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Owner in the container.
    pub uid: Option<u32>,
    /// Group in the container.
    pub gid: Option<u32>,
}}

json! {
/// A host network interface that becomes the container's.
pub struct NetDevice {
    /// New name; empty keeps the host's.
    pub name: String,
}}

json! {
/// spec: config-linux.md#intelrdt
pub struct IntelRdt {
    /// Resource group; empty for the container's own.
    #[serde(rename = "closID")]
    pub clos_id: String,
    /// Lines of `schemata`.
    pub schemata: Option<Vec<String>>,
    /// L3 line.
    pub l3_cache_schema: String,
    /// MB line.
    pub mem_bw_schema: String,
    /// Removed in 1.3, still sent.
    #[serde(rename = "enableCMT")]
    pub enable_cmt: bool,
    /// Removed in 1.3, still sent.
    #[serde(rename = "enableMBM")]
    pub enable_mbm: bool,
    /// Whether a monitoring group is made.
    pub enable_monitoring: bool,
}}

json! {
/// `man 2 personality`
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None are defined.
    pub flags: Vec<String>,
}}

json! {
/// `man 7 time_namespaces`
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}}

json! {
/// `man 2 set_mempolicy`
pub struct MemoryPolicy {
    /// `MPOL_…`.
    pub mode: String,
    /// NUMA node list.
    pub nodes: String,
    /// `MPOL_F_…`.
    pub flags: Vec<String>,
}}
