//! Where and when a process runs: scheduling policy, processors, I/O priority, memory nodes.

use nix::errno::Errno;

use crate::Result;

/// The whole of the kernel's `struct sched_attr` (man 2 sched_setattr); zero means not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedAttr {
    /// `SCHED_OTHER`, `SCHED_FIFO`, …
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds of run time each period, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds until the deadline, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds of the period, for `SCHED_DEADLINE`.
    pub period: u64,
    /// Utilisation clamps, 0 to 1024, with `SCHED_FLAG_UTIL_CLAMP_*`.
    pub util_min: u32,
    /// See `util_min`.
    pub util_max: u32,
}

#[repr(C)]
struct RawSchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets the scheduling policy of `pid`, 0 for the calling thread.
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    let args = RawSchedAttr {
        size: size_of::<RawSchedAttr>() as u32,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
        util_min: attr.util_min,
        util_max: attr.util_max,
    };
    // SAFETY: `args` states its own size and outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const args, 0) };
    call!(Errno::result(ret), "sched_setattr({pid}, {attr:?})").map(drop)
}

/// Lets `pid`, 0 for the calling thread, run on the processors whose bits are set in `mask`, of any length.
pub fn sched_setaffinity(pid: i32, mask: &[u64]) -> Result<()> {
    // SAFETY: `mask` is readable for the length given.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    call!(Errno::result(ret), "sched_setaffinity({pid}, {mask:x?})").map(drop)
}

/// The processors on which `pid`, 0 for the calling thread, may run.
pub fn sched_getaffinity(pid: i32) -> Result<Vec<u64>> {
    // 8192 processors are the most any configuration of Linux knows today.
    let mut mask = vec![0u64; 8192 / 64];
    // SAFETY: `mask` is writable for the length given.
    let ret =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid, size_of_val(mask.as_slice()), mask.as_mut_ptr()) };
    let bytes = call!(Errno::result(ret), "sched_getaffinity({pid})")?;
    mask.truncate((bytes as usize).div_ceil(8));
    Ok(mask)
}

/// Sets the I/O priority (man 2 ioprio_set): `who` is a pid for `which` `IOPRIO_WHO_PROCESS` (1), 0 the caller.
pub fn ioprio_set(which: i32, who: i32, priority: i32) -> Result<()> {
    // SAFETY: takes integers only.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, which, who, priority) };
    call!(Errno::result(ret), "ioprio_set({which}, {who}, {priority:#x})").map(drop)
}

/// Sets the memory policy of the calling thread: `MPOL_*` with its flags, and a bit mask of nodes.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told (man 2 set_mempolicy, BUGS), so one more is said.
    let (mask, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the kernel reads `bits - 1` bits, which are the whole of `nodes`, or nothing where null.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode as libc::c_long, mask, bits) };
    call!(Errno::result(ret), "set_mempolicy({mode:#x}, {nodes:x?})").map(drop)
}

/// The memory policy of the calling thread: `MPOL_*` with its flags.
pub fn get_mempolicy() -> Result<i32> {
    let mut mode: libc::c_int = 0;
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: `mode` is writable and outlives the call; no mask and no address are asked for.
    let ret = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, none, 0usize, none, 0usize) };
    call!(Errno::result(ret), "get_mempolicy()")?;
    Ok(mode)
}
