//! The device list as a BPF program. kernel: Documentation/bpf/prog_cgroup_sysctl.rst has the like;
//! include/uapi/linux/bpf.h, `struct bpf_cgroup_dev_ctx`.

use crate::dir::Dir;
use crate::{Error, Result};
use offshoot_plan::cgroup::DeviceList;
use offshoot_plan::cgroup::devices::{Access, Kind};
use offshoot_sys::{Errno, bpf};
use std::os::fd::{AsFd, OwnedFd};

const BLOCK: i32 = 1;
const CHAR: i32 = 2;

// Registers. The kernel passes the context in R1 and takes the verdict from R0.
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Opcodes, all on 32 bits (Linux 5.1): numbers of devices are unsigned, and would be sign-extended to 64.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// One instruction. The fields are the kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    fn encode(self) -> u64 {
        let [o0, o1] = self.offset.to_ne_bytes();
        let [v0, v1, v2, v3] = self.value.to_ne_bytes();
        u64::from_ne_bytes([self.code, self.from << 4 | self.to, o0, o1, v0, v1, v2, v3])
    }
}

fn with_value(code: u8, to: u8, value: i32) -> Instruction {
    Instruction { code, to, from: 0, offset: 0, value }
}

fn with_register(code: u8, to: u8, from: u8, offset: i16) -> Instruction {
    Instruction { code, to, from, offset, value: 0 }
}

/// The same bits; majors and minors have 32 of them.
fn bits(number: u32) -> i32 {
    number.cast_signed()
}

/// A program that decides as [`DeviceList::allows`] does.
fn assemble(list: &DeviceList) -> Vec<Instruction> {
    // Access is the upper half of the first word, the kind of device the lower.
    let mut program = vec![
        with_register(LOAD_WORD, KIND, R1, 0),
        with_register(MOVE, ACCESS, KIND, 0),
        with_value(AND, KIND, 0xffff),
        with_value(SHIFT_RIGHT, ACCESS, 16),
        with_register(LOAD_WORD, MAJOR, R1, 4),
        with_register(LOAD_WORD, MINOR, R1, 8),
    ];
    let verdict = |allow: bool| [with_value(SET, R0, allow.into()), with_value(EXIT, 0, 0)];
    for (devices, access) in &list.exceptions {
        let kind = if devices.kind == Kind::Char { CHAR } else { BLOCK };
        let mut block = vec![with_value(JUMP_UNLESS_EQUAL, KIND, kind)];
        for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
            block.extend(number.map(|number| with_value(JUMP_UNLESS_EQUAL, register, bits(number))));
        }
        let masked = [with_register(MOVE, R1, ACCESS, 0), with_value(AND, R1, access.bits().into())];
        if list.default_allow {
            block.extend(masked);
            block.push(with_value(JUMP_IF_EQUAL, R1, 0));
        } else if *access != Access::ALL {
            block.extend(masked);
            block.push(with_register(JUMP_UNLESS_EQUAL_REGISTER, R1, ACCESS, 0));
        }
        block.extend(verdict(!list.default_allow));
        // Every jump leads to the next block.
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL | JUMP_UNLESS_EQUAL_REGISTER) {
                instruction.offset = i16::try_from(length - at - 1).expect("a block has at most ten instructions");
            }
        }
        program.extend(block);
    }
    program.extend(verdict(list.default_allow));
    program
}

/// Puts the program in force on a cgroup of the unified hierarchy. The new one is attached before the old ones are
/// detached, so there is no moment without; where there is exactly one, it is replaced.
pub(crate) fn attach(dir: &Dir, list: &DeviceList) -> Result<()> {
    let done = || -> Result<(), offshoot_sys::Error> {
        let program: Vec<u64> = assemble(list).into_iter().map(Instruction::encode).collect();
        let program = bpf::prog_load(&program, "Apache-2.0")?;
        let old = attached(dir)?;
        if let [one] = &old[..] {
            return bpf::attach(dir, &program, bpf::ALLOW_MULTI | bpf::REPLACE, Some(one.as_fd()));
        }
        bpf::attach(dir, &program, bpf::ALLOW_MULTI, None)?;
        old.iter().try_for_each(|old| bpf::detach(dir, old))
    };
    done().map_err(|e| {
        let errno = e.errno();
        Error::with_cause(format!("failed to set device rules of {}: {e}", dir.path().display()), errno)
    })
}

