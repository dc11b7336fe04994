//! The kernel's interpreter for the instructions that seccomp accepts, for tests and explanations.
//!
//! It runs programs of any compiler, not only of this crate's, so that two of them can be compared.

use crate::Instruction;

/// `struct seccomp_data`: what a filter sees of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_…`.
    pub arch: u32,
    /// Where the call was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> Option<u32> {
        // __AUDIT_ARCH_LE
        let big_endian = self.arch & 0x4000_0000 == 0;
        let half = |value: u64| {
            let low = offset.is_multiple_of(8) != big_endian;
            u32::try_from(if low { value & 0xffff_ffff } else { value >> 32 }).ok()
        };
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            8 | 12 => half(self.instruction_pointer),
            16..64 if offset.is_multiple_of(4) => half(self.args[(offset as usize - 16) / 8]),
            _ => None,
        }
    }
}

/// What `program` returns for `data`, and how many instructions that took; `None` if the kernel would not
/// have accepted the program.
#[must_use]
pub fn run(program: &[Instruction], data: &Data) -> Option<(u32, usize)> {
    const RETURN_A: u16 = 0x16;
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let mut at = 0usize;
    for step in 1..=program.len() {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        // BPF_X instead of BPF_K as the operand.
        let operand = if code & 0x08 == 0 { k } else { x };
        match code {
            0x20 => a = data.word(k)?,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = *memory.get(k as usize)?,
            0x61 => x = *memory.get(k as usize)?,
            0x02 => *memory.get_mut(k as usize)? = a,
            0x03 => *memory.get_mut(k as usize)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0xa4 | 0xac => a ^= operand,
            0x64 | 0x6c => a = a.checked_shl(operand)?,
            0x74 | 0x7c => a = a.checked_shr(operand)?,
            0x84 => a = a.wrapping_neg(),
            0x05 => at += k as usize,
            0x15 | 0x1d => at += usize::from(if a == operand { jt } else { jf }),
            0x25 | 0x2d => at += usize::from(if a > operand { jt } else { jf }),
            0x35 | 0x3d => at += usize::from(if a >= operand { jt } else { jf }),
            0x45 | 0x4d => at += usize::from(if a & operand != 0 { jt } else { jf }),
            0x06 => return Some((k, step)),
            RETURN_A => return Some((a, step)),
            _ => return None,
        }
    }
    None
}
