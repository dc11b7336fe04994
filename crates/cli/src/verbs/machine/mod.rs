//! `machine`: whole systems by name.

mod enter;
mod launch;
mod look;
mod state;

use crate::call::Call;
use crate::command::{Command, Flag};
use crate::failure::Failure;
use crate::output::print;
use crate::verbs::network::{failed, home};
use offshoot_machine::{Error, Machines, Outcome, Result};
use std::time::Instant;

/// `offshoot machine`
pub static COMMAND: Command = Command::group(
    "machine",
    "make, run and look after whole systems by name",
    &[
        &launch::LAUNCH,
        &state::START,
        &state::STOP,
        &state::WAIT,
        &state::RESTART,
        &state::REMOVE,
        &look::LIST,
        &look::SHOW,
        &look::TOP,
        &state::SET,
        &enter::SHELL,
        &enter::EXEC,
        &enter::CONSOLE,
        &enter::LOGS,
        &state::SNAPSHOT,
        &state::ROLLBACK,
        &state::FORGET,
        &launch::CLONE,
        &state::SUPERVISE,
    ],
);

/// Every machine there is.
pub(super) const ALL: Flag = Flag::switch("all", "every machine").short("a");

pub(super) fn machines(call: &Call) -> std::result::Result<Machines, Failure> {
    call.check_empty()?;
    let runtime = call.runtime()?;
    if runtime.systemd_cgroup {
        // A scope of systemd's own would end with the service that started it, and guests need a delegated directory.
        return Err(Failure::new("machines have cgroups of their own, below /offshoot, which systemd does not manage")
            .hint("leave --systemd-cgroup out"));
    }
    Ok(Machines::new(home(call), runtime))
}

/// The machines that the arguments name.
pub(super) fn selected(call: &Call, machines: &Machines) -> std::result::Result<Vec<String>, Failure> {
    machines.select(call.arguments(), call.on("all")).map_err(failed)
}

/// Tells a failure as soon as it is known.
pub(super) fn report(name: &str, result: &Result<()>) {
    if let Err(error) = result {
        eprintln!("{name}: {error}");
        if let Some(hint) = error.advice() {
            eprintln!("hint: {hint}");
        }
    }
}

/// The sentence at the end, and the exit status.
pub(super) fn summed(
    outcome: std::result::Result<Outcome, Error>,
    done: &str,
    since: Instant,
) -> std::result::Result<u8, Failure> {
    let outcome = outcome.map_err(failed)?;
    print(sentence(&outcome, done, since.elapsed().as_secs_f64()))?;
    Ok(u8::from(!outcome.is_good()))
}

fn sentence(outcome: &Outcome, done: &str, seconds: f64) -> String {
    let machines = |count: usize| if count == 1 { "1 machine".to_owned() } else { format!("{count} machines") };
    match outcome.failed.len() {
        0 => format!("{} {done} in {seconds:.2} s\n", machines(outcome.done)),
        bad => format!("{} {done} in {seconds:.2} s, {bad} failed\n", machines(outcome.done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offshoot_machine::Kind;

    #[test]
    fn one_sentence_sums_up() {
        let mut outcome = Outcome { done: 1, failed: Vec::new() };
        assert_eq!(sentence(&outcome, "started", 0.5), "1 machine started in 0.50 s\n");
        outcome.failed.push(("x".into(), Error::new(Kind::System, "no")));
        outcome.done = 511;
        assert_eq!(sentence(&outcome, "stopped", 2.345), "511 machines stopped in 2.35 s, 1 failed\n");
    }
}
