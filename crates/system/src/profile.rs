//! The system call filter of a system that brings none: what no distribution needs, and a guest's root reaches all the same.
//!
//! Everything is allowed but what is named here. What needs the rights of the host's root is refused by the kernel itself;
//! of that, only what has been a way out before is named. The rest is what any user of the kernel may do, has been a way
//! out more than once, and is of no use to a distribution: docs/system.md has the reasons one by one.

use offshoot_seccomp::Arch;
use offshoot_spec::{Arg, Seccomp, Syscall};

/// Refused with EPERM, as the kernel refuses it to whom it does not trust.
const CALLS: [&str; 13] = [
    // The kernel itself: as LXC and all others.
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    // Files by number, past every path ("shocker"); as LXC, nspawn and engines.
    "open_by_handle_at",
    // The kernel's log, which is all guests', where kernel.dmesg_restrict is 0.
    "syslog",
    // Programs and counters in the kernel; a guest's root may use them only where the host's sysctls are lax.
    "bpf",
    "perf_event_open",
    "userfaultfd",
    // It makes sockets past this filter, and much else.
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
];

/// Kinds of sockets, as the kernel numbers them (linux/socket.h): all but `AF_UNIX` (1), `AF_INET` (2), `AF_INET6` (10),
/// `AF_NETLINK` (16) and `AF_PACKET` (17), as the ranges that a mask and a value make. A mask leaves out the upper half of
/// the argument, as the kernel does: it would take 2^32 + 40 for 40.
const SOCKETS: [(u32, u32); 9] = [
    // 3, and 4 to 7, 8 and 9, 11, 12 to 15
    (u32::MAX, 3),
    (!3, 4),
    (!1, 8),
    (u32::MAX, 11),
    (!3, 12),
    // 18 and 19, 20 to 23, 24 to 31, 32 to 63; the kernel itself has none beyond.
    (!1, 18),
    (!3, 20),
    (!7, 24),
    (!31, 32),
];

/// What a kernel without that kind of socket says, so that programs go on without it.
const EAFNOSUPPORT: u32 = 97;

/// How far the filter goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Sockets of few kinds. 32-bit x86 programs make theirs by `socketcall`, whose arguments no filter can read, and with
    /// which any program could make any: it makes none.
    Full,
    /// Sockets of all kinds, for systems with such programs.
    OpenSockets,
}

/// The profile, for a kernel whose own interface is `native`.
#[must_use]
pub fn profile(native: Arch, strictness: Strictness) -> Seccomp {
    const ERRNO: &str = "SCMP_ACT_ERRNO";
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let of_kind = |(mask, value): (u32, u32)| Arg {
        index: 0,
        value: mask.into(),
        value_two: value.into(),
        op: "SCMP_CMP_MASKED_EQ".into(),
    };
    let mut syscalls = vec![Syscall { names: names(&CALLS), action: ERRNO.into(), ..Syscall::default() }];
    if strictness == Strictness::Full {
        syscalls.push(Syscall {
            names: names(&["socket", "socketpair"]),
            action: ERRNO.into(),
            errno_ret: Some(EAFNOSUPPORT),
            // Several for one argument are alternatives.
            args: SOCKETS.map(of_kind).into(),
        });
    }
    let others = Arch::ALL.into_iter().filter(|other| *other != native && native.runs(*other));
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        architectures: std::iter::once(native).chain(others).map(|arch| arch.name().to_owned()).collect(),
        syscalls,
        ..Seccomp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offshoot_seccomp::emulator::{Data, run};
    use offshoot_seccomp::{Filter, Kernel, compile};

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const NO_SUCH_KIND: u32 = 0x0005_0000 | EAFNOSUPPORT;
    const ON_X86: [Arch; 3] = [Arch::X86_64, Arch::X86, Arch::X32];

    fn filter(native: Arch, strictness: Strictness) -> Filter {
        compile(&profile(native, strictness), &Kernel { native, flags: u64::MAX }).unwrap()
    }

    fn answer(filter: &Filter, arch: Arch, call: &str, args: [u64; 6]) -> u32 {
        let number = arch.number(call).unwrap_or_else(|| panic!("{call} on {arch:?}"));
        run(&filter.program, &Data { number, arch: arch.audit(), args, ..Data::default() }).unwrap().0
    }

    #[test]
    fn what_is_named_is_refused_on_every_interface_and_nothing_else() {
        for native in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64] {
            let filter = filter(native, Strictness::Full);
            assert!(filter.notes.is_empty(), "{:?}", filter.notes);
            for arch in Arch::ALL.into_iter().filter(|arch| native.runs(*arch)) {
                let refused: Vec<u32> = CALLS.iter().filter_map(|call| arch.number(call)).collect();
                // 32-bit ARM loads no kernel from a file.
                assert!(refused.len() >= CALLS.len() - 1, "{arch:?}");
                let sockets: Vec<_> =
                    ["socket", "socketpair", "socketcall"].into_iter().filter_map(|call| arch.number(call)).collect();
                let base = if arch == Arch::X32 { 0x4000_0000 } else { 0 };
                for number in base..base + 600 {
                    let data = Data { number, arch: arch.audit(), ..Data::default() };
                    let (answer, steps) = run(&filter.program, &data).unwrap();
                    assert_eq!(answer, if refused.contains(&number) { EPERM } else { ALLOW }, "{arch:?} {number}");
                    let most = if sockets.contains(&number) { 36 } else { 12 };
                    assert!(steps <= most, "{arch:?} {number}: {steps} instructions");
                }
            }
        }
    }

    #[test]
    fn sockets_are_of_five_kinds() {
        let filter = filter(Arch::X86_64, Strictness::Full);
        for (arch, call) in ON_X86.into_iter().flat_map(|arch| [(arch, "socket"), (arch, "socketpair")]) {
            for kind in 0..64 {
                let allowed = [0, 1, 2, 10, 16, 17].contains(&kind);
                // The kernel drops the upper half, whatever it holds.
                for kind in [kind, kind | 1 << 32, kind | 0xdead_beef << 32] {
                    let expected = if allowed { ALLOW } else { NO_SUCH_KIND };
                    assert_eq!(
                        answer(&filter, arch, call, [kind, 1, 0, 0, 0, 0]),
                        expected,
                        "{arch:?} {call} {kind:#x}"
                    );
                }
            }
        }
        // socket, and socketpair; not bind, or what a program does with sockets that it was given.
        let by_multiplexer = |call| answer(&filter, Arch::X86, "socketcall", [call, 0, 0, 0, 0, 0]);
        assert_eq!([1, 8, 2, 10].map(by_multiplexer), [NO_SUCH_KIND, NO_SUCH_KIND, ALLOW, ALLOW]);
    }

    #[test]
    fn sockets_can_be_left_open() {
        let filter = filter(Arch::X86_64, Strictness::OpenSockets);
        for arch in ON_X86 {
            assert_eq!(answer(&filter, arch, "socket", [40, 1, 0, 0, 0, 0]), ALLOW);
            assert_eq!(answer(&filter, arch, "io_uring_setup", [0; 6]), EPERM);
        }
        assert_eq!(answer(&filter, Arch::X86, "socketcall", [1, 0, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn it_is_short() {
        // The kernel runs it once for each call's number when it is loaded, and keeps a copy of it for each machine.
        let length = filter(Arch::X86_64, Strictness::Full).program.len();
        assert!(length < 130, "{length} instructions");
    }
}
