//! Docker's default profile, as dockerd writes it for a container with the default capabilities.

use offshoot_seccomp::{Arch, Kernel, compile, flag};
use offshoot_spec::Seccomp;

const KERNEL: Kernel = Kernel { native: Arch::X86_64, flags: flag::LOG | flag::SPEC_ALLOW };

fn docker() -> Seccomp {
    offshoot_spec::from_slice(include_bytes!("data/docker.json")).unwrap()
}

#[test]
fn dockers_profile_is_small_and_fast() {
    let profile = docker();
    let first = std::time::Instant::now();
    let filter = compile(&profile, &KERNEL).unwrap();
    let first = first.elapsed();
    let start = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(compile(std::hint::black_box(&profile), &KERNEL).unwrap());
    }
    println!("{} instructions, first {first:?}, then {:?}", filter.program.len(), start.elapsed() / 100);
    println!("{:?}", filter.notes);
}
