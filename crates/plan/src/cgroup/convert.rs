//! Values of one cgroup version in the other's units, and values that no version takes.

use super::{CgroupHost, Decisions, Mode};
use offshoot_spec::{Memory, Resources};

/// CPU weight (1 to 10000, default 100) for CPU shares (2 to 262144, default 1024): a curve through the minimum,
/// the default and the maximum, agreed upon by the runtimes in 2025, where the straight line before it gave 39 for
/// the default.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "at most 18 bits")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// `io.weight` (1 to 10000) for `blkio.weight` (10 to 1000), linear.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

/// A TasksMax or pids.max of 0 would let nothing run, and systemd does not take it: runc means 1.
pub(super) fn pids_max(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().map(|limit| limit.max(1))
}

/// `memory.swap.max` for memory+swap: `None` is "leave alone".
pub(super) enum Swap {
    Max,
    Bytes(u64),
}

/// # Errors
/// runc's words for limits that contradict each other.
pub(super) fn swap_max(memory: &Memory) -> Result<Option<Swap>, String> {
    let (limit, swap) = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    match (limit, swap) {
        // v1 has one limit for both; unlimited memory means both.
        (-1, 0) | (_, -1) => Ok(Some(Swap::Max)),
        (_, 0) => Ok(None),
        (0, _) => Err("unable to set swap limit without memory limit".into()),
        (-1, _) => Ok(Some(Swap::Bytes(swap.unsigned_abs()))),
        _ if swap < limit => Err("memory+swap limit should be >= memory limit".into()),
        _ => Ok(Some(Swap::Bytes((swap - limit).unsigned_abs()))),
    }
}

/// What neither version takes.
pub(super) fn check(resources: &Resources, host: &CgroupHost, out: &mut Decisions) {
    if let Some(memory) = &resources.memory {
        let fields = [("limit", memory.limit), ("reservation", memory.reservation), ("swap", memory.swap)];
        for (field, value) in fields {
            if let Some(value) = value.filter(|v| *v < -1) {
                out.problem(format!("linux.resources.memory.{field}"), format!("invalid memory value: {value}"));
            }
        }
        if memory.kernel.is_some() || memory.kernel_tcp.is_some() {
            out.warn("Kernel memory settings are ignored and will be removed");
        }
    }
    if let Some(idle) = resources.cpu.as_ref().and_then(|cpu| cpu.idle).filter(|idle| !matches!(idle, 0 | 1)) {
        out.problem("linux.resources.cpu.idle", format!("invalid cpu idle value: {idle} (0 or 1)"));
    }
    for (index, limit) in resources.hugepage_limits.iter().enumerate() {
        if !host.huge_page_sizes.contains(&limit.page_size) {
            let message = format!(
                "huge pages of {:?} are not supported (this host has: {})",
                limit.page_size,
                host.huge_page_sizes.join(", ")
            );
            out.problem(format!("linux.resources.hugepageLimits[{index}].pageSize"), message);
        }
    }
    if host.mode != Mode::V2 && !resources.unified.is_empty() {
        out.problem("linux.resources.unified", "invalid configuration: cannot use unified on cgroup v1");
    }
}
