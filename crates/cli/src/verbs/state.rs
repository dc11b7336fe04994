//! `state`

use crate::call::Call;
use crate::command::{Command, Count};
use crate::failure::Failure;
use crate::output::print;

/// `offshoot state`
pub static COMMAND: Command = Command::new("state", "output the state of a container", run)
    .takes("<container-id>", Count::Exactly(1))
    .details("Prints the state of a container as JSON. Its status is creating, created,\nrunning, paused or stopped.");

fn run(call: &Call) -> Result<u8, Failure> {
    print(call.runtime()?.state(call.id()?)?.to_json())?;
    Ok(0)
}
