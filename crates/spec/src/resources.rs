//! `linux.resources`; also the input of `update`. spec: config-linux.md#control-groups

use crate::config::json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

json! {
/// Limits; what is absent is left alone.
pub struct Resources {
    /// Device access rules, in order.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Option<Memory>,
    /// CPU.
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    pub pids: Option<Pids>,
    /// Block I/O.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Network classes, v1 only.
    pub network: Option<Network>,
    /// RDMA limits by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// cgroup v2 files by name.
    pub unified: BTreeMap<String, String>,
}}

json! {
/// One device rule.
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a`, `c` or `b`; empty is `a`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Absent or -1 is all.
    pub major: Option<i64>,
    /// Absent or -1 is all.
    pub minor: Option<i64>,
    /// Letters of `rwm`; empty is all.
    pub access: String,
}}

json! {
/// In bytes; -1 is no limit.
pub struct Memory {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Best-effort reservation.
    pub reservation: Option<i64>,
    /// Memory plus swap.
    pub swap: Option<i64>,
    /// Ignored by kernels since 5.16.
    pub kernel: Option<i64>,
    /// TCP buffers, v1.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100, v1.
    pub swappiness: Option<u64>,
    /// v1.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Hierarchical accounting, v1.
    pub use_hierarchy: Option<bool>,
    /// Refuse limits below what is in use.
    pub check_before_update: Option<bool>,
}}

json! {
/// Times in microseconds.
pub struct Cpu {
    /// 2 to 262144.
    pub shares: Option<u64>,
    /// Per period; negative is no limit.
    pub quota: Option<i64>,
    /// Accumulated over-use.
    pub burst: Option<u64>,
    /// Length of a period.
    pub period: Option<u64>,
    /// v1.
    pub realtime_runtime: Option<i64>,
    /// v1.
    pub realtime_period: Option<u64>,
    /// CPU list.
    pub cpus: String,
    /// Memory node list.
    pub mems: String,
    /// 1 is SCHED_IDLE.
    pub idle: Option<i64>,
}}

json! {
/// Tasks.
pub struct Pids {
    /// 0 or negative is no limit by the specification; see `plan` for what runc does.
    pub limit: Option<i64>,
}}

json! {
/// Block I/O.
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// v1, old kernels.
    pub leaf_weight: Option<u16>,
    /// Per device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes a second.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}}

json! {
/// Weight of one device.
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// v1, old kernels.
    pub leaf_weight: Option<u16>,
}}

json! {
/// Rate of one device.
pub struct ThrottleDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// A second.
    pub rate: u64,
}}

json! {
/// Huge pages of one size.
pub struct HugepageLimit {
    /// `64KB`, `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}}

json! {
/// v1 net_cls and net_prio.
pub struct Network {
    /// net_cls.classid.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// net_prio.ifpriomap.
    pub priorities: Vec<InterfacePriority>,
}}

json! {
/// Priority on one interface.
pub struct InterfacePriority {
    /// Interface.
    pub name: String,
    /// Priority.
    pub priority: u32,
}}

json! {
/// RDMA limits of one device.
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}}
