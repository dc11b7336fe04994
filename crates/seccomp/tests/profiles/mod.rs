//! Random profiles, the same for the same seed, and the arguments at which they decide.

use offshoot_seccomp::{Arch, action_names, operator_names};
use offshoot_spec::{Arg, Seccomp, Syscall};

/// `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[allow(clippy::cast_possible_truncation, reason = "smaller than `end`")]
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Calls of every kind: old, new, of one architecture only, multiplexed, private to ARM, unknown.
const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "openat",
    "openat2",
    "close",
    "mmap",
    "mmap2",
    "socket",
    "connect",
    "accept4",
    "sendto",
    "recvmmsg",
    "semop",
    "semget",
    "semtimedop",
    "shmat",
    "msgctl",
    "socketcall",
    "ipc",
    "personality",
    "clone",
    "clone3",
    "ioctl",
    "fcntl64",
    "arch_prctl",
    "set_tls",
    "cacheflush",
    "s390_pci_mmio_read",
    "riscv_flush_icache",
    "swapcontext",
    "execveat",
    "rt_sigaction",
    "process_vm_readv",
    "futex_time64",
    "faccessat2",
    "close_range",
    "landlock_create_ruleset",
    "setup",
    "restart_syscall",
    "io_setup",
    "exit_group",
    "no_such_call",
];

/// A value that a comparison may go wrong at.
fn value(random: &mut Random) -> u64 {
    const EDGES: [u64; 14] = [
        0,
        1,
        2,
        7,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        0xffff_ffff_0000_0000,
        u64::MAX,
    ];
    match random.below(4) {
        0 => random.next(),
        1 => random.next() & 0xff,
        _ => random.of(&EDGES),
    }
}

fn arg(random: &mut Random) -> Arg {
    let (value, value_two) = (value(random), value(random));
    Arg {
        index: u32::try_from(random.below(6)).unwrap(),
        value,
        value_two,
        op: random.of(&operator_names()).to_owned(),
    }
}

fn action(random: &mut Random) -> (String, Option<u32>) {
    let errno = if random.one_in(3) { None } else { Some(random.of(&[0, 1, 2, 38, 95])) };
    (random.of(&action_names()).to_owned(), errno)
}

/// A valid profile for the first of `family`, with names that `known` takes.
///
/// Every other one is plain, with one rule a call and one condition an argument; the others' rules get in each
/// other's way.
pub fn profile(random: &mut Random, family: &[Arch], mut known: impl FnMut(&str) -> bool) -> Seccomp {
    let plain = random.one_in(2);
    let mut profile = Seccomp { listener_path: "/run/agent".into(), ..Seccomp::default() };
    while profile.default_action.is_empty() || profile.default_action == "SCMP_ACT_NOTIFY" {
        (profile.default_action, profile.default_errno_ret) = action(random);
    }
    profile.architectures = family.iter().filter(|_| !random.one_in(3)).map(|arch| arch.name().to_owned()).collect();
    let mut used = Vec::new();
    for _ in 0..random.below(9) {
        let (action, errno_ret) = action(random);
        let mut names: Vec<&str> = (0..=random.below(6)).map(|_| random.of(NAMES)).collect();
        names.retain(|name| (action != "SCMP_ACT_NOTIFY" || *name != "write") && known(name));
        let mut args = if random.one_in(3) { Vec::new() } else { (0..=random.below(3)).map(|_| arg(random)).collect() };
        if plain {
            names.sort_unstable();
            names.dedup();
            names.retain(|name| !used.contains(name));
            used.extend_from_slice(&names);
            args.sort_by_key(|arg: &Arg| arg.index);
            args.dedup_by_key(|arg| arg.index);
        }
        let names = names.into_iter().map(str::to_owned).collect();
        profile.syscalls.push(Syscall { names, action, errno_ret, args });
    }
    profile
}

/// Values around those that a profile compares with, an argument each.
pub struct Arguments {
    around: [Vec<u64>; 6],
}

impl Arguments {
    pub fn of(profile: &Seccomp) -> Arguments {
        let mut around: [Vec<u64>; 6] = std::array::from_fn(|_| vec![0, u64::MAX]);
        // The calls that socketcall and ipc stand for.
        around[0].extend(1..25);
        for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
            let list = &mut around[arg.index as usize];
            for value in [arg.value, arg.value_two] {
                list.extend([
                    value,
                    value.wrapping_add(1),
                    value.wrapping_sub(1),
                    value ^ (1 << 32),
                    value & 0xffff_ffff,
                ]);
            }
            list.extend([arg.value & arg.value_two, arg.value_two | !arg.value, arg.value_two ^ !arg.value]);
        }
        Arguments { around }
    }

    /// Some combinations of them.
    pub fn vectors(&self, random: &mut Random, count: usize) -> Vec<[u64; 6]> {
        (0..count).map(|_| std::array::from_fn(|index| random.of(&self.around[index]))).collect()
    }
}
