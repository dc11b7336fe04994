//! From rules to a decision for every call number: sorted ranges, equal neighbours merged.

use crate::arch::{ARM_PRIVATE, Arch, SIGN_BIT, X32_BIT};
use crate::policy::{Condition, KILL_THREAD, Operator, Policy, RETURN_ENOSYS};

/// What the filter does with a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Return(u32),
    /// The first alternative that holds decides; if none does, the default action.
    Test(Vec<Alternative>),
}

/// A return value under conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    pub(crate) action: u32,
    pub(crate) conditions: Vec<Condition>,
    /// Whether the upper halves of the arguments count.
    pub(crate) wide: bool,
}

/// Calls from `start` up to the next range's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    /// Into [`Ranges::decisions`].
    pub(crate) decision: usize,
}

/// All decisions of a policy; number 0 is the default action.
#[derive(Debug)]
pub(crate) struct Ranges<'a> {
    policy: &'a Policy,
    pub(crate) decisions: Vec<Decision>,
}

/// A rule that names a call: sorted, the rules of one number stand together in the profile's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    number: u32,
    rule: u32,
    /// The first argument of `socketcall` or `ipc`, or 0.
    call: u8,
    /// Whether this is a call that `socketcall` or `ipc` also stands for.
    multiplexed: bool,
}

impl<'a> Ranges<'a> {
    pub(crate) fn new(policy: &'a Policy) -> Ranges<'a> {
        Ranges { policy, decisions: vec![Decision::Return(policy.default)] }
    }

    pub(crate) fn index_of(&mut self, decision: Decision) -> usize {
        self.decisions.iter().position(|known| *known == decision).unwrap_or_else(|| {
            self.decisions.push(decision);
            self.decisions.len() - 1
        })
    }

    /// The ranges of all interfaces of the policy that share `seccomp_data.arch` with `arch`.
    pub(crate) fn of(&mut self, arch: Arch) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(512);
        let beyond = self.extend(&mut ranges, arch);
        if arch != Arch::X86_64 {
            return ranges;
        }
        // Bit 30 alone tells the calls of x32 from the others, also where bit 31 is set.
        if self.policy.arches.contains(&Arch::X32) {
            let beyond_x32 = self.extend(&mut ranges, Arch::X32);
            push(&mut ranges, SIGN_BIT, beyond);
            push(&mut ranges, SIGN_BIT | X32_BIT, beyond_x32);
        } else {
            let kill = self.index_of(Decision::Return(KILL_THREAD));
            push(&mut ranges, X32_BIT, kill);
            push(&mut ranges, SIGN_BIT, if beyond == 0 { kill } else { beyond });
            push(&mut ranges, SIGN_BIT | X32_BIT, kill);
            // A tracer sets -1 to skip a call; the filter sees that number since Linux 4.8.
            push(&mut ranges, u32::MAX, 0);
        }
        ranges
    }

    /// Appends the ranges of one interface; the decision for calls beyond those that the profile names.
    fn extend(&mut self, ranges: &mut Vec<Range>, arch: Arch) -> usize {
        let named = self.named(arch);
        push(ranges, if arch == Arch::X32 { X32_BIT } else { 0 }, 0);
        // A number that is not named and greater than this is newer than the profile. Calls that are private to
        // ARM say nothing about the others' age, nor, as in runc, do those that `socketcall` and `ipc` stand for.
        let private = arch.base() + ARM_PRIVATE;
        let mut own = named.iter().rev().filter(|n| !n.multiplexed).map(|n| n.number);
        let largest = own.clone().find(|number| *number < private).or(own.next());
        // Number 0 as the largest means in runc that nothing was found.
        let last = largest.filter(|last| self.policy.enosys && *last != 0);
        let enosys = last.map_or(0, |_| self.index_of(Decision::Return(RETURN_ENOSYS)));
        if matches!(arch, Arch::S390 | Arch::S390x) {
            // The kernel reports a call with a large number that it does not know as 0.
            push(ranges, 0, enosys);
            push(ranges, 1, 0);
        }
        for group in named.chunk_by(|a, b| a.number == b.number) {
            let number = group[0].number;
            if number == 0 && enosys != 0 && matches!(arch, Arch::S390 | Arch::S390x) {
                continue;
            }
            let decision = self.decision(group, arch);
            push(ranges, number, decision);
            push(ranges, number + 1, if last.is_some_and(|last| number >= last) { enosys } else { 0 });
        }
        enosys
    }

