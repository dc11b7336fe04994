//! Our compiler beside libseccomp with runc's stub, over all numbers, architectures and boundary arguments, both
//! programs run by the emulator.

#![forbid(unsafe_code)]

mod libseccomp;
mod model;
mod profiles;

use libseccomp::{ENOSYS, Oracle, Runc};
use model::Model;
use offshoot_seccomp::emulator::{self, Data};
use offshoot_seccomp::{Arch, Filter, Kernel, compile, flag};
use offshoot_spec::Seccomp;
use profiles::Random;

/// Native architectures with what else their kernels run.
const FAMILIES: [&[Arch]; 8] = [
    &[Arch::X86_64, Arch::X86, Arch::X32],
    &[Arch::Aarch64, Arch::Arm],
    &[Arch::Ppc64le],
    &[Arch::Ppc64, Arch::Ppc],
    &[Arch::S390x, Arch::S390],
    &[Arch::Riscv64],
    &[Arch::Mips64, Arch::Mips, Arch::Mips64n32],
    &[Arch::Mipsel64, Arch::Mipsel, Arch::Mipsel64n32],
];

fn docker() -> Seccomp {
    offshoot_spec::from_slice(include_bytes!("data/docker.json")).unwrap()
}

fn compiled(profile: &Seccomp, native: Arch) -> Filter {
    let kernel = Kernel { native, flags: flag::LOG | flag::SPEC_ALLOW };
    compile(profile, &kernel).unwrap_or_else(|problems| panic!("{problems:?}\n{profile:?}"))
}

/// Every number that is or may become a call's, and those around which the two could part.
fn numbers(arch: Arch) -> impl Iterator<Item = u32> {
    let base = match arch {
        Arch::X32 => 0x4000_0000,
        Arch::Mips | Arch::Mipsel => 4000,
        Arch::Mips64 | Arch::Mipsel64 => 5000,
        Arch::Mips64n32 | Arch::Mipsel64n32 => 6000,
        _ => 0,
    };
    let edges = [0x000f_0000, 0x000f_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000, u32::MAX];
    let around = edges.into_iter().flat_map(|edge: u32| (0..8).map(move |n| edge.wrapping_sub(2).wrapping_add(n)));
    (base..base + 600).chain(around).chain(1024..1028)
}

/// Whether the oracle and we give the call the same number everywhere; a libseccomp older than the call cannot.
fn agreed(oracle: &mut Oracle, family: &[Arch], name: &str) -> bool {
    let known = oracle.number(family[0], name) != -1;
    known
        && family.iter().all(|arch| match oracle.number(*arch, name) {
            // Calls that socketcall and ipc stand for: such an architecture may have the call itself too.
            -299..=-101 => true,
            number => arch.number(name) == u32::try_from(number).ok(),
        })
}

/// Where a result is right though runc's is another.
fn better(named: bool, arch: Arch, ours: u32, runcs: u32) -> bool {
    // 32-bit ARM has calls of its own far above the others: where a profile names one of them, runc takes all numbers
    // below for old ones. And runc's libseccomp does not count calls that `socketcall` and `ipc` stand for, so that
    // runc may refuse one as too new though the profile names it. We do not: what is named has its action, and of
    // what is not named, all that is newer than the named ones is ENOSYS, so that programs can fall back.
    (arch == Arch::Arm && ours == ENOSYS && !named) || (runcs == ENOSYS && named)
}

