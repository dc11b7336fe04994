//! `update`: what the new values leave of the old ones.

use offshoot_spec::{BlockIo, Cpu, Memory, Pids, Resources, ThrottleDevice, WeightDevice};

/// The resources after an update. What `update` leaves out stays, but for the CPU list, memory nodes, burst, idle,
/// pids and unified, which it replaces; throttles and weights replace those of the same device; huge pages, RDMA,
/// network and devices are not touched. These are runc's rules.
#[must_use]
pub fn merge(stored: &Resources, update: &Resources) -> Resources {
    let none = (Memory::default(), Cpu::default(), BlockIo::default(), Pids::default());
    let mut merged = stored.clone();
    merge_memory(merged.memory.get_or_insert_default(), update.memory.as_ref().unwrap_or(&none.0));
    merge_cpu(merged.cpu.get_or_insert_default(), update.cpu.as_ref().unwrap_or(&none.1));
    merge_block_io(merged.block_io.get_or_insert_default(), update.block_io.as_ref().unwrap_or(&none.2));
    merged.pids = Some(update.pids.clone().unwrap_or(none.3));
    merged.unified.clone_from(&update.unified);
    merged
}

fn replace<T: Copy>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

fn merge_memory(old: &mut Memory, new: &Memory) {
    replace(&mut old.limit, new.limit);
    // An old limit on memory+swap cannot stand beside unlimited memory.
    let swap = if new.limit == Some(-1) { new.swap.or(Some(0)) } else { new.swap };
    replace(&mut old.swap, swap);
    replace(&mut old.reservation, new.reservation);
    // Ignored, with one warning for each time they are given.
    (old.kernel, old.kernel_tcp) = (new.kernel, new.kernel_tcp);
    old.check_before_update = Some(new.check_before_update.unwrap_or(false));
}

fn merge_cpu(old: &mut Cpu, new: &Cpu) {
    // The kernel keeps quota and period as a pair: one of them alone keeps the other's stored value, none of them
    // keeps neither, so that nothing is written.
    match (new.period.filter(|p| *p != 0), new.quota.filter(|q| *q != 0)) {
        (Some(period), None) => old.period = Some(period),
        (None, Some(quota)) => old.quota = Some(quota),
        (period, quota) => (old.period, old.quota) = (period, quota),
    }
    // The kernel refuses shares for a cgroup that is idle.
    let shares = if new.idle.is_some() { new.shares.or(Some(0)) } else { new.shares };
    replace(&mut old.shares, shares);
    replace(&mut old.realtime_period, new.realtime_period);
    replace(&mut old.realtime_runtime, new.realtime_runtime);
    old.burst = new.burst;
    old.idle = new.idle;
    old.cpus.clone_from(&new.cpus);
    old.mems.clone_from(&new.mems);
}

fn merge_block_io(old: &mut BlockIo, new: &BlockIo) {
    replace(&mut old.weight, new.weight);
    replace(&mut old.leaf_weight, new.leaf_weight);
    for device in &new.weight_device {
        merge_weight(&mut old.weight_device, device);
    }
    for (old, new) in [
        (&mut old.throttle_read_bps_device, &new.throttle_read_bps_device),
        (&mut old.throttle_write_bps_device, &new.throttle_write_bps_device),
        (&mut old.throttle_read_iops_device, &new.throttle_read_iops_device),
        (&mut old.throttle_write_iops_device, &new.throttle_write_iops_device),
    ] {
        new.iter().for_each(|device| merge_throttle(old, device));
    }
}

// Of two entries for one device the last is in force, so that is the one to change.

fn merge_weight(devices: &mut Vec<WeightDevice>, new: &WeightDevice) {
    match devices.iter_mut().rev().find(|d| (d.major, d.minor) == (new.major, new.minor)) {
        Some(old) => {
            replace(&mut old.weight, new.weight);
            replace(&mut old.leaf_weight, new.leaf_weight);
        }
        None => devices.push(new.clone()),
    }
}

fn merge_throttle(devices: &mut Vec<ThrottleDevice>, new: &ThrottleDevice) {
    match devices.iter_mut().rev().find(|d| (d.major, d.minor) == (new.major, new.minor)) {
        Some(old) => old.rate = new.rate,
        None => devices.push(new.clone()),
    }
}