    fn named(&self, arch: Arch) -> Vec<Named> {
        let rules = &self.policy.rules;
        let mut named = Vec::with_capacity(rules.iter().map(|rule| rule.calls.len()).sum::<usize>() + 32);
        for (at, rule) in (0u32..).zip(rules) {
            for call in &rule.calls {
                let multiplexed = call.multiplexed(arch);
                if let Some((number, first)) = multiplexed {
                    named.push(Named { number, rule: at, call: first, multiplexed: true });
                }
                if let Some(number) = call.number(arch) {
                    named.push(Named { number, rule: at, call: 0, multiplexed: multiplexed.is_some() });
                }
            }
        }
        named.sort_unstable();
        named
    }

    /// An unconditional rule swallows the conditional ones before and after it, and the first such rule wins.
    fn decision(&mut self, group: &[Named], arch: Arch) -> usize {
        let mut alternatives = Vec::new();
        for named in group {
            let rule = &self.policy.rules[named.rule as usize];
            // It adds nothing, and must not swallow what other rules say of the call.
            if rule.action == self.policy.default {
                continue;
            }
            for conditions in &rule.any_of {
                let conditions = on_arch(conditions, named.call, arch.wide());
                if conditions.is_empty() {
                    return self.index_of(Decision::Return(rule.action));
                }
                alternatives.push(Alternative { action: rule.action, conditions, wide: arch.wide() });
            }
        }
        if alternatives.is_empty() {
            return 0;
        }
        alternatives.sort_by_cached_key(|alternative| specificity(&alternative.conditions));
        // Those that differ in an argument that `socketcall` and `ipc` hide have become one.
        alternatives.dedup();
        self.index_of(Decision::Test(alternatives))
    }
}

/// Appends a range that starts at or after the last one's start.
fn push(ranges: &mut Vec<Range>, start: u32, decision: usize) {
    if ranges.last().is_some_and(|last| last.start == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.decision != decision) {
        ranges.push(Range { start, decision });
    }
}

/// The conditions as `arch` can test them, sorted by argument.
///
/// For `socketcall` and `ipc` the number of the call replaces a condition on the first argument, as in
/// libseccomp. The real arguments are in memory, which no filter can read: **a rule that allows `socket` for
/// some families allows `socketcall(SYS_SOCKET)` for all.**
fn on_arch(conditions: &[Condition], call: u8, wide: bool) -> Vec<Condition> {
    let mut all: Vec<Condition> = conditions.to_vec();
    if call != 0 {
        all.retain(|condition| condition.index != 0);
        all.push(Condition { index: 0, operator: Operator::Eq, mask: u64::MAX, value: call.into() });
    }
    if !wide {
        for condition in &mut all {
            condition.mask &= u64::from(u32::MAX);
            condition.value &= u64::from(u32::MAX);
        }
    }
    all.retain(|condition| condition.mask != 0);
    all.sort_by_key(|condition| condition.index);
    all
}

/// The order in which libseccomp tests alternatives, so that two of them that both hold but differ in their
/// action end alike: by argument, the last first; equality before ranges; then the narrower range.
fn specificity(conditions: &[Condition]) -> Vec<(u8, u8, u64)> {
    let key = |condition: &Condition| match condition.operator {
        Operator::Eq | Operator::Ne | Operator::MaskedEq => (5 - condition.index, 0, !condition.value),
        Operator::Le | Operator::Lt => (5 - condition.index, 1, condition.value),
        Operator::Ge | Operator::Gt => (5 - condition.index, 2, !condition.value),
    };
    conditions.iter().map(key).collect()
}
