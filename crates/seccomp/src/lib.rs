//! A seccomp profile in, a BPF program out; pure.
//!
//! `spec: config-linux.md#seccomp`, with the meaning that runc and libseccomp give it:
//!
//! - a rule with the default action adds nothing; an unknown call name is passed over with a note;
//! - the native architecture always counts; a call of one that is not listed kills the thread;
//! - conditions of a rule are ANDed, but if two of them test one argument, each is a rule of its own;
//! - a rule without conditions swallows all conditional rules of the call, and the first such rule wins;
//! - calls with a number above all those that the profile names return ENOSYS, so that programs fall back
//!   (as with runc's stub before libseccomp's program, but a call that is named always has its own action);
//! - arguments are compared as 64 bits on 64-bit architectures, and as their lower 32 on the others and on x32;
//! - rules for socket and System V IPC calls also apply to `socketcall` and `ipc`, where these exist.
//!
//! The program is one binary search over merged ranges of call numbers for each architecture: the kernel
//! runs it once for every call number when it is loaded, so its depth counts twice.

#![forbid(unsafe_code)]

mod arch;
mod assemble;
mod calls;
pub mod emulator;
mod policy;
mod ranges;
mod table;

pub use arch::Arch;
pub use policy::{action_names, flag_names, operator_names, supported_flag_names};

use assemble::{Assembler, Target, code, offset};
use offshoot_spec::Seccomp;
use policy::{KILL_THREAD, Policy};
use ranges::{Decision, Range, Ranges};
use std::fmt;

/// The largest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_…`, the bits of `seccomp(2)`'s second argument.
pub mod flag {
    /// Log all actions but ALLOW that are in `actions_logged`.
    pub const LOG: u64 = 1 << 1;
    /// No protection from speculative store bypass.
    pub const SPEC_ALLOW: u64 = 1 << 2;
    /// Return a file descriptor for notifications.
    pub const NEW_LISTENER: u64 = 1 << 3;
    /// Only a fatal signal interrupts a call whose notification was received; since Linux 5.19.
    pub const WAIT_KILLABLE_RECV: u64 = 1 << 5;
}

/// What the filter will run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel's own system call interface.
    pub native: Arch,
    /// The [`flag`] bits that it knows.
    pub flags: u64,
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A filter ready to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Empty if the profile asks for no filter: it has neither a default action nor rules.
    pub program: Vec<Instruction>,
    /// [`flag`] bits.
    pub flags: u64,
    /// Whether loading it gives a file descriptor, to be sent to `listenerPath`.
    pub notify: bool,
    /// Texts for the debug log.
    pub notes: Vec<String>,
}

/// Why a profile cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, below `linux.seccomp`: `syscalls[3].args[0].op`.
    pub path: String,
    /// A sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Compiles `profile` for `kernel`.
///
/// # Errors
/// All problems of the profile, in its order.
pub fn compile(profile: &Seccomp, kernel: &Kernel) -> Result<Filter, Vec<Problem>> {
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(Filter::default());
    }
    let policy = Policy::new(profile, kernel)?;
    let mut ranges = Ranges::new(&policy);
    // x32 calls have the architecture of x86-64 and are in its ranges.
    let arches: Vec<(Arch, Vec<Range>)> =
        policy.arches.iter().filter(|arch| **arch != Arch::X32).map(|arch| (*arch, ranges.of(*arch))).collect();
    let kill = ranges.index_of(Decision::Return(KILL_THREAD));

    let mut assembler = Assembler::new(&mut ranges, kernel.native.big_endian());
    let mut blocks = Vec::with_capacity(arches.len());
    for (arch, ranges) in arches.iter().rev() {
        let search = assembler.search(ranges);
        blocks.push((arch.audit(), assembler.then(code::LOAD, offset::NUMBER, search)));
    }
    let mut dispatch = Target::Decision(kill);
    for (audit, block) in blocks {
        dispatch = assembler.branch(code::JUMP_EQ, audit, block, dispatch);
    }
    assembler.then(code::LOAD, offset::ARCH, dispatch);
    let program = assembler.finish();

    if program.len() > MAX_INSTRUCTIONS {
        let message =
            format!("the filter has {} instructions, of which the kernel takes {MAX_INSTRUCTIONS}", program.len());
        return Err(vec![Problem { path: "syscalls".into(), message }]);
    }
    let notify = policy.flags & flag::NEW_LISTENER != 0;
    Ok(Filter { program, flags: policy.flags, notify, notes: policy.notes })
}
