//! Statistics of the unified hierarchy. kernel: Documentation/admin-guide/cgroup-v2.rst

use super::{huge_pages, malformed, number, optional, optional_number, pairs};
use crate::Result;
use crate::dir::Dir;
use offshoot_spec::events::{BlkioEntry, BlkioStats, MemoryEntry, PidsStats, Psi, PsiData, Stats};

/// Adds everything that the cgroup has files for.
pub(super) fn read(dir: &Dir, stats: &mut Stats) -> Result<()> {
    stats.pids = pids(dir)?;
    memory(dir, stats)?;
    stats.blkio = block_io(dir)?;
    if let Some(text) = optional(dir, "cpu.stat")? {
        let values = pairs(dir, "cpu.stat", &text)?;
        let get = |key: &str| values.get(key).copied().unwrap_or(0);
        let nanoseconds = |key: &str| get(key) * 1000;
        stats.cpu.usage.total = nanoseconds("usage_usec");
        stats.cpu.usage.user = nanoseconds("user_usec");
        stats.cpu.usage.kernel = nanoseconds("system_usec");
        stats.cpu.throttling.periods = get("nr_periods");
        stats.cpu.throttling.throttled_periods = get("nr_throttled");
        stats.cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    stats.hugetlb = huge_pages(dir, "current", |prefix, entry| {
        let file = format!("{}.events", prefix.trim_end_matches(".rsvd"));
        if let Some(text) = optional(dir, &file)? {
            entry.failcnt = pairs(dir, &file, &text)?.get("max").copied().unwrap_or(0);
        }
        Ok(())
    })?;
    Ok(())
}

fn pids(dir: &Dir) -> Result<PidsStats> {
    match optional_number(dir, "pids.current")? {
        Some(current) => {
            let limit = optional_number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
            Ok(PidsStats { current, limit })
        }
        // Without the controller, they can still be counted.
        None => Ok(PidsStats { current: dir.pids()?.len() as u64, limit: 0 }),
    }
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let Some(text) = optional(dir, "memory.stat")? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.raw = pairs(dir, "memory.stat", &text)?;
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    let swap = entry(dir, "memory.swap")?;
    // v1's numbers are of memory and swap together, and so are those that callers know. A peak of both cannot be told.
    memory.swap = MemoryEntry {
        usage: swap.usage.saturating_add(memory.usage.usage),
        limit: swap.limit.saturating_add(memory.usage.limit),
        max: 0,
        failcnt: 0,
    };
    Ok(())
}

fn entry(dir: &Dir, name: &str) -> Result<MemoryEntry> {
    let get = |key: &str| optional_number(dir, &format!("{name}.{key}"));
    let Some(usage) = get("current")? else { return Ok(MemoryEntry::default()) };
    Ok(MemoryEntry { usage, limit: get("max")?.unwrap_or(0), max: get("peak")?.unwrap_or(0), failcnt: 0 })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn block_io(dir: &Dir) -> Result<BlkioStats> {
    let mut stats = BlkioStats::default();
    for line in optional(dir, "io.stat")?.unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        // A device whose counters are all zero may have nothing behind its number.
        let Some((major, minor)) = device else { continue };
        let (major, minor) = (number(dir, "io.stat", major)?, number(dir, "io.stat", minor)?);
        for field in fields {
            let Some((key, value)) = field.split_once('=') else { continue };
            let (op, table) = match key {
                "rbytes" => ("Read", &mut stats.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut stats.io_service_bytes_recursive),
                "rios" => ("Read", &mut stats.io_serviced_recursive),
                "wios" => ("Write", &mut stats.io_serviced_recursive),
                _ => continue,
            };
            table.push(BlkioEntry { major, minor, op: op.into(), value: number(dir, "io.stat", value)? });
        }
    }
    Ok(stats)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. Absent when the kernel is built without, and unreadable
/// (EOPNOTSUPP) when it is booted without.
fn pressure(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    let text = match optional(dir, file) {
        Err(e) if e.errno() == Some(offshoot_sys::Errno::EOPNOTSUPP) => return Ok(None),
        text => text?,
    };
    let Some(text) = text else { return Ok(None) };
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let data = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        *data = pressure_line(fields).ok_or_else(|| malformed(dir, file, line))?;
    }
    Ok(Some(psi))
}

fn pressure_line<'a>(fields: impl Iterator<Item = &'a str>) -> Option<PsiData> {
    let mut data = PsiData::default();
    for field in fields {
        let (key, value) = field.split_once('=')?;
        match key {
            "avg10" => data.avg10 = value.parse().ok()?,
            "avg60" => data.avg60 = value.parse().ok()?,
            "avg300" => data.avg300 = value.parse().ok()?,
            "total" => data.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pressure() {
        let data = pressure_line("avg10=1.50 avg60=0.25 avg300=0.00 total=42 new=1".split(' ')).unwrap();
        assert_eq!(data, PsiData { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 42 });
        assert_eq!(pressure_line("avg10=x".split(' ')), None);
    }
}