/// The programs in force on this very cgroup. One that a security module hides, or that is gone already, can only
/// forbid more; it stays.
fn attached(dir: &Dir) -> Result<Vec<OwnedFd>, offshoot_sys::Error> {
    let mut programs = Vec::new();
    for id in bpf::query(dir)? {
        match bpf::prog_get_fd_by_id(id) {
            Ok(program) => programs.push(program),
            Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EACCES | Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offshoot_plan::cgroup::devices::Match;

    /// Runs a program on one request. Registers hold 32 bits; so do all instructions that are used.
    fn run(program: &[Instruction], context: [u32; 3]) -> bool {
        let mut registers = [0u32; 11];
        let mut at = 0;
        for _ in 0..program.len() {
            let Instruction { code, to, from, offset, value } = program[at];
            let (to, other, value) = (usize::from(to), registers[usize::from(from)], value.cast_unsigned());
            let mut jump = false;
            match code {
                LOAD_WORD => registers[to] = context[usize::try_from(offset / 4).unwrap()],
                MOVE => registers[to] = other,
                SET => registers[to] = value,
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL => jump = registers[to] == value,
                JUMP_UNLESS_EQUAL => jump = registers[to] != value,
                JUMP_UNLESS_EQUAL_REGISTER => jump = registers[to] != other,
                EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            }
            at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
        }
        panic!("no end");
    }

    fn agrees(list: &DeviceList) {
        let program = assemble(list);
        for (kind, code) in [(Kind::Block, 1), (Kind::Char, 2)] {
            for major in [0, 1, u32::MAX] {
                for minor in [0, 1, u32::MAX] {
                    for access in 1..8 {
                        let wanted = list.allows(kind, major, minor, accesses()[access]);
                        let request = (u32::try_from(access).unwrap()) << 16 | code;
                        assert_eq!(run(&program, [request, major, minor]), wanted, "{list:?} {kind:?} {major}:{minor}");
                    }
                }
            }
        }
    }

    /// All eight, by their bits.
    fn accesses() -> [Access; 8] {
        let of = |text: &str| DeviceList::parse(&format!("c 0:0 {text}")).unwrap().exceptions[0].1;
        let mut all = [of("m"); 8];
        for text in ["m", "r", "w", "rm", "wm", "rw", "rwm"] {
            let access = of(text);
            all[usize::from(access.bits())] = access;
        }
        all
    }

    #[test]
    fn the_program_decides_as_the_emulator() {
        let numbers = [None, Some(0), Some(1), Some(u32::MAX)];
        let mut rules = Vec::new();
        for kind in [Kind::Block, Kind::Char] {
            for major in numbers {
                for minor in numbers {
                    rules.extend((1..8).map(|access| (Match { major, minor, kind }, accesses()[access])));
                }
            }
        }
        for default_allow in [false, true] {
            agrees(&DeviceList { default_allow, exceptions: vec![] });
            for rule in &rules {
                agrees(&DeviceList { default_allow, exceptions: vec![*rule] });
            }
            // Pairs that are about one kind suffice, and one wide rule against all.
            for (index, first) in rules.iter().enumerate().filter(|(_, (devices, _))| devices.kind == Kind::Char) {
                for second in rules.iter().skip(index + 1).step_by(13) {
                    agrees(&DeviceList { default_allow, exceptions: vec![*first, *second] });
                }
            }
        }
    }

    #[test]
    fn instructions_have_the_kernels_layout() {
        let bytes = Instruction { code: 0x56, to: 2, from: 1, offset: -2, value: 0x0102_0304 }.encode().to_ne_bytes();
        assert_eq!(bytes[..2], [0x56, 0x12]);
        assert_eq!(i16::from_ne_bytes([bytes[2], bytes[3]]), -2);
    }
}
