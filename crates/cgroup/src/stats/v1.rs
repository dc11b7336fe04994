//! Statistics of the v1 controllers. kernel: Documentation/admin-guide/cgroup-v1/

use super::{huge_pages, malformed, number, optional, optional_number, pairs};
use crate::Result;
use crate::dir::Dir;
use offshoot_spec::events::{BlkioEntry, BlkioStats, CpuUsage, CpusetStats, MemoryEntry, PidsStats, Stats};

/// The kernel's USER_HZ is 100 on every architecture that matters; `cpuacct.stat` counts in it.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Adds what each controller has, `find` being its directory.
pub(super) fn read<'a>(find: &dyn Fn(&str) -> Option<&'a Dir>, stats: &mut Stats) -> Result<()> {
    if let Some(dir) = find("cpuset") {
        stats.cpuset = cpuset(dir)?;
    }
    if let Some(dir) = find("memory") {
        memory(dir, stats)?;
    }
    if let Some(dir) = find("cpu")
        && let Some(text) = optional(dir, "cpu.stat")?
    {
        let values = pairs(dir, "cpu.stat", &text)?;
        let get = |key: &str| values.get(key).copied().unwrap_or(0);
        stats.cpu.throttling.periods = get("nr_periods");
        stats.cpu.throttling.throttled_periods = get("nr_throttled");
        stats.cpu.throttling.throttled_time = get("throttled_time");
    }
    if let Some(dir) = find("cpuacct") {
        stats.cpu.usage = cpu_usage(dir)?;
    }
    if let Some(dir) = find("pids") {
        let limit = optional_number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
        stats.pids = PidsStats { current: optional_number(dir, "pids.current")?.unwrap_or(0), limit };
    }
    if let Some(dir) = find("blkio") {
        stats.blkio = block_io(dir)?;
    }
    if let Some(dir) = find("hugetlb") {
        stats.hugetlb = huge_pages(dir, "usage_in_bytes", |prefix, entry| {
            entry.max = optional_number(dir, &format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0);
            entry.failcnt = optional_number(dir, &format!("{prefix}.failcnt"))?.unwrap_or(0);
            Ok(())
        })?;
    }
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let Some(text) = optional(dir, "memory.stat")? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.raw = pairs(dir, "memory.stat", &text)?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    for (entry, name) in [
        (&mut memory.usage, "memory"),
        (&mut memory.swap, "memory.memsw"),
        (&mut memory.kernel, "memory.kmem"),
        (&mut memory.kernel_tcp, "memory.kmem.tcp"),
    ] {
        let get = |key: &str| optional_number(dir, &format!("{name}.{key}"));
        if let Some(usage) = get("usage_in_bytes")? {
            *entry = MemoryEntry {
                usage,
                max: get("max_usage_in_bytes")?.unwrap_or(0),
                failcnt: get("failcnt")?.unwrap_or(0),
                limit: get("limit_in_bytes")?.unwrap_or(0),
            };
        }
    }
    Ok(())
}

fn cpu_usage(dir: &Dir) -> Result<CpuUsage> {
    let mut usage = CpuUsage { total: optional_number(dir, "cpuacct.usage")?.unwrap_or(0), ..CpuUsage::default() };
    if let Some(text) = optional(dir, "cpuacct.stat")? {
        let values = pairs(dir, "cpuacct.stat", &text)?;
        let get = |key: &str| values.get(key).map_or(0, |ticks| ticks * NANOSECONDS_PER_TICK);
        (usage.user, usage.kernel) = (get("user"), get("system"));
    }
    for field in optional(dir, "cpuacct.usage_percpu")?.unwrap_or_default().split_whitespace() {
        usage.percpu.push(number(dir, "cpuacct.usage_percpu", field)?);
    }
    // `cpu user system`, and one line for each CPU.
    for line in optional(dir, "cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, user, system, ..] = fields[..] else { return Err(malformed(dir, "cpuacct.usage_all", line)) };
        usage.percpu_user.push(number(dir, "cpuacct.usage_all", user)?);
        usage.percpu_kernel.push(number(dir, "cpuacct.usage_all", system)?);
    }
    Ok(usage)
}

fn cpuset(dir: &Dir) -> Result<CpusetStats> {
    let get = |name: &str| Ok(optional_number(dir, &format!("cpuset.{name}"))?.unwrap_or(0));
    let list = |name: &str| {
        let file = format!("cpuset.{name}");
        let text = optional(dir, &file)?.unwrap_or_default();
        numbers(text.trim()).ok_or_else(|| malformed(dir, &file, &text))
    };
    let level = optional(dir, "cpuset.sched_relax_domain_level")?;
    Ok(CpusetStats {
        cpus: list("cpus")?,
        cpu_exclusive: get("cpu_exclusive")?,
        mems: list("mems")?,
        mem_hardwall: get("mem_hardwall")?,
        mem_exclusive: get("mem_exclusive")?,
        memory_migrate: get("memory_migrate")?,
        memory_spread_page: get("memory_spread_page")?,
        memory_spread_slab: get("memory_spread_slab")?,
        memory_pressure: get("memory_pressure")?,
        sched_load_balance: get("sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// `0-3,7`
fn numbers(list: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Each table from the first of its files that has something: the scheduler that serves the devices, or else the
/// throttling layer, keeps the books.
fn block_io(dir: &Dir) -> Result<BlkioStats> {
    let table = |name: &str| {
        let files = [
            format!("blkio.bfq.{name}_recursive"),
            format!("blkio.{name}_recursive"),
            format!("blkio.throttle.{name}_recursive"),
            format!("blkio.throttle.{name}"),
        ];
        for file in files {
            let text = optional(dir, &file)?.unwrap_or_default();
            let entries = entries(&text).ok_or_else(|| malformed(dir, &file, &text))?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    Ok(BlkioStats {
        io_service_bytes_recursive: table("io_service_bytes")?,
        io_serviced_recursive: table("io_serviced")?,
        io_queue_recursive: table("io_queued")?,
        io_service_time_recursive: table("io_service_time")?,
        io_wait_time_recursive: table("io_wait_time")?,
        io_merged_recursive: table("io_merged")?,
        io_time_recursive: table("time")?,
        sectors_recursive: table("sectors")?,
        psi: None,
    })
}

/// `8:0 Read 4096`, `8:0 12`, and a line `Total 4096` that is left out.
fn entries(text: &str) -> Option<Vec<BlkioEntry>> {
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("Total")) {
        let fields: Vec<&str> = line.split([' ', ':']).collect();
        let (op, value) = match fields[..] {
            [_, _, op, value] => (op, value),
            [_, _, value] => ("", value),
            _ => return None,
        };
        entries.push(BlkioEntry {
            major: fields[0].parse().ok()?,
            minor: fields[1].parse().ok()?,
            op: op.into(),
            value: value.parse().ok()?,
        });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_block_io() {
        let list = entries("8:0 Read 4096\n8:0 Total 4096\n8:16 12\nTotal 4096\n").unwrap();
        let text: Vec<_> = list.iter().map(|e| (e.major, e.minor, e.op.as_str(), e.value)).collect();
        assert_eq!(text, [(8, 0, "Read", 4096), (8, 0, "Total", 4096), (8, 16, "", 12)]);
        assert_eq!(entries("8:0\n"), None);
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(numbers(""), Some(vec![]));
        assert_eq!(numbers("a"), None);
    }
}
