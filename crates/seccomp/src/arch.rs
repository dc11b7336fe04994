//! The architectures of the specification, and what the kernel's filter input looks like on each.

use crate::calls::Call;

/// Columns of the call table.
pub(crate) const COLUMNS: usize = 14;

/// Where x32 calls begin: bit 30 of the number (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Set in numbers that no interface has; the kernel does not clear it before it asks the filter.
pub(crate) const SIGN_BIT: u32 = 0x8000_0000;

/// Where the calls private to 32-bit ARM begin (`__ARM_NR_BASE`).
pub(crate) const ARM_PRIVATE: u32 = 0x000f_0000;

/// A system call interface, `SCMP_ARCH_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the architectures' own")]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    Loongarch64,
    S390x,
    S390,
    Ppc64,
    Ppc64le,
    Ppc,
    Mips64,
    Mips64n32,
    Mips,
    Mipsel64,
    Mipsel64n32,
    Mipsel,
}

/// What distinguishes one interface from another.
struct Facts {
    name: &'static str,
    /// `AUDIT_ARCH_…` of linux/audit.h: what the kernel puts into `seccomp_data.arch`.
    audit: u32,
    column: usize,
    /// Added to the numbers of the table.
    base: u32,
    /// Whether arguments are compared with all of their 64 bits.
    wide: bool,
    /// The interface that a kernel running this one has as its own.
    host: Arch,
    /// `socketcall(2)` and `ipc(2)` stand for other calls; the two are always 102 and 117 above the base.
    multiplexed: bool,
}

const BITS_64: u32 = 0x8000_0000;
const LITTLE: u32 = 0x4000_0000;
const MIPS_N32: u32 = 0x2000_0000;

impl Arch {
    /// All of them, sorted as `runc features` prints them.
    pub const ALL: [Arch; 18] = [
        Arch::Aarch64,
        Arch::Arm,
        Arch::Loongarch64,
        Arch::Mips,
        Arch::Mips64,
        Arch::Mips64n32,
        Arch::Mipsel,
        Arch::Mipsel64,
        Arch::Mipsel64n32,
        Arch::Ppc,
        Arch::Ppc64,
        Arch::Ppc64le,
        Arch::Riscv64,
        Arch::S390,
        Arch::S390x,
        Arch::X32,
        Arch::X86,
        Arch::X86_64,
    ];

    /// The interface that this program itself was built for.
    pub const NATIVE: Arch = if cfg!(target_arch = "x86_64") {
        Arch::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else if cfg!(target_arch = "loongarch64") {
        Arch::Loongarch64
    } else if cfg!(target_arch = "s390x") {
        Arch::S390x
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Arch::Ppc64le
    } else if cfg!(target_arch = "arm") {
        Arch::Arm
    } else if cfg!(target_arch = "x86") {
        Arch::X86
    } else {
        panic!("this architecture has no row here yet")
    };

    /// The `SCMP_ARCH_…` name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The architecture of that `SCMP_ARCH_…` name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Whether a kernel with this native interface also offers `other`, so that a filter may meet it.
    #[must_use]
    pub fn runs(self, other: Arch) -> bool {
        self == other || self == other.facts().host
    }

    /// The value of `seccomp_data.arch`.
    #[must_use]
    pub fn audit(self) -> u32 {
        self.facts().audit
    }

    /// The number of the call with that name, as the kernel reports it.
    #[must_use]
    pub fn number(self, call: &str) -> Option<u32> {
        Call::named(call)?.number(self)
    }

    pub(crate) fn column(self) -> usize {
        self.facts().column
    }

    pub(crate) fn base(self) -> u32 {
        self.facts().base
    }

    pub(crate) fn wide(self) -> bool {
        self.facts().wide
    }

    /// Whether programs make sockets by `socketcall`, and others of some calls by one, whose arguments no filter sees.
    #[must_use]
    pub fn multiplexes(self) -> bool {
        self.facts().multiplexed
    }

    pub(crate) fn big_endian(self) -> bool {
        self.audit() & LITTLE == 0
    }

    #[rustfmt::skip]
    fn facts(self) -> Facts {
        let (name, audit, column, base, wide, host, multiplexed) = match self {
            Arch::X86_64 => ("SCMP_ARCH_X86_64", 62 | BITS_64 | LITTLE, 0, 0, true, Arch::X86_64, false),
            Arch::X86 => ("SCMP_ARCH_X86", 3 | LITTLE, 1, 0, false, Arch::X86_64, true),
            // An x32 program has 64-bit registers, but to libseccomp its arguments are 32 bits wide.
            Arch::X32 => ("SCMP_ARCH_X32", 62 | BITS_64 | LITTLE, 2, X32_BIT, false, Arch::X86_64, false),
            Arch::Aarch64 => ("SCMP_ARCH_AARCH64", 183 | BITS_64 | LITTLE, 3, 0, true, Arch::Aarch64, false),
            Arch::Arm => ("SCMP_ARCH_ARM", 40 | LITTLE, 4, 0, false, Arch::Aarch64, false),
            Arch::Riscv64 => ("SCMP_ARCH_RISCV64", 243 | BITS_64 | LITTLE, 5, 0, true, Arch::Riscv64, false),
            Arch::Loongarch64 => ("SCMP_ARCH_LOONGARCH64", 258 | BITS_64 | LITTLE, 6, 0, true, Arch::Loongarch64, false),
            Arch::S390x => ("SCMP_ARCH_S390X", 22 | BITS_64, 7, 0, true, Arch::S390x, true),
            Arch::S390 => ("SCMP_ARCH_S390", 22, 8, 0, false, Arch::S390x, true),
            Arch::Ppc64 => ("SCMP_ARCH_PPC64", 21 | BITS_64, 9, 0, true, Arch::Ppc64, true),
            Arch::Ppc64le => ("SCMP_ARCH_PPC64LE", 21 | BITS_64 | LITTLE, 9, 0, true, Arch::Ppc64le, true),
            Arch::Ppc => ("SCMP_ARCH_PPC", 20, 10, 0, false, Arch::Ppc64, true),
            Arch::Mips64 => ("SCMP_ARCH_MIPS64", 8 | BITS_64, 11, 5000, true, Arch::Mips64, false),
            Arch::Mips64n32 => ("SCMP_ARCH_MIPS64N32", 8 | BITS_64 | MIPS_N32, 12, 6000, false, Arch::Mips64, false),
            Arch::Mips => ("SCMP_ARCH_MIPS", 8, 13, 4000, false, Arch::Mips64, true),
            Arch::Mipsel64 => ("SCMP_ARCH_MIPSEL64", 8 | BITS_64 | LITTLE, 11, 5000, true, Arch::Mipsel64, false),
            Arch::Mipsel64n32 => ("SCMP_ARCH_MIPSEL64N32", 8 | BITS_64 | LITTLE | MIPS_N32, 12, 6000, false, Arch::Mipsel64, false),
            Arch::Mipsel => ("SCMP_ARCH_MIPSEL", 8 | LITTLE, 13, 4000, false, Arch::Mipsel64, true),
        };
        Facts { name, audit, column, base, wide, host, multiplexed }
    }
}
