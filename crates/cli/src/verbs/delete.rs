//! `delete`

use crate::call::Call;
use crate::command::{Command, Count, Flag};
use crate::failure::Failure;

/// `offshoot delete`
pub static COMMAND: Command = Command::new("delete", "remove a container and all that it holds", run)
    .takes("<container-id>", Count::Exactly(1))
    .flags(&[Flag::switch("force", "kill it first, whatever it does; no container is no error").short("f")])
    .details("Removes a container that has stopped or was never started: its cgroup and its\nstate, then runs its poststop hooks.");

fn run(call: &Call) -> Result<u8, Failure> {
    call.runtime()?.delete(call.id()?, call.on("force"))?;
    Ok(0)
}
