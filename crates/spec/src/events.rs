//! What `events` prints, in runc's names, which are a mixture of spellings.

use serde::Serialize;
use std::collections::BTreeMap;

/// One line of `events`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event<'a> {
    /// `stats` or `oom`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The container's name.
    pub id: &'a str,
    /// With `stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a Stats>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! stats {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $field:ident: $ty:ty,)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        $(#[$meta])*
        pub struct $name { $($(#[$fm])* pub $field: $ty,)* }
    };
}

stats! {
/// Usage of one container.
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Processors and memory nodes, v1.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block I/O.
    pub blkio: BlkioStats,
    /// Huge pages by size: `2MB`.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Cache and memory bandwidth.
    pub intel_rdt: IntelRdtStats,
    /// Interfaces that the runtime made, of which there are none.
    pub network_interfaces: Option<Vec<()>>,
}}

stats! {
/// Processor time.
pub struct CpuStats {
    /// Used.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    /// Withheld.
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}}

stats! {
/// Nanoseconds.
pub struct CpuUsage {
    /// All.
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    /// By processor, v1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By processor in the kernel, v1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By processor outside the kernel, v1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside the kernel.
    pub user: u64,
}}

stats! {
/// What a quota withheld.
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that passed.
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}}

stats! {
/// Pressure stall information.
pub struct Psi {
    /// Some task waited.
    pub some: PsiData,
    /// All tasks waited.
    pub full: PsiData,
}}

stats! {
/// One line of a pressure file.
pub struct PsiData {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}}

stats! {
/// Processors and memory nodes, v1.
pub struct CpusetStats {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`
    pub sched_relax_domain_level: i64,
}}

stats! {
/// Memory, in bytes.
pub struct MemoryStats {
    /// Page cache.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: MemoryEntry,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemoryEntry,
    /// Kernel memory, v1.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: MemoryEntry,
    /// TCP buffers, v1.
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}}

stats! {
/// One kind of memory.
pub struct MemoryEntry {
    /// Limit; the greatest number is none.
    pub limit: u64,
    /// Used now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// Most that was ever used.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}}

stats! {
/// Tasks.
pub struct PidsStats {
    /// Now.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// Limit; 0 is none.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}}

stats! {
/// Block I/O, of the cgroup and all below it.
#[serde(rename_all = "camelCase")]
pub struct BlkioStats {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds of waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Merged operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of device time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}}

stats! {
/// One device and operation.
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// How much.
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}}

stats! {
/// Huge pages of one size, in bytes.
pub struct HugetlbStats {
    /// Used now.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// Most that was ever used.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}}

stats! {
/// Cache and memory bandwidth of the container's resctrl group.
pub struct IntelRdtStats {
    /// The L3 line of the root group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The L3 line of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// The MB line of the root group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The MB line of the container's group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the container's group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
}}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_container_s_line_is_runc_s() {
        let stats = Stats::default();
        let event = Event { kind: "stats", id: "x", data: Some(&stats) };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            "{\"type\":\"stats\",\"id\":\"x\",\"data\":{\"cpu\":{},\"cpuset\":{\"cpu_exclusive\":0,\"mem_hardwall\":0,\
             \"mem_exclusive\":0,\"memory_migrate\":0,\"memory_spread_page\":0,\"memory_spread_slab\":0,\
             \"memory_pressure\":0,\"sched_load_balance\":0,\"sched_relax_domain_level\":0},\"memory\":{},\"pids\":{},\
             \"blkio\":{},\"hugetlb\":{},\"intel_rdt\":{},\"network_interfaces\":null}}"
        );
    }

    #[test]
    fn an_oom_has_no_data() {
        let text = serde_json::to_string(&Event { kind: "oom", id: "x", data: None }).unwrap();
        assert_eq!(text, "{\"type\":\"oom\",\"id\":\"x\"}");
    }
}
