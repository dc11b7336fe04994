//! `start`

use crate::call::Call;
use crate::command::{Command, Count};
use crate::failure::Failure;

/// `offshoot start`
pub static COMMAND: Command =
    Command::new("start", "run the program of a created container", run).takes("<container-id>", Count::Exactly(1));

fn run(call: &Call) -> Result<u8, Failure> {
    call.runtime()?.start(call.id()?)?;
    Ok(0)
}
