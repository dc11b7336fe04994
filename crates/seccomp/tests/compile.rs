//! Programs as a whole: their size, their depth, and what another Rust compiler of filters makes of the same rules.

#![forbid(unsafe_code)]

mod profiles;

use offshoot_seccomp::emulator::{self, Data};
use offshoot_seccomp::{Arch, Filter, Kernel, MAX_INSTRUCTIONS, compile, flag};
use offshoot_spec::{Arg, Seccomp, Syscall};
use profiles::Random;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::{BTreeMap, HashSet};

const KERNEL: Kernel = Kernel { native: Arch::X86_64, flags: flag::LOG | flag::SPEC_ALLOW };

fn docker() -> Seccomp {
    offshoot_spec::from_slice(include_bytes!("data/docker.json")).unwrap()
}

/// The most instructions that any of the first numbers takes.
fn depth(filter: &Filter, args: [u64; 6]) -> usize {
    let steps = |number| {
        let data = Data { number, arch: Arch::X86_64.audit(), instruction_pointer: 0, args };
        emulator::run(&filter.program, &data).unwrap().1
    };
    (0..600).chain(0x4000_0000..0x4000_0258).map(steps).max().unwrap()
}

#[test]
fn dockers_profile_is_small_and_shallow() {
    let filter = compile(&docker(), &KERNEL).unwrap();
    let depth = depth(&filter, [0; 6]);
    println!("{} instructions, {depth} at most for a call", filter.program.len());
    // libseccomp's has 1246; the deepest is personality(2) with its five values.
    assert!(filter.program.len() < 450 && depth < 36);
    assert!(filter.notes.iter().all(|note| note.contains("unknown seccomp syscall")), "{:?}", filter.notes);
}

/// Every name of Docker's profile under conditions of its own.
fn conditional(names: usize, conditions: u32) -> Seccomp {
    let all = docker().syscalls.remove(0).names;
    let rule = |(at, name): (u64, &String)| Syscall {
        names: vec![name.clone()],
        action: "SCMP_ACT_ALLOW".into(),
        args: (0..conditions)
            .map(|n| Arg { index: n, value: at << 32 | 7, op: "SCMP_CMP_GT".into(), ..Arg::default() })
            .collect(),
        ..Syscall::default()
    };
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        syscalls: (0u64..).zip(all.iter().take(names)).map(rule).collect(),
        ..Seccomp::default()
    }
}

#[test]
fn what_the_kernel_would_refuse_is_told() {
    let filter = compile(&conditional(300, 1), &KERNEL).unwrap();
    assert!(filter.program.len() <= MAX_INSTRUCTIONS && filter.program.len() > 1000, "{}", filter.program.len());
    // Whoever is far from a return reaches it all the same.
    let mut results = HashSet::new();
    for number in 0..500 {
        for args in [[0; 6], [u64::MAX; 6]] {
            let data = Data { number, arch: Arch::X86_64.audit(), instruction_pointer: 0, args };
            results.insert(emulator::run(&filter.program, &data).unwrap().0);
        }
    }
    assert_eq!(results, HashSet::from([0x7fff_0000, 0x0005_0001, 0x0005_0026]));

    let problems = compile(&conditional(350, 6), &KERNEL).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.path == "syscalls" && problem.message.contains("of which the kernel takes 4096"), "{problem}");
}

#[test]
fn large_random_profiles_become_programs_that_end() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut profile = docker();
        for _ in 0..6 {
            profile
                .syscalls
                .extend(profiles::profile(&mut random, &[Arch::X86_64, Arch::X86, Arch::X32], |_| true).syscalls);
        }
        profile.listener_path = "/run/agent".into();
        let filter = compile(&profile, &KERNEL).unwrap();
        for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
            assert!(depth(&filter, args) < 200, "seed {seed}");
        }
    }
}

/// The rules in seccompiler's terms: one action for what matches, one for the rest, one architecture.
fn seccompiler(profile: &Seccomp, arch: Arch, target: TargetArch) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in &profile.syscalls {
        let condition = |arg: &Arg| {
            let (operator, value) = match arg.op.as_str() {
                "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, arg.value),
                "SCMP_CMP_NE" => (SeccompCmpOp::Ne, arg.value),
                "SCMP_CMP_LT" => (SeccompCmpOp::Lt, arg.value),
                "SCMP_CMP_LE" => (SeccompCmpOp::Le, arg.value),
                "SCMP_CMP_GT" => (SeccompCmpOp::Gt, arg.value),
                "SCMP_CMP_GE" => (SeccompCmpOp::Ge, arg.value),
                _ => (SeccompCmpOp::MaskedEq(arg.value), arg.value_two & arg.value),
            };
            let index = u8::try_from(arg.index).unwrap();
            SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).unwrap()
        };
        let alternatives: Vec<_> = rule.args.iter().map(condition).collect();
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            // An empty list is a rule without conditions, which swallows the others.
            let list = rules.entry(number.into()).or_default();
            list.extend((!alternatives.is_empty()).then(|| SeccompRule::new(alternatives.clone()).unwrap()));
        }
    }
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(5), target).unwrap().try_into().unwrap()
}

#[test]
fn rules_are_what_seccompiler_makes_of_them() {
    for (arch, target) in
        [(Arch::X86_64, TargetArch::x86_64), (Arch::Aarch64, TargetArch::aarch64), (Arch::Riscv64, TargetArch::riscv64)]
    {
        let mut results = HashSet::new();
        for seed in 0..100 {
            let mut random = Random(seed);
            let mut profile = profiles::profile(&mut random, &[arch], |_| true);
            // What seccompiler can say: one action, one rule a call, and no argument tested twice.
            let mut used = HashSet::new();
            for rule in &mut profile.syscalls {
                (rule.action, rule.errno_ret) = ("SCMP_ACT_ERRNO".into(), Some(5));
                rule.names.retain(|name| used.insert(name.clone()));
                rule.args.sort_by_key(|arg| arg.index);
                rule.args.dedup_by_key(|arg| arg.index);
            }
            profile.default_action = "SCMP_ACT_ALLOW".into();
            let ours = compile(&profile, &Kernel { native: arch, ..KERNEL }).unwrap();
            let theirs: Vec<offshoot_seccomp::Instruction> = seccompiler(&profile, arch, target)
                .iter()
                .map(|i| offshoot_seccomp::Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
                .collect();
            let arguments = profiles::Arguments::of(&profile);
            for number in 0..500 {
                for args in arguments.vectors(&mut random, 4) {
                    let data = Data { number, arch: arch.audit(), instruction_pointer: 0, args };
                    let (ours, theirs) = (emulator::run(&ours.program, &data), emulator::run(&theirs, &data));
                    assert_eq!(ours.map(|r| r.0), theirs.map(|r| r.0), "seed {seed} {arch:?} {data:x?}\n{profile:?}");
                    results.insert(ours.unwrap().0);
                }
            }
        }
        assert_eq!(results, HashSet::from([0x7fff_0000, 0x0005_0005]));
    }
}
