//! What a profile says, without a compiler.

use offshoot_seccomp::Arch;
use offshoot_seccomp::emulator::Data;
use offshoot_spec::{Arg, Seccomp, Syscall};

/// A profile read plainly: rule after rule, for each call anew.
pub struct Model<'a> {
    arches: Vec<Arch>,
    default: u32,
    rules: Vec<(&'a Syscall, u32)>,
    /// The calls of each rule as (interface, number, first argument of `socketcall` or `ipc`).
    calls: Vec<Vec<(Arch, u32, Option<u64>)>>,
}

impl<'a> Model<'a> {
    /// `action` turns names into what the filter returns; `number` is libseccomp's.
    pub fn new(
        profile: &'a Seccomp,
        family: &[Arch],
        action: fn(&str, Option<u32>) -> u32,
        mut number: impl FnMut(Arch, &str) -> i32,
    ) -> Model<'a> {
        let listed = |arch: &Arch| *arch == family[0] || profile.architectures.iter().any(|name| arch.name() == name);
        let arches: Vec<Arch> = family.iter().copied().filter(listed).collect();
        let mut calls_of = |rule: &Syscall| {
            let mut calls = Vec::new();
            for (arch, name) in arches.iter().flat_map(|arch| rule.names.iter().map(|name| (*arch, name))) {
                calls.extend(arch.number(name).map(|number| (arch, number, None)));
                let pseudo = number(arch, name);
                let (multiplexer, base) = if pseudo <= -200 { ("ipc", 200) } else { ("socketcall", 100) };
                if let (-299..=-101, Some(number)) = (pseudo, arch.number(multiplexer)) {
                    calls.push((arch, number, u64::try_from(-pseudo - base).ok()));
                }
            }
            calls
        };
        let calls = profile.syscalls.iter().map(&mut calls_of).collect();
        let rules = profile.syscalls.iter().map(|rule| (rule, action(&rule.action, rule.errno_ret))).collect();
        Model { default: action(&profile.default_action, profile.default_errno_ret), arches, rules, calls }
    }

    /// All that the rules permit the filter to return: more than one action where several rules with conditions hold.
    pub fn actions(&self, data: &Data) -> Vec<u32> {
        const KILL_THREAD: u32 = 0;
        let of_x86 = |arch: Arch| match data.number {
            0x4000_0000.. if self.arches.contains(&Arch::X32) => arch == Arch::X32,
            0x4000_0000..u32::MAX => false,
            _ => arch == Arch::X86_64,
        };
        let mut listed = self.arches.iter().filter(|arch| arch.audit() == data.arch);
        let Some(arch) = listed.find(|arch| data.arch != Arch::X86_64.audit() || of_x86(**arch)).copied() else {
            return vec![KILL_THREAD];
        };
        let mut all = Vec::new();
        for ((rule, action), calls) in self.rules.iter().zip(&self.calls).filter(|((_, a), _)| *a != self.default) {
            for (_, _, first) in calls.iter().filter(|(of, number, _)| *of == arch && *number == data.number) {
                let Some(holds) = holds(rule, arch, *first, &data.args) else { return vec![*action] };
                if holds {
                    all.push(*action);
                }
            }
        }
        if all.is_empty() { vec![self.default] } else { all }
    }
}

/// Whether the rule's conditions hold; `None` if it has none. The number of a call that is made through `socketcall`
/// or `ipc` takes the place of conditions on the first argument.
fn holds(rule: &Syscall, arch: Arch, first: Option<u64>, args: &[u64; 6]) -> Option<bool> {
    use Arch::{Aarch64, Mips64, Mipsel64, Ppc64, Ppc64le, Riscv64, S390x, X86_64};
    let wide = matches!(arch, Aarch64 | Mips64 | Mipsel64 | Ppc64 | Ppc64le | Riscv64 | S390x | X86_64);
    let word = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let one = |arg: &Arg| {
        let (is, value) = (word(args[arg.index as usize]), word(arg.value));
        match arg.op.as_str() {
            "SCMP_CMP_EQ" => is == value,
            "SCMP_CMP_NE" => is != value,
            "SCMP_CMP_LT" => is < value,
            "SCMP_CMP_LE" => is <= value,
            "SCMP_CMP_GT" => is > value,
            "SCMP_CMP_GE" => is >= value,
            _ => is & value == word(arg.value_two) & value,
        }
    };
    let repeated = rule.args.iter().enumerate().any(|(n, a)| rule.args[..n].iter().any(|b| a.index == b.index));
    let mut alternatives = if repeated { rule.args.chunks(1).collect() } else { vec![rule.args.as_slice()] };
    alternatives.retain(|args| !args.is_empty());
    match first {
        None if alternatives.is_empty() => None,
        None => Some(alternatives.iter().any(|args| args.iter().all(one))),
        Some(first) => {
            let others = |args: &&[Arg]| args.iter().filter(|arg| arg.index != 0).all(one);
            Some(word(args[0]) == first && (alternatives.is_empty() || alternatives.iter().any(others)))
        }
    }
}
