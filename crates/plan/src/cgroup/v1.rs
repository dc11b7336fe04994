//! Limits as files of the v1 controllers. kernel: Documentation/admin-guide/cgroup-v1/

use super::convert::pids_max;
use super::{Decisions, Write};
use offshoot_spec::{BlockIo, Cpu, Memory, Rdma, Resources, ThrottleDevice};

/// Adds the writes in runc's order.
pub(super) fn writes(resources: &Resources, out: &mut Decisions) {
    if let Some(cpu) = &resources.cpu {
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if !list.is_empty() {
                out.write("cpuset", file, list);
            }
        }
    }
    if let Some(m) = &resources.memory {
        memory(m, out);
    }
    if let Some(c) = &resources.cpu {
        cpu(c, out);
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit) {
        out.write("pids", "pids.max", pids_max(limit).map_or_else(|| "max".into(), |n| n.to_string()));
    }
    if let Some(b) = &resources.block_io {
        block_io(b, out);
    }
    for limit in &resources.hugepage_limits {
        for (kind, absent_ok) in [("", false), (".rsvd", true)] {
            let file = format!("hugetlb.{}{kind}.limit_in_bytes", limit.page_size);
            out.write("hugetlb", file, limit.limit).absent_ok = absent_ok;
        }
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|c| *c != 0) {
            out.write("net_cls", "net_cls.classid", class);
        }
        for priority in &network.priorities {
            out.write("net_prio", "net_prio.ifpriomap", format!("{} {}", priority.name, priority.priority));
        }
    }
    for (device, limits) in &resources.rdma {
        out.write("rdma", "rdma.max", rdma(device, limits));
    }
}

/// What must stand before a process comes in: memory nodes would otherwise have to be migrated, and a process of a
/// realtime policy cannot enter a cgroup without realtime bandwidth.
pub(super) fn before_join(writes: &[Write]) -> Vec<Write> {
    let early = |w: &&Write| w.controller == "cpuset" || w.file.starts_with("cpu.rt_");
    writes.iter().filter(early).cloned().collect()
}

fn memory(memory: &Memory, out: &mut Decisions) {
    let limit = memory.limit.filter(|l| *l != 0);
    if let Some(limit) = limit {
        // memory <= memory+swap at all times: raising both, this one must wait.
        out.write("memory", "memory.limit_in_bytes", limit).retry = true;
    }
    match (limit, memory.swap.filter(|s| *s != 0)) {
        // Unlimited memory means both; a kernel without swap accounting has no second file.
        (Some(-1), None) => out.write("memory", "memory.memsw.limit_in_bytes", -1).absent_ok = true,
        (_, Some(swap)) => _ = out.write("memory", "memory.memsw.limit_in_bytes", swap),
        (_, None) => {}
    }
    if let Some(reservation) = memory.reservation.filter(|r| *r != 0) {
        out.write("memory", "memory.soft_limit_in_bytes", reservation);
    }
    if memory.disable_oom_killer == Some(true) {
        out.write("memory", "memory.oom_control", 1);
    }
    match memory.swappiness {
        None => {}
        Some(swappiness @ 0..=100) => _ = out.write("memory", "memory.swappiness", swappiness),
        // -1 in an unsigned field, which old versions of Docker sent for "unset".
        Some(u64::MAX) => {}
        Some(swappiness) => {
            let message = format!("invalid memory swappiness value: {swappiness} (valid range is 0-100)");
            out.problem("linux.resources.memory.swappiness", message);
        }
    }
}

fn cpu(cpu: &Cpu, out: &mut Decisions) {
    match cpu.shares {
        None | Some(0) => {}
        // The kernel would take the nearest value and say nothing.
        Some(1) => out.problem("linux.resources.cpu.shares", "the minimum allowed cpu-shares is 2"),
        Some(shares @ 2..=262_144) => _ = out.write("cpu", "cpu.shares", shares),
        Some(_) => out.problem("linux.resources.cpu.shares", "the maximum allowed cpu-shares is 262144"),
    }
    if let Some(period) = cpu.period.filter(|p| *p != 0) {
        // Quota and period together are bounded by the parent's; a shorter period may need the new quota first.
        out.write("cpu", "cpu.cfs_period_us", period).retry = true;
    }
    if let Some(burst) = cpu.burst {
        let write = out.write("cpu", "cpu.cfs_burst_us", burst);
        write.retry = true;
        write.absent_ok = true;
    }
    if let Some(quota) = cpu.quota.filter(|q| *q != 0) {
        out.write("cpu", "cpu.cfs_quota_us", quota);
    }
    if let Some(idle) = cpu.idle {
        out.write("cpu", "cpu.idle", idle);
    }
    if let Some(period) = cpu.realtime_period.filter(|p| *p != 0) {
        out.write("cpu", "cpu.rt_period_us", period).retry = true;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|r| *r != 0) {
        out.write("cpu", "cpu.rt_runtime_us", runtime);
    }
}

fn block_io(io: &BlockIo, out: &mut Decisions) {
    // CFQ's file names on kernels before 5.0, BFQ's since.
    let mut weight = |file: &str, bfq: &str, value: String| {
        let write = out.write("blkio", file, &value);
        write.instead = Some((bfq.into(), value));
    };
    if let Some(w) = io.weight.filter(|w| *w != 0) {
        weight("blkio.weight", "blkio.bfq.weight", w.to_string());
    }
    for device in &io.weight_device {
        if let Some(w) = device.weight.filter(|w| *w != 0) {
            let value = format!("{}:{} {w}", device.major, device.minor);
            weight("blkio.weight_device", "blkio.bfq.weight_device", value);
        }
    }
    if let Some(w) = io.leaf_weight.filter(|w| *w != 0) {
        out.write("blkio", "blkio.leaf_weight", w);
    }
    for device in &io.weight_device {
        if let Some(w) = device.leaf_weight.filter(|w| *w != 0) {
            out.write("blkio", "blkio.leaf_weight_device", format!("{}:{} {w}", device.major, device.minor));
        }
    }
    let rates: [(&str, &[ThrottleDevice]); 4] = [
        ("read_bps", &io.throttle_read_bps_device),
        ("write_bps", &io.throttle_write_bps_device),
        ("read_iops", &io.throttle_read_iops_device),
        ("write_iops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in rates {
        for ThrottleDevice { major, minor, rate } in devices {
            out.write("blkio", format!("blkio.throttle.{key}_device"), format!("{major}:{minor} {rate}"));
        }
    }
}

/// `mlx4_0 hca_handle=2 hca_object=2000`
pub(super) fn rdma(device: &str, limits: &Rdma) -> String {
    let mut line = device.to_string();
    for (key, value) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    line
}
