//! Limits as files of the unified hierarchy. kernel: Documentation/admin-guide/cgroup-v2.rst

use super::Decisions;
use super::convert::{Swap, cpu_weight, io_weight, pids_max, swap_max};
use offshoot_spec::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

/// The period the kernel starts with, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// Adds the writes in runc's order; `unified` comes last, so that it overrides.
pub(super) fn writes(resources: &Resources, out: &mut Decisions) {
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        out.write("", "pids.max", pids_max(limit).map_or_else(|| "max".into(), |n| n.to_string()));
    }
    if let Some(m) = &resources.memory {
        memory(m, out);
    }
    if let Some(b) = &resources.block_io {
        block_io(b, out);
    }
    if let Some(c) = &resources.cpu {
        cpu(c, out);
    }
    for limit in &resources.hugepage_limits {
        for (kind, absent_ok) in [("", false), (".rsvd", true)] {
            let file = format!("hugetlb.{}{kind}.max", limit.page_size);
            out.write("", file, limit.limit).absent_ok = absent_ok;
        }
    }
    for (device, limits) in &resources.rdma {
        out.write("", "rdma.max", super::v1::rdma(device, limits));
    }
    let network = resources.network.as_ref();
    if network.is_some_and(|n| n.class_id.unwrap_or(0) != 0 || !n.priorities.is_empty()) {
        out.warn("linux.resources.network needs cgroup v1 and is ignored");
    }
    unified(resources, out);
    // The kernel refuses a weight for a cgroup that is idle.
    if resources.unified.get("cpu.idle").is_some_and(|value| value.trim() == "1") {
        if resources.unified.contains_key("cpu.weight") {
            out.warn("unable to apply both cpu.weight and cpu.idle, ignoring cpu.weight");
        }
        out.writes.retain(|write| write.file != "cpu.weight");
    }
}

fn memory(memory: &Memory, out: &mut Decisions) {
    match swap_max(memory) {
        // Before memory.max: when both go down, swap must not take what memory gives up. A kernel without swap
        // has no file, and needs none to limit swap to nothing or not at all.
        Ok(Some(Swap::Max)) => out.write("", "memory.swap.max", "max").absent_ok = true,
        Ok(Some(Swap::Bytes(bytes))) => out.write("", "memory.swap.max", bytes).absent_ok = bytes == 0,
        Ok(None) => {}
        Err(message) => out.problem("linux.resources.memory.swap", message),
    }
    for (file, value) in [("memory.max", memory.limit), ("memory.low", memory.reservation)] {
        match value {
            None | Some(0) => {}
            Some(-1) => _ = out.write("", file, "max"),
            Some(value) => _ = out.write("", file, value),
        }
    }
    if memory.swappiness.is_some() {
        out.warn("linux.resources.memory.swappiness needs cgroup v1 and is ignored");
    }
    if memory.disable_oom_killer == Some(true) {
        out.warn("linux.resources.memory.disableOOMKiller needs cgroup v1 and is ignored");
    }
}

fn cpu(cpu: &Cpu, out: &mut Decisions) {
    if let Some(idle) = cpu.idle {
        out.write("", "cpu.idle", idle);
    }
    if let Some(shares) = cpu.shares.filter(|s| *s != 0) {
        // The kernel refuses a weight for a cgroup that is idle.
        if cpu.idle == Some(1) {
            out.warn("unable to apply both cpu.idle and cpu.shares, ignoring cpu.shares");
        } else {
            out.write("", "cpu.weight", cpu_weight(shares));
        }
    }
    if let Some(burst) = cpu.burst {
        // Checked by the kernel against the quota: an increase may have to wait for the new one.
        out.write("", "cpu.max.burst", burst).retry = true;
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".into() };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        out.write("", "cpu.max", format!("{quota} {period}"));
    }
    let realtime = [
        ("realtimeRuntime", cpu.realtime_runtime.is_some_and(|r| r > 0)),
        ("realtimePeriod", cpu.realtime_period.is_some_and(|p| p > 0)),
    ];
    for (field, _) in realtime.into_iter().filter(|(_, set)| *set) {
        out.problem(format!("linux.resources.cpu.{field}"), "realtime limits need cgroup v1");
    }
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            out.write("", file, list);
        }
    }
}

fn block_io(io: &BlockIo, out: &mut Decisions) {
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        let fallback = ("io.weight".into(), io_weight(weight).to_string());
        out.write("", "io.bfq.weight", weight).instead = Some(fallback);
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            // Weights by device are BFQ's own; runc passes over them without it.
            out.write("", "io.bfq.weight", value).absent_ok = true;
        }
    }
    if io.leaf_weight.unwrap_or(0) != 0 || io.weight_device.iter().any(|d| d.leaf_weight.unwrap_or(0) != 0) {
        out.warn("linux.resources.blockIO.leafWeight needs cgroup v1 and is ignored");
    }
    let rates: [(&str, &[ThrottleDevice]); 4] = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for ThrottleDevice { major, minor, rate } in devices {
            // 0 lifts the limit in v1; here it is out of range.
            let rate = if *rate == 0 { "max".into() } else { rate.to_string() };
            out.write("", "io.max", format!("{major}:{minor} {key}={rate}"));
        }
    }
}

fn unified(resources: &Resources, out: &mut Decisions) {
    for (file, value) in &resources.unified {
        let path = format!("linux.resources.unified[{file:?}]");
        if file.contains('/') || matches!(file.as_str(), "." | "..") {
            out.problem(path, format!("unified resource {file:?} must be a file name (no slashes)"));
        } else if file.split_once('.').is_none_or(|(controller, _)| controller.is_empty()) {
            out.problem(path, format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER"));
        } else {
            // One line at a time, as keyed files want it.
            for line in value.split_inclusive('\n') {
                out.write("", file, line.trim_end_matches('\n')).unified = true;
            }
        }
    }
}

/// Whether any controller is needed.
pub(super) fn needs_controllers(resources: &Resources) -> bool {
    let mut out = Decisions::default();
    writes(resources, &mut out);
    out.writes.iter().any(|write| !write.unified)
}

/// Whether a controller is needed that works on processes only, not on threads: all but cpu, cpuset, perf_event
/// and pids. kernel: cgroup-v2.rst, "Threads". runc counts cpu among them, and so is told the same by callers.
pub(super) fn needs_domain(resources: &Resources) -> bool {
    let mut out = Decisions::default();
    writes(resources, &mut out);
    let domain = ["memory.", "io.", "cpu.", "hugetlb."];
    out.writes.iter().any(|write| !write.unified && domain.iter().any(|prefix| write.file.starts_with(prefix)))
}
