//! From ranges to instructions.
//!
//! The program is built from its end to its start, because BPF only jumps forward: whatever an instruction
//! jumps to is already there, and its distance is known. A conditional jump reaches 255 instructions; where
//! that is too short, a return is repeated and anything else is reached by a `ja`.

use crate::Instruction;
use crate::policy::{Condition, Operator};
use crate::ranges::{Alternative, Decision, Range, Ranges};

/// linux/bpf_common.h.
pub(crate) mod code {
    pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    pub(crate) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    pub(crate) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    pub(crate) const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub(crate) const JUMP_GT: u16 = 0x25;
    pub(crate) const JUMP_GE: u16 = 0x35;
    pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K
}

/// Offsets in `struct seccomp_data`.
pub(crate) mod offset {
    pub(crate) const NUMBER: u32 = 0;
    pub(crate) const ARCH: u32 = 4;
    pub(crate) const ARGS: u32 = 16;
}

/// Where a jump goes.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// To whatever carries out this decision; it is placed when first needed.
    Decision(usize),
    /// To an instruction, counted from the end of the program.
    Label(usize),
}

/// A program that grows at its start.
pub(crate) struct Assembler<'a> {
    ranges: &'a mut Ranges<'a>,
    big_endian: bool,
    reversed: Vec<Instruction>,
    /// The nearest label of each decision.
    placed: Vec<Option<usize>>,
}