/// Both results for every call that the profile may meet.
fn each_call(profile: &Seccomp, family: &[Arch], runc: &Runc, mut check: impl FnMut(Arch, &Data, bool, u32, u32)) {
    let filter = compiled(profile, family[0]);
    let mut random = Random(1);
    let arguments = profiles::Arguments::of(profile);
    let strangers = [Arch::Loongarch64, Arch::X86, Arch::Arm, Arch::Ppc64le, Arch::S390x];
    for arch in family.iter().chain(&strangers).copied() {
        let named: Vec<u32> =
            profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| arch.number(name)).collect();
        let multiplexers = ["socketcall", "ipc"].map(|name| arch.number(name));
        for number in numbers(arch) {
            let is_named = named.contains(&number) || multiplexers.contains(&Some(number));
            let count = if is_named { 40 } else { 1 };
            for args in arguments.vectors(&mut random, count) {
                let data = Data { number, arch: arch.audit(), instruction_pointer: 0, args };
                let (ours, _) = emulator::run(&filter.program, &data).expect("our program is valid");
                check(arch, &data, is_named, ours, runc.result(&data));
            }
        }
    }
}

#[test]
fn dockers_profile_is_what_runc_makes_of_it() {
    let Some(mut oracle) = Oracle::new("docker") else { return };
    for family in FAMILIES {
        let mut profile = docker();
        for rule in &mut profile.syscalls {
            rule.names.retain(|name| agreed(&mut oracle, family, name));
        }
        profile.architectures = family.iter().map(|arch| arch.name().to_owned()).collect();
        let runc = oracle.runc(&profile, family[0]).unwrap();
        each_call(&profile, family, &runc, |arch, data, named, ours, runcs| {
            let equal = ours == runcs || better(named, arch, ours, runcs);
            assert!(equal, "{arch:?} {data:x?}: {ours:#x}, runc {runcs:#x}");
        });
        let ours = compiled(&profile, family[0]).program.len();
        println!("{:?}: {ours} instructions, runc {}", family[0], runc.program.len());
    }
}

/// libseccomp 2.5.4's programs are wrong for some profiles: where two paths meet, they may test the wrong half of an
/// argument or the architecture in place of the call's number. So a third opinion decides between the two: the
/// profile read plainly.
#[test]
fn random_profiles_are_what_runc_makes_of_them() {
    let Some(mut oracle) = Oracle::new("random") else { return };
    let (mut compared, mut chosen, mut wrong, mut profiles) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        let family = FAMILIES[random.below(FAMILIES.len())];
        let profile = profiles::profile(&mut random, family, |name| agreed(&mut oracle, family, name));
        let Some(runc) = oracle.runc(&profile, family[0]) else { continue };
        let model = Model::new(&profile, family, libseccomp::action, |arch, name| oracle.number(arch, name));
        let mut bad = 0;
        each_call(&profile, family, &runc, |arch, data, named, ours, runcs| {
            let permitted = if runc.is_newer(data) { vec![ENOSYS] } else { model.actions(data) };
            let right = permitted.contains(&ours) || better(named, arch, ours, *permitted.first().unwrap());
            let text = || serde_json::to_string(&profile).unwrap();
            assert!(right, "{arch:?} {data:x?}: {ours:#x} of {permitted:x?}, runc {runcs:#x}\n{}", text());
            compared += 1;
            chosen += usize::from(ours != runcs && permitted.len() > 1);
            bad += usize::from(!permitted.contains(&runcs));
        });
        profiles += 1;
        wrong += usize::from(bad != 0);
    }
    println!("{profiles} profiles, {compared} calls; where several rules hold, another is taken in {chosen}");
    println!("libseccomp's program is wrong for {wrong} profiles");
    assert!(profiles > 300 && wrong < profiles / 20 && chosen < compared / 100);
}

#[test]
fn names_and_numbers_are_libseccomps() {
    let Some(mut oracle) = Oracle::new("names") else { return };
    let mut count = 0;
    for arch in Arch::ALL.into_iter().filter(|arch| *arch != Arch::Loongarch64) {
        for number in numbers(arch).filter(|number| *number >= arch.number("read").unwrap()) {
            let Some(name) = oracle.name(arch, number) else { continue };
            assert_eq!(arch.number(&name), Some(number), "{arch:?} {name}");
            count += 1;
        }
    }
    assert!(count > 6000, "only {count}");
}