impl<'a> Assembler<'a> {
    pub(crate) fn new(ranges: &'a mut Ranges<'a>, big_endian: bool) -> Assembler<'a> {
        Assembler { ranges, big_endian, reversed: Vec::with_capacity(1024), placed: Vec::new() }
    }

    pub(crate) fn finish(self) -> Vec<Instruction> {
        self.reversed.into_iter().rev().collect()
    }

    /// Puts an instruction before the ones placed so far.
    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        Target::Label(self.reversed.len() - 1)
    }

    /// Puts a load or AND, after which the program goes on at `next`.
    pub(crate) fn then(&mut self, code: u16, k: u32, next: Target) -> Target {
        let label = self.place(next);
        if label + 1 != self.reversed.len() {
            self.jump(label);
        }
        self.put(code, 0, 0, k)
    }

    /// Puts a conditional jump.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        loop {
            let (yes, no) = (self.place_near(yes), self.place_near(no));
            // Placing the second may have moved the first out of reach.
            if let (Some(jt), Some(jf)) = (self.distance(yes), self.distance(no)) {
                return self.put(code, jt, jf, k);
            }
        }
    }

    /// Instructions to skip from the next one put to `label`, if a conditional jump can.
    fn distance(&self, label: usize) -> Option<u8> {
        u8::try_from(self.reversed.len() - 1 - label).ok()
    }

    fn jump(&mut self, label: usize) -> usize {
        let skip = u32::try_from(self.reversed.len() - 1 - label).expect("a program is smaller than 2^32");
        self.put(code::JUMP, 0, 0, skip);
        self.reversed.len() - 1
    }

    fn place_near(&mut self, target: Target) -> usize {
        let label = self.place(target);
        if self.distance(label).is_some() {
            return label;
        }
        let near = match self.reversed[label] {
            Instruction { code: code::RETURN, k, .. } => {
                self.put(code::RETURN, 0, 0, k);
                self.reversed.len() - 1
            }
            _ => self.jump(label),
        };
        if let Target::Decision(decision) = target {
            self.placed[decision] = Some(near);
        }
        near
    }

    fn place(&mut self, target: Target) -> usize {
        let decision = match target {
            Target::Label(label) => return label,
            Target::Decision(decision) => decision,
        };
        self.placed.resize(self.ranges.decisions.len().max(self.placed.len()), None);
        if let Some(label) = self.placed[decision] {
            return label;
        }
        let at = match &self.ranges.decisions[decision] {
            Decision::Return(value) => self.put(code::RETURN, 0, 0, *value),
            Decision::Test(alternatives) => self.test(&alternatives.clone()),
        };
        let Target::Label(label) = at else { unreachable!("instructions are put at labels") };
        self.placed.resize(self.ranges.decisions.len(), None);
        self.placed[decision] = Some(label);
        label
    }

    /// A binary search for the accumulator, which holds the call's number.
    pub(crate) fn search(&mut self, ranges: &[Range]) -> Target {
        match ranges {
            [only] => Target::Decision(only.decision),
            // One call that differs from its surroundings, the most frequent case, needs one instruction.
            [before, call, after] if before.decision == after.decision && after.start - call.start == 1 => {
                let (call_is, others) = (Target::Decision(call.decision), Target::Decision(before.decision));
                self.branch(code::JUMP_EQ, call.start, call_is, others)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.search(high);
                let below = self.search(low);
                self.branch(code::JUMP_GE, high[0].start, above, below)
            }
        }
    }

    fn test(&mut self, alternatives: &[Alternative]) -> Target {
        let mut otherwise = Target::Decision(0);
        for alternative in alternatives.iter().rev() {
            let action = self.ranges.index_of(Decision::Return(alternative.action));
            let mut holds = Target::Decision(action);
            for condition in alternative.conditions.iter().rev() {
                holds = self.compare(*condition, alternative.wide, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    /// Puts one comparison; three of the operators are the negation of the others.
    fn compare(&mut self, condition: Condition, wide: bool, yes: Target, no: Target) -> Target {
        match condition.operator {
            Operator::Eq | Operator::MaskedEq => self.equal(condition, wide, yes, no),
            Operator::Ne => self.equal(condition, wide, no, yes),
            Operator::Gt => self.greater(code::JUMP_GT, condition, wide, yes, no),
            Operator::Ge => self.greater(code::JUMP_GE, condition, wide, yes, no),
            Operator::Le => self.greater(code::JUMP_GT, condition, wide, no, yes),
            Operator::Lt => self.greater(code::JUMP_GE, condition, wide, no, yes),
        }
    }

    fn equal(&mut self, condition: Condition, wide: bool, yes: Target, no: Target) -> Target {
        let low = self.equal_word(condition, Word::Low, yes, no);
        if wide { self.equal_word(condition, Word::High, low, no) } else { low }
    }

    fn equal_word(&mut self, condition: Condition, word: Word, yes: Target, no: Target) -> Target {
        let mask = word.of(condition.mask);
        if mask == 0 {
            return yes;
        }
        let mut test = self.branch(code::JUMP_EQ, word.of(condition.value), yes, no);
        if mask != u32::MAX {
            test = self.then(code::AND, mask, test);
        }
        self.load_argument(condition.index, word, test)
    }

    /// `low` is the comparison of the lower halves, where the upper ones are equal.
    fn greater(&mut self, low: u16, condition: Condition, wide: bool, yes: Target, no: Target) -> Target {
        let test = self.branch(low, Word::Low.of(condition.value), yes, no);
        let test = self.load_argument(condition.index, Word::Low, test);
        if !wide {
            return test;
        }
        let high = Word::High.of(condition.value);
        // What is not greater than 0 is equal to it.
        let equal = if high == 0 { test } else { self.branch(code::JUMP_EQ, high, test, no) };
        let test = self.branch(code::JUMP_GT, high, yes, equal);
        self.load_argument(condition.index, Word::High, test)
    }

    fn load_argument(&mut self, index: u8, word: Word, next: Target) -> Target {
        let second = (word == Word::High) != self.big_endian;
        self.then(code::LOAD, offset::ARGS + 8 * u32::from(index) + if second { 4 } else { 0 }, next)
    }
}

/// Half of an argument; the filter's accumulator has 32 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Low,
    High,
}

impl Word {
    #[allow(clippy::cast_possible_truncation, reason = "one half is what is asked for")]
    fn of(self, value: u64) -> u32 {
        match self {
            Word::Low => value as u32,
            Word::High => (value >> 32) as u32,
        }
    }
}
